"""Open connections: over several rings, over resets, and when events were lost."""

from __future__ import annotations

import pytest

from lblatency import LatencyTracker, stats
from tests.support.rig import SECOND, TARGET, Rig, closed, foreign64, wait_until

OPENED = stats.Event("opened", TARGET, SECOND).pack()
CLOSED = closed(SECOND)


class TwoRings:
    """A tracker on two rings, as a balancer has them on two CPUs."""

    def __init__(self) -> None:
        self.rings = [stats.MemoryRing(1 << 18) for _ in range(2)]
        self.streams = [stats.create_event_stream(ring) for ring in self.rings]
        self.tracker = LatencyTracker(max_backends=10)
        self.tracker.start(self.streams, None, "web")

    def send(self, ring: int, record: bytes, n: int) -> None:
        """Send a record `n` times into one of the rings."""
        for _ in range(n):
            assert self.rings[ring].produce(record)
        self.streams[ring].drain()

    def row(self) -> tuple[int, int]:
        """How many connections opened and are open."""
        rows = self.tracker.backends()
        return (rows[0].opened, rows[0].open) if rows else (0, 0)


@pytest.mark.parametrize(("opened", "ended"), [(10, 8), (1000, 900), (5, 5), (3, 7)])
@pytest.mark.parametrize("resets", [0, 1, 2])
def test_opens_on_one_ring_close_on_another(opened: int, ended: int, resets: int) -> None:
    """A reset keeps what is open over all rings, not over each."""
    two = TwoRings()
    two.send(0, OPENED, opened)
    two.send(1, CLOSED, ended)
    for _ in range(resets):
        two.tracker.reset_histograms()
    left = max(0, opened - ended)
    assert two.row() == ((left, left) if resets else (opened, left))
    two.send(1, CLOSED, left)
    assert two.row()[1] == 0
    two.send(1, OPENED, 4)
    assert two.row()[1] == (4 if resets or opened >= ended else 0)


def test_lost_closes_are_told_and_a_reset_starts_anew() -> None:
    """Closes find no room: `open` is too high, and says by how much at most, until a reset."""
    rig = Rig(size=4096, max_backends=10)
    rig.send(*[OPENED] * 1000)
    kept, lost = 0, rig.tracker.event_counts()["dropped"] or 0  # send() tries again
    while lost < 776:
        if rig.ring.produce(CLOSED):
            kept += 1
        else:
            lost += 1
    rig.stream.drain()
    (row,) = rig.tracker.backends()
    assert row.open == max(0, 1000 - kept)
    assert rig.tracker.get_status()["open_error"] == lost
    rig.tracker.reset_histograms()
    assert rig.tracker.backends() == []
    assert rig.tracker.get_status()["open_error"] == 0
    rig.send(OPENED, OPENED, CLOSED)
    assert rig.tracker.backends()[0].open == 1
    rig.tracker.reset_histograms()  # nothing was lost since the last one
    assert rig.tracker.backends()[0].open == 1


def test_what_was_open_at_a_reset_counts_as_opened_after_the_stop_too() -> None:
    """A stop forgets what is open, but not that it had opened; the next reset does."""
    two = TwoRings()
    two.send(0, OPENED, 10)
    two.send(1, CLOSED, 8)
    two.tracker.reset_histograms()
    two.send(1, CLOSED, 1)
    assert two.row() == (2, 1)
    two.tracker.stop()
    assert two.row() == (2, 0)
    two.tracker.reset_histograms()
    assert two.row() == (0, 0)


def test_what_was_lost_before_a_start_is_no_error_after_it() -> None:
    """Open connections are counted anew from a start, so earlier losses are not told any more."""
    rig = Rig(size=4096, max_backends=10)
    while rig.ring.produce(CLOSED):
        pass
    assert rig.tracker.get_status()["open_error"] == 1
    rig.tracker.stop()
    assert rig.tracker.get_status()["open_error"] == 0
    rig.tracker.start(rig.stream, None, "web")
    assert rig.tracker.get_status()["open_error"] == 0
    rig.send(OPENED, OPENED)
    rig.tracker.reset_histograms()
    assert rig.tracker.backends()[0].open == 2


def test_an_event_that_cannot_be_read_is_lost() -> None:
    """A malformed event may have been a close, so a reset cannot know what is open."""
    rig = Rig(max_backends=10)
    rig.send(OPENED, CLOSED[:40])
    assert rig.tracker.get_status()["open_error"] == 1
    rig.tracker.reset_histograms()
    assert rig.tracker.get_status()["open_error"] == 0
    assert rig.tracker.backends() == []


def opened_at(began_ns: int, target: str = TARGET) -> bytes:
    """An opened event."""
    return stats.Event("opened", target, began_ns).pack()


def closed_at(began_ns: int, target: str = TARGET) -> bytes:
    """The closed event of a connection that began then."""
    return stats.Event("closed", target, 100 * SECOND, began_ns).pack()


def open_of(rig: Rig, target: str = TARGET) -> tuple[int | None, int]:
    """How many connections of a backend are open, and by how much that may be off."""
    found = {row.target: row.open for row in rig.tracker.backends()}
    return found.get(target), rig.tracker.get_status()["open_error"]


@pytest.mark.parametrize("first_is_old", [False, True])
def test_connections_older_than_the_start_close(first_is_old: bool) -> None:
    """Their closes are none of what opened since."""
    rig = Rig()
    old, new = [closed_at(5 * SECOND)] * 5, [opened_at(50 * SECOND)] * 3
    if first_is_old:
        rig.send(*old[:1], *[opened_at(101 * SECOND)] * 3, *old[1:])
    else:
        rig.send(*new, *old)
    assert open_of(rig) == (3, 0)
    rig.tracker.reset_histograms()
    assert open_of(rig) == (3, 0)
    rig.tracker.stop()
    rig.tracker.start(rig.stream, None, "web")
    rig.send(opened_at(200 * SECOND), closed_at(101 * SECOND))
    assert open_of(rig) == (1, 0)


def test_an_opened_event_tells_when_its_connection_began() -> None:
    """Events that are late by the handshake: both of a connection count, or neither."""
    rig = Rig()
    rig.send(opened_at(50 * SECOND))
    late = stats.Event("opened", TARGET, 51 * SECOND, 49 * SECOND).pack()
    rig.send(late)
    assert open_of(rig) == (1, 0)
    rig.send(closed_at(49 * SECOND))
    assert open_of(rig) == (1, 0)
    assert rig.tracker.backends()[0].opened == 2


def test_what_is_open_in_a_backend_that_is_removed_is_told() -> None:
    """Its connections close in a new row, which can be too low by as many."""
    rig = Rig()
    rig.send(*[opened_at(50 * SECOND)] * 3)
    assert rig.tracker.remove("web", TARGET)
    assert rig.tracker.get_status()["open_error"] == 3
    rig.send(*[closed_at(50 * SECOND)] * 3, *[opened_at(60 * SECOND)] * 2)
    assert open_of(rig) == (0, 3)
    rig.tracker.reset_histograms()
    rig.send(opened_at(70 * SECOND), *[closed_at(60 * SECOND)] * 2)
    assert open_of(rig) == (1, 0)


def test_what_opened_in_the_overflow_row_may_close_elsewhere() -> None:
    """Once rows are free, a backend of the overflow row gets one of its own."""
    other = "10.0.0.2:80"
    rig = Rig(max_backends=1)
    rig.send(opened_at(50 * SECOND), closed_at(50 * SECOND))
    rig.send(*[opened_at(51 * SECOND, other)] * 5)
    assert open_of(rig, "overflow:0") == (5, 0)
    rig.tracker.remove("web", TARGET)
    rig.send(*[closed_at(51 * SECOND, other)] * 5)
    assert open_of(rig, "overflow:0") == (5, 5)
    rig.tracker.reset_histograms()
    assert rig.tracker.get_status()["open_error"] == 0
    rig.send(opened_at(60 * SECOND, other))
    assert open_of(rig, other) == (1, 0)


def test_producers_that_tell_of_no_opens_leave_no_error() -> None:
    """Their backends have nothing open, whatever closed."""
    rig = Rig()
    rig.send(*[closed_at(100 * SECOND)] * 9)
    assert open_of(rig) == (0, 0)
    rig.tracker.remove("web", TARGET)
    assert rig.tracker.get_status()["open_error"] == 0


def test_older_closes_do_not_let_a_backend_expire() -> None:
    """Three connections are open for long; five that were open before the start have closed."""
    rig = Rig(expire_after=0.05)
    other = "10.0.0.2:80"
    rig.send(*[opened_at(50 * SECOND)] * 3, *[closed_at(5 * SECOND)] * 5)
    rig.send(opened_at(50 * SECOND, other), closed_at(50 * SECOND, other))

    def other_is_gone() -> bool:
        return other not in {row.target for row in rig.tracker.backends()}

    wait_until(other_is_gone, "the idle backend to expire")
    assert open_of(rig) == (3, 0)


@pytest.mark.parametrize("ns", [2**64 - 1, 2**64 - 2, 2**63])
def test_a_time_that_no_clock_tells_is_no_horizon(ns: int) -> None:
    """Else nothing would ever be open."""
    rig = Rig()
    rig.send(opened_at(ns), *[opened_at(50 * SECOND)] * 3)
    assert open_of(rig) == (3, 0)


@pytest.mark.parametrize("tells", [True, False])
def test_what_closed_before_any_opened_event_is_not_open(tells: bool) -> None:
    """Rings that were full at the start: the one with the closes comes first.

    What began before the last end counts neither as open nor as closed.
    """
    two = TwoRings()
    opens = [foreign64(1, (50 + i) * SECOND, client=("192.0.2.7", 1 + i)) for i in range(10)]
    closes = [foreign64(2, (60 + i) * SECOND, client=("192.0.2.7", 1 + i)) for i in range(9)]
    if tells:
        opens = [opened_at((50 + i) * SECOND) for i in range(10)]
        closes = [closed_at((50 + i) * SECOND) for i in range(9)]
    for ring, records in (1, closes), (0, opens):
        for record in records:
            two.send(ring, record, 1)
    assert two.row() == (10, 0)
    later = 200 * SECOND
    two.send(0, opened_at(later) if tells else foreign64(1, later), 1)
    assert two.row() == (11, 1)


def test_a_backend_with_a_row_may_close_in_the_overflow_row_of_another_ring() -> None:
    """Each ring's shard has room of its own."""
    rings = [stats.MemoryRing(1 << 16) for _ in range(2)]
    streams = [stats.create_event_stream(ring) for ring in rings]
    tracker = LatencyTracker(max_backends=1)
    tracker.start(streams, None, "web")
    for ring, records in (
        (0, [opened_at(50 * SECOND)] * 5),
        (1, [opened_at(51 * SECOND, "10.0.0.2:80"), *[closed_at(50 * SECOND)] * 5]),
    ):
        for record in records:
            assert rings[ring].produce(record)
        streams[ring].drain()
    assert {row.target: row.open for row in tracker.backends()}[TARGET] == 5
    assert tracker.get_status()["open_error"] == 5


def test_a_reset_takes_what_waits_before_it_forgets_what_was_lost() -> None:
    """Closes find no room while the opened events wait in the ring."""
    for _ in range(50):
        rig = Rig(size=4096, max_backends=10)
        began = 50 * SECOND
        while rig.ring.produce(opened_at(began)):
            began += 1
        for ns in range(50 * SECOND, began):
            rig.ring.produce(closed_at(ns))
        rig.tracker.reset_histograms()
        rig.stream.drain()
        found, error = open_of(rig)
        assert not found or error
