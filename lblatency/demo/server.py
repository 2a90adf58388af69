"""A backend: takes a request, says after a while who it is, and later closes or resets."""

from __future__ import annotations

import contextlib
import heapq
import select
import socket
import struct
import sys
import time

from .plan import Backend

__all__ = ["Server"]

_BACKLOG = 1024
_ANSWER, _CLOSE, _RESET = 0, 1, 2
_LINGER_NONE = struct.pack("ii", 1, 0)  # close() then sends RST instead of FIN


class Server:
    """Serves one backend in one thread, until standard input ends."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._epoll = select.epoll()
        self._connections: dict[int, socket.socket] = {}
        self._due: list[tuple[float, int, int]] = []  # when, which, what
        family = socket.AF_INET6 if ":" in backend.host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((backend.host, backend.port))
        self._listener.listen(_BACKLOG)
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(sys.stdin, select.EPOLLIN)

    def run(self) -> None:
        """Serve until standard input ends."""
        while True:
            for fd, _ in self._epoll.poll(self._patience()):
                if fd == sys.stdin.fileno():
                    return
                if fd == self._listener.fileno():
                    self._accept()
                else:
                    self._take_request(fd)
            self._do_due()

    def _patience(self) -> float | None:
        """Seconds until something is due, if a connection is being served."""
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else None

    def _accept(self) -> None:
        for _ in range(_BACKLOG):
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            connection.setblocking(False)
            self._connections[connection.fileno()] = connection
            self._epoll.register(connection, select.EPOLLIN)

    def _take_request(self, fd: int) -> None:
        """Decide when to answer and when to end the connection."""
        connection = self._connections[fd]
        self._epoll.unregister(fd)
        try:
            if connection.recv(64):
                now = time.monotonic()
                service = self._backend.draw()
                end = _RESET if service.resets else _CLOSE
                heapq.heappush(self._due, (now + service.answer_s, fd, _ANSWER))
                heapq.heappush(self._due, (now + service.end_s, fd, end))
                return
        except OSError:
            pass  # the client is gone: nothing left to serve
        self._connections.pop(fd).close()

    def _do_due(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, fd, what = heapq.heappop(self._due)
            if what == _ANSWER:
                with contextlib.suppress(OSError):  # the client is gone
                    self._connections[fd].send(bytes([self._backend.number]))
                continue
            connection = self._connections.pop(fd)
            if what == _RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            connection.close()
