"""Event streams: decoded events, accounting without loss, and subscriptions."""

from __future__ import annotations

import itertools
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lblatency import DEFAULT_BUCKETS, LatencyTracker, stats
from lblatency.event import NEVER, REASONS
from tests.support.model import Model
from tests.support.rig import SECOND, TARGET, Rig, assert_accounted, closed, foreign64, foreign72

U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
SPANS = st.one_of(st.none(), st.just(NEVER), st.integers(1, 2**32 - 2))
EVENTS = st.builds(
    stats.Event,
    type=st.sampled_from(["opened", "closed", "periodic"]),
    target=st.sampled_from([TARGET, "[2001:db8::1]:443", "0.0.0.0:0", "[::]:65535"]),
    timestamp_ns=U64,
    created_ns=U64,
    reason=st.sampled_from(REASONS),
    protocol=st.integers(0, 255),
    probe=st.booleans(),
    proxy_id=U16,
    backend_id=U32,
    connect_us=SPANS,
    first_byte_us=SPANS,
    closing_us=SPANS,
)
GOOD = {
    56: stats.Event(
        "closed", TARGET, 9 * SECOND, SECOND, "fin", proxy_id=1, backend_id=3, connect_us=5
    ).pack(),
    64: foreign64(2, 9 * SECOND),
    72: foreign72(2, 9 * SECOND),
}


@settings(max_examples=60)
@given(st.lists(EVENTS, max_size=20))
def test_events_arrive_as_they_were_sent(events: list[stats.Event]) -> None:
    """Events arrive in order, with every field as it was sent."""
    ring = stats.MemoryRing(4096)
    with stats.create_event_stream(ring) as stream, stream.subscribe() as subscription:
        assert all(ring.produce(event.pack()) for event in events)
        stream.drain()
        assert [subscription.get(timeout=0) for _ in events] == events
        assert subscription.get(timeout=0) is None


@pytest.mark.parametrize("make", [foreign64, foreign72])
def test_foreign_events_are_decoded(make: type) -> None:
    """Both foreign formats tell the client, the backend and the VIP."""
    ring = stats.MemoryRing(4096)
    with stats.create_event_stream(ring) as stream, stream.subscribe() as subscription:
        ring.produce(make(2, 123456789, ("192.0.2.7", 40000), ("198.51.100.1", 443)))
        stream.drain()
        assert subscription.get(timeout=0) == stats.Event(
            "closed",
            TARGET,
            123456789,
            protocol=0,
            client="192.0.2.7:40000",
            vip="198.51.100.1:443",
        )


@pytest.mark.parametrize("make", [foreign64, foreign72])
def test_foreign_pairs_give_lifetimes(make: type) -> None:
    """A closed event is paired once, with the opened event of the same connection."""
    rig = Rig()
    clients = [(f"192.0.2.{i % 5}", 40000 + i) for i in range(50)]
    rig.send(*(make(1, SECOND * (1 + i), client) for i, client in enumerate(clients)))
    rig.send(*(make(2, SECOND * (11 + 2 * i), client) for i, client in enumerate(clients)))
    histogram = rig.tracker.get_all_histograms()["web", TARGET]
    assert (histogram["count"], histogram["sum"]) == (50, sum(10 + i for i in range(50)))
    rig.send(make(2, SECOND * 1000, clients[0]))
    assert rig.counts("recorded", "unmatched") == {"recorded": 50, "unmatched": 1}
    assert_accounted(rig.tracker)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 5)), max_size=200))
def test_pairing_equals_a_dictionary(steps: list[tuple[bool, int, int]]) -> None:
    """Opened and closed events in any order pair like keys of a dictionary; two meant are none."""
    rig, lifetimes, now = Rig(), [], SECOND
    known: dict[int, int | None] = {}
    for opens, client, step in steps:
        now += step * SECOND
        rig.send(foreign64(1 if opens else 2, now, (f"192.0.2.{client}", 999)))
        if opens:
            known[client] = now if known.get(client, now) == now else None
        elif (created := known.pop(client, None)) is not None:
            lifetimes.append(now - created)
    histogram = rig.tracker.get_histogram("web", TARGET)
    assert (histogram["count"] if histogram else 0) == len(lifetimes)
    assert (histogram["sum"] if histogram else 0) == sum(lifetimes) / SECOND
    assert_accounted(rig.tracker)


def test_proxies_by_the_address_that_clients_ask_for() -> None:
    """Foreign events have no proxy id; their VIP tells the listener."""
    rig = Rig(proxies={"198.51.100.1:443": "tls", "198.51.100.1:80": "plain", 65535: "other"})
    for make in (foreign64, foreign72):
        for port in (443, 80, 8080):
            rig.send(make(1, SECOND, vip=("198.51.100.1", port)))
            rig.send(make(2, 3 * SECOND, vip=("198.51.100.1", port)))
    rig.send(closed(SECOND, proxy_id=65535))
    counts = {proxy: h["count"] for (proxy, _), h in rig.tracker.get_all_histograms().items()}
    assert counts == {"tls": 2, "plain": 2, "web": 2, "other": 1}


def test_a_close_without_a_creation_time_is_unmatched() -> None:
    """Such a close is counted as unmatched, and no lifetime is recorded."""
    rig = Rig()
    rig.send(
        stats.Event("closed", TARGET, SECOND).pack(), foreign64(2, SECOND), foreign72(2, SECOND)
    )
    assert rig.counts("closed", "unmatched", "recorded") == {
        "closed": 3, "unmatched": 3, "recorded": 0,
    }  # fmt: skip
    assert rig.tracker.get_all_histograms() == {}
    assert rig.tracker.get_status()["backends"]["web", TARGET]["closed"] == 3


@pytest.mark.parametrize(
    ("timestamp", "created"), [(1, 2), (0, 2**64 - 1), (2**64 - 1, 1), (2**58 + 2, 1)]
)
def test_an_absurd_lifetime_is_rejected(timestamp: int, created: int) -> None:
    """A connection closed before its creation, or nine years later, is rejected."""
    rig = Rig()
    absurd = stats.Event("closed", TARGET, timestamp, created).pack()
    rig.send(absurd, closed(0), closed(SECOND), absurd, absurd)
    assert rig.counts("closed", "rejected", "recorded") == {
        "closed": 5,
        "rejected": 3,
        "recorded": 2,
    }
    assert rig.tracker.get_all_histograms()["web", TARGET]["sum"] == 1


def test_probes_and_failed_connects_are_ignored() -> None:
    """They count as closed connections, but have no lifetime."""
    rig = Rig()
    rig.send(closed(SECOND, probe=True), closed(SECOND, reason="connect_failed"))
    assert rig.counts("closed", "ignored", "recorded") == {"closed": 2, "ignored": 2, "recorded": 0}
    backend = rig.tracker.get_status()["backends"]["web", TARGET]
    assert (backend["closed"], backend["reasons"]["connect_failed"]) == (1, 1)


TIMES = st.one_of(
    st.sampled_from([0, 1, 2, SECOND, 2**58, 2**58 + 1, 2**63, 2**64 - 2, 2**64 - 1]),
    st.integers(0, 30 * 86400 * SECOND),
)
MIXED = st.builds(
    stats.Event,
    type=st.sampled_from(["closed", "closed", "closed", "opened", "periodic"]),
    target=st.sampled_from([TARGET, "10.0.0.2:80", "[::]:0", "0.0.0.0:0"]),
    timestamp_ns=TIMES,
    created_ns=TIMES,
    reason=st.sampled_from(REASONS),
    probe=st.booleans(),
    proxy_id=st.integers(0, 1),
    backend_id=st.sampled_from([0, 1, 2, 2**20, 2**32 - 1]),
)


# These make all counters exist from the start, so that later events take the fast path.
WIDE = [
    stats.Event("closed", target, 2**54 + 1, created, proxy_id=proxy_id)
    for target in (TARGET, "10.0.0.2:80", "[::]:0", "0.0.0.0:0")
    for created in (1, 2**54 + 1)
    for proxy_id in (0, 1)
]


def fate(event: stats.Event) -> str:
    """The counters that an event must increase."""
    if event.type != "closed":
        return event.type
    if event.probe or event.reason == "connect_failed":
        return "ignored"
    if event.created_ns == 0:
        return "unmatched"
    return "recorded" if 0 <= event.timestamp_ns - event.created_ns <= 2**58 else "rejected"


def test_each_kind_of_event_goes_where_it_belongs() -> None:
    """Each type, reason, flag and kind of creation time counts correctly, in any company."""
    times = [(9 * SECOND, created) for created in (0, 1, 9 * SECOND, 9 * SECOND + 1)]
    for type_, reason, probe, (timestamp, created) in itertools.product(
        ["opened", "closed", "periodic"], REASONS, [False, True], times
    ):
        event = stats.Event(type_, TARGET, timestamp, created, reason=reason, probe=probe)
        rig = Rig(4096)
        for repeat in (1, 2):
            rig.send(event.pack())
            counts = assert_accounted(rig.tracker)
            assert counts[fate(event)] == repeat
            if event.type == "closed":
                assert counts["closed"] == repeat
        rig.tracker.stop()


@pytest.mark.parametrize("one_by_one", [False, True])
@settings(max_examples=100)
@given(events=st.lists(MIXED, max_size=300))
def test_any_events_go_where_they_belong(events: list[stats.Event], one_by_one: bool) -> None:
    """In bursts or one by one, each event is counted once, in the right place."""
    rig = Rig(proxies={1: "api"})
    events = WIDE + events
    for event in events:
        if one_by_one:
            rig.send(event.pack())
        else:
            rig.ring.produce(event.pack())
    rig.tracker.stop()
    fates = [fate(event) for event in events]
    counts = assert_accounted(rig.tracker)
    for name in ("opened", "periodic", "ignored", "unmatched", "rejected", "recorded"):
        assert counts[name] == fates.count(name)

    sums: dict[tuple[str, str], list[int]] = {}
    for event, name in zip(events, fates, strict=True):
        if name == "recorded":
            key = ("api" if event.proxy_id else "web", event.target)
            sums.setdefault(key, []).append(event.timestamp_ns - event.created_ns)
    everything = rig.tracker.get_all_histograms()
    assert everything.keys() == sums.keys()
    for key, lifetimes in sums.items():
        assert everything[key]["count"] == len(lifetimes)
        assert everything[key]["sum"] == sum(lifetimes) / SECOND


@pytest.mark.parametrize("ids", ["none", "right", "wrong"])
@pytest.mark.parametrize("backends", [3, 1000])
def test_long_runs_to_few_and_many_backends(backends: int, ids: str) -> None:
    """Counters carry and new backends come amid bursts, and every count is right."""
    rig, model, randomness = Rig(1 << 20), Model(DEFAULT_BUCKETS), random.Random(backends)
    targets = [f"10.0.{i >> 8}.{i & 255}:80" for i in range(backends)]
    for number in range(30_000):
        i = min(int(randomness.expovariate(0.1)), backends - 1) if number % 3 else number % backends
        lifetime = 1000 << (number % 7 if number % 50 else randomness.randrange(40))
        backend_id = {"none": 0, "right": i + 1, "wrong": randomness.randrange(9)}[ids]
        if not rig.ring.produce(closed(lifetime, targets[i], backend_id=backend_id)):
            rig.stream.drain()
            rig.ring.produce(closed(lifetime, targets[i], backend_id=backend_id))
        model.record("web", targets[i], lifetime)
    rig.tracker.stop()
    everything = rig.tracker.get_all_histograms()
    assert everything.keys() == model.seen.keys()
    for key, histogram in everything.items():
        assert histogram["count"] == len(model.seen[key])
        assert histogram["sum"] == model.sum(*key)
    first = ("web", targets[0])
    assert everything[first]["counts"] == model.counts(*first)


def test_an_id_is_only_a_hint() -> None:
    """The address decides, if a producer reuses an id or gives one id to two backends."""
    rig = Rig()
    for i, backend_id in enumerate([5, 5, 0, 2**32 - 1, 2**20, 5, 6, 5]):
        rig.send(closed(SECOND, f"10.0.0.{i % 3}:80", backend_id=backend_id))
    counts = {target: h["count"] for (_, target), h in rig.tracker.get_all_histograms().items()}
    assert counts == {"10.0.0.0:80": 3, "10.0.0.1:80": 3, "10.0.0.2:80": 2}


# ---- accounting ----


def test_a_ring_that_nobody_drains_fills_up() -> None:
    """Waiting and dropped events are counted without a consumer, and nobody's drain takes none."""
    ring = stats.MemoryRing(4096)
    stream = stats.create_event_stream(ring)
    assert [ring.produce(closed(SECOND)) for _ in range(100)] == [True] * 64 + [False] * 36
    assert stream.drain() == 0
    assert stream.stats()[:8] == (100, 0, 36, 64, 0, 4096, 0, 4096)
    with stream.subscribe():
        stream.drain()
    assert stream.stats()[:8] == (100, 64, 36, 0, 0, 0, 4096, 4096)
    assert stream.drain() == 0


def test_a_subscription_takes_any_number_of_rings() -> None:
    """A balancer on many CPUs has a ring for each."""
    rings = [stats.MemoryRing(4096) for _ in range(300)]
    with stats.EventStream([ring.ptr for ring in rings]).subscribe() as subscription:
        for ring in rings:
            assert ring.produce(closed(SECOND))
        for _ in rings:
            assert subscription.get(timeout=20) is not None


@pytest.mark.parametrize("producers", [1, 4])
def test_a_flood_of_a_small_ring_is_accounted_for(producers: int) -> None:
    """Of 100,000 closes into 4 KiB, each is recorded exactly, or counted as dropped."""
    rig = Rig(4096)
    records = [closed(i * SECOND, f"10.0.0.{i}:80", backend_id=i) for i in range(10)]
    each = 100_000 // producers

    def flood() -> None:
        for i in range(each):
            rig.ring.produce(records[i % 10])

    threads = [threading.Thread(target=flood) for _ in range(producers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rig.tracker.stop()
    counts = assert_accounted(rig.tracker)
    assert (counts["produced"], counts["in_ring"]) == (100_000, 0)
    assert counts["recorded"] == counts["closed"] == counts["received"]
    everything = rig.tracker.get_all_histograms()
    assert sum(histogram["count"] for histogram in everything.values()) == counts["recorded"]
    for (_, target), histogram in everything.items():
        seconds = int(target.split(":")[0].rpartition(".")[2])
        assert histogram["sum"] == seconds * histogram["count"]
        assert histogram.percentile(1) == pytest.approx(seconds, rel=0.0055, abs=1e-6)


def test_garbage_of_every_length_is_counted() -> None:
    """A record of 0 to 4096 random bytes is counted as malformed or as an event."""
    rig, randomness = Rig(1 << 16), random.Random(1)
    for length in range(4097):
        rig.send(randomness.randbytes(length))
    rig.send(*(bytes(length) for length in range(4097)))
    counts = assert_accounted(rig.tracker)
    assert counts["received"] == 2 * 4097
    assert counts["malformed"] >= 2 * 4094
    assert counts["received"] == sum(
        counts[name] or 0 for name in ("opened", "closed", "periodic", "malformed")
    )


@pytest.mark.parametrize("length", GOOD)
def test_every_corrupt_byte_is_counted(length: int) -> None:
    """A record is accounted for after any one of its bytes has changed to any value.

    It is malformed if the type changes to none of the three, or, in our events, if ::ffff: changes.
    """
    rig = Rig(1 << 20, max_backends=100)
    record = bytearray(GOOD[length])
    for offset, good in enumerate(GOOD[length]):
        for value in range(256):
            record[offset] = value
            rig.send(bytes(record))
        record[offset] = good
    counts = assert_accounted(rig.tracker)
    assert counts["received"] == 256 * length
    assert counts["malformed"] == 253 + (12 * 255 if length == 56 else 0)
    assert counts["opened"] == counts["periodic"] == 1
    rows = rig.tracker.backends()
    assert sum(row.histogram["count"] for row in rows) == counts["recorded"]
    assert sum(sum(row.closed.values()) + row.probes for row in rows) == counts["closed"]


# ---- subscriptions ----


def test_a_full_queue_drops_and_counts() -> None:
    """A full queue keeps the oldest events and counts the others; the tracker misses none."""
    rig = Rig()
    with rig.stream.subscribe(maxsize=10) as slow, rig.stream.subscribe() as quick:
        rig.send(*(closed(i) for i in range(100)))
        assert slow.dropped == 90
        assert quick.dropped == 0
        assert [event.timestamp_ns - SECOND for event in (slow.get(), slow.get()) if event] == [
            0,
            1,
        ]
        rig.send(closed(100), closed(101), closed(102))
        assert slow.dropped == 91
    assert slow.dropped == 91
    assert rig.counts("recorded") == {"recorded": 103}


def test_a_closed_subscription_gives_nothing() -> None:
    """A closed subscription gives no events and no errors; the stream goes on."""
    rig = Rig()
    subscription = rig.stream.subscribe()
    rig.send(closed(SECOND))
    subscription.close()
    subscription.close()
    assert subscription.get() is None
    assert list(subscription) == []
    rig.send(closed(SECOND))
    assert rig.counts("recorded") == {"recorded": 2}


def test_closing_ends_the_wait_of_another_thread() -> None:
    """Iteration and get() return when another thread closes the subscription."""
    stream = stats.create_event_stream(stats.MemoryRing(4096))
    subscription = stream.subscribe()
    got: list[object] = []
    threads = [
        threading.Thread(target=lambda: got.append(list(subscription))),
        threading.Thread(target=lambda: got.append(subscription.get())),
        threading.Thread(target=lambda: got.append(subscription.get(timeout=60))),
    ]
    for thread in threads:
        thread.start()
    subscription.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert sorted(map(str, got)) == ["None", "None", "[]"]


def test_waiting_ends_with_the_event() -> None:
    """A waiting subscriber gets the events that the drain thread finds."""
    ring = stats.MemoryRing(4096)
    subscription = stats.create_event_stream(ring).subscribe()
    ring.produce(closed(SECOND))
    event = subscription.get(timeout=20)
    assert event is not None
    assert event.target == TARGET


@pytest.mark.parametrize("timeout", [0, -1, -1e9, 0.0005])
def test_short_waits_end(timeout: float) -> None:
    """A timeout of 0 or less does not wait."""
    subscription = stats.create_event_stream(stats.MemoryRing(4096)).subscribe()
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.append(subscription.get(timeout)), daemon=True)
    thread.start()
    thread.join(20)
    assert result == [None]


def test_a_subscription_of_several_rings() -> None:
    """Several rings make one stream, and a subscriber has one queue for all."""
    rings = [stats.MemoryRing(4096) for _ in range(3)]
    stream = stats.EventStream([ring.ptr for ring in rings])
    tracker = LatencyTracker()
    tracker.start(stream, None, "web")
    with stream.subscribe() as subscription:
        for i, ring in enumerate(rings):
            ring.produce(closed(i))
        assert stream.drain() + (tracker.event_counts()["received"] or 0) >= 3
        events = [subscription.get(timeout=20) for _ in rings]
    assert sorted(event.timestamp_ns - SECOND for event in events if event) == [0, 1, 2]
    tracker.stop()
    assert assert_accounted(tracker)["recorded"] == 3
    assert stream.stats().size_bytes == 3 * 4096


# ---- bad arguments ----


@pytest.mark.parametrize("size", [0, -4096, 1, 2048, 4097, 12288, 1 << 31, 1 << 40])
def test_a_ring_has_the_size_of_a_power_of_two(size: int) -> None:
    """Any size but a power of two of at least a page is a ValueError."""
    with pytest.raises(ValueError, match="power of two of at least a page"):
        stats.MemoryRing(size)


def test_a_record_must_fit_the_ring() -> None:
    """A record that can never fit is an error, not a drop."""
    ring = stats.MemoryRing(4096)
    with pytest.raises(ValueError, match="4096 bytes can never fit"):
        ring.produce(bytes(4096))
    assert stats.create_event_stream(ring).stats().produced == 0


@pytest.mark.parametrize("maxsize", [0, -1])
def test_a_queue_holds_at_least_one(maxsize: int) -> None:
    """A size below 1 is a ValueError."""
    with pytest.raises(ValueError, match="maxsize must be at least 1"):
        stats.create_event_stream(stats.MemoryRing(4096)).subscribe(maxsize)


def test_a_closed_stream_is_closed() -> None:
    """The methods of a closed stream raise ValueError."""
    stream = stats.create_event_stream(stats.MemoryRing(4096))
    stream.close()
    stream.close()
    for call in (stream.subscribe, stream.drain, stream.stats):
        with pytest.raises(ValueError, match="the event stream is closed"):
            call()


@pytest.mark.parametrize("ring", [None, True, 1.5, b"/sys/fs/bpf/ring", [None], object()])
def test_a_ring_is_known_by_fd_path_id_or_name(ring: object) -> None:
    """Any other argument is a TypeError that says so."""
    with pytest.raises(TypeError, match="fd, pin path, id or name, not by a"):
        stats.create_event_stream(ring)  # type: ignore[arg-type]


def test_there_must_be_a_ring() -> None:
    """An empty sequence of rings is a ValueError."""
    with pytest.raises(ValueError, match="at least one ring"):
        stats.create_event_stream([])


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (stats.Event("open", TARGET, 1), "type 'open' must be one of opened, closed, periodic"),
        (stats.Event("closed", TARGET, 1, reason="bored"), "reason 'bored' must be one of unknown"),
        (stats.Event("closed", "10.0.0.1", 1), "has no port"),
    ],
)
def test_an_event_that_does_not_exist_cannot_be_packed(event: stats.Event, text: str) -> None:
    """The error shows the wrong value and the possible ones."""
    with pytest.raises(ValueError, match=text):
        event.pack()


def test_every_field_of_the_abi_goes_to_c_and_back() -> None:
    """Each field of the 56 bytes comes back from C with its own value."""
    sent = stats.Event(
        "closed", "[2001:db8::7]:8443", timestamp_ns=11, created_ns=5, reason="reused",
        protocol=17, probe=True, proxy_id=513, backend_id=70_000, connect_us=3, first_byte_us=4,
        closing_us=6,
    )  # fmt: skip
    assert len(sent.pack()) == 56
    ring = stats.MemoryRing(4096)
    with stats.create_event_stream(ring) as stream, stream.subscribe() as subscription:
        assert ring.produce(sent.pack())
        stream.drain()
        assert subscription.get(timeout=20) == sent


@pytest.mark.parametrize("length", [8, 56, 64, 72, 120])
def test_a_full_ring_of_any_records_is_accounted_for(length: int) -> None:
    """However many wait in the ring: produced = received + dropped + in_ring."""
    ring = stats.MemoryRing(1 << 20)
    while ring.produce(bytes(length)):
        pass
    with stats.create_event_stream(ring) as stream:
        found = stream.stats()
    assert found.produced == found.in_ring + 1
    assert found.dropped == 1
