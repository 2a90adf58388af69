"""The real thing: TCP through an eBPF load balancer in network namespaces of our own."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from ..stats import create_event_stream
from .balancer import NatBalancer
from .client import ENDED_LOST, unpack_endings
from .plan import BACKENDS, PROXIES, backend_numbered
from .source import TrafficSource, Truth
from .topology import CLIENT_INTERFACE, Topology

__all__ = ["EbpfSource"]

_REPORT_S = 5.0
_MOST_CONNECTIONS = 4096  # many times what the clients have open


class EbpfSource(TrafficSource):
    """Loads the balancer, builds the networks and puts the one into the other.

    Raises:
        BpfError: the kernel does not let the balancer in.
        DemoError: the networks could not be made.
    """

    name = "ebpf"

    def __init__(self, duration: float) -> None:
        with ExitStack() as stack:
            self._balancer = stack.enter_context(NatBalancer(max_connections=_MOST_CONNECTIONS))
            self._topology = stack.enter_context(Topology(BACKENDS, duration))
            for proxy in PROXIES:
                backends = [
                    (backend.number, backend.target, backend.weight)
                    for backend in BACKENDS
                    if backend.proxy == proxy
                ]
                self._balancer.add_listener(proxy.number, proxy.vip, proxy.port, "tcp", backends)
            with Path(f"/proc/{self._topology.balancer.pid}/ns/net").open("rb") as namespace:
                self._balancer.attach(CLIENT_INTERFACE, namespace.fileno())
            self.stream = create_event_stream(
                self._balancer.ring_fd, counters=self._balancer.counters_fd
            )
            self._stack = stack.pop_all()

    def start(self) -> None:
        """Let the clients begin."""
        self._topology.clients.go()

    def tick(self) -> None:
        """Let the balancer look for connections that ended without a packet."""
        self._balancer.sweep()

    def finish(self) -> None:
        """Let the clients open no more connections."""
        self._topology.clients.finish()

    def finished(self) -> bool:
        """Whether the clients have begun to report, or ended."""
        return self._topology.clients.has_output()

    def truth(self) -> Truth:
        """What the clients' own clocks say."""
        truth = Truth()
        for ending in unpack_endings(self._topology.clients.read_all(_REPORT_S)):
            if ending.how == ENDED_LOST or not ending.backend:
                truth.lost += 1
            else:
                truth.add(
                    backend_numbered(ending.backend),
                    lifetime=ending.lifetime_s,
                    connect=ending.connect_s,
                    first_byte=ending.first_byte_s,
                )
        return truth

    def close(self) -> None:
        """Unload the balancer and end the workers, their namespaces with them."""
        super().close()
        self._stack.close()
