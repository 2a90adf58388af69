"""Measured percentiles against other clocks, which may leave a range."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "METRICS",
    "PERCENTILES",
    "BackendKey",
    "Comparison",
    "Range",
    "compare",
    "exactly",
    "nearest_rank",
    "worst_error",
]

BackendKey = tuple[str, str]  # proxy name, target

_SHORT = {50: 0.0002, 95: 0.001, 99: 0.001}
# How far a measured one may be outside of that range.
_ALLOWED_S = {
    "lifetime": {50: 0.0005, 95: 0.0005, 99: 0.0005},
    "connect": _SHORT,
    "first_byte": _SHORT,
}
METRICS = tuple(_ALLOWED_S)
PERCENTILES = tuple(_SHORT)
_ALLOWED_SHARE = 0.006  # half a bucket of native histogram schema 6, and what rounding adds


def nearest_rank(ordered: Sequence[float], percent: int) -> float:
    """The value at rank ceil(percent/100 * n) of a non-empty ascending list."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


class Range(NamedTuple):
    """The least and the most that a latency can have been, in seconds."""

    least: float
    most: float


def exactly(seconds: float) -> Range:
    """The range of a latency that is known."""
    return Range(seconds, seconds)


@dataclass(frozen=True)
class Comparison:
    """One percentile of one latency of one backend, in seconds."""

    metric: str
    backend: BackendKey
    percent: int
    measured: float
    truth: Range

    @property
    def error(self) -> float:
        """How far the measured one is out of the range, in seconds."""
        return max(0.0, self.truth.least - self.measured, self.measured - self.truth.most)

    @property
    def is_acceptable(self) -> bool:
        """Within what is allowed for the way between the clocks, plus 0.6 %, for the buckets."""
        allowed = _ALLOWED_S[self.metric][self.percent]
        return self.error <= allowed + _ALLOWED_SHARE * self.truth.most


def compare(
    metric: str,
    measured: Mapping[BackendKey, Mapping[str, float]],
    truth: Mapping[BackendKey, Sequence[Range]],
) -> list[Comparison]:
    """Compare every percentile of every backend known to both sides.

    A percentile is between those of the least and of the most, whichever is whose.

    Args:
        metric: which latency.
        measured: `LatencyTracker.get_percentiles` of each backend.
        truth: that latency by the other clocks, in any order.
    """
    found = []
    for backend in sorted(measured.keys() & truth.keys()):
        ends = [sorted(end) for end in zip(*truth[backend], strict=True)]
        for percent in PERCENTILES if ends else ():
            value = measured[backend][f"p{percent}"]
            within = Range(*(nearest_rank(ordered, percent) for ordered in ends))
            found.append(Comparison(metric, backend, percent, value, within))
    return found


def worst_error(comparisons: Sequence[Comparison], metric: str, percent: int) -> float | None:
    """The largest error of that percentile over all backends; None if nothing was compared."""
    return max(
        (one.error for one in comparisons if (one.metric, one.percent) == (metric, percent)),
        default=None,
    )
