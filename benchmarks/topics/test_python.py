"""The drain, compared with Python that handles events one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram

from lblatency.buckets import REFERENCE_BUCKETS

from .. import builder
from ..contenders.callback import Callback
from ..contenders.ours import Tracked
from ..harness import interleave
from ..replay import Publish
from ..rings import Ring, Traffic, ffi

BACKENDS, CALLS = [16, 1_000], 4_000
OURS = "lblatency"
EMPTY = "cffi callback that does nothing"
FULL = "cffi callback, prometheus_client observe()"
OBSERVE = "prometheus_client observe(), no ring"
NAMES = [OURS, EMPTY, FULL, OBSERVE]


def _children(backends: int) -> list[Any]:
    histogram = Histogram(
        "lb_backend_latency_seconds",
        "Lifetime of connections.",
        ["proxy_name", "target_ip", "target_port"],
        buckets=REFERENCE_BUCKETS,
        registry=CollectorRegistry(),
    )
    return [histogram.labels("web", f"10.0.{i >> 8}.{i & 255}", "8080") for i in range(backends)]


def _nothing(_ctx: object, _data: object, _size: int) -> int:
    return 0


def _observing(children: list[Any]) -> Callable[[object, Any, int], int]:
    """A callback as one would write it: decode, look up, observe."""

    def seen(_ctx: object, data: Any, _size: int) -> int:
        event = ffi.cast("struct lbl_event *", data)
        seconds = (event.timestamp_ns - event.created_ns) / 1e9
        children[event.backend_id - 1].observe(seconds)
        return 0

    return seen


def _observe_only(children: list[Any]) -> float:
    start = time.perf_counter_ns()
    for child in islice(cycle(children), CALLS):
        child.observe(0.0123)
    return (time.perf_counter_ns() - start) / CALLS


def _turn(
    run: Callable[[Traffic], float | None], traffic: Traffic
) -> Callable[[int], float | None]:
    return lambda number: run(replace(traffic, seed=number))


@pytest.fixture(scope="module")
def left_out() -> dict[str, str]:
    """The peers that cannot be built here, and why."""
    return {}


@pytest.fixture(scope="module", params=BACKENDS)
def traffic(request: pytest.FixtureRequest) -> Traffic:
    """Events with ids, which help Python too."""
    return Traffic(request.param, with_ids=True)


@pytest.fixture(scope="module")
def samples(
    traffic: Traffic, rounds: int, left_out: dict[str, str]
) -> Iterator[Mapping[str, list[float]]]:
    """The ns per event of all contenders."""
    tracked, ring, children = Tracked(traffic), Ring(), _children(traffic.backends)
    runs: dict[str, Callable[[Traffic], float | None]] = {
        OURS: tracked.drain,
        OBSERVE: lambda _: _observe_only(children),
    }
    for name, seen in ((EMPTY, _nothing), (FULL, _observing(children))):
        try:
            runs[name] = Callback(ring, seen).drain
        except builder.MissingError as reason:
            left_out[name] = str(reason)
    yield interleave({name: _turn(run, traffic) for name, run in runs.items()}, rounds)
    tracked.close()


@pytest.mark.parametrize("name", NAMES)
def test_python(
    name: str,
    traffic: Traffic,
    samples: Mapping[str, list[float]],
    left_out: dict[str, str],
    publish: Publish,
) -> None:
    """An event in C, compared with an event in Python."""
    if name in left_out:
        pytest.skip(f"{name} left out: {left_out[name]}")
    publish("python per event", f"{traffic.backends} backends", name, samples)
