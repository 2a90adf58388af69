"""The real thing: TCP through a load balancer in network namespaces of our own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack

from .client import ENDED_LOST, Ending, unpack_endings
from .compare import Range, exactly
from .plan import BACKENDS, Backend
from .server import Served, unpack_served
from .source import TrafficSource, Truth
from .topology import Topology
from .ways import WAYS
from .worker import DemoError

__all__ = ["RealSource"]

_REPORT_S = 5.0


class RealSource(TrafficSource):
    """Builds the networks, puts a balancer between them, and follows its connections.

    Raises:
        BpfError: the kernel does not let the balancer or the source in.
        DemoError: the networks could not be made, or the balancer did not start.
    """

    def __init__(self, way: str, duration: float) -> None:
        self.name = way
        self._is_proxy = WAYS[way].is_proxy
        with ExitStack() as stack:
            self._topology = stack.enter_context(Topology(BACKENDS, duration))
            self._source = stack.enter_context(WAYS[way].open(self._topology.balancer))
            self.stream = self._source.stream
            self._stack = stack.pop_all()

    def start(self) -> None:
        """Let the clients begin."""
        self._topology.clients.go()

    def tick(self) -> None:
        """Do the regular work of what follows the connections.

        Raises:
            DemoError: the balancer has ended.
        """
        balancer = self._topology.balancer
        if balancer.has_ended():
            raise DemoError(f"the balancer has ended: {balancer.last_words() or 'without a word'}")
        self._source.tick()

    def lost(self) -> Mapping[str, int]:
        """What the source that follows the connections lost."""
        return self._source.lost()

    def failed_connects(self) -> Mapping[str, int]:
        """Which it saw fail."""
        return self._source.failed_connects()

    def finish(self) -> None:
        """Let the clients open no more connections."""
        self._topology.clients.finish()

    def finished(self) -> bool:
        """Whether the clients have begun to report, or ended."""
        return self._topology.clients.has_output()

    def truth(self) -> Truth:
        """What the clients' and the backends' own clocks say."""
        endings = unpack_endings(self._topology.clients.read_all(_REPORT_S))
        found = {served.token: (backend, served) for backend, served in self._served()}
        truth = Truth()
        for ending in endings:
            known = found.get(ending.token)
            if ending.how == ENDED_LOST or known is None:
                truth.lost += 1
            else:
                self._add(truth, ending, *known)
        return truth

    def _served(self) -> Iterator[tuple[Backend, Served]]:
        """What each backend had."""
        for backend in BACKENDS:
            server = self._topology.servers[backend.number]
            server.finish()
            for served in unpack_served(server.read_all(_REPORT_S)):
                yield backend, served

    def _add(self, truth: Truth, ending: Ending, backend: Backend, served: Served) -> None:
        """What both ends allow for the connection to the backend, which both clocks enclose.

        How long connecting took is told by the TCP of an end of that very connection.
        """
        started_ns, accepted_ns = ending.started_ns, served.accepted_ns
        ended_ns = ending.ended_ns if served.was_reset else served.ended_ns
        longest_s = (ended_ns - started_ns) / 1e9
        truth.add(
            backend,
            lifetime=Range((served.ending_ns - accepted_ns) / 1e9, longest_s),
            connect=exactly(served.handshake_s if self._is_proxy else ending.connect_s),
            first_byte=Range(
                (served.answered_ns - accepted_ns) / 1e9,
                # A proxy may drop the answer when the backend resets.
                ending.first_byte_s if ending.backend else longest_s,
            ),
            resets=served.was_reset,
        )

    def close(self) -> None:
        """Take down what follows the connections, then the balancer and the networks."""
        self._stack.close()
