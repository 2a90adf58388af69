"""Immutable snapshots of the counts of a histogram, and what can be computed from them."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ._ffi import check, ffi, lib
from ._portable import pack, unpack
from .buckets import Buckets

__all__ = ["HistogramSnapshot", "NativeHistogram"]

_SUM_LIMIT = 2**126  # 2**64 observations of the longest duration, 2**62 ns
_BARS = 64


@dataclass(frozen=True)
class NativeHistogram:
    """A Prometheus native histogram.

    Exact up to 2**24 s (194 days). Longer observations are not told apart: they count in the bucket
    of a duration just above 2**24 s.

    Attributes:
        schema: bounds grow by a factor of 2 ** 2 ** -schema.
        zero_threshold: upper bound of the zero bucket, seconds.
        zero_count: observations in the zero bucket.
        buckets: index to count; bucket i is (2 ** ((i-1) / 2**schema), 2 ** (i / 2**schema)].
        sum: seconds.
        count: observations.
    """

    schema: int
    zero_threshold: float
    zero_count: int
    buckets: Mapping[int, int]
    sum: float
    count: int


class HistogramSnapshot(Mapping[str, Any]):
    """The counts of one backend and one latency, as they were read.

    An immutable mapping with exactly these keys, which are attributes as well: `buckets` (upper
    bounds, seconds), `counts` (cumulative, one per bound, `<=`; +Inf is not among them, it is
    `count`), `sum` (seconds) and `count`.

    Two snapshots are equal if their bounds, their sums and the counts of all slots are. A snapshot
    equals another mapping that has the same four values. Snapshots can be pickled and copied, but
    not hashed.
    """

    __slots__ = ("_buckets", "_counts", "_n", "_slots", "_sum_ns", "_total")

    _KEYS = ("buckets", "counts", "sum", "count")

    def __init__(self, buckets: Buckets, slots: bytes, counts: bytes, sum_ns: int) -> None:
        """Keep (slot, count) pairs: `slots` as uint16, ascending, `counts` as uint64, not 0.

        Raises:
            TypeError: an argument has another type.
            ValueError: the pairs are no counts of a histogram with these bounds.
        """
        if not isinstance(buckets, Buckets):
            raise TypeError(f"buckets must be Buckets, not {type(buckets).__name__}")
        if not isinstance(slots, bytes) or not isinstance(counts, bytes):
            raise TypeError(
                f"slots and counts must be bytes, not {type(slots).__name__} and"
                f" {type(counts).__name__}"
            )
        if not isinstance(sum_ns, int):
            raise TypeError(f"sum_ns must be an int, not {type(sum_ns).__name__}")
        if not 0 <= sum_ns < _SUM_LIMIT:
            raise ValueError(f"sum_ns must be from 0 to {_SUM_LIMIT - 1}, not {sum_ns}")
        self._n, odd = divmod(len(slots), 2)
        if odd or len(counts) != 8 * self._n:
            raise ValueError(
                "slots must have 2 bytes and counts 8 per pair, but they have"
                f" {len(slots)} and {len(counts)} bytes"
            )
        self._buckets = buckets
        self._slots = slots
        self._counts = counts
        self._sum_ns = sum_ns
        total = ffi.new("uint64_t *")
        if lib.lbl_hist_check(buckets.ptr, self._n, *self._pairs(), total):
            raise ValueError(
                "slots must be ascending and exist, and counts must not be 0 or have a sum of 2**64"
                " or more"
            )
        self._total: int = total[0]

    @classmethod
    def _of(cls, buckets: Buckets, counts: Mapping[int, int], sum_ns: int) -> HistogramSnapshot:
        """A snapshot of the counts by slot, of which some may be 0."""
        if sum(counts.values()) >= 2**64:
            raise ValueError("a histogram cannot have 2**64 observations or more")
        slots = sorted(slot for slot, count in counts.items() if count)
        return cls(
            buckets,
            bytes(ffi.buffer(ffi.new("uint16_t[]", slots))),
            bytes(ffi.buffer(ffi.new("uint64_t[]", [counts[slot] for slot in slots]))),
            sum_ns,
        )

    def _by_slot(self) -> dict[int, int]:
        slots, counts = memoryview(self._slots).cast("H"), memoryview(self._counts).cast("Q")
        return dict(zip(slots, counts, strict=True))

    def _pairs(self) -> tuple[Any, Any]:
        return (
            ffi.from_buffer("uint16_t[]", self._slots),
            ffi.from_buffer("uint64_t[]", self._counts),
        )

    # ---- what it has ----

    @property
    def buckets(self) -> tuple[float, ...]:
        """Upper bounds, seconds, as they were given."""
        return self._buckets.bounds

    @property
    def counts(self) -> tuple[int, ...]:
        """How many observations do not exceed each bound."""
        out = ffi.new("uint64_t[]", len(self._buckets.bounds))
        lib.lbl_hist_classic(self._buckets.ptr, self._n, *self._pairs(), out)
        return tuple(out)

    @property
    def sum(self) -> float:
        """Seconds of all observations; exact to the nanosecond before it becomes a float."""
        return self._sum_ns / 10**9

    @property
    def count(self) -> int:
        """How many observations there are."""
        return self._total

    @property
    def mean(self) -> float:
        """Seconds; exact. NaN if there are no observations."""
        return self._sum_ns / (self._total * 10**9) if self._total else math.nan

    def __getitem__(self, key: str) -> Any:
        if key not in self._KEYS:
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._KEYS)

    def __len__(self) -> int:
        return len(self._KEYS)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HistogramSnapshot):
            return super().__eq__(other)
        return (
            self.buckets == other.buckets
            and self._slots == other._slots
            and self._counts == other._counts
            and self._sum_ns == other._sum_ns
        )

    __hash__ = None  # type: ignore[assignment]  # as of all mappings that equal a dict

    def __repr__(self) -> str:
        return f"<HistogramSnapshot count={self._total} sum={self.sum!r}>"

    # ---- percentiles ----

    def percentile(self, q: float) -> float:
        """The seconds that a share `q` (0 to 1) of all observations did not exceed.

        The error is at most 0.55 % between 1 µs and 2**24 s (194 days), and at most 0.5 µs below.
        Above, it returns 2**24 s. NaN if there are no observations.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q must be between 0 and 1, not {q!r}")
        return float(lib.lbl_hist_percentile(self._buckets.ptr, self._n, *self._pairs(), q))

    def percentiles(self, qs: Iterable[float]) -> list[float]:
        """The `percentile()` of each share, in their order."""
        return [self.percentile(q) for q in qs]

    # ---- sums and differences ----

    def _same_bounds(self, other: HistogramSnapshot, what: str) -> None:
        if other.buckets != self.buckets:
            raise ValueError(f"histograms with different bucket bounds cannot be {what} exactly")

    def merge(self, other: HistogramSnapshot) -> HistogramSnapshot:
        """The sum of both histograms, exact; also written `self + other`.

        Raises:
            ValueError: their bounds differ.
        """
        if not isinstance(other, HistogramSnapshot):
            raise TypeError(f"can only merge a HistogramSnapshot, not {type(other).__name__}")
        self._same_bounds(other, "merged")
        counts = self._by_slot()
        for slot, count in other._by_slot().items():
            counts[slot] = counts.get(slot, 0) + count
        return self._of(self._buckets, counts, self._sum_ns + other._sum_ns)

    def __add__(self, other: HistogramSnapshot) -> HistogramSnapshot:
        if not isinstance(other, HistogramSnapshot):
            return NotImplemented
        return self.merge(other)

    def __sub__(self, earlier: HistogramSnapshot) -> HistogramSnapshot:
        """What was observed since an earlier snapshot of the same backend and latency, exact.

        Raises:
            ValueError: a count of the other is higher, so it is not earlier, or a reset lies
                between them; or their bounds differ. A reset after which every count has grown
                beyond the earlier one does not show.
        """
        if not isinstance(earlier, HistogramSnapshot):
            return NotImplemented
        self._same_bounds(earlier, "subtracted")
        counts, sum_ns = self._by_slot(), self._sum_ns - earlier._sum_ns
        for slot, count in earlier._by_slot().items():
            counts[slot] = counts.get(slot, 0) - count
        if sum_ns < 0 or any(count < 0 for count in counts.values()):
            raise ValueError(
                f"{self!r} is not later than {earlier!r}, or the histogram was reset between them:"
                " a count went down"
            )
        return self._of(self._buckets, counts, sum_ns)

    def check_addable(self) -> None:
        """Check that a tracker could count all observations.

        Raises:
            ValueError: they are more than any tracker can count, or their sum is impossible.
        """
        if self._total > 1 << lib.LBL_OBSERVED_LOG2:
            raise self._too_many()
        if self._sum_ns > self._total << lib.LBL_OBSERVE_LOG2:
            raise ValueError(f"{self!r} has a sum that its observations cannot have")

    def _too_many(self) -> ValueError:
        return ValueError(f"{self!r} has more observations than a tracker can count")

    def add_to(self, backend: Any) -> None:
        """Add all observations to a C `struct lbl_backend` of the same bounds.

        Raises:
            ValueError: the tracker has counted so many that there is no room for all of these.
        """
        halves = self._sum_ns % 2**64, self._sum_ns >> 64
        rc = lib.lbl_backend_add(backend, self._n, *self._pairs(), *halves)
        if rc == -errno.ENOMEM:
            raise MemoryError("no memory to add all of a histogram")
        if rc == -errno.ERANGE:
            raise self._too_many()
        check(rc, "adding a histogram")

    # ---- other forms ----

    def to_dict(self) -> dict[str, Any]:
        """A form for JSON that every later version of lblatency reads, on any machine.

        Returns:
            `version`: 1; `buckets`: the bounds as given, seconds; `slots`: for each slot that has
            observations, in ascending order, a list of its last whole nanosecond (None for the slot
            above 2**24 s) and their number; `sum_ns`: their sum in nanoseconds, an int that can
            have more digits than a float.
        """
        return pack(self._buckets, self._by_slot(), self._sum_ns)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HistogramSnapshot:
        """The snapshot that `to_dict()` wrote.

        Raises:
            TypeError: `data` is not a mapping.
            ValueError: it is not of that form, or of a later version.
        """
        return cls._of(*unpack(data, _SUM_LIMIT))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_dict, (self.to_dict(),)

    def native(self, schema: int) -> NativeHistogram:
        """The same observations as a native histogram; exact up to 2**24 s, see there.

        Args:
            schema: -4 (coarse) to 6 (bounds 1.1 % apart).
        """
        first, last = lib.LBL_NATIVE_SCHEMA_MIN, lib.LBL_NATIVE_SCHEMA
        if not first <= schema <= last:
            raise ValueError(f"schema must be between {first} and {last}, not {schema!r}")
        index, count = ffi.new("int32_t[]", self._n), ffi.new("uint64_t[]", self._n)
        zero = ffi.new("uint64_t *")
        n = check(
            lib.lbl_hist_native(
                self._buckets.ptr, schema, self._n, *self._pairs(), index, count, zero
            ),
            "making a native histogram",
        )
        return NativeHistogram(
            schema=schema,
            zero_threshold=2.0**lib.LBL_ZERO_LOG2,
            zero_count=zero[0],
            buckets={index[i]: count[i] for i in range(n)},
            sum=self["sum"],
            count=self._total,
        )

    def _bars(self) -> list[tuple[float, float, int]]:
        """The native buckets of the finest schema that needs few enough, without gaps."""
        for schema in range(lib.LBL_NATIVE_SCHEMA, lib.LBL_NATIVE_SCHEMA_MIN - 1, -1):
            native = self.native(schema)
            counts = dict(native.buckets)
            if native.zero_count:
                zero = math.ceil(lib.LBL_ZERO_LOG2 * 2.0**schema)
                counts[zero] = counts.get(zero, 0) + native.zero_count
            if not counts:
                return []
            indexes = range(min(counts), max(counts) + 1)
            if len(indexes) <= _BARS:
                break
        return [
            (2 ** ((i - 1) / 2**schema), 2 ** (i / 2**schema), counts.get(i, 0)) for i in indexes
        ]

    def _repr_html_(self) -> str:
        """A small plot over a logarithmic axis of time, for notebooks."""
        from ._plot import Bar, html_plot, readable  # an import of lblatency does not pay for it

        facts = {"count": f"{self.count:,}"}
        if self.count:
            facts["mean"] = readable(self.mean)
            facts |= {f"p{q}": readable(self.percentile(q / 100)) for q in (50, 95, 99)}
        return html_plot([Bar(*bar) for bar in self._bars()], facts)
