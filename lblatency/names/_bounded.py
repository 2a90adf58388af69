"""Bytes from programs outside: no more than a limit, no longer than a deadline."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from collections.abc import Sequence

from .._address import parse_ip
from ..errors import LatencyError

__all__ = ["BYTES_MAX", "ask", "check_json", "connect", "read_all", "resolve", "run"]

BYTES_MAX = 16 << 20  # some 10,000 servers of Envoy, which says most about each
_VALUES_MAX = 1 << 20  # the same
_CHUNK = 1 << 16


def _wait(fd: int, events: int, deadline: float) -> None:
    """Wait until the descriptor is ready; bytes that dribble in move no deadline."""
    poll = select.poll()
    poll.register(fd, events)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise LatencyError("its answer did not end in time")


def read_all(fd: int, deadline: float) -> bytes:
    """All bytes to the end.

    Raises:
        LatencyError: the end did not come before the deadline, or within `BYTES_MAX`.
        OSError: it cannot be read.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        _wait(fd, select.POLLIN, deadline)
        chunk = os.read(fd, _CHUNK)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
        if size > BYTES_MAX:
            raise LatencyError(f"its answer has more than {BYTES_MAX >> 20} MiB")


def check_json(data: bytes) -> None:
    """Refuse what would take long to decode, because no other thread runs meanwhile.

    Raises:
        LatencyError: there are more values in lists and objects than servers need.
    """
    if data.count(b",") > _VALUES_MAX:
        raise LatencyError(f"its JSON has more than {_VALUES_MAX} values")


def connect(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first address of a host that answers.

    Raises:
        LatencyError: the host has no address.
        OSError: none of them answers.
    """
    failed: OSError | None = None
    for ip in resolve(host, deadline):
        try:
            return socket.create_connection((ip, port), max(0.001, deadline - time.monotonic()))
        except OSError as error:
            failed = error
    raise failed or LatencyError(f"the host {host} has no address")


def ask(connected: socket.socket, question: bytes, deadline: float) -> bytes:
    """Send a question and read the answer to its end. The question fits into a socket's buffer.

    Raises:
        LatencyError: the end did not come before the deadline, or within `BYTES_MAX`.
        OSError: the connection broke.
    """
    connected.sendall(question)
    return read_all(connected.fileno(), deadline)


def run(command: Sequence[str], deadline: float) -> tuple[int, bytes]:
    """Run a command; returns its exit code, and all that it wrote. It is killed at the deadline.

    Raises:
        LatencyError: there is no such program, or it wrote too much or for too long.
    """
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        raise LatencyError(f"cannot run {command[0]}: {error.strerror}") from None
    with process:  # closes the pipe, and waits
        assert process.stdout is not None
        try:
            output = read_all(process.stdout.fileno(), deadline)
            return process.wait(max(0.0, deadline - time.monotonic())), output
        except subprocess.TimeoutExpired:
            raise LatencyError("it did not end in time") from None
        finally:
            process.kill()


def resolve(host: str, deadline: float) -> list[str]:
    """The addresses of a host, which may be an address; none if it has none.

    The C library's resolver knows no deadline, so it is asked in a process of its own.
    """
    try:
        parse_ip(host)
    except ValueError:
        code, output = run(("getent", "ahosts", "--", host), deadline)
        lines = output.decode(errors="replace").splitlines() if code == 0 else []
        return list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))
    return [host]
