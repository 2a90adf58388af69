"""Creation times from opened events: all that an event tells is part of the connection's name."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from lblatency import LatencyTracker, stats
from tests.support.model import native_index
from tests.support.rig import SECOND, TARGET, Rig, assert_accounted, foreign64, foreign72

if TYPE_CHECKING:
    from collections.abc import Callable

OPENED, CLOSED = 1, 2
VIPS = [("198.51.100.1", 443), ("198.51.100.2", 443), ("198.51.100.1", 444)]
HALVES = [(OPENED, 0), (OPENED, 1), (CLOSED, 0), (CLOSED, 1)]
ORDERS = [
    order
    for order in itertools.permutations(HALVES)
    if all(order.index((OPENED, i)) < order.index((CLOSED, i)) for i in (0, 1))
]


def sums(rig: Rig) -> tuple[int, float]:
    """How many lifetimes were recorded for TARGET, and their sum in seconds."""
    histogram = rig.tracker.get_histogram("web", TARGET)
    return (histogram["count"], histogram["sum"]) if histogram else (0, 0)


@pytest.mark.parametrize("event", [foreign64, foreign72])
@pytest.mark.parametrize("vips", list(itertools.combinations(VIPS, 2)))
def test_one_client_port_at_two_vips_is_two_connections(
    event: Callable[..., bytes], vips: tuple[tuple[str, int], tuple[str, int]]
) -> None:
    """The VIP's address and its port each tell two connections of one client port apart."""
    rig = Rig()
    rig.send(
        event(OPENED, 100 * SECOND, vip=vips[0]),
        event(OPENED, 105 * SECOND, vip=vips[1]),
        event(CLOSED, 110 * SECOND, vip=vips[0]),
        event(CLOSED, 111 * SECOND, vip=vips[1]),
    )
    assert rig.counts("recorded", "unmatched") == {"recorded": 2, "unmatched": 0}
    histogram = rig.tracker.get_histogram("web", TARGET)
    assert histogram is not None
    assert histogram["sum"] == 16
    assert set(histogram.native(6).buckets) == {native_index(n * SECOND, 6) for n in (10, 6)}
    assert_accounted(rig.tracker)


@pytest.mark.parametrize("order", ORDERS)
def test_two_of_one_name_that_overlap_have_no_lifetime(order: tuple[tuple[int, int], ...]) -> None:
    """TCP and UDP of all the same ports: a lifetime only if one ended before the other began."""
    rig = Rig()
    for second, (kind, _) in enumerate(order, 1):
        rig.send(foreign64(kind, second * SECOND))
    one_after_the_other = [kind for kind, _ in order] == [OPENED, CLOSED, OPENED, CLOSED]
    assert sums(rig) == ((2, 2) if one_after_the_other else (0, 0))
    assert rig.counts("unmatched") == {"unmatched": 0 if one_after_the_other else 2}
    assert_accounted(rig.tracker)


def test_a_lost_close_costs_one_lifetime() -> None:
    """After an unmatched close, the next connection of that name has its own lifetime again."""
    rig = Rig()
    rig.send(
        foreign64(OPENED, 100 * SECOND),  # its close was lost
        foreign64(OPENED, 200 * SECOND),
        foreign64(OPENED, 250 * SECOND),
        foreign64(CLOSED, 300 * SECOND),
    )
    assert rig.counts("recorded", "unmatched") == {"recorded": 0, "unmatched": 1}
    rig.send(foreign64(OPENED, 400 * SECOND), foreign64(CLOSED, 407 * SECOND))
    assert rig.counts("recorded", "unmatched") == {"recorded": 1, "unmatched": 1}
    assert sums(rig) == (1, 7)


def test_an_opened_event_that_comes_twice_is_one_opening() -> None:
    """The same event delivered again has the same time, so only one can be meant."""
    rig = Rig()
    opened = foreign64(OPENED, 100 * SECOND)
    rig.send(opened, opened, foreign64(CLOSED, 104 * SECOND))
    assert sums(rig) == (1, 4)
    rig.send(foreign64(CLOSED, 105 * SECOND))
    assert rig.counts("recorded", "unmatched") == {"recorded": 1, "unmatched": 1}


def test_a_tuple_that_changes_rings_keeps_no_older_birth() -> None:
    """Opened on one ring and closed on another, and then the other way round."""
    rings = [stats.MemoryRing(1 << 16) for _ in range(2)]
    streams = [stats.create_event_stream(ring) for ring in rings]
    tracker = LatencyTracker()
    tracker.start(streams, None, "web")
    for ring, kind, second in ((0, OPENED, 10), (1, CLOSED, 13), (1, OPENED, 59), (0, CLOSED, 60)):
        assert rings[ring].produce(foreign64(kind, second * SECOND))
        streams[ring].drain()
    histogram = tracker.get_histogram("web", TARGET)
    assert histogram is not None
    assert (histogram["count"], histogram["sum"]) == (2, 4)
