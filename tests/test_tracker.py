"""The tracker, compared with the model: recording, reading, starting and stopping."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lblatency
from lblatency import LatencyTracker, stats
from lblatency._ffi import lib
from tests.support.model import Model
from tests.support.rig import SECOND, TARGET, Rig, assert_accounted, closed

V6_ONE, V6_TWO = "[2001:db8::1]:80", "[2001:db8::2]:443"
PROXIES = st.sampled_from(["web", "api", "a:b", 'q"\\\n', "\N{SNOWMAN}", "overflow", "x\0y"])
TARGETS = st.sampled_from([TARGET, "10.0.0.1:443", "10.0.0.2:80", V6_ONE, V6_TWO, "[::]:0"])
CALLS = st.lists(st.tuples(PROXIES, TARGETS, st.integers(0, 30 * 86400 * SECOND)), max_size=40)
HOUR = 3600 * SECOND


@settings(max_examples=100)
@given(CALLS)
def test_every_reading_equals_the_model(calls: list[tuple[str, str, int]]) -> None:
    """All documented ways to read give what was recorded, per backend."""
    tracker, model = LatencyTracker(), Model(lblatency.DEFAULT_BUCKETS)
    for proxy, target, ns in calls:
        tracker.record_latency(proxy, target, ns / SECOND)
        model.record(proxy, target, ns)

    everything = tracker.get_all_histograms()
    for_metrics = tracker.get_histograms_for_metrics()
    status = tracker.get_status()
    assert everything.keys() == model.seen.keys() == status["backends"].keys()
    assert for_metrics.keys() == {(p, *model.target(t)) for p, t in model.seen}
    assert status["histogram_count"] == len(model.seen)
    assert status["events"]["observed"] == len(calls)
    for key, values in model.seen.items():
        wanted = {
            "buckets": model.buckets,
            "counts": model.counts(*key),
            "sum": model.sum(*key),
            "count": len(values),
        }
        assert dict(everything[key]) == wanted
        assert dict(for_metrics[key[0], *model.target(key[1])]) == wanted
        assert dict(tracker.get_histogram(*key) or {}) == wanted
        assert status["backends"][key]["count"] == len(values)
        assert status["backends"][key]["mean"] == model.mean(*key)
        percentiles = tracker.get_percentiles(*key)
        assert percentiles is not None
        assert list(percentiles) == ["p50", "p95", "p99", "mean", "count"]
        assert (percentiles["mean"], percentiles["count"]) == (model.mean(*key), len(values))
        for name, q in (("p50", "0.5"), ("p95", "0.95"), ("p99", "0.99")):
            exact = model.percentile(*key, q)
            if exact >= Fraction(1, 10**6):
                assert percentiles[name] == pytest.approx(float(exact), rel=0.0055)


def test_an_unknown_backend_is_none() -> None:
    """A backend without observations is None, before and after others have some."""
    tracker = LatencyTracker()
    assert tracker.get_histogram("web", TARGET) is None
    assert tracker.get_percentiles("web", TARGET) is None
    tracker.record_latency("web", "10.0.0.1:81", 1)
    assert tracker.get_histogram("web", TARGET) is None
    assert tracker.get_histogram("api", "10.0.0.1:81") is None
    assert tracker.get_all_histograms().keys() == {("web", "10.0.0.1:81")}


def test_asking_for_names_does_not_use_them_up() -> None:
    """Reading unknown proxies uses up no names; only recording does."""
    tracker = LatencyTracker()
    tracker.record_latency("web", TARGET, 1)
    for number in range(65_600):
        assert tracker.get_histogram(f"unknown-{number}", TARGET) is None
    tracker.record_latency("api", TARGET, 1)
    assert len(tracker.get_all_histograms()) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1, -1e-300, 2.0**63, 10**400])
def test_a_latency_must_be_finite_and_not_negative(value: float) -> None:
    """Any other number is a ValueError that shows it, and nothing is recorded."""
    tracker = LatencyTracker()
    backend = tracker.backend("web", TARGET)
    text = "latency must be seconds from 0 to 4611686018, not"
    with pytest.raises(ValueError, match=text):
        tracker.record_latency("web", TARGET, value)
    with pytest.raises(ValueError, match=text):
        backend.observe(value)
    if not isinstance(value, int) or value < 0:
        with pytest.raises(ValueError, match=f"item 1: {text}"):
            tracker.record_many("web", TARGET, array("d", [1, value]))
    assert tracker.get_all_histograms() == {}
    assert tracker.event_counts()["observed"] == 0


@pytest.mark.parametrize("value", ["1", None, b"1", [1], 1j])
def test_a_latency_is_a_number(value: object) -> None:
    """A latency that is not a number is a TypeError."""
    with pytest.raises(TypeError, match="number"):
        LatencyTracker().record_latency("web", TARGET, value)  # type: ignore[arg-type]


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, 5e-324, False])
def test_zero_counts(zero: float) -> None:
    """A latency of 0 is recorded."""
    tracker = LatencyTracker()
    tracker.record_latency("web", TARGET, zero)
    snapshot = tracker.get_histogram("web", TARGET)
    assert snapshot is not None
    assert (snapshot["count"], snapshot["sum"], snapshot["counts"][0]) == (1, 0, 1)


@pytest.mark.parametrize("name", [None, 5, b"web", ["web"]])
def test_a_proxy_name_is_a_string(name: object) -> None:
    """A name that is not a string is a TypeError, in every method."""
    tracker, stream = LatencyTracker(), stats.create_event_stream(stats.MemoryRing(4096))
    for call in (
        lambda: tracker.record_latency(name, TARGET, 1),  # type: ignore[arg-type]
        lambda: tracker.record_many(name, TARGET, array("d", [1])),  # type: ignore[arg-type]
        lambda: tracker.get_histogram(name, TARGET),  # type: ignore[arg-type]
        lambda: tracker.get_percentiles(name, TARGET),  # type: ignore[arg-type]
        lambda: tracker.start(stream, None, name),  # type: ignore[arg-type]
        lambda: tracker.start(stream, None, "web", proxies={1: name}),  # type: ignore[dict-item]
    ):
        with pytest.raises(
            TypeError, match=f"proxy name must be a string, not {type(name).__name__}"
        ):
            call()
    assert not tracker.running()


@pytest.mark.parametrize(("name", "text"), [("", "empty"), ("\ud800", "Unicode")])
def test_a_proxy_name_is_not_empty_and_can_be_written(name: str, text: str) -> None:
    """An empty name, or one without a UTF-8 form, is a ValueError."""
    with pytest.raises(ValueError, match=text):
        LatencyTracker().record_latency(name, TARGET, 1)


def test_record_many_takes_all_or_nothing() -> None:
    """record_many() records a buffer like single calls, or nothing."""
    tracker, model = LatencyTracker(), Model(lblatency.DEFAULT_BUCKETS)
    values = [0.0, 0.001, 2.5, 3600.0, 86400.0 * 30]
    assert tracker.record_many("web", TARGET, array("d", values)) == len(values)
    assert tracker.record_many("web", TARGET, array("d")) == 0
    assert (
        tracker.record_many(
            "web", TARGET, memoryview(array("d", [1] * 6)).cast("B").cast("d", (2, 3))
        )
        == 6
    )
    for seconds in [*values, *[1] * 6]:
        model.record("web", TARGET, round(seconds * SECOND))
    snapshot = tracker.get_histogram("web", TARGET)
    assert snapshot is not None
    assert snapshot["counts"] == model.counts("web", TARGET)
    assert snapshot["sum"] == model.sum("web", TARGET)


def test_record_many_says_which_item_is_bad() -> None:
    """The error has the index, also in a buffer of several dimensions."""
    tracker = LatencyTracker()
    grid = memoryview(array("d", [1, 2, 3, math.nan])).cast("B").cast("d", (2, 2))
    with pytest.raises(ValueError, match=r"item 3: .*not nan"):
        tracker.record_many("web", TARGET, grid)


def test_the_sum_of_ten_million_months_is_exact() -> None:
    """The sum of 10 million connections of 30 days is exact, far beyond 2**64 ns."""
    tracker = LatencyTracker()
    month = 30 * 86400
    chunk = array("d", [month]) * 1_000_000
    for _ in range(10):
        tracker.record_many("web", TARGET, chunk)
    snapshot = tracker.get_histogram("web", TARGET)
    assert snapshot is not None
    assert snapshot["count"] == 10_000_000
    assert snapshot["sum"] == 10_000_000 * month
    assert 10_000_000 * month * SECOND > 2**64
    assert snapshot.mean == month


def test_a_bound_backend_records_for_its_tracker() -> None:
    """A bound backend keeps its tracker alive, and works after a reset."""
    tracker = LatencyTracker()
    backend = tracker.backend("web", TARGET)
    backend.observe(1)
    tracker.reset_histograms()
    backend.observe(2)
    assert tracker.get_all_histograms()["web", TARGET]["sum"] == 2
    del tracker
    backend.observe(3)


def test_what_a_bound_backend_keeps_is_let_go_with_it() -> None:
    """A backend is freed with the last reference, also to its `observe`."""
    tracker = LatencyTracker()
    pointer = tracker._ptr
    before = sys.getrefcount(pointer)
    observe = tracker.backend("web", TARGET).observe
    tracker._bound.clear()
    observe(1)
    assert sys.getrefcount(pointer) > before
    del observe
    assert sys.getrefcount(pointer) == before


def test_trackers_share_nothing() -> None:
    """Recording and resetting one tracker has no effect on another."""
    one, other = LatencyTracker(), LatencyTracker(buckets=(1,))
    one.record_latency("web", TARGET, 1)
    other.record_latency("web", TARGET, 2)
    other.reset_histograms()
    assert one.get_all_histograms()["web", TARGET]["sum"] == 1
    assert other.get_all_histograms() == {}


def test_reset_forgets_histograms_but_not_where_events_went() -> None:
    """A reset clears the histograms; the accounting of events goes on."""
    rig = Rig()
    rig.send(closed(HOUR))
    rig.tracker.record_latency("web", TARGET, 1)
    rig.tracker.reset_histograms()
    assert rig.tracker.get_histogram("web", TARGET) is None
    assert rig.tracker.get_all_histograms() == {}
    assert rig.tracker.get_histograms_for_metrics() == {}
    assert rig.tracker.get_status()["backends"] == {}
    assert rig.counts("recorded", "observed") == {"recorded": 1, "observed": 1}
    rig.send(closed(HOUR))
    assert rig.tracker.get_all_histograms()["web", TARGET]["count"] == 1
    assert_accounted(rig.tracker)


@pytest.mark.parametrize("max_backends", [0, -1, 2**24 + 1])
def test_max_backends_has_limits(max_backends: int) -> None:
    """Other values are a ValueError."""
    with pytest.raises(ValueError, match="max_backends must be 1 to"):
        LatencyTracker(max_backends=max_backends)


def test_more_backends_than_allowed_lose_nothing() -> None:
    """The overflow backend counts the rest, of events and of what is recorded by hand."""
    rig = Rig(max_backends=3)
    rig.send(*(closed(HOUR, f"10.0.0.{i}:80", reason="rst") for i in range(10)))
    for i in range(10):
        rig.tracker.record_latency("api", f"10.0.1.{i}:80", 1)
    before = rig.tracker.get_all_histograms()
    rig.tracker.stop()
    everything = rig.tracker.get_all_histograms()
    assert everything == before
    assert sum(histogram["count"] for histogram in everything.values()) == 20
    assert sum(histogram["sum"] for histogram in everything.values()) == 10 * 3600 + 10
    assert len(everything) == 3 + 3 + 1
    assert everything["overflow", "overflow:0"]["count"] == 14
    for proxy, target in everything:
        assert rig.tracker.get_histogram(proxy, target) == everything[proxy, target]
    assert (rig.tracker.get_percentiles("overflow", "overflow:0") or {})["count"] == 14
    assert rig.tracker.get_histograms_for_metrics()["overflow", "overflow", "0"]["count"] == 14
    assert rig.tracker.get_status()["backends"]["overflow", "overflow:0"]["reasons"]["rst"] == 7
    assert_accounted(rig.tracker)


# ---- start and stop ----


def test_start_while_running_does_nothing() -> None:
    """A second start changes nothing, warns of other arguments, and events are recorded once."""
    rig = Rig()
    other = stats.MemoryRing(4096)
    with pytest.warns(RuntimeWarning, match="with another stats_stream and proxy_name, and goes"):
        rig.tracker.start(stats.create_event_stream(other), None, "other")
    with pytest.warns(RuntimeWarning, match="with another proxy_name, and goes on with that"):
        rig.tracker.start(rig.stream, None, "other")
    rig.stream.proxies = {1: "api"}
    with pytest.warns(RuntimeWarning, match=r"with another stats_stream\.proxies, and goes on"):
        rig.tracker.start(rig.stream, None, "web")
    rig.stream.proxies = {}
    rig.tracker.start(rig.stream, None, "web")
    rig.send(closed(HOUR))
    other.produce(closed(HOUR))
    rig.tracker.stop()
    assert rig.tracker.get_status()["proxy_name"] == "web"
    assert {k: h["count"] for k, h in rig.tracker.get_all_histograms().items()} == {
        ("web", TARGET): 1
    }


def test_a_second_start_with_the_same_arguments_is_silent() -> None:
    """The same rings, in any order and from any stream, names and proxies need no warning."""
    rings = [stats.MemoryRing(4096) for _ in range(2)]
    one, two = (stats.create_event_stream(ring) for ring in rings)
    tracker = LatencyTracker()
    tracker.start([one, two], None, "web", proxies={1: "api"})
    tracker.start([two, one], None, "web", proxies={1: "api"})
    tracker.start(stats.EventStream([*two.streams, *one.streams]), None, "web", proxies={1: "api"})
    tracker.stop()
    tracker.start(one, None, "other")
    tracker.start(one, None, "other", proxies={})


@pytest.mark.parametrize("proxies", [{1: "admin"}, {2: "api"}, None, {1: "api", 2: "b"}])
def test_a_second_start_with_other_proxies_warns(proxies: Any) -> None:
    """The warning names what differs, and points to the caller."""
    rig = Rig(proxies={1: "api"})
    with pytest.warns(RuntimeWarning, match="another proxies, and goes on") as warned:
        rig.tracker.start(rig.stream, None, "web", proxies=proxies)
    assert [each.filename for each in warned] == [__file__]


def test_a_wrong_type_is_told_while_running() -> None:
    """A running tracker checks its arguments like a stopped one."""
    rig = Rig()
    wrong: list[tuple[Any, Any, Any, Any]] = [
        (None, None, "web", None),
        ([rig.stream, rig.ring], None, "web", None),
        (rig.stream, "conntrack", "web", None),
        (rig.stream, None, 5, None),
        (rig.stream, None, "web", [1]),
        (rig.stream, None, "web", {1: 5}),
    ]
    for stream, conntrack, name, proxies in wrong:
        with pytest.raises(TypeError):
            rig.tracker.start(stream, conntrack, name, proxies=proxies)
    with pytest.raises(ValueError, match="1 to 65535"):
        rig.tracker.start(rig.stream, None, "web", proxies={0: "api"})
    assert rig.tracker.running()


def test_a_tracker_stops_at_the_end_of_its_block() -> None:
    """As a context manager it takes what is in the ring, also after an error."""
    rig = Rig()
    with rig.tracker as tracker:
        assert tracker is rig.tracker
        rig.ring.produce(closed(HOUR))
    assert not tracker.running()
    assert rig.counts("recorded") == {"recorded": 1}
    rig.tracker.start(rig.stream, None, "web")
    with pytest.raises(ZeroDivisionError), rig.tracker:
        _ = 1 / 0
    assert not rig.tracker.running()


def test_a_stopped_tracker_lets_the_streams_go() -> None:
    """Nothing that it remembers of its start keeps a ring."""
    rig = Rig()
    (stream,) = rig.stream.streams
    before = sys.getrefcount(stream)
    rig.tracker.stop()
    assert sys.getrefcount(stream) < before


def test_reprs_tell_the_state() -> None:
    """A tracker and a backend say what they are."""
    rig = Rig(metrics=("lifetime", "connect"))
    metrics = "metrics=('lifetime', 'connect')"
    assert repr(rig.tracker) == f"<LatencyTracker: running, proxy_name='web', 1 ring, {metrics}>"
    rig.tracker.stop()
    assert repr(rig.tracker) == f"<LatencyTracker: stopped, {metrics}>"
    rig.tracker.start([rig.stream, stats.create_event_stream(stats.MemoryRing())], None, "a")
    assert repr(rig.tracker) == f"<LatencyTracker: running, proxy_name='a', 2 rings, {metrics}>"
    backend = rig.tracker.backend("web", TARGET, metric="connect")
    assert repr(backend) == f"<Backend: proxy_name='web', target_id='{TARGET}', metric='connect'>"


def test_stop_takes_what_is_in_the_ring_and_keeps_histograms() -> None:
    """Events from before the stop are recorded, later ones are not."""
    rig = Rig()
    for _ in range(100):
        assert rig.ring.produce(closed(HOUR))
    rig.tracker.stop()
    assert not rig.tracker.running()
    rig.ring.produce(closed(HOUR))
    assert rig.tracker.get_all_histograms()["web", TARGET]["count"] == 100
    rig.tracker.stop()
    assert rig.counts() == dict.fromkeys(("produced", "received", "closed", "recorded"), 100)


def test_restart_goes_on_where_it_stopped() -> None:
    """A tracker can start again, also with another name, and keeps its counts."""
    rig = Rig()
    rig.send(closed(HOUR))
    rig.tracker.stop()
    rig.tracker.start(rig.stream, None, "web")
    assert rig.tracker.running()
    rig.send(closed(HOUR))
    rig.tracker.stop()
    rig.tracker.start(rig.stream, None, "api")
    rig.send(closed(HOUR))
    counts = {key: h["count"] for key, h in rig.tracker.get_all_histograms().items()}
    assert counts == {("web", TARGET): 2, ("api", TARGET): 1}
    assert rig.tracker.get_status()["proxy_name"] == "api"
    assert assert_accounted(rig.tracker)["received"] == 3


def test_several_trackers_on_one_stream() -> None:
    """Each tracker records all events, under its own name and with its own bounds."""
    rig = Rig()
    other = LatencyTracker(buckets=(1, 7200))
    other.start(rig.stream, None, "other")
    rig.send(closed(HOUR))
    other.stop()
    rig.send(closed(HOUR))
    assert rig.tracker.get_all_histograms()["web", TARGET]["count"] == 2
    assert other.get_all_histograms()["other", TARGET]["counts"] == (0, 1)
    assert_accounted(rig.tracker)
    assert_accounted(other)


def test_several_streams_on_one_tracker() -> None:
    """One histogram has the events of all rings."""
    rings = [stats.MemoryRing(4096) for _ in range(3)]
    streams = [stats.create_event_stream(ring) for ring in rings]
    tracker = LatencyTracker()
    tracker.start(streams, None, "web")
    for seconds, ring in enumerate(rings, 1):
        assert ring.produce(closed(seconds * SECOND))
        assert ring.produce(closed(SECOND, f"10.0.0.{seconds}:81"))
    for stream in streams:
        stream.drain()
    running = tracker.get_all_histograms()
    tracker.stop()
    for everything in (running, tracker.get_all_histograms()):
        assert (everything["web", TARGET]["count"], everything["web", TARGET]["sum"]) == (3, 6)
        assert len(everything) == 4
    assert assert_accounted(tracker)["received"] == 6


def test_a_stream_can_be_closed_while_it_is_used() -> None:
    """The tracker keeps the ring until it stops."""
    rig = Rig()
    rig.stream.close()
    rig.ring.produce(closed(HOUR))
    rig.tracker.stop()
    assert rig.tracker.get_all_histograms()["web", TARGET]["count"] == 1
    with pytest.raises(ValueError, match="closed"):
        rig.tracker.start(rig.stream, None, "web")


@pytest.mark.parametrize("stream", [None, 5, "ring", [], [None], stats.MemoryRing(4096)])
def test_start_needs_streams(stream: object) -> None:
    """Any other argument is a TypeError that says where streams come from."""
    with pytest.raises(TypeError, match=r"must come from lblatency.stats.create_event_stream\(\)"):
        LatencyTracker().start(stream, None, "web")  # type: ignore[arg-type]


def test_start_needs_a_conntrack_map_or_none() -> None:
    """An fd or a path is a TypeError: it must be opened first."""
    rig = Rig()
    for conntrack in (5, "/sys/fs/bpf/conntrack"):
        with pytest.raises(TypeError, match=r"ConntrackMap or None"):
            LatencyTracker().start(rig.stream, conntrack, "web")  # type: ignore[arg-type]


def test_a_start_that_fails_leaves_it_stopped() -> None:
    """If the second stream cannot be attached, the first one is released."""
    rig = Rig()
    tracker = LatencyTracker()
    with pytest.raises(ValueError, match="same ring twice"):
        tracker.start([rig.stream, rig.stream], None, "web")
    assert not tracker.running()
    tracker.start(rig.stream, None, "web")
    assert tracker.running()


# ---- proxies ----


def test_proxies_by_id_on_one_ring() -> None:
    """Events of one ring get the name of their listener."""
    rig = Rig(proxies={1: "api", 2: "admin"})
    for proxy_id in (0, 1, 2, 2, 7):
        rig.send(closed(HOUR, proxy_id=proxy_id))
    counts = {key: h["count"] for key, h in rig.tracker.get_all_histograms().items()}
    assert counts == {
        ("web", TARGET): 1, ("api", TARGET): 1, ("admin", TARGET): 2, ("proxy-7", TARGET): 1,
    }  # fmt: skip
    for (proxy, target), count in counts.items():
        assert (rig.tracker.get_percentiles(proxy, target) or {})["count"] == count


def test_two_ids_of_one_name_are_one_proxy() -> None:
    """Two ids with one name share a histogram, also with what is recorded by hand."""
    rig = Rig(proxies={1: "web", 2: "web"})
    for proxy_id in (0, 1, 2):
        rig.send(closed(HOUR, proxy_id=proxy_id))
    rig.tracker.record_latency("web", TARGET, 1)
    for _ in ("running", "stopped"):
        assert {k: h["count"] for k, h in rig.tracker.get_all_histograms().items()} == {
            ("web", TARGET): 4
        }
        assert rig.tracker.get_all_histograms()["web", TARGET]["sum"] == 3 * 3600 + 1
        rig.tracker.stop()


@pytest.mark.parametrize("key", [0, -1, 65536, 1.5, None])
def test_proxy_ids_have_limits(key: object) -> None:
    """An id is 1 to 65535; 0 is the stream's own name."""
    rig = Rig()
    with pytest.raises(ValueError, match="must be 1 to 65535"):
        LatencyTracker().start(rig.stream, None, "web", proxies={key: "x"})  # type: ignore[dict-item]


def test_ipv6_targets_stay_apart() -> None:
    """IPv6 backends stay apart, from events and by hand."""
    rig = Rig()
    rig.send(closed(SECOND, V6_ONE), closed(2 * SECOND, V6_TWO), closed(3 * SECOND, V6_TWO))
    rig.tracker.record_latency("web", V6_ONE, 10)
    everything = rig.tracker.get_all_histograms()
    assert {key: h["sum"] for key, h in everything.items()} == {
        ("web", V6_ONE): 11,
        ("web", V6_TWO): 5,
    }
    assert {key: h["sum"] for key, h in rig.tracker.get_histograms_for_metrics().items()} == {
        ("web", "2001:db8::1", "80"): 11, ("web", "2001:db8::2", "443"): 5,
    }  # fmt: skip


def test_open_connections_outlive_a_reset_and_end_with_the_stream() -> None:
    """Only events change what is open, not a reset and not recording by hand."""
    ring = stats.MemoryRing()
    tracker = LatencyTracker()
    stream = stats.create_event_stream(ring)
    tracker.start(stream, None, "web")

    def now_open() -> int:
        stream.drain()
        return int(tracker.get_status()["backends"]["web", TARGET]["open"])

    for _ in range(10):
        assert ring.produce(stats.Event("opened", TARGET, SECOND).pack())
    assert now_open() == 10
    tracker.reset_histograms()
    assert now_open() == 10
    for _ in range(4):
        assert ring.produce(closed(5, reason="rst"))
    assert ring.produce(closed(5, reason="rst", probe=True))
    assert ring.produce(closed(5, reason="connect_failed"))
    tracker.record_latency("web", TARGET, 1.0)
    assert now_open() == 4
    tracker.stop()
    assert tracker.get_status()["backends"]["web", TARGET]["open"] == 0


def test_reset_forgets_connections_of_streams_that_are_gone() -> None:
    """A reset forgets connections of detached streams, since nothing will see them close."""
    rig = Rig()
    rig.send(stats.Event("opened", TARGET, SECOND).pack())
    rig.tracker.stop()
    assert rig.tracker.backends()[0].opened == 1
    rig.tracker.reset_histograms()
    assert rig.tracker.backends() == []


def test_a_stream_used_too_often_is_refused_in_plain_words() -> None:
    """The error does not say "No space left on device", as the kernel would."""
    rig = Rig()
    others = [LatencyTracker() for _ in range(31)]
    for other in others:
        other.start(rig.stream, None, "web")
    last = LatencyTracker()
    with pytest.raises(lblatency.BpfError, match="all its places are taken"):
        last.start(rig.stream, None, "web")
    assert not last.running()
    others[0].stop()
    last.start(rig.stream, None, "web")
    assert last.running()
    with pytest.raises(lblatency.BpfError, match="all its places are taken"):
        rig.stream.subscribe()
    for other in others[1:17]:
        other.stop()
    subscriptions = [rig.stream.subscribe() for _ in range(16)]
    with pytest.raises(lblatency.BpfError, match="all its places are taken"):
        rig.stream.subscribe()
    with pytest.raises(lblatency.BpfError, match="all its places are taken"):
        others[0].start(rig.stream, None, "web")
    assert len(subscriptions) == 16


class Interrupted:
    """The C library, with a signal handler that runs right after the first call of a function."""

    def __init__(self, function: str, handler: Callable[[], object]) -> None:
        self.function, self.handler, self.called = function, handler, False

    def __getattr__(self, name: str) -> Any:
        found = getattr(lib, name)
        if name != self.function or self.called:
            return found

        def call(*arguments: Any) -> Any:
            result = found(*arguments)
            self.called = True
            self.handler()
            return result

        return call


def test_a_signal_handler_may_stop_a_tracker_that_is_being_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each reading is one call into C: what stops the tracker right after it changes nothing."""
    rig = Rig()
    rig.send(closed(HOUR))
    interrupted = Interrupted("lbl_tracker_stats", rig.tracker.stop)
    monkeypatch.setattr("lblatency.tracker.lib", interrupted)
    assert rig.tracker.event_counts()["received"] == 1
    assert interrupted.called
    assert not rig.tracker.running()
    monkeypatch.undo()
    assert assert_accounted(rig.tracker)["received"] == 1


def test_a_signal_handler_may_stop_a_tracker_that_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """And start one that stops: its repr says which came last, and no later start warns."""
    tracker, stream = LatencyTracker(), stats.create_event_stream(stats.MemoryRing())
    stopping = Interrupted("lbl_tracker_start", tracker.stop)
    monkeypatch.setattr("lblatency.tracker.lib", stopping)
    tracker.start(stream, None, "web")
    assert stopping.called
    assert not tracker.running()
    assert repr(tracker) == "<LatencyTracker: stopped, metrics=('lifetime',)>"
    starting = Interrupted("lbl_tracker_stop", lambda: tracker.start(stream, None, "api"))
    monkeypatch.setattr("lblatency.tracker.lib", starting)
    tracker.start(stream, None, "web")
    tracker.stop()
    assert starting.called
    assert tracker.running()
    assert repr(tracker).startswith("<LatencyTracker: running, proxy_name='api'")
    tracker.start(stream, None, "api")


def test_proxies_must_be_a_mapping() -> None:
    """A list of pairs is told what is wanted."""
    stream = stats.create_event_stream(stats.MemoryRing())
    with pytest.raises(TypeError, match="proxies must be a mapping"):
        LatencyTracker().start(stream, None, "web", proxies=[(1, "api")])  # type: ignore[arg-type]


def test_a_memory_ring_takes_no_counters() -> None:
    """It counts by itself; a map that would be ignored is refused."""
    with pytest.raises(ValueError, match="counts by itself"):
        stats.create_event_stream(stats.MemoryRing(), counters="lbl_counters")
