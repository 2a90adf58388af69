"""An exporter of a tracker in this process, and its clients."""

from __future__ import annotations

import http.client
import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from lblatency import LatencyTracker
from lblatency.exporter import Address, serving
from lblatency.exporter.served import Served
from tests.support.rig import TARGET

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lblatency.exporter.otlp import Push

HOST = "127.0.0.1"
TCP_CLOSE = 7  # of the kernel's tcp_states.h


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Running(NamedTuple):
    """An exporter that runs.

    Attributes:
        port: where, on `HOST`.
        told: the lines that it told.
    """

    port: int
    told: list[str]

    def connect(self, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        """A connection, which may be kept alive."""
        if context:
            return http.client.HTTPSConnection(HOST, self.port, timeout=20, context=context)
        return http.client.HTTPConnection(HOST, self.port, timeout=20)

    def get(
        self, path: str = "/metrics", context: ssl.SSLContext | None = None, **headers: str
    ) -> Answer:
        """Ask once; `_` in a header's name is `-`."""
        connection = self.connect(context)
        try:
            return ask(connection, path, **headers)
        finally:
            connection.close()

    def raw(self, *, buffer: int | None = None) -> socket.socket:
        """A connection without HTTP; `buffer` bytes of what comes may wait to be read."""
        sock = socket.socket()
        sock.settimeout(20)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.connect((HOST, self.port))
        return sock

    def send(self, data: bytes) -> bytes:
        """All that comes back until the server closes."""
        with self.raw() as sock:
            sock.sendall(data)
            return read_all(sock)


def ask(connection: http.client.HTTPConnection, path: str, **headers: str) -> Answer:
    """Ask on a connection."""
    connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    reply = connection.getresponse()
    return Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())


def read_all(sock: socket.socket) -> bytes:
    """What comes until the end; a reset is an end, too."""
    parts = []
    try:
        while part := sock.recv(1 << 16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


def is_closed(sock: socket.socket) -> bool:
    """Whether the kernel knows that the other side has reset it."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE


@contextmanager
def exporter(
    tracker: LatencyTracker | None = None,
    config_file: Path | None = None,
    push: Push | None = None,
    **known: Any,
) -> Iterator[Running]:
    """Serve a tracker with a latency while the block runs."""
    if tracker is None:
        tracker = LatencyTracker(max_backends=100)
        tracker.record_latency("web", TARGET, 0.25)
    told: list[str] = []
    served = Served(tracker, **known)
    path = None if config_file is None else str(config_file)
    with serving(served, [Address(HOST, 0)], told.append, config_file=path, push=push) as (url,):
        yield Running(int(url.rsplit(":", 1)[1].partition("/")[0]), told)


def many_backends(count: int) -> LatencyTracker:
    """A tracker with so many, each of which was connected to."""
    tracker = LatencyTracker(max_backends=count)
    for i in range(count):
        tracker.record_latency("web", f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}:80", 0.25)
    return tracker
