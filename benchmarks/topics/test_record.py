"""Recording one duration from Python."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any

import pytest

from lblatency import LatencyTracker
from lblatency.buckets import REFERENCE_BUCKETS

from ..harness import CONSUMER, interleave, pin, same
from ..replay import Publish

CALLS = 20_000
SECONDS = 0.0123
LABELS = ("web", "10.0.0.1", "8080")

RECORD, BOUND = "record_latency()", "backend().observe()"
PROM_LABELS, PROM_BOUND = (
    "prometheus_client labels().observe()",
    "prometheus_client child.observe()",
)
HDR, DDSKETCH = "hdrhistogram record_value()", "ddsketch add()"
NAMES = [RECORD, BOUND, PROM_LABELS, PROM_BOUND, HDR, DDSKETCH]

Loop = Callable[[], float]


def _loop(call: Callable[[Any], Any], value: Any = SECONDS) -> Loop:
    """Ns per call in a loop, including the loop."""

    def loop() -> float:
        start = time.perf_counter_ns()
        for each in repeat(value, CALLS):
            call(each)
        return (time.perf_counter_ns() - start) / CALLS

    return loop


def _record_loop(record: Callable[[str, str, float], None]) -> Loop:
    def loop() -> float:
        start = time.perf_counter_ns()
        for each in repeat(SECONDS, CALLS):
            record("web", "10.0.0.1:8080", each)
        return (time.perf_counter_ns() - start) / CALLS

    return loop


def _labels_loop(labels: Callable[..., Any]) -> Loop:
    def loop() -> float:
        start = time.perf_counter_ns()
        for each in repeat(SECONDS, CALLS):
            labels("web", "10.0.0.1", "8080").observe(each)
        return (time.perf_counter_ns() - start) / CALLS

    return loop


def _ours() -> dict[str, Loop]:
    tracker = LatencyTracker(buckets=REFERENCE_BUCKETS)
    return {
        RECORD: _record_loop(tracker.record_latency),
        BOUND: _loop(tracker.backend("web", "10.0.0.1:8080").observe),
    }


def _prometheus() -> dict[str, Loop]:
    from prometheus_client import CollectorRegistry, Histogram

    histogram = Histogram(
        "lb_backend_latency_seconds",
        "Lifetime of connections.",
        ["proxy_name", "target_ip", "target_port"],
        buckets=REFERENCE_BUCKETS,
        registry=CollectorRegistry(),
    )
    return {
        PROM_LABELS: _labels_loop(histogram.labels),
        PROM_BOUND: _loop(histogram.labels(*LABELS).observe),
    }


def _hdr() -> dict[str, Loop]:
    hdrh = pytest.importorskip("hdrh.histogram")
    histogram = hdrh.HdrHistogram(1, 86_400_000_000, 2)  # us
    return {HDR: _loop(histogram.record_value, int(SECONDS * 1e6))}


def _ddsketch() -> dict[str, Loop]:
    ddsketch = pytest.importorskip("ddsketch")
    return {DDSKETCH: _loop(ddsketch.DDSketch(0.0055).add)}


@pytest.fixture(scope="module")
def samples(rounds: int) -> Mapping[str, list[float]]:
    """The ns per call of all contenders."""
    pin(CONSUMER)
    loops: dict[str, Loop] = {}
    for make in (_ours, _prometheus, _hdr, _ddsketch):
        try:
            loops |= make()
        except pytest.skip.Exception:
            continue
    return interleave({name: same(loop) for name, loop in loops.items()}, rounds)


@pytest.mark.parametrize("name", NAMES)
def test_record(name: str, samples: Mapping[str, list[float]], publish: Publish) -> None:
    """One call after the other, with and without looking names up."""
    if name not in samples:
        pytest.skip(f"{name} left out: pip install {name.split()[0]}")
    publish("record", "one call", name, samples)
