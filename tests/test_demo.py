"""The demo without privileges: comparing, tables, the report and the simulated source."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from lblatency._signals import HeldSignals
from lblatency.demo.client import Ending, unpack_endings
from lblatency.demo.compare import PERCENTILES, Comparison, compare, nearest_rank, worst_error
from lblatency.demo.plan import BACKENDS, PROXIES
from lblatency.demo.report import EVENT_COUNTERS, Report
from lblatency.demo.run import run
from lblatency.demo.table import LiveTable, Row, backend_table, comparison_table, human_time

WEB = ("web", "10.0.0.1:80")
MEASURED = {"p50": 0.1, "p95": 0.2, "p99": 0.3, "mean": 0.12, "count": 7}
EVENTS = {
    "produced": 14,
    "received": 14,
    "recorded": 7,
    "unmatched": 0,
    "rejected": 0,
    "ignored": 0,
    "dropped": 0,
    "in_ring": 0,
}


def row(**changes: Any) -> Row:
    """A row of the table, as it is after seven connections."""
    fields: dict[str, Any] = {
        "proxy": "web",
        "target": "10.0.0.1:80",
        "label": "quick",
        "closed": 7,
        "open": 1,
        "resets": 2,
        "measured": MEASURED,
    }
    return Row(**{**fields, **changes})


def report(**changes: Any) -> Report:
    """A report in which everything adds up."""
    fields: dict[str, Any] = {
        "source": "ebpf",
        "rows": [row()],
        "events": EVENTS,
        "comparisons": [Comparison(WEB, percent, 0.1, 0.1005) for percent in PERCENTILES],
        "connections": 7,
        "lost": 0,
    }
    return Report(**{**fields, **changes})


@pytest.mark.parametrize("count", [1, 2, 19, 20, 21, 99, 100, 101, 700])
@pytest.mark.parametrize("percent", PERCENTILES)
def test_nearest_rank_is_the_least_value_with_enough_below(count: int, percent: int) -> None:
    """The value at rank ceil(q*n): the first with at least that share of all at or below it."""
    values = [float(i) for i in range(count)]
    expected = next(v for v in values if (v + 1) * 100 >= percent * count)
    assert nearest_rank(values, percent) == expected


def test_compare_takes_backends_known_to_both_sides() -> None:
    """A backend without truth, or without measurements, is not compared."""
    measured = {WEB: MEASURED, ("web", "10.0.0.2:80"): MEASURED}
    truth = {WEB: [0.3, 0.1, 0.2], ("web", "10.0.0.3:80"): [1.0]}
    found = compare(measured, truth)
    assert [one.backend for one in found] == [WEB] * 3
    assert [one.truth for one in found] == [0.2, 0.3, 0.3]
    assert [one.measured for one in found] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("truth", "error", "acceptable"),
    [(0.01, 0.0020, True), (0.01, 0.0022, False), (1.0, 0.0079, True), (1.0, 0.0081, False)],
)
def test_an_error_may_be_2_ms_and_6_per_mille(truth: float, error: float, acceptable: bool) -> None:
    """The clocks' distance and the buckets' width are allowed, on either side."""
    for sign in (-1, 1):
        one = Comparison(WEB, 50, truth + sign * error, truth)
        assert one.is_acceptable is acceptable


def test_worst_error_is_of_the_worst_backend() -> None:
    """The largest distance, whichever side is larger; None without any."""
    found = [Comparison(WEB, 50, 0.1, 0.2), Comparison(WEB, 50, 0.3, 0.1)]
    assert math.isclose(worst_error(found, 50) or 0, 0.2)
    assert worst_error(found, 99) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0.00 ms"),
        (0.0041234, "4.12 ms"),
        (0.009996, "10.0 ms"),
        (0.0123, "12.3 ms"),
        (0.38234, "382 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (12.34, "12.3 s"),
    ],
)
def test_human_time_has_three_digits(seconds: float | None, text: str) -> None:
    """Three digits and a unit, also where rounding crosses a power of ten."""
    assert human_time(seconds) == text


def test_backend_table_is_aligned() -> None:
    """All lines are as wide as the header; a backend without connections has dashes."""
    header, full, empty = backend_table([row(), row(target="[fd77::2]:80", measured=None)])
    assert len({len(header), len(full), len(empty)}) == 1
    assert full.split() == [
        "web",
        "10.0.0.1:80",
        "quick",
        "7",
        "1",
        "100",
        "ms",
        "200",
        "ms",
        "300",
        "ms",
        "120",
        "ms",
        "2",
    ]
    assert " ".join(empty.split()) == "web [fd77::2]:80 quick 7 1 - - - - 2"


def test_comparison_table_names_the_other_clock() -> None:
    """Measured, the clients' own and the error stand side by side."""
    header, line = comparison_table([Comparison(WEB, 95, 0.2, 0.199)], "clients' own")
    assert header.endswith("measured  clients' own    error")
    assert line.split() == ["web", "10.0.0.1:80", "p95", "200", "ms", "199", "ms", "1.00", "ms"]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_live_table_redraws_in_place_on_a_terminal() -> None:
    """The second drawing begins by going up as many lines as the first had."""
    terminal = Terminal()
    table = LiveTable(terminal)
    table.draw(["one", "two"])
    assert "\x1b[2F" not in terminal.getvalue()
    table.draw(["three"])
    assert terminal.getvalue().endswith("\x1b[2Fthree\x1b[K\n\x1b[J")


def test_live_table_cuts_what_would_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is wider than the terminal: a wrapped one would put the next drawing a line off."""
    monkeypatch.setenv("COLUMNS", "3")
    terminal = Terminal()
    LiveTable(terminal).draw(["one two"])
    assert terminal.getvalue().startswith("one\x1b[K\n")


def test_live_table_is_silent_elsewhere() -> None:
    """A pipe or a file gets the final table only."""
    output = io.StringIO()
    LiveTable(output).draw(["one"])
    assert output.getvalue() == ""


def test_report_adds_up() -> None:
    """Nothing to complain about, and both outputs hold the figures."""
    assert report().problems() == []
    assert json.loads(report().as_json()) == {
        "source": "ebpf",
        "backends": [{"proxy": "web", "target": "10.0.0.1:80", **MEASURED}],
        "events": EVENTS,
        "truth": {
            "connections": 7,
            **{f"p{percent}_error_s": pytest.approx(0.0005) for percent in PERCENTILES},
        },
    }
    text = report().as_text()
    assert "14 events produced = 14 received + 0 dropped + 0 in the ring" in text
    assert "7 connections ended: 7 recorded, 0 unmatched, 0 rejected, 0 ignored" in text
    assert "accounting closes. Largest errors: p50 0.50 ms, p95 0.50 ms, p99 0.50 ms." in text
    assert "DOES NOT CLOSE" in report(events={**EVENTS, "received": 13}).as_text()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"events": {**EVENTS, "received": 13}}, "loss accounting"),
        ({"connections": 8}, "8 connections ended, 7 were recorded"),
        ({"lost": 1}, "1 connections failed"),
        ({"comparisons": []}, "no connection was measured"),
        ({"comparisons": [Comparison(WEB, 99, 0.1, 0.104)]}, "p99 of web 10.0.0.1:80 is off"),
    ],
)
def test_report_says_what_does_not_add_up(changes: dict[str, Any], problem: str) -> None:
    """Each thing that can be wrong is named."""
    (found,) = report(**changes).problems()
    assert problem in found


def test_report_of_dropped_events_still_closes() -> None:
    """Lost events are accounted for; what they cost is said."""
    events = {**EVENTS, "produced": 15, "dropped": 1}
    assert report(events=events).problems() == []


def test_unpack_endings_refuses_half_a_record() -> None:
    """A report that was cut off is no report."""
    record = b"\x03\x02" + bytes(8)
    assert unpack_endings(record) == [Ending(3, 2, 0.0)]
    with pytest.raises(ValueError, match="incomplete"):
        unpack_endings(record[:-1])


def test_held_signals_are_waited_for_and_not_passed_on() -> None:
    """A signal is noticed inside the block, and a second one does not go off after it."""
    with HeldSignals() as signals:
        assert not signals.arrived(0)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.arrived(1)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.fixture
def no_privileges(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo believes that it has no capability at all."""
    monkeypatch.setattr("lblatency.demo.run.missing_capabilities", lambda: ["CAP_BPF", "CAP_X"])


@pytest.mark.usefixtures("no_privileges")
def test_simulated_run_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Without privileges the same engine measures a simulated source, and says so plainly."""
    assert run(duration=0.5, json=True) == 0
    output, notices = capsys.readouterr()
    found = json.loads(output)
    assert list(found) == ["source", "backends", "events", "truth"]
    assert found["source"] == "simulated"
    assert [(one["proxy"], one["target"]) for one in found["backends"]] == [
        (backend.proxy.name, backend.target) for backend in BACKENDS
    ]
    assert set(found["events"]) == set(EVENT_COUNTERS)
    connections = found["truth"]["connections"]
    assert connections > 50
    assert found["events"]["produced"] == found["events"]["received"] == 2 * connections
    assert found["events"]["recorded"] == sum(one["count"] for one in found["backends"])
    assert 0 < found["truth"]["p50_error_s"] <= 0.0055 * 0.4
    assert "missing CAP_BPF, CAP_X" in notices
    assert "SIMULATED" in notices


@pytest.mark.usefixtures("no_privileges")
def test_simulated_run_prints_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json the final table, the comparison and the accounting, which agree."""
    assert run(duration=0.3) == 0
    heading, table, comparison, accounting = capsys.readouterr().out.split("\n\n")
    assert heading.startswith("SIMULATED")
    rows = [line.split() for line in table.splitlines()[1:]]
    names = [[backend.proxy.name, backend.target] for backend in BACKENDS]
    assert [row[:2] for row in rows] == names
    pairs = [line.split()[:3] for line in comparison.splitlines()[1:]]
    assert pairs == [[*name, f"p{percent}"] for percent in PERCENTILES for name in names]
    ended = sum(int(row[3]) for row in rows)
    assert ended > 30
    assert accounting.splitlines()[:2] == [
        f"{2 * ended} events produced = {2 * ended} received + 0 dropped + 0 in the ring",
        f"{ended} connections ended: {ended} recorded, 0 unmatched, 0 rejected, 0 ignored",
    ]
    assert "The loss accounting closes." in accounting


@pytest.mark.usefixtures("no_privileges")
def test_a_taken_port_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A listen address that cannot be had ends the demo with exit code 1."""
    assert run(duration=0.1, json=True, listen=("192.0.2.1", 1)) == 1
    output, notices = capsys.readouterr()
    assert output == ""
    assert "the demo failed" in notices


@pytest.mark.usefixtures("no_privileges")
def test_metrics_may_be_on_ipv6(capsys: pytest.CaptureFixture[str]) -> None:
    """Its address is told in brackets."""
    assert run(duration=0.2, json=True, listen=("::1", 0)) == 0
    assert "metrics at http://[::1]:" in capsys.readouterr().err


def test_a_signal_ends_a_simulated_run_early() -> None:
    """SIGTERM stops opening connections; the result is still printed."""
    script = (
        "import sys, lblatency.demo.run as demo\n"
        "demo.missing_capabilities = lambda: ['CAP_BPF']\n"
        "sys.exit(demo.run(duration=60, json=True))\n"
    )
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "metrics at" in line:
                break
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert process.returncode in (0, 1)  # 1: it may have been too early to measure anything
    assert json.loads(output)["source"] == "simulated"
    assert time.monotonic() - started < 30


def test_every_proxy_has_backends_of_its_address_family() -> None:
    """IPv6 clients reach IPv6 backends, and the shares of all proxies are the whole."""
    for backend in BACKENDS:
        assert (":" in backend.host) == (":" in backend.proxy.vip)
    assert {backend.proxy for backend in BACKENDS} == set(PROXIES)
    assert math.isclose(sum(proxy.share for proxy in PROXIES), 1)
