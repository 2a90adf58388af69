"""What the balancer's programs cost per packet: `sudo python benchmarks/nat_lb_cost.py`.

"hot": one packet of an established flow over and over (BPF_PROG_TEST_RUN), all caches warm, the
VIP being its own backend so that the packet stays what it is. "live": real traffic between
namespaces, from the kernel's own statistics, less what they give for an empty program that sees
the same packets at the balancer's other interface.
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
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "bpf"))

from netns import ACK, BACKENDS, FAMILY, VIP, Flow, Topology, bpf, frame, run_program

from lblatency.demo.balancer import NatBalancer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Load = Callable[[Topology, int], None]

PROG_LOAD, OBJ_PIN, ENABLE_STATS = 5, 6, 32
REPEAT, ROUNDS = 100_000, 9


@contextlib.contextmanager
def statistics_on() -> Iterator[None]:
    """Have the kernel measure every run of every program."""
    fd = bpf(ENABLE_STATS, struct.pack("=I", 0))
    try:
        yield
    finally:
        os.close(fd)


def measured(fd: int) -> tuple[int, int]:
    """Give a program's total of ns and runs."""
    text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return tuple(
        int(re.search(rf"{name}:\s*(\d+)", text)[1]) for name in ("run_time_ns", "run_cnt")
    )


def empty_program() -> int:
    """Load `return TC_ACT_UNSPEC`."""
    code = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, -1, 0x95, 0, 0, 0))
    license_ = ctypes.create_string_buffer(b"GPL")
    places = ctypes.addressof(code), ctypes.addressof(license_)
    return bpf(PROG_LOAD, struct.pack("=IIQQ", 3, 2, *places) + bytes(100))


@contextlib.contextmanager
def attached_beside(topology: Topology, program: int) -> Iterator[None]:
    """Attach a program both ways to the balancer's interface that faces the backends."""
    libc = ctypes.CDLL(None)
    context = libc.syscall(430, b"bpf", 1)  # fsopen, fsconfig, fsmount: mounted nowhere
    libc.syscall(431, context, 6, None, None, 0)
    mounted = libc.syscall(432, context, 1, 0)
    os.close(context)
    path = f"/proc/self/fd/{mounted}/empty"
    name = ctypes.create_string_buffer(path.encode())
    bpf(OBJ_PIN, struct.pack("=QII", ctypes.addressof(name), program, 0))
    topology.balancer.run("tc qdisc add dev b1 clsact")
    for way in ("ingress", "egress"):
        subprocess.run(
            ["nsenter", f"--net={topology.balancer.path}", "tc", "filter", "add", "dev", "b1", way,
             "bpf", "da", "object-pinned", path],
            pass_fds=[topology.balancer.fd, mounted],
            check=True,
        )  # fmt: skip
    try:
        yield
    finally:
        topology.balancer.run("tc qdisc del dev b1 clsact")
        os.close(mounted)


def hot(version: int, tcp: bool) -> list[float]:
    """Give ns per packet in and out."""
    where = f"[{VIP[version]}]:80" if version == 6 else f"{VIP[version]}:80"
    medians = []
    with NatBalancer() as balancer:
        balancer.add_listener(1, VIP[version], 80, "tcp" if tcp else "udp", [(1, where, 1)])
        flow = Flow(balancer, version, tcp=tcp)
        flow.backend = flow.vip
        flow.handshake() if tcp else flow.sends()
        rest = {"payload": bytes(100), "flags": ACK if tcp else None, "seq": 1001, "ack": 5001}
        ends = (flow.client, flow.vip), (flow.vip, flow.client)
        for fd, (source, target) in zip(flow.programs, ends, strict=True):
            sent = frame(source, target, **rest)
            run_program(fd, sent, REPEAT)
            runs = [run_program(fd, sent, REPEAT)[2] for _ in range(ROUNDS)]
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


def bulk(topology: Topology, version: int) -> None:
    """One long transfer from the backend."""
    with (
        topology.listen(BACKENDS[version][0], 8080) as server,
        topology.connect(VIP[version], 80) as client,
        server.accept()[0] as accepted,
    ):
        sender = threading.Thread(target=lambda: (accepted.sendall(bytes(1 << 30)),
                                                  accepted.shutdown(socket.SHUT_WR)))  # fmt: skip
        sender.start()
        while client.recv(1 << 20):
            pass
        sender.join()


def flood(topology: Topology, version: int) -> None:
    """Datagrams as fast as they can be sent, over 64 flows in turn; nobody reads them."""
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


def live(topology: Topology, version: int, load: Load) -> tuple[list[float], list[int], float]:
    """Give ns per packet in and out, how many packets, and what an empty program takes."""
    where = BACKENDS[version][0]
    where = f"[{where}]:8080" if version == 6 else f"{where}:8080"
    empty = empty_program()
    with NatBalancer() as balancer, attached_beside(topology, empty):
        for protocol in ("tcp", "udp"):
            balancer.add_listener(1, VIP[version], 80, protocol, [(1, where, 1)])
        balancer.attach("c1", topology.balancer.fd)
        fds = balancer.ingress_fd, balancer.egress_fd, empty
        with statistics_on():
            load(topology, version)
            totals = [measured(fd) for fd in fds]
    os.close(empty)
    *programs, (ns, runs) = totals
    cost = ns / runs
    # A handful of runs is the neighbours' business, not the load.
    times = [ns / runs - cost if runs > 100 else 0 for ns, runs in programs]
    return times, [runs for _, runs in programs], cost


def main() -> None:
    """Print the table."""
    print(f"{'case':<24}{'in, ns':>8}{'out, ns':>9}  subtracted, packets in/out")
    for version in FAMILY:
        for tcp in (True, False):
            times = hot(version, tcp)
            name = f"hot, {'TCP' if tcp else 'UDP'}, IPv{version}"
            print(f"{name:<24}{times[0]:>8.0f}{times[1]:>9.0f}")
    with Topology() as topology:
        for version in FAMILY:
            for load in (flood, ping_pong, bulk):
                times, packets, cost = live(topology, version, load)
                name = f"live, {load.__name__}, IPv{version}"
                print(f"{name:<24}{times[0]:>8.0f}{times[1]:>9.0f}  {cost:.0f}, {packets}")


if __name__ == "__main__":
    main()
