"""What a forked worker exports: that it is a copy, and what it recorded by hand."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from lblatency import LatencyCollector, LatencyTracker, stats
from lblatency.buckets import METRICS
from tests.support.rig import SECOND, TARGET, Rig, closed, in_child

BACKEND = {"proxy_name": "web", "target_ip": "10.0.0.1", "target_port": "80"}
ABOUT_ITSELF = {"lblatency_running", "lblatency_build_info"}


def scrape(tracker: LatencyTracker) -> dict[str, float]:
    """The sums over the samples of each name."""
    registry = CollectorRegistry()
    registry.register(LatencyCollector(tracker))
    found: dict[str, float] = {}
    for family in registry.collect():
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def busy() -> Rig:
    """A running tracker that has recorded all latencies, and has an open connection."""
    rig = Rig(metrics=METRICS)
    rig.send(
        stats.Event("opened", TARGET, SECOND).pack(),
        stats.Event("opened", TARGET, SECOND).pack(),
        closed(3 * SECOND, connect_us=1, first_byte_us=2, closing_us=3),
    )
    return rig


def test_a_copy_says_so_and_repeats_nothing() -> None:
    """Of a tracker that runs in the parent, a child exports that it does not run here."""
    rig = busy()
    running = scrape(rig.tracker)
    assert running["lblatency_running"] == 1
    assert running["lb_backend_latency_seconds_count"] == 1
    assert running["lblatency_connections_open"] == 1

    def child() -> None:
        assert scrape(rig.tracker) == {"lblatency_running": 0, "lblatency_build_info": 1}
        assert "copy of the parent process" in repr(rig.tracker)
        assert rig.tracker.get_all_histograms()["web", TARGET]["count"] == 1
        rig.tracker.stop()
        assert scrape(rig.tracker).keys() == ABOUT_ITSELF

    in_child(child)
    assert scrape(rig.tracker) == running


def test_a_copy_exports_what_it_records_by_hand() -> None:
    """It counts what the child recorded, and only that, also after stop() and a reset."""
    rig = busy()

    def child() -> None:
        for name in METRICS:
            rig.tracker.record_latency("web", TARGET, 0.5, metric=name)
        rig.tracker.backend("web", TARGET).observe(0.25)
        for _ in range(2):
            found = scrape(rig.tracker)
            assert found["lb_backend_latency_seconds_count"] == 2
            assert found["lb_backend_latency_seconds_sum"] == 0.75
            assert found["lb_backend_connect_seconds_count"] == 1
            assert found["lblatency_connections_closed_total"] == 2
            assert found["lblatency_running"] == 0
            assert not [name for name in found if "ring" in name or "event" in name]
            assert "lblatency_connections_open" not in found
            rig.tracker.stop()
        rig.tracker.reset_histograms()
        assert scrape(rig.tracker).keys() == ABOUT_ITSELF
        rig.tracker.record_latency("web", TARGET, 1)
        assert scrape(rig.tracker)["lb_backend_latency_seconds_sum"] == 1

    in_child(child)


def test_a_child_that_starts_by_itself_is_no_copy() -> None:
    """Its own stream makes it a tracker like any other."""
    rig = busy()

    def child() -> None:
        ring = stats.MemoryRing(4096)
        stream = stats.create_event_stream(ring)
        rig.tracker.start(stream, None, "web")
        ring.produce(closed(SECOND))
        stream.drain()
        found = scrape(rig.tracker)
        assert found["lblatency_running"] == 1
        assert found["lblatency_ring_size_bytes"] == 4096
        assert found["lb_backend_latency_seconds_count"] >= 1
        rig.tracker.stop()
        assert scrape(rig.tracker)["lblatency_running"] == 0

    in_child(child)


@pytest.mark.parametrize("ran", [False, True])
def test_a_tracker_that_does_not_run_is_copied_too(ran: bool) -> None:
    """It has no series of rings in the child; what it had recorded is in both, and counts on."""
    rig = Rig()
    tracker = rig.tracker if ran else LatencyTracker()
    tracker.stop()
    tracker.record_latency("web", TARGET, 1)

    def child() -> None:
        tracker.record_latency("web", TARGET, 1)
        found = scrape(tracker)
        assert found["lb_backend_latency_seconds_count"] == 2
        assert found["lblatency_running"] == 0
        assert not [name for name in found if "ring" in name or "event" in name]
        tracker.reset_histograms()
        tracker.record_latency("web", TARGET, 1)
        assert scrape(tracker)["lb_backend_latency_seconds_count"] == 1

    in_child(child)
    found = scrape(tracker)
    assert found["lb_backend_latency_seconds_count"] == 1
    assert found["lblatency_running"] == found["lblatency_ring_size_bytes"] == 0
