"""What is on the screen: lines of styled text, made of what the API says."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from .._plot import readable
from ..names.base import printable
from .bars import bar, bars
from .table import Column, Row, chosen_rows, column, fitting

__all__ = [
    "Seen",
    "State",
    "ansi",
    "column_after",
    "coverage_line",
    "detail_lines",
    "row_lines",
    "table_lines",
]

_HEAD, _FOOT = 3, 1  # lines beside the rows
_WIDE = 100  # columns, from which on there is room for all facts
_FACTS = ("mean", "p50", "p90", "p95", "p99", "p999")
_FEWER_FACTS = ("mean", "p50", "p95", "p99")
_HELP = "arrows move, ←→ sort, r reverse, / filter, w window, Enter distribution, q quit"


@dataclass(frozen=True)
class Seen:
    """What was read last.

    Attributes:
        status: of the API; None before the first answer.
        table: likewise.
        error: why it could not be read again; "" if it could.
        at: when, by `time.monotonic()`.
    """

    status: Mapping[str, Any] | None = None
    table: Mapping[str, Any] | None = None
    error: str = ""
    at: float = 0.0


@dataclass
class State:
    """What whoever sits there has chosen.

    Attributes:
        place: what is watched: a URL, or sources.
        window: seconds, or "start".
        sort: by which column.
        is_reversed: whether the other way round.
        filter: text that holds.
        typed: text of a filter that is being typed; None if none is.
        cursor: the proxy and target under the cursor.
        top: number of the first row that is shown.
    """

    place: str
    window: int | str = 60
    sort: Column = field(default_factory=lambda: column("closed_per_s"))
    is_reversed: bool = False
    filter: str = ""
    typed: str | None = None
    cursor: tuple[str, str] | None = None
    top: int = 0
    _rows: list[Row] = field(default_factory=list)  # the last ones, and of what they are:
    _rows_of: tuple[Any, ...] = ()
    _table: Mapping[str, Any] | None = None

    def rows(self, table: Mapping[str, Any]) -> tuple[list[Row], str]:
        """What the table shows, and what is wrong with the filter."""
        text = self.filter if self.typed is None else self.typed
        try:
            return self._sorted(table, text), ""
        except ValueError as error:
            return self._sorted(table, self.filter), str(error)

    def _sorted(self, table: Mapping[str, Any], text: str) -> list[Row]:
        sort = self.sort if self.sort.name in table["columns"] else column("target")
        key = (sort.name, self.is_reversed, text)
        if self._table is not table or self._rows_of != key:
            self._rows = chosen_rows(table, sort, is_reversed=self.is_reversed, filter_text=text)
            self._rows_of, self._table = key, table
        return self._rows

    def selected(self, rows: Sequence[Row]) -> int:
        """The number of the row under the cursor; the first one if that is not there."""
        for i, row in enumerate(rows):
            if (row["proxy"], row["target"]) == self.cursor:
                return i
        return 0


def coverage_line(status: Mapping[str, Any]) -> Text:
    """How much is seen, before anything else: red if something is not."""
    coverage = status["coverage"]
    share, lost = coverage["share"], coverage["lost"]
    if share is None:
        said = "no connection has closed yet"
    else:
        # Rounded down: what is not all must not look like it.
        said = f"{int(share * 10000) / 100:.6g} % of closed connections have a lifetime"
    said += f"; {lost:,} lost"
    if not coverage["counted"]:
        said += ", as far as is known"
    line = Text(said, "bold red" if lost or (share or 1) < 0.999 else "green")
    for source in status["sources"]:
        if source["trouble"]:
            line.append(
                f"; {printable(source['name'])}: {printable(source['trouble'])}", "bold red"
            )
    return line


def _title(state: State, seen: Seen, n: int, width: int) -> Text:
    table = seen.table
    covers = table["seconds"] if table else 0
    asked = state.window
    window = "all time" if asked == "start" else f"{asked:g} s" if asked == covers else ""
    line = Text("lblatency  ", "bold")
    line.append(printable(state.place))
    line.append(f"  last {window or f'{covers:.0f} of {asked} s'}" if covers else "")
    if table:
        of = f" of {table['rows']:,}" if n != table["rows"] else ""
        line.append(f"  {n:,}{of} backends")
        if table["left_out"]:
            line.append(f", {table['left_out']:,} left out", "red")
    line.append(time.strftime("  %H:%M:%S"), "dim")
    return _cut(line, width)


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line


def _cell(each: Column, text: str) -> str:
    """Exactly as wide as the column."""
    if cell_len(text) > each.width:
        return set_cell_size(text, each.width - 1) + "…"
    room = " " * (each.width - cell_len(text))
    return text + room if each.is_text else room + text


def _row(shown: Sequence[Column], row: Row) -> str:
    return " ".join(_cell(each, each.cell(row[each.name])) for each in shown)


def _head(state: State, shown: Sequence[Column]) -> Text:
    titles = [
        Text(_cell(each, each.title), "bold reverse" if each.name == state.sort.name else "bold")
        for each in shown
    ]
    return Text(" ").join(titles)


def _foot(state: State, seen: Seen, wrong: str, width: int) -> Text:
    if state.typed is not None:
        line = Text(f"/{state.typed}▏", "bold")
        line.append(f"  {printable(wrong)}" if wrong else "", "red")
    elif seen.error:
        line = Text(printable(seen.error), "bold red")
        if seen.table:
            line.append(f"; what is shown is {time.monotonic() - seen.at:.0f} s old")
    elif state.filter:
        line = Text(f"filter: {state.filter}", "bold").append(f"  {_HELP}", "not bold dim")
    else:
        line = Text(_HELP, "dim")
    return _cut(line, width)


def row_lines(state: State, table: Mapping[str, Any], width: int) -> list[Text]:
    """The head and all rows."""
    shown = fitting(table, width)
    rows = state.rows(table)[0]
    return [_head(state, shown), *(Text(_row(shown, row)) for row in rows)]


def table_lines(state: State, seen: Seen, width: int, height: int) -> list[Text]:
    """The whole screen with the table; moves the first row so that the cursor is seen."""
    if seen.table is None or seen.status is None:
        waiting = Text("" if seen.error else "waiting for the first samples…", "dim")
        return [_title(state, seen, 0, width), waiting, _foot(state, seen, "", width)]
    rows, wrong = state.rows(seen.table)
    shown = fitting(seen.table, width)
    room = max(1, height - _HEAD - _FOOT)
    at = state.selected(rows)
    state.top = max(0, min(state.top, at, len(rows) - room), at - room + 1)
    lines = [
        _title(state, seen, len(rows), width),
        _cut(coverage_line(seen.status), width),
        _head(state, shown),
    ]
    for i, row in enumerate(rows[state.top : state.top + room], state.top):
        style = "reverse" if i == at and state.cursor else ""
        if not style and row["resets"] + row["failed_connects"]:
            style = "yellow"
        lines.append(Text(_row(shown, row), style))
    if not rows:
        lines.append(Text("no backend" if seen.table["rows"] else "no connections yet", "dim"))
    lines += [Text()] * (height - _FOOT - len(lines))
    return [*lines, _foot(state, seen, wrong, width)]


def detail_lines(
    distribution: Mapping[str, Any], error: str, width: int, height: int
) -> list[Text]:
    """The whole screen with one backend's distribution beside its proxy's."""
    series = distribution["series"][:2]
    one = series[0]
    name = f"{one['proxy']}/{one['target']}" + (f" ({one['server']})" if one["server"] else "")
    title = Text(printable(name), "bold")
    title.append(f"  {distribution['metric']}, last {distribution['seconds']:.0f} s")
    lines = [_cut(title, width)]
    for each, label in zip(series, ("backend", "proxy"), strict=False):
        facts = {name: each[name] for name in (_FACTS if width >= _WIDE else _FEWER_FACTS)}
        said = "  ".join(
            f"{key} {'-' if value is None else readable(value)}" for key, value in facts.items()
        )
        lines.append(_cut(Text(f"{label:8}{each['count']:>10,}  {said}"), width))
    lines.append(Text())
    room = max(4, (width - 34) // 2)
    found = bars(series, height - len(lines) - 2)
    largest = max((share for each in found for share in each.shares), default=1) or 1
    if found:
        head = f"{'up to':>9} {'count':>9}  {'backend':<{room}} {'proxy':<{room}}"
        lines.append(_cut(Text(head, "bold"), width))
    else:
        lines.append(Text("no connection ended in this window", "dim"))
    for each in found:
        line = Text(f"{each.label:>9} {each.counts[0]:>9,}  ")
        for share, style in zip(each.shares, ("cyan", "dim"), strict=False):
            blocks = bar(share / largest, room)
            line.append(blocks, style).append(" " * (room - len(blocks) + 1))
        line.append(" ".join(f"◂{flag}" for flag in each.flags), "bold")
        lines.append(_cut(line, width))
    lines += [Text()] * (height - _FOOT - len(lines))
    foot = (
        Text(printable(error), "bold red") if error else Text("Esc back, w window, q quit", "dim")
    )
    return [*lines[: height - _FOOT], _cut(foot, width)]


def ansi(console: Console, lines: Sequence[Text]) -> list[str]:
    """The lines with escape sequences for the console's colours."""
    found = []
    for line in lines:
        with console.capture() as capture:
            console.print(line, end="", no_wrap=True, overflow="crop", crop=True, soft_wrap=False)
        found.append(capture.get())
    return found


def column_after(state: State, shown: Sequence[Column], step: int) -> Column:
    """The next column to sort by."""
    names = [each.name for each in shown]
    at = names.index(state.sort.name) if state.sort.name in names else 0
    return column(names[(at + step) % len(names)])
