"""What trackers have counted, read once by C, for every form of export."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import Any

from ._ffi import ffi, lib
from .buckets import LIFETIME, metric_number
from .families import Sample
from .tracker import LatencyTracker

__all__ = ["Page"]


class Page:
    """A C `struct lbl_page`. Its trackers have the numbers in which they were given.

    Args:
        trackers: each with the text of its label `tracker`, or None.
        max_backends: how many of each have series of their own, the first ones; None for all.

    Attributes:
        ptr: the C object. It lives as long as this one, and as what `keep` holds.
        keep: what it points to.

    Raises:
        MemoryError: there is no memory for all counts.
    """

    def __init__(
        self,
        trackers: Sequence[tuple[str | None, LatencyTracker]],
        max_backends: Sequence[int | None],
    ) -> None:
        out = ffi.new("struct lbl_page **")
        if lib.lbl_page_new(out) == -errno.ENOMEM:
            raise MemoryError
        self.ptr = ffi.gc(out[0], lib.lbl_page_free)
        self.keep: list[Any] = [
            tracker.show(self.ptr, label, limit)
            for (label, tracker), limit in zip(trackers, max_backends, strict=True)
        ]
        self._trackers = [tracker for _, tracker in trackers]

    def stats(self, i: int) -> Any:
        """A C `struct lbl_tracker_stats`: the tracker's counts of events."""
        return lib.lbl_page_stats(self.ptr, i)

    def targets(self, i: int, metric: str = LIFETIME) -> Iterator[tuple[str, str, int]]:
        """Proxy, ip and port of each backend of a latency."""
        return self._trackers[i].targets(self._snapshot(i, metric))

    def values(self, i: int, sample: Sample) -> memoryview:
        """The values of a sample of all backends, in the order of their targets, as integers."""
        snapshot = self._snapshot(i, LIFETIME)
        out = ffi.new("uint64_t[]", max(1, snapshot.n_rows))
        sample.values(snapshot, out)
        return memoryview(ffi.buffer(out)).cast("Q")[: snapshot.n_rows]

    def classic(self, i: int, metric: str) -> tuple[Sequence[int], Sequence[float]]:
        """The cumulative counts up to each bound and +Inf of all backends, and their sums."""
        n = self._snapshot(i, metric).n_rows
        per_row = len(self._trackers[i].bounds(metric)) + 1
        counts = ffi.new("uint64_t[]", max(1, n * per_row))
        sums = ffi.new("double[]", max(1, n))
        lib.lbl_page_classic(self.ptr, i, metric_number(metric), counts, sums)
        return (
            memoryview(ffi.buffer(counts)).cast("Q")[: n * per_row],
            memoryview(ffi.buffer(sums)).cast("d")[:n],
        )

    def folded(self, i: int) -> int:
        """How many backends have no series of their own."""
        return int(lib.lbl_page_folded(self.ptr, i))

    def _snapshot(self, i: int, metric: str) -> Any:
        return lib.lbl_page_snapshot(self.ptr, i, metric_number(metric))
