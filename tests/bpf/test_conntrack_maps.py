"""Real conntrack maps: every kind of hash, both key formats."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import lblatency
from lblatency import LatencyTracker, stats
from lblatency.conntrack import Connection, ConntrackMap
from tests.support import bpf
from tests.support.conntrack import KINDS, NUMBERS, PER_CPU, Table
from tests.support.rig import SECOND, Rig, assert_accounted, foreign64, foreign72

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.bpf


@pytest.fixture(params=[16, 40])
def unified(request: pytest.FixtureRequest) -> bool:
    """Whether keys are of the unified key format."""
    return bool(request.param == 40)


@pytest.fixture(params=KINDS)
def table(request: pytest.FixtureRequest, unified: bool) -> Iterator[Table]:
    """An empty map of each kind and key format."""
    made = Table(KINDS[request.param], unified)
    yield made
    os.close(made.fd)


def test_an_entry_is_read(table: Table) -> None:
    """An entry is found by its ends and protocol, and in the list of all entries."""
    table.put()
    table.put(protocol=17, per_cpu=[(1, 2, 3, 4, 5, 6)])
    found = Connection("192.0.2.7:40000", "10.0.0.1:80", 6, *NUMBERS)
    with ConntrackMap(table.fd) as conntrack:
        assert conntrack.get("192.0.2.7:40000", "10.0.0.1:80") == found
        udp = conntrack.get("192.0.2.7:40000", "10.0.0.1:80", protocol=17)
        assert udp == Connection("192.0.2.7:40000", "10.0.0.1:80", 17, 1, 2, 3, 4, 5, 6)
        assert conntrack.get("192.0.2.7:40001", "10.0.0.1:80") is None
        assert conntrack.get("[2001:db8::7]:40000", "[2001:db8::1]:80") is None
        assert sorted(conntrack, key=lambda c: c.protocol) == [found, udp]


@pytest.mark.parametrize("kind", sorted(PER_CPU))
@pytest.mark.parametrize("created", [(9, 7), (7, 9), (0, 9), (9, 0), (9, 7, 0, 8)])
def test_values_of_cpus_are_combined(kind: int, unified: bool, created: tuple[int, ...]) -> None:
    """The earliest creation that is not 0, the latest packet, and the sums of the counts."""
    table = Table(kind, unified)
    rows = [(ns, 30 - ns, i + 1, 10 * i, 100 * i, 1000 * i) for i, ns in enumerate(created)]
    rows = rows[: table.cpus]
    table.put(per_cpu=rows)
    conntrack = ConntrackMap(table.fd)
    os.close(table.fd)
    found = conntrack.get("192.0.2.7:40000", "10.0.0.1:80")
    assert found is not None
    assert found.created_ns == min(row[0] for row in rows if row[0])
    assert found.last_seen_ns == max(row[1] for row in rows)
    sums = [sum(row[i] for row in rows) for i in range(2, 6)]
    assert [found.packets_fwd, found.packets_rev, found.bytes_fwd, found.bytes_rev] == sums


@pytest.mark.parametrize("make", [foreign64, foreign72])
def test_a_close_finds_its_creation_in_the_map(table: Table, make: type) -> None:
    """The map is used if neither the event nor an opened event tells the creation time."""
    table.put()
    table.put(("192.0.2.8", 50000), protocol=17, per_cpu=[(6 * SECOND, 0, 0, 0, 0, 0)])
    table.put(("192.0.2.9", 50000), per_cpu=[(0,) * 6])
    table.put(("192.0.2.11", 50000))
    ring = stats.MemoryRing(4096)
    stream = stats.create_event_stream(ring)
    tracker = LatencyTracker()
    conntrack = ConntrackMap(table.fd)
    tracker.start(stream, conntrack, "web")
    conntrack.close()
    ring.produce(make(2, 15 * SECOND))
    ring.produce(make(2, 16 * SECOND, ("192.0.2.8", 50000)))
    ring.produce(make(2, 16 * SECOND, ("192.0.2.9", 50000)))
    ring.produce(make(2, 16 * SECOND, ("192.0.2.10", 50000)))
    ring.produce(make(2, 4 * SECOND, ("192.0.2.11", 50000)))
    tracker.stop()
    histogram = tracker.get_all_histograms()["web", "10.0.0.1:80"]
    assert (histogram["count"], histogram["sum"]) == (2, 20)
    counts = assert_accounted(tracker)
    assert (counts["recorded"], counts["unmatched"], counts["rejected"]) == (2, 2, 1)


def test_a_seen_opening_is_believed_before_the_map(table: Table) -> None:
    """The opened event is used before the map."""
    table.put()
    ring = stats.MemoryRing(4096)
    tracker = LatencyTracker()
    tracker.start(stats.create_event_stream(ring), ConntrackMap(table.fd), "web")
    ring.produce(foreign64(1, 10 * SECOND))
    ring.produce(foreign64(2, 12 * SECOND))
    tracker.stop()
    assert tracker.get_all_histograms()["web", "10.0.0.1:80"]["sum"] == 2


def test_the_unified_key_holds_both_families() -> None:
    """The unified key format holds both families, and tells them apart."""
    table = Table(bpf.HASH, unified=True)
    table.put(("2001:db8::7", 40000), ("2001:db8::1", 443))
    table.put()
    with ConntrackMap(table.fd) as conntrack:
        found = conntrack.get("[2001:db8::7]:40000", "[2001:db8::1]:443")
        assert found is not None
        assert (found.client, found.target) == ("[2001:db8::7]:40000", "[2001:db8::1]:443")
        assert {entry.client for entry in conntrack} == {"[2001:db8::7]:40000", "192.0.2.7:40000"}
    os.close(table.fd)


def test_all_entries_come_once(table: Table) -> None:
    """Each entry comes once if nothing changes the map; an empty map has none."""
    conntrack = ConntrackMap(table.fd)
    assert list(conntrack) == []
    clients = [("192.0.2.1", 1024 + i) for i in range(500)]
    for client in clients:
        table.put(client)
    found = [entry.client for entry in conntrack]
    assert len(found) == len(set(found)) == 500
    assert set(found) == {f"{ip}:{port}" for ip, port in clients}


@pytest.mark.parametrize(
    ("kind", "key_bytes", "value_bytes"),
    [
        (bpf.ARRAY, 4, 128),
        (bpf.PERCPU_ARRAY, 4, 128),
        (bpf.HASH, 8, 128),
        (bpf.HASH, 16, 63),
        (bpf.HASH, 40, 87),
        (bpf.HASH, 16, 8192),
        (bpf.QUEUE, 0, 128),
    ],
)
def test_other_maps_are_refused(kind: int, key_bytes: int, value_bytes: int) -> None:
    """The error says what a conntrack map looks like."""
    fd = bpf.create_map(kind, key_bytes, value_bytes, 10)
    with pytest.raises(lblatency.LatencyError, match="must be a hash, plain or per-CPU"):
        ConntrackMap(fd)
    os.close(fd)


def test_what_is_no_map_is_refused() -> None:
    """An fd of something else, or a closed one, is an error."""
    with open("/dev/null") as null, pytest.raises(lblatency.LatencyError, match="no conntrack map"):
        ConntrackMap(null)
    with pytest.raises(lblatency.BpfError, match="opening the conntrack map -1"):
        ConntrackMap(-1)


def test_a_closed_map_is_closed() -> None:
    """Reading a closed map, or starting with it, is a ValueError."""
    fd = bpf.create_map(bpf.HASH, 16, 128, 10)
    conntrack = ConntrackMap(fd)
    os.close(fd)
    conntrack.close()
    rig = Rig()
    for call in (
        lambda: conntrack.get("192.0.2.7:1", "10.0.0.1:80"),
        lambda: list(conntrack),
        lambda: LatencyTracker().start(rig.stream, conntrack, "web"),
    ):
        with pytest.raises(ValueError, match="the conntrack map is closed"):
            call()
