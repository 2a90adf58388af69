"""The rows of the table: which, in which order, and what their cells say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._plot import readable
from ..names.base import printable
from .terms import parse_terms

__all__ = ["COLUMNS", "Column", "Row", "chosen_rows", "column", "fitting"]

_NAME_MAX = 48  # cells, which any address has room in
Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        name: in the API.
        title: above it.
        width: in cells.
        cell: the text for a value.
        is_text: sorted from the first on, and aligned left; numbers are sorted from the largest on.
        rank: who leaves first if the terminal is narrow: the highest.
    """

    name: str
    title: str
    width: int
    cell: Callable[[Any], str]
    is_text: bool = False
    rank: int = 0


def _text(value: str | None) -> str:
    return printable(value or "")


def _count(value: int | None) -> str:
    if value is None:
        return "-"
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**4)):
        if value >= size:
            return f"{value / (size if unit != 'k' else 1000):.3g}{unit}"
    return str(value)


def _rate(value: float) -> str:
    return _count(round(value)) if value >= 1000 else f"{value:.3g}"


def _time(value: float | None) -> str:
    return "-" if value is None else readable(value)


def _change(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %" if value else ""


COLUMNS = (
    Column("proxy", "PROXY", 12, _text, is_text=True, rank=3),
    Column("target", "BACKEND", 21, _text, is_text=True),
    Column("server", "SERVER", 20, _text, is_text=True, rank=9),
    Column("closed_per_s", "ENDED/s", 7, _rate),
    Column("open", "OPEN", 5, _count, rank=4),
    Column("p50", "p50", 7, _time, rank=2),
    Column("p95", "p95", 7, _time, rank=6),
    Column("p99", "p99", 7, _time, rank=1),
    Column("connect_p95", "CONN95", 7, _time, rank=10),
    Column("first_byte_p95", "BYTE95", 7, _time, rank=11),
    Column("resets", "RST", 5, _count, rank=5),
    Column("failed_connects", "FAILED", 6, _count, rank=8),
    Column("change", "CHANGE", 6, _change, rank=7),
    Column("count", "COUNT", 7, _count, rank=12),
)


def column(name: str) -> Column:
    """The column of that name in the API.

    Raises:
        ValueError: there is none.
    """
    for each in COLUMNS:
        if each.name == name:
            return each
    raise ValueError(f"{name!r} is not one of {', '.join(each.name for each in COLUMNS)}")


def fitting(table: Mapping[str, Any], width: int) -> list[Column]:
    """The columns that an answer has and that fit, with a space between them.

    What is left of the width goes to those of names, as far as they need it.
    """
    columns = table["columns"]
    shown = [each for each in COLUMNS if each.name in columns]
    while len(shown) > 1 and _width(shown) > width:
        shown.remove(max(shown, key=lambda each: (each.rank, each.width)))
    names = {**columns, "proxy": table["proxies"]}
    for i, each in enumerate(shown):
        if each.is_text and (spare := width - _width(shown)) > 0:
            longest = max((len(each.cell(name)) for name in names[each.name]), default=0)
            more = min(spare, min(longest, _NAME_MAX) - each.width)
            shown[i] = replace(each, width=each.width + max(0, more))
    return shown


def _width(columns: Sequence[Column]) -> int:
    return sum(each.width + 1 for each in columns) - 1


def chosen_rows(
    table: Mapping[str, Any], sort: Column, *, is_reversed: bool = False, filter_text: str = ""
) -> list[Row]:
    """The rows of an answer that the filter takes, sorted; those without a value come last.

    Raises:
        ValueError: the filter is not well-formed.
    """
    takes = parse_terms(filter_text)
    columns = {**table["columns"]}
    columns["proxy"] = [table["proxies"][i] for i in columns["proxy"]]
    names = tuple(columns)
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    taken = [row for row in rows if takes(row)] if filter_text else rows
    known = [row for row in taken if row.get(sort.name) is not None]
    unknown = [row for row in taken if row.get(sort.name) is None]
    known.sort(key=lambda row: row[sort.name], reverse=sort.is_text == is_reversed)
    return known + unknown
