"""The sums of each tracker while the kernel produces and signals arrive."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from lblatency import BpfError, LatencyTracker, stats
from tests.support import bpf
from tests.support.clang import compiled
from tests.support.rig import assert_accounted

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.bpf

ROOT = Path(__file__).parents[2]
ROUNDS = 1000


def test_every_sum_is_exact_in_a_storm_of_signals(bpffs: bpf.Bpffs, tmp_path: Path) -> None:
    """1,000 starts and stops, and a signal per ms that raises, starts, stops, forks or makes."""
    bpf.load(compiled("filler", tmp_path), bpffs)
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "tests.support.storm", bpffs.path, str(ROUNDS)],
        cwd=ROOT,
        pass_fds=[bpffs.fd],
        capture_output=True,
        text=True,
        timeout=120,
    )
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr


class Balancer(NamedTuple):
    """A program with two rings, and one map that counts for both."""

    at: str
    prog: int
    rings: list[int]

    def send(self) -> None:
        """Two events into each ring."""
        before = os.sched_getaffinity(0)
        for cpu in range(len(self.rings)):
            os.sched_setaffinity(0, {cpu})
            bpf.run_on_frame(self.prog, bytes(64))
        os.sched_setaffinity(0, before)


@pytest.fixture
def balancer(bpffs: bpf.Bpffs, tmp_path: Path) -> Iterator[Balancer]:
    """Loaded, with empty rings."""
    if len(os.sched_getaffinity(0) & {0, 1}) < 2:
        pytest.skip("needs CPUs 0 and 1")
    bpf.load(compiled("producers", tmp_path, "-DLBL_RINGS=2"), bpffs)
    array = bpf.open_pinned(f"{bpffs.path}/maps/lbl_events")
    rings = [bpf.create_map(bpf.RINGBUF, 0, 0, 1 << 20) for _ in range(2)]
    for cpu, ring in enumerate(rings):
        bpf.update(array, struct.pack("=I", cpu), struct.pack("=I", ring))
    prog = bpf.open_pinned(f"{bpffs.path}/programs/from_xdp")
    yield Balancer(bpffs.path, prog, rings)
    for fd in (array, prog, *rings):
        os.close(fd)


def test_a_start_that_fails_leaves_the_sums_whole(balancer: Balancer) -> None:
    """One ring of two has no room: what its producer counted is not held against the other."""
    stream = stats.create_event_stream(f"{balancer.at}/maps/lbl_events")
    second = stats.EventStream(stream.streams[1:])
    others = [second.subscribe(10) for _ in range(32)]
    balancer.send()
    tracker = LatencyTracker()
    with pytest.raises(BpfError, match="all its places are taken"):
        tracker.start(stream, None, "web")
    assert_accounted(tracker)
    for other in others:
        other.close()
    tracker.start(stream, None, "web")
    balancer.send()
    tracker.stop()
    assert_accounted(tracker)


def test_streams_of_their_own_may_share_counters(balancer: Balancer) -> None:
    """One count for two rings, each opened by itself, is counted once."""
    counters = f"{balancer.at}/maps/lbl_counters"
    streams = [stats.create_event_stream(ring, counters=counters) for ring in balancer.rings]
    tracker = LatencyTracker()
    tracker.start(streams, None, "web")
    balancer.send()
    tracker.stop()
    assert assert_accounted(tracker)["produced"] == 4
