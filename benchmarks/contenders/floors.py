"""Loops that do the least possible: no drain can take less."""

from __future__ import annotations

from ..rings import RING_EVENTS, Ring, Traffic, ffi, lib, timed

_READ, _COUNT = (
    ffi.cast("int64_t (*)(void *)", ffi.addressof(lib, name))
    for name in ("bench_ring_read", "bench_counting_drain")
)


class MemoryFloor:
    """Reads a line of every record, and does nothing with it."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    def drain(self, traffic: Traffic) -> float:
        """Ns per event."""
        self._ring.fill(traffic)
        n, ns = timed(_READ, self._ring.ptr)
        return ns / n


class CountingFloor:
    """Knows each event's counters: reads the record, and adds 1 to two lines of its backend."""

    def __init__(self, ring: Ring, backends: int) -> None:
        out = ffi.new("struct bench_counting **")
        error = lib.bench_counting_new(ring.ptr, backends, RING_EVENTS, out)
        self._ring, self._ptr = ring, ffi.gc(out[0], lib.bench_counting_free)
        if error:
            raise MemoryError(f"counters of {backends} backends")

    def drain(self, traffic: Traffic) -> float:
        """Ns per event."""
        lib.bench_counting_prepare(self._ptr, traffic.spec())
        self._ring.fill(traffic)
        n, ns = timed(_COUNT, self._ptr)
        return ns / n
