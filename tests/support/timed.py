"""Real connections with the clocks of both their ends, as bounds that hold by causality.

What passes a host between the ends passes after the one has sent it and before the other has got
it. So however late a test's thread runs, no bound is wrong; it only gets wider.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Protocol

from tests.support.rig import wait_until

if TYPE_CHECKING:
    from lblatency.stats import Event
    from tests.support.netns import Topology

_LINGER_NONE = struct.pack("ii", 1, 0)
_TCP_CLOSE = 7


@dataclass(frozen=True)
class Span:
    """A moment, by CLOCK_MONOTONIC: not before `first`, not after `last`."""

    first: int
    last: int

    def holds(self, ns: int, slack_ns: int = 0) -> bool:
        """Whether a time may be this moment."""
        return self.first - slack_ns <= ns <= self.last + slack_ns


def _ended(end: socket.socket) -> bool:
    return end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE


class Acceptor(Protocol):
    """A listener, or several as one."""

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept the next connection."""


class Timed:
    """A TCP connection through the balancer's host.

    Attributes:
        backend: where it came to.
        created: when its first SYN passed.
        connect_us: at most so long it took to the SYN-ACK.
        first_byte: when the backend's first byte passed, if it has.
        end: when it ended, if it has.
    """

    def __init__(self, topology: Topology, listener: Acceptor, address: tuple[str, int]) -> None:
        """Connect, and accept."""
        before = monotonic_ns()
        self.client = topology.connect(*address)
        after = monotonic_ns()
        self.server, _ = listener.accept()
        self.server.settimeout(10)
        self.backend = self.server.getsockname()[:2]
        self.created = Span(before, after)
        self.connect_us = (after - before) // 1000 + 1
        self.first_byte: Span | None = None
        self.end = Span(0, 0)

    def ask(self) -> None:
        """The client sends a byte."""
        self.client.sendall(b"?")
        assert self.server.recv(1) == b"?"

    def answer(self) -> None:
        """The backend sends a byte."""
        before = monotonic_ns()
        self.server.sendall(b"!")
        assert self.client.recv(1) == b"!"
        self.first_byte = self.first_byte or Span(before, monotonic_ns())

    def shut(self, end: socket.socket) -> None:
        """One end sends its FIN, the other gets it."""
        end.shutdown(socket.SHUT_WR)
        assert self._other(end).recv(1) == b""

    def shut_last(self, end: socket.socket) -> None:
        """The other end has sent its FIN already: so the connection ends."""
        before = monotonic_ns()
        end.shutdown(socket.SHUT_WR)
        wait_until(lambda: _ended(end), "the acknowledgement of the last FIN")
        self.end = Span(before, monotonic_ns())
        self.close()

    def reset(self, end: socket.socket) -> None:
        """One end sends a RST, the other gets it."""
        before = monotonic_ns()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        end.close()
        other = self._other(end)
        wait_until(lambda: _ended(other), "the RST")
        self.end = Span(before, monotonic_ns())
        self.close()

    def ends(self, first: str) -> tuple[socket.socket, socket.socket]:
        """Both ends, the one that is named first: client or server."""
        both = (self.client, self.server)
        return both if first == "client" else both[::-1]

    def _other(self, end: socket.socket) -> socket.socket:
        return self.server if end is self.client else self.client

    def close(self) -> None:
        """Close both ends."""
        self.client.close()
        self.server.close()

    def check(self, event: Event) -> None:
        """Compare the closed event with both ends' clocks."""
        host, port = self.backend
        assert event.target == (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        assert self.created.holds(event.created_ns)
        assert self.end.holds(event.timestamp_ns)
        assert event.connect_us is not None
        assert 1 <= event.connect_us <= self.connect_us
        if self.first_byte:
            assert event.first_byte_us is not None
            at = event.created_ns + int(event.first_byte_us * 1000)
            assert self.first_byte.holds(at, slack_ns=1000)  # whole microseconds
