"""A histogram as HTML: an inline SVG that is readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Bar", "html_plot", "readable"]

_WIDTH, _HEIGHT, _TEXT = 640, 120, 18  # of the bars, and of the line of text below them


class Bar(NamedTuple):
    """The number of observations from above `lower` to `upper` seconds."""

    lower: float
    upper: float
    observations: int


def readable(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _rectangle(x: float, width: float, bar: Bar, most: int) -> str:
    height = max(1.0, _HEIGHT * bar.observations / most)
    tip = escape(f"{readable(bar.lower)} to {readable(bar.upper)}: {bar.observations:,}")
    return (
        f'<rect x="{x:.1f}" y="{_HEIGHT - height:.1f}" width="{max(width - 1, 1):.1f}"'
        f' height="{height:.1f}" opacity="0.6"><title>{tip}</title></rect>'
    )


def _svg(bars: Sequence[Bar]) -> str:
    most = max(bar.observations for bar in bars)
    width = _WIDTH / len(bars)
    rectangles = [
        _rectangle(i * width, width, bar, most) for i, bar in enumerate(bars) if bar.observations
    ]
    y = _HEIGHT + _TEXT - 4
    ends = [
        f'<text x="0" y="{y}">{escape(readable(bars[0].lower))}</text>',
        f'<text x="{_WIDTH}" y="{y}" text-anchor="end">{escape(readable(bars[-1].upper))}</text>',
    ]
    return (
        f'<svg role="img" width="{_WIDTH}" height="{_HEIGHT + _TEXT}" fill="currentColor"'
        f' font-size="12" viewBox="0 0 {_WIDTH} {_HEIGHT + _TEXT}"'
        ' xmlns="http://www.w3.org/2000/svg">' + "".join([*rectangles, *ends]) + "</svg>"
    )


def html_plot(bars: Sequence[Bar], facts: Mapping[str, str]) -> str:
    """A line of facts above the bars, which are in ascending order; no plot without bars."""
    line = ", ".join(f"{escape(name)} <b>{escape(value)}</b>" for name, value in facts.items())
    return f"<div><div>{line}</div>{_svg(bars) if bars else ''}</div>"
