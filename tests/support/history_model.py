"""A history as anybody would write it first: all samples are kept, and sums are made when asked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from lblatency import LatencyTracker
from lblatency.backend import BackendRow
from lblatency.buckets import LIFETIME
from lblatency.history import Selection

__all__ = ["Column", "HistoryModel"]

SECOND = 10**9
Key = tuple[str, str]


class Count(NamedTuple):
    """What a backend counted, or what of it is new."""

    slots: dict[str, Counter[int | None]]  # by metric: last ns of the slot to number
    sums: dict[str, int]
    reasons: Counter[str]
    opened: int


class Column(NamedTuple):
    """What happened between two samples."""

    began: int
    ended: int
    rows: dict[Key, Count]


def _count(rows: dict[str, BackendRow]) -> Count:
    forms = {metric: row.histogram.to_dict() for metric, row in rows.items()}
    return Count(
        {metric: Counter(dict(map(tuple, form["slots"]))) for metric, form in forms.items()},
        {metric: form["sum_ns"] for metric, form in forms.items()},
        Counter(rows[LIFETIME].closed),
        rows[LIFETIME].opened,
    )


def _difference(now: Count, before: Count | None) -> Count:
    """Each latency by itself; the connections go with the lifetime."""
    if before is None:
        return now
    slots, sums = {}, {}
    reasons, opened = now.reasons, now.opened
    for metric, counts in now.slots.items():
        older = before.slots[metric]
        fell = now.sums[metric] < before.sums[metric] or any(
            counts[slot] < count for slot, count in older.items()
        )
        if metric == LIFETIME:
            fell = fell or any(now.reasons[name] < n for name, n in before.reasons.items())
            if not fell:
                reasons = now.reasons - before.reasons
                opened = max(0, now.opened - before.opened)
        slots[metric] = counts if fell else counts - older
        sums[metric] = now.sums[metric] - (0 if fell else before.sums[metric])
    return Count(slots, sums, reasons, opened)


class HistoryModel:
    """Call `sample()` with each of the history's."""

    def __init__(self, tracker: LatencyTracker, began: int) -> None:
        self._tracker = tracker
        self.began = began
        self.sampled = began
        self.totals: dict[Key, Count] | None = None
        self.open: dict[Key, int] = {}
        self.columns: list[Column] = []

    def sample(self, now: int) -> None:
        """Keep what there is now."""
        rows: dict[Key, dict[str, BackendRow]] = {}
        for metric in self._tracker.metrics:
            for row in self._tracker.backends(metric=metric):
                rows.setdefault((row.proxy, row.target), {})[metric] = row
        totals = {key: _count(of) for key, of in rows.items()}
        if self.totals is not None:
            new = {key: _difference(of, self.totals.get(key)) for key, of in totals.items()}
            self.columns.append(Column(self.sampled, now, new))
        self.totals, self.sampled = totals, now
        self.open = {key: of[LIFETIME].open for key, of in rows.items()}

    def span(self, seconds: int, until: int | None = None) -> list[Column]:
        """The columns whose middle is in the window before `until`."""
        columns = [each for each in self.columns if until is None or each.ended <= until]
        if not columns:
            return []
        end = columns[-1].ended
        return [
            each
            for each in columns
            if end - (each.began + (each.ended - each.began) // 2) <= seconds * SECOND
        ]

    def sum(self, columns: Iterable[Column], selection: Selection) -> Count:
        """What happened in all of them at the selected backends."""
        return total(
            of
            for column in columns
            for key, of in column.rows.items()
            if is_selected(key, selection)
        )


def total(counts: Iterable[Count]) -> Count:
    """All of them together."""
    slots: dict[str, Counter[int | None]] = {}
    sums: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    opened = 0
    for each in counts:
        for metric, of in each.slots.items():
            slots.setdefault(metric, Counter()).update(of)
        sums.update(each.sums)
        reasons.update(each.reasons)
        opened += each.opened
    return Count(slots, dict(sums), reasons, opened)


def is_selected(key: Key, selection: Selection) -> bool:
    """Whether a backend is meant."""
    return selection.proxy in (None, key[0]) and selection.target in (None, key[1])


def coarse_row(ns: int | None) -> int:
    """The row of schema 2 with a slot's last nanosecond, from the zero bucket on."""
    if ns is None:
        return 177
    row = 0
    while ns > math.floor(2.0 ** (row / 4 - 20) * 1e9):
        row += 1
    return row
