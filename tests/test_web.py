"""Web applications on gunicorn and uvicorn: who has the ring, and what each process exports."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.rig import wait_until

README = Path(__file__).parent.parent / "README.md"
PIN = '"/sys/fs/bpf/mylb/lbl_events"'
RING = """
from lblatency import stats

ring = stats.MemoryRing()

def feed():
    for _ in range(3):
        ring.produce(stats.Event("closed", "10.0.0.1:80", 3 * 10**9, 10**9).pack())
"""
WORKER = """
import os
import lblatency
from prometheus_client import CollectorRegistry, Counter, make_wsgi_app, multiprocess

requests = Counter("requests", "Requests to this application")
tracker = lblatency.default_tracker

def metrics():  # made in the worker
    registry = CollectorRegistry()
    registry.register(lblatency.LatencyCollector(tracker, const_labels={"pid": os.getpid()}))
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.MultiProcessCollector(registry)
    return make_wsgi_app(registry)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/metrics":
        return metrics()(environ, start_response)
    tracker.record_latency("app", "10.0.0.2:80", 0.25)
    requests.inc()
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""
OWN_TRACKER = """
import lblatency
from memory_ring import feed, ring

stream = lblatency.stats.create_event_stream(ring)
lblatency.start(stream, None, "web")
feed()
stream.drain()
"""
LIFESPAN = """
import asyncio
import lblatency
from memory_ring import feed, ring, stats
from prometheus_client import CollectorRegistry, make_asgi_app

tracker = lblatency.LatencyTracker()
registry = CollectorRegistry()
registry.register(lblatency.LatencyCollector(tracker))
metrics = make_asgi_app(registry)
seen = []

async def follow(subscription):
    async for event in subscription:
        seen.append(event)

async def app(scope, receive, send):
    if scope["type"] == "http":
        return await metrics(scope, receive, send)
    await receive()
    with stats.create_event_stream(ring) as stream, tracker:
        subscription = stream.subscribe()
        tracker.start(stream, None, "web")
        follower = asyncio.create_task(follow(subscription))
        feed()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        subscription.close()
        await follower
    print(len(seen), tracker.running(), tracker.event_counts()["recorded"], flush=True)
    await send({"type": "lifespan.shutdown.complete"})
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def serving(folder: Path, *command: str, **env: str) -> Iterator[tuple[str, list[str]]]:
    """Run a server until the end of the block.

    Yields its URL, and a list that has what it printed after the block.
    """
    log = folder / "log"
    printed: list[str] = []
    with log.open("w") as to:
        server = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=folder, stdout=to, stderr=to,
            env={**os.environ, "PYTHONWARNINGS": "ignore::DeprecationWarning", **env},
        )  # fmt: skip

    def url() -> str | None:
        assert server.poll() is None, log.read_text()
        found = re.search(r"(http://127.0.0.1:\d+)", log.read_text())
        return found and found[1]

    try:
        yield wait_until(url, "the server to listen"), printed
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            code = server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
            raise
    printed.append(log.read_text())
    assert "Traceback" not in printed[0]
    assert code in (0, -signal.SIGTERM), printed[0]  # uvicorn ends by the signal


def scrape(url: str) -> dict[str, float]:
    """The sums over the samples of each name; `pid` is the process that answered."""
    found: dict[str, float] = {}
    with urlopen(url, timeout=20) as answer:
        for family in text_string_to_metric_families(answer.read().decode()):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0) + sample.value
                found["pid"] = float(sample.labels.get("pid", found.get("pid", 0)))
    return found


def use(url: str) -> int:
    """Make a request to the application; returns the worker's pid."""
    with urlopen(url, timeout=20) as answer:
        return int(answer.read())


def readme_block(first_line: str) -> str:
    """The block of README that starts with this line."""
    found = re.search(rf"```python\n({re.escape(first_line)}\n.*?)```", README.read_text(), re.S)
    assert found, f"README.md has no block that starts with {first_line!r}"
    return found[1]


def write(folder: Path, **modules: str) -> None:
    """Write Python modules into the folder that a server runs in."""
    for name, text in {"memory_ring": RING, **modules}.items():
        (folder / f"{name}.py").write_text(text)


def about_rings(found: dict[str, float]) -> list[str]:
    """The names of series that only the process with the ring has."""
    return [name for name in found if re.match(r"lblatency_(ring|events|closed_ev|.*_open)", name)]


EXPOSITION = """
lblatency.record_latency("web", "10.0.0.1:80", 2)
"""
ACCEPTS = {
    "*/*": "text/plain; version=0.0.4; charset=utf-8",
    "application/openmetrics-text;version=1.0.0,*/*;q=0.1": (
        "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
    ),
}


@pytest.mark.parametrize(
    "command",
    [
        ("gunicorn", "-w2", "-b", "127.0.0.1:0", "app:wsgi_metrics"),
        ("uvicorn", "--port", "0", "--lifespan", "off", "app:asgi_metrics"),
        ("uvicorn", "--port", "0", "app:app"),
    ],
    ids=["wsgi", "asgi", "fastapi"],
)
def test_exposition_in_any_web_server(tmp_path: Path, command: tuple[str, ...]) -> None:
    """README's three applications answer with what was asked for, and say what it is."""
    block = readme_block("# /metrics of an application that has a web server")
    write(tmp_path, app=block + EXPOSITION)
    with serving(tmp_path, *command) as (url, _):
        for accept, content_type in ACCEPTS.items():
            request = Request(f"{url}/metrics", headers={"Accept": accept})
            with urlopen(request, timeout=20) as answer:
                assert answer.headers["Content-Type"] == content_type
                assert b'lb_backend_latency_seconds_sum{proxy_name="web",' in answer.read()
        assert scrape(f"{url}/metrics")["lb_backend_latency_seconds_sum"] == 2


@pytest.mark.parametrize("preload", [True, False])
def test_the_master_has_the_ring_and_workers_say_so(tmp_path: Path, preload: bool) -> None:
    """README's gunicorn.conf.py: the master exports the ring, each worker its own latencies."""
    port = free_port()
    conf = readme_block("# gunicorn.conf.py")
    assert conf.count(PIN) == conf.count("9100") == 1
    conf = "from memory_ring import feed, ring\nfeed()\n" + conf.replace(PIN, "ring").replace(
        "9100", str(port)
    )
    write(tmp_path, app=WORKER)
    (tmp_path / "gunicorn.conf.py").write_text(conf + f"preload_app = {preload}\n")
    with serving(tmp_path, "gunicorn", "-w1", "-b", "127.0.0.1:0", "app:app") as (url, _):
        pid = use(url)
        use(url)
        worker = scrape(f"{url}/metrics")
        master = wait_until(
            lambda: (
                (found := scrape(f"http://127.0.0.1:{port}/metrics"))[
                    "lblatency_events_received_total"
                ]
                and found
            ),
            "the master to drain the ring",
        )
    assert worker["pid"] == pid
    assert worker["lblatency_running"] == 0
    assert worker["lb_backend_latency_seconds_count"] == 2
    assert worker["lb_backend_latency_seconds_sum"] == 0.5
    assert about_rings(worker) == []
    assert master["lblatency_running"] == 1
    assert master["lb_backend_latency_seconds_count"] == 3
    assert master["lblatency_events_received_total"] == 3
    assert about_rings(master)


@pytest.mark.parametrize("preload", [True, False])
def test_a_tracker_that_the_application_starts(tmp_path: Path, preload: bool) -> None:
    """It is the master's if preloaded, so that the worker has a copy; otherwise the worker's."""
    write(tmp_path, app=OWN_TRACKER + WORKER)
    options = ["--preload"] if preload else []
    with serving(tmp_path, "gunicorn", *options, "-w1", "-b", "127.0.0.1:0", "app:app") as (url, _):
        use(url)
        found = scrape(f"{url}/metrics")
    assert found["lblatency_running"] == (0 if preload else 1)
    assert found["lb_backend_latency_seconds_count"] == (1 if preload else 4)
    assert bool(about_rings(found)) is not preload


def test_multiprocess_mode_knows_no_trackers(tmp_path: Path) -> None:
    """A worker's scrape has the sum of all workers' counters, and its own tracker's latencies."""
    write(tmp_path, app=WORKER)
    (tmp_path / "metrics").mkdir()
    env = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
    with serving(tmp_path, "gunicorn", "-w2", "-b", "127.0.0.1:0", "app:app", **env) as (url, _):
        uses: dict[int, int] = {}

        def both_have_worked() -> bool:
            pid = use(url)
            uses[pid] = uses.get(pid, 0) + 1
            return len(uses) == 2

        wait_until(both_have_worked, "both workers to answer")
        found = scrape(f"{url}/metrics")
    assert found["requests_total"] == sum(uses.values())
    assert found["lb_backend_latency_seconds_count"] == uses[int(found["pid"])]


def test_uvicorn_starts_and_stops_with_the_lifespan(tmp_path: Path) -> None:
    """The tracker and a subscriber run in its event loop's process, and end in order."""
    write(tmp_path, app=LIFESPAN)
    with serving(tmp_path, "uvicorn", "--port", "0", "app:app") as (url, printed):
        found = wait_until(
            lambda: (
                (found := scrape(f"{url}/metrics"))["lblatency_events_received_total"] == 3
                and found
            ),
            "the ring to be drained",
        )
    assert found["lblatency_running"] == 1
    assert found["lb_backend_latency_seconds_count"] == 3
    assert "\n3 False 3\n" in printed[0]
