"""Serving a tracker's /metrics, for the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from .collector import LatencyCollector
from .errors import LatencyError
from .tracker import LatencyTracker

__all__ = ["serve_metrics", "split_listen"]


def split_listen(listen: str) -> tuple[str, int]:
    """`address:port` in two.

    Raises:
        ValueError: it is not of that form.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{listen!r} is not of the form address:port")
    return host.strip("[]"), int(port)


@contextmanager
def serve_metrics(tracker: LatencyTracker, address: tuple[str, int]) -> Iterator[str]:
    """Serve while the block runs; gives the URL. Port 0 takes a free one.

    Raises:
        LatencyError: the address is taken or not this machine's.
    """
    host, port = address
    registry = CollectorRegistry()
    registry.register(LatencyCollector(tracker))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise LatencyError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    try:
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
