"""The documented names of the module, over one process-wide tracker."""

from __future__ import annotations

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
    """Leave the process-wide tracker as it was found."""
    yield
    lblatency.stop()
    lblatency.reset_histograms()


def test_all_that_is_promised_is_there() -> None:
    """Every name of __all__ can be had, and nothing else of ours is public."""
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
    """The functions of the module work together as those of one tracker."""
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
    """The module's functions and `default_tracker` are the same thing."""
    lblatency.record_latency("web", TARGET, 1)
    assert lblatency.default_tracker.get_all_histograms().keys() == {("web", TARGET)}


def test_status_has_the_documented_keys() -> None:
    """For a backend that has only opened too, whose mean is unknown."""
    ring = stats.MemoryRing(4096)
    stream = stats.create_event_stream(ring)
    lblatency.start(stream, None, "web")
    ring.produce(stats.Event("opened", TARGET, SECOND).pack())
    stream.drain()
    status = lblatency.get_status()
    assert list(status) == ["running", "proxy_name", "histogram_count", "backends", "events"]
    assert status["backends"]["web", TARGET] == {
        "count": 0, "mean": None, "opened": 1, "closed": 0, "open": 1,
        "reasons": dict.fromkeys(REASONS, 0),
    }  # fmt: skip
    assert lblatency.get_histogram("web", TARGET) is None


def test_errors_have_one_base() -> None:
    """BpfError is a LatencyError and an OSError, with its errno and what to do."""
    error = lblatency.BpfError.from_errno(1, "opening the ring")
    assert isinstance(error, lblatency.LatencyError)
    assert isinstance(error, OSError)
    assert error.errno == 1
    assert "opening the ring: Operation not permitted; needs CAP_BPF" in str(error)
