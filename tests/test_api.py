"""The documented names of the module, which work on one tracker per process."""

from __future__ import annotations

import subprocess
import sys
from array import array
from typing import TYPE_CHECKING

import pytest

import lblatency
from lblatency import stats
from lblatency.event import REASONS
from tests.support.rig import SECOND, TARGET, closed

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    """Stop and reset the process-wide tracker after each test."""
    yield
    lblatency.stop()
    lblatency.reset_histograms()


def test_all_that_is_promised_is_there() -> None:
    """Every name of __all__ exists, and nothing else of ours is public."""
    for name in lblatency.__all__:
        assert getattr(lblatency, name) is not None
    ours = {
        name
        for name, value in vars(lblatency).items()
        if getattr(value, "__module__", "").startswith("lblatency") and not name.startswith("_")
    }
    assert ours <= set(lblatency.__all__)
    assert {"LatencyTracker", "start", "stop", "record_latency", "get_histogram"} <= ours
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lblatency.nothing  # noqa: B018


def test_a_connection_from_start_to_stop() -> None:
    """The functions of the module work on the same tracker."""
    ring = stats.MemoryRing(4096)
    stream = stats.create_event_stream(ring)
    assert lblatency.running() is False
    lblatency.start(stream, None, "web")
    lblatency.start(stream, None, "web")
    assert lblatency.running() is True
    ring.produce(closed(SECOND))
    stream.drain()
    lblatency.record_latency("web", TARGET, 3)
    assert lblatency.record_many("web", TARGET, array("d", [5, 7])) == 2
    lblatency.stop()
    assert lblatency.running() is False

    histogram = lblatency.get_histogram("web", TARGET)
    assert histogram is not None
    assert (histogram["sum"], histogram["count"]) == (16, 4)
    assert lblatency.get_all_histograms().keys() == {("web", TARGET)}
    assert lblatency.get_histograms_for_metrics().keys() == {("web", "10.0.0.1", "80")}
    assert (lblatency.get_percentiles("web", TARGET) or {})["mean"] == 4
    assert lblatency.get_percentiles("web", "10.0.0.9:80") is None
    status = lblatency.get_status()
    assert (status["running"], status["histogram_count"]) == (False, 1)
    assert status["backends"]["web", TARGET]["mean"] == 4
    lblatency.reset_histograms()
    assert lblatency.get_histogram("web", TARGET) is None


def test_it_is_the_default_tracker() -> None:
    """The module's functions are methods of `default_tracker`."""
    lblatency.record_latency("web", TARGET, 1)
    assert lblatency.default_tracker.get_all_histograms().keys() == {("web", TARGET)}


def test_status_has_the_documented_keys() -> None:
    """The status has all keys, also for a backend that has only opened: its mean is None."""
    ring = stats.MemoryRing(4096)
    stream = stats.create_event_stream(ring)
    lblatency.start(stream, None, "web")
    ring.produce(stats.Event("opened", TARGET, SECOND).pack())
    stream.drain()
    status = lblatency.get_status()
    assert list(status) == [
        "running", "proxy_name", "histogram_count", "backends", "open_error", "events",
        "attached", "stalled_since_ns",
    ]  # fmt: skip
    assert (status["attached"], status["stalled_since_ns"]) == (True, 0)
    assert status["backends"]["web", TARGET] == {
        "count": 0, "mean": None, "opened": 1, "closed": 0, "open": 1,
        "reasons": dict.fromkeys(REASONS, 0),
    }  # fmt: skip
    assert lblatency.get_histogram("web", TARGET) is None


def test_errors_have_one_base() -> None:
    """BpfError is a LatencyError and an OSError; it has the errno and says what to do."""
    error = lblatency.BpfError.from_errno(1, "opening the ring")
    assert isinstance(error, lblatency.LatencyError)
    assert isinstance(error, OSError)
    assert error.errno == 1
    assert "opening the ring: Operation not permitted; needs CAP_BPF" in str(error)


def python(code: str) -> str:
    """Run code in another Python; return what it prints."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_star_imports_all_names() -> None:
    """`from lblatency import *` brings all documented names, which share one tracker."""
    code = """
from lblatency import *
import lblatency
for name in lblatency.__all__:
    assert globals()[name] is getattr(lblatency, name), name
record_latency("web", "10.0.0.1:80", 1)
print(default_tracker.get_percentiles("web", "10.0.0.1:80")["count"])
"""
    assert python(code) == "1\n"


def test_names_are_listed_before_their_use() -> None:
    """`dir()` has the public names and no others, used or not, and does not make the tracker."""
    code = """
import lblatency
def shown():
    return [name for name in dir(lblatency) if not name.startswith("__")]
public = sorted(name for name in lblatency.__all__ if not name.startswith("__"))
print(shown() == public, "default_tracker" in vars(lblatency))
import lblatency.cli, lblatency.demo.run, lblatency.collector
lblatency.record_latency("web", "10.0.0.1:80", 1)
print(shown() == public, "default_tracker" in vars(lblatency))
"""
    assert python(code) == "True False\nTrue True\n"


def test_threads_that_come_first_share_the_tracker() -> None:
    """The first use in several threads at once makes one tracker, and nothing is lost."""
    code = """
import threading, lblatency
barrier = threading.Barrier(8)
def use():
    barrier.wait()
    lblatency.record_latency("web", "10.0.0.1:80", 1)
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(lblatency.get_percentiles("web", "10.0.0.1:80")["count"])
"""
    assert python(code) == "8\n"
