"""Measured percentiles against the clients' own clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "METRICS",
    "PERCENTILES",
    "BackendKey",
    "Comparison",
    "compare",
    "nearest_rank",
    "worst_error",
]

BackendKey = tuple[str, str]  # proxy name, target

_SHORT = {50: 0.0002, 95: 0.001, 99: 0.001}
# How far the two clocks may be apart. The clients learn of an end when they are scheduled; when
# the other packets came, their kernel tells.
_ALLOWED_S = {
    "lifetime": {50: 0.002, 95: 0.002, 99: 0.002},
    "connect": _SHORT,
    "first_byte": _SHORT,
}
METRICS = tuple(_ALLOWED_S)
PERCENTILES = tuple(_SHORT)
_ALLOWED_SHARE = 0.006  # half a bucket of native histogram schema 6, and what rounding adds


def nearest_rank(ordered: Sequence[float], percent: int) -> float:
    """The value at rank ceil(percent/100 * n) of a non-empty ascending list."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


@dataclass(frozen=True)
class Comparison:
    """One percentile of one latency of one backend, in seconds."""

    metric: str
    backend: BackendKey
    percent: int
    measured: float
    truth: float

    @property
    def error(self) -> float:
        """How far apart they are, in seconds."""
        return abs(self.measured - self.truth)

    @property
    def is_acceptable(self) -> bool:
        """Within what is allowed for the way between the clocks, plus 0.6 %, for the buckets."""
        allowed = _ALLOWED_S[self.metric][self.percent]
        return self.error <= allowed + _ALLOWED_SHARE * self.truth


def compare(
    metric: str,
    measured: Mapping[BackendKey, Mapping[str, float]],
    truth: Mapping[BackendKey, Sequence[float]],
) -> list[Comparison]:
    """Compare every percentile of every backend known to both sides.

    Args:
        metric: which latency.
        measured: `LatencyTracker.get_percentiles` of each backend.
        truth: that latency by the clients' clocks, in seconds, in any order.
    """
    found = []
    for backend in sorted(measured.keys() & truth.keys()):
        ordered = sorted(truth[backend])
        for percent in PERCENTILES if ordered else ():
            value = measured[backend][f"p{percent}"]
            found.append(
                Comparison(metric, backend, percent, value, nearest_rank(ordered, percent))
            )
    return found


def worst_error(comparisons: Sequence[Comparison], metric: str, percent: int) -> float | None:
    """The largest error of that percentile over all backends; None if nothing was compared."""
    return max(
        (one.error for one in comparisons if (one.metric, one.percent) == (metric, percent)),
        default=None,
    )
