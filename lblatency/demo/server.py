"""A backend: takes a request, says after a while who it is, and later closes or resets.

It times each connection with its own clock, which is that of the clients. Where it closes first, it
awaits the other end's close, so that it knows when that came.
"""

from __future__ import annotations

import heapq
import select
import socket
import struct
import sys
import time
from dataclasses import astuple, dataclass, field

from .client import TOKEN
from .kernel_clock import handshake_s
from .plan import Backend

__all__ = ["Served", "Server", "unpack_served"]

_BACKLOG = 1024
_ANSWER, _CLOSE, _RESET = 0, 1, 2
_LINGER_NONE = struct.pack("ii", 1, 0)  # close() then sends RST instead of FIN
_RECORD = struct.Struct("<QqdqqqB")  # the fields of Served


@dataclass
class Served:
    """One connection as its backend saw it, by the monotonic clock; 0 is what did not come about.

    Attributes:
        token: the request.
        accepted_ns: after accept().
        handshake_s: from SYN-ACK to ACK, by TCP.
        answered_ns: before the answer was sent.
        ending_ns: before the connection was closed or reset.
        ended_ns: after the other end's close, or after the reset was sent.
        was_reset: by this backend.
    """

    token: int
    accepted_ns: int
    handshake_s: float
    answered_ns: int = 0
    ending_ns: int = 0
    ended_ns: int = 0
    was_reset: bool = False


def unpack_served(report: bytes) -> list[Served]:
    """Read what `Server.run` gave back; `ValueError` if it was cut off."""
    if len(report) % _RECORD.size:
        raise ValueError("a backend's report is incomplete")
    return [Served(*fields) for fields in _RECORD.iter_unpack(report)]


@dataclass(order=True)
class _Due:
    """Something to be done to a connection."""

    at: float
    connection: _Connection = field(compare=False)
    what: int = field(compare=False)


class _Connection:
    """A connection, and what its backend knows of it."""

    __slots__ = ("served", "socket")

    def __init__(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        self.socket = accepted
        self.served = Served(0, time.monotonic_ns(), handshake_s(accepted))


class Server:
    """Serves one backend in one thread, until standard input ends and all connections have."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._epoll = select.epoll()
        self._open: dict[int, _Connection] = {}
        self._due: list[_Due] = []
        self._report = bytearray()
        family = socket.AF_INET6 if ":" in backend.host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((backend.host, backend.port))
        self._listener.listen(_BACKLOG)
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(sys.stdin, select.EPOLLIN)

    def run(self) -> bytes:
        """Serve to the end, and give back one packed record of each connection."""
        is_told_to_end = False
        while self._open or not is_told_to_end:
            for fd, _ in self._epoll.poll(self._patience()):
                if fd == sys.stdin.fileno():
                    is_told_to_end = True
                    self._epoll.unregister(fd)
                elif fd == self._listener.fileno():
                    self._accept()
                else:
                    self._read(self._open[fd])
            self._do_due()
        return bytes(self._report)

    def _patience(self) -> float | None:
        """Seconds until something is due, if anything is."""
        return max(0.0, self._due[0].at - time.monotonic()) if self._due else None

    def _accept(self) -> None:
        for _ in range(_BACKLOG):
            try:
                accepted, _address = self._listener.accept()
            except OSError:
                return
            self._open[accepted.fileno()] = _Connection(accepted)
            self._epoll.register(accepted, select.EPOLLIN)

    def _read(self, connection: _Connection) -> None:
        """Take the request, and later the end."""
        try:
            request = connection.socket.recv(64)
        except OSError:
            request = b""
        if len(request) == TOKEN.size:
            (connection.served.token,) = TOKEN.unpack(request)
            self._plan(connection)
        else:
            self._end(connection)

    def _plan(self, connection: _Connection) -> None:
        """Decide when to answer and when to end the connection."""
        now = time.monotonic()
        service = self._backend.draw()
        heapq.heappush(self._due, _Due(now + service.answer_s, connection, _ANSWER))
        end = _RESET if service.resets else _CLOSE
        heapq.heappush(self._due, _Due(now + service.end_s, connection, end))

    def _do_due(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0].at <= now:
            due = heapq.heappop(self._due)
            if due.connection.socket.fileno() < 0:
                continue  # the client was gone before
            try:
                self._do(due.connection, due.what)
            except OSError:
                self._end(due.connection)  # the client is gone

    def _do(self, connection: _Connection, what: int) -> None:
        served = connection.served
        if what == _ANSWER:
            served.answered_ns = time.monotonic_ns()
            connection.socket.send(bytes([self._backend.number]))
            return
        served.ending_ns = time.monotonic_ns()
        if what == _CLOSE:
            connection.socket.shutdown(socket.SHUT_WR)
            return
        served.was_reset = True
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self._end(connection)

    def _end(self, connection: _Connection) -> None:
        fd = connection.socket.fileno()
        del self._open[fd]
        self._epoll.unregister(fd)
        connection.socket.close()
        connection.served.ended_ns = time.monotonic_ns()
        self._report += _RECORD.pack(*astuple(connection.served))
