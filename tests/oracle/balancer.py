"""A real balancer in BPF, which reports what a scenario tells it to report."""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from tests.support import bpf

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .model import Record

BATCH, RECORD_BYTES = 256, 128
_BATCH_BYTES = 4 + BATCH * RECORD_BYTES
ONLY = struct.pack("=I", 0)
COUNTERS_BYTES = 16


class Balancer:
    """The programs and maps of one run of the balancer, and its pins.

    Its maps are pinned at the same two paths in every run, as a restarted balancer pins them.
    """

    def __init__(self, compiled: Path, bpffs: bpf.Bpffs, rings: int, ring_bytes: int) -> None:
        self.events_pin = f"{bpffs.path}/lbl_events"
        self.counters_pin = f"{bpffs.path}/lbl_counters"
        self._compiled = compiled
        self._rings = rings
        self._ring_bytes = ring_bytes
        self._maps: dict[str, int] = {}
        self._prog = -1
        self.start()

    def start(self) -> None:
        """Load programs and maps anew, and pin the new maps in place of the old ones."""
        self.close()
        with bpf.mounted_bpffs() as fresh:
            bpf.load(self._compiled, fresh)
            self._prog = bpf.open_pinned(f"{fresh.path}/programs/emit")
            for name in ("lbl_events", "lbl_counters", "batches"):
                self._maps[name] = bpf.open_pinned(f"{fresh.path}/maps/{name}")
        if self._rings > 1:
            self._add_rings()
        self._pin("lbl_counters", self.counters_pin)  # first: who sees the ring finds both
        self._pin("lbl_events", self.events_pin)

    def _add_rings(self) -> None:
        for i in range(self._rings):
            fd = self._maps[f"ring {i}"] = bpf.create_map(bpf.RINGBUF, 0, 0, self._ring_bytes)
            bpf.update(self._maps["lbl_events"], struct.pack("=I", i), struct.pack("=I", fd))

    def _pin(self, name: str, path: str) -> None:
        beside = f"{path}_new"  # no dots: a bpffs refuses them
        bpf.pin(self._maps[name], beside)
        os.rename(beside, path)

    def zero_counters(self) -> None:
        """What a loader does that keeps the maps and starts counting anew."""
        zeros = bytes(COUNTERS_BYTES * bpf.possible_cpus())
        bpf.update(self._maps["lbl_counters"], ONLY, zeros)

    def take_ring_out(self, ring: int) -> None:
        """Leave a CPU without a ring. It may have none already."""
        with suppress(FileNotFoundError):
            bpf.delete(self._maps["lbl_events"], struct.pack("=I", ring))

    def set_back(self, ring: int, by: int) -> None:
        """Set the consumer position back, as a second consumer might."""
        name = f"ring {ring}" if self._rings > 1 else "lbl_events"
        with mmap.mmap(self._maps[name], mmap.PAGESIZE) as page:
            (at,) = struct.unpack_from("=Q", page)
            struct.pack_into("=Q", page, 0, max(0, at - by))

    def emit(self, records: Sequence[Record], ring: int = 0) -> None:
        """Send the records from this CPU, and note in each whether it fit."""
        before = os.sched_getaffinity(0)
        if self._rings > 1:
            os.sched_setaffinity(0, {sorted(before)[ring]})
        try:
            for first in range(0, len(records), BATCH):
                self._emit_batch(records[first : first + BATCH])
        finally:
            os.sched_setaffinity(0, before)

    def _emit_batch(self, records: Sequence[Record]) -> None:
        packed = b"".join(
            struct.pack("=Ii120s", len(record.data), 0, record.data) for record in records
        )
        batches = self._maps["batches"]
        value = struct.pack("=I", len(records)) + packed
        bpf.update(batches, ONLY, value.ljust(_BATCH_BYTES, b"\0"))
        bpf.run(self._prog, bytes(8))
        answer = bpf.lookup(batches, ONLY, _BATCH_BYTES)
        for i, record in enumerate(records):
            rc = struct.unpack_from("=i", answer, 4 + i * RECORD_BYTES + 4)[0]
            assert rc in (0, -28), rc
            record.accepted = rc == 0

    def close(self) -> None:
        """Give up programs and maps; the pins stay."""
        with ExitStack() as stack:
            for fd in (self._prog, *self._maps.values()):
                if fd >= 0:
                    stack.callback(os.close, fd)
        self._prog = -1
        self._maps = {}
