"""`lblatency demo` for real: what it measures, how it ends, and that it leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.leftovers import Leftovers, nothing_left
from tests.support.rig import wait_until

pytestmark = pytest.mark.bpf

DEMO = [sys.executable, "-m", "lblatency", "demo", "--json"]


@pytest.fixture
def leftovers() -> Iterator[Leftovers]:
    """Fail if a program that is started with its `env` leaves something behind."""
    with nothing_left() as found:
        yield found


def start_demo(duration: float, leftovers: Leftovers) -> tuple[subprocess.Popen[str], str]:
    """Start a demo and wait until it measures; gives its process and the address of /metrics."""
    process = subprocess.Popen(
        [*DEMO, "--duration", str(duration)],
        env=leftovers.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "metrics at" in line:
            leftovers.look()
            return process, line.split()[-1]
    raise AssertionError(f"the demo ended with {process.wait()}")


def scrape(url: str) -> str:
    """The metrics as text."""
    with urllib.request.urlopen(url, timeout=5) as response:
        text: str = response.read().decode()
        return text


def assert_adds_up(found: dict[str, Any]) -> None:
    """Real events, all accounted for, and close to the clients' own clocks."""
    assert found["source"] == "ebpf"
    assert len(found["backends"]) >= 4
    assert all(one["count"] > 0 for one in found["backends"])
    events, truth = found["events"], found["truth"]
    assert events["produced"] == events["received"] + events["dropped"] + events["in_ring"]
    kinds = ("opened", "closed", "periodic", "malformed")
    assert events["received"] == sum(events[kind] for kind in kinds)
    outcomes = ("recorded", "unmatched", "rejected", "ignored")
    assert events["closed"] == sum(events[outcome] for outcome in outcomes)
    assert events["recorded"] == sum(one["count"] for one in found["backends"])
    assert events["recorded"] == truth["connections"]
    assert events["unmatched"] == events["rejected"] == events["dropped"] == 0
    assert_close(found["backends"], truth, {"p50": 0.002, "p95": 0.002, "p99": 0.002})
    for metric in ("connect", "first_byte"):
        measured = [one[metric] for one in found["backends"]]
        assert [one["count"] for one in measured] == [one["count"] for one in found["backends"]]
        assert_close(measured, truth[metric], {"p50": 0.0002, "p95": 0.001, "p99": 0.001})
    for one in found["backends"]:
        for name in ("p50", "p95", "p99", "mean"):
            assert 0 < one["connect"][name] < one["first_byte"][name] < one[name]


def assert_close(
    measured: list[dict[str, float]], errors: dict[str, float], allowed: dict[str, float]
) -> None:
    """The errors are within what the clocks' distance and the buckets' width allow."""
    for name, distance in allowed.items():
        slowest = max(one[name] for one in measured)
        assert errors[f"{name}_error_s"] <= distance + 0.0055 * slowest


def test_a_run_measures_what_the_clients_measured(leftovers: Leftovers) -> None:
    """Every connection is recorded, and the percentiles are those of the clients' clocks."""
    process, _ = start_demo(3, leftovers)
    with process:
        output, notices = process.communicate(timeout=60)
    assert process.returncode == 0, notices
    found = json.loads(output)
    assert_adds_up(found)
    assert found["truth"]["connections"] > 600


def test_metrics_are_served_while_it_runs_and_sigterm_ends_it(leftovers: Leftovers) -> None:
    """/metrics has the backends; SIGTERM ends the traffic, and the result is printed."""
    process, url = start_demo(60, leftovers)
    with process:
        count = "lb_backend_latency_seconds_count{"
        wait_until(lambda: scrape(url).count(count) == 4, "four backends")
        for metric in ("connect", "first_byte"):
            assert scrape(url).count(f"lb_backend_{metric}_seconds_count{{") == 4
        assert 'target_ip="fd77:4::2"' in scrape(url)
        process.send_signal(signal.SIGTERM)
        output, notices = process.communicate(timeout=30)
    assert process.returncode == 0, notices
    assert_adds_up(json.loads(output))


def test_kill_9_leaves_nothing_and_a_new_run_works(leftovers: Leftovers) -> None:
    """The kernel cleans up after a demo that cannot, and the next one is not in the way of it."""
    process, _ = start_demo(60, leftovers)
    with process:
        assert leftovers.found() >= {"prog", "map", "namespace", "process"}
        process.kill()
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    again, url = start_demo(2, leftovers)
    with again:
        assert "lb_backend_latency_seconds" in scrape(url)
        output, notices = again.communicate(timeout=30)
    assert again.returncode == 0, notices
    assert_adds_up(json.loads(output))
