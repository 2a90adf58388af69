"""Runs the demo: traffic, live table, /metrics, comparison, and everything taken down again."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from .._signals import HeldSignals
from ..check import missing_capabilities
from ..errors import BpfError, LatencyError
from ..exporter import Address, serving
from ..exporter.served import Served
from ..tracker import LatencyTracker
from .compare import METRICS, compare
from .plan import BACKENDS
from .programs import find_program
from .real import RealSource
from .report import Expected, Report
from .simulate import SimulatedSource
from .source import TrafficSource, Truth
from .table import LiveTable, Row, backend_table
from .ways import OWN_WAY, WAYS
from .worker import DemoError

__all__ = ["ANY_PORT", "run"]

ANY_PORT = Address("127.0.0.1", 0)

_TICK_S = 0.2
_GRACE_S = 15.0
_SETTLE_S = 2.0


def run(
    *,
    way: str = OWN_WAY,
    duration: float = 20.0,
    json: bool = False,
    listen: Sequence[Address] = (ANY_PORT,),
) -> int:
    """Run the demo and print what it measured.

    Args:
        way: of `WAYS`, who balances the connections. Only where it is our own balancer, which does
            not run here, the connections are simulated.
        duration: seconds for which connections are opened.
        json: print one JSON object, and nothing else, on standard output.
        listen: where /metrics is.

    Returns:
        The exit code: 0 if the measured values and the loss accounting add up, else 1.
    """
    try:
        with HeldSignals() as signals, _open_source(way, duration) as source:
            report = _observe(source, signals, duration, listen, is_live=not json)
    except (LatencyError, OSError) as error:
        _tell(f"the demo failed: {error}")
        return 1
    print(report.as_json() if json else report.as_text())
    for problem in report.problems():
        _tell(problem)
    return 1 if report.problems() else 0


def _tell(notice: str) -> None:
    print(f"lblatency: {notice}", file=sys.stderr, flush=True)


def _open_source(way: str, duration: float) -> TrafficSource:
    """The real source; or for our own balancer the simulated one, and why."""
    for needed in WAYS[way].needs:
        find_program(needed)
    try:
        if missing := missing_capabilities():
            raise DemoError(f"missing {', '.join(missing)}; run as root to see the real thing")
        return RealSource(way, duration)
    except (BpfError, DemoError) as error:
        if way != OWN_WAY:
            raise
        _tell(f"no eBPF here: {error}")
    _tell("SIMULATED: the events below are drawn at random, no connection is made")
    return SimulatedSource(duration)


def _observe(
    source: TrafficSource,
    signals: HeldSignals,
    duration: float,
    listen: Sequence[Address],
    *,
    is_live: bool,
) -> Report:
    """Measure until all connections have ended."""
    tracker = LatencyTracker(metrics=METRICS)
    tracker.start(source.stream, None, "demo")
    try:
        with serving(Served(tracker, sources=[source]), listen, _tell) as urls:
            for url in urls:
                _tell(f"metrics at {url}")
            _tell(f"{duration:g} s of connections; Ctrl-C ends them sooner")
            source.start()
            _watch(source, tracker, signals, duration, is_live=is_live)
            truth = source.truth()
            _settle(source, tracker, truth)
            return _report(source, tracker, truth)
    finally:
        tracker.stop()


def _watch(
    source: TrafficSource,
    tracker: LatencyTracker,
    signals: HeldSignals,
    duration: float,
    *,
    is_live: bool,
) -> None:
    """Keep the table up to date until the source has finished, sooner if a signal asks for it."""
    deadline = time.monotonic() + duration + _GRACE_S
    table = LiveTable(sys.stdout)
    while not source.finished():
        if time.monotonic() > deadline:
            raise DemoError("connections are still open long after the end")
        if signals.arrived(_TICK_S):
            source.finish()
        source.tick()
        if is_live:
            table.draw(backend_table(_rows(tracker)))
    table.clear()


def _settle(source: TrafficSource, tracker: LatencyTracker, truth: Truth) -> None:
    """Wait for the last events: a client may know of its end before the last ACK is seen."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        source.stream.drain()
        recorded = _event_counts(tracker)["recorded"]
        if recorded >= truth.all_connections or time.monotonic() > deadline:
            return
        time.sleep(0.01)


def _event_counts(tracker: LatencyTracker) -> dict[str, int]:
    """Where all events went; both sources count what they produce, so that all is known."""
    return {name: count for name, count in tracker.event_counts().items() if count is not None}


def _rows(tracker: LatencyTracker) -> list[Row]:
    seen = tracker.get_status()["backends"]
    rows = []
    for backend in BACKENDS:
        proxy, target = backend.proxy.name, backend.target
        counts = seen.get((proxy, target), {"closed": 0, "open": 0, "reasons": {}})
        rows.append(
            Row(
                proxy=proxy,
                target=target,
                closed=counts["closed"],
                open=counts["open"],
                resets=counts["reasons"].get("rst", 0),
                measured={
                    metric: tracker.get_percentiles(proxy, target, metric=metric)
                    for metric in METRICS
                },
            )
        )
    return rows


def _report(source: TrafficSource, tracker: LatencyTracker, truth: Truth) -> Report:
    rows = _rows(tracker)
    comparisons = []
    for metric in METRICS:
        measured = {row.backend: row.measured[metric] for row in rows}
        known = {backend: values for backend, values in measured.items() if values}
        comparisons += compare(metric, known, truth.latencies[metric])
    return Report(
        source=source.name,
        rows=rows,
        events=_event_counts(tracker),
        comparisons=comparisons,
        expected={
            row.backend: Expected(truth.connections(row.backend), truth.resets[row.backend])
            for row in rows
        },
        lost=truth.lost,
        failed_connects=source.failed_connects(),
        lost_by_source=source.lost(),
    )
