"""`serve`, `tail` and `top --haproxy` beside a real HAProxy that knows nothing of it."""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.rig import wait_until
from tests.support.tmux import shell

pytestmark = pytest.mark.bpf

CONFIG = """
global
    stats socket {home}/admin.sock level operator
defaults
    mode tcp
    timeout client 20s
    timeout server 20s
    timeout connect 5s
frontend in
    bind unix@{home}/in.sock
    default_backend shop
backend shop
    server first {target}
"""


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A backend whose address no other test uses."""
    with socket.create_server(("127.88.9.1", 0)) as listening:
        yield listening


@pytest.fixture
def home(server: socket.socket) -> Iterator[Path]:
    """The folder of a running HAProxy, with its sockets."""
    target = "{}:{}".format(*server.getsockname())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "haproxy.cfg").write_text(CONFIG.format(home=path, target=target))
        with subprocess.Popen(
            ["haproxy", "-db", "-q", "-f", path / "haproxy.cfg"], stderr=subprocess.DEVNULL
        ) as process:
            try:
                for name in ("in.sock", "admin.sock"):
                    wait_until((path / name).exists, "HAProxy")
                yield path
            finally:
                process.kill()


def use(home: Path, server: socket.socket) -> None:
    """A connection through HAProxy, which the backend closes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(home / "in.sock"))
        client.sendall(b"question")
        end, _ = server.accept()
        with end:
            end.recv(100)
            end.sendall(b"answer")
        while client.recv(100):
            pass


@contextmanager
def running(
    command: str, home: Path, server: socket.socket, *more: str
) -> Iterator[subprocess.Popen[str]]:
    """Run a command for this HAProxy, and for no other one's backends."""
    rule = "{}:{}".format(*server.getsockname())
    with subprocess.Popen(
        [sys.executable, "-m", "lblatency", command, "--haproxy", str(home / "admin.sock"),
         "--backend", rule, *more],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.mark.parametrize(
    ("flags", "proxy"), [([], "haproxy"), (["--proxy", "edge"], "edge")], ids=["default", "named"]
)
def test_one_flag_measures_haproxy(
    home: Path, server: socket.socket, flags: list[str], proxy: str
) -> None:
    """Its connections have its name, its servers are joined to their addresses."""
    ip, port = server.getsockname()
    with running("serve", home, server, "--listen", "127.0.0.1:0", *flags) as process:
        assert process.stderr is not None
        found = re.search(r"metrics at (\S+)", process.stderr.readline())
        assert found
        taken = f"lblatency: takes connections of haproxy to {ip}:{port}\n"
        assert process.stderr.readline() == taken

        def metrics() -> str:
            with urllib.request.urlopen(found[1], timeout=10) as reply:
                return str(reply.read().decode())

        for _ in range(3):
            use(home, server)
        labels = f'proxy_name="{proxy}",target_ip="{ip}",target_port="{port}"'
        wait_until(
            lambda: f"lb_backend_latency_seconds_count{{{labels}}} 3.0\n" in metrics(),
            "three connections",
        )
        named = re.compile(rf'lb_backend_info{{.*server="first".*target_ip="{ip}".*}} 1\.0')
        wait_until(lambda: named.search(metrics()), "the name of the server")
        assert 'lblatency_failed_connects_total{cause="refused"} 0.0\n' in metrics()
        assert 'lblatency_events_lost_total{reason="births_full"} 0.0\n' in metrics()


def line_while_used(
    process: subprocess.Popen[str], home: Path, server: socket.socket
) -> dict[str, Any]:
    """The first line of JSON that a command prints while there are connections."""
    assert process.stdout is not None

    def keep_using() -> Iterator[None]:
        while True:
            use(home, server)
            yield

    users = keep_using()
    poll = select.poll()
    poll.register(process.stdout.fileno(), select.POLLIN)
    wait_until(lambda: next(users) or poll.poll(0), "a line")
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


def test_each_connection_is_a_line(home: Path, server: socket.socket) -> None:
    """With the times, the proxy and the server's name."""
    ip, port = server.getsockname()
    with running("tail", home, server, "--json") as process:
        assert process.stderr is not None
        assert "takes connections of haproxy" in process.stderr.readline()
        line = line_while_used(process, home, server)
    assert line["proxy"] == "haproxy"
    assert line["backend"] == f"{ip}:{port}"
    assert line["server"] == "shop/first"
    assert line["reason"] == "fin"
    assert 0 < line["connect_s"] <= line["first_byte_s"] < line["lifetime_s"] + 1e-6 < 20


def test_top_counts_what_goes_through(home: Path, server: socket.socket, tmp_path: Path) -> None:
    """As JSON and on a screen: the server's name, its latencies, and that nothing was lost."""
    target = "{}:{}".format(*server.getsockname())
    with running("top", home, server, "--json") as process:
        found = line_while_used(process, home, server)
    (row,) = found["backends"]
    assert (row["proxy"], row["target"], row["server"]) == ("haproxy", target, "shop/first")
    assert row["count"] > 0
    assert 0 < row["connect_p95"] <= row["first_byte_p95"] <= row["p99"] < 20
    command = f"{sys.executable} -m lblatency top --haproxy {home}/admin.sock --backend {target}"
    with shell(tmp_path, 160, 24) as tmux:
        tmux.type(command, "Enter")
        tmux.wait_for("arrows move")

        def is_counted() -> bool:
            use(home, server)
            return "shop/first" in tmux.screen()

        wait_until(is_counted, tmux.screen)
        assert "100 % of closed connections have a lifetime; 0 lost" in tmux.screen()
        tmux.type("q")
        wait_until(lambda: tmux.told("#{alternate_on}") == "0", "the shell")
