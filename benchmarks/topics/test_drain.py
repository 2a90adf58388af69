"""Draining a 1 MiB ring of 12,000 events into histograms, by number of backends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pytest

from .. import builder
from ..contenders.agents import Agent
from ..contenders.floors import CountingFloor, MemoryFloor
from ..contenders.ours import Tracked
from ..harness import cpu_ns, interleave, threads
from ..replay import Publish
from ..rings import Ring, Traffic

BACKENDS = [16, 100, 1_000, 10_000, 100_000]
MEMORY, COUNTING = "memory floor", "counting floor"
IDS, HASH = "lblatency, ids", "lblatency, hash"
PEERS = {"C++ stack": "cpp", "Go stack": "go"}
WORST, TYPICAL = Traffic(0), Traffic(0, octave=24, octaves=7)  # the latter: 17 ms to 2.1 s
OPENED = "back to back, half of them opened"
STATES = {  # lifetimes, and which of the two drains
    "after others": (WORST, 0),
    "back to back": (WORST, 1),
    "back to back, two decades": (TYPICAL, 1),
    OPENED: (replace(WORST, with_opened=True), 1),
}

Turn = Callable[[int], tuple[float, float] | None]
Run = Callable[[Traffic], float | None]
Samples = Mapping[str, list[float]]


def _twice(run: Run, traffic: Traffic) -> Turn:
    """Drain when others have used the caches, then again at once."""

    def turn(number: int) -> tuple[float, float] | None:
        first = run(replace(traffic, seed=2 * number))
        second = run(replace(traffic, seed=2 * number + 1))
        return None if first is None or second is None else (first, second)

    return turn


class Drains:
    """The ns per event of all contenders; each traffic is measured when a test needs it."""

    def __init__(self, rounds: int, ring: Ring, agents: Mapping[str, Agent]) -> None:
        self._rounds, self._ring, self._agents = rounds, ring, agents
        self._known: dict[Traffic, dict[str, list[tuple[float, float]]]] = {}

    def of(self, backends: int, state: str) -> Samples:
        """A list for each contender."""
        lifetimes, which = STATES[state]
        traffic = replace(lifetimes, backends=backends)
        if traffic not in self._known:
            self._known[traffic] = self._measure(traffic)
        return {
            name: [pair[which] for pair in pairs] for name, pairs in self._known[traffic].items()
        }

    def _measure(self, traffic: Traffic) -> dict[str, list[tuple[float, float]]]:
        contenders = {MEMORY: _twice(MemoryFloor(self._ring).drain, traffic)}
        with contextlib.ExitStack() as stack:
            for name, with_ids in ((IDS, True), (HASH, False)):
                tracked = Tracked(replace(traffic, with_ids=with_ids))
                stack.callback(tracked.close)
                contenders[name] = _twice(tracked.drain, replace(traffic, with_ids=with_ids))
            if not traffic.with_opened:
                contenders |= self._closed_only(traffic)
            return interleave(contenders, self._rounds)

    def _closed_only(self, traffic: Traffic) -> dict[str, Turn]:
        """The contenders that cannot read opened events."""
        counting = CountingFloor(self._ring, traffic.backends)
        contenders = {COUNTING: _twice(counting.drain, traffic)}
        for name, agent in self._agents.items():
            agent.learn(traffic)
            contenders[name] = _twice(agent.drain, traffic)
        return contenders


@pytest.fixture(scope="module")
def left_out() -> dict[str, str]:
    """The peers that cannot be built here, and why."""
    return {}


@pytest.fixture(scope="module")
def drains(rounds: int, left_out: dict[str, str]) -> Iterator[Drains]:
    """All contenders, with the peers that could be built."""
    ring = Ring()
    agents = {}
    with contextlib.ExitStack() as stack:
        for name, language in PEERS.items():
            try:
                agents[name] = stack.enter_context(Agent(language, ring))
            except builder.MissingError as reason:
                left_out[name] = str(reason)
        yield Drains(rounds, ring, agents)


@pytest.mark.parametrize("contender", [MEMORY, COUNTING, IDS, HASH, *PEERS])
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("backends", BACKENDS)
def test_drain(
    backends: int,
    state: str,
    contender: str,
    smoke: bool,
    drains: Drains,
    left_out: dict[str, str],
    publish: Publish,
) -> None:
    """Drain and record, compared with the floors and the agents that people write."""
    if smoke and backends > 1_000:
        pytest.skip("too many backends for a smoke test")
    if state == OPENED and contender in (COUNTING, *PEERS):
        pytest.skip(f"{contender} takes no events of opened connections")
    if contender in left_out:
        pytest.skip(f"{contender} left out: {left_out[contender]}")
    publish(f"drain, {state}", f"{backends} backends", contender, drains.of(backends, state))


# ---- start() runs what is measured above ----

BY_HAND, BY_THREAD = "lbl_stream_drain()", "drain thread, CPU time"


def _drained_by_thread(tracked: Tracked, thread: int, traffic: Traffic) -> float:
    before = cpu_ns(thread)
    tracked.ring.fill(traffic, for_stream=True)
    while tracked.stream.stats().in_ring:
        time.sleep(0.01)
    return (cpu_ns(thread) - before) / traffic.n


@pytest.fixture(scope="module")
def both_ways(rounds: int) -> Iterator[Samples]:
    """The same events drained by hand, and left to the thread."""
    traffic = Traffic(1_000, with_ids=True)
    others = threads("lbl-drain")
    tracked = Tracked(traffic)
    (thread,) = threads("lbl-drain") - others
    yield interleave(
        {
            BY_HAND: lambda number: tracked.drain(replace(traffic, seed=number)),
            BY_THREAD: lambda number: _drained_by_thread(
                tracked, thread, replace(traffic, seed=number)
            ),
        },
        rounds,
    )
    tracked.close()


@pytest.mark.parametrize("way", [BY_HAND, BY_THREAD])
def test_thread(way: str, both_ways: Samples, publish: Publish) -> None:
    """The thread takes as long, except for one wakeup per 12,000 events."""
    publish("drain thread", "1000 backends, ids", way, both_ways)
