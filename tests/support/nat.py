"""Two ways in which Linux balances by NAT: a map of nftables, and kube-proxy's iptables chains."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.netns import BACKENDS, VIP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.netns import Namespace, Topology

SERVICE, PORT = 80, 8080


def _target(version: int, which: int) -> str:
    address = BACKENDS[version][which]
    return f"[{address}]:{PORT}" if version == 6 else f"{address}:{PORT}"


def _nftables() -> str:
    chains = ""
    for version, family in ((4, "ip"), (6, "ip6")):
        for protocol in ("tcp", "udp"):
            first, second = (BACKENDS[version][which] for which in (0, 1))
            chains += (
                f"{family} daddr {VIP[version]} {protocol} dport {SERVICE} dnat {family} to"
                f" numgen inc mod 2 map {{ 0 : {first} . {PORT}, 1 : {second} . {PORT} }}\n"
            )
    return (
        "table inet balance {\n"
        "chain pre { type nat hook prerouting priority dstnat;\n" + chains + "}\n}\n"
    )


def end_without_time_wait(topology: Topology) -> None:
    """Let backends forget a connection as it ends: no ACK of its time answers a later SYN.

    NAT comes from the same port to the same backend as a connection before, if a client's port is
    used again or masquerading takes one at random. A backend that is in TIME_WAIT for it may send
    an ACK of that time. The client resets it, so NAT forgets its choice, and the client's next SYN
    may go to the other backend. That is a failed connect, and real, but no test's subject.
    """
    topology.backend.run("sysctl -qw net.ipv4.tcp_max_tw_buckets=0")


@contextmanager
def nftables(topology: Topology) -> Iterator[None]:
    """Each connection to the VIP goes to one of two backends, in turn."""
    topology.balancer.run("nft -f -", stdin=_nftables())
    try:
        yield
    finally:
        topology.balancer.run("nft delete table inet balance")


def _chains(version: int) -> str:
    """What kube-proxy writes for a service with two endpoints, for traffic from outside."""
    lines = ["*nat"]
    lines += [
        f":{chain} - [0:0]" for chain in ("KUBE-SERVICES", "KUBE-MARK-MASQ", "KUBE-POSTROUTING")
    ]
    lines += [
        "-A PREROUTING -j KUBE-SERVICES",
        "-A POSTROUTING -j KUBE-POSTROUTING",
        "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0",
        "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    ]
    for protocol in ("tcp", "udp"):
        name = protocol.upper()
        service = f"KUBE-SVC-{name}"
        lines += [f":{service} - [0:0]", f":KUBE-SEP-{name}0 - [0:0]", f":KUBE-SEP-{name}1 - [0:0]"]
        lines += [
            f"-A KUBE-SERVICES -d {VIP[version]} -p {protocol} --dport {SERVICE} -j {service}",
            f"-A {service} -j KUBE-MARK-MASQ",
            f"-A {service} -m statistic --mode random --probability 0.5 -j KUBE-SEP-{name}0",
            f"-A {service} -j KUBE-SEP-{name}1",
        ]
        lines += [
            f"-A KUBE-SEP-{name}{which} -p {protocol} -j DNAT --to-destination"
            f" {_target(version, which)}"
            for which in (0, 1)
        ]
    return "\n".join([*lines, "COMMIT", ""])


@contextmanager
def kube_proxy(topology: Topology) -> Iterator[None]:
    """The same with kube-proxy's chains: at random, and with the balancer's address as client."""
    commands = {4: "iptables", 6: "ip6tables"}
    try:
        for version, command in commands.items():
            topology.balancer.run(f"{command}-restore", stdin=_chains(version))
        yield
    finally:
        for command in commands.values():
            topology.balancer.run(f"{command} -t nat -F")
            topology.balancer.run(f"{command} -t nat -X")


WAYS = {"nftables": nftables, "kube-proxy": kube_proxy}


@contextmanager
def _deciding(namespace: Namespace, what: str) -> Iterator[None]:
    chain = f"chain in {{ type filter hook input priority 0\n{what}\n}}"
    namespace.run("nft -f -", stdin=f"table inet lossy {{\n{chain}\n}}\n")
    try:
        yield
    finally:
        namespace.run("nft delete table inet lossy")


@contextmanager
def dropping(namespace: Namespace, what: str) -> Iterator[None]:
    """Drop what comes to the namespace and matches an nftables expression."""
    with _deciding(namespace, f"{what} drop"):
        yield


@contextmanager
def rejecting(namespace: Namespace, what: str, how: str) -> Iterator[None]:
    """Answer it by ICMP instead: `how` is such as `icmp type port-unreachable`."""
    for limit in ("net.ipv4.icmp_ratelimit", "net.ipv6.icmp.ratelimit"):
        namespace.run(f"sysctl -qw {limit}=0")
    with _deciding(namespace, f"{what} reject with {how}"):
        yield
