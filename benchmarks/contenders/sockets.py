"""What the socket source costs those whose connections it follows, and all others.

"Taken" are connections that the rules take, "other" those that they leave alone.
"""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lblatency._ffi import lib
from lblatency.sources import Sockets
from tests.support.netns import BACKENDS, Namespace, Topology
from tests.support.proxies import haproxy
from tests.support.sockets import named_process, reset

from .balancer import measured, statistics_on

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = {
    "change of state": lib.LBL_SOCKETS_STATE,
    "change of state, second program": lib.LBL_SOCKETS_STATE_AGAIN,
    "data": lib.LBL_SOCKETS_FIRST_BYTE,
}
_PROXY = "10.1.0.1"


def connect_and_close(address: tuple[str, int], listener: socket.socket, count: int) -> None:
    """Connections with a byte each way, one after the other; the client resets each."""
    for _ in range(count):
        client = socket.create_connection(address)
        server, _ = listener.accept()
        client.send(b"?")
        server.recv(1)
        server.send(b"!")
        client.recv(1)
        reset(client)
        server.close()


class Loopback:
    """Connections of this process to itself, with the source and without."""

    def __init__(self, count: int) -> None:
        self._count = count

    def ns(self, comm: str | None) -> float:
        """Ns per connection while the source takes processes of this name; None is no source."""
        with contextlib.ExitStack() as stack:
            if comm is not None:
                stack.enter_context(Sockets(comms=[comm])).stream.subscribe()
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            start = time.perf_counter_ns()
            connect_and_close(listener.getsockname(), listener, self._count)
            return (time.perf_counter_ns() - start) / self._count

    def ns_per_hit(self, comm: str) -> dict[str, float]:
        """Ns per run of each program, by the kernel's statistics and with their cost."""
        found = {}
        with (
            Sockets(comms=[comm]) as source,
            socket.create_server(("127.0.0.1", 0)) as listener,
            statistics_on(),
        ):
            source.stream.subscribe()
            connect_and_close(listener.getsockname(), listener, self._count)
            for name, which in PROGRAMS.items():
                ns, runs = measured(lib.lbl_sockets_program_fd(source._sockets, which))
                found[name] = ns / runs
        return found


@contextlib.contextmanager
def loopback(count: int) -> Iterator[tuple[Loopback, str]]:
    """Loopback connections in a namespace of their own, and the name of this process."""
    with (
        contextlib.closing(Namespace()) as namespace,
        namespace.inside(),
        named_process(f"bench-{os.getpid()}") as comm,
    ):
        yield Loopback(count), comm


class Proxied:
    """Connections through HAProxy, each with one of its own to the backend."""

    def __init__(self, topology: Topology, comm: str, count: int) -> None:
        self._topology, self._comm, self._count = topology, comm, count
        self._listener = topology.listen(BACKENDS[4][0], 20000)

    def ns(self, with_source: bool) -> float:
        """Ns per connection."""
        with contextlib.ExitStack() as stack:
            if with_source:
                stack.enter_context(Sockets(comms=[self._comm])).stream.subscribe()
            stack.enter_context(self._topology.client.inside())
            start = time.perf_counter_ns()
            connect_and_close((_PROXY, 20000), self._listener, self._count)
            return (time.perf_counter_ns() - start) / self._count

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


@contextlib.contextmanager
def proxied(count: int) -> Iterator[Proxied]:
    """HAProxy between namespaces, in TCP mode."""
    config = f"listen l\n bind {_PROXY}:20000\n server s {BACKENDS[4][0]}:20000"
    with (
        Topology() as topology,
        tempfile.TemporaryDirectory() as home,
        haproxy(config, Path(home), topology.balancer, 1) as proxy,
        contextlib.closing(Proxied(topology, proxy.comm, count)) as made,
    ):
        yield made
