"""The sums of each tracker while the kernel produces and signals arrive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lblatency import BpfError, LatencyTracker, stats
from tests.support import bpf
from tests.support.clang import compiled
from tests.support.rig import assert_accounted

if TYPE_CHECKING:
    from tests.support.per_cpu import PerCpu


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


def send(per_cpu: PerCpu) -> None:
    """Two events into each ring."""
    for cpu in range(2):
        per_cpu.send(cpu, 2)


def test_a_start_that_fails_leaves_the_sums_whole(per_cpu: PerCpu) -> None:
    """One ring of two has no room: what its producer counted is not held against the other."""
    stream = per_cpu.open()
    second = stats.EventStream(stream.streams[1:])
    others = [second.subscribe(10) for _ in range(32)]
    send(per_cpu)
    tracker = LatencyTracker()
    with pytest.raises(BpfError, match="all its places are taken"):
        tracker.start(stream, None, "web")
    assert_accounted(tracker)
    for other in others:
        other.close()
    tracker.start(stream, None, "web")
    send(per_cpu)
    tracker.stop()
    assert_accounted(tracker)


def test_streams_of_their_own_may_share_counters(per_cpu: PerCpu) -> None:
    """One count for two rings, each opened by itself, is counted once."""
    streams = [per_cpu.open(ring) for ring in per_cpu.rings]
    tracker = LatencyTracker()
    tracker.start(streams, None, "web")
    send(per_cpu)
    tracker.stop()
    assert assert_accounted(tracker)["produced"] == 4
