"""The cost per packet of the demo balancer's programs.

"hot": the same packet of an established flow, repeated (BPF_PROG_TEST_RUN), with warm caches. The
VIP is its own backend, so that the packet stays the same. "live": real traffic between namespaces,
measured by the kernel's statistics, less their figure for an empty program that sees the same
packets at the balancer's other interface.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import socket
import statistics
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from lblatency.demo.balancer import NatBalancer
from tests.support import bpf
from tests.support.balancer import Flow
from tests.support.netns import BACKENDS, FAMILY, VIP, Topology
from tests.support.packets import ACK, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Load = Callable[[Topology, int], None]

REPEAT, ROUNDS = 100_000, 9
CONNECTIONS = {"TCP, IPv4": (4, True), "TCP, IPv6": (6, True), "UDP, IPv4": (4, False)}
WAYS = ["in", "out"]


@contextlib.contextmanager
def statistics_on() -> Iterator[None]:
    """Make the kernel measure every run of every program."""
    fd = bpf.call(bpf.ENABLE_STATS, struct.pack("=I", 0))
    try:
        yield
    finally:
        os.close(fd)


def measured(fd: int) -> tuple[int, int]:
    """The total ns and runs of a program."""
    text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    found = dict(re.findall(r"^(run_time_ns|run_cnt):\s*(\d+)", text, re.MULTILINE))
    return int(found["run_time_ns"]), int(found["run_cnt"])


def empty_program() -> int:
    """Load `return TC_ACT_UNSPEC`."""
    code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, -1, 0x95, 0, 0, 0))
    license_ = ctypes.create_string_buffer(b"GPL")
    places = ctypes.addressof(code), ctypes.addressof(license_)
    return bpf.call(bpf.PROG_LOAD, struct.pack("=IIQQ", 3, 2, *places) + bytes(100))


def empty_ns() -> float:
    """Ns that a program takes that does nothing."""
    fd = empty_program()
    runs = [bpf.run_on_frame(fd, bytes(100), REPEAT).ns for _ in range(ROUNDS)]
    os.close(fd)
    return statistics.median(runs)


@contextlib.contextmanager
def attached_beside(topology: Topology, program: int) -> Iterator[None]:
    """Attach a program both ways to the balancer's interface that faces the backends."""
    with bpf.mounted_bpffs() as bpffs:
        path = f"{bpffs.path}/empty"
        bpf.pin(program, path)
        topology.balancer.run("tc qdisc add dev b1 clsact")
        for way in ("ingress", "egress"):
            subprocess.run(
                ["nsenter", f"--net={topology.balancer.path}", "tc", "filter", "add", "dev", "b1",
                 way, "bpf", "da", "object-pinned", path],
                pass_fds=[topology.balancer.fd, bpffs.fd],
                check=True,
            )  # fmt: skip
        try:
            yield
        finally:
            topology.balancer.run("tc qdisc del dev b1 clsact")


def hot(version: int, tcp: bool) -> list[float]:
    """Ns per packet, in and out."""
    where = f"[{VIP[version]}]:80" if version == 6 else f"{VIP[version]}:80"
    medians = []
    with NatBalancer() as balancer:
        balancer.add_listener(1, VIP[version], 80, "tcp" if tcp else "udp", [(1, where, 1)])
        flow = Flow(balancer, version, tcp=tcp)
        flow.backend = flow.vip
        flow.handshake() if tcp else flow.sends()
        flags = ACK if tcp else None
        ends = (flow.client, flow.vip), (flow.vip, flow.client)
        for fd, (source, target) in zip((flow.ingress, flow.egress), ends, strict=True):
            sent = frame(source, target, flags=flags, seq=1001, ack=5001, payload=bytes(100))
            bpf.run_on_frame(fd, sent, REPEAT)
            runs = [bpf.run_on_frame(fd, sent, REPEAT).ns for _ in range(ROUNDS)]
            medians.append(statistics.median(runs))
    return medians


def ping_pong(topology: Topology, version: int) -> None:
    """Many small requests and replies, one after the other, over 64 connections in turn."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(topology.listen(BACKENDS[version][0], 8080))
        pairs = []
        for _ in range(64):
            client = stack.enter_context(topology.connect(VIP[version], 80))
            pairs.append((client, stack.enter_context(server.accept()[0])))
        for turn in range(20_000):
            client, accepted = pairs[turn % 64]
            client.sendall(b"request")
            accepted.recv(100)
            accepted.sendall(b"reply")
            client.recv(100)


def flood(topology: Topology, version: int) -> None:
    """Datagrams as fast as possible, over 64 flows in turn; nothing reads them."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(topology.backend.socket(FAMILY[version], socket.SOCK_DGRAM))
        server.bind((BACKENDS[version][0], 8080))
        clients = []
        for _ in range(64):
            client = topology.client.socket(FAMILY[version], socket.SOCK_DGRAM)
            client.connect((VIP[version], 80))
            client.setblocking(False)
            clients.append(stack.enter_context(client).send)
        for _ in range(4_000):
            for send in clients:
                send(b"request")


@contextlib.contextmanager
def attached(topology: Topology, version: int) -> Iterator[NatBalancer]:
    """A balancer of one backend for TCP and UDP, facing the clients."""
    where = BACKENDS[version][0]
    where = f"[{where}]:8080" if version == 6 else f"{where}:8080"
    with NatBalancer() as balancer:
        for protocol in ("tcp", "udp"):
            balancer.add_listener(1, VIP[version], 80, protocol, [(1, where, 1)])
        balancer.attach("c1", topology.balancer.fd)
        yield balancer


def live(topology: Topology, version: int, load: Load) -> list[float]:
    """Ns per packet, in and out; 0 if the load sends none."""
    empty = empty_program()
    with attached(topology, version) as balancer, attached_beside(topology, empty):
        fds = balancer.ingress_fd, balancer.egress_fd, empty
        with statistics_on():
            load(topology, version)
            totals = [measured(fd) for fd in fds]
    os.close(empty)
    *programs, (ns, runs) = totals
    cost = ns / runs
    # A handful of runs comes from other packets, not from the load.
    return [ns / runs - cost if runs > 100 else 0 for ns, runs in programs]


LOADS: dict[str, Load] = {"ping_pong": ping_pong, "flood": flood}
