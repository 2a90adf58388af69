"""One backend's distribution as bars of blocks, beside its proxy's."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .._plot import readable

__all__ = ["Bar", "bar", "bars"]

_BLOCKS = " ▏▎▍▌▋▊▉█"
_FINEST = 8  # bars per octave
_QUANTILES = ("p50", "p90", "p95", "p99", "p999")


class Bar(NamedTuple):
    """A line of the plot.

    Attributes:
        label: where it ends, as time.
        shares: of each series, of its observations, 0 to 1.
        counts: of each series.
        flags: the percentiles of the first series that lie in it.
    """

    label: str
    shares: list[float]
    counts: list[int]
    flags: list[str]


def _place(seconds: float | None, per_octave: float) -> int:
    """The number of the bar: it ends at 2 ** (number / per_octave) seconds."""
    if seconds is None:  # beyond all bounds
        return math.ceil(25 * per_octave)
    return math.ceil(math.log2(max(seconds, 1e-9)) * per_octave - 1e-6)


def bars(series: Sequence[Mapping[str, Any]], most: int) -> list[Bar]:
    """Bars of equal width on a logarithmic axis, as fine as `most` lines allow; none if empty.

    One ends at 1 s, so that two are needed at least.
    """
    ends = [upper for each in series for upper in each["upper"]]
    if not ends or most < 2:
        return []
    per_octave: float = _FINEST
    while True:
        places = [_place(upper, per_octave) for upper in ends]
        if max(places) - min(places) < most:
            break
        per_octave /= 2
    by_place = [_counts(each, per_octave) for each in series]
    return [
        Bar(
            label=readable(2 ** (number / per_octave)),
            shares=[
                counts[number] / (each["count"] or 1)
                for counts, each in zip(by_place, series, strict=True)
            ],
            counts=[counts[number] for counts in by_place],
            flags=[
                name
                for name in _QUANTILES
                if series[0][name] is not None and _place(series[0][name], per_octave) == number
            ],
        )
        for number in range(min(places), max(places) + 1)
    ]


def _counts(series: Mapping[str, Any], per_octave: float) -> Counter[int]:
    counts: Counter[int] = Counter()
    for upper, count in zip(series["upper"], series["counts"], strict=True):
        counts[_place(upper, per_octave)] += count
    return counts


def bar(share: float, width: int) -> str:
    """Blocks of an eighth of a cell; something is never nothing."""
    eighths = round(share * width * 8)
    if share > 0:
        eighths = max(1, eighths)
    return "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()
