"""Draining events that tell four latencies: recording all of them, or the lifetime alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pytest

from lblatency.buckets import METRICS

from ..contenders.ours import Tracked
from ..harness import interleave
from ..replay import Publish
from ..rings import Traffic

BACKENDS = [16, 1_000, 10_000, 100_000]
RECORDED = {"lifetime alone": ("lifetime",), "four latencies": tuple(METRICS)}

Samples = Mapping[str, list[float]]


@pytest.fixture(scope="module", params=BACKENDS)
def traffic(request: pytest.FixtureRequest, smoke: bool) -> Traffic:
    """Events with ids and with all latencies, for both trackers."""
    if smoke and request.param > 1_000:
        pytest.skip("too many backends for a smoke test")
    return Traffic(request.param, with_ids=True, all_latencies=True)


@pytest.fixture(scope="module")
def samples(traffic: Traffic, rounds: int) -> Iterator[Samples]:
    """The ns per event of both trackers."""
    with contextlib.ExitStack() as stack:
        trackers = {name: Tracked(traffic, metrics=each) for name, each in RECORDED.items()}
        for tracked in trackers.values():
            stack.callback(tracked.close)
        yield interleave(
            {name: _turn(tracked, traffic) for name, tracked in trackers.items()}, rounds
        )


def _turn(tracked: Tracked, traffic: Traffic) -> Callable[[int], float | None]:
    return lambda number: tracked.drain(replace(traffic, seed=number))


@pytest.mark.parametrize("name", RECORDED)
def test_latencies(name: str, traffic: Traffic, samples: Samples, publish: Publish) -> None:
    """Recording four latencies adds three counters and sums per event."""
    publish("latencies", f"{traffic.backends} backends", name, samples)
