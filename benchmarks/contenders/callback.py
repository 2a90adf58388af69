"""Handle the events of a ring buffer in Python, one by one."""

from __future__ import annotations

import time
from typing import Any

from ..rings import Ring, Traffic, ffi, lib


class Callback:
    """libbpf's consumer, which calls Python through cffi for each event."""

    def __init__(self, ring: Ring, seen: Any) -> None:
        ring.require_kernel()
        self._ring, self._seen = ring, seen

    def drain(self, traffic: Traffic) -> float:
        """Ns per event."""
        self._ring.fill(traffic)
        ffi.def_extern("bench_seen")(self._seen)
        start = time.perf_counter_ns()
        n: int = lib.bench_ring_consume(self._ring.ptr)
        return (time.perf_counter_ns() - start) / n
