"""Proxy names: how listeners get theirs, and that refused calls leave none behind."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from lblatency import DEFAULT_BUCKETS, HistogramSnapshot, LatencyTracker, stats
from tests.support.rig import SECOND, TARGET, Rig, assert_accounted, closed, foreign64

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = 65535  # besides "overflow"
VIP = "198.51.100.1:443"
REFUSED: list[Callable[[LatencyTracker, str], Any]] = [
    lambda tracker, name: tracker.record_latency(name, "not an address", 1),
    lambda tracker, name: tracker.record_latency(name, "10.0.0.1", 1),
    lambda tracker, name: tracker.record_latency(name, TARGET, math.nan),
    lambda tracker, name: tracker.record_latency(name, TARGET, -1),
    lambda tracker, name: tracker.record_latency(name, TARGET, 10**400),
    lambda tracker, name: tracker.record_latency(name, TARGET, "1"),  # type: ignore[arg-type]
    lambda tracker, name: tracker.record_latency(name, TARGET, 1, metric="connect"),
    lambda tracker, name: tracker.record_many(name, TARGET, [1, math.inf]),
    lambda tracker, name: tracker.record_many(name, TARGET, "12"),
    lambda tracker, name: tracker.backend(name, "10.0.0.1:port"),
    lambda tracker, name: tracker.add(name, TARGET, {}),  # type: ignore[arg-type]
    lambda tracker, name: tracker.add(name, TARGET, snapshot(sum_ns=2**62 + 1)),
    lambda tracker, name: tracker.add(name, TARGET, snapshot(slots=[[None, 2**62 + 1]])),
    lambda tracker, name: tracker.start([], None, name),
    lambda tracker, name: tracker.start(closed_stream(), None, name),
    lambda tracker, name: tracker.start([stream()] * 2, None, name),
    lambda tracker, name: tracker.start(stream(), None, name, proxies={65536: "api"}),
    lambda tracker, name: tracker.start(stream(), None, name, proxies={"10.0.0.1": "api"}),
    lambda tracker, name: tracker.start(stream(), None, name, proxies={2: ""}),
    lambda tracker, name: tracker.start(
        stream(), None, name, proxies={VIP: "api", f"[::ffff:{VIP[:-4]}]:443": "shop"}
    ),
]


def snapshot(**fields: object) -> HistogramSnapshot:
    """One observation, or what the fields say."""
    one = {"version": 1, "buckets": list(DEFAULT_BUCKETS), "slots": [[None, 1]], "sum_ns": 2**62}
    return HistogramSnapshot.from_dict(one | fields)


def stream() -> stats.EventStream:
    """A stream of a ring in memory."""
    return stats.create_event_stream(stats.MemoryRing(4096))


def closed_stream() -> stats.EventStream:
    """A stream that is closed."""
    made = stream()
    made.close()
    return made


def use_all_names(tracker: LatencyTracker) -> None:
    """Use up all names but the last."""
    for i in range(NAMES - 1):
        tracker.backend(str(i), TARGET)


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_a_refused_call_leaves_no_name(number: int) -> None:
    """After any number of refused calls, the last free name is still free."""
    tracker = LatencyTracker(max_backends=10)
    use_all_names(tracker)
    for i in range(3):
        with pytest.raises((TypeError, ValueError)):
            REFUSED[number](tracker, f"refused {i}")
    tracker.record_latency("the last", TARGET, 1)
    assert tracker.get_histogram("the last", TARGET) is None  # ten others have been added
    tracker.record_latency("too many", TARGET, 1)
    assert tracker.get_status()["histogram_count"] == 1
    assert tracker.get_all_histograms()["overflow", "overflow:0"]["count"] == 2


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_a_refused_call_leaves_no_backend(number: int) -> None:
    """The only place for a backend is still free."""
    tracker = LatencyTracker(max_backends=1)
    with pytest.raises((TypeError, ValueError)):
        REFUSED[number](tracker, "web")
    tracker.record_latency("api", "10.0.0.2:80", 1)
    assert list(tracker.get_all_histograms()) == [("api", "10.0.0.2:80")]


def test_names_beyond_the_last_are_overflow() -> None:
    """By hand, of the stream, of a proxy id: all count, none raises."""
    rig = Rig()  # has "web"
    rig.tracker.stop()
    use_all_names(rig.tracker)
    rig.tracker.record_latency("one more", TARGET, 1)
    rig.tracker.start(rig.stream, None, "two more", proxies={2: "three more", VIP: "four more"})
    assert rig.tracker.get_status()["proxy_name"] == "overflow"
    rig.send(
        closed(SECOND), closed(SECOND, proxy_id=2), closed(SECOND, proxy_id=3), foreign64(1, SECOND)
    )
    counted = rig.tracker.get_all_histograms()
    assert {key: histogram["count"] for key, histogram in counted.items()} == {
        ("overflow", "overflow:0"): 4,
    }
    rig.tracker.stop()
    assert rig.tracker.get_all_histograms()["overflow", "overflow:0"]["count"] == 4


@pytest.mark.parametrize("proxy_id", [1, 2, 32768, 65534, 65535])
def test_no_proxy_id_is_a_vip(proxy_id: int) -> None:
    """An event of our own format is never taken for one of a named VIP, whatever its id."""
    rig = Rig(proxies={VIP: "shop", "198.51.100.2:443": "api"})
    vip = ("198.51.100.1", 443)
    rig.send(
        foreign64(1, SECOND, vip=vip),
        foreign64(2, 3 * SECOND, vip=vip),
        closed(SECOND, proxy_id=proxy_id),
    )
    for _ in range(2):
        counts = {key: h["count"] for key, h in rig.tracker.get_all_histograms().items()}
        assert counts == {("shop", TARGET): 1, (f"proxy-{proxy_id}", TARGET): 1}
        rig.tracker.stop()


def test_vips_and_ids_of_one_name_are_one_row() -> None:
    """Also when it is looked up by itself, and after a stop."""
    rig = Rig(proxies={VIP: "shop", 7: "shop", "198.51.100.2:443": "shop", 65535: "shop"})
    for number in (1, 2):
        vip = (f"198.51.100.{number}", 443)
        rig.send(foreign64(1, SECOND, vip=vip), foreign64(2, 2 * SECOND, vip=vip))
    rig.send(closed(SECOND, proxy_id=7), closed(SECOND, proxy_id=65535))
    for _ in range(2):
        assert [row.target for row in rig.tracker.backends()] == [TARGET]
        found = rig.tracker.get_histogram("shop", TARGET)
        assert found is not None
        assert found["count"] == 4
        rig.tracker.stop()


def test_a_listener_without_a_number_is_not_named_after_its_id() -> None:
    """Names are full: the events of id 2, which has a name, are not those of another "proxy-2"."""
    rig = Rig()
    rig.tracker.stop()
    rig.tracker.backend("proxy-2", TARGET)
    use_all_names(rig.tracker)
    rig.tracker.start(rig.stream, None, "web", proxies={2: "one too many"})
    rig.send(closed(SECOND, proxy_id=2), closed(SECOND))
    counts = {key: h["count"] for key, h in rig.tracker.get_all_histograms().items()}
    assert counts == {("overflow", "overflow:0"): 1, ("web", TARGET): 1}


@pytest.mark.parametrize("prefix", ["ff00", "ff6c:626c:2076:6970"])
@pytest.mark.parametrize("proxy_id", range(4))
def test_no_address_of_an_event_is_a_vip(prefix: str, proxy_id: int) -> None:
    """An own event with any address, be it one that our keys contain, is no event of a VIP."""
    rig = Rig(proxies={VIP: "shop"})
    rig.send(foreign64(1, SECOND), foreign64(2, 2 * SECOND))
    rig.send(*[closed(SECOND, f"[{prefix}::a00:1]:80", proxy_id=proxy_id)] * 70)
    for _ in range(2):
        histogram = rig.tracker.get_histogram("shop", TARGET)
        assert histogram is not None
        assert histogram["count"] == 1
        assert rig.tracker.get_all_histograms()["shop", TARGET]["count"] == 1
        rig.tracker.stop()
    malformed = 70 if prefix == "ff00" else 0
    assert rig.counts("malformed", "recorded") == {
        "malformed": malformed, "recorded": 71 - malformed,
    }  # fmt: skip
    assert_accounted(rig.tracker)


@pytest.mark.parametrize("prefix", ["ff00", "ff6c:626c:2076:6970"])
def test_by_hand_every_address_is_its_own(prefix: str) -> None:
    """What the program itself records keeps the address that it gave."""
    tracker, other = LatencyTracker(), f"[{prefix}::a00:1]:80"
    tracker.record_latency("web", TARGET, 1)
    tracker.record_latency("web", other, 2)
    sums = {target: h["sum"] for (_, target), h in tracker.get_all_histograms().items()}
    assert sums == {TARGET: 1, other: 2}


def test_many_vips_have_their_own_names() -> None:
    """Each VIP is found, also among more than a proxy id can number."""
    vips = {f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}:443": f"name-{i % 5}" for i in range(66_000)}
    rig = Rig(proxies=vips)  # type: ignore[arg-type]
    for number, vip in ((0, "10.0.0.0"), (40_001, "10.0.156.65"), (65_999, "10.1.1.207")):
        rig.send(foreign64(1, SECOND, vip=(vip, 443)), foreign64(2, 2 * SECOND, vip=(vip, 443)))
        histogram = rig.tracker.get_histogram(f"name-{number % 5}", TARGET)
        assert histogram is not None
        assert histogram["count"] == 1
    assert len(rig.tracker.get_all_histograms()) == 3


def test_a_stream_brings_its_own_names() -> None:
    """Sources number their proxies each from 1, and one tracker records several of them."""
    rings = [stats.MemoryRing(1 << 16) for _ in range(3)]
    streams = [stats.create_event_stream(ring) for ring in rings]
    streams[1].proxies = {1: "edge", 0: "rest"}
    streams[2].proxies = {1: "inner", VIP: "shop"}
    tracker = LatencyTracker()
    tracker.start(streams, None, "web", proxies={1: "api", 2: "two"})
    for ring, stream_ in zip(rings, streams, strict=True):
        for record in (
            *(closed(5, proxy_id=i) for i in range(3)),
            foreign64(2, 5, vip=("198.51.100.1", 443)),
        ):
            assert ring.produce(record)
        stream_.drain()
    names = [(row.proxy, row.closed["unknown"]) for row in tracker.backends()]
    assert sorted(names) == [
        ("api", 1), ("edge", 1), ("inner", 1), ("rest", 2), ("shop", 1), ("two", 3), ("web", 3),
    ]  # fmt: skip
    for names_of_one in ({VIP: "a", f"[::ffff:{VIP[:-4]}]:443": "b"}, {65536: "a"}, {1: ""}):
        streams[0].proxies = names_of_one  # type: ignore[assignment]
        with pytest.raises(ValueError, match=r"twice|must be 1|empty"):
            LatencyTracker().start(streams[0], None, "web")


def test_a_streams_own_names_come_first() -> None:
    """A stream may name a VIP that is named for all; the others keep that name."""
    rings = [stats.MemoryRing(1 << 16) for _ in range(3)]
    streams = [stats.create_event_stream(ring) for ring in rings]
    for stream_, name in zip(streams, ("own", None, "other"), strict=True):
        if name:
            stream_.proxies = {f"[::ffff:{VIP[:-4]}]:443": name}
    tracker = LatencyTracker()
    tracker.start(streams, None, "web", proxies={VIP: "shared"})
    for ring, stream_ in zip(rings, streams, strict=True):
        assert ring.produce(foreign64(2, 5, vip=("198.51.100.1", 443)))
        stream_.drain()
    assert sorted(row.proxy for row in tracker.backends()) == ["other", "own", "shared"]


@pytest.mark.parametrize("names", [None, ["api"], "api"])
def test_names_of_a_stream_are_a_mapping(names: Any) -> None:
    """As those of a start are."""
    own = stream()
    own.proxies = names
    with pytest.raises(TypeError, match="mapping"):
        LatencyTracker().start(own, None, "web")
