"""A stream by path follows its pin: a balancer that restarts pins another ring there."""

from __future__ import annotations

import os
import struct
import threading
from typing import TYPE_CHECKING, NamedTuple

import pytest

from lblatency import LatencyTracker, stats
from lblatency.errors import NotPinnedError
from tests.support import bpf
from tests.support.filler import Filler, number_of
from tests.support.rig import assert_accounted, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.bpf


class Restarting(NamedTuple):
    """A balancer of several generations, which all pin their maps at the same place."""

    at: str
    generations: list[Filler]

    @property
    def ring(self) -> str:
        """Where the ring is pinned."""
        return f"{self.at}/lbl_events"

    def pin(self, generation: int) -> None:
        """Put the maps of a generation in the place of what is pinned."""
        self.unpin()
        for name in ("lbl_events", "lbl_counters"):
            fd = self.generations[generation].open(name)
            bpf.pin(fd, f"{self.at}/{name}")
            os.close(fd)

    def unpin(self) -> None:
        """Remove the pins."""
        for name in os.listdir(self.at):
            os.unlink(f"{self.at}/{name}")


@pytest.fixture
def balancer(filler_object: Path, bpffs: bpf.Bpffs) -> Iterator[Restarting]:
    """Three generations; the first one's maps are pinned."""
    names = ("first", "second", "third")
    at = f"{bpffs.path}/lb"
    os.mkdir(at)
    made = Restarting(at, [Filler.load(filler_object, bpffs, name) for name in names])
    made.pin(0)
    yield made
    for each in made.generations:
        each.close()


def numbers_in(subscription: stats.Subscription) -> list[int]:
    """Which events a subscriber got."""
    found = []
    while event := subscription.get(timeout=0):
        found.append(number_of(event.timestamp_ns))
    return found


def wait_for(stream: stats.EventStream, **fields: object) -> stats.StreamStats:
    """Wait until the stream's stats have these values."""

    def found() -> stats.StreamStats | None:
        now = stream.stats()
        return now if fields.items() <= now._asdict().items() else None

    now: stats.StreamStats = wait_until(found, f"{fields}, not {stream.stats()}")
    return now


# ---- replaced ----


def test_every_event_comes_once_over_restarts(balancer: Restarting) -> None:
    """Also those that the old program sends after the new ring was pinned."""
    tracker = LatencyTracker()
    sent = 0
    with stats.create_event_stream(balancer.ring) as stream, stream.subscribe(1 << 20) as copies:
        tracker.start(stream, None, "web")
        for generation, program in enumerate(balancer.generations):
            for _ in range(20):
                program.fill(sent, 50)
                sent += 50
            if generation + 1 == len(balancer.generations):
                break
            balancer.pin(generation + 1)
            while not stream.detached():  # the old one is not quiet, and the new one has nothing
                program.fill(sent, 1)
                stream.drain()
                sent += 1
            assert stream.stats().replaced == generation
            program.fill(sent, 50)
            sent += 50
            balancer.generations[generation + 1].fill(sent, 50)
            sent += 50
            wait_for(stream, replaced=generation + 1, attached=True)
            assert_accounted(tracker)
        tracker.stop()
        got = numbers_in(copies)
        assert sorted(got) == list(range(sent))
        assert copies.dropped == 0
        now = stream.stats()
    assert (now.produced, now.received, now.dropped, now.taken) == (sent, sent, 0, 0)
    counts = assert_accounted(tracker)
    assert (counts["recorded"], counts["replaced"], counts["produced"]) == (sent, 2, sent)


def test_an_idle_balancer_restarts(balancer: Restarting) -> None:
    """No event is needed; drops of the new ring count from its first event on."""
    with stats.create_event_stream(balancer.ring) as stream:
        balancer.pin(1)
        balancer.generations[1].fill(0, 5000)
        now = wait_for(stream, replaced=1, attached=True)
        assert (now.in_ring, now.received) == (4095, 0)
        assert (now.produced, now.dropped) == (5000, 905)
        assert stream.detached() == []


def test_nothing_is_lost_while_nobody_is_attached(balancer: Restarting) -> None:
    """The old ring keeps its events until somebody takes them; then the new one follows."""
    with stats.create_event_stream(balancer.ring) as stream:
        balancer.generations[0].fill(0, 10)
        balancer.pin(1)
        balancer.generations[1].fill(10, 10)
        wait_for(stream, attached=False, in_ring=10, replaced=0)
        with stream.subscribe() as copies:
            wait_for(stream, replaced=1, received=20, attached=True)
            assert numbers_in(copies) == list(range(20))


def test_rings_in_an_array_are_followed(balancer: Restarting) -> None:
    """By their place: in another array at the pin, and in the same one."""
    arrays = [bpf.create_array_of_rings(2) for _ in range(2)]
    rings = [bpf.create_map(bpf.RINGBUF, 0, 0, 4096) for _ in range(5)]
    path = f"{balancer.at}/array"
    for index in range(2):
        bpf.update(arrays[0], struct.pack("=I", index), struct.pack("=I", rings[index]))
    bpf.pin(arrays[0], path)
    with stats.create_event_stream(path) as stream:
        os.unlink(path)
        wait_for(stream, attached=False)
        bpf.update(arrays[1], struct.pack("=I", 0), struct.pack("=I", rings[2]))
        bpf.pin(arrays[1], path)
        wait_for(stream, replaced=1, attached=False)  # the second one is not there yet
        assert stream.detached() == [path]
        bpf.update(arrays[1], struct.pack("=I", 1), struct.pack("=I", rings[3]))
        wait_for(stream, replaced=2, attached=True)
        bpf.update(arrays[1], struct.pack("=I", 0), struct.pack("=I", rings[4]))
        wait_for(stream, replaced=3, attached=True)
        for fd in rings[:3]:
            stats.create_event_stream(fd).close()  # they are free
    for fd in (*arrays, *rings):
        os.close(fd)


def test_rings_change_places(balancer: Restarting) -> None:
    """Each stream waits for the ring that the other has: one makes way, and nothing is lost."""
    names = ("lbl_events", "lbl_counters")
    other = f"{os.path.dirname(balancer.at)}/other"
    os.mkdir(other)

    def pin(places: tuple[str, str]) -> None:
        for at, program in zip(places, balancer.generations[:2], strict=True):
            for name in names:
                fd = program.open(name)
                bpf.pin(fd, f"{at}/{name}")
                os.close(fd)

    def unpin() -> None:
        for at in (balancer.at, other):
            for name in os.listdir(at):
                os.unlink(f"{at}/{name}")

    unpin()
    pin((balancer.at, other))
    trackers = [LatencyTracker(), LatencyTracker()]
    sent = 0
    with (
        stats.create_event_stream(f"{balancer.at}/lbl_events") as one,
        stats.create_event_stream(f"{other}/lbl_events") as two,
        one.subscribe(1 << 16) as of_one,
        two.subscribe(1 << 16) as of_two,
    ):
        trackers[0].start(one, None, "one")
        trackers[1].start(two, None, "two")
        for places in ((other, balancer.at), (balancer.at, other)):
            unpin()
            pin(places)
            wait_until(lambda: one.detached() and two.detached(), "both to notice")

            def are_attached(room: int = sent + 4000) -> bool:  # one ring has no reader meanwhile
                nonlocal sent
                for program in balancer.generations[:2]:
                    if sent < room:
                        program.fill(sent, 10)
                        sent += 10
                return not one.detached() and not two.detached()

            wait_until(are_attached, "both to be attached")
            for stream in (one, two):
                stream.drain()
            numbers_before = sorted(numbers_in(of_one) + numbers_in(of_two))
            assert numbers_before == list(range(sent - len(numbers_before), sent))
            balancer.generations[0].fill(sent, 10)
            sent += 10
            two_has_it = places[0] == other
            (two if two_has_it else one).drain()
            assert numbers_in(of_two if two_has_it else of_one) == list(range(sent - 10, sent))
        for tracker in trackers:
            assert_accounted(tracker)
            tracker.stop()
        assert sum(tracker.event_counts()["recorded"] or 0 for tracker in trackers) == sent
        assert sum(stream.stats().taken for stream in (one, two)) == 0
    for tracker in trackers:
        assert_accounted(tracker)
    unpin()
    os.rmdir(other)


# ---- gone, and not there yet ----


def test_a_pin_that_is_gone_is_waited_for(balancer: Restarting) -> None:
    """The old ring is drained on; the same ring at the pin is no change."""
    tracker = LatencyTracker()
    with stats.create_event_stream(balancer.ring) as stream:
        tracker.start(stream, None, "web")
        assert tracker.get_status()["attached"] is True
        balancer.unpin()
        wait_for(stream, attached=False)
        assert stream.detached() == [balancer.ring]
        assert tracker.get_status()["attached"] is False
        balancer.generations[0].fill(0, 10)
        stream.drain()
        assert stream.stats().received == 10
        balancer.pin(0)
        wait_for(stream, attached=True, replaced=0)
        tracker.stop()
    assert tracker.get_status()["attached"] is False


def test_a_ring_that_cannot_be_used_is_tried_again(balancer: Restarting) -> None:
    """Another map, and a ring with another consumer; the old ring is drained meanwhile."""
    with stats.create_event_stream(balancer.ring) as stream, stream.subscribe(1):
        balancer.unpin()
        other = bpf.create_map(bpf.ARRAY, 4, 4, 1)
        bpf.pin(other, balancer.ring)
        os.close(other)
        wait_for(stream, attached=False)
        fd = balancer.generations[1].open("lbl_events")
        with stats.create_event_stream(fd):
            balancer.pin(1)
            balancer.generations[0].fill(0, 10)
            wait_for(stream, received=10)
            assert (stream.stats().attached, stream.stats().replaced) == (False, 0)
        wait_for(stream, attached=True, replaced=1)
        os.close(fd)


def test_a_pin_that_is_not_there_yet(balancer: Restarting) -> None:
    """By default it is an error; who asks for it waits, also for an array to be filled."""
    balancer.unpin()
    with pytest.raises(NotPinnedError, match=f"no BPF map is pinned at {balancer.ring}"):
        stats.create_event_stream(balancer.ring)
    with pytest.raises(NotPinnedError):
        stats.create_event_stream(balancer.ring, wait=0.01)
    later = threading.Timer(0.2, balancer.pin, [1])
    later.start()
    with stats.create_event_stream(balancer.ring, wait=20) as stream:
        assert stream.stats().attached
    later.join()
    array = bpf.create_array_of_rings(1)
    ring = bpf.create_map(bpf.RINGBUF, 0, 0, 4096)
    pair = struct.pack("=I", 0), struct.pack("=I", ring)
    later = threading.Timer(0.2, bpf.update, [array, *pair])
    later.start()
    with stats.create_event_stream(array, wait=20) as stream:
        assert stream.stats().size_bytes == 4096
    later.join()
    os.close(array)
    os.close(ring)


# ---- the counters ----


def test_counters_that_are_given_by_path_are_followed(balancer: Restarting) -> None:
    """A path is looked at again; a descriptor stays what it is."""
    counters = f"{balancer.at}/lbl_counters"
    fd = bpf.open_pinned(counters)
    tracker = LatencyTracker()
    with stats.create_event_stream(balancer.ring, counters=counters) as stream:
        tracker.start(stream, None, "web")
        balancer.pin(1)
        wait_for(stream, replaced=1)
        balancer.generations[1].fill(0, 10)
        tracker.stop()
        assert assert_accounted(tracker)["produced"] == 10
    balancer.pin(0)
    with stats.create_event_stream(balancer.ring, counters=fd) as stream:
        balancer.pin(2)
        wait_for(stream, replaced=1)
        balancer.generations[0].fill(0, 10)  # another ring's, but these counters
        assert stream.stats().produced == 10
    os.close(fd)


def test_streams_by_other_names_are_not_followed(balancer: Restarting) -> None:
    """A descriptor or an id is a ring, and not a place where one is pinned."""
    fd = bpf.open_pinned(balancer.ring)
    for spec in (fd, str(bpf.map_id(fd))):
        with stats.create_event_stream(spec) as stream:
            balancer.pin(1)
            with stats.create_event_stream(balancer.ring) as other:
                wait_for(other, attached=True)
                balancer.unpin()
                wait_for(other, attached=False)
            assert stream.stats()[-3:-1] == (0, True)
        balancer.pin(0)
    os.close(fd)
