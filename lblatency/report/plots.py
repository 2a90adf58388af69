"""The distributions of a report as a picture. It needs matplotlib."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .._plot import readable
from ..history import Selection
from ..names.base import printable
from .figures import label, percentile_points, points
from .readings import Reading

__all__ = ["FORMATS", "picture"]

FORMATS = ("svg", "png")
_COLOURS = (  # the first is for all backends; the others are Paul Tol's "muted"
    "black", "#332288", "#cc6677", "#117733", "#ddcc77", "#88ccee", "#882255", "#44aa99", "#aa4499",
    "#999933",
)  # fmt: skip
_DASHES = ("-", "--")
_COMPARED = 5  # curves of each of two readings; more cannot be told apart
_LABEL = 48  # characters
_DPI = 150
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # names are not formulas
    "svg.hashsalt": "lblatency",  # the same report is the same file
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_PERCENTILES = (0.5, 0.95, 0.99)


def picture(readings: Sequence[Reading], metric: str, form: str) -> bytes:
    """A plot of the cumulative distributions, and one of what is above the median."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a box stands for it
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        whole, tail = figure.subplots(1, 2)
        handles, names = _draw(readings, metric, whole, tail)
        _label_axes(whole, tail)
        figure.suptitle(_title(readings, metric), fontsize=10)
        if handles:
            figure.legend(
                handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=8
            )
        else:
            whole.text(0.5, 0.5, "no observations", ha="center", transform=whole.transAxes)
        out = io.BytesIO()
        metadata = {"Date": None} if form == "svg" else None
        figure.savefig(out, format=form, dpi=_DPI, metadata=metadata)
    return out.getvalue()


def _title(readings: Sequence[Reading], metric: str) -> str:
    titles = " against ".join(_short(reading.title) for reading in readings)
    return f"{metric} of connections, {titles}"


def _short(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= _LABEL else shown[: _LABEL - 1] + "…"


def _colours(readings: Sequence[Reading], metric: str) -> dict[Selection, str]:
    """Of what is drawn: a series has the same colour in both readings."""
    found = dict.fromkeys(
        each.selection
        for reading in readings
        for each in reading.series
        if metric in each.histograms and each.histograms[metric].count
    )
    most = len(_COLOURS) if len(readings) == 1 else _COMPARED
    return dict(zip(list(found)[:most], _COLOURS, strict=False))


def _draw(
    readings: Sequence[Reading], metric: str, whole: Any, tail: Any
) -> tuple[list[Any], list[str]]:
    handles: list[Any] = []
    names: list[str] = []
    colours = _colours(readings, metric)
    for reading, dashes in zip(readings, _DASHES, strict=False):
        for each in reading.series:
            histogram = each.histograms.get(metric)
            if each.selection not in colours or histogram is None or not histogram.count:
                continue
            seconds, shares = points(histogram)
            style = {
                "color": colours[each.selection],
                "linestyle": dashes,
                "linewidth": 1.8 if each.selection.target is None else 1.0,
            }
            (handle,) = whole.plot(
                [seconds[0], *seconds], [0.0, *shares], drawstyle="steps-post", **style
            )
            tail.plot(*percentile_points(histogram), drawstyle="steps-pre", **style)
            own = f": {_short(reading.title)}" if len(readings) > 1 else ""
            handles.append(handle)
            names.append(" " + _short(label(each)) + own)  # a first _ would hide it
    return handles, names


def _label_axes(whole: Any, tail: Any) -> None:
    times = FuncFormatter(lambda value, _: readable(value) if value > 0 else "")
    whole.set(xscale="log", ylim=(0, 1.02), ylabel="share of connections", xlabel="time, at most")
    whole.xaxis.set(major_formatter=times, minor_formatter=NullFormatter())
    whole.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    for q in _PERCENTILES:
        whole.axhline(q, color="0.8", linewidth=0.6, zorder=0)
    tail.set(xscale="log", yscale="log", xlim=(1, None), xlabel="percentile", ylabel="time")
    tail.xaxis.set(
        major_locator=LogLocator(10),
        major_formatter=FuncFormatter(lambda value, _: _percentile(value)),
        minor_formatter=NullFormatter(),
    )
    tail.yaxis.set(major_formatter=times, minor_formatter=NullFormatter())
    for axes in (whole, tail):
        axes.grid(color="0.92", linewidth=0.6)
        axes.set_axisbelow(True)


def _percentile(odds: float) -> str:
    """`odds` is one in how many."""
    return "p0" if odds <= 1 else f"p{100 * (1 - 1 / odds):.10g}"
