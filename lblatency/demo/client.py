"""The clients: open connections at random moments and time each with their own clock.

A connection runs from just before connect() to the end as the client sees it: after its close()
where the server closed first, or on the reset. One thread on non-blocking sockets.

The short times are too short for that; the client's kernel tells them: for connect, how long TCP
waited for the SYN-ACK; for the first byte, when its packet arrived, less the time just before
connect().
"""

from __future__ import annotations

import itertools
import random
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass

from .kernel_clock import handshake_s, receive, stamp_arrivals
from .plan import CONNECTIONS_PER_SECOND, PROXIES

__all__ = ["ENDED_FIN", "ENDED_LOST", "ENDED_RST", "TOKEN", "Client", "Ending", "unpack_endings"]

ENDED_FIN, ENDED_RST, ENDED_LOST = 1, 2, 3
TOKEN = struct.Struct("<Q")  # the request: the number of the connection, from 1
_RECORD = struct.Struct("<QBBqqdd")  # the fields of Ending
_MOST_OPEN = 512
_LONGEST_NS = 10 * 10**9


@dataclass(frozen=True)
class Ending:
    """One connection as its client saw it, by the monotonic clock.

    `backend` is 0 if none answered; `first_byte_s` is since the start.
    """

    token: int
    backend: int
    how: int
    started_ns: int
    ended_ns: int
    connect_s: float
    first_byte_s: float


def unpack_endings(report: bytes) -> list[Ending]:
    """Read what `Client.run` gave back; `ValueError` if it was cut off."""
    if len(report) % _RECORD.size:
        raise ValueError("the clients' report is incomplete")
    return [Ending(*fields) for fields in _RECORD.iter_unpack(report)]


class _Connection:
    """A connection, and the moment just before it was opened by two clocks."""

    __slots__ = (
        "_started_wall_ns",
        "backend",
        "connect_s",
        "first_byte_s",
        "socket",
        "started_ns",
        "token",
    )

    def __init__(self, token: int, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        stamp_arrivals(self.socket)
        self.token = token
        self.backend = 0
        self.connect_s = self.first_byte_s = 0.0
        self._started_wall_ns = time.time_ns()  # as the kernel stamps arrivals
        self.started_ns = time.monotonic_ns()
        self.socket.connect_ex((host, port))  # EINPROGRESS; a failure shows up in epoll

    def request(self) -> None:
        """Note how long connecting took, and have the server begin."""
        self.connect_s = handshake_s(self.socket)
        self.socket.send(TOKEN.pack(self.token))

    def read(self) -> None:
        """Read to the end of the connection; raises as recv() does, also if it has not come yet."""
        while True:
            received, arrived_ns = receive(self.socket)
            if not received:
                return
            self.backend = received[0]
            self.first_byte_s = (arrived_ns - self._started_wall_ns) / 1e9


class Client:
    """Opens connections for `duration` seconds, or until standard input ends."""

    def __init__(self, duration: float) -> None:
        self._stop_ns = time.monotonic_ns() + int(duration * 1e9)
        self._next_ns = time.monotonic_ns()
        self._epoll = select.epoll()
        self._epoll.register(sys.stdin, select.EPOLLIN)
        self._open: dict[int, _Connection] = {}
        self._tokens = itertools.count(1)
        self._report = bytearray()
        self._stamping = socket.socket()  # keeps the kernel stamping while no connection is open
        stamp_arrivals(self._stamping)

    def run(self) -> bytes:
        """Open, time and await every connection, and give back one packed record of each."""
        while True:
            now = time.monotonic_ns()
            opening = now < self._stop_ns
            if opening:
                self._open_due(now)
            elif not self._open:
                return bytes(self._report)
            for fd, events in self._epoll.poll(self._patience(opening)):
                if fd == sys.stdin.fileno():
                    self._stop_ns = 0
                    self._epoll.unregister(fd)
                else:
                    self._advance(fd, events)
            self._give_up_on_stuck()

    def _patience(self, opening: bool) -> float:
        """Seconds until the next connection is to be opened or looked after."""
        return max(0.0, (self._next_ns - time.monotonic_ns()) / 1e9) if opening else 0.1

    def _open_due(self, now: int) -> None:
        while self._next_ns <= now:
            self._next_ns += int(random.expovariate(CONNECTIONS_PER_SECOND) * 1e9)
            if len(self._open) >= _MOST_OPEN:
                continue
            (proxy,) = random.choices(PROXIES, [proxy.share for proxy in PROXIES])
            connection = _Connection(next(self._tokens), proxy.vip, proxy.port)
            fd = connection.socket.fileno()
            self._open[fd] = connection
            self._epoll.register(fd, select.EPOLLOUT)

    def _advance(self, fd: int, events: int) -> None:
        """Send the request once connected; then read until the end."""
        connection = self._open[fd]
        try:
            if events & select.EPOLLOUT:
                connection.request()
                self._epoll.modify(fd, select.EPOLLIN)
                return
            connection.read()
        except ConnectionResetError:
            self._end(fd, ENDED_RST)
        except BlockingIOError:
            pass  # nothing more to read for now
        except OSError:
            self._end(fd, ENDED_LOST)
        else:
            self._end(fd, ENDED_FIN)

    def _end(self, fd: int, how: int) -> None:
        connection = self._open.pop(fd)
        reset_ns = time.monotonic_ns()
        self._epoll.unregister(fd)
        connection.socket.close()
        end_ns = time.monotonic_ns() if how == ENDED_FIN else reset_ns
        self._report += _RECORD.pack(
            connection.token,
            connection.backend,
            how,
            connection.started_ns,
            end_ns,
            connection.connect_s,
            connection.first_byte_s,
        )

    def _give_up_on_stuck(self) -> None:
        """End what is older than any backend serves. The oldest come first in the dict."""
        too_old = time.monotonic_ns() - _LONGEST_NS
        stuck = []
        for fd, connection in self._open.items():
            if connection.started_ns > too_old:
                break
            stuck.append(fd)
        for fd in stuck:
            self._end(fd, ENDED_LOST)
