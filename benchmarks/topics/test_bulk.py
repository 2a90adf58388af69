"""Recording a million durations at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from lblatency import LatencyTracker
from lblatency.buckets import REFERENCE_BUCKETS

from ..harness import CONSUMER, interleave, pin
from ..replay import Publish

np = pytest.importorskip("numpy", reason="left out: pip install numpy")

MILLION = 1_000_000
OURS, BOOST, NUMPY = "record_many()", "boost-histogram fill()", "NumPy searchsorted, bincount, sum"
NAMES = [OURS, BOOST, NUMPY]


def _ours(values: Any) -> Callable[[], object]:
    tracker = LatencyTracker(buckets=REFERENCE_BUCKETS)
    return lambda: tracker.record_many("web", "10.0.0.1:8080", values)


def _numpy(values: Any) -> Callable[[], object]:
    bounds = np.array(REFERENCE_BUCKETS)
    counts = np.zeros(len(bounds) + 1, dtype=np.int64)

    def fill() -> object:
        slots = np.searchsorted(bounds, values, side="left")
        np.add(counts, np.bincount(slots, minlength=len(counts)), out=counts)
        return values.sum()

    return fill


def _boost(values: Any) -> Callable[[], object]:
    boost = pytest.importorskip("boost_histogram")
    axis = boost.axis.Variable(REFERENCE_BUCKETS)
    histogram = boost.Histogram(axis, storage=boost.storage.Int64())
    return lambda: histogram.fill(values, threads=1)


def _turn(fill: Callable[[], object]) -> Callable[[int], float]:
    def turn(_number: int) -> float:
        start = time.perf_counter_ns()
        fill()
        return (time.perf_counter_ns() - start) / MILLION

    return turn


@pytest.fixture(scope="module")
def samples(rounds: int) -> Mapping[str, list[float]]:
    """The ns per value of all contenders."""
    pin(CONSUMER)
    values = 2.0 ** np.random.default_rng(1).uniform(-16, 4, MILLION)  # 15 us to 16 s
    turns = {OURS: _turn(_ours(values)), NUMPY: _turn(_numpy(values))}
    with contextlib.suppress(pytest.skip.Exception):
        turns[BOOST] = _turn(_boost(values))
    return interleave(turns, rounds)


@pytest.mark.parametrize("name", NAMES)
def test_bulk(name: str, samples: Mapping[str, list[float]], publish: Publish) -> None:
    """A million durations of a float64 array, log-uniform over six decades."""
    if name not in samples:
        pytest.skip(f"{name} left out: pip install {name.split()[0]}")
    publish("bulk", "1 M doubles", name, samples)
