"""Serve /metrics of a tracker, for the command line."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from ._address import format_target
from .collector import LatencyCollector, Losing
from .errors import LatencyError
from .tracker import LatencyTracker

__all__ = ["serve_metrics"]


@contextmanager
def serve_metrics(
    tracker: LatencyTracker,
    address: tuple[str, int],
    *,
    sources: Sequence[Losing] | None = None,
    more: Iterable[Collector] = (),
) -> Iterator[str]:
    """Serve while the block runs; yields the URL.

    Args:
        tracker: what to serve.
        address: where to listen: an empty host means all addresses, port 0 any free port.
        sources: what they lost is served, too.
        more: further collectors.

    Raises:
        LatencyError: the address is in use, or does not belong to this machine.
    """
    host, port = address
    host = host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0")  # noqa: S104
    registry = CollectorRegistry()
    registry.register(LatencyCollector(tracker, sources=sources))
    for collector in more:
        registry.register(collector)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "that is no host name"
        raise LatencyError(f"cannot listen on {format_target(host, port)}: {why}") from error
    try:
        yield f"http://{format_target(host, server.server_port)}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
