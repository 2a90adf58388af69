"""The bounds of histograms, and the latencies that have them."""

from __future__ import annotations

import errno
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice, pairwise
from typing import SupportsFloat, SupportsIndex

from ._ffi import check, ffi, lib

__all__ = [
    "DEFAULT_BUCKETS",
    "LIFETIME",
    "METRICS",
    "REFERENCE_BUCKETS",
    "SHORT_BUCKETS",
    "Bounds",
    "Buckets",
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
Bounds = Iterable[SupportsFloat | SupportsIndex]


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
    metrics: Sequence[str], given: Bounds | Mapping[str, Bounds] | None
) -> dict[str, Buckets]:
    """The buckets of each latency to record, in the order of `METRICS`.

    Args:
        metrics: the latencies to record; the lifetime must be among them.
        given: bounds of the lifetime, or bounds per latency, instead of the defaults.

    Raises:
        TypeError: bounds are not numbers.
        ValueError: a latency is unknown, or `given` has bounds of one that is not in `metrics`, or
            bounds that `Buckets` refuses.
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
        name: Buckets.of(given.get(name, SHORT_BUCKETS if info.is_short else DEFAULT_BUCKETS))
        for name, info in ((METRICS[number], _INFOS[number]) for number in wanted)
    }


def _out_of_range(bound: object) -> ValueError:
    return ValueError(
        f"bucket bound {reprlib.repr(bound)} is not between {_MIN_BOUND} and {_MAX_BOUND:.0f}"
        " seconds"
    )


def _seconds(bound: object) -> float:
    if not isinstance(bound, (SupportsFloat, SupportsIndex)):
        raise TypeError(f"bucket bound {bound!r} is not a number of seconds")
    try:
        return float(bound)
    except OverflowError:
        raise _out_of_range(bound) from None


def _as_given(buckets: Bounds) -> tuple[float, ...]:
    """The bounds as floats, without a last +Inf; one too many if they are too many."""
    if isinstance(buckets, (str, bytes, bytearray)) or not isinstance(buckets, Iterable):
        raise TypeError(
            f"bucket bounds must be a sequence of seconds, not of type {type(buckets).__name__}"
        )
    most = lib.LBL_CLASSIC_MAX
    bounds = tuple(_seconds(bound) for bound in islice(buckets, most + 2))
    if bounds[-1:] == (math.inf,):
        bounds = bounds[:-1]
    if len(bounds) > most:
        raise ValueError(f"there are more than {most} bucket bounds, besides +Inf")
    return bounds


def _bound_ns(bound: float) -> int:
    """The longest duration in whole ns that is not above the bound as it is written, in decimals.

    A float is rarely what it is written as: 0.3 is a little less than three tenths of a second.
    """
    if not 0 < bound <= _MAX_BOUND:
        raise _out_of_range(bound)
    digits, _, exponent = repr(bound).partition("e")
    whole, _, part = digits.partition(".")
    shift = 9 + int(exponent or 0) - len(part)
    ns: int = int(whole + part) * 10 ** max(shift, 0) // 10 ** max(-shift, 0)
    if ns < lib.LBL_CLASSIC_MIN_NS:
        raise _out_of_range(bound)
    return ns


class Buckets:
    """The bounds of all slots: the classic bounds merged with those of native schema 6.

    `Buckets.of()` makes them.

    Attributes:
        bounds: the classic bounds, seconds, as given.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        ns = [_bound_ns(bound) for bound in self.bounds]
        for (low, high), (low_ns, high_ns) in zip(pairwise(self.bounds), pairwise(ns), strict=True):
            if high <= low:
                raise ValueError(
                    f"bucket bounds must be ascending, but {high!r} comes after {low!r}"
                )
            if high_ns == low_ns:
                raise ValueError(
                    f"bucket bounds {low!r} and {high!r} are the same in whole nanoseconds"
                )
        out = ffi.new("struct lbl_buckets **")
        rc = lib.lbl_buckets_new(ffi.new("uint64_t[]", ns), len(ns), out)
        if rc == -errno.ENOMEM:
            raise MemoryError
        if rc == -errno.ERANGE:
            raise ValueError("too many bucket bounds lie within half a percent of each other")
        check(rc, "merging bucket bounds")
        self.ptr = ffi.gc(out[0], lib.lbl_buckets_free)

    @staticmethod
    def of(buckets: Bounds) -> Buckets:
        """The buckets with these bounds. Equal bounds give the same object.

        Args:
            buckets: upper bounds in seconds, ascending, 1 µs to 2**24 s, at most 512, no three of
                them closer together than about half a percent. A last +Inf is dropped. Durations
                are whole nanoseconds, so a bound that is none counts as the next lower one.

        Raises:
            TypeError: a bound is no number.
            ValueError: the bounds are not as described above.
        """
        return _buckets_with(_as_given(buckets))


@lru_cache(maxsize=64)
def _buckets_with(bounds: tuple[float, ...]) -> Buckets:
    return Buckets(bounds)
