"""The socket source with its events, for connections that this process opens."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from contextlib import contextmanager
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from lblatency.sources import Sockets
from tests.support.rig import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lblatency.stats import Event

_RST_ON_CLOSE = struct.pack("ii", 1, 0)
FAMILIES = {
    "ipv4": (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    "ipv6": (socket.AF_INET6, "::1", "::1"),
    "mapped": (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1"),
}  # family, address to connect to, address of the server


@contextmanager
def named_process(name: str | None = None) -> Iterator[str]:
    """Give this process a name that no other has, or this one."""
    comm = Path(f"/proc/self/task/{os.getpid()}/comm")
    before = comm.read_text().strip()
    made = name or f"lbl-{os.getpid()}"
    comm.write_text(made)
    try:
        yield made
    finally:
        comm.write_text(before)


class Seen:
    """A source whose events are kept."""

    def __init__(self, source: Sockets) -> None:
        """Subscribe to the source's events."""
        self.source = source
        self._subscription = source.stream.subscribe(1 << 18)
        self.events: list[Event] = []

    def poll(self) -> list[Event]:
        """All events so far."""
        self.source.stream.drain()
        while event := self._subscription.get(timeout=0):
            self.events.append(event)
        assert not self._subscription.dropped
        return self.events

    def opened(self) -> list[Event]:
        """All opened events so far."""
        return [event for event in self.poll() if event.type == "opened"]

    def closed(self, count: int = 1) -> list[Event]:
        """Wait for `count` closed events; returns all closed events."""

        def found() -> list[Event]:
            return [event for event in self.poll() if event.type == "closed"]

        wait_until(lambda: len(found()) >= count, lambda: f"{count} closed, not {len(found())}")
        assert len(found()) == count
        return found()

    def only(self) -> Event:
        """Wait for the closed event of the only connection, which has one opened event."""
        (event,) = self.closed()
        (opened,) = self.opened()
        assert (opened.target, opened.created_ns) == (event.target, event.created_ns)
        assert opened.proxy_id == event.proxy_id
        return event


@contextmanager
def watch(**rules: Any) -> Iterator[Seen]:
    """Open the source; at the end, nothing must be lost, and all events accounted for."""
    with Sockets(**rules) as source:
        seen = Seen(source)
        yield seen
        assert set(source.lost().values()) == {0}, source.lost()
        stats = source.stream.stats()
        assert stats.produced == stats.received + stats.in_ring
        assert not stats.dropped


class Connection:
    """A connection from this process to itself, with the clock at each of its steps."""

    def __init__(self, kind: str = "ipv4") -> None:
        """Connect."""
        family, address, server = FAMILIES[kind]
        server_family = socket.AF_INET6 if ":" in server else socket.AF_INET
        with socket.create_server((server, 0), family=server_family) as listener:
            port = listener.getsockname()[1]
            self.target = f"[{server}]:{port}" if ":" in server else f"{server}:{port}"
            self.client = socket.socket(family)
            self.before_ns = monotonic_ns()
            self.client.connect((address, port))
            self.connected_ns = monotonic_ns()
            self.server, _ = listener.accept()
        for end in (self.client, self.server):
            end.settimeout(10)

    def ask(self) -> None:
        """Send a byte to the server."""
        self.client.sendall(b"?")
        assert self.server.recv(1) == b"?"

    def answer(self) -> None:
        """Send a byte to the client."""
        self.answered_ns = monotonic_ns()
        self.server.sendall(b"!")
        assert self.client.recv(1) == b"!"
        self.read_ns = monotonic_ns()

    def exchange(self) -> None:
        """Send a byte each way."""
        self.ask()
        self.answer()

    def close(self) -> None:
        """Close what is still open, the client first."""
        self.client.close()
        self.server.close()

    def __enter__(self) -> Connection:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what is still open."""
        with contextlib.suppress(OSError):
            self.close()


def created_ns(event: Event) -> int:
    """When the connection of an event began."""
    assert event.created_ns is not None
    return event.created_ns


def first_byte_ns(event: Event) -> float:
    """When its first byte came, to the microsecond."""
    assert event.first_byte_us is not None
    return created_ns(event) + event.first_byte_us * 1000


def reset(end: socket.socket) -> None:
    """Close with a RST."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
    end.close()
