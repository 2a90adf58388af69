"""Counts from one moment on, over rings and counters maps that are not equally old."""

from __future__ import annotations

import os
import struct
import threading
from typing import TYPE_CHECKING, NamedTuple

import pytest

from lblatency import LatencyTracker, stats
from tests.support import bpf
from tests.support.rig import assert_accounted, in_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.filler import Filler
    from tests.support.per_cpu import PerCpu

pytestmark = pytest.mark.bpf

RING_BYTES = 1 << 18
ROOM = RING_BYTES // 64 - 1  # events that fit


class Counters(NamedTuple):
    """The lbl_counters map, changed by hand as a loader would."""

    fd: int

    def set(self, produced: int, dropped: int) -> None:
        """Overwrite all CPUs' counters."""
        others = bytes(16 * (bpf.possible_cpus() - 1))
        bpf.update(self.fd, bytes(4), struct.pack("=QQ", produced, dropped) + others)

    def get(self) -> tuple[int, int]:
        """The sums, produced and dropped."""
        raw = bpf.lookup(self.fd, bytes(4), 16 * bpf.possible_cpus())
        numbers = struct.unpack(f"={len(raw) // 8}Q", raw)
        return sum(numbers[::2]), sum(numbers[1::2])

    def add(self, produced: int, dropped: int) -> None:
        """Count more than there is."""
        before = self.get()
        self.set(before[0] + produced, before[1] + dropped)


class Producer(NamedTuple):
    """The program of filler.bpf.c, of which one ring is read, and its counters."""

    filler: Filler
    counters: Counters

    @property
    def ring(self) -> str:
        """Where the ring is pinned, beside its counters."""
        return f"{self.filler.at}/maps/lbl_events"

    def fill(self, n: int, odd: int = 0) -> None:
        """Send `n` events; after every `odd` of them, other records that nobody counts."""
        self.filler.fill(0, n, odd)

    def open(self) -> stats.EventStream:
        """A stream of the ring."""
        return stats.create_event_stream(self.ring)

    def consume(self, n: int, odd: int = 0) -> None:
        """Send events, and take them as an earlier reader did."""
        with self.open() as stream, stream.subscribe(1):
            self.fill(n, odd)
            stream.drain()


@pytest.fixture
def producer(filler: Filler) -> Iterator[Producer]:
    """Loaded, with an empty ring."""
    counters = filler.open("lbl_counters")
    yield Producer(filler, Counters(counters))
    os.close(counters)


def told(stream: stats.EventStream) -> tuple[int | None, int, int | None, int]:
    """What was produced, received, dropped and is in the ring."""
    return stream.stats()[:4]


# ---- not equally old ----


def test_counters_kept_and_ring_new(per_cpu: PerCpu) -> None:
    """What was counted for an earlier ring is not of this one."""
    with per_cpu.open() as stream, stream.subscribe(1):
        per_cpu.send(0, 100)
        stream.drain()
    per_cpu.put(0)
    with per_cpu.open() as stream:
        tracker = LatencyTracker()
        tracker.start(stream, None, "web")
        per_cpu.send(0, 10)
        assert told(stream)[0] == 10
        tracker.stop()
        assert told(stream) == (10, 10, 0, 0)
    assert assert_accounted(tracker)["produced"] == 10


def test_ring_kept_and_counters_new(producer: Producer) -> None:
    """The counters start at 0; the ring was consumed before."""
    producer.consume(100)
    producer.counters.set(0, 0)
    with producer.open() as stream:
        tracker = LatencyTracker()
        tracker.start(stream, None, "web")
        producer.fill(10)
        tracker.stop()
        assert told(stream) == (10, 10, 0, 0)
    assert assert_accounted(tracker)["produced"] == 10


@pytest.mark.parametrize("odd", [1, 3])
def test_other_records_before_the_start(producer: Producer, odd: int) -> None:
    """Records of other sizes, and those given up, were consumed before, and some wait."""
    producer.consume(300, odd)
    producer.fill(6, odd)
    with producer.open() as stream:
        waiting = told(stream)[3]
        assert waiting == 6 + 6 // odd
        tracker = LatencyTracker()
        tracker.start(stream, None, "web")
        producer.fill(10)
        tracker.stop()
        assert told(stream) == (waiting + 10, waiting + 10, 0, 0)
    assert assert_accounted(tracker)["produced"] == waiting + 10


def test_a_ring_is_taken_out_of_an_array(per_cpu: PerCpu) -> None:
    """What went through a ring that is gone does not count; its CPU's events are dropped now."""
    with per_cpu.open() as stream, stream.subscribe(1):
        per_cpu.send(0, 20)
        per_cpu.send(1, 30)
        stream.drain()
        bpf.delete(per_cpu.array, struct.pack("=I", 1))
        per_cpu.send(1, 4)
        assert told(stream) == (54, 50, 4, 0)
    with per_cpu.open() as stream, stream.subscribe(1):
        per_cpu.send(0, 10)
        per_cpu.send(1, 2)
        stream.drain()
        assert told(stream) == (12, 10, 2, 0)


# ---- set to zero ----


def test_counters_that_are_set_to_zero_start_anew(producer: Producer) -> None:
    """30, 10 to 36, 11 to 0 to 6, 1 is 12 produced and 2 dropped."""
    producer.counters.set(30, 10)
    with producer.open() as stream:
        tracker = LatencyTracker()
        tracker.start(stream, None, "web")
        for _ in range(2):
            producer.fill(5)
            producer.counters.add(1, 1)
            stream.drain()
            assert_accounted(tracker)
            assert told(stream)[0] == tracker.event_counts()["produced"]
            producer.counters.set(0, 0)
            assert_accounted(tracker)
        assert told(stream) == (12, 10, 2, 0)
        counts = assert_accounted(tracker)
        assert (counts["produced"], counts["dropped"]) == (12, 2)
        tracker.stop()
    counts = assert_accounted(tracker)
    assert (counts["produced"], counts["dropped"]) == (12, 2)


def test_zero_is_found_by_the_counters_alone(producer: Producer) -> None:
    """What the counters said before is not lost, even if the events were."""
    producer.counters.set(30, 10)
    with producer.open() as stream:
        for produced, dropped, expected in ((36, 11, (6, 1)), (0, 0, (6, 1)), (6, 1, (12, 2))):
            producer.counters.set(produced, dropped)
            assert (stream.stats().produced, stream.stats().dropped) == expected


def test_nothing_is_invented_if_zero_comes_unseen(producer: Producer) -> None:
    """What was counted between the last reading and the zero shows in the ring only."""
    with producer.open() as stream:
        producer.fill(7)
        assert told(stream)[0] == 7
        producer.fill(20)
        producer.counters.set(0, 0)
        assert told(stream) == (27, 0, 0, 27)
        producer.fill(3)
        with stream.subscribe(1):
            stream.drain()
        assert told(stream) == (30, 30, 0, 0)


# ---- rings of one balancer ----


def test_rings_of_one_balancer_as_a_stream_each(per_cpu: PerCpu) -> None:
    """They cannot tell whose the counts are, so neither claims them; together they can."""
    first, second = (per_cpu.open(ring) for ring in per_cpu.rings)
    tracker, other = LatencyTracker(), LatencyTracker()
    tracker.start([first, second], None, "web")
    other.start(second, None, "web")
    per_cpu.send(0, 100)
    per_cpu.send(1, 60)
    assert assert_accounted(tracker)["produced"] == 160
    for stream in (first, second):
        assert (stream.stats().produced, stream.stats().dropped) == (None, None)
    assert other.event_counts()["produced"] is None
    assert other.get_status()["open_error"] is None
    tracker.stop()
    first.close()
    assert assert_accounted(tracker)["produced"] == 160
    per_cpu.send(1, 4)
    other.stop()
    assert told(second) == (64, 64, 0, 0)


# ---- exact under way ----


def test_a_start_beside_a_busy_producer_is_exact(producer: Producer) -> None:
    """After any such start, one event that is lost uncounted is one too few in the sum."""
    done = threading.Event()

    def produce() -> None:
        while not done.is_set():
            producer.fill(50)

    thread = threading.Thread(target=produce)
    thread.start()
    trackers = [LatencyTracker(max_backends=100) for _ in range(20)]
    try:
        with producer.open() as stream, stream.subscribe(1):
            for tracker in trackers:
                tracker.start(stream, None, "web")
            done.set()
            thread.join()
            stream.drain()
            for tracker in trackers:
                assert_accounted(tracker)
            producer.counters.add(1, 0)
            for tracker in trackers:
                n = tracker.event_counts()
                assert n["produced"] == (n["received"] or 0) + (n["dropped"] or 0) + 1
                tracker.stop()
                assert tracker.event_counts() == n
    finally:
        done.set()
        thread.join()


def test_a_child_sees_frozen_counts(producer: Producer) -> None:
    """The parent's counters go on; a child's counts of them do not."""
    with producer.open() as stream:
        tracker = LatencyTracker()
        tracker.start(stream, None, "web")
        producer.fill(ROOM + 1)
        producer.counters.add(3, 3)
        tracker.stop()
        tracker.start(stream, None, "web")
        before = assert_accounted(tracker)

        def frozen() -> None:
            producer.counters.add(5, 5)
            assert assert_accounted(tracker) == before
            tracker.stop()
            assert assert_accounted(tracker) == before

        in_child(frozen)
        assert assert_accounted(tracker)["produced"] == before["produced"] + 5
        tracker.stop()


# ---- no counters ----


def test_counters_that_may_not_be_read() -> None:
    """A descriptor that can only be written to is as good as none."""
    ring = bpf.create_map(bpf.RINGBUF, 0, 0, 4096)
    counters = bpf.create_map(bpf.PERCPU_ARRAY, 4, 16, 1, flags=bpf.WRONLY)
    with stats.create_event_stream(ring, counters=counters) as stream:
        assert told(stream) == (None, 0, None, 0)
    os.close(ring)
    os.close(counters)
