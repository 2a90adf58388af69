"""A producer and the drain thread at the same time, each on its own CPU."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest

from lblatency.stats import StreamStats

from .. import builder
from ..contenders.agents import Agent
from ..contenders.ours import Tracked
from ..harness import CONSUMER, PRODUCER, cpu_ns, interleave, pin, threads
from ..replay import Publish
from ..rings import Ring, Traffic, ffi, lib

LARGE_RING = 16 << 20
ORDINARY = 7_000
TRAFFIC = Traffic(1_000, with_ids=True)


class Live:
    """A tracker, its drain thread, and its producer."""

    def __init__(self, size: int) -> None:
        others = threads("lbl-drain")
        self.tracked = Tracked(TRAFFIC, size)
        (self._thread,) = threads("lbl-drain") - others

    def stats(self) -> StreamStats:
        """The counters of the stream."""
        return self.tracked.stream.stats()

    def cpu(self, work: Callable[[], object]) -> tuple[int, int]:
        """Run `work` until the ring is empty; returns the drain thread's CPU time, and all time."""
        cpu, start = cpu_ns(self._thread), time.perf_counter_ns()
        work()
        while self.stats().in_ring:
            time.sleep(0.001)
        return cpu_ns(self._thread) - cpu, time.perf_counter_ns() - start

    def waited_ms(self) -> float:
        """How long others have kept the drain thread from its CPU so far."""
        return int(Path(f"/proc/self/task/{self._thread}/schedstat").read_text().split()[1]) / 1e6


@contextlib.contextmanager
def live(size: int) -> Iterator[Live]:
    """A live tracker, which ends with the block. Skips the test if the kernel refuses BPF."""
    started = Live(size)
    try:
        started.tracked.ring.require_kernel()
        yield started
    except builder.MissingError as reason:
        pytest.skip(f"left out: {reason}")
    finally:
        started.tracked.close()


def pace(ring: Ring, how: int, per_second: float, seconds: float, burst: int) -> tuple[int, float]:
    """Produce at a steady rate; returns how many events, and the producer's ns per event."""
    spec = ffi.new("struct bench_spec *", {"backends": 1_000, "with_ids": 1, "n": burst,
                                           "octave": 14, "octaves": 20})  # fmt: skip
    pin(PRODUCER)
    n = lib.bench_pace(ring.ptr, how, spec, per_second, seconds)
    pin(CONSUMER)
    return n, spec.spent_ns / n


def test_sustained(smoke: bool, publish: Publish) -> None:
    """10 M events/s: nothing is lost, and hardly a core is used."""
    seconds = 0.2 if smoke else 10
    with live(LARGE_RING) as ours:
        before, waited_before, made = ours.stats(), ours.waited_ms(), []
        cpu, wall = ours.cpu(
            lambda: made.append(pace(ours.tracked.ring, lib.BENCH_PRODUCE, 10e6, seconds, 4_000))
        )
        after, waited_ms = ours.stats(), ours.waited_ms() - waited_before
    n, producer_ns = made[0]
    dropped = (after.dropped or 0) - (before.dropped or 0)
    assert after.received - before.received + dropped == n
    publish(
        "sustained",
        "10 M events/s, 16 MiB ring",
        "lblatency",
        {"lblatency": [cpu / n]},
        million_per_second=n / wall * 1e3,
        dropped=dropped,
        core_percent=100 * cpu / wall,
        producer_ns=producer_ns,
        waited_ms=waited_ms,
        fill_max_percent=100 * after.fill_max_bytes / after.size_bytes,
    )


# ---- an ordinary balancer ----

OURS, DEFAULT = "lblatency", "C++ stack, default wakeups"


def _overhead(ring: Ring) -> float:
    """How much of the producer's time goes into its clock and into making an event."""
    return pace(ring, lib.BENCH_NOWHERE, ORDINARY, 0.2, 1)[1]


def _ours_ordinary(ours: Live, seconds: int) -> tuple[float, float]:
    made: list[tuple[int, float]] = []
    cpu, _ = ours.cpu(
        lambda: made.append(pace(ours.tracked.ring, lib.BENCH_PRODUCE, ORDINARY, seconds, 1))
    )
    return made[0][1], cpu / made[0][0]


def _default_ordinary(agent: Agent, ring: Ring, seconds: int) -> tuple[float, float]:
    agent.ask("poll", "ordinary", seconds + 1)
    _, producer_ns = pace(ring, lib.BENCH_WAKING, ORDINARY, seconds, 1)
    seen, cpu = agent.answer()
    return producer_ns, cpu / seen


@pytest.fixture(scope="module")
def ordinary(smoke: bool) -> Iterator[dict[str, tuple[float, float]]]:
    """The producer's and the consumer's ns of CPU per event."""
    seconds, rounds = (1, 1) if smoke else (2, 5)
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(live(1 << 20))
        turns = {OURS: lambda _: _ours_ordinary(ours, seconds)}
        with contextlib.suppress(builder.MissingError):
            ring = Ring()
            agent = stack.enter_context(Agent("cpp", ring))
            agent.learn(TRAFFIC)
            turns[DEFAULT] = lambda _: _default_ordinary(agent, ring, seconds)
        overhead = _overhead(ours.tracked.ring)
        samples = interleave(turns, rounds, warmup=0)
        yield {
            name: (
                median(producer for producer, _ in pairs) - overhead,
                median(consumer for _, consumer in pairs),
            )
            for name, pairs in samples.items()
        }


@pytest.mark.parametrize("name", [OURS, DEFAULT])
def test_ordinary(name: str, ordinary: dict[str, tuple[float, float]], publish: Publish) -> None:
    """One event at a time: the wakeups take most of the time."""
    if name not in ordinary:
        pytest.skip(f"{name} left out: it does not build")
    publish(
        "ordinary",
        f"{ORDINARY} events/s",
        name,
        {each: [sum(both)] for each, both in ordinary.items()},
        producer_ns=ordinary[name][0],
        consumer_ns=ordinary[name][1],
    )


def test_idle(smoke: bool, publish: Publish) -> None:
    """An idle drain thread takes little CPU time."""
    seconds = 1 if smoke else 60
    with live(1 << 20) as ours:
        time.sleep(0.5)  # until the thread's timer has slowed down
        cpu, wall = ours.cpu(lambda: time.sleep(seconds))
    publish(
        "idle",
        "no events",
        "lblatency",
        {"lblatency": [cpu / seconds]},
        core_percent=100 * cpu / wall,
        cpu_ms_per_hour=cpu / wall * 3600e3,
    )
