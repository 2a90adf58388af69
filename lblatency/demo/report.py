"""What a run of the demo found: as one JSON object or as text, and whether it adds up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..buckets import LIFETIME
from .compare import METRICS, PERCENTILES, BackendKey, Comparison, worst_error
from .table import Row, backend_table, comparison_table, in_words

__all__ = ["Expected", "Report"]

_SUMS = (  # of the tracker's event counts
    ("produced", ("received", "dropped", "in_ring")),
    ("received", ("opened", "closed", "periodic", "malformed")),
    ("closed", ("recorded", "unmatched", "rejected", "ignored")),
)
_FIGURES = ("p50", "p95", "p99", "mean")


class _Words(NamedTuple):
    """What is said of a source: what was done, the other clocks' columns, and whose they are."""

    heading: str
    clocks: tuple[str, ...]
    note: str


_BY_CLIENTS = "connect by the clients' TCP"
_BY_BACKENDS = "connect by the backends' TCP"
_BOTH_ENDS = ("least", "most")
_NOTE = "least, most: what both ends' clocks allow; {}, which is one value"
_WORDS = {
    "ebpf": _Words(
        "Real TCP connections through an eBPF load balancer, from its own events",
        _BOTH_ENDS,
        _NOTE.format(_BY_CLIENTS),
    ),
    "haproxy": _Words(
        "Real TCP connections through HAProxy, from its sockets",
        _BOTH_ENDS,
        _NOTE.format(_BY_BACKENDS),
    ),
    "nginx": _Words(
        "Real TCP connections through nginx, from its sockets",
        _BOTH_ENDS,
        _NOTE.format(_BY_BACKENDS),
    ),
    "nft": _Words(
        "Real TCP connections through nftables, from their packets",
        _BOTH_ENDS,
        _NOTE.format(_BY_CLIENTS),
    ),
    "simulated": _Words(
        "SIMULATED: drawn at random, through the same engine; nothing was measured",
        ("drawn",),
        "drawn: what the events were made of",
    ),
}


class Expected(NamedTuple):
    """What the other clocks' owners counted of a backend: all connections, and those reset."""

    connections: int
    resets: int


@dataclass(frozen=True)
class Report:
    """The result of a run. `source` is a way to balance, or `simulated`.

    What the source lost before the ring is no problem by itself, because some of it is a limit from
    above: each backend's count tells.
    """

    source: str
    rows: Sequence[Row]
    events: Mapping[str, int]
    comparisons: Sequence[Comparison]
    expected: Mapping[BackendKey, Expected]  # of the connections that ended as they should
    lost: int
    failed_connects: Mapping[str, int] = field(default_factory=dict)  # what the source says
    lost_by_source: Mapping[str, int] = field(default_factory=dict)

    @property
    def connections(self) -> int:
        """How many connections ended as they should."""
        return sum(each.connections for each in self.expected.values())

    def problems(self) -> list[str]:
        """What does not add up, one sentence each."""
        found = [
            f"the loss accounting does not close: {total} is not the sum of {', '.join(parts)}"
            for total, parts in _SUMS
            if not self._closes(total, parts)
        ]
        recorded = self.events["recorded"]
        if recorded != self.connections:
            found.append(f"{self.connections} connections ended, {recorded} were recorded")
        for metric in METRICS:
            count = sum(row.count(metric) for row in self.rows)
            if count != recorded:
                found.append(
                    f"{recorded} connections were recorded, the {in_words(metric)} of {count}"
                )
        for row in self.rows:
            expected = self.expected[row.backend]
            found += [
                f"{row.proxy} {row.target}: {theirs} {name} by its own count, {ours} by ours"
                for name, theirs, ours in (
                    ("connections", expected.connections, row.closed),
                    ("resets", expected.resets, row.resets),
                )
                if ours != theirs
            ]
        if self.lost:
            found.append(f"{self.lost} connections failed")
        found += [
            f"{count} connects to backends failed: {in_words(cause)}"
            for cause, count in self.failed_connects.items()
            if count
        ]
        if not self.comparisons:
            found.append("no connection was measured")
        for one in self.comparisons:
            if not one.is_acceptable:
                proxy, target = one.backend
                found.append(
                    f"{in_words(one.metric)} p{one.percent} of {proxy} {target} is off by"
                    f" {one.error * 1000:.3f} ms"
                )
        return found

    def _closes(self, total: str, parts: Sequence[str]) -> bool:
        return self.events[total] == sum(self.events[part] for part in parts)

    def as_json(self) -> str:
        """One object on one line; seconds, errors of the worst backend.

        A lifetime's figures stand in the object itself, other metrics' in one of their own.
        """
        return json.dumps(
            {
                "source": self.source,
                "backends": [
                    {"proxy": row.proxy, "target": row.target, **_nested(_figures(row))}
                    for row in self.rows
                ],
                "events": dict(self.events),
                **{name: dict(counts) for name, counts in self._told().items()},
                "truth": {"connections": self.connections, **_nested(self._errors())},
            }
        )

    def _told(self) -> dict[str, Mapping[str, int]]:
        """What the source tells besides its events; not all sources do."""
        told = {"failed_connects": self.failed_connects, "lost_by_source": self.lost_by_source}
        return {name: counts for name, counts in told.items() if counts}

    def _errors(self) -> dict[str, dict[str, float | None]]:
        return {
            metric: {
                f"p{percent}_error_s": worst_error(self.comparisons, metric, percent)
                for percent in PERCENTILES
            }
            for metric in METRICS
        }

    def as_text(self) -> str:
        """The final table, the comparison and the loss accounting."""
        closes = all(self._closes(*one) for one in _SUMS)
        return "\n".join(
            [
                _WORDS[self.source].heading,
                "",
                *backend_table(self.rows),
                "",
                *comparison_table(self.comparisons, _WORDS[self.source].clocks),
                _WORDS[self.source].note,
                "",
                *(self._sum(*one) for one in _SUMS),
                *(_listed(name, counts) for name, counts in self._told().items()),
                f"{self.connections} connections ended."
                f" The loss accounting {'closes' if closes else 'DOES NOT CLOSE'}.",
            ]
        )

    def _sum(self, total: str, parts: Sequence[str]) -> str:
        """`3 received = 1 opened + 2 closed`."""
        sign = "=" if self._closes(total, parts) else "≠"
        counts = (f"{self.events[part]} {in_words(part)}" for part in parts)
        return f"{self.events[total]} {total} {sign} {' + '.join(counts)}"


def _listed(name: str, counts: Mapping[str, int]) -> str:
    """`1 failed connects: 1 refused, 0 timed out`."""
    each = ", ".join(f"{count} {in_words(key)}" for key, count in counts.items())
    return f"{sum(counts.values())} {in_words(name)}: {each}"


def _figures(row: Row) -> dict[str, dict[str, float | None]]:
    return {
        metric: {
            "count": row.count(metric),
            **{name: row.value(metric, name) for name in _FIGURES},
        }
        for metric in METRICS
    }


def _nested(by_metric: dict[str, dict[str, float | None]]) -> dict[str, object]:
    """The lifetime's values, and beside them an object per other metric."""
    others = {metric: values for metric, values in by_metric.items() if metric != LIFETIME}
    return {**by_metric[LIFETIME], **others}
