"""The socket source: connections of this process, with the clocks of both ends."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING

import pytest

from lblatency import LatencyTracker
from lblatency._address import format_target
from lblatency._ffi import lib
from lblatency.sources import Sockets
from tests.support import bpf
from tests.support.netns import Namespace
from tests.support.rig import assert_accounted, wait_until
from tests.support.sockets import (
    FAMILIES,
    Connection,
    Seen,
    created_ns,
    first_byte_ns,
    named_process,
    reset,
    watch,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lblatency.stats import Event

pytestmark = pytest.mark.bpf

each_family = pytest.mark.parametrize("kind", FAMILIES)
_TCP_USER_TIMEOUT = 18


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    """A network namespace of our own, since the source sees all of them."""
    made = Namespace()
    yield made
    made.close()


@pytest.fixture
def process(namespace: Namespace) -> Iterator[str]:
    """The name of this process, which is in a namespace of its own."""
    with namespace.inside(), named_process() as name:
        yield name


@pytest.fixture
def seen(process: str) -> Iterator[Seen]:
    """The source, with connections of this process only."""
    with watch(comms=[f"{process}=edge"]) as made:
        yield made


def assert_like(event: Event, made: Connection, reason: str, ended_ns: int) -> None:
    """Compare an event with the clocks of the connection, whose end began at `ended_ns`."""
    assert (event.target, event.reason, event.probe) == (made.target, reason, False)
    assert made.before_ns <= created_ns(event) <= made.connected_ns
    assert ended_ns <= event.timestamp_ns <= monotonic_ns()
    assert event.connect_us is not None
    assert 0 < event.connect_us <= (made.connected_ns - made.before_ns) // 1000 + 1
    assert event.protocol == 6


@each_family
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("client closes", "fin"),
        ("server closes", "fin"),
        ("client resets", "rst"),
        ("server resets", "rst"),
        ("client closes with data unread", "rst"),
    ],
)
def test_a_connection_is_seen_once_however_it_ends(
    seen: Seen, kind: str, how: str, reason: str
) -> None:
    """Each end gives one event with the right backend, reason and times."""
    with Connection(kind) as made:
        made.exchange()
        began = monotonic_ns()
        if how == "client closes":
            made.close()
        elif how == "server closes":
            made.server.close()
            assert made.client.recv(1) == b""
            began = monotonic_ns()
            made.client.close()
        elif how == "client resets":
            reset(made.client)
        elif how == "server resets":
            reset(made.server)
        else:
            made.server.sendall(b"more")
            wait_until(lambda: made.client.recv(4, socket.MSG_PEEK) == b"more", "unread data")
            made.client.close()
        event = seen.only()
        assert_like(event, made, reason, began)
    assert made.answered_ns - 1000 <= first_byte_ns(event) <= made.read_ns
    assert seen.source.stream.proxies == {event.proxy_id: "edge"}


@each_family
@pytest.mark.parametrize("who", ["client", "server"])
def test_a_half_closed_connection_lives_on(seen: Seen, kind: str, who: str) -> None:
    """A half-close begins the closing time; the end is when the other side has closed, too."""
    with Connection(kind) as made:
        made.ask()
        first, last = (made.client, made.server)[:: 1 if who == "client" else -1]
        half_ns = monotonic_ns()
        first.shutdown(socket.SHUT_WR)
        assert last.recv(1) == b""
        while monotonic_ns() < half_ns + 20_000_000:  # the time that the rest takes
            last.sendall(b"!")
            assert first.recv(1) == b"!"
        began = monotonic_ns()
        last.shutdown(socket.SHUT_WR)
        assert first.recv(1) == b""
        event = seen.only()
        assert_like(event, made, "fin", began)
        assert event.closing_us is not None
        assert (began - half_ns) // 1000 <= event.closing_us <= (monotonic_ns() - half_ns) // 1000


@pytest.mark.parametrize("answer", [b"!", b"an answer"])
def test_an_answer_that_comes_with_the_fin_is_a_first_byte(seen: Seen, answer: bytes) -> None:
    """The first payload may come in the segment that ends the connection."""
    with Connection() as made:
        made.ask()
        made.client.shutdown(socket.SHUT_WR)
        assert made.server.recv(1) == b""
        sent_ns = monotonic_ns()
        made.server.send(answer, socket.MSG_MORE)
        made.server.close()
        assert made.client.recv(16) == answer
        event = seen.only()
        assert first_byte_ns(event) >= sent_ns - 1000
        assert event.reason == "fin"


@pytest.mark.parametrize("who", ["client", "server"])
def test_a_fin_is_no_first_byte(seen: Seen, who: str) -> None:
    """A connection that is closed without an answer has no first byte, though it had a FIN."""
    with Connection() as made:
        made.ask()
        if who == "server":
            made.server.close()
            assert made.client.recv(1) == b""
        made.close()
        event = seen.only()
    assert (event.first_byte_us, event.reason, event.probe) == (math.inf, "fin", False)


def test_a_probe_is_told_from_a_connection_without_an_answer(seen: Seen) -> None:
    """A probe has no payload and ends by our reset; who has sent something is none."""
    for asks in (False, True):
        with Connection() as made:
            if asks:
                made.ask()
            reset(made.client)
    probe, asked = seen.closed(2)
    assert (probe.probe, probe.reason, probe.first_byte_us) == (True, "rst", math.inf)
    assert (asked.probe, asked.reason, asked.first_byte_us) == (False, "rst", math.inf)


# ---- failed connects ----


@pytest.fixture
def firewall(namespace: Namespace) -> Iterator[None]:
    """Rules that swallow what is sent to 127.0.0.2, and call 127.0.0.3 unreachable."""
    namespace.run(
        "nft -f -",
        stdin="""table ip away { chain out {
            type filter hook output priority 0
            ip daddr 127.0.0.2 drop
            ip daddr 127.0.0.3 reject with icmp host-unreachable
        }; }""",
    )
    yield
    namespace.run("nft delete table ip away")


def failing(seen: Seen, cause: str, target: str) -> Event:
    """The event of the only failed connect, which has this cause."""
    event = seen.only()
    assert (event.reason, event.target, event.probe) == ("connect_failed", target, False)
    counts = dict(seen.source.failed_connects())
    assert counts.pop(cause) == 1
    assert set(counts.values()) == {0}
    return event


@each_family
def test_a_refused_connect_is_no_connection(seen: Seen, kind: str) -> None:
    """A refused connect is reported as failed, with its cause."""
    family, address, server = FAMILIES[kind]
    with socket.socket(family) as client, pytest.raises(ConnectionRefusedError):
        client.connect((address, 9))
    failing(seen, "refused", f"[{server}]:9" if ":" in server else f"{server}:9")


@pytest.mark.usefixtures("firewall")
def test_a_connect_that_times_out(seen: Seen) -> None:
    """The kernel gives up: the elapsed time is in the event."""
    with socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, 500)
        with pytest.raises(TimeoutError):
            client.connect(("127.0.0.2", 80))
    event = failing(seen, "timed_out", "127.0.0.2:80")
    assert event.timestamp_ns - created_ns(event) >= 500_000_000


@pytest.mark.usefixtures("firewall")
def test_a_connect_that_is_given_up(seen: Seen) -> None:
    """The process closes the socket before there is an answer."""
    with socket.socket() as client:
        client.setblocking(False)
        assert client.connect_ex(("127.0.0.2", 80)) == errno.EINPROGRESS
    failing(seen, "given_up", "127.0.0.2:80")


@pytest.mark.usefixtures("firewall")
def test_an_unreachable_backend(seen: Seen) -> None:
    """A router says that there is no such host."""
    with socket.socket() as client, pytest.raises(OSError, match="No route to host"):
        client.connect(("127.0.0.3", 80))
    failing(seen, "unreachable", "127.0.0.3:80")


def test_no_free_local_port(seen: Seen) -> None:
    """A proxy that has used up its ports is told from one that gave up."""
    ports = Path("/proc/sys/net/ipv4/ip_local_port_range")  # of this thread's namespace
    before = ports.read_text()
    with contextlib.ExitStack() as stack, Connection() as made:
        stack.callback(ports.write_text, before)
        used = made.client.getsockname()[1]
        ports.write_text(f"{used} {used}")
        with socket.socket() as client, pytest.raises(OSError, match="Cannot assign"):
            client.connect(made.server.getsockname())
    wait_until(lambda: len(seen.opened()) == 2, "both opened")
    assert sorted(event.reason for event in seen.closed(2)) == ["connect_failed", "fin"]
    assert seen.source.failed_connects()["no_port"] == 1


# ---- which connections are taken ----


def test_other_processes_and_accepted_sockets_are_left_alone(process: str) -> None:
    """Neither another process's connections nor a taken process's accepted ones are reported."""
    with watch(comms=[process + "x", "x"]) as none:
        with Connection() as made:
            made.exchange()
        assert not none.poll()
    with watch(comms=[process]) as own:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            code = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])))"
            port = str(listener.getsockname()[1])
            other = subprocess.Popen([sys.executable, "-c", code, port])
            accepted, _ = listener.accept()
            assert accepted.recv(1) == b""
            accepted.close()
            assert other.wait() == 0
        with Connection():
            pass
        own.only()


def test_a_thread_has_its_process_s_name(seen: Seen) -> None:
    """What a thread calls itself does not matter."""

    def connect() -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("wrk:worker_0")
        with Connection() as made:
            made.exchange()

    with ns_thread(connect):
        pass
    seen.only()


@contextlib.contextmanager
def ns_thread(target: object) -> Iterator[None]:
    """Run a function in a thread."""
    thread = threading.Thread(target=target)  # type: ignore[arg-type]
    thread.start()
    yield
    thread.join(20)


BACKEND_RULES = [
    "127.0.0.0/8:1-65535=all",
    "127.0.0.0/24:5000-5999=wide",
    "127.0.0.0/24:5500=narrow",
    "127.0.0.1:5501=host",
    "[::]/0:5000-5999=six",
]


@pytest.mark.parametrize(
    ("address", "port", "proxy"),
    [
        ("127.9.9.9", 1, "all"),
        ("127.0.0.1", 4999, "all"),
        ("127.0.0.1", 5000, "wide"),
        ("127.0.0.1", 5999, "wide"),
        ("127.0.0.1", 6000, "all"),
        ("127.0.0.1", 5500, "narrow"),
        ("127.0.0.1", 5501, "host"),
        ("127.0.0.2", 5501, "wide"),
        ("::1", 5000, "six"),
        ("::1", 4999, None),
        ("::ffff:127.0.0.1", 5500, "narrow"),
    ],
)
def test_the_most_specific_rule_names_the_proxy(
    process: str, address: str, port: int, proxy: str | None
) -> None:
    """Prefixes and ranges of ports are exact, and the narrowest counts; ::/0 is no IPv4."""
    with watch(comms=[f"{process}=process"], backends=BACKEND_RULES) as seen:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
            client.connect_ex((address, port))
        found = [seen.source.stream.proxies[event.proxy_id] for event in seen.poll()]
    assert found == ([] if proxy is None else [proxy, proxy])


def test_a_rule_without_a_proxy_leaves_the_process_s(process: str) -> None:
    """A backend's rule narrows; the proxy is the process's, or the stream's own."""
    for comm, expected in ((f"{process}=p", "p"), (process, None)):
        with watch(comms=[comm], backends=["127.0.0.1:9"]) as seen:
            for port in (9, 10):
                with socket.socket() as client:
                    client.connect_ex(("127.0.0.1", port))
            event = seen.only()
        assert event.target == "127.0.0.1:9"
        assert seen.source.stream.proxies.get(event.proxy_id) == expected


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup with one below it, which this process is in."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    roots = [mount[1] for mount in mounts if mount[2] == "cgroup2"]
    if not roots:
        pytest.skip("no cgroup2 file system is mounted")
    (ours,) = [
        line[3:]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.startswith("0::")
    ]
    home, outer = Path(roots[0] + ours), Path(roots[0]) / f"lbl-{os.getpid()}"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    try:
        (inner / "cgroup.procs").write_text(str(os.getpid()))
        yield outer
    finally:
        (home / "cgroup.procs").write_text(str(os.getpid()))
        inner.rmdir()
        outer.rmdir()


@pytest.mark.usefixtures("process")
def test_a_cgroup_includes_those_below(cgroup: Path) -> None:
    """A rule for a cgroup takes processes in it and below, and the nearest names the proxy."""
    rules = [f"{cgroup}=outer", f"{cgroup / 'inner'}=inner"]
    for given, expected in ((rules[:1], "outer"), (rules, "inner"), (rules[::-1], "inner")):
        with Connection() as older, watch(cgroups=given) as seen, Connection() as made:
            made.close()
            older.close()
            names = {seen.source.stream.proxies[event.proxy_id] for event in seen.closed(2)}
            assert names == {expected}
    other = cgroup / "empty"
    other.mkdir()
    try:
        with watch(cgroups=[str(other)]) as none:
            with Connection():
                pass
            assert not none.poll()
    finally:
        other.rmdir()


# ---- connections older than the source, sockets that connect again, bursts ----


@each_family
def test_connections_older_than_the_source_are_open_and_end_unmatched(
    process: str, kind: str
) -> None:
    """They count as open, once, and their ends have no lifetime."""
    with Connection(kind) as older, contextlib.ExitStack() as stack:
        older.exchange()
        copies = [stack.enter_context(older.client.dup()) for _ in range(3)]
        with Sockets(comms=[process]) as source:
            tracker = LatencyTracker()
            tracker.start(source.stream, None, "edge")
            assert source.status()["open_at_start"] == 1
            with Connection(kind) as younger:
                younger.exchange()
            for copy in copies:
                copy.close()
            older.exchange()
            source.stream.drain()
            assert open_of(tracker) == {older.target: 1, younger.target: 0}
            older.close()
            wait_until(lambda: not any(open_of(tracker).values()), "the end of the older one")
            counts = assert_accounted(tracker)
            tracker.stop()
            assert (counts["opened"], counts["recorded"], counts["unmatched"]) == (2, 1, 1)


def open_of(tracker: LatencyTracker) -> dict[str, int]:
    """How many connections of each backend are open."""
    return {format_target(each.ip, each.port): each.open for each in tracker.backends()}


def test_a_socket_that_connects_again_has_two_connections(seen: Seen) -> None:
    """Neither the socket nor what is stored at it names a connection."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Connection() as made, socket.create_server(("127.0.0.1", 0)) as again:
        made.exchange()
        unspecified = struct.pack("=H14x", socket.AF_UNSPEC)
        assert libc.connect(made.client.fileno(), unspecified, len(unspecified)) == 0
        target = "{}:{}".format(*again.getsockname())
        made.client.connect(again.getsockname())
        made.client.close()
        first, second = seen.closed(2)
    assert (first.target, first.reason) == (made.target, "rst")
    assert second.target == target
    assert created_ns(second) >= first.timestamp_ns
    assert second.first_byte_us == math.inf


def test_a_burst_of_short_connections_is_counted_exactly(seen: Seen) -> None:
    """Short connections, as fast as they can be made, each give their two events."""
    count = 3000
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        address = listener.getsockname()

        def accept() -> None:
            for _ in range(count):
                accepted, _ = listener.accept()
                accepted.close()

        with ns_thread(accept):
            for _ in range(count):
                with socket.create_connection(address) as client:
                    assert client.recv(1) == b""
    assert len(seen.closed(count)) == len(seen.opened()) == count
    created = [event.created_ns for event in seen.closed(count)]
    assert len(set(created)) == count
    assert {event.reason for event in seen.closed(count)} == {"fin"}
    assert len({event.backend_id for event in seen.poll()} - {0}) == 1


def test_what_the_first_program_misses_the_second_sees(seen: Seen) -> None:
    """With the first program gone after SYN_SENT, handshake and end are still reported."""
    with Connection() as made:
        made.exchange()
        lib.lbl_sockets_detach(seen.source._sockets, lib.LBL_SOCKETS_STATE)
        began = monotonic_ns()
        reset(made.client)
        assert_like(seen.only(), made, "rst", began)
    assert seen.source.status()["caught"] == 1


@each_family
def test_an_end_that_no_program_sees_is_reported_late(process: str, kind: str) -> None:
    """Of two that are open when the programs run no more, the one that ends is closed, once."""
    with (
        Connection(kind) as older,
        Sockets(comms=[process]) as source,
        LatencyTracker() as tracker,
        Connection(kind) as made,
        Connection(kind) as other,
    ):
        tracker.start(source.stream, None, "edge")
        other.exchange()
        for program in (lib.LBL_SOCKETS_STATE, lib.LBL_SOCKETS_STATE_AGAIN):
            lib.lbl_sockets_detach(source._sockets, program)
        for n, unseen in enumerate((older, made), 1):
            reset(unseen.client)
            wait_until(lambda: look(source) == n, "the end that was not seen")  # noqa: B023
        source.stream.drain()
        assert open_of(tracker) == {older.target: 0, made.target: 0, other.target: 1}
        counts = assert_accounted(tracker)
        assert (counts["opened"], counts["unmatched"], counts["recorded"]) == (3, 2, 0)
        closed = {format_target(row.ip, row.port): dict(row.closed) for row in tracker.backends()}
        assert [closed[end.target]["unknown"] for end in (older, made, other)] == [1, 1, 0]


def test_a_connection_whose_socket_connects_again_unseen_is_closed_then(process: str) -> None:
    """Nobody saw the end of the first, and its socket is not gone: the second tells."""
    unspecified = struct.pack("=H14x", socket.AF_UNSPEC)
    states = (lib.LBL_SOCKETS_STATE, lib.LBL_SOCKETS_STATE_AGAIN)
    with Sockets(comms=[process]) as source, LatencyTracker() as tracker, Connection() as made:
        tracker.start(source.stream, None, "edge")
        for program in states:
            lib.lbl_sockets_detach(source._sockets, program)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.connect(made.client.fileno(), unspecified, len(unspecified)) == 0
        links = [bpf.attach(lib.lbl_sockets_program_fd(source._sockets, each)) for each in states]
        with socket.create_server(("127.0.0.1", 0)) as again:
            made.client.connect(again.getsockname())
            second = format_target(*again.getsockname())
            source.stream.drain()
            assert open_of(tracker) == {made.target: 0, second: 1}
        assert source.lost()["overwritten"] == 1
        counts = assert_accounted(tracker)
        assert (counts["opened"], counts["unmatched"], counts["recorded"]) == (2, 1, 0)
        for link in links:
            os.close(link)


def look(source: Sockets) -> int:
    """Let the source look for ends that were not seen; returns how many it has found in all."""
    source.tick()
    return source.lost()["unseen_ends"]


def test_the_first_byte_on_older_kernels_is_when_it_is_read(process: str) -> None:
    """Without the tracepoint of 6.3, the first byte is the first read."""
    with watch(comms=[process], _by_read=True) as seen, Connection() as made:
        made.ask()
        made.server.sendall(b"!")
        assert select.select([made.client], [], [], 10)[0]
        before_ns = monotonic_ns()
        assert made.client.recv(1) == b"!"
        after_ns = monotonic_ns()
        made.close()
        event = seen.only()
        assert before_ns - 1000 <= first_byte_ns(event) <= after_ns


# ---- opening and closing ----


def test_it_says_what_it_takes(cgroup: Path) -> None:
    """The known proxies by name, or what the rules say; of many rules, the first."""
    many = [f"10.0.0.{n}:80" for n in range(20)]
    rules: list[tuple[dict[str, list[str]], str]] = [
        ({}, "connections of haproxy, nginx, envoy, traefik, caddy, varnishd, squid, pen"),
        ({"comms": ["traefik=edge"]}, "connections of traefik"),
        (
            {"cgroups": [str(cgroup)], "backends": ["[fd00::]/64:80=web"]},
            f"connections of {cgroup} to [fd00::]/64:80",
        ),
        (
            {"backends": many},
            "connections of any process to "
            + ", ".join(f"10.0.0.{n}:80" for n in range(8))
            + " and 12 more",
        ),
    ]
    for given, expected in rules:
        with Sockets(**given) as source:  # type: ignore[arg-type]
            assert source.takes() == expected


def test_bpf_and_perfmon_are_all_it_needs() -> None:
    """A process with these two capabilities alone can do it; with one of them, it is told why."""
    code = "from lblatency.sources import Sockets; Sockets().close()"
    for kept, works in (("+bpf,+perfmon", True), ("+bpf", False), ("+perfmon", False)):
        done = subprocess.run(
            ["setpriv", f"--bounding-set=-all,{kept}", sys.executable, "-c", code],
            capture_output=True,
            text=True,
        )
        assert (done.returncode == 0) == works, done.stderr
        assert works or "needs CAP_BPF and CAP_PERFMON" in done.stderr


def test_a_closed_source_sees_nothing(process: str) -> None:
    """After close(), the programs are gone, and the source says that it is closed."""
    source = Sockets(comms=[process])
    source.close()
    source.close()
    with pytest.raises(ValueError, match="closed"):
        source.status()


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"comms": ["=x"]}, "it has no name"),
        ({"cgroups": ["/nowhere"]}, "'/nowhere' is no directory of a cgroup"),
        ({"cgroups": ["/proc"]}, "'/proc' is no directory of a cgroup"),
        ({"comms": [f"p{n}" for n in range(257)]}, "257 rules for processes"),
        ({"backends": [f"10.0.0.1:{n}" for n in range(1, 40)]}, "39 rules are for 10.0.0.1/32"),
    ],
)
def test_impossible_rules_are_refused(rules: dict[str, list[str]], sentence: str) -> None:
    """Each gives one line that says what is wrong."""
    with pytest.raises(ValueError, match=sentence) as error:
        Sockets(**rules)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
