"""Balancing by NAT in the kernel: by our own eBPF programs, which send events, or by nftables."""

from __future__ import annotations

from pathlib import Path

from ..sources import Flows, Source
from ..stats import create_event_stream
from .balancer import NatBalancer
from .namespace import inside_network_of
from .plan import BACKENDS, PROXIES, Proxy, backend_rules, backends_of
from .programs import find_program
from .topology import BACKEND_INTERFACE, CLIENT_INTERFACE, run_inside
from .worker import Worker

__all__ = ["open_ebpf", "open_nftables"]

_MOST_CONNECTIONS = 4096  # many times what the clients have open


class _Ebpf(Source):
    """The demo's own balancer, whose events tell of its connections."""

    def __init__(self, worker: Worker) -> None:
        self._balancer = NatBalancer(max_connections=_MOST_CONNECTIONS)
        try:
            for proxy in PROXIES:
                backends = [(one.number, one.target, one.weight) for one in backends_of(proxy)]
                self._balancer.add_listener(proxy.number, proxy.vip, proxy.port, "tcp", backends)
            with Path(f"/proc/{worker.pid}/ns/net").open("rb") as namespace:
                self._balancer.attach(CLIENT_INTERFACE, namespace.fileno())
            self.stream = create_event_stream(
                self._balancer.ring_fd, counters=self._balancer.counters_fd
            )
        except BaseException:
            self._balancer.close()
            raise
        self.stream.proxies = {proxy.number: proxy.name for proxy in PROXIES}

    def tick(self) -> None:
        """Let the balancer look for connections that ended without a packet."""
        self._balancer.sweep()

    def close(self) -> None:
        """Unload the balancer."""
        super().close()
        self._balancer.close()


def open_ebpf(worker: Worker) -> Source:
    """Put the demo's own balancer into the worker's namespace."""
    return _Ebpf(worker)


def _dnat(proxy: Proxy) -> str:
    """A rule that gives each new connection to a backend, by their weights."""
    family = "ip6" if ":" in proxy.vip else "ip"
    shares = [f"{one.host} . {one.port}" for one in backends_of(proxy) for _ in range(one.weight)]
    chosen = ", ".join(f"{number} : {share}" for number, share in enumerate(shares))
    return (
        f"{family} daddr {proxy.vip} tcp dport {proxy.port}"
        f" dnat {family} to numgen random mod {len(shares)} map {{ {chosen} }}"
    )


def open_nftables(worker: Worker) -> Source:
    """Have nftables balance in the worker's namespace, and follow the packets to the backends."""
    rules = ["type nat hook prerouting priority dstnat", *map(_dnat, PROXIES)]
    table = "\n".join(["table inet demo {", "chain in {", *rules, "}", "}"])
    run_inside(worker, [find_program("nft"), "-f", "-"], table)
    with inside_network_of(worker.pid):
        return Flows(
            [f"{BACKEND_INTERFACE}{one.number}" for one in BACKENDS], backends=backend_rules()
        )
