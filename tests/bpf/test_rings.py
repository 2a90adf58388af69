"""Real BPF ring buffers: how to open them, one consumer each, and libbpf's own consumer."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import lblatency
from lblatency import BpfError, LatencyError, LatencyTracker, stats
from tests.support import bpf
from tests.support.filler import Filler
from tests.support.rig import assert_accounted, in_child, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.bpf

RING_BYTES = 1 << 18


@pytest.fixture
def ring() -> Iterator[int]:
    """An empty ring of one page."""
    fd = bpf.create_map(bpf.RINGBUF, 0, 0, 4096, f"lbl_t{os.getpid()}")
    yield fd
    os.close(fd)


# ---- how a ring is known ----


def test_a_ring_is_found_by_fd_path_id_and_name(ring: int, bpffs: bpf.Bpffs) -> None:
    """All four open the same ring."""
    path = f"{bpffs.path}/ring"
    bpf.pin(ring, path)
    with open(os.dup(ring), closefd=True) as file:
        for spec in (ring, file, path, Path(path), str(bpf.map_id(ring)), f"lbl_t{os.getpid()}"):
            with stats.create_event_stream(spec) as stream:
                assert stream.stats() == stats.StreamStats(
                    None, 0, None, 0, 0, 0, 0, 4096,
                    taken=0, moved=0, replaced=0, attached=True, stalled_since_ns=0,
                )  # fmt: skip


def test_two_maps_of_one_name_are_an_error_that_lists_them(ring: int) -> None:
    """Of each map it says the id, the type and the program that uses it, in one line."""
    name = f"lbl_t{os.getpid()}"
    other = bpf.create_map(bpf.ARRAY, 4, 8, 1, name)
    program = bpf.load_return_0("chooser", other)
    ids = bpf.map_id(ring), bpf.map_id(other)
    with pytest.raises(BpfError, match="several maps have this name") as caught:
        stats.create_event_stream(name)
    assert str(caught.value).partition("give the id of ")[2] == (
        f"{ids[0]} (ringbuf, used by no program), {ids[1]} (array, used by chooser"
        f" {bpf.program_id(program)})"
    )
    assert caught.value.errno == errno.ENOTUNIQ
    os.close(program)
    os.close(other)


def test_many_maps_of_one_name_are_still_an_error() -> None:
    """A list that is too long is cut, not an overrun."""
    name = f"lbl_m{os.getpid()}"
    others = [bpf.create_map(bpf.ARRAY, 4, 8, 1, name) for _ in range(300)]
    with pytest.raises(BpfError, match=f"give the id of {bpf.map_id(others[0])} ") as caught:
        stats.create_event_stream(name)
    assert 4000 < len(str(caught.value)) < 4300
    for other in others:
        os.close(other)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("/nowhere/at/all", "no BPF map is pinned at /nowhere/at/all.*mount -t bpf"),
        ("987654321", "opening the BPF map with id 987654321: No such file.*bpftool map"),
        ("9" * 11, "opening the BPF map called '99999999999': No such file.*bpftool map"),
        ("no such name", "opening the BPF map called 'no such name': No such file.*bpftool map"),
        (-1, "opening the ring buffer -1"),
        (12345, "opening the ring buffer 12345"),
    ],
)
def test_a_ring_that_is_not_there_is_explained(spec: int | str, text: str) -> None:
    """The error says what was searched, where, and how to list what exists."""
    with pytest.raises(LatencyError, match=text):
        stats.create_event_stream(spec)


def test_paths_that_are_no_pins_are_refused(bpffs: bpf.Bpffs, tmp_path: Path) -> None:
    """Missing paths, and files and directories that are no maps, are errors."""
    with pytest.raises(LatencyError, match="no BPF map is pinned at"):
        stats.create_event_stream(f"{bpffs.path}/ring")
    file = tmp_path / "ring"
    file.touch()
    for path in (file, tmp_path):
        with pytest.raises(LatencyError, match=f"{path} is not in a bpffs"):
            stats.create_event_stream(path)


@pytest.mark.parametrize("kind", [bpf.ARRAY, bpf.HASH, bpf.PERCPU_ARRAY])
def test_other_maps_are_refused(kind: int) -> None:
    """A map of another kind is no ring."""
    fd = bpf.create_map(kind, 4, 16, 1)
    with pytest.raises(LatencyError, match=f"map {fd} is no ring buffer of events"):
        stats.create_event_stream(fd)
    os.close(fd)


def test_a_program_is_refused(filler: Filler) -> None:
    """A pinned program is no map."""
    with pytest.raises(LatencyError, match="is no ring buffer"):
        stats.create_event_stream(f"{filler.at}/programs/fill")


@pytest.mark.parametrize(("kind", "value"), [(bpf.ARRAY, 16), (bpf.PERCPU_ARRAY, 8)])
def test_other_counters_are_refused(ring: int, kind: int, value: int) -> None:
    """Counters must be a per-CPU array of two numbers; the error frees the ring."""
    fd = bpf.create_map(kind, 4, value, 1)
    with pytest.raises(LatencyError, match="its counters map is not one"):
        stats.create_event_stream(ring, counters=fd)
    os.close(fd)
    stats.create_event_stream(ring).close()


def test_a_second_consumer_is_refused(ring: int) -> None:
    """A ring has one consumer, in this process and across processes."""
    stream = stats.create_event_stream(ring)

    def refused() -> None:
        with pytest.raises(BpfError, match=f"{holder} consumes it already") as caught:
            stats.create_event_stream(ring)
        assert caught.value.errno == 16

    holder = "this process"
    refused()
    holder = f"process {os.getpid()}"
    in_child(refused)
    stream.close()
    stats.create_event_stream(ring).close()


def test_the_last_user_frees_the_ring(ring: int) -> None:
    """A tracker keeps the ring after its stream is closed, until it stops."""
    stream = stats.create_event_stream(ring)
    tracker = LatencyTracker()
    tracker.start(stream, None, "web")
    stream.close()
    with pytest.raises(BpfError, match="consumes it already"):
        stats.create_event_stream(ring)
    tracker.stop()
    stats.create_event_stream(ring).close()


def test_a_child_does_not_keep_the_ring(ring: int) -> None:
    """The ring is free after the parent releases it, even while a child lives."""
    stream = stats.create_event_stream(ring)
    ours, its = socket.socketpair()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        ours.close()
        its.send(b"born")
        its.recv(1)
        os._exit(0)
    its.close()
    assert ours.recv(4) == b"born"
    stream.close()
    stats.create_event_stream(ring).close()
    ours.close()
    assert os.waitpid(pid, 0)[1] == 0


# ---- what comes off it ----


def test_events_and_the_producers_counts_add_up(filler: Filler) -> None:
    """The pin path is enough to find the counters too, and the accounting adds up."""
    with stats.create_event_stream(f"{filler.at}/maps/lbl_events") as stream:
        tracker = LatencyTracker()
        tracker.start(stream, None, "web")
        for first in range(0, 50_000, 5000):
            filler.fill(first, 5000)
        tracker.stop()
    counts = assert_accounted(tracker)
    assert (counts["produced"], counts["in_ring"]) == (50_000, 0)
    assert counts["recorded"] == counts["received"]


def test_the_drain_thread_comes_by_itself(filler: Filler) -> None:
    """The drain thread takes the events, with few wakeups and with many."""
    with stats.create_event_stream(filler.open("lbl_events")) as stream:
        tracker = LatencyTracker()
        tracker.start(stream, None, "web")

        def recorded(n: int) -> bool:
            return tracker.event_counts()["recorded"] == n

        for first, n in ((0, 1), (1, 1), (2, 3000)):
            filler.fill(first, n)
            wait_until(partial(recorded, first + n), f"{first + n} events")
        assert assert_accounted(tracker)["produced"] == 3002


def test_a_full_ring_drops_and_counts(filler: Filler) -> None:
    """The producer counts the events without room; the others wait in the ring."""
    for first in range(0, 10_000, 5000):
        filler.fill(first, 5000)
    tracker = LatencyTracker()
    with stats.create_event_stream(f"{filler.at}/maps/lbl_events") as stream:
        assert stream.stats().in_ring == RING_BYTES // 64 - 1
        tracker.start(stream, None, "web")
        tracker.stop()
        filler.fill(0, 10)
        now = stream.stats()
    assert tracker.event_counts()["recorded"] == RING_BYTES // 64 - 1
    assert (now.received, now.in_ring) == (RING_BYTES // 64 - 1, 10)
    # The stream counts from its creation on; the events that were in the ring then still come.
    assert (now.produced, now.dropped) == (RING_BYTES // 64 - 1 + 10, 0)


def test_a_second_stream_goes_on_where_the_first_ended(filler: Filler) -> None:
    """Events that another consumer took are not counted again."""
    for round_ in (1, 2):
        filler.fill(round_ * 1000, 100 * round_)
        with stats.create_event_stream(f"{filler.at}/maps/lbl_events") as stream:
            assert stream.drain() == 0  # nobody is attached
            with stream.subscribe(1):
                stream.drain()
            assert stream.stats().produced == stream.stats().received == 100 * round_


# ---- libbpf's consumer ----

SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


def consume_with_libbpf(fd: int) -> list[bytes]:
    """Consume all records with ring_buffer__consume()."""
    libbpf = ctypes.CDLL("libbpf.so.1")
    libbpf.ring_buffer__new.restype = ctypes.c_void_p
    libbpf.ring_buffer__new.argtypes = [ctypes.c_int, SAMPLE, ctypes.c_void_p, ctypes.c_void_p]
    libbpf.ring_buffer__consume.argtypes = libbpf.ring_buffer__free.argtypes = [ctypes.c_void_p]
    found: list[bytes] = []

    def sample(_context: int, data: int, size: int) -> int:
        found.append(ctypes.string_at(data, size))
        return 0

    callback = SAMPLE(sample)
    manager = libbpf.ring_buffer__new(fd, callback, None, None)
    assert manager
    consumed = libbpf.ring_buffer__consume(manager)
    libbpf.ring_buffer__free(manager)
    assert consumed == len(found)
    return found


@pytest.mark.parametrize("odd", [0, 1, 17])
def test_libbpf_finds_the_same(filler: Filler, odd: int) -> None:
    """Both libbpf and we find the same events in the same order, and the same totals."""
    ours: list[stats.Event | None] = []
    theirs: list[bytes] = []
    tracker = LatencyTracker()
    copy = filler.open("copy")
    with (
        stats.create_event_stream(f"{filler.at}/maps/lbl_events") as stream,
        stream.subscribe(maxsize=20_000) as subscription,
    ):
        tracker.start(stream, None, "web")
        for first in range(0, 9000, 900):
            filler.fill(first, 900, odd)
            stream.drain()
            theirs += consume_with_libbpf(copy)
        tracker.stop()
        while event := subscription.get(timeout=0):
            ours.append(event)
        assert subscription.dropped == 0
    os.close(copy)

    assert tracker.event_counts()["received"] == len(theirs) == len(ours)
    native = [event.pack() for event in ours if event and event.client is None]
    assert native == [record for record in theirs if len(record) == 56]
    sums: dict[str, list[int]] = {}
    for record in native:
        timestamp, created = struct.unpack_from("=QQ", record, 8)
        sums.setdefault(f"10.0.0.{record[55]}:80", []).append(timestamp - created)
    everything = tracker.get_all_histograms()
    assert everything.keys() == {("web", target) for target in sums}
    for (_, target), histogram in everything.items():
        assert histogram["count"] == len(sums[target])
        assert histogram["sum"] == sum(sums[target]) / 10**9
    assert lblatency.running() is False


def test_who_is_refused_the_ring_changes_no_count(filler: Filler) -> None:
    """While another opens the ring in vain, again and again, every drop stays told."""
    path, ended, sent = f"{filler.at}/maps/lbl_events", threading.Event(), 0

    def open_in_vain() -> None:
        while not ended.is_set():
            with pytest.raises(BpfError, match="consumes it already"):
                stats.create_event_stream(path)

    with stats.create_event_stream(path) as stream:
        other = threading.Thread(target=open_in_vain)
        other.start()
        for _ in range(100):
            tracker = LatencyTracker(max_backends=10)
            tracker.start(stream, None, "web")
            filler.fill(0, 6000)  # more than fit
            sent += 6000
            assert stream.stats().produced == sent
            tracker.stop()
            assert assert_accounted(tracker)["produced"] == 6000
        ended.set()
        other.join()


def test_a_failed_open_keeps_no_ring(ring: int) -> None:
    """If the second of two rings is not there, the first is free, though the error is kept."""
    with pytest.raises(LatencyError, match="opening the BPF map with id 987654321") as caught:
        stats.create_event_stream([ring, "987654321"])
    stats.create_event_stream(ring).close()
    assert caught.value
