"""The demo without privileges: comparing, tables, the report and the simulated source."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lblatency import LatencyTracker
from lblatency._signals import HeldSignals
from lblatency.demo.client import Ending, unpack_endings
from lblatency.demo.compare import (
    METRICS,
    PERCENTILES,
    Comparison,
    Range,
    compare,
    exactly,
    nearest_rank,
    worst_error,
)
from lblatency.demo.kernel_clock import handshake_s, receive, stamp_arrivals
from lblatency.demo.plan import BACKENDS, PROXIES, Backend
from lblatency.demo.report import Expected, Report
from lblatency.demo.run import run
from lblatency.demo.server import Served, unpack_served
from lblatency.demo.table import LiveTable, Row, backend_table, comparison_table, milliseconds
from lblatency.exporter import Address
from tests.support.rig import wait_until

WEB = ("web", "10.0.0.1:80")
LIFETIME = {"p50": 0.1, "p95": 0.2, "p99": 0.3, "mean": 0.12, "count": 7}
CONNECT = {"p50": 0.0001, "p95": 0.0002, "p99": 0.0003, "mean": 0.00012, "count": 7}
FIRST_BYTE = {"p50": 0.001, "p95": 0.002, "p99": 0.003, "mean": 0.0012, "count": 7}
MEASURED = {"lifetime": LIFETIME, "connect": CONNECT, "first_byte": FIRST_BYTE}
EVENTS = {
    "produced": 15,
    "received": 15,
    "opened": 7,
    "closed": 8,
    "periodic": 0,
    "malformed": 0,
    "recorded": 7,
    "unmatched": 0,
    "rejected": 0,
    "ignored": 1,
    "dropped": 0,
    "in_ring": 0,
}


def row(**changes: Any) -> Row:
    """A row of the table, as it is after seven connections."""
    fields: dict[str, Any] = {
        "proxy": "web",
        "target": "10.0.0.1:80",
        "closed": 7,
        "open": 1,
        "resets": 2,
        "measured": MEASURED,
    }
    return Row(**{**fields, **changes})


def compared(metric: str, percent: int, error: float) -> Comparison:
    """A comparison of `row()` with a clock that said less."""
    measured = MEASURED[metric][f"p{percent}"]
    return Comparison(metric, WEB, percent, measured, exactly(measured - error))


def report(**changes: Any) -> Report:
    """A report in which everything adds up."""
    fields: dict[str, Any] = {
        "source": "ebpf",
        "rows": [row()],
        "events": EVENTS,
        "comparisons": [
            compared(metric, percent, 0.000001 * number * percent)
            for number, metric in enumerate(METRICS, 1)
            for percent in PERCENTILES
        ],
        "expected": {WEB: Expected(connections=7, resets=2)},
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
    measured = {WEB: LIFETIME, ("web", "10.0.0.2:80"): LIFETIME}
    truth = {WEB: [exactly(0.3), exactly(0.1), exactly(0.2)], ("web", "10.0.0.3:80"): [exactly(1)]}
    found = compare("connect", measured, truth)
    assert [(one.metric, one.backend) for one in found] == [("connect", WEB)] * 3
    assert [one.truth for one in found] == [exactly(0.2), exactly(0.3), exactly(0.3)]
    assert [one.measured for one in found] == [0.1, 0.2, 0.3]


def test_a_percentile_lies_between_those_of_the_least_and_of_the_most() -> None:
    """They may be of different connections: here the median's least and most are."""
    ranges = [Range(0.1, 0.9), Range(0.2, 0.3), Range(0.4, 0.5)]
    found = compare("lifetime", {WEB: LIFETIME}, {WEB: ranges})
    assert [one.truth for one in found] == [Range(0.2, 0.5), Range(0.4, 0.9), Range(0.4, 0.9)]
    assert [one.error for one in found] == pytest.approx([0.1, 0.2, 0.1])


@pytest.mark.parametrize(
    ("measured", "error"), [(0.1, 0.1), (0.2, 0), (0.25, 0), (0.3, 0), (0.35, 0.05)]
)
def test_what_is_within_the_range_has_no_error(measured: float, error: float) -> None:
    """The error is how far it is out of the range, on either side."""
    one = Comparison("lifetime", WEB, 50, measured, Range(0.2, 0.3))
    assert one.error == pytest.approx(error)


@pytest.mark.parametrize(
    ("metric", "percent", "allowed"),
    [
        ("lifetime", 50, 0.0005),
        ("lifetime", 95, 0.0005),
        ("lifetime", 99, 0.0005),
        ("connect", 50, 0.0002),
        ("connect", 95, 0.001),
        ("connect", 99, 0.001),
        ("first_byte", 50, 0.0002),
        ("first_byte", 95, 0.001),
        ("first_byte", 99, 0.001),
    ],
)
@pytest.mark.parametrize("truth", [0.01, 1.0])
def test_an_error_may_be_the_clocks_distance_and_6_per_mille(
    metric: str, percent: int, allowed: float, truth: float
) -> None:
    """The clocks' distance and the buckets' width are allowed, on either side, and no more."""
    limit = allowed + 0.006 * truth
    for error, acceptable in ((0.99 * limit, True), (1.01 * limit, False)):
        for sign in (-1, 1):
            one = Comparison(metric, WEB, percent, truth + sign * error, exactly(truth))
            assert one.is_acceptable is acceptable


def test_worst_error_is_of_the_worst_backend() -> None:
    """The largest distance, whichever side is larger; None without any."""
    found = [
        Comparison("lifetime", WEB, 50, 0.1, exactly(0.2)),
        Comparison("lifetime", WEB, 50, 0.3, exactly(0.1)),
        Comparison("connect", WEB, 50, 0.9, exactly(0.1)),
        Comparison("lifetime", WEB, 95, 0.9, exactly(0.1)),
    ]
    assert math.isclose(worst_error(found, "lifetime", 50) or 0, 0.2)
    assert worst_error(found, "lifetime", 99) is None
    assert worst_error(found, "first_byte", 50) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0.000"),
        (0.0000844, "0.084"),
        (0.0009994, "0.999"),
        (0.0009996, "1.00"),
        (0.0041234, "4.12"),
        (0.009994, "9.99"),
        (0.009996, "10.0"),
        (0.0123, "12.3"),
        (0.09994, "99.9"),
        (0.09996, "100"),
        (0.38234, "382"),
        (1.5, "1500"),
    ],
)
def test_milliseconds_have_three_digits(seconds: float | None, text: str) -> None:
    """Three digits, also where rounding crosses a power of ten, and no more than three decimals."""
    assert milliseconds(seconds) == text


def test_backend_table_is_aligned() -> None:
    """All lines are as wide as the header; a backend without connections has dashes."""
    empty_row = row(target="[fd77::2]:80", measured=dict.fromkeys(METRICS))
    titles, header, full, empty = backend_table([row(), empty_row])
    assert len({len(titles), len(header), len(full), len(empty)}) == 1
    assert titles.split() == ["times", "in", "ms", "lifetime", "connect", "first", "byte"]
    for title in ("lifetime", "connect", "first byte"):
        end = titles.index(title) + len(title)
        assert header[:end].endswith("p99")
        assert header[end:].lstrip().startswith("p50") or end == len(header)
    assert full.split() == [
        "10.0.0.1:80",
        "7",
        "2",
        "1",
        "100",
        "300",
        "0.100",
        "0.300",
        "1.00",
        "3.00",
    ]
    assert " ".join(empty.split()) == "[fd77::2]:80 7 2 1 - - - - - -"


def test_comparison_table_has_both_ends_of_the_range() -> None:
    """They stand beside ours, and the error is the distance from the nearer one."""
    found = [Comparison("connect", WEB, 50, 0.004, Range(0.001, 0.002))]
    _, header, p50, *_, largest, _, _ = comparison_table(found, ("least", "most"))
    assert header.split() == ["backend", *["ours", "least", "most"] * 3]
    assert p50.split() == ["10.0.0.1:80", "p50", *"---", "4.00", "1.00", "2.00", *"---"]
    assert largest.split() == ["largest", "error", "p50", "-", "2.00", "-"]


def test_comparison_table_names_the_other_clock() -> None:
    """Ours and the other clock's stand side by side for each latency, the largest errors below."""
    found = [compared("lifetime", 95, 0.001), compared("first_byte", 95, 0.0001)]
    titles, header, p50, p95, p99, *largest = comparison_table(found, ("clients",))
    assert titles.split() == ["times", "in", "ms", "lifetime", "connect", "first", "byte"]
    assert header.split() == ["backend", *["ours", "clients"] * 3]
    assert p95.split() == ["10.0.0.1:80", "p95", "200", "199", "-", "-", "2.00", "1.90"]
    for line, name in ((p50, "p50"), (p99, "p99")):
        assert line.split() == ["10.0.0.1:80", name, *"-" * 6]
    assert [line.split() for line in largest] == [
        ["largest", "error", "p50", "-", "-", "-"],
        ["largest", "error", "p95", "1.00", "-", "0.100"],
        ["largest", "error", "p99", "-", "-", "-"],
    ]
    assert {len(line) for line in (titles, header, p50, p95, p99, *largest)} == {len(header)}


@pytest.fixture(autouse=True)
def _a_terminal_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment in which the tests run says nothing about the terminal."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


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


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("NO_COLOR", "1")])
def test_live_table_is_silent_where_a_terminal_is_to_be_plain(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that cannot move its cursor gets the final table only."""
    monkeypatch.setenv(name, value)
    terminal = Terminal()
    LiveTable(terminal).draw(["one"])
    assert terminal.getvalue() == ""


def test_tables_fit_into_79_columns_at_their_widest() -> None:
    """Long addresses and large counts of the demo still fit."""
    figures = {"p50": 0.0001, "p95": 0.0001, "p99": 0.00011, "mean": 0.1, "count": 99999}
    slow = {"p50": 9.999, "p95": 9.999, "p99": 9.999, "mean": 0.1, "count": 99999}
    widest = row(
        target=max((backend.target for backend in BACKENDS), key=len),
        closed=99999, resets=99999, open=9999,
        measured={"lifetime": slow, "connect": figures, "first_byte": figures},
    )  # fmt: skip
    found = [
        Comparison(metric, (widest.proxy, widest.target), percent, 0.0001, Range(0.00011, 0.9999))
        for metric in METRICS
        for percent in PERCENTILES
    ]
    lines = [*backend_table([widest]), *comparison_table(found, ("least", "most"))]
    assert max(map(len, lines)) <= 79


def test_live_table_is_silent_elsewhere() -> None:
    """A pipe or a file gets the final table only."""
    output = io.StringIO()
    LiveTable(output).draw(["one"])
    assert output.getvalue() == ""


def test_report_adds_up() -> None:
    """Nothing to complain about, and both outputs hold the figures."""
    assert report().problems() == []
    errors = {
        metric: {
            f"p{percent}_error_s": pytest.approx(0.000001 * number * percent)
            for percent in PERCENTILES
        }
        for number, metric in enumerate(METRICS, 1)
    }
    assert json.loads(report().as_json()) == {
        "source": "ebpf",
        "backends": [
            {
                "proxy": "web",
                "target": "10.0.0.1:80",
                **LIFETIME,
                "connect": CONNECT,
                "first_byte": FIRST_BYTE,
            }
        ],
        "events": EVENTS,
        "truth": {
            "connections": 7,
            **errors["lifetime"],
            "connect": errors["connect"],
            "first_byte": errors["first_byte"],
        },
    }
    _, _, comparison, accounting = report().as_text().split("\n\n")
    assert "connect by the clients' TCP" in comparison.splitlines()[-1]
    assert accounting.splitlines() == [
        "15 produced = 15 received + 0 dropped + 0 in ring",
        "15 received = 7 opened + 8 closed + 0 periodic + 0 malformed",
        "8 closed = 7 recorded + 0 unmatched + 0 rejected + 1 ignored",
        "7 connections ended. The loss accounting closes.",
    ]


def test_a_source_tells_what_failed_and_what_it_lost() -> None:
    """By cause and by reason, also where there is nothing."""
    told = {"failed_connects": {"refused": 0, "timed_out": 0}, "lost_by_source": {"full": 3}}
    found = report(**told)
    assert found.problems() == []
    assert json.loads(found.as_json()).items() >= told.items()
    assert found.as_text().splitlines()[-3:-1] == [
        "0 failed connects: 0 refused, 0 timed out",
        "3 lost by source: 3 full",
    ]


@pytest.mark.parametrize("counter", sorted(EVENTS))
def test_each_count_is_part_of_the_loss_accounting(counter: str) -> None:
    """One event too many of any kind opens a sum: it is said, and the text shows which."""
    found = report(events={**EVENTS, counter: EVENTS[counter] + 1})
    broken = [line.split()[1] for line in found.as_text().splitlines() if "≠" in line]
    assert broken
    assert "DOES NOT CLOSE" in found.as_text()
    for total in broken:
        assert any(f"{total} is not the sum of" in problem for problem in found.problems())


def without(metric: str) -> Row:
    """A row in which that latency was measured of one connection less."""
    return row(measured={**MEASURED, metric: {**MEASURED[metric], "count": 6}})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"events": {**EVENTS, "produced": 14}}, "loss accounting"),
        ({"rows": [without("lifetime")]}, "7 connections were recorded, the lifetime of 6"),
        ({"rows": [without("connect")]}, "7 connections were recorded, the connect of 6"),
        ({"rows": [without("first_byte")]}, "7 connections were recorded, the first byte of 6"),
        (
            {"rows": [row(), row(measured=dict.fromkeys(METRICS))], "lost": 1},
            "1 connections failed",
        ),
        (
            {"failed_connects": {"refused": 0, "timed_out": 2}},
            "2 connects to backends failed: timed out",
        ),
        ({"comparisons": []}, "no connection was measured"),
        (
            {"comparisons": [compared("lifetime", 99, 0.004)]},
            "lifetime p99 of web 10.0.0.1:80 is off by 4.000 ms",
        ),
        (
            {"comparisons": [compared("connect", 50, 0.0003)]},
            "connect p50 of web 10.0.0.1:80 is off by 0.300 ms",
        ),
        (
            {"comparisons": [compared("first_byte", 95, 0.0011)]},
            "first byte p95 of web 10.0.0.1:80 is off by 1.100 ms",
        ),
    ],
)
def test_report_says_what_does_not_add_up(changes: dict[str, Any], problem: str) -> None:
    """Each thing that can be wrong is named."""
    (found,) = report(**changes).problems()
    assert problem in found


@pytest.mark.parametrize(
    ("expected", "problems"),
    [
        (Expected(7, 3), ["web 10.0.0.1:80: 3 resets by its own count, 2 by ours"]),
        (Expected(7, 1), ["web 10.0.0.1:80: 1 resets by its own count, 2 by ours"]),
        (
            Expected(8, 2),
            [
                "8 connections ended, 7 were recorded",
                "web 10.0.0.1:80: 8 connections by its own count, 7 by ours",
            ],
        ),
    ],
)
def test_report_says_which_counts_are_wrong(expected: Expected, problems: list[str]) -> None:
    """Each backend's connections, and those among them that were reset, must be as many."""
    assert report(expected={WEB: expected}).problems() == problems


def test_a_connection_at_the_wrong_backend_is_said() -> None:
    """Even if there are as many in all."""
    other = ("web", "10.0.0.2:80")
    rows = [row(), row(target="10.0.0.2:80")]
    expected = {WEB: Expected(6, 2), other: Expected(8, 2)}
    events = {**EVENTS, "received": 29, "produced": 29, "opened": 14, "closed": 15, "recorded": 14}
    assert report(rows=rows, expected=expected, events=events).problems() == [
        "web 10.0.0.1:80: 6 connections by its own count, 7 by ours",
        "web 10.0.0.2:80: 8 connections by its own count, 7 by ours",
    ]


def test_report_of_dropped_events_still_closes() -> None:
    """Lost events are accounted for; what they cost is said."""
    events = {**EVENTS, "produced": 16, "dropped": 1}
    assert report(events=events).problems() == []


def test_unpack_endings_refuses_half_a_record() -> None:
    """A report that was cut off is no report."""
    record = struct.pack("=QBBqqdd", 9, 3, 2, 10, 20, 0.1, 0.2)
    assert unpack_endings(record) == [Ending(9, 3, 2, 10, 20, 0.1, 0.2)]
    with pytest.raises(ValueError, match="incomplete"):
        unpack_endings(record[:-1])


def test_unpack_served_refuses_half_a_record() -> None:
    """Likewise for the backends."""
    record = struct.pack("=QqdqqqB", 9, 10, 0.1, 20, 30, 40, 0)
    assert unpack_served(record) == [Served(9, 10, 0.1, 20, 30, 40, False)]
    with pytest.raises(ValueError, match="incomplete"):
        unpack_served(record[:-1])


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP socket that listens on the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_the_kernel_tells_how_long_the_handshake_took(listener: socket.socket) -> None:
    """It took some of the time that connect() did, and no more."""
    with socket.socket() as client:
        started = time.monotonic()
        client.connect(listener.getsockname())
        elapsed = time.monotonic() - started
        assert 0 < handshake_s(client) <= elapsed


def test_the_kernel_tells_when_something_arrived(listener: socket.socket) -> None:
    """The stamp is of the arrival, not of the reading: no later than when send() returned."""
    with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
        stamp_arrivals(client)

        def is_stamped() -> bool:
            before = time.time_ns()
            server.send(b"!")
            after = time.time_ns()
            received, arrived_ns = receive(client)
            assert received == b"!"
            assert before <= arrived_ns
            return arrived_ns <= after

        wait_until(is_stamped, "the kernel to stamp")


def test_what_the_kernel_did_not_stamp_arrives_now(listener: socket.socket) -> None:
    """Of a socket that did not ask, the time of the reading is given."""
    with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
        server.send(b"!")
        before = time.time_ns()
        received, arrived_ns = receive(client)
        assert received == b"!"
        assert before <= arrived_ns <= time.time_ns()


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
@pytest.mark.parametrize("way", ["haproxy", "nginx", "nft"])
def test_what_runs_elsewhere_is_not_simulated(
    way: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without privileges, there is one line."""
    monkeypatch.setattr("lblatency.demo.run.find_program", lambda name: name)
    assert run(way=way, duration=0.5) == 1
    assert capsys.readouterr() == (
        "",
        "lblatency: the demo failed: missing CAP_BPF, CAP_X; run as root to see the real thing\n",
    )


@pytest.mark.parametrize(
    ("way", "program", "packages"),
    [
        ("haproxy", "haproxy", "haproxy"),
        ("nginx", "nginx", "nginx libnginx-mod-stream"),
        ("nft", "nft", "nftables"),
    ],
)
def test_a_missing_program_is_one_line(
    way: str,
    program: str,
    packages: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has the packages, which are those that `make demo` installs."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("lblatency.demo.programs._ADMIN_PATH", "/nowhere")
    assert run(way=way, duration=0.5) == 1
    assert capsys.readouterr() == (
        "",
        f"lblatency: the demo failed: {program} is missing; apt-get install {packages}\n",
    )
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    assert f"APT_{way} := {packages}\n" in makefile


def test_nginx_without_its_module_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian has it in a package of its own."""
    monkeypatch.setattr("shutil.which", lambda name, *_: None if "stream" in name else name)
    assert run(way="nginx", duration=0.5) == 1
    assert "ngx_stream_module.so is missing; apt-get install nginx libnginx-mod-stream\n" in (
        capsys.readouterr().err
    )


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
    assert set(found["events"]) == set(LatencyTracker().event_counts())
    connections = found["truth"]["connections"]
    assert connections > 50
    assert found["events"]["produced"] == found["events"]["received"] == 2 * connections
    assert found["events"]["recorded"] == sum(one["count"] for one in found["backends"])
    assert 0 < found["truth"]["p50_error_s"] <= 0.0055 * 0.4
    for metric, longest in (("connect", 0.0003), ("first_byte", 0.0453)):
        assert sum(one[metric]["count"] for one in found["backends"]) == connections
        assert all(one[metric]["p99"] <= 1.0055 * longest for one in found["backends"])
        for percent in PERCENTILES:
            assert 0 < found["truth"][metric][f"p{percent}_error_s"] <= 0.0055 * longest + 1e-6
    assert "missing CAP_BPF, CAP_X" in notices
    assert "SIMULATED" in notices


@pytest.mark.usefixtures("no_privileges")
def test_simulated_run_prints_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json the final table, the comparison and the accounting, which agree."""
    assert run(duration=0.3) == 0
    heading, table, comparison, accounting = capsys.readouterr().out.split("\n\n")
    assert heading.startswith("SIMULATED")
    rows = [line.split() for line in table.splitlines()[2:]]
    names = [backend.target for backend in BACKENDS]
    assert [row[0] for row in rows] == names
    pairs = [line.split()[:2] for line in comparison.splitlines()[2:-4]]
    assert pairs == [[name, f"p{percent}"] for percent in PERCENTILES for name in names]
    assert comparison.splitlines()[-1].startswith("drawn: ")
    shown = "\n".join((heading, table, comparison, accounting))
    assert max(map(len, shown.splitlines())) <= 79
    ended = sum(int(row[1]) for row in rows)
    assert ended > 30
    assert accounting.splitlines() == [
        f"{2 * ended} produced = {2 * ended} received + 0 dropped + 0 in ring",
        f"{2 * ended} received = {ended} opened + {ended} closed + 0 periodic + 0 malformed",
        f"{ended} closed = {ended} recorded + 0 unmatched + 0 rejected + 0 ignored",
        f"{ended} connections ended. The loss accounting closes.",
    ]


@pytest.mark.usefixtures("no_privileges")
def test_a_taken_port_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A listen address that cannot be had ends the demo with exit code 1."""
    assert run(duration=0.1, json=True, listen=[Address("192.0.2.1", 1)]) == 1
    output, notices = capsys.readouterr()
    assert output == ""
    assert "the demo failed" in notices


@pytest.mark.usefixtures("no_privileges")
def test_metrics_may_be_on_ipv6(capsys: pytest.CaptureFixture[str]) -> None:
    """Its address is told in brackets."""
    assert run(duration=0.2, json=True, listen=[Address("::1", 0)]) == 0
    assert "metrics at http://[::1]:" in capsys.readouterr().err


def test_a_signal_ends_a_simulated_run_early() -> None:
    """SIGTERM stops opening connections; the result is still printed."""
    script = (
        "import sys, lblatency.demo.run as demo\n"
        "demo.missing_capabilities = lambda: ['CAP_BPF']\n"
        "sys.exit(demo.run(duration=3600, json=True))\n"
    )
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
        output, _ = process.communicate(timeout=120)
    assert process.returncode in (0, 1)  # 1: it may have been too early to measure anything
    assert json.loads(output)["source"] == "simulated"


def test_every_proxy_has_backends_of_its_address_family() -> None:
    """IPv6 clients reach IPv6 backends, and the shares of all proxies are the whole."""
    for backend in BACKENDS:
        assert (":" in backend.host) == (":" in backend.proxy.vip)
    assert {backend.proxy for backend in BACKENDS} == set(PROXIES)
    assert math.isclose(sum(proxy.share for proxy in PROXIES), 1)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.target)
def test_an_answer_comes_before_the_end(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even the latest answer comes before the earliest end, a reset if there are any."""

    def extreme(least: float, most: float, likely: float) -> float:
        assert least < likely < most
        return least if (least, most, likely) == backend.end_s else most

    monkeypatch.setattr("random.triangular", extreme)
    monkeypatch.setattr("random.random", lambda: 0.0)
    service = backend.draw()
    assert service.resets is (backend.reset_share > 0)
    assert 0 < service.answer_s < service.end_s
