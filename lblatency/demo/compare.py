"""Measured percentiles against the clients' own clocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "PERCENTILES",
    "BackendKey",
    "Comparison",
    "compare",
    "nearest_rank",
    "worst_error",
]

BackendKey = tuple[str, str]  # proxy name, target

PERCENTILES = (50, 95, 99)
_ALLOWED_S = 0.002
_ALLOWED_SHARE = 0.006  # half a bucket of native histogram schema 6, and what rounding adds


def nearest_rank(ordered: Sequence[float], percent: int) -> float:
    """The value at rank ceil(percent/100 * n) of a non-empty ascending list."""
    return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]


@dataclass(frozen=True)
class Comparison:
    """One percentile of one backend, in seconds."""

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
        """Within 2 ms, for the way from one clock to the other, plus 0.6 %, for the buckets."""
        return self.error <= _ALLOWED_S + _ALLOWED_SHARE * self.truth


def compare(
    measured: Mapping[BackendKey, Mapping[str, float]],
    truth: Mapping[BackendKey, Sequence[float]],
) -> list[Comparison]:
    """Compare every percentile of every backend known to both sides.

    Args:
        measured: `LatencyTracker.get_percentiles` of each backend.
        truth: the lifetimes by the clients' clocks, in seconds, in any order.
    """
    found = []
    for backend in sorted(measured.keys() & truth.keys()):
        ordered = sorted(truth[backend])
        for percent in PERCENTILES if ordered else ():
            value = measured[backend][f"p{percent}"]
            found.append(Comparison(backend, percent, value, nearest_rank(ordered, percent)))
    return found


def worst_error(comparisons: Sequence[Comparison], percent: int) -> float | None:
    """The largest error of that percentile over all backends; None if nothing was compared."""
    return max((one.error for one in comparisons if one.percent == percent), default=None)
