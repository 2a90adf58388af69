"""The cost of the flows source: of a packet, and for bulk traffic that passes.

"hot": the same packet of a followed connection, repeated (BPF_PROG_TEST_RUN), with warm caches.
"live": real traffic through the namespace, measured by the kernel's statistics, less their figure
for an empty program that sees the same packets behind ours.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import threading
import time
from typing import TYPE_CHECKING

from lblatency.sources import Flows
from tests.support import bpf
from tests.support.flows import Followed, Wire
from tests.support.netns import BACKENDS, Namespace, Topology
from tests.support.packets import ACK, frame

from . import balancer

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES = ["10.2.0.0/24:8080", "[fd02::]/64:8080"]
BULK_BYTES = 256 << 20


@contextlib.contextmanager
def source(interface: str, netns: Namespace) -> Iterator[Flows]:
    """A source at an interface of a namespace."""
    with netns.inside():
        made = Flows([interface], backends=RULES)
    with made:
        yield made


@contextlib.contextmanager
def _quiet() -> Iterator[Flows]:
    """A source that gets no packets but ours."""
    netns = Namespace()
    try:
        with source("lo", netns) as made:
            yield made
    finally:
        netns.close()


def _median(program: int, sent: bytes) -> float:
    bpf.run_on_frame(program, sent, balancer.REPEAT)
    runs = [bpf.run_on_frame(program, sent, balancer.REPEAT).ns for _ in range(balancer.ROUNDS)]
    return statistics.median(runs)


def hot(version: int, tcp: bool) -> tuple[float, float]:
    """Ns per packet, in and out."""
    with _quiet() as made, made.stream.subscribe() as events:
        wire = Wire(Followed(made, events), version, tcp=tcp)
        wire.handshake() if tcp else wire.sends()
        flags = ACK if tcp else None
        into, out = (
            _median(program, frame(*ends, flags=flags, seq=1001, ack=5001, payload=bytes(100)))
            for program, ends in zip(
                wire.programs,
                ((wire.backend, wire.client), (wire.client, wire.backend)),
                strict=True,
            )
        )
        return into, out


def other(version: int) -> tuple[float, float]:
    """Ns per TCP packet of a connection that is not followed, in and out."""
    with _quiet() as made:
        ends = ((BACKENDS[version][0], 5432), ("192.0.2.1" if version == 4 else "2001:db8::1", 9))
        sent = frame(*ends, flags=ACK, seq=1, ack=1, payload=bytes(100))
        into, out = (_median(program, sent) for program in made.program_fds)
        return into, out


def live(topology: Topology, load: balancer.Load) -> tuple[float, float]:
    """Ns per packet, in and out, behind a balancer; 0 if the load sends none."""
    empty = balancer.empty_program()
    try:
        with (
            source("b1", topology.balancer) as made,
            balancer.attached_beside(topology, empty),
            balancer.statistics_on(),
        ):
            load(topology, 4)
            totals = [balancer.measured(fd) for fd in (*made.program_fds, empty)]
    finally:
        os.close(empty)
    *programs, (ns, runs) = totals
    cost = ns / runs
    into, out = (ns / runs - cost if runs > 100 else 0.0 for ns, runs in programs)
    return into, out


def bulk(topology: Topology, *, followed: bool) -> float:
    """Seconds that a connection through the balancer's host takes for BULK_BYTES."""
    with contextlib.ExitStack() as stack:
        if followed:
            stack.enter_context(source("b1", topology.balancer))
        listener = stack.enter_context(topology.listen(BACKENDS[4][0], 8080))
        client = stack.enter_context(topology.connect(BACKENDS[4][0], 8080))
        server = stack.enter_context(listener.accept()[0])
        receiver = threading.Thread(target=_discard, args=(server,))
        receiver.start()
        began = time.perf_counter()
        chunk = bytes(1 << 20)
        for _ in range(BULK_BYTES // len(chunk)):
            client.sendall(chunk)
        client.shutdown(socket.SHUT_WR)
        receiver.join()
        return time.perf_counter() - began


def _discard(server: socket.socket) -> None:
    """Read to the end, without a copy."""
    while server.recv(1 << 20, socket.MSG_TRUNC):
        pass
