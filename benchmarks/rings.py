"""Rings full of events, and the benchmarks' own C, which fills and reads them."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Any

from lblatency._ffi import ffi as our_ffi
from lblatency._ffi import lib as our_lib
from lblatency.stats import EventStream, MemoryRing, create_event_stream

from . import builder
from .harness import CONSUMER, PRODUCER, pin

_native = builder.native()
ffi, lib = _native.ffi, _native.lib

RING_BYTES = 1 << 20
RING_EVENTS = 12_000
LIFETIMES = (14, 20)  # 16 us to 17 s


@dataclass(frozen=True)
class Traffic:
    """The events to produce: see struct bench_spec."""

    backends: int
    with_ids: bool = False
    seed: int = 0
    first: int = 0
    n: int = RING_EVENTS
    in_turn: bool = False
    with_opened: bool = False
    octave: int = LIFETIMES[0]
    octaves: int = LIFETIMES[1]
    all_latencies: bool = False

    def spec(self) -> Any:
        """The C struct."""
        return ffi.new("struct bench_spec *", asdict(self))

    def each_backend_twice(self) -> list[Traffic]:
        """The shortest and the longest lifetime of every backend, after which no counter is new."""
        ends = (self.octave, 0), (self.octave + self.octaves - 1, 0)
        closed = replace(self, in_turn=True, with_opened=False)
        return [
            replace(closed, octave=octave, octaves=octaves, first=first,
                    n=min(RING_EVENTS, self.backends - first))
            for octave, octaves in ends
            for first in range(0, self.backends, RING_EVENTS)
        ]  # fmt: skip


def our_function(kind: str, name: str) -> Any:
    """A C function of lblatency, cast for the benchmarks' C."""
    pointer = our_ffi.cast("uintptr_t", our_ffi.addressof(our_lib, name))
    return ffi.cast(kind, int(pointer))


def stream_pointer(stream: Any) -> Any:
    """A stream of lblatency, cast for the benchmarks' C."""
    return ffi.cast("void *", int(our_ffi.cast("uintptr_t", stream)))


_PRODUCE = our_function("int (*)(void *, const void *, uint32_t)", "lbl_stream_produce")


class Ring:
    """A ring buffer that a BPF program fills, or a ring in memory if the kernel refuses BPF."""

    def __init__(self, size: int = RING_BYTES) -> None:
        out = ffi.new("struct bench_ring **")
        self.error = -lib.bench_ring_open(size, out)
        if self.error:
            # Four times as large, since a ring that is a quarter full wakes the drain thread.
            lib.bench_ring_memory(4 * size, out)
            self._memory = MemoryRing(4 * size)
        self.ptr = ffi.gc(out[0], lib.bench_ring_free)

    @property
    def in_kernel(self) -> bool:
        """Whether the ring is the kernel's."""
        return not self.error

    def require_kernel(self) -> None:
        """Raise `MissingError` if the ring is in memory, for contenders that need the kernel's."""
        if self.error:
            raise builder.MissingError(f"needs BPF: {os.strerror(self.error)}")

    @property
    def fd(self) -> int:
        """The BPF map."""
        return int(lib.bench_ring_fd(self.ptr))

    def stream(self) -> EventStream:
        """Lblatency's consumer of this ring."""
        if not self.in_kernel:
            return create_event_stream(self._memory)
        return create_event_stream(self.fd, counters=lib.bench_ring_counters_fd(self.ptr))

    def fill(self, traffic: Traffic, *, for_stream: bool = False) -> None:
        """Produce on the producer's CPU, then go back to the consumer's."""
        pin(PRODUCER)
        if for_stream and not self.in_kernel:
            made = lib.bench_produce_by(_PRODUCE, stream_pointer(self._memory.ptr), traffic.spec())
        else:
            made = lib.bench_produce(self.ptr, lib.BENCH_FILL, traffic.spec())
        pin(CONSUMER)
        if made != traffic.n:
            raise RuntimeError(f"the ring took {made} of {traffic.n} events")


def timed(function: Any, argument: Any) -> tuple[int, int]:
    """Call a drain; returns how many events it took, and in how many ns."""
    ns = ffi.new("uint64_t *")
    return lib.bench_timed(function, argument, ns), ns[0]
