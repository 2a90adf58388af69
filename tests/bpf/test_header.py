"""The header for load-balancer authors, used as an author would."""

from __future__ import annotations

import json
import os
import struct
import subprocess
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


def build(compiler: str, name: str, out: Path, *options: str) -> Path:
    """Compile a source of this folder without warnings; returns the path of the object."""
    assert compiler in COMPILERS, "no clang found"
    return compiled(name, out, *options, compiler=compiler)


def link(out: Path, *objects: Path) -> subprocess.CompletedProcess[str]:
    """Make all.o of objects, as an author does whose program has several sources."""
    return subprocess.run(
        ["bpftool", "gen", "object", out / "all.o", *objects],
        capture_output=True,
        text=True,
        check=False,
    )


def load(program: Path, bpffs: bpf.Bpffs, *others: str) -> str:
    """Load the programs and pin everything in the bpffs; returns its path."""
    bpf.load(program, bpffs)
    known = ["from_tc", "from_tp_btf", "from_xdp"]
    assert sorted(os.listdir(f"{bpffs.path}/programs")) == sorted([*known, *others])
    return bpffs.path


@pytest.mark.parametrize("compiler", COMPILERS or ["none"])
def test_every_kind_of_program_sends_events(
    compiler: str, bpffs: bpf.Bpffs, tmp_path: Path
) -> None:
    """XDP, TC and tracing programs compile without warnings, load, and send their events."""
    at = load(build(compiler, "producers", tmp_path), bpffs)
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
    """Each CPU has its own ring in one stream; events without a ring count as dropped."""
    allowed = os.sched_getaffinity(0)
    cpus = max(allowed) + 1
    at = load(build(compiler, "producers", tmp_path, f"-DLBL_RINGS={cpus}"), bpffs)
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
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
            bpf.run_on_frame(program, bytes(64))
        os.sched_setaffinity(0, allowed)
        tracker.stop()
        found = stream.stats()
    sent = 2 * len(allowed)
    assert (found.produced, found.received, found.dropped) == (sent, sent, 0)
    assert tracker.get_status()["backends"]["nine", "10.0.0.1:8080"]["closed"] == len(allowed)
    os.close(array)
    os.close(program)


@pytest.mark.parametrize("compiler", COMPILERS or ["none"])
def test_two_objects_of_one_program_share_the_maps(
    compiler: str, bpffs: bpf.Bpffs, tmp_path: Path
) -> None:
    """Two linked objects that include the header share one ring and one count."""
    linked = link(tmp_path, *(build(compiler, name, tmp_path) for name in ("producers", "linked")))
    assert linked.returncode == 0, linked.stderr
    at = load(tmp_path / "all.o", bpffs, "from_linked")
    maps = [name for name in os.listdir(f"{at}/maps") if name.startswith("lbl_")]
    assert sorted(maps) == ["lbl_counters", "lbl_events"]
    fds = [
        bpf.open_pinned(f"{at}/{name}")
        for name in (
            "programs/from_tc",
            "programs/from_linked",
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
            *_, event = events = ring.read()
        assert [event.backend_id for event in events] == [2, 2, 4]
        assert counted(fds[3]) == (3, 0)
        assert before <= event.created_ns <= event.timestamp_ns <= after
        assert (event.type, event.reason, event.protocol, event.flags) == (2, 3, 17, 2)
        assert (event.addr, event.port) == (b"\x20\x01" + bytes(13) + b"\x07", 8443)
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("compiler", COMPILERS or ["none"])
def test_two_objects_with_a_ring_for_each_cpu_link(compiler: str, tmp_path: Path) -> None:
    """Linked objects share an array of rings, if both define it alike."""
    ours = build(compiler, "producers", tmp_path, "-DLBL_RINGS=4")
    linked = link(tmp_path, ours, build(compiler, "linked", tmp_path, "-DLBL_RINGS=4"))
    assert linked.returncode == 0, linked.stderr
    refused = link(tmp_path, ours, build(compiler, "linked", tmp_path, "-DLBL_RINGS=8"))
    assert "lbl_events" in refused.stderr
    assert refused.returncode != 0


PIN_AND_SHOW = """
mount -t bpf bpf /sys/fs/bpf
for time in first second; do
    bpftool prog loadall "$1" /sys/fs/bpf/$time
    bpftool map show pinned /sys/fs/bpf/lbl_events -j
    bpftool map show pinned /sys/fs/bpf/lbl_counters -j
done
"""


@pytest.mark.parametrize("rings", [[], ["-DLBL_RINGS=4"]])
def test_maps_are_pinned_by_name_if_asked_for(rings: list[str], tmp_path: Path) -> None:
    """Both maps are pinned by libbpf, and a program that is loaded again reuses them."""
    program = build(COMPILERS[0], "producers", tmp_path, "-DLBL_PIN_BY_NAME", *rings)
    shown = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", PIN_AND_SHOW, "sh", program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    maps = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [each["name"] for each in maps] == ["lbl_events", "lbl_counters"] * 2
    assert [each["id"] for each in maps[:2]] == [each["id"] for each in maps[2:]]


def check_events(events: list[Event], before: int, after: int) -> None:
    """Compare the events with those that report() in producers.bpf.c sends."""
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
