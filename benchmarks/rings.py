"""Rings full of events, and those who can empty them, each saying how long it took."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import builder
from harness import CONSUMER, PRODUCER, pin

from lblatency import LatencyTracker
from lblatency._ffi import ffi as our_ffi
from lblatency._ffi import lib as our_lib
from lblatency.histogram import REFERENCE_BUCKETS
from lblatency.stats import EventStream, MemoryRing, create_event_stream

_native = builder.native()
ffi, lib = _native.ffi, _native.lib

RING_BYTES = 1 << 20
RING_EVENTS = 12_000
LIFETIMES = (14, 20)  # 16 us to 17 s


def _pointer(function: str) -> int:
    return int(our_ffi.cast("uintptr_t", our_ffi.addressof(our_lib, function)))


DRAIN = ffi.cast("int64_t (*)(void *)", _pointer("lbl_stream_drain"))
_PRODUCE = ffi.cast("int (*)(void *, const void *, uint32_t)", _pointer("lbl_stream_produce"))
_READ = ffi.cast("int64_t (*)(void *)", ffi.addressof(lib, "bench_ring_read"))


@dataclass(frozen=True)
class Traffic:
    """Which events: see struct bench_spec."""

    backends: int
    with_ids: bool = False
    seed: int = 0
    first: int = 0
    n: int = RING_EVENTS
    in_turn: bool = False
    with_opened: bool = False
    octave: int = LIFETIMES[0]
    octaves: int = LIFETIMES[1]

    def spec(self) -> Any:
        """The C struct."""
        return ffi.new("struct bench_spec *", asdict(self))

    def each_backend_twice(self) -> list[Traffic]:
        """The shortest and the longest lifetime of every backend: after that nothing is new."""
        ends = (self.octave, 0), (self.octave + self.octaves - 1, 0)
        closed = replace(self, in_turn=True, with_opened=False)
        return [
            replace(closed, octave=octave, octaves=octaves, first=first,
                    n=min(RING_EVENTS, self.backends - first))
            for octave, octaves in ends
            for first in range(0, self.backends, RING_EVENTS)
        ]  # fmt: skip


class Ring:
    """A ring buffer that is filled by a BPF program; one in memory where BPF is refused."""

    def __init__(self, size: int = RING_BYTES) -> None:
        out = ffi.new("struct bench_ring **")
        self.error = -lib.bench_ring_open(size, out)
        if self.error:
            # Four times as large, lest what fills it wakes the drain thread as it passes a quarter.
            lib.bench_ring_memory(4 * size, out)
            self._memory = MemoryRing(4 * size)
        self.ptr = ffi.gc(out[0], lib.bench_ring_free)

    @property
    def in_kernel(self) -> bool:
        """Whether BPF was allowed."""
        return not self.error

    def require_kernel(self) -> None:
        """Raise `MissingError` for what cannot do with a ring in memory."""
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
        """Produce on the producer's CPU, go on on the consumer's."""
        pin(PRODUCER)
        if for_stream and not self.in_kernel:
            made = lib.bench_produce_by(_PRODUCE, stream_pointer(self._memory.ptr), traffic.spec())
        else:
            made = lib.bench_produce(self.ptr, lib.BENCH_FILL, traffic.spec())
        pin(CONSUMER)
        if made != traffic.n:
            raise RuntimeError(f"the ring took {made} of {traffic.n} events")


def stream_pointer(stream: Any) -> Any:
    """A stream of lblatency's as the benchmarks' C sees it."""
    return ffi.cast("void *", int(our_ffi.cast("uintptr_t", stream)))


def timed(function: Any, argument: Any) -> tuple[int, int]:
    """How many events it took, and in how many ns."""
    ns = ffi.new("uint64_t *")
    return lib.bench_timed(function, argument, ns), ns[0]


class Floor:
    """Reads a line of every record, and does nothing with it."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    def drain(self, traffic: Traffic) -> float:
        """Ns an event."""
        self._ring.fill(traffic)
        n, ns = timed(_READ, self._ring.ptr)
        return ns / n


class Tracked:
    """Lblatency as `start()` leaves it, drained by hand: its own thread would do so some ms later.

    All backends and the range of their lifetimes are known already, unless told otherwise. Should
    the thread come first, the measurement does not count.
    """

    def __init__(self, traffic: Traffic, size: int = RING_BYTES, *, known: bool = True) -> None:
        pin(CONSUMER)
        self.ring = Ring(size)
        self.tracker = LatencyTracker(buckets=REFERENCE_BUCKETS, max_backends=traffic.backends)
        self.stream = self.ring.stream()
        self.tracker.start(self.stream, None, "web")
        for part in traffic.each_backend_twice() if known else []:
            self.ring.fill(part, for_stream=True)
            self.stream.drain()

    def drain(
        self, traffic: Traffic, during: AbstractContextManager[object] | None = None
    ) -> float | None:
        """Ns an event; None if the thread took some of them. `during`: what else goes on."""
        self.ring.fill(traffic, for_stream=True)
        with during or nullcontext():
            n, ns = timed(DRAIN, stream_pointer(self.stream.streams[0]))
        return ns / n if n == traffic.n else None

    def close(self) -> None:
        """Stop the thread, and see that all events came to what they should."""
        self.tracker.stop()
        counts = self.tracker.event_counts()
        if counts["recorded"] + counts["opened"] != counts["received"]:
            raise RuntimeError(f"not every event was recorded: {counts}")


class Agent:
    """A peer in a process of its own, which reads the same ring as the other peers."""

    def __init__(self, language: str, ring: Ring) -> None:
        ring.require_kernel()
        path = builder.peer(language)
        self._ring = ring
        pin(CONSUMER)
        self._process = subprocess.Popen(
            [path, str(ring.fd)],
            pass_fds=[ring.fd],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: str, table: str, number: int) -> None:
        """Have it start."""
        assert self._process.stdin
        self._process.stdin.write(f"{command} {table} {number}\n")
        self._process.stdin.flush()

    def answer(self) -> tuple[int, int]:
        """What came of it: events, ns."""
        assert self._process.stdout
        events, ns = self._process.stdout.readline().split()
        return int(events), int(ns)

    def learn(self, traffic: Traffic) -> None:
        """Show it all backends."""
        for part in traffic.each_backend_twice():
            self.drain(part)

    def drain(self, traffic: Traffic) -> float:
        """Ns an event; those of as many backends share their histograms."""
        self._ring.fill(traffic)
        self.ask("drain", str(traffic.backends), traffic.n)
        events, ns = self.answer()
        if events != traffic.n:
            raise RuntimeError(f"took {events} of {traffic.n} events")
        return ns / events

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.communicate()


class Callback:
    """Python called by libbpf through cffi for each event."""

    def __init__(self, ring: Ring, seen: Any) -> None:
        ring.require_kernel()
        self._ring, self._seen = ring, seen

    def drain(self, traffic: Traffic) -> float:
        """Ns an event."""
        self._ring.fill(traffic)
        ffi.def_extern("bench_seen")(self._seen)
        start = time.perf_counter_ns()
        n = lib.bench_ring_consume(self._ring.ptr)
        return (time.perf_counter_ns() - start) / n
