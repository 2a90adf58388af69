"""A balancer with a ring per CPU, in an array, and one map that counts for all of them."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from lblatency import stats
from tests.support import bpf

if TYPE_CHECKING:
    from pathlib import Path


class PerCpu(NamedTuple):
    """The program of producers.bpf.c, loaded and pinned."""

    path: str
    prog: int
    array: int
    rings: list[int]

    @classmethod
    def load(cls, compiled: Path, bpffs: bpf.Bpffs) -> PerCpu:
        """Load it with empty rings for CPUs 0 and 1."""
        bpf.load(compiled, bpffs)
        array = bpf.open_pinned(f"{bpffs.path}/maps/lbl_events")
        made = cls(bpffs.path, bpf.open_pinned(f"{bpffs.path}/programs/from_xdp"), array, [])
        for cpu in range(2):
            made.put(cpu)
        return made

    @property
    def counters(self) -> str:
        """Where the counters are pinned."""
        return f"{self.path}/maps/lbl_counters"

    def send(self, cpu: int, n: int) -> None:
        """Send `n` events, an even number, on a CPU."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cpu})
        for _ in range(n // 2):
            bpf.run_on_frame(self.prog, bytes(64))
        os.sched_setaffinity(0, before)

    def put(self, cpu: int) -> None:
        """Give a CPU a new ring."""
        self.rings.append(bpf.create_map(bpf.RINGBUF, 0, 0, 1 << 20))
        bpf.update(self.array, struct.pack("=I", cpu), struct.pack("=I", self.rings[-1]))

    def open(self, ring: int | None = None) -> stats.EventStream:
        """A stream of the array, or of one ring."""
        found = f"{self.path}/maps/lbl_events" if ring is None else ring
        return stats.create_event_stream(found, counters=self.counters)

    def close(self) -> None:
        """Close the program and the maps."""
        for fd in (self.array, self.prog, *self.rings):
            os.close(fd)
