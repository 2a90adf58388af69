"""The servers of HAProxy, by its stats socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

from .._address import split_endpoint
from ..errors import LatencyError
from ._bounded import ask, connect
from .base import Reader, Row, printable

__all__ = ["HAProxy"]

_COMMAND = b"show servers state\n"
_COLUMNS = ("be_name", "srv_name", "srv_addr", "srv_port")


class HAProxy(Reader):
    """`show servers state` of a stats socket: what is true now, also after DNS or `set server`.

    Args:
        place: the path of the socket, or its `ip:port`.

    Raises:
        ValueError: it is neither.
    """

    option = process = "haproxy"
    capabilities = ("CAP_DAC_OVERRIDE",)  # the socket is of another user
    metavar = "SOCKET"
    help = "HAProxy's stats socket, by its path or ip:port"

    def __init__(self, place: str) -> None:
        if "/" not in place:
            try:
                split_endpoint(place)
            except ValueError:
                raise ValueError(f"{place!r} is neither a path with a '/' nor 'ip:port'") from None
        self.place = place

    def read(self, deadline: float) -> Iterator[Row]:
        """All servers that have an address."""
        try:
            with self._connected(deadline) as connected:
                answer = ask(connected, _COMMAND, deadline)
        except OSError as error:
            why = f"no HAProxy answers there: {error.strerror or error}"
            if isinstance(error, FileNotFoundError):
                line = f"stats socket {self.place} level operator"
                why += f"; `{line}` in the section `global` of its configuration makes it"
            raise LatencyError(why) from None
        return _rows(answer.decode(errors="replace"))

    def _connected(self, deadline: float) -> socket.socket:
        if "/" not in self.place:
            return connect(*split_endpoint(self.place), deadline)
        with ExitStack() as unless_connected:
            connected = unless_connected.enter_context(socket.socket(socket.AF_UNIX))
            connected.settimeout(max(0.001, deadline - time.monotonic()))
            connected.connect(self.place)
            unless_connected.pop_all()
        return connected


def _rows(answer: str) -> Iterator[Row]:
    lines = answer.splitlines()
    header = lines[1].split()[1:] if len(lines) > 1 and lines[1].startswith("# ") else []
    if not set(_COLUMNS) <= set(header):
        said = printable(lines[0]) if lines else "nothing"
        raise LatencyError(
            f"it answers {said!r} and not the state of its servers; give it `level operator`"
        )
    if not answer.endswith("\n\n"):  # half of two servers at one address would be one server
        raise LatencyError("its answer breaks off")
    columns = [header.index(name) for name in _COLUMNS]
    for line in lines[2:]:
        fields = line.split(" ")
        # A server without an address yet has `-`; one behind a Unix socket, too.
        with suppress(ValueError, IndexError):
            backend, server, ip, port = (fields[column] for column in columns)
            yield Row.of(ip, int(port), backend, server)
