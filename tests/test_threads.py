"""Threads, forks, exits and every order of destruction lose nothing and leak nothing."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import threading
from array import array
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import lblatency
from lblatency import LatencyCollector, LatencyTracker, stats
from tests.support.rig import SECOND, TARGET, Rig, assert_accounted, closed, in_child, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOUR = 3600 * SECOND


@contextmanager
def meanwhile(*jobs: Callable[[], object]) -> Iterator[None]:
    """Run each job repeatedly in its own thread; raise the errors of the jobs."""
    done = threading.Event()
    errors: list[BaseException] = []

    def repeat(job: Callable[[], object]) -> None:
        try:
            while not done.is_set():
                job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    assert not errors, errors


def scraper(tracker: LatencyTracker) -> Callable[[], bytes]:
    """A function that scrapes the tracker."""
    registry = CollectorRegistry()
    registry.register(LatencyCollector(tracker))
    return lambda: generate_latest(registry)


def test_every_observation_is_counted_once() -> None:
    """Each counts once while 8 threads record, and others drain, scrape and reset."""
    rig, other = Rig(4096), LatencyTracker()
    other.start(rig.stream, None, "other")
    produced = itertools.count()

    def record(number: int) -> None:
        for i in range(5000):
            rig.tracker.record_latency("web", f"10.0.0.{(number + i) % 5}:80", i % 7)

    def produce() -> None:
        number = next(produced)
        rig.ring.produce(closed(number % 7 * SECOND, f"10.0.0.{number % 5}:80"))

    threads = [threading.Thread(target=record, args=(number,)) for number in range(8)]
    with meanwhile(produce, rig.stream.drain, scraper(rig.tracker), other.reset_histograms):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rig.tracker.stop()
    other.stop()
    counts = assert_accounted(rig.tracker)
    assert counts["produced"] == next(produced)
    assert counts["observed"] == 40_000
    everything = rig.tracker.get_all_histograms().values()
    assert sum(histogram["count"] for histogram in everything) == 40_000 + counts["recorded"]
    assert assert_accounted(other)["recorded"] == counts["recorded"]


def test_one_is_observed_while_many_are_recorded() -> None:
    """An observe() during a record_many() waits, and is not lost."""
    tracker = LatencyTracker()
    backend, many = tracker.backend("web", "10.0.0.1:80"), array("d", [0.5]) * 200_000
    recorded = itertools.count()

    def record_many() -> None:
        tracker.record_many("web", "10.0.0.1:80", many)
        next(recorded)

    with meanwhile(record_many):
        for _ in range(300_000):
            backend.observe(0.25)
    n = next(recorded)
    histogram = tracker.get_histogram("web", "10.0.0.1:80")
    assert histogram is not None
    assert histogram["count"] == 300_000 + n * len(many)
    assert histogram["sum"] == 300_000 * 0.25 + n * len(many) * 0.5
    assert n


def test_the_sum_closes_while_events_fly() -> None:
    """For a ring in memory every reading adds up, not only the last."""
    rig = Rig(4096)
    with meanwhile(lambda: rig.ring.produce(closed(HOUR)), rig.stream.drain):
        for _ in range(2000):
            found = rig.stream.stats()
            assert found.produced == found.received + (found.dropped or 0) + found.in_ring
    rig.tracker.stop()


def resources() -> dict[str, int]:
    """The fds, threads, mappings and memory of this process.

    The memory (KiB) is what has no file behind it, swapped out or not: of files, the kernel keeps
    as much in memory as others leave room for.
    """
    gc.collect()
    with open("/proc/self/status") as status, open("/proc/self/maps") as maps:
        fields = dict(line.split(":", 1) for line in status)
        return {
            "fds": len(os.listdir("/proc/self/fd")),
            "threads": len(os.listdir("/proc/self/task")),
            "maps": len(maps.readlines()),
            "kib": sum(int(fields[key].split()[0]) for key in ("RssAnon", "RssShmem", "VmSwap")),
        }


def test_a_thousand_starts_and_stops_leak_nothing() -> None:
    """No fd, thread, mapping or memory leaks, whether streams stay or go."""
    tracker = LatencyTracker()
    rig = Rig()

    def cycle() -> None:
        ring = stats.MemoryRing(4096)
        stream = stats.create_event_stream(ring)
        with stream.subscribe(maxsize=10):
            tracker.start(stream, None, "web")
            ring.produce(closed(SECOND))
            tracker.stop()
        rig.tracker.start(rig.stream, None, "web")
        rig.send(closed(SECOND))
        rig.tracker.stop()
        short = LatencyTracker()
        short.start([stream, rig.stream], None, "web")

    for _ in range(100):
        cycle()
    before = resources()
    for _ in range(1000):
        cycle()
    after = resources()
    assert tracker.get_all_histograms()["web", TARGET]["count"] == 1100
    assert after["kib"] - before["kib"] < 2048
    assert after["maps"] - before["maps"] < 10
    assert (after["fds"], after["threads"]) == (before["fds"], before["threads"])


# ---- fork ----


def test_a_child_has_the_histograms_but_not_the_stream() -> None:
    """The child reads and records its own copy; the ring stays with the parent."""
    rig = Rig()
    subscription = rig.stream.subscribe()
    rig.send(closed(HOUR))
    rig.tracker.record_latency("web", TARGET, 1)

    def child() -> None:
        assert rig.tracker.running() is False
        histogram = rig.tracker.get_all_histograms()["web", TARGET]
        assert (histogram["count"], histogram["sum"]) == (2, 3601)
        rig.tracker.record_latency("web", TARGET, 2)
        rig.tracker.record_latency("api", "[2001:db8::1]:80", 2)
        assert rig.tracker.get_all_histograms()["web", TARGET]["count"] == 3
        assert b"lb_backend_latency_seconds_count" in scraper(rig.tracker)()
        with pytest.raises(lblatency.BpfError, match="belongs to the parent process"):
            rig.stream.drain()
        with pytest.raises(lblatency.BpfError, match="belongs to the parent process"):
            rig.ring.produce(closed(HOUR))
        with pytest.raises(lblatency.BpfError, match="belongs to the parent process"):
            rig.tracker.start(rig.stream, None, "web")
        rig.tracker.stop()
        rig.tracker.reset_histograms()
        own = Rig()
        own.send(closed(HOUR))
        assert own.tracker.running()
        assert own.tracker.get_all_histograms()["web", TARGET]["count"] == 1
        subscription.close()

    in_child(child)
    assert rig.tracker.running()
    rig.send(closed(HOUR))
    assert [subscription.get(timeout=0) is not None for _ in range(3)] == [True, True, False]
    assert rig.tracker.get_all_histograms()["web", TARGET]["count"] == 3
    assert assert_accounted(rig.tracker)["produced"] == 2


def test_forks_while_everything_is_busy() -> None:
    """A child never waits for a lock that a thread held at the fork."""
    rig = Rig(1 << 20)
    names = itertools.count()
    subscription = rig.stream.subscribe(maxsize=10)
    rig.send(closed(HOUR))

    def child() -> None:
        assert rig.tracker.running() is False
        rig.tracker.event_counts()
        assert rig.tracker.get_all_histograms()["web", TARGET]["count"] > 0
        rig.tracker.record_latency("new in the child", TARGET, 1)
        assert subscription.dropped >= 0
        LatencyTracker().start(stats.create_event_stream(stats.MemoryRing(4096)), None, "web")

    def name_proxies() -> None:
        rig.tracker.record_latency(f"proxy {next(names) % 2000}", TARGET, 1)

    def look_for_names() -> None:
        assert rig.tracker.get_histogram("unknown", TARGET) is None

    with meanwhile(
        lambda: [rig.ring.produce(closed(HOUR)) for _ in range(100)],
        rig.stream.drain,
        rig.tracker.get_status,
        name_proxies,
        look_for_names,
        lambda: subscription.get(timeout=0),
    ):
        for _ in range(60):
            in_child(child)
    rig.tracker.stop()
    assert_accounted(rig.tracker)


# ---- the end ----

EXITS = {
    "running": "",
    "a daemon thread waits": """
subscription = stream.subscribe()
threading.Thread(target=subscription.get, daemon=True).start()
""",
    "a daemon thread iterates and records": """
def follow():
    for event in stream.subscribe():
        tracker.record_latency("web", event.target, 1)
threading.Thread(target=follow, daemon=True).start()
threading.Thread(target=flood, daemon=True).start()
""",
    "flooded": """
threading.Thread(target=flood, daemon=True).start()
threading.Thread(target=stream.drain, daemon=True).start()
""",
    "the process-wide tracker runs": """
lblatency.start(stream, None, "web")
lblatency.record_latency("web", "10.0.0.1:80", 1)
""",
    "half closed": """
stream.close()
del ring
""",
    "sys.exit in atexit": """
import atexit
atexit.register(tracker.get_status)
atexit.register(tracker.stop)
""",
}
PREAMBLE = """
import threading
from array import array
import lblatency
from lblatency import stats
ring = stats.MemoryRing(1 << 16)
stream = stats.create_event_stream(ring)
tracker = lblatency.LatencyTracker()
tracker.start(stream, None, "web")
record = stats.Event("closed", "10.0.0.1:80", 2000, 1000).pack()
ring.produce(record)
def flood():
    while True:
        ring.produce(record)
"""


@pytest.mark.parametrize("situation", EXITS)
def test_the_interpreter_exits_cleanly(situation: str) -> None:
    """The process exits at once with 0 and no output, with threads running or waiting."""
    script = PREAMBLE + EXITS[situation]
    for _ in range(3):
        ran = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, timeout=30, check=False
        )
        assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.parametrize("order", [*itertools.permutations(["ring", "stream", "tracker", "queue"])])
def test_any_order_of_going_away(order: tuple[str, ...]) -> None:
    """The objects that remain miss no event, in every order of destruction."""
    ring = stats.MemoryRing(4096)
    stream = stats.create_event_stream(ring)
    tracker = LatencyTracker()
    tracker.start(stream, None, "web")
    queue = stream.subscribe()
    held: dict[str, Any] = {"ring": ring, "stream": stream, "tracker": tracker, "queue": queue}
    del ring, stream, tracker, queue
    produced = queued = received = 0

    def recorded() -> bool:
        counts = assert_accounted(held["tracker"])
        return counts["recorded"] == counts["produced"] == produced

    for name in ("nobody", *order):
        held.pop(name, None)
        gc.collect()
        if "ring" in held:
            assert held["ring"].produce(closed(SECOND))
            produced += 1
        if "tracker" in held:
            wait_until(recorded, "the tracker to record what was produced")
        while "queue" in held and queued < produced:
            assert held["queue"].get(timeout=20) is not None
            queued += 1
        if "queue" in held:
            assert (held["queue"].get(timeout=0), held["queue"].dropped) == (None, 0)
        if held.keys() & {"tracker", "queue"}:
            received = produced
        if "stream" in held:
            held["stream"].drain()
            found = held["stream"].stats()
            left = produced - received  # nobody is attached that could get it
            assert (found.produced, found.received, found.in_ring) == (produced, received, left)
    assert produced == 1 + order.index("ring")


def test_many_streams_are_too_many_at_some_point() -> None:
    """A stream takes 32 trackers and subscribers; one more is an error without effect."""
    ring = stats.MemoryRing(4096)
    stream = stats.create_event_stream(ring)
    trackers = [LatencyTracker() for _ in range(33)]
    for tracker in trackers[:32]:
        tracker.start(stream, None, "web")
    with pytest.raises(lblatency.BpfError, match="attaching to the event stream"):
        trackers[32].start(stream, None, "web")
    trackers[0].stop()
    trackers[32].start(stream, None, "web")
    ring.produce(closed(SECOND))
    stream.drain()
    assert [t.event_counts()["recorded"] for t in trackers] == [0, *[1] * 32]
