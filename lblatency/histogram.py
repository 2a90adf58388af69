"""Histograms: their bounds, and immutable snapshots of their counts."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from ._ffi import check, ffi, lib

__all__ = [
    "DEFAULT_BUCKETS",
    "LIFETIME",
    "METRICS",
    "REFERENCE_BUCKETS",
    "SHORT_BUCKETS",
    "Buckets",
    "HistogramSnapshot",
    "NativeHistogram",
    "buckets_of",
    "metric_number",
]

REFERENCE_BUCKETS: tuple[float, ...] = (
    0.001,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
DEFAULT_BUCKETS: tuple[float, ...] = (
    *REFERENCE_BUCKETS,
    30.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    14400.0,
    86400.0,
)

SHORT_BUCKETS: tuple[float, ...] = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)

_INFOS = [lib.lbl_metric_info(number) for number in range(lib.LBL_METRICS)]
METRICS: tuple[str, ...] = tuple(ffi.string(info.name).decode() for info in _INFOS)
LIFETIME = METRICS[lib.LBL_LIFETIME]

_MIN_BOUND = lib.LBL_CLASSIC_MIN_NS / 1e9
_MAX_BOUND = 2.0**lib.LBL_TOP_LOG2


def metric_number(metric: str) -> int:
    """The latency's number in C.

    Raises:
        ValueError: there is no such latency.
    """
    try:
        return METRICS.index(metric)
    except ValueError:
        raise ValueError(f"metric {metric!r} must be one of {', '.join(METRICS)}") from None


def buckets_of(
    metrics: Sequence[str], given: Sequence[float] | Mapping[str, Sequence[float]] | None
) -> dict[str, Buckets]:
    """The buckets of each latency to record, in the order of `METRICS`.

    Args:
        metrics: the latencies to record; the lifetime must be among them.
        given: bounds of the lifetime, or bounds per latency, instead of the defaults.

    Raises:
        ValueError: a latency is unknown, or `given` has bounds of one that is not in `metrics`.
    """
    if isinstance(metrics, str):
        raise TypeError(f"metrics must be a sequence of names, not the string {metrics!r}")
    wanted = sorted({metric_number(metric) for metric in metrics})
    if lib.LBL_LIFETIME not in wanted:
        raise ValueError(f"metrics must include {LIFETIME!r}")
    if given is None:
        given = {}
    elif not isinstance(given, Mapping):
        given = {LIFETIME: given}
    names = [METRICS[number] for number in wanted]
    if unused := [name for name in given if name not in names]:
        raise ValueError(f"buckets for {unused[0]!r}, which is not among the tracker's metrics")
    return {
        name: Buckets.of(
            tuple(given.get(name, SHORT_BUCKETS if _INFOS[number].is_short else DEFAULT_BUCKETS))
        )
        for number, name in zip(wanted, names, strict=True)
    }


def _bound_ns(bound: float) -> int:
    if not _MIN_BOUND <= bound <= _MAX_BOUND:
        raise ValueError(
            f"bucket bound {bound!r} is not between {_MIN_BOUND} and {_MAX_BOUND:.0f} seconds"
        )
    ns = round(bound * 1e9)
    if ns / 1e9 != bound:
        raise ValueError(f"bucket bound {bound!r} is not a whole number of nanoseconds")
    return ns


class Buckets:
    """The bounds of all slots: the classic bounds merged with those of native schema 6.

    Args:
        buckets: upper bounds in seconds, ascending, 1 µs to 2**24 s, at most 512, whole
            nanoseconds, no three of them closer together than about half a percent.
    """

    def __init__(self, buckets: Sequence[float]) -> None:
        self.bounds = tuple(float(bound) for bound in buckets)
        bounds = [_bound_ns(bound) for bound in self.bounds]
        if any(b <= a for a, b in pairwise(bounds)):
            raise ValueError("bucket bounds must be ascending, each greater than the one before")
        out = ffi.new("struct lbl_buckets **")
        rc = lib.lbl_buckets_new(ffi.new("uint64_t[]", bounds), len(bounds), out)
        if rc == -errno.ENOMEM:
            raise MemoryError
        if rc:
            raise ValueError(
                f"bucket bounds are more than {lib.LBL_CLASSIC_MAX}, or too many lie within half a"
                " percent of each other"
            )
        self.ptr = ffi.gc(out[0], lib.lbl_buckets_free)

    @staticmethod
    @lru_cache(maxsize=64)
    def of(buckets: tuple[float, ...]) -> Buckets:
        """The buckets with these bounds. Equal bounds give the same object."""
        return Buckets(buckets)


@dataclass(frozen=True)
class NativeHistogram:
    """A Prometheus native histogram.

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

    An immutable mapping with exactly these keys: `buckets` (upper bounds, seconds), `counts`
    (cumulative, one per bound, `<=`; +Inf is not among them, it is `count`), `sum` (seconds) and
    `count`.
    """

    __slots__ = ("_buckets", "_counts", "_n", "_slots", "_sum_ns", "_total")

    _KEYS = ("buckets", "counts", "sum", "count")

    def __init__(self, buckets: Buckets, slots: bytes, counts: bytes, sum_ns: int) -> None:
        """Keep (slot, count) pairs: `slots` as uint16, ascending, `counts` as uint64."""
        self._buckets = buckets
        self._slots = slots
        self._counts = counts
        self._sum_ns = sum_ns
        self._n = len(slots) // 2
        self._total = sum(memoryview(counts).cast("Q"))

    def __getitem__(self, key: str) -> Any:
        if key == "buckets":
            return self._buckets.bounds
        if key == "counts":
            return self._classic()
        if key == "sum":
            return self._sum_ns / 10**9
        if key == "count":
            return self._total
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._KEYS)

    def __len__(self) -> int:
        return len(self._KEYS)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self._buckets.bounds, self._slots, self._counts, self._sum_ns)

    def __repr__(self) -> str:
        return f"<HistogramSnapshot count={self._total} sum={self['sum']!r}>"

    def _pairs(self) -> tuple[Any, Any]:
        return (
            ffi.from_buffer("uint16_t[]", self._slots),
            ffi.from_buffer("uint64_t[]", self._counts),
        )

    def _classic(self) -> tuple[int, ...]:
        out = ffi.new("uint64_t[]", len(self._buckets.bounds))
        lib.lbl_hist_classic(self._buckets.ptr, self._n, *self._pairs(), out)
        return tuple(out)

    def percentile(self, q: float) -> float:
        """The seconds that a share `q` (0 to 1) of all observations did not exceed.

        The error is at most 0.55 % between 1 µs and 2**24 s. NaN if there are no observations.
        """
        if not 0 <= q <= 1:
            raise ValueError(f"q must be between 0 and 1, not {q!r}")
        return float(lib.lbl_hist_percentile(self._buckets.ptr, self._n, *self._pairs(), q))

    @property
    def mean(self) -> float:
        """Seconds; exact. NaN if there are no observations."""
        return self._sum_ns / (self._total * 10**9) if self._total else math.nan

    def merge(self, other: HistogramSnapshot) -> HistogramSnapshot:
        """The sum of both histograms, exact.

        Raises:
            ValueError: their bounds differ.
        """
        if not isinstance(other, HistogramSnapshot):
            raise TypeError(f"can only merge a HistogramSnapshot, not {type(other).__name__}")
        if other._buckets.bounds != self._buckets.bounds:
            raise ValueError("histograms with different bucket bounds cannot be merged exactly")
        merged: dict[int, int] = {}
        for part in (self, other):
            slots, counts = memoryview(part._slots).cast("H"), memoryview(part._counts).cast("Q")
            for slot, count in zip(slots, counts, strict=True):
                merged[slot] = merged.get(slot, 0) + count
        ordered = sorted(merged)
        return HistogramSnapshot(
            self._buckets,
            bytes(ffi.buffer(ffi.new("uint16_t[]", ordered))),
            bytes(ffi.buffer(ffi.new("uint64_t[]", [merged[slot] for slot in ordered]))),
            self._sum_ns + other._sum_ns,
        )

    def native(self, schema: int) -> NativeHistogram:
        """The same observations as a native histogram; exact.

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


def _unpickle(
    buckets: tuple[float, ...], slots: bytes, counts: bytes, sum_ns: int
) -> HistogramSnapshot:
    return HistogramSnapshot(Buckets.of(buckets), slots, counts, sum_ns)
