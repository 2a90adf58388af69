"""`lblatency demo --with` the real thing: counts, clocks, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.leftovers import Leftovers, nothing_left
from tests.support.rig import wait_until

pytestmark = pytest.mark.bpf

WAYS = ("haproxy", "nginx", "nft")
each_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture
def leftovers(tmp_path: Path) -> Iterator[Leftovers]:
    """Fail if a program that is started with its `env` leaves something behind, also files."""
    with nothing_left() as found:
        found.env["TMPDIR"] = str(tmp_path)
        yield found
    assert list(tmp_path.iterdir()) == []


def start_demo(way: str, duration: float, leftovers: Leftovers) -> subprocess.Popen[str]:
    """Start a demo and wait until it measures."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "lblatency", "demo", "--json"),
            *("--with", way, "--duration", str(duration)),
        ],
        env=leftovers.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "Ctrl-C" in line:
            leftovers.look()
            return process
    raise AssertionError(f"the demo ended with {process.wait()}")


def children(parent: int) -> list[int]:
    """The processes that a demo has started: its clients, its backends and its balancer."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def balancers(parent: int) -> dict[str, int]:
    """The children that are no Python, by the name of their program."""
    programs = {Path(f"/proc/{child}/exe").resolve().name: child for child in children(parent)}
    return {name: pid for name, pid in programs.items() if not name.startswith("python")}


def traffic_of(parent: int) -> int:
    """How many TCP connections the workers of a demo have opened or accepted."""
    found = 0
    for child in children(parent):
        names, values = [
            line.split()[1:]
            for line in Path(f"/proc/{child}/net/snmp").read_text().splitlines()
            if line.startswith("Tcp:")
        ]
        found += int(dict(zip(names, values, strict=True))["PassiveOpens"])
    return found


def assert_agrees(way: str, process: subprocess.Popen[str]) -> int:
    """Wait for a demo's end: every connection is counted; returns how many there were."""
    output, notices = process.communicate(timeout=60)
    assert process.returncode == 0, notices
    found = json.loads(output)
    assert found["source"] == way
    assert all(one["count"] > 0 for one in found["backends"])
    events, connections = found["events"], int(found["truth"]["connections"])
    assert sum(one["count"] for one in found["backends"]) == connections
    expected = {"opened": connections, "closed": connections, "recorded": connections}
    assert events == dict.fromkeys(events, 0) | expected | {
        "produced": 2 * connections,
        "received": 2 * connections,
    }
    assert found["failed_connects"]
    assert not any(found["failed_connects"].values())
    assert found["lost_by_source"]
    return connections


@each_way
def test_every_connection_is_counted_and_agrees_with_both_ends(
    way: str, leftovers: Leftovers
) -> None:
    """The exit code says that counts are exact and latencies within what both clocks allow."""
    with start_demo(way, 3, leftovers) as process:
        assert list(balancers(process.pid)) == ([] if way == "nft" else [way])
        assert leftovers.found() >= {"prog", "map", "namespace", "process"}
        assert assert_agrees(way, process) > 600


@each_way
def test_ctrl_c_ends_it_in_order(way: str, leftovers: Leftovers) -> None:
    """A terminal signals the whole group: the balancer goes on until all have ended."""
    with start_demo(way, 60, leftovers) as process:
        wait_until(lambda: traffic_of(process.pid) > 50, "connections")
        os.killpg(process.pid, signal.SIGINT)
        assert_agrees(way, process)


@pytest.mark.parametrize("program", ["haproxy", "nginx"])
def test_ctrl_c_before_the_balancer_runs_does_not_end_it(
    program: str, leftovers: Leftovers
) -> None:
    """What a terminal has sent to the worker is not left for the program that it becomes."""
    command = [sys.executable, "-m", "lblatency", "demo", "--with", program, "--json"]
    with subprocess.Popen(
        command, env=leftovers.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        wait_until(lambda: children(process.pid), "a worker")
        leftovers.look()
        os.killpg(process.pid, signal.SIGINT)
        output, notices = process.communicate(timeout=60)
    assert "did not start" not in notices
    assert json.loads(output)["source"] == program


@each_way
def test_kill_9_leaves_nothing(way: str, leftovers: Leftovers) -> None:
    """The kernel ends the balancer with the demo, and there is no file to be left."""
    with start_demo(way, 60, leftovers) as process:
        process.kill()
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("program", ["haproxy", "nginx"])
def test_a_balancer_that_does_not_start_is_one_line(
    program: str, leftovers: Leftovers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It has the program's own last word."""
    path = tmp_path_factory.mktemp("bin")
    (path / program).write_text("#!/bin/sh\necho first\necho 'cannot: it is broken' >&2\nexit 1\n")
    (path / program).chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "lblatency", "demo", "--with", program],
        env=leftovers.env | {"PATH": f"{path}:{leftovers.env['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"lblatency: the demo failed: {program} did not start: cannot: it is broken\n"
    )


@pytest.mark.parametrize("program", ["haproxy", "nginx"])
def test_a_balancer_that_ends_is_one_line(program: str, leftovers: Leftovers) -> None:
    """The demo does not wait for connections that cannot come."""
    with start_demo(program, 60, leftovers) as process:
        os.kill(balancers(process.pid)[program], signal.SIGKILL)
        output, notices = process.communicate(timeout=30)
    assert process.returncode == 1
    assert output == ""
    assert notices == "lblatency: the demo failed: the balancer has ended: without a word\n"


def test_two_demos_at_once_do_not_count_each_other(leftovers: Leftovers) -> None:
    """They have the same addresses, but not the same balancer."""
    with start_demo("haproxy", 3, leftovers) as one, start_demo("haproxy", 3, leftovers) as other:
        assert_agrees("haproxy", one)
        assert_agrees("haproxy", other)
