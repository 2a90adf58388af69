"""One scenario: random events, and everything that happens to a balancer and its observers."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

import lblatency
from lblatency import LatencyTracker, stats
from tests.support.rig import assert_accounted, wait_until

from .balancer import Balancer
from .model import Record, Ring, TrackerModel
from .traffic import IPV4, NAMES, TARGETS, VIPS, Traffic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support import bpf

STREAM_NAME = "web"
_NAMES: dict[int | str, str] = {0: STREAM_NAME, **NAMES}
_CHECKED = ("produced", "received", "dropped", "in_ring", "opened", "closed", "periodic",
            "malformed", "recorded", "unmatched", "rejected", "ignored")  # fmt: skip


class Observer:
    """A tracker and its model."""

    def __init__(self, limit: int | None) -> None:
        self.tracker = LatencyTracker(max_backends=limit or 1000, removed_row=True)
        self.model = TrackerModel(limit or 1000)
        self.shown: dict[str, int] = {}


class Scenario:
    """A balancer, two trackers and subscribers, and what should become of every event."""

    def __init__(self, seed: int, compiled: dict[int, Path], bpffs: bpf.Bpffs) -> None:
        self.chance = chance = random.Random(seed)
        self.n_rings = chance.choice((1, 1, 2))
        self.balancer = Balancer(
            compiled[self.n_rings], bpffs, self.n_rings, chance.choice((4096, 1 << 16))
        )
        self.traffic = Traffic(chance)
        self.rings = [Ring() for _ in range(self.n_rings)]
        self.stream = stats.create_event_stream(self.balancer.events_pin)
        self.observers = [Observer(chance.choice((None, None, 4))) for _ in range(2)]
        self.subscription: stats.Subscription | None = None
        self.expected: list[Record] = []
        self.replaced = 0
        self.log: list[str] = []

    def close(self) -> None:
        """Give everything back."""
        for observer in self.observers:
            observer.tracker.stop()
        if self.subscription:
            self.subscription.close()
        self.stream.close()
        self.balancer.close()

    def run(self, steps: int) -> None:
        """Take random steps, and check after each."""
        actions: list[tuple[int, Callable[[], None]]] = [
            (30, self.emit), (10, self.toggle), (3, self.reset), (3, self.remove),
            (3, self.by_hand), (2, self.refuse), (2, self.subscribe), (2, self.second_user),
            (2, self.zero_counters), (1, self.restart), (2, self.drain_idle),
            (1, self.take_ring_out), (2, self.set_back),
        ]  # fmt: skip
        weights, functions = zip(*actions, strict=True)
        self.toggle()
        for _ in range(steps):
            action = self.chance.choices(functions, weights)[0]
            self.log.append(action.__name__)
            action()
            self.check()

    # ---- what happens ----

    def emit(self) -> None:
        """Send a batch, which may be more than fits."""
        records = self.traffic.records(self.chance.choice((1, 10, 60, 250)))
        ring = self._any_ring()
        self.balancer.emit(records, ring)
        self._sent(ring, records)

    def _any_ring(self) -> int:
        """Any, but where some waits already: between rings, nobody knows what comes first."""
        waiting = [i for i, ring in enumerate(self.rings) if ring.waiting]
        return waiting[0] if waiting else self.chance.randrange(self.n_rings)

    def _sent(self, ring: int, records: list[Record]) -> None:
        self.rings[ring].waiting += [each for each in records if each.data and each.accepted]
        for observer in self._running():
            observer.model.sent(records)

    def toggle(self) -> None:
        """Start or stop a tracker."""
        self.sync()
        observer = self.chance.choice(self.observers)
        if observer.model.running:
            observer.tracker.stop()
            observer.model.stop()
        else:
            observer.tracker.start(self.stream, None, STREAM_NAME, proxies=NAMES)
            observer.model.start(self.rings, _NAMES)

    def reset(self) -> None:
        """Reset a tracker."""
        self.sync()
        observer = self.chance.choice(self.observers)
        observer.tracker.reset_histograms()
        observer.model.reset()

    def remove(self) -> None:
        """Remove a backend, known or not."""
        self.sync()
        observer = self.chance.choice(self.observers)
        known = sorted(observer.model.backends()) or [("web", TARGETS[0])]
        proxy, target = self.chance.choice([*known, ("nobody", TARGETS[0])])
        if proxy in {"overflow", "removed"}:
            return
        removed = observer.tracker.remove(proxy, target)
        assert removed == observer.model.remove((proxy, target))

    def by_hand(self) -> None:
        """Record by hand."""
        observer = self.chance.choice(self.observers)
        if observer.model.limit < 1000:
            return
        key = self.chance.choice(("web", "by hand")), self.chance.choice(TARGETS)
        ns = self.chance.randrange(10**10)
        observer.tracker.record_latency(*key, ns / 10**9)
        observer.model.record(key, ns)

    def refuse(self) -> None:
        """Make calls that are refused."""
        tracker = self.chance.choice(self.observers).tracker
        for call in (
            lambda: tracker.record_latency("no one", "nowhere", 1.0),
            lambda: tracker.record_latency("no one", IPV4[0], float("nan")),
            lambda: tracker.record_many("no one", IPV4[0], [1.0, -1.0]),
            lambda: tracker.start([], None, "no one"),
        ):
            with pytest.raises((TypeError, ValueError)):
                call()

    def subscribe(self) -> None:
        """Subscribe, or end the subscription and look at all that came."""
        self.sync()
        if self.subscription is None:
            self.subscription = self.stream.subscribe(maxsize=100_000)
            self.expected = []
            return
        came = []
        while event := self.subscription.get(timeout=0):
            came.append((event.timestamp_ns, event.type, event.target))
        assert self.subscription.dropped == 0
        self.subscription.close()
        self.subscription = None
        expected = [(each.at, each.kind, each.target) for each in self.expected]
        assert sorted(came) == sorted(expected)

    def second_user(self) -> None:
        """Another consumer wants the rings, if there are any."""
        with pytest.raises(lblatency.LatencyError, match=r"consumes it already|no rings in it yet"):
            stats.create_event_stream(self.balancer.events_pin)

    def zero_counters(self) -> None:
        """A loader starts its counters anew. What was counted until then has been seen."""
        self.sync()
        self.stream.stats()
        self.balancer.zero_counters()

    def restart(self) -> None:
        """The balancer restarts: old events are still in the old rings, and new maps are pinned.

        The stream takes the new rings up when the old ones are empty, so somebody must take that.
        """
        if not (self._running() or self.subscription) and any(r.waiting for r in self.rings):
            return
        self.balancer.start()
        records = self.traffic.records(self.chance.choice((0, 10, 100)))
        self.balancer.emit(records)
        self.replaced += self.n_rings

        def taken_up() -> bool:
            return self.stream.stats().replaced == self.replaced

        wait_until(taken_up, "the stream to take up the new rings")
        self._sent(0, records)

    def take_ring_out(self) -> None:
        """The loader takes a CPU's ring out of the array: events of that CPU are dropped."""
        if self.n_rings > 1:
            self.balancer.take_ring_out(self.chance.randrange(self.n_rings))

    def set_back(self) -> None:
        """Somebody sets a ring's consumer position back: nothing comes twice."""
        self.sync()
        self.balancer.set_back(
            self.chance.randrange(self.n_rings), self.chance.choice((8, 64, 640))
        )

    def drain_idle(self) -> None:
        """Drain. If nobody is attached, that takes nothing."""
        attached = bool(self._running() or self.subscription)
        before = self.stream.stats().in_ring
        drained = self.stream.drain()
        if attached:
            self._deliver()
        else:
            assert (drained, self.stream.stats().in_ring) == (0, before)

    # ---- what must be true ----

    def _running(self) -> list[Observer]:
        return [observer for observer in self.observers if observer.model.running]

    def _deliver(self) -> None:
        for i, ring in enumerate(self.rings):
            for record in ring.waiting:
                for observer in self._running():
                    observer.model.take(i, record)
                if self.subscription and record.kind not in ("", "malformed"):
                    self.expected.append(record)
            ring.waiting = []

    def sync(self) -> None:
        """Let all that is in the rings arrive, if somebody takes it."""
        if self._running() or self.subscription:
            self.stream.drain()
            self._deliver()

    def check(self) -> None:
        """Compare both trackers with their models."""
        for observer in self.observers:
            assert_accounted(observer.tracker)
        self.sync()
        for observer in self.observers:
            self._check_counts(observer)
            _check_backends(observer)

    def _check_counts(self, observer: Observer) -> None:
        counts = assert_accounted(observer.tracker)
        model = observer.model
        expected = Counter(model.outcomes())
        expected["received"] = model.received
        expected["dropped"] = model.dropped
        expected["produced"] = model.produced
        _same(counts, expected, _CHECKED)
        told = observer.tracker.get_status()["open_error"]
        assert told == model.open_error, (told, model.open_error)
        falling = [name for name, value in observer.shown.items() if counts[name] < value]
        assert not falling
        observer.shown = {name: counts[name] for name in _CHECKED if name != "in_ring"}


def _same(got: dict[str, int], expected: Counter[str], names: tuple[str, ...]) -> None:
    wrong = {n: (got[n], expected[n]) for n in names if got[n] != expected[n]}
    assert not wrong, f"got, expected: {wrong}"


def _check_backends(observer: Observer) -> None:
    rows = {(row.proxy, row.target): row for row in observer.tracker.backends()}
    expected = observer.model.backends()
    assert rows.keys() == expected.keys(), rows.keys() ^ expected.keys()
    for key, seen in expected.items():
        row = rows[key]
        got = row.opened, row.open, row.probes, {r: n for r, n in row.closed.items() if n}
        counted = seen.opened, seen.open, seen.probes, seen.closed
        assert got == counted, f"{key}: {got}, expected {counted}"
        _check_histogram(row.histogram, seen.lifetimes)


def _check_histogram(histogram: lblatency.HistogramSnapshot, lifetimes: tuple[int, ...]) -> None:
    assert histogram["count"] == len(lifetimes)
    assert histogram["sum"] == float(Fraction(sum(lifetimes), 10**9))
    classic = tuple(
        sum(1 for ns in lifetimes if ns <= Fraction(str(bound)) * 10**9)
        for bound in histogram["buckets"]
    )
    assert histogram["counts"] == classic


__all__ = ["VIPS", "Scenario"]
