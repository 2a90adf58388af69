"""The flows source on a NAT box with real connections, against the clocks of both their ends."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.flows import Followed, following
from tests.support.nat import PORT, SERVICE, WAYS, dropping, end_without_time_wait, rejecting
from tests.support.netns import BACKENDS, FAMILY, VIP, Topology
from tests.support.rig import wait_until
from tests.support.timed import Span, Timed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lblatency.stats import Event

pytestmark = pytest.mark.bpf

both = pytest.mark.parametrize("version", [4, 6])
BURST = 5_000


@pytest.fixture(scope="module", params=WAYS)
def nat(request: pytest.FixtureRequest) -> Iterator[Topology]:
    """A topology whose balancer shares out what comes to the VIP between two backends.

    It is ours alone: what other tests have left in TIME_WAIT would answer.
    """
    with Topology() as topology:
        end_without_time_wait(topology)
        with WAYS[request.param](topology):
            yield topology


@pytest.fixture
def followed(nat: Topology) -> Iterator[Followed]:
    """A source at the interface that faces the backends."""
    with following("b1", netns=nat.balancer, half_open_s=0, udp_idle_s=0) as made:
        yield made


def ready(sockets: Iterable[socket.socket]) -> socket.socket:
    """Wait for something to read at any of these."""
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            selector.register(each, selectors.EVENT_READ)
        found = selector.select(10)
    assert found, "nothing came within 10 s"
    first: Any = found[0][0].fileobj
    assert isinstance(first, socket.socket)
    return first


class Listeners:
    """A listener per backend; `accept` takes what comes to any."""

    def __init__(self, topology: Topology, version: int) -> None:
        """Listen at both backends."""
        self._all = [topology.listen(address, PORT) for address in BACKENDS[version][:2]]

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept the next connection."""
        return ready(self._all).accept()

    def __enter__(self) -> Listeners:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all."""
        for each in self._all:
            each.close()


def closed_by(which: str) -> Callable[[Timed], None]:
    """One end closes, then the other."""

    def end(timed: Timed) -> None:
        first, last = timed.ends(which)
        timed.shut(first)
        timed.shut_last(last)

    return end


def half_closed_by(which: str) -> Callable[[Timed], None]:
    """One end closes; the other goes on sending for 20 ms, then closes."""

    def end(timed: Timed) -> None:
        first, last = timed.ends(which)
        timed.shut(first)
        until = monotonic_ns() + 20_000_000
        wait_until(lambda: monotonic_ns() > until, "a while")
        last.sendall(b"more")
        assert first.recv(4) == b"more"
        timed.shut_last(last)

    return end


def reset_by(which: str) -> Callable[[Timed], None]:
    """One end resets."""
    return lambda timed: timed.reset(timed.ends(which)[0])


ENDINGS: list[tuple[Callable[[Timed], None], str]] = [
    (end(which), reason)
    for end, reason in ((closed_by, "fin"), (half_closed_by, "fin"), (reset_by, "rst"))
    for which in ("client", "server")
]


@both
def test_every_end_agrees_with_both_ends_clocks(
    nat: Topology, followed: Followed, version: int
) -> None:
    """Each way to end, ten times: at the right backend, with the right reason and times."""
    ended: list[tuple[Timed, str]] = []
    with Listeners(nat, version) as listeners:
        for end, reason in ENDINGS * 10:
            timed = Timed(nat, listeners, (VIP[version], SERVICE))
            timed.ask()
            timed.answer()
            end(timed)
            ended.append((timed, reason))
    events = followed.closed(len(ended))
    for (timed, reason), event in zip(ended, events, strict=True):
        timed.check(event)
        assert (event.reason, event.probe) == (reason, False)
    assert {event.target for event in events} == {_target(version, which) for which in (0, 1)}
    assert followed.counts() == {}


def _target(version: int, which: int) -> str:
    address = BACKENDS[version][which]
    return f"[{address}]:{PORT}" if version == 6 else f"{address}:{PORT}"


@both
def test_a_refused_and_an_unanswered_connect_fail(
    nat: Topology, followed: Followed, version: int
) -> None:
    """Nobody listens; or nobody answers, until the client gives up. Neither has a lifetime."""
    with pytest.raises(ConnectionRefusedError):
        nat.connect(VIP[version], SERVICE)
    (event,) = followed.closed()
    assert event.reason == "connect_failed"
    assert followed.counts() == {"refused": 1}
    client = nat.client.socket(FAMILY[version], socket.SOCK_STREAM)
    with dropping(nat.backend, f"tcp dport {PORT}"), client:
        client.setblocking(False)
        client.connect_ex((VIP[version], SERVICE))
        wait_until(lambda: len(followed.opened()) == 2, "the SYN")
    followed.source.tick()
    assert [event.reason for event in followed.closed(2)] == ["connect_failed"] * 2
    assert followed.counts() == {"refused": 1, "timed_out": 1}


REJECTS = {
    4: [f"icmp type {kind}-unreachable" for kind in ("net", "host", "prot", "port")]
    + [f"icmp type {kind}-prohibited" for kind in ("net", "host", "admin")],
    6: [f"icmpv6 type {kind}" for kind in ("no-route", "admin-prohibited", "addr-unreachable")]
    + ["icmpv6 type port-unreachable"],
}


@pytest.mark.parametrize(
    ("version", "how"), [(version, how) for version, all_ in REJECTS.items() for how in all_]
)
def test_an_unreachable_backend_fails_the_connect(
    nat: Topology, followed: Followed, version: int, how: str
) -> None:
    """Its firewall answers each SYN by ICMP, which has no say about a connection that is open."""
    with Listeners(nat, version) as listeners:
        timed = Timed(nat, listeners, (VIP[version], SERVICE))
        with rejecting(nat.backend, f"tcp dport {PORT}", how):
            timed.client.sendall(b"?")
            with pytest.raises(OSError, match=r"refused|unreachable|route|denied|vailable"):
                nat.connect(VIP[version], SERVICE)
        followed.source.tick()
        (failed,) = followed.closed()
        assert failed.reason == "connect_failed"
        assert timed.server.recv(1) == b"?"  # sent again
        timed.shut(timed.client)
        timed.shut_last(timed.server)
    assert [event.reason for event in followed.closed(2)] == ["connect_failed", "fin"]
    assert followed.counts() == {"unreachable": 1}


def test_a_lost_syn_takes_a_second(nat: Topology, followed: Followed) -> None:
    """The first SYN of each connection is lost behind us: the connect time shows it."""
    first_of_two = f"tcp dport {PORT} tcp flags & (syn | ack) == syn numgen inc mod 2 == 0"
    with dropping(nat.backend, first_of_two), Listeners(nat, 4) as listeners:
        timed = Timed(nat, listeners, (VIP[4], SERVICE))
        timed.reset(timed.client)
    event = followed.only()
    timed.check(event)
    assert event.connect_us is not None
    assert event.connect_us > 990_000
    assert event.probe


@both
def test_datagrams_last_from_the_first_to_the_last(
    nat: Topology, followed: Followed, version: int
) -> None:
    """Each of some clients exchanges datagrams with the backend that NAT chose."""
    spans: dict[str, list[tuple[Span, Span]]] = {}
    with contextlib.ExitStack() as stack:
        servers = {}
        for which in (0, 1):
            server = nat.backend.socket(FAMILY[version], socket.SOCK_DGRAM)
            servers[stack.enter_context(server)] = _target(version, which)
            server.bind((BACKENDS[version][which], PORT))
        for _ in range(20):
            client = stack.enter_context(nat.client.socket(FAMILY[version], socket.SOCK_DGRAM))
            client.connect((VIP[version], SERVICE))
            moments = []
            for _ in range(3):
                before = monotonic_ns()
                client.send(b"?")
                server = ready(servers)
                data, peer = server.recvfrom(10)
                middle = monotonic_ns()
                server.sendto(data, peer)
                assert client.recv(10) == b"?"
                moments.append((Span(before, middle), Span(middle, monotonic_ns())))
            where = servers[server]
            spans.setdefault(where, []).append((moments[0][0], moments[-1][1]))
    followed.source.tick()
    events = sorted(followed.closed(20), key=lambda event: event.created_ns)
    for where, expected in spans.items():
        found = [event for event in events if event.target == where]
        assert len(found) == len(expected)
        for event, (first, last) in zip(found, expected, strict=True):
            assert (event.reason, event.protocol) == ("timeout", 17)
            assert first.holds(event.created_ns)
            assert last.holds(event.timestamp_ns)


def test_a_burst_of_short_connections_is_counted_exactly(nat: Topology, followed: Followed) -> None:
    """5,000 one after the other, as fast as they go: each once, at its backend, in its time."""
    ended = []
    with Listeners(nat, 4) as listeners:
        for _ in range(BURST):
            timed = Timed(nat, listeners, (VIP[4], SERVICE))
            timed.shut(timed.client)
            timed.shut_last(timed.server)
            ended.append(timed)
    events = followed.closed(BURST)
    assert len(followed.opened()) == BURST
    for timed, event in zip(ended, events, strict=True):
        timed.check(event)
        assert event.reason == "fin"
    assert followed.counts() == {}


def test_many_open_at_once_are_none_lost_and_none_early(nat: Topology, followed: Followed) -> None:
    """2,000 connections are open together, then end together."""
    count = 2_000
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * count + 100:
        pytest.skip("too few descriptors")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with Listeners(nat, 4) as listeners, contextlib.ExitStack() as held_open:
            held = []
            for _ in range(count):
                held.append(Timed(nat, listeners, (VIP[4], SERVICE)))
                held_open.callback(held[-1].close)
            followed.source.tick()
            assert len(followed.opened()) == len(followed.poll()) == count
            for timed in held:
                timed.shut(timed.server)
                timed.shut_last(timed.client)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    events: list[Event] = followed.closed(count)
    for timed, event in zip(held, events, strict=True):
        timed.check(event)
