"""What the balancer's programs cost per packet: `sudo python benchmarks/nat_lb_cost.py`.

"hot": one packet of an established flow over and over (BPF_PROG_TEST_RUN), all caches warm, the
VIP being its own backend so that the packet stays what it is. "live": real traffic between
namespaces, from the kernel's own statistics less what taking them costs, which is what a hot run
takes longer with them.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import statistics
import struct
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "bpf"))

from netns import ACK, BACKENDS, FAMILY, VIP, Flow, Topology, bpf, frame, run_program

from lblatency._ffi import lib
from lblatency.demo.balancer import NatBalancer

if TYPE_CHECKING:
    from collections.abc import Iterator

ENABLE_STATS = 32
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


def hot(version: int, tcp: bool) -> tuple[list[float], list[float]]:
    """Give ns per packet, and what the statistics make of it, in and out."""
    plain, with_statistics = [], []
    where = f"[{VIP[version]}]:80" if version == 6 else f"{VIP[version]}:80"
    with NatBalancer() as balancer:
        balancer.add_listener(1, VIP[version], 80, "tcp" if tcp else "udp", [(1, where, 1)])
        flow = Flow(balancer, version, tcp=tcp)
        flow.backend = flow.vip
        flow.handshake() if tcp else flow.sends()
        rest = {"payload": bytes(100), "flags": ACK if tcp else None, "seq": 1001, "ack": 5001}
        ends = (flow.client, flow.vip), (flow.vip, flow.client)
        for fd, (source, target) in zip(flow._programs, ends, strict=True):
            sent = frame(source, target, **rest)
            run_program(fd, sent, REPEAT)
            runs = [run_program(fd, sent, REPEAT)[2] for _ in range(ROUNDS)]
            plain.append(statistics.median(runs))
            with statistics_on():
                before = measured(fd)
                run_program(fd, sent, REPEAT)
                after = measured(fd)
            with_statistics.append((after[0] - before[0]) / (after[1] - before[1]))
    return plain, with_statistics


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


def live(topology: Topology, version: int, load: object) -> tuple[list[float], list[int]]:
    """Give ns per packet as the statistics have it, in and out, and how many packets."""
    where = BACKENDS[version][0]
    where = f"[{where}]:8080" if version == 6 else f"{where}:8080"
    with NatBalancer() as balancer:
        for protocol in ("tcp", "udp"):
            balancer.add_listener(1, VIP[version], 80, protocol, [(1, where, 1)])
        balancer.attach("c1", topology.balancer.fd)
        with statistics_on():
            load(topology, version)
            totals = [
                measured(program(balancer._lb))
                for program in (lib.lbl_natlb_ingress_fd, lib.lbl_natlb_egress_fd)
            ]
    return [ns / max(runs, 1) for ns, runs in totals], [runs for _, runs in totals]


def main() -> None:
    """Print the table."""
    print(f"{'case':<24}{'in, ns':>8}{'out, ns':>9}  packets in/out")
    extra = []
    for version in FAMILY:
        for tcp in (True, False):
            plain, with_statistics = hot(version, tcp)
            extra += [b - a for a, b in zip(plain, with_statistics, strict=True)]
            name = f"hot, {'TCP' if tcp else 'UDP'}, IPv{version}"
            print(f"{name:<24}{plain[0]:>8.0f}{plain[1]:>9.0f}")
    cost = statistics.median(extra)
    print(f"cost of the statistics, subtracted below: {cost:.0f} ns")
    with Topology() as topology:
        for version in FAMILY:
            for load in (flood, ping_pong, bulk):
                times, packets = live(topology, version, load)
                name = f"live, {load.__name__}, IPv{version}"
                both = [f"{ns - cost:.0f}" if ns else "-" for ns in times]
                print(f"{name:<24}{both[0]:>8}{both[1]:>9}  {packets}")


if __name__ == "__main__":
    main()
