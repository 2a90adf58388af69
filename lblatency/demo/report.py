"""What a run of the demo found: as one JSON object or as text, and whether it adds up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .compare import PERCENTILES, Comparison, worst_error
from .table import Row, backend_table, comparison_table, human_time

__all__ = ["EVENT_COUNTERS", "Report"]

EVENT_COUNTERS = (
    "produced",
    "received",
    "recorded",
    "unmatched",
    "rejected",
    "ignored",
    "dropped",
    "in_ring",
)
_RING = (
    "{produced} events produced = {received} received + {dropped} dropped + {in_ring} in the ring"
)
_ENDINGS = ": {recorded} recorded, {unmatched} unmatched, {rejected} rejected, {ignored} ignored"
_HEADINGS = {
    "ebpf": "Real TCP connections through an eBPF load balancer, from its own events",
    "simulated": "SIMULATED: drawn at random, through the same engine; nothing was measured",
}
_CLOCKS = {"ebpf": "clients' own", "simulated": "drawn"}


@dataclass(frozen=True)
class Report:
    """The result of a run. `source` is `ebpf` or `simulated`."""

    source: str
    rows: Sequence[Row]
    events: Mapping[str, int]
    comparisons: Sequence[Comparison]
    connections: int  # that ended as they should, by the clients' count
    lost: int

    def problems(self) -> list[str]:
        """What does not add up, one sentence each."""
        found = []
        if not self._is_closed():
            found.append("the loss accounting does not close: produced is not the sum of the rest")
        if self.events["recorded"] != self.connections:
            found.append(
                f"{self.connections} connections ended, {self.events['recorded']} were recorded"
            )
        if self.lost:
            found.append(f"{self.lost} connections failed")
        if not self.comparisons:
            found.append("no connection was measured")
        for one in self.comparisons:
            if not one.is_acceptable:
                proxy, target = one.backend
                found.append(
                    f"p{one.percent} of {proxy} {target} is off by {one.error * 1000:.2f} ms"
                )
        return found

    def _is_closed(self) -> bool:
        counted = self.events
        return counted["produced"] == (
            counted["received"] + counted["dropped"] + counted["in_ring"]
        )

    def as_json(self) -> str:
        """One object on one line; seconds, errors of the worst backend."""
        return json.dumps(
            {
                "source": self.source,
                "backends": [
                    {
                        "proxy": row.proxy,
                        "target": row.target,
                        "count": row.measured["count"] if row.measured else 0,
                        **{name: row.value(name) for name in ("p50", "p95", "p99", "mean")},
                    }
                    for row in self.rows
                ],
                "events": {name: self.events[name] for name in EVENT_COUNTERS},
                "truth": {
                    "connections": self.connections,
                    **{
                        f"p{percent}_error_s": worst_error(self.comparisons, percent)
                        for percent in PERCENTILES
                    },
                },
            }
        )

    def as_text(self) -> str:
        """The final table, the comparison and the loss accounting."""
        return "\n".join(
            [
                _HEADINGS[self.source],
                "",
                *backend_table(self.rows),
                "",
                *comparison_table(self.comparisons, _CLOCKS[self.source]),
                "",
                _RING.format_map(self.events),
                f"{self.connections} connections ended" + _ENDINGS.format_map(self.events),
                f"The loss accounting {'closes' if self._is_closed() else 'DOES NOT CLOSE'}."
                f" Largest errors: {self._largest_errors()}.",
            ]
        )

    def _largest_errors(self) -> str:
        return ", ".join(
            f"p{percent} {human_time(worst_error(self.comparisons, percent))}"
            for percent in PERCENTILES
        )
