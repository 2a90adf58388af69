"""Which creation time a closed event finds in a real conntrack map, and when it finds none."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lblatency import LatencyTracker, stats
from lblatency.conntrack import ConntrackMap
from tests.support import bpf
from tests.support.conntrack import KINDS, PER_CPU, Table
from tests.support.rig import SECOND, assert_accounted, foreign64, in_child, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.bpf

MS = SECOND // 1000
TUPLE = ("192.0.2.7", 40000)
OTHER = ("192.0.2.8", 40000)


def threads() -> list[str]:
    """The names of this process's threads."""
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


def numbers(created: int, packets: int = 1) -> list[tuple[int, ...]]:
    """An entry's numbers as one CPU has them."""
    return [(created, created, packets, packets, 60 * packets, 60 * packets)]


class Watched:
    """A table, and a tracker that takes creation times from it."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.ring = stats.MemoryRing(1 << 16)
        self.stream = stats.create_event_stream(self.ring)
        self.tracker = LatencyTracker()
        self.conntrack = ConntrackMap(table.fd)

    def start(self) -> None:
        """Start, which scans the map."""
        self.tracker.start(self.stream, self.conntrack, "web")

    def see(self, created: int, packets: int = 1, client: tuple[str, int] = TUPLE) -> None:
        """Put an entry, and let a scan see it."""
        self.table.put(client, per_cpu=numbers(created, packets))
        self.conntrack.scan()

    def prove(self) -> None:
        """Let the map show that its creation times stay."""
        self.see(SECOND, packets=1, client=("192.0.2.200", 1))
        self.see(SECOND, packets=2, client=("192.0.2.200", 1))
        assert self.conntrack.status()["stayed"]

    def close(self, ended: int, client: tuple[str, int] = TUPLE, **event: tuple[str, int]) -> None:
        """Close a connection."""
        self.ring.produce(foreign64(2, ended, client, **event))
        self.stream.drain()

    def result(self) -> tuple[int, float, int, int]:
        """How many lifetimes were recorded, their sum in s, how many are unmatched and rejected."""
        counts = assert_accounted(self.tracker)
        found = self.tracker.get_histogram("web", "10.0.0.1:80")
        total = found["sum"] if found else 0.0
        return counts["recorded"], total, counts["unmatched"], counts["rejected"]


@pytest.fixture(params=KINDS)
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    """A started tracker on each kind of map."""
    table = Table(KINDS[request.param], unified=False)
    made = Watched(table)
    made.start()
    yield made
    made.tracker.stop()
    table.close()


def test_a_moved_creation_time_counts_from_the_earliest(watched: Watched) -> None:
    """Later packets overwrite the time: the earliest that a scan has seen is the creation."""
    watched.see(10 * SECOND)
    watched.table.put(per_cpu=numbers(11500 * MS))
    watched.close(11800 * MS)
    assert watched.result() == (1, 1.8, 0, 0)


def test_the_earliest_of_many_scans_counts(watched: Watched) -> None:
    """However often the time moves, in the map's first scan or later."""
    for created in range(10, 15):
        watched.see(created * SECOND)
    assert watched.conntrack.status()["moved"]
    watched.close(15 * SECOND)
    assert watched.result() == (1, 5, 0, 0)


def test_what_no_scan_has_seen_is_unmatched(watched: Watched) -> None:
    """One look tells the time since the last packet, unless times are known to stay."""
    watched.table.put(per_cpu=numbers(11500 * MS))
    watched.close(11800 * MS)
    assert watched.result() == (0, 0, 1, 0)


def test_a_steady_map_needs_no_scan(watched: Watched) -> None:
    """Where creation times stay while packets come, one look is enough."""
    watched.prove()
    watched.table.put(per_cpu=numbers(10 * SECOND))
    watched.close(11800 * MS)
    assert watched.result() == (1, 1.8, 0, 0)


def test_a_map_that_has_moved_is_not_trusted(watched: Watched) -> None:
    """Neither before nor after others stayed."""
    watched.prove()
    watched.see(10 * SECOND, packets=1)
    watched.close(12 * SECOND)
    other = Table(bpf.HASH, unified=False)
    moving = Watched(other)
    moving.start()
    moving.see(10 * SECOND)
    moving.see(11 * SECOND)
    moving.prove()
    moving.table.put(OTHER, per_cpu=numbers(11 * SECOND))
    moving.close(12 * SECOND, OTHER)
    assert moving.result() == (0, 0, 1, 0)
    moving.tracker.stop()
    other.close()


@pytest.mark.skipif(bpf.possible_cpus() < 2, reason="a connection cannot move to another CPU")
@pytest.mark.parametrize("kind", sorted(PER_CPU))
def test_a_connection_that_changed_its_cpu_proves_nothing(kind: int) -> None:
    """Each CPU overwrites its own value's time, so the first CPU's stays while packets come."""
    table = Table(kind, unified=False)
    watched = Watched(table)
    watched.start()
    for packets in (0, 3, 4):
        table.put(OTHER, per_cpu=numbers(10 * SECOND, 5) + numbers(11 * SECOND, packets)[:packets])
        watched.conntrack.scan()
    assert not watched.conntrack.status()["stayed"]
    for k in range(5):
        watched.see((20 + k) * SECOND, packets=1 + k)
    watched.close(25 * SECOND)
    assert watched.result() == (1, 5, 0, 0)
    watched.tracker.stop()
    table.close()


def test_a_map_that_stayed_once_may_move(watched: Watched) -> None:
    """One connection that looked the same misleads until the next one moves, not for good."""
    watched.prove()
    watched.see(10 * SECOND, packets=1)
    watched.see(11 * SECOND, packets=2)
    assert watched.conntrack.status()["moved"]
    watched.see(20 * SECOND, packets=1, client=OTHER)
    watched.see(22 * SECOND, packets=2, client=OTHER)
    watched.close(23 * SECOND, OTHER)
    watched.close(24 * SECOND)  # there may have been two
    assert watched.result() == (1, 3, 1, 0)


def test_the_thread_scans() -> None:
    """A connection is seen within seconds, without anyone's help; stop() ends the thread."""
    table = Table(bpf.HASH, unified=True)
    watched = Watched(table)

    assert "lbl-scan" not in threads()
    watched.start()
    scans = watched.conntrack.status()["scans"]
    assert scans == 1
    wait_until(lambda: "lbl-scan" in threads(), "the thread to begin")
    table.put(per_cpu=numbers(10 * SECOND))
    wait_until(lambda: watched.conntrack.status()["scans"] >= 3, "two scans")
    assert watched.conntrack.status()["interval"] >= 1
    table.put(per_cpu=numbers(11500 * MS))
    watched.close(11800 * MS)
    assert watched.result() == (1, 1.8, 0, 0)
    watched.tracker.stop()
    assert "lbl-scan" not in threads()
    assert watched.conntrack.status()["remembered"] == 0
    table.close()


def test_a_tuple_is_used_again(watched: Watched) -> None:
    """The entry that stays after the close is not the next connection's; a later one is."""
    watched.see(10 * SECOND)
    watched.close(12 * SECOND)
    watched.close(13 * SECOND)
    watched.conntrack.scan()
    watched.close(14 * SECOND)
    assert watched.result() == (1, 2, 2, 0)
    watched.see(20 * SECOND)
    watched.close(23 * SECOND)
    assert watched.result() == (2, 5, 2, 0)


def test_a_close_without_a_scan_uses_the_entry_up(watched: Watched) -> None:
    """The next connection of the tuple does not get it, though a scan comes in between."""
    watched.table.put(per_cpu=numbers(10 * SECOND))
    watched.close(12 * SECOND)
    watched.conntrack.scan()
    watched.close(14 * SECOND)
    assert watched.result() == (0, 0, 2, 0)


def test_the_last_packets_are_no_new_connection(watched: Watched) -> None:
    """What follows a close moves the time past it, and is no birth."""
    watched.see(10 * SECOND)
    watched.see(11 * SECOND)
    watched.close(12 * SECOND)
    watched.see(12 * SECOND + MS)
    watched.close(14 * SECOND)
    watched.see(20 * SECOND)
    watched.close(21 * SECOND)
    assert watched.result() == (2, 3, 1, 0)


def test_an_opened_event_uses_the_entry_up(watched: Watched) -> None:
    """The connection whose opening was seen leaves its entry behind, too."""
    watched.see(10 * SECOND)
    watched.ring.produce(foreign64(1, 10 * SECOND))
    watched.close(12 * SECOND)
    watched.close(14 * SECOND)
    assert watched.result() == (1, 2, 1, 0)


def test_fewer_packets_are_another_connection(watched: Watched) -> None:
    """An entry whose packets went down was made anew, with or without a scan between."""
    watched.see(10 * SECOND, packets=9)
    watched.see(15 * SECOND, packets=2)
    watched.close(16 * SECOND)
    assert watched.result() == (1, 1, 0, 0)
    watched.see(20 * SECOND, packets=9, client=OTHER)
    watched.table.put(OTHER, per_cpu=numbers(25 * SECOND, 2))
    watched.close(26 * SECOND, OTHER)
    assert watched.result() == (1, 1, 1, 0)


def test_a_vanished_entry_is_still_known(watched: Watched) -> None:
    """The close may come after the deletion, and after scans that missed the entry."""
    watched.see(10 * SECOND)
    watched.table.delete()
    watched.close(12 * SECOND)
    watched.see(20 * SECOND, client=OTHER)
    watched.table.delete(OTHER)
    watched.conntrack.scan()
    watched.conntrack.scan()
    watched.close(23 * SECOND, OTHER)
    assert watched.result() == (2, 5, 0, 0)


def test_an_entry_that_came_back_is_another_connection(watched: Watched) -> None:
    """What a scan has missed in between is not the same connection."""
    watched.see(10 * SECOND)
    watched.table.delete()
    watched.conntrack.scan()
    watched.see(20 * SECOND)
    watched.close(23 * SECOND)
    assert watched.result() == (1, 3, 0, 0)


def test_a_late_close_is_the_first_connections(watched: Watched) -> None:
    """The entry is the next connection's already, as its creation time says."""
    watched.prove()
    watched.see(10 * SECOND, packets=9)
    watched.table.put(per_cpu=numbers(20 * SECOND, 1))
    watched.close(12 * SECOND)
    watched.close(23 * SECOND)
    assert watched.result() == (2, 5, 0, 0)


@pytest.mark.parametrize("unified", [False, True])
@pytest.mark.parametrize(
    ("told", "matched"),
    [
        (("198.51.100.1", 443), True),
        (("198.51.100.2", 443), False),
        (("198.51.100.1", 80), False),
        (("0.0.0.0", 443), True),  # noqa: S104  # an address of 0 is not told
        (("198.51.100.1", 0), True),
        (None, True),
    ],
)
@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("kind", [bpf.HASH, bpf.PERCPU_HASH])
def test_an_entry_of_another_vip_is_another_connection(
    kind: int, seen: bool, told: tuple[str, int] | None, matched: bool, unified: bool
) -> None:
    """If the entry tells its VIP, it must be the event's; what is 0 is not told."""
    table = Table(kind, unified)
    watched = Watched(table)
    if seen:
        table.put(per_cpu=numbers(10 * SECOND), vip=told)
        watched.start()
    else:
        watched.start()
        watched.prove()
        table.put(per_cpu=numbers(10 * SECOND), vip=told)
    watched.close(12 * SECOND)
    assert watched.result() == ((1, 2, 0, 0) if matched else (0, 0, 1, 0))
    if not matched:  # and the connection that it belongs to still finds it
        assert told is not None
        watched.close(13 * SECOND, vip=told)
        assert watched.result() == (1, 3, 1, 0)
    watched.tracker.stop()
    table.close()


def test_two_vips_share_a_tuple(watched: Watched) -> None:
    """The entry is replaced by that of another VIP's connection: each close finds its own, once."""
    watched.prove()
    watched.see(10 * SECOND)
    watched.table.put(per_cpu=numbers(11 * SECOND), vip=("198.51.100.2", 443))
    watched.close(12 * SECOND)
    watched.close(13 * SECOND, vip=("198.51.100.2", 443))
    watched.conntrack.scan()
    watched.close(14 * SECOND, vip=("198.51.100.2", 443))
    assert watched.result() == (2, 4, 1, 0)


@pytest.mark.parametrize("kind", sorted(PER_CPU))
def test_cpus_that_disagree_about_the_vip_tell_no_time(kind: int) -> None:
    """Their values are of two connections, so the close is unmatched."""
    table = Table(kind, unified=True)
    first, second = Table(kind, unified=True), Table(kind, unified=True)
    watched = Watched(table)
    for each, vip in ((first, "198.51.100.1"), (second, "198.51.100.2")):
        each.put(per_cpu=numbers(10 * SECOND), vip=(vip, 443))
    halves = [
        next(iter(bpf.entries(each.fd, 40, 128 * each.cpus).items())) for each in (first, second)
    ]
    mixed = halves[0][1][:128] + halves[1][1][:128]
    bpf.update(table.fd, halves[0][0], mixed.ljust(128 * table.cpus, b"\0"))
    watched.start()
    watched.close(12 * SECOND)
    assert watched.result() == (0, 0, 1, 0)
    watched.tracker.stop()
    for each in (table, first, second):
        each.close()


@pytest.mark.parametrize("created", [(10, 11), (11, 10), (10, 10), (10, 0), (0, 10)])
def test_two_protocols_of_one_tuple(watched: Watched, created: tuple[int, int]) -> None:
    """The event does not tell which it means, so neither is taken."""
    for protocol, seconds in zip((6, 17), created, strict=True):
        watched.table.put(protocol=protocol, per_cpu=numbers(seconds * SECOND))
    watched.conntrack.scan()
    watched.close(12 * SECOND)
    watched.close(13 * SECOND)
    assert watched.result() == (0, 0, 2, 0)


def test_the_other_protocols_entry_is_left_behind(watched: Watched) -> None:
    """What is used up cannot be meant, so the other protocol's is."""
    watched.see(10 * SECOND)
    watched.close(12 * SECOND)
    watched.table.put(protocol=17, per_cpu=numbers(13 * SECOND))
    watched.conntrack.scan()
    watched.close(16 * SECOND)
    assert watched.result() == (2, 5, 0, 0)


def test_two_trackers_share_a_map() -> None:
    """Each finds the birth, whichever stops first."""
    table = Table(bpf.HASH, unified=False)
    table.put(per_cpu=numbers(10 * SECOND))
    watched = Watched(table)
    watched.start()
    other = LatencyTracker()
    other.start(stats.create_event_stream(stats.MemoryRing(4096)), watched.conntrack, "api")
    other.stop()
    watched.close(12 * SECOND)
    assert watched.result() == (1, 2, 0, 0)
    watched.tracker.stop()
    table.close()


def test_a_start_that_does_nothing_forgets_nothing(watched: Watched) -> None:
    """start() while running scans, and leaves all as it is."""
    watched.see(10 * SECOND)
    watched.see(11 * SECOND)
    watched.start()
    watched.close(12 * SECOND)
    assert watched.result() == (1, 2, 0, 0)


def test_a_child_scans_for_itself(watched: Watched) -> None:
    """The child has no thread; it can scan, start and stop, whatever the parent was doing."""
    watched.see(10 * SECOND)
    stopping = threading.Event()

    def scan() -> None:
        while not stopping.is_set():
            watched.conntrack.scan()

    def child() -> None:
        assert not watched.tracker.running()
        assert watched.conntrack.scan() == 1
        watched.tracker.stop()
        tracker = LatencyTracker()
        ring = stats.MemoryRing(4096)
        tracker.start(stats.create_event_stream(ring), watched.conntrack, "web")
        ring.produce(foreign64(2, 12 * SECOND))
        tracker.stop()
        assert tracker.event_counts()["recorded"] == 1

    busy = threading.Thread(target=scan)
    busy.start()
    try:
        for _ in range(20):
            in_child(child)
    finally:
        stopping.set()
        busy.join()
    watched.close(12 * SECOND)
    assert watched.result() == (1, 2, 0, 0)


def test_a_childs_thread_is_its_own(watched: Watched) -> None:
    """In a child, only those use the map who began there, whoever used it in the parent."""

    def begin(tracker: LatencyTracker) -> LatencyTracker:
        tracker.start(stats.create_event_stream(stats.MemoryRing(4096)), watched.conntrack, "web")
        wait_until(lambda: "lbl-scan" in threads(), "the thread to begin")
        return tracker

    def end(tracker: LatencyTracker) -> None:
        tracker.stop()
        wait_until(lambda: "lbl-scan" not in threads(), "the thread to end")

    def with_the_inherited() -> None:
        end(begin(watched.tracker))

    def with_others() -> None:
        end(begin(LatencyTracker()))
        first, second = begin(LatencyTracker()), begin(LatencyTracker())
        watched.tracker = first  # the inherited one goes: it never used the map here
        first.stop()
        assert "lbl-scan" in threads()
        end(second)
        end(begin(first))

    in_child(with_the_inherited)
    in_child(with_others)
    wait_until(lambda: watched.conntrack.status()["scans"] >= 3, "the parent's thread to go on")
