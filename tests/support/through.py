"""Connections through a proxy, with the clocks of both of their ends.

A slot is a backend's listener and the proxy's port that leads there. It has one connection at a
time, and one thread does what both ends do. So a backend's n-th connection has its n-th event.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, quantiles
from time import monotonic_ns, sleep
from typing import TYPE_CHECKING, NamedTuple

from lblatency._address import format_target
from tests.support.netns import BACKENDS
from tests.support.sockets import created_ns, first_byte_ns, reset

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lblatency.stats import Event
    from tests.support.netns import Topology

PROXY = "10.1.0.1"  # the proxy's address in the clients' network
SLACK_NS = 500_000  # by which the source may err
MEAN_SLACK_NS = 200_000
_HALF_CLOSED_NS = 5_000_000
SLOTS = 14  # of each family
PORTS = {"ipv4": 20000, "ipv6": 21000, "mapped": 22000}  # of their first slots
_ADDRESS = {"ipv4": BACKENDS[4][0], "ipv6": BACKENDS[6][0], "mapped": BACKENDS[4][1]}
SERVER = {
    "ipv4": _ADDRESS["ipv4"],
    "ipv6": f"[{_ADDRESS['ipv6']}]",
    "mapped": f"[::ffff:{_ADDRESS['mapped']}]",
}  # the addresses as a proxy's configuration has them
HAPROXY = "\n".join(
    f"""listen {family}
    bind {PROXY}:{first}-{first + SLOTS - 1}
    server s {SERVER[family]}:+0"""
    for family, first in PORTS.items()
)


class Window(NamedTuple):
    """What both ends' clocks allow, ns."""

    first: int
    last: int

    def excess(self, ns: float) -> float:
        """How far a moment is outside."""
        return max(0, self.first - ns, ns - self.last)


@dataclass
class Truth:
    """A connection as both of its ends saw it."""

    target: str
    created: Window
    answered: Window | None = None
    ended: Window | None = None
    reasons: tuple[str, ...] = ("fin",)


class Slot:
    """A backend, and the proxy's port that leads there."""

    def __init__(self, topology: Topology, address: str, port: int) -> None:
        """Listen at a backend's address."""
        self._topology = topology
        self._port = port
        self.target = format_target(address, port)
        self._listener = topology.listen(address, port)

    def connect(self) -> socket.socket:
        """Connect a client to the proxy."""
        return self._topology.connect(PROXY, self._port)

    def accept(self) -> socket.socket:
        """Take the next connection at the backend."""
        server, _ = self._listener.accept()
        server.settimeout(10)
        return server

    def open(self, request: bytes = b"") -> Pair:
        """Connect through the proxy, which connects to the backend when it has the request."""
        client = self.connect() if request else None
        before_ns = monotonic_ns()
        if client is None:
            client = self.connect()
        client.sendall(request)
        server = self.accept()
        return Pair(client, server, Truth(self.target, Window(before_ns, monotonic_ns())))

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


@dataclass
class Pair:
    """Both ends of a connection through the proxy."""

    client: socket.socket
    server: socket.socket
    truth: Truth

    def exchange(self) -> None:
        """Send a byte each way."""
        self.client.sendall(b"?")
        assert self.server.recv(1) == b"?"
        sent_ns = monotonic_ns()
        self.server.sendall(b"!")
        assert self.client.recv(1) == b"!"
        self.truth.answered = Window(sent_ns, monotonic_ns())

    def close(self) -> None:
        """Close both ends."""
        self.client.close()
        self.server.close()


def ended(end: socket.socket) -> str:
    """Read to the end; tells how it came."""
    try:
        while end.recv(4096):
            pass
    except ConnectionResetError:
        return "rst"
    return "fin"


def _client_closes(pair: Pair) -> Window:
    began = monotonic_ns()
    pair.client.shutdown(socket.SHUT_WR)
    assert ended(pair.server) == "fin"
    pair.server.close()
    ended(pair.client)
    return Window(began, monotonic_ns())


def _server_closes(pair: Pair) -> Window:
    began = monotonic_ns()
    pair.server.shutdown(socket.SHUT_WR)
    assert ended(pair.client) == "fin"
    pair.client.close()
    assert ended(pair.server) == "fin"
    return Window(began, monotonic_ns())


def _client_resets(pair: Pair) -> Window:
    began = monotonic_ns()
    reset(pair.client)
    pair.truth.reasons = (ended(pair.server),)
    pair.server.close()
    return Window(began, monotonic_ns())


def _server_resets(pair: Pair) -> Window:
    began = monotonic_ns()
    reset(pair.server)
    ended(pair.client)
    pair.truth.reasons = ("rst",)
    return Window(began, monotonic_ns())


def _half_closed(pair: Pair, first: socket.socket, last: socket.socket) -> Window:
    """One end closes its side, the other goes on for a while."""
    first.shutdown(socket.SHUT_WR)
    assert ended(last) == "fin"
    until = monotonic_ns() + _HALF_CLOSED_NS
    while (now_ns := monotonic_ns()) < until:
        last.sendall(b"!")
        assert first.recv(1) == b"!"
        if last is pair.server and not pair.truth.answered:
            pair.truth.answered = Window(now_ns, monotonic_ns())
    began = monotonic_ns()
    last.shutdown(socket.SHUT_WR)
    assert ended(first) == "fin"
    return Window(began, monotonic_ns())


def _client_half_closes(pair: Pair) -> Window:
    return _half_closed(pair, pair.client, pair.server)


def _server_half_closes(pair: Pair) -> Window:
    return _half_closed(pair, pair.server, pair.client)


ENDS: dict[str, Callable[[Pair], Window]] = {
    "client closes": _client_closes,
    "server closes": _server_closes,
    "client resets": _client_resets,
    "server resets": _server_resets,
}
HALF_CLOSED = {"client half-closes": _client_half_closes, "server half-closes": _server_half_closes}
# Around the bounds of buckets, ms. The clocks say what each lifetime really was.
HOLDS_MS = (0, 0.7, 1.3, 4.7, 5.3, 9.7, 10.3, 24.7, 25.3, 49.7, 50.3)


@contextlib.contextmanager
def all_slots(topology: Topology) -> Iterator[list[Slot]]:
    """The slots of all families."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(contextlib.closing(Slot(topology, _ADDRESS[family], first + n)))
            for family, first in PORTS.items()
            for n in range(SLOTS)
        ]


def run_connection(
    slot: Slot, end: Callable[[Pair], Window], hold_ms: float, answers: bool
) -> Truth:
    """One connection from its beginning to its end."""
    pair = slot.open()
    with contextlib.closing(pair):
        if answers:
            pair.exchange()
        else:
            pair.client.sendall(b"?")
            assert pair.server.recv(1) == b"?"
        sleep(hold_ms / 1000)
        pair.truth.ended = end(pair)
    return pair.truth


_REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n%s\r\n!"


def _receive(end: socket.socket, until: bytes) -> None:
    """Receive up to the end of a message."""
    got = b""
    while not got.endswith(until):
        chunk = end.recv(4096)
        assert chunk, got
        got += chunk


def run_http(slot: Slot, requests: int, hold_ms: float) -> Truth:
    """A connection to the backend with so many requests of one client; the backend ends it."""
    pair = slot.open(_REQUEST)
    with contextlib.closing(pair):
        for n in range(requests):
            if n:
                pair.client.sendall(_REQUEST)
            _receive(pair.server, b"\r\n\r\n")
            sleep(hold_ms / 1000 / requests)
            began = monotonic_ns()
            pair.server.sendall(_ANSWER % (b"Connection: close\r\n" * (n == requests - 1)))
            _receive(pair.client, b"!")
            if not pair.truth.answered:
                pair.truth.answered = Window(began, monotonic_ns())
        with contextlib.suppress(OSError):  # the proxy has reset it
            pair.server.shutdown(socket.SHUT_WR)
        pair.truth.reasons = (ended(pair.server),)
        pair.truth.ended = Window(began, monotonic_ns())
    return pair.truth


def run_slots(
    slots: Sequence[Slot], each: Callable[[int, Slot], list[Truth]]
) -> dict[str, list[Truth]]:
    """Run all slots at once; returns the connections of each backend in their order."""
    truths: dict[str, list[Truth]] = {}
    errors: list[BaseException] = []

    def run(number: int, slot: Slot) -> None:
        try:
            truths[slot.target] = each(number, slot)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(slots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return truths


def run_ends(
    slots: Sequence[Slot], per_slot: int, ends: Sequence[Callable[[Pair], Window]]
) -> dict[str, list[Truth]]:
    """Connections with each end and each hold in turn; every seventh is never answered."""

    def each(number: int, slot: Slot) -> list[Truth]:
        return [
            run_connection(
                slot,
                ends[n % len(ends)],
                HOLDS_MS[n % len(HOLDS_MS)],
                n % 7 != 0,
            )
            for n in range(number, number + per_slot)
        ]

    return run_slots(slots, each)


class Errors(NamedTuple):
    """How far events are outside of what the clocks allow, and how long short times were, ms."""

    worst: float
    mean: float
    first_byte_p50: float
    first_byte_p99: float


def by_target(events: Iterable[Event]) -> dict[str, list[Event]]:
    """The events of each backend in the order of their connections."""
    found: dict[str, list[Event]] = defaultdict(list)
    for event in sorted(events, key=created_ns):
        found[event.target].append(event)
    return found


def compare(truths: dict[str, list[Truth]], events: Iterable[Event]) -> Errors:
    """Check that each connection has its event: backend, reason, lifetime and first byte."""
    of_target = by_target(events)
    assert {target: len(found) for target, found in of_target.items()} == {
        target: len(expected) for target, expected in truths.items()
    }
    excesses: list[float] = []
    delays: list[float] = []
    for target, expected in truths.items():
        for truth, event in zip(expected, of_target[target], strict=True):
            assert truth.ended is not None
            assert not event.probe
            assert event.reason in truth.reasons, (event, truth)
            lifetime = Window(
                truth.ended.first - truth.created.last, truth.ended.last - truth.created.first
            )
            excess = [
                truth.created.excess(created_ns(event)),
                truth.ended.excess(event.timestamp_ns),
                lifetime.excess(event.timestamp_ns - created_ns(event)),
            ]
            assert event.connect_us is not None
            assert 0 < event.connect_us * 1000 <= truth.created.last - created_ns(event) + SLACK_NS
            if truth.answered is None:
                assert event.first_byte_us == math.inf, event
            else:
                excess.append(truth.answered.excess(first_byte_ns(event)))
                delays.append((first_byte_ns(event) - truth.answered.first) / 1e6)
            assert max(excess) <= SLACK_NS, (excess, event, truth)
            excesses.append(excess[2])
    assert mean(excesses) <= MEAN_SLACK_NS
    cuts = quantiles(delays, n=100)
    return Errors(max(excesses) / 1e6, mean(excesses) / 1e6, cuts[49], cuts[98])
