"""lblatency itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from lblatency import LatencyTracker
from lblatency.buckets import REFERENCE_BUCKETS

from ..harness import CONSUMER, pin
from ..rings import RING_BYTES, Ring, Traffic, our_function, stream_pointer, timed

DRAIN = our_function("int64_t (*)(void *)", "lbl_stream_drain")


class Tracked:
    """A started tracker that we drain some ms before its own thread would.

    It has seen all backends and the range of their lifetimes, unless `known` is false. If the
    thread comes first, the measurement does not count.
    """

    def __init__(
        self,
        traffic: Traffic,
        size: int = RING_BYTES,
        *,
        known: bool = True,
        metrics: Sequence[str] = ("lifetime",),
    ) -> None:
        pin(CONSUMER)
        self.ring = Ring(size)
        self.tracker = LatencyTracker(
            buckets=REFERENCE_BUCKETS, max_backends=traffic.backends, metrics=metrics
        )
        self.stream = self.ring.stream()
        self.tracker.start(self.stream, None, "web")
        for part in traffic.each_backend_twice() if known else []:
            self.ring.fill(part, for_stream=True)
            self.stream.drain()

    def drain(
        self, traffic: Traffic, during: AbstractContextManager[object] | None = None
    ) -> float | None:
        """Ns per event; None if the thread took some of them. `during` runs meanwhile."""
        self.ring.fill(traffic, for_stream=True)
        with during or nullcontext():
            n, ns = timed(DRAIN, stream_pointer(self.stream.streams[0]))
        return ns / n if n == traffic.n else None

    def close(self) -> None:
        """Stop the thread, and check that all events were recorded."""
        self.tracker.stop()
        counts = self.tracker.event_counts()
        if counts["received"] != (counts["recorded"] or 0) + (counts["opened"] or 0):
            raise RuntimeError(f"not every event was recorded: {counts}")
