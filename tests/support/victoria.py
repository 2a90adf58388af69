"""A real VictoriaMetrics that scrapes text and takes OTLP, and answers as Prometheus does."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.fetched import fetched
from tests.support.prometheus import ended, first_match, write_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATH = "/opentelemetry/v1/metrics"


@contextmanager
def victoria_metrics(folder: Path, target: str = "") -> Iterator[str]:
    """Run it during the block; it scrapes the target, if there is one. Yields its address."""
    server = [
        fetched("victoria-metrics"),
        f"-storageDataPath={folder / 'data'}",
        "-httpListenAddr=127.0.0.1:0",
        "-search.latencyOffset=1s",  # without it, queries see nothing for half a minute
    ]
    if target:
        server.append(f"-promscrape.config={write_config(folder, target)}")
    with ended(server) as running:
        yield first_match(running, r"started server at http://(127\.0\.0\.1:\d+)")
