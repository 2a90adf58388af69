"""Names from the real HAProxy: slots, DNS, its runtime API, restarts, its socket gone."""

from __future__ import annotations

import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from lblatency import LatencyCollector, LatencyTracker
from lblatency.names import FileSd, HAProxy, Name, Names
from tests.support.rig import wait_until

CONFIG = """\
global
    stats socket {socket} level admin
defaults
    mode tcp
    timeout connect 1s
    timeout client 5s
    timeout server 5s
{rest}
"""
SERVERS = """\
backend a
    balance roundrobin
    server s1 127.0.0.11:9001
    server s2 127.0.0.12:9001
    server mapped [::ffff:10.88.2.11]:8000
    server six [2001:db8::1]:8000
    server same-port 127.0.0.13
    server unix /run/nowhere.sock
    server-template slot 2 nosuch.example:80 init-addr none
backend b
    source 127.0.0.21
    server other 127.0.0.11:9001
"""


class Balancer:
    """A HAProxy in the foreground, without a client."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "s"
        self._config = folder / "c"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, config: str) -> None:
        """Start it, and wait for its socket to answer."""
        self._config.write_text(CONFIG.format(socket=self.socket, rest=config))
        self._process = subprocess.Popen(
            ["haproxy", "-db", "-q", "-f", self._config], stderr=subprocess.DEVNULL
        )
        wait_until(self._answers, "HAProxy's socket")

    def _answers(self) -> bool:
        with suppress(OSError):
            return bool(self.tell("show version"))
        return False

    def stop(self) -> None:
        """Kill it, which leaves its socket behind."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def tell(self, command: str) -> str:
        """A command of the runtime API, and its answer."""
        with socket.socket(socket.AF_UNIX) as connected:
            connected.settimeout(10)
            connected.connect(str(self.socket))
            connected.sendall(command.encode() + b"\n")
            return connected.makefile().read()


@pytest.fixture
def haproxy() -> Iterator[Balancer]:
    """A HAProxy that a test starts."""
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        balancer = Balancer(Path(folder))
        try:
            yield balancer
        finally:
            balancer.stop()


@contextmanager
def names_of(haproxy: Balancer, *others: FileSd) -> Iterator[Names]:
    """Its names, read once."""
    with Names([HAProxy(str(haproxy.socket)), *others]) as names:
        names.refresh()
        yield names


def error_of(names: Names) -> str | None:
    """Why HAProxy's names are not fresh."""
    found: str | None = names.status()[0]["error"]
    return found


def test_all_servers_have_their_names(haproxy: Balancer) -> None:
    """Slots without an address have none yet; two servers of one address have a joint one."""
    haproxy.start(SERVERS)
    with names_of(haproxy) as names:
        assert error_of(names) is None
        assert names.find("127.0.0.12", 9001) == Name("a", "s2")
        assert names.find("10.88.2.11", 8000) == Name("a", "mapped")
        assert names.find("2001:db8::1", 8000) == Name("a", "six")
        assert names.find("127.0.0.13", 4321) == Name("a", "same-port")
        assert names.find("127.0.0.11", 9001) == Name("a|b", "a/s1|b/other")
        assert names.find("127.0.0.12", 9002) is None
        assert names.status()[0]["count"] == 6


def test_a_rule_tells_servers_of_one_address_apart(haproxy: Balancer, tmp_path: Path) -> None:
    """HAProxy does not tell its `source` lines; a file may."""
    haproxy.start(SERVERS)
    file = tmp_path / "names.json"
    file.write_text(
        '[{"targets": ["127.0.0.11:9001"],'
        ' "labels": {"backend": "b", "server": "other", "source": "127.0.0.21"}}]'
    )
    with names_of(haproxy, FileSd(str(file))) as names:
        assert names.find("127.0.0.11", 9001, "127.0.0.21") == Name("b", "other")
        assert names.find("127.0.0.11", 9001) == Name("a|b", "a/s1|b/other")


def test_an_address_is_changed_by_the_runtime_api(haproxy: Balancer) -> None:
    """The new address has the name from the next read on, the old one keeps it until it is reused.

    Connections of before have the name of then.
    """
    haproxy.start(SERVERS)
    with names_of(haproxy) as names:
        before = time.monotonic_ns()
        assert "IP changed" in haproxy.tell("set server a/s2 addr 127.0.0.15 port 9001")
        names.refresh()
        assert names.find("127.0.0.15", 9001) == Name("a", "s2")
        assert names.find("127.0.0.12", 9001) == Name("a", "s2")
        haproxy.tell("set server b/other addr 127.0.0.12 port 9001")
        names.refresh()
        assert names.find("127.0.0.12", 9001) == Name("b", "other")
        assert names.find("127.0.0.12", 9001, at_ns=before) == Name("a", "s2")
        assert names.find("127.0.0.11", 9001) == Name("a", "s1")
        assert names.find("127.0.0.11", 9001, at_ns=before) == Name("a|b", "a/s1|b/other")


def test_a_server_is_added_while_it_runs(haproxy: Balancer) -> None:
    """Its address is known from the next read on."""
    haproxy.start(SERVERS)
    with names_of(haproxy) as names:
        haproxy.tell("add server a/new 127.0.0.17:9001")
        assert names.find("127.0.0.17", 9001) is None
        names.refresh()
        assert names.find("127.0.0.17", 9001) == Name("a", "new")


def test_a_server_is_renamed_by_a_restart(haproxy: Balancer) -> None:
    """While HAProxy is away, all names stay, and the status says why they are old."""
    haproxy.start(SERVERS)
    with names_of(haproxy) as names:
        before = time.monotonic_ns()
        haproxy.stop()
        names.refresh()
        assert error_of(names) == f"{haproxy.socket}: no HAProxy answers there: Connection refused"
        assert names.find("127.0.0.12", 9001) == Name("a", "s2")
        haproxy.socket.unlink()
        names.refresh()
        assert "No such file or directory; `stats socket " in str(error_of(names))
        assert names.find("127.0.0.12", 9001) == Name("a", "s2")
        haproxy.start(SERVERS.replace("server s2", "server renamed"))
        names.refresh()
        assert error_of(names) is None
        assert names.find("127.0.0.12", 9001) == Name("a", "renamed")
        assert names.find("127.0.0.12", 9001, at_ns=before) == Name("a", "s2")


class Resolver:
    """A DNS server that has one address for every name."""

    def __init__(self) -> None:
        self.address = "127.0.0.13"
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            question, asker = self._socket.recvfrom(4096)
            if not question:
                return
            end = question.index(b"\0", 12) + 5  # of the name, its type and its class
            answer = struct.pack("!HHHIH4s", 0xC00C, 1, 1, 1, 4, socket.inet_aton(self.address))
            is_a = question[end - 3] == 1
            head = question[:2] + struct.pack("!HHHHH", 0x8180, 1, is_a, 0, 0)
            self._socket.sendto(head + question[12:end] + answer * is_a, asker)

    def close(self) -> None:
        """End it."""
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()


DNS = """\
resolvers r
    nameserver n 127.0.0.1:{port}
    hold valid 100ms
    timeout resolve 100ms
    accepted_payload_size 512
backend d
    server-template t 2 app.example:80 init-addr none resolvers r resolve-prefer ipv4
"""


def test_dns_fills_and_moves_a_slot(haproxy: Balancer) -> None:
    """A slot has a name once it has an address; its next address has the same name."""
    resolver = Resolver()
    try:
        haproxy.start(DNS.format(port=resolver.port))
        with names_of(haproxy) as names:

            def named(ip: str) -> Name | None:
                names.refresh()
                return names.find(ip, 80)

            assert wait_until(lambda: named("127.0.0.13"), "the first address") == Name("d", "t1")
            resolver.address = "127.0.0.15"
            assert wait_until(lambda: named("127.0.0.15"), "the next address") == Name("d", "t1")
            assert names.find("127.0.0.13", 80) == Name("d", "t1")
            assert names.status()[0]["count"] == 1
    finally:
        resolver.close()


def test_the_names_are_exported(haproxy: Balancer) -> None:
    """A series per backend that has a name; a name that changes moves to a new series."""
    haproxy.start(SERVERS)
    tracker = LatencyTracker()
    for target in ("127.0.0.11:9001", "127.0.0.12:9001", "9.9.9.9:9"):
        tracker.record_latency("haproxy", target, 1)
    registry = CollectorRegistry()
    with names_of(haproxy) as names:
        registry.register(LatencyCollector(tracker, names=names))

        def exported() -> set[tuple[str, ...]]:
            return {
                tuple(sample.labels.values())
                for family in registry.collect()
                for sample in family.samples
                if sample.name == "lb_backend_info"
            }

        both = ("haproxy", "127.0.0.11", "9001", "a|b", "a/s1|b/other")
        assert exported() == {both, ("haproxy", "127.0.0.12", "9001", "a", "s2")}
        haproxy.tell("set server b/other addr 127.0.0.12 port 9001")
        names.refresh()
        assert exported() == {
            ("haproxy", "127.0.0.11", "9001", "a", "s1"),
            ("haproxy", "127.0.0.12", "9001", "a|b", "a/s2|b/other"),
        }
