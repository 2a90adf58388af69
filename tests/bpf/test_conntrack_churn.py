"""Listing a conntrack map while its entries come and go."""

from __future__ import annotations

import os
import signal
import struct
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import lblatency
from lblatency.conntrack import ConntrackMap
from lblatency.demo.namespace import die_with_parent
from tests.support import bpf
from tests.support.conntrack import KINDS, Table, key
from tests.support.rig import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.bpf

ENTRIES, CHURNING, LISTINGS = 20_000, 2_000, 20
BACKEND = ("10.0.0.1", 80)


def client(i: int) -> tuple[str, int]:
    """The i-th client."""
    return f"192.0.2.{i // 50_000}", 1024 + i % 50_000


@contextmanager
def churn(table: Table, backend: tuple[str, int] = BACKEND) -> Iterator[None]:
    """A process that deletes and adds the first entries, in turn, until the block ends."""
    pid = os.fork()
    if pid == 0:
        die_with_parent()
        keys = [key(client(i), backend, 6, table.unified) for i in range(CHURNING)]
        value = bpf.lookup(table.fd, keys[0], 128 * (table.cpus if table.per_cpu else 1))
        while True:
            for each in keys:
                bpf.delete(table.fd, each)
                bpf.update(table.fd, each, value)
    try:
        yield
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "nothing churned"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_each_that_stays_comes_exactly_once(kind: str) -> None:
    """18,000 of 20,000 entries stay, and come once per listing, with all CPUs' values."""
    table = Table(KINDS[kind], unified=False, entries=2 * ENTRIES)
    rows = [(5 * SECOND, 7 * SECOND, 1, 2, 3, 4), (6 * SECOND, 8 * SECOND, 10, 20, 30, 40)]
    rows = rows[: min(2, table.cpus) if table.per_cpu else 1]
    for i in range(ENTRIES):
        table.put(client(i), per_cpu=rows)
    packets = sum(row[2] for row in rows)
    staying = {f"{ip}:{port}" for ip, port in map(client, range(CHURNING, ENTRIES))}
    conntrack = ConntrackMap(table.fd)
    with churn(table):
        for _ in range(LISTINGS):
            found: Counter[str] = Counter()
            for entry in conntrack:
                found[entry.client] += 1
                assert (entry.created_ns, entry.packets_fwd) == (5 * SECOND, packets)
            stayed = Counter(found[each] for each in staying)
            assert stayed == {1: ENTRIES - CHURNING}
    table.close()


def test_a_map_that_cannot_be_read_is_an_error() -> None:
    """A map that user space may only write lists nothing, and says so; a tracker does not start."""
    attr = struct.pack("=5I", bpf.HASH, 16, 128, 10, 1 << 4)  # BPF_F_WRONLY
    fd = bpf.call(bpf.MAP_CREATE, attr)
    conntrack = ConntrackMap(fd)
    with pytest.raises(lblatency.BpfError, match="reading the conntrack map"):
        list(conntrack)
    with pytest.raises(lblatency.BpfError, match="scanning the conntrack map"):
        conntrack.scan()
    assert conntrack.status()["failures"] == 1
    ring = lblatency.stats.create_event_stream(lblatency.stats.MemoryRing(4096))
    tracker = lblatency.LatencyTracker()
    with pytest.raises(lblatency.BpfError):
        tracker.start(ring, conntrack, "web")
    assert not tracker.running()
    os.close(fd)
