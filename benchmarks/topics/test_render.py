"""The bytes of a scrape: rendered in C, and by prometheus_client."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from lblatency import LatencyCollector, LatencyTracker
from lblatency.render import OPENMETRICS, PROTOBUF, TEXT, Capture, Format, exposition

from ..harness import CONSUMER, interleave, pin
from ..replay import Publish

Samples = Mapping[str, list[float]]
BACKENDS, OBSERVATIONS = (10_000, 100_000), 100
PLAIN = "generate_latest(), HistogramMetricFamily"
COLLECTOR = "generate_latest(), LatencyCollector"
WHOLE = "exposition(), text"
TEXT_BYTES, OPENMETRICS_BYTES = "text, in pieces", "OpenMetrics, in pieces"
CLASSIC_AND_NATIVE, OTLP = "protobuf, classic and native", "OTLP"
READING = "reading alone"
OURS = (WHOLE, TEXT_BYTES, OPENMETRICS_BYTES, CLASSIC_AND_NATIVE, OTLP, READING)
SLOW_ROUNDS = 7  # of prometheus_client, which takes a second each


class Plain:
    """The collector that one would write with the tracker's methods."""

    def __init__(self, tracker: LatencyTracker) -> None:
        self._tracker = tracker

    def describe(self) -> list[HistogramMetricFamily]:
        """Register without a scrape."""
        return []

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The lifetimes, as the documentation of prometheus_client has it."""
        labels = ["proxy_name", "target_ip", "target_port"]
        family = HistogramMetricFamily("lb_backend_latency_seconds", "Lifetimes.", labels=labels)
        for values, histogram in self._tracker.get_histograms_for_metrics().items():
            bounds = map(floatToGoString, histogram.buckets)
            buckets = [*zip(bounds, histogram.counts, strict=True), ("+Inf", histogram.count)]
            family.add_metric(values, buckets, histogram.sum)
        yield family


def _tracker(backends: int) -> LatencyTracker:
    """Lifetimes of two decades at each backend, like real ones."""
    tracker = LatencyTracker(max_backends=backends)
    generator = random.Random(1)
    for i in range(backends):
        seconds = [generator.lognormvariate(-2, 1) for _ in range(OBSERVATIONS)]
        tracker.record_many("web", f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}:80", seconds)
    return tracker


def _timed(make: Callable[[], object]) -> Callable[[int], float]:
    """With Python's own collection of garbage on, as in a program."""

    def turn(_number: int) -> float:
        gc.enable()
        start = time.perf_counter_ns()
        made = make()
        took = time.perf_counter_ns() - start
        gc.disable()
        del made
        return took

    return turn


def _by_registry(collector: object) -> Callable[[], object]:
    registry = CollectorRegistry()
    registry.register(collector)  # type: ignore[arg-type]
    return lambda: generate_latest(registry)


def _pieces(tracker: LatencyTracker, into: Format) -> None:
    """One after the other, as a server compresses or sends them."""
    for _ in Capture(tracker).pieces(into):
        pass


def _ours(tracker: LatencyTracker) -> dict[str, Callable[[], object]]:
    return {
        WHOLE: lambda: exposition(tracker),
        TEXT_BYTES: lambda: _pieces(tracker, TEXT),
        OPENMETRICS_BYTES: lambda: _pieces(tracker, OPENMETRICS),
        CLASSIC_AND_NATIVE: lambda: _pieces(tracker, PROTOBUF),
        OTLP: lambda: Capture(tracker).render_otlp({}),
        READING: lambda: Capture(tracker),
    }


@pytest.fixture(scope="module", params=BACKENDS, ids=str)
def measured(request: pytest.FixtureRequest, rounds: int, smoke: bool) -> tuple[int, Samples]:
    """How many backends, and the ns that each contender took for all of them."""
    backends: int = request.param // (100 if smoke else 1)
    pin(CONSUMER)
    tracker = _tracker(backends)
    turns = _ours(tracker)
    if request.param == BACKENDS[0]:
        turns[COLLECTOR] = _by_registry(LatencyCollector(tracker))
        turns[PLAIN] = _by_registry(Plain(tracker))
    timed = {name: _timed(make) for name, make in turns.items()}
    return request.param, interleave(timed, min(rounds, SLOW_ROUNDS))


@pytest.mark.parametrize("name", [*OURS, COLLECTOR, PLAIN])
def test_render(name: str, measured: tuple[int, Samples], publish: Publish) -> None:
    """Nothing is copied or compressed: what comes after is the HTTP server's."""
    backends, samples = measured
    if name not in samples:
        pytest.skip("left out: prometheus_client would take ten seconds per scrape")
    ms = sorted(samples[name])[len(samples[name]) // 2] / 1e6
    publish("render", f"{backends} backends", name, samples, ms=ms)
