"""Serve /metrics of a tracker, for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from ._address import format_target
from .collector import LatencyCollector
from .errors import LatencyError
from .tracker import LatencyTracker

__all__ = ["serve_metrics"]


@contextmanager
def serve_metrics(tracker: LatencyTracker, address: tuple[str, int]) -> Iterator[str]:
    """Serve while the block runs; yields the URL. Port 0 means any free port.

    Raises:
        LatencyError: the address is in use, or does not belong to this machine.
    """
    host, port = address
    registry = CollectorRegistry()
    registry.register(LatencyCollector(tracker))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise LatencyError(
            f"cannot listen on {format_target(host, port)}: {error.strerror}"
        ) from error
    try:
        yield f"http://{format_target(host, server.server_port)}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
