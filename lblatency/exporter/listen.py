"""Where a server listens: addresses as people write them, and the sockets that are made of them."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import closing, suppress
from dataclasses import dataclass

from .._address import format_target, split_endpoint
from .._closing import Closing
from ..errors import LatencyError

__all__ = ["Address", "Listener"]

_UNIX = "unix:"
_BACKLOG = 1024


@dataclass(frozen=True)
class Address:
    """Where to listen.

    Attributes:
        host: an address or a name; empty for all addresses.
        port: 0 for any free port.
        path: of a unix socket; then the others mean nothing.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """An address from `HOST:PORT`, `[IP6]:PORT`, `:PORT` or `unix:PATH`.

        Raises:
            ValueError: the text is not of such a form.
        """
        if text.startswith(_UNIX):
            if not (path := text.removeprefix(_UNIX)):
                raise ValueError(f"{text!r} has no path: write 'unix:/path'")
            return cls(path=path)
        return cls(*split_endpoint(text, any_host=True))

    def __str__(self) -> str:
        return f"{_UNIX}{self.path}" if self.path else format_target(self.host, self.port)

    def bind(self) -> socket.socket:
        """A socket that listens there.

        Raises:
            LatencyError: the address is in use, or does not belong to this machine.
        """
        try:
            return self._bind_unix() if self.path else self._bind_tcp()
        except (OSError, UnicodeError, ValueError) as error:
            raise LatencyError(f"cannot listen on {self}: {_why(error)}") from error

    def _bind_tcp(self) -> socket.socket:
        if not self.host and socket.has_dualstack_ipv6():
            place = ("::", self.port)
            return socket.create_server(
                place, family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True
            )
        host = self.host or "0.0.0.0"  # noqa: S104
        found = socket.getaddrinfo(
            host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, *_, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)

    def _bind_unix(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        try:
            if _is_abandoned(self.path):
                os.unlink(self.path)
            made.bind(self.path)
            made.listen(_BACKLOG)
        except BaseException:
            made.close()
            raise
        return made


def _why(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "that is no host name"
    if isinstance(error, OSError) and error.errno and error.errno > 0:  # else the resolver's
        return os.strerror(error.errno)  # create_server() adds the address once more
    return str(getattr(error, "strerror", None) or error)


def _is_abandoned(path: str) -> bool:
    """Whether a socket is there that a process left behind."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    except FileNotFoundError:
        return False
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        return probe.connect_ex(path) == errno.ECONNREFUSED


class Listener(Closing):
    """A socket that listens, and what its URL is.

    Args:
        sock: as `Address.bind()` or systemd made it.
        own_path: of a unix socket that `close()` removes.
    """

    def __init__(self, sock: socket.socket, own_path: str = "") -> None:
        self.socket = sock
        self._own_path = own_path
        sock.setblocking(False)

    def url(self, *, is_tls: bool) -> str:
        """The URL of /metrics; of a unix socket, its path."""
        if self.socket.family == socket.AF_UNIX:
            return f"{_UNIX}{self.place()}"
        host, port = self.socket.getsockname()[:2]
        return f"{'https' if is_tls else 'http'}://{format_target(host, port)}/metrics"

    def place(self) -> str:
        """What tells it apart on this host: its port, or of a unix socket the path."""
        name = self.socket.getsockname()
        return os.fsdecode(name) if self.socket.family == socket.AF_UNIX else str(name[1])

    def close(self) -> None:
        """Listen no more."""
        self.socket.close()
        path, self._own_path = self._own_path, ""
        if path:
            with suppress(OSError):
                os.unlink(path)
