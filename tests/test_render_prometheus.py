"""A real Prometheus scrapes what was rendered, as it asks for it."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import lblatency
from lblatency import LatencyTracker
from tests.support.prometheus import ask, prometheus
from tests.support.rig import TARGET, wait_until
from tests.test_collector import HOSTILE

LATENCY = "lb_backend_latency_seconds"
NATIVE = "--enable-feature=native-histograms"
BOUND = (2 ** (1 / 8) - 1) / (2 ** (1 / 8) + 1)  # of schema 3: half a bucket


@contextmanager
def serving(tracker: LatencyTracker) -> Iterator[tuple[str, list[str]]]:
    """Serve with a plain thread per request; yields the address, and the types of all answers."""
    served: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body, content_type = lblatency.exposition(tracker, self.headers.get("Accept"))
            served.append(content_type)
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def recorded() -> tuple[LatencyTracker, list[int]]:
    """A tracker with latencies in ns, many of them on the bounds, or just above."""
    generator = random.Random(3)
    durations = [round(generator.lognormvariate(-1.5, 1.2) * 1e9) for _ in range(5000)]
    for bound in lblatency.DEFAULT_BUCKETS[:12]:
        durations += [round(bound * 1e9)] * 20 + [round(bound * 1e9) + 1] * 20
    durations += [0, 953, 954, 2**30]
    tracker = LatencyTracker()
    tracker.record_many("web", TARGET, [ns / 1e9 for ns in durations])
    for name in HOSTILE:
        tracker.record_latency(name, "10.0.0.9:80", 0.5)
    return tracker, sorted(durations)


def value(address: str, query: str) -> float | None:
    """The value of a query with one answer; None while there is none."""
    found = ask(address, query)
    return float(found[0]["value"][1]) if len(found) == 1 else None


def labels_of(address: str, metric: str) -> set[str]:
    """The proxies that a metric has series of."""
    return {each["metric"]["proxy_name"] for each in ask(address, metric)}


def test_prometheus_stores_the_classic_counts_exactly(tmp_path: Path) -> None:
    """As it comes, it asks for OpenMetrics; bounds are inclusive, and names are themselves."""
    tracker, durations = recorded()
    with serving(tracker) as (target, served), prometheus(tmp_path, target) as address:
        wait_until(lambda: value(address, f'{LATENCY}_count{{proxy_name="web"}}'), "a scrape")
        of_web = f'{LATENCY}_bucket{{proxy_name="web"}}'
        stored = {
            float(each["metric"]["le"]): float(each["value"][1]) for each in ask(address, of_web)
        }
        assert labels_of(address, f"{LATENCY}_count") == {"web", *HOSTILE}
        total = value(address, f'{LATENCY}_sum{{proxy_name="web"}}')
    assert served[0].startswith("application/openmetrics-text; version=1.0.0")
    assert stored == {
        bound: sum(ns <= bound * 1e9 for ns in durations)
        for bound in (*lblatency.DEFAULT_BUCKETS, math.inf)
    }
    assert total == tracker.get_all_histograms()["web", TARGET]["sum"]


def test_prometheus_computes_quantiles_of_native_buckets(tmp_path: Path) -> None:
    """With native histograms on it asks for protobuf, and errs by half a bucket at most."""
    tracker, durations = recorded()
    with serving(tracker) as (target, served), prometheus(tmp_path, target, NATIVE) as address:
        wait_until(lambda: value(address, "lblatency_running") == 0, "a scrape")
        for q in (0.5, 0.9, 0.99):
            found = value(address, f'histogram_quantile({q}, {LATENCY}{{proxy_name="web"}})')
            exact = durations[math.ceil(q * len(durations)) - 1] / 1e9
            assert found == pytest.approx(exact, rel=2 * BOUND)  # 2.42 interpolates linearly
        count = value(address, f'histogram_count({LATENCY}{{proxy_name="web"}})')
        total = value(address, f'histogram_sum({LATENCY}{{proxy_name="web"}})')
        assert labels_of(address, f"histogram_count({LATENCY})") == {"web", *HOSTILE}
        assert value(address, "lblatency_events_produced_total") == 0
    assert served[0].startswith("application/vnd.google.protobuf")
    assert count == len(durations)
    assert total == tracker.get_all_histograms()["web", TARGET]["sum"]
