"""The four latencies: which events tell them, and their separate counts."""

from __future__ import annotations

import math
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

import lblatency
from lblatency import DEFAULT_BUCKETS, SHORT_BUCKETS, LatencyTracker, stats
from lblatency.buckets import METRICS
from lblatency.event import NEVER, REASONS
from tests.support.model import Model
from tests.support.rig import SECOND, TARGET, Rig, assert_accounted, closed, foreign64

US = 1000
OTHERS = METRICS[1:]
SPANS = st.one_of(st.none(), st.just(NEVER), st.integers(1, 2**32 - 2))
EVENTS = st.builds(
    stats.Event,
    type=st.just("closed"),
    target=st.sampled_from(["10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:443"]),
    timestamp_ns=st.integers(0, 2**45),
    created_ns=st.integers(0, 2**45),
    reason=st.sampled_from(REASONS),
    probe=st.sampled_from([False, False, False, True]),
    connect_us=SPANS,
    first_byte_us=SPANS,
    closing_us=SPANS,
)


def told(event: stats.Event) -> dict[str, int]:
    """The latencies that an event tells, in ns, according to the documentation."""
    if event.probe or event.reason == "connect_failed":
        return {}
    found: dict[str, int] = {}
    if event.created_ns and event.created_ns <= event.timestamp_ns:
        found["lifetime"] = event.timestamp_ns - event.created_ns
    spans = {"connect": event.connect_us, "first_byte": event.first_byte_us}
    for name, us in spans.items():
        if us is not None and us != NEVER:
            found[name] = int(us) * US
    closing = event.closing_us
    if closing is not None and closing != NEVER and "lifetime" in found:
        active = found["lifetime"] - int(closing) * US
        if active >= 0:
            found["active"] = active
    return found


@settings(max_examples=200)
@given(st.lists(EVENTS, max_size=200), st.booleans())
def test_every_bank_equals_the_model(events: list[stats.Event], stopped: bool) -> None:
    """Each latency has the model's counts, sum and native buckets, on both paths."""
    rig = Rig(1 << 16, metrics=METRICS)
    models = {
        name: Model(SHORT_BUCKETS if name in ("connect", "first_byte") else DEFAULT_BUCKETS)
        for name in METRICS
    }
    for event in events:
        for name, ns in told(event).items():
            models[name].record("web", event.target, ns)
    rig.send(*(event.pack() for event in events))
    if stopped:
        rig.tracker.stop()
    assert_accounted(rig.tracker)
    for name, model in models.items():
        read = rig.tracker.get_all_histograms(metric=name)
        assert read.keys() == model.seen.keys()
        for key, histogram in read.items():
            assert histogram["buckets"] == model.buckets
            assert histogram["counts"] == model.counts(*key)
            assert histogram["sum"] == model.sum(*key)
            native = histogram.native(6)
            assert (native.zero_count, native.buckets) == model.native(*key, 6)


@pytest.mark.parametrize("metric", OTHERS)
def test_what_is_not_told_is_left_alone(metric: str) -> None:
    """A time not measured, or that never came, is not counted; the lifetimes are."""
    rig = Rig(metrics=METRICS)
    nothing: dict[str, Any] = {"connect_us": None, "first_byte_us": None, "closing_us": None}
    never: dict[str, Any] = dict.fromkeys(nothing, NEVER)
    rig.send(closed(SECOND, **nothing), closed(SECOND, **never))
    assert rig.tracker.get_histogram("web", TARGET, metric=metric) is None
    assert rig.tracker.get_percentiles("web", TARGET, metric=metric) is None
    lifetimes = rig.tracker.get_histogram("web", TARGET)
    assert lifetimes is not None
    assert lifetimes["count"] == 2


def test_events_of_other_formats_tell_lifetimes_only() -> None:
    """A 64-byte event, which has no short times, tells only a lifetime."""
    rig = Rig(metrics=METRICS)
    rig.send(foreign64(1, SECOND), foreign64(2, 3 * SECOND))
    assert rig.counts("recorded") == {"recorded": 1}
    assert all(not rig.tracker.get_all_histograms(metric=name) for name in OTHERS)


def test_a_connection_without_a_creation_time_still_tells_the_others() -> None:
    """An unmatched connection counts in connect and first byte, but not in active."""
    rig = Rig(metrics=METRICS)
    event = stats.Event(
        "closed", TARGET, SECOND, connect_us=500, first_byte_us=900, closing_us=10, reason="fin"
    )
    rig.send(event.pack())
    assert rig.counts("unmatched", "recorded") == {"unmatched": 1, "recorded": 0}
    found = {name: rig.tracker.get_percentiles("web", TARGET, metric=name) for name in METRICS}
    assert [name for name, each in found.items() if each] == ["connect", "first_byte"]
    assert found["connect"] is not None
    assert found["connect"]["mean"] == 0.0005


def test_a_tracker_records_lifetimes_alone_by_default() -> None:
    """Every method refuses a latency that the tracker does not record."""
    rig = Rig()
    rig.send(closed(SECOND, connect_us=100))
    assert rig.tracker.metrics == ("lifetime",)
    calls: list[Any] = [
        lambda: rig.tracker.get_histogram("web", TARGET, metric="connect"),
        lambda: rig.tracker.get_percentiles("web", TARGET, metric="connect"),
        lambda: rig.tracker.get_all_histograms(metric="connect"),
        lambda: rig.tracker.get_histograms_for_metrics(metric="connect"),
        lambda: rig.tracker.backends(metric="connect"),
        lambda: rig.tracker.backend("web", TARGET, metric="connect"),
        lambda: rig.tracker.record_latency("web", TARGET, 1.0, metric="connect"),
        lambda: rig.tracker.record_many("web", TARGET, array("d", [1.0]), metric="connect"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="'connect' is not one that this tracker records: lif"):
            call()


@pytest.mark.parametrize("metric", [None, 1, [], "", "latency", "Lifetime"])
def test_no_such_metric_is_refused(metric: Any) -> None:
    """A name that is no metric is a ValueError, for readers and for a new tracker."""
    tracker = LatencyTracker(metrics=METRICS)
    with pytest.raises(ValueError, match="is not one that this tracker records"):
        tracker.get_histogram("web", TARGET, metric=metric)
    with pytest.raises(ValueError, match="must be one of lifetime, connect, first_byte, active"):
        LatencyTracker(metrics=("lifetime", metric))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"metrics": "lifetime"}, TypeError, "not the string 'lifetime'"),
        ({"metrics": ("connect",)}, ValueError, "must include 'lifetime'"),
        ({"metrics": ()}, ValueError, "must include 'lifetime'"),
        ({"buckets": {"connect": (1, 2)}}, ValueError, "'connect', which is not among"),
        ({"buckets": {"lifetime": (2, 1)}}, ValueError, "ascending"),
    ],
)
def test_bad_choices_are_explained(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    """The error says what is wrong with the metrics or the buckets."""
    with pytest.raises(error, match=text):
        LatencyTracker(**options)


def test_bounds_of_each_latency_can_be_given() -> None:
    """Latencies without given bounds have their defaults: short ones 100 µs to 60 s."""
    assert (SHORT_BUCKETS[0], SHORT_BUCKETS[-1]) == (0.0001, 60)
    tracker = LatencyTracker(metrics=METRICS, buckets={"connect": (0.001, 0.01), "active": (1,)})
    bounds = {}
    for name in METRICS:
        tracker.record_latency("web", TARGET, 0.0, metric=name)
        histogram = tracker.get_histogram("web", TARGET, metric=name)
        assert histogram is not None
        bounds[name] = histogram["buckets"]
    assert bounds == {
        "lifetime": DEFAULT_BUCKETS,
        "connect": (0.001, 0.01),
        "first_byte": SHORT_BUCKETS,
        "active": (1.0,),
    }
    assert LatencyTracker(buckets=(1, 2)).metrics == ("lifetime",)


@pytest.mark.parametrize("metric", METRICS)
def test_recording_by_hand_reaches_one_bank(metric: str) -> None:
    """One latency gets the observation; only a lifetime counts as a closed connection."""
    tracker = LatencyTracker(metrics=METRICS)
    tracker.record_latency("web", TARGET, 0.5, metric=metric)
    tracker.backend("web", TARGET, metric=metric).observe(0.5)
    tracker.record_many("web", TARGET, array("d", [0.5]), metric=metric)
    counts = {name: tracker.get_all_histograms(metric=name) for name in METRICS}
    assert [name for name, each in counts.items() if each] == [metric]
    assert counts[metric]["web", TARGET]["count"] == 3
    assert tracker.event_counts()["observed"] == 3
    closed_by_hand = [row.closed["unknown"] for row in tracker.backends()]
    assert closed_by_hand == ([3] if metric == "lifetime" else [])


def test_a_reset_forgets_all_latencies() -> None:
    """A reset clears every latency, from streams and by hand."""
    rig = Rig(metrics=METRICS)
    event = closed(SECOND, connect_us=1, first_byte_us=2, closing_us=3)
    rig.send(*[event] * 300)
    for name in METRICS:
        rig.tracker.record_latency("web", TARGET, 1.0, metric=name)
    rig.tracker.reset_histograms()
    assert not any(rig.tracker.get_all_histograms(metric=name) for name in METRICS)
    rig.send(event)
    for name in METRICS:
        (histogram,) = rig.tracker.get_all_histograms(metric=name).values()
        assert histogram["count"] == 1


def test_more_backends_than_fit_share_the_overflow_in_all_banks() -> None:
    """The overflow backend counts every latency of the backends without room."""
    rig = Rig(metrics=METRICS, max_backends=2)
    for i in range(50):
        rig.send(closed(SECOND, f"10.0.0.{i}:80", connect_us=7, first_byte_us=8, closing_us=9))
    rig.tracker.stop()
    for name in METRICS:
        found = rig.tracker.get_all_histograms(metric=name)
        assert sum(each["count"] for each in found.values()) == 50
        assert found["overflow", "overflow:0"]["count"] == 48


def test_the_collector_exports_each_latency_that_is_recorded() -> None:
    """It exports lb_backend_<metric>_seconds; the lifetime has its documented name."""
    rig = Rig(metrics=("lifetime", "connect"))
    rig.send(closed(SECOND, connect_us=200))
    registry = CollectorRegistry()
    registry.register(lblatency.LatencyCollector(rig.tracker))
    labels = {"proxy_name": "web", "target_ip": "10.0.0.1", "target_port": "80"}
    value = registry.get_sample_value
    assert value("lb_backend_latency_seconds_count", labels) == 1
    assert value("lb_backend_connect_seconds_sum", labels) == 0.0002
    assert value("lb_backend_connect_seconds_bucket", {**labels, "le": "0.0001"}) == 0
    assert value("lb_backend_connect_seconds_bucket", {**labels, "le": "0.00025"}) == 1
    assert value("lblatency_connections_closed_total", {**labels, "reason": "unknown"}) == 1
    names = {family.name for family in registry.collect()}
    assert "lb_backend_active_seconds" not in names
    assert not math.isnan(value("lblatency_events_received_total", {}) or math.nan)
