"""The header for load-balancer authors, as an author would use it."""

from __future__ import annotations

import os
import struct
from contextlib import closing
from time import monotonic_ns
from typing import TYPE_CHECKING

import pytest

from lblatency import LatencyError, LatencyTracker, stats
from tests.support import bpf
from tests.support.clang import COMPILERS, compiled
from tests.support.ring import Event, Ring

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.bpf


def load(compiler: str, bpffs: bpf.Bpffs, out: Path, *options: str) -> str:
    """Compile producers.bpf.c, load it, and pin all in the bpffs; gives the path of that."""
    assert compiler in COMPILERS, "no clang found"
    bpf.load(compiled("producers", out, *options, compiler=compiler), bpffs)
    assert sorted(os.listdir(f"{bpffs.path}/programs")) == ["from_tc", "from_tp_btf", "from_xdp"]
    return bpffs.path


@pytest.mark.parametrize("compiler", COMPILERS or ["none"])
def test_every_kind_of_program_sends_events(
    compiler: str, bpffs: bpf.Bpffs, tmp_path: Path
) -> None:
    """XDP, TC and tracing programs compile without warnings, load, and send what they were told."""
    at = load(compiler, bpffs, tmp_path)
    fds = [
        bpf.open_pinned(f"{at}/{name}")
        for name in (
            "programs/from_xdp",
            "programs/from_tc",
            "maps/lbl_events",
            "maps/lbl_counters",
        )
    ]
    try:
        with closing(Ring(fds[2], 1 << 20)) as ring:
            before = monotonic_ns()
            for program in fds[:2]:
                bpf.run_on_frame(program, bytes(64))
            after = monotonic_ns()
            events = ring.read()
        check_events(events, before, after)
        assert counted(fds[3]) == (4, 0)
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("compiler", COMPILERS or ["none"])
def test_the_rings_of_all_cpus_are_one_stream(
    compiler: str, bpffs: bpf.Bpffs, tmp_path: Path
) -> None:
    """Each CPU's events go to its own ring, all are one stream, and a missing ring is counted."""
    cpus = os.cpu_count() or 1
    at = load(compiler, bpffs, tmp_path, f"-DLBL_RINGS={cpus}")
    array, program = (
        bpf.open_pinned(f"{at}/maps/lbl_events"),
        bpf.open_pinned(f"{at}/programs/from_xdp"),
    )
    with pytest.raises(LatencyError, match="has no rings in it yet"):
        stats.create_event_stream(array)
    bpf.run_on_frame(program, bytes(64))
    for cpu in range(cpus):
        ring = bpf.create_map(bpf.RINGBUF, 0, 0, 1 << 20)
        bpf.update(array, struct.pack("=I", cpu), struct.pack("=I", ring))
        os.close(ring)
    with stats.create_event_stream(f"{at}/maps/lbl_events") as stream:
        assert len(stream.streams) == cpus
        tracker = LatencyTracker()
        tracker.start(stream, None, "web", proxies={9: "nine"})
        for cpu in range(cpus):
            before = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {cpu})
            bpf.run_on_frame(program, bytes(64))
            os.sched_setaffinity(0, before)
        tracker.stop()
        found = stream.stats()
    assert (found.produced, found.received, found.dropped) == (2 * cpus, 2 * cpus, 0)
    assert tracker.get_status()["backends"]["nine", "10.0.0.1:8080"]["closed"] == cpus
    os.close(array)
    os.close(program)


def check_events(events: list[Event], before: int, after: int) -> None:
    """Hold what arrived against what report() in producers.bpf.c sends."""
    assert [(event.backend_id, event.type, event.reason) for event in events] == [
        (1, 1, 0),
        (1, 2, 1),
        (2, 1, 0),
        (2, 2, 1),
    ]
    for event in events:
        if event.type == 1:
            assert event.timestamp_ns == 3000
        else:
            assert before <= event.timestamp_ns <= after
        assert (event.protocol, event.flags, event.created_ns) == (6, 1, 1000)
        assert (event.connect_us, event.first_byte_us) == (1, 0xFFFFFFFF)
        assert (event.closing_us, event.port, event.proxy_id) == (0xFFFFFFFE, 8080, 9)
        assert event.addr == bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1])


def counted(fd: int) -> tuple[int, int]:
    """Add up struct lbl_counters over the CPUs."""
    cpus = bpf.possible_cpus()
    values = bpf.lookup(fd, bytes(4), 16 * cpus)
    numbers = struct.unpack(f"={2 * cpus}Q", values)
    return sum(numbers[::2]), sum(numbers[1::2])
