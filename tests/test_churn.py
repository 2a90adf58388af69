"""Backends come and go: removal, expiry, resets and stops, compared with a dictionary."""

from __future__ import annotations

import random
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lblatency import LatencyTracker, stats
from tests.support.rig import SECOND, TARGET, Rig, assert_accounted, closed, in_child, wait_until

OVERFLOW, REMOVED = ("overflow", "overflow:0"), ("removed", "removed:0")
EXPIRY_S = 0.05


def addresses(first: int, n: int) -> list[str]:
    """Targets that no other range has."""
    return [f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}:80" for i in range(first, first + n)]


def named(tracker: LatencyTracker) -> set[str]:
    """The targets that have a row of their own."""
    return {row.target for row in tracker.backends() if row.proxy not in {"overflow", "removed"}}


def total(tracker: LatencyTracker) -> int:
    """Observations over all rows."""
    return sum(row.histogram["count"] for row in tracker.backends())


def opened(target: str = TARGET) -> bytes:
    """An opened event."""
    return stats.Event("opened", target, SECOND, SECOND).pack()


# ---- deploys ----


def _remove(rig: Rig) -> None:
    for target in named(rig.tracker):
        assert rig.tracker.remove("web", target)


def _expire(rig: Rig) -> None:
    wait_until(lambda: not named(rig.tracker), "idle backends to go")


def _reset(rig: Rig) -> None:
    rig.tracker.reset_histograms()


WAYS: list[Callable[[Rig], None]] = [_remove, _expire, _reset]


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_seventh_deploy_is_named_again(way: Callable[[Rig], None], by_hand: bool) -> None:
    """100 of 100 are in use and six deploys found no room; when those went, the seventh has."""
    expiry = EXPIRY_S if way is _expire else None
    rig = Rig(max_backends=100, expire_after=expiry, removed_row=True)

    def deploy(number: int) -> list[str]:
        targets = addresses(number * 100, 100)
        if by_hand:
            for target in targets:
                rig.tracker.record_latency("web", target, 1)
        else:
            rig.send(*(closed(SECOND, target) for target in targets))
        return targets

    for number in range(7):
        deploy(number)
    way(rig)
    targets = deploy(7)
    everything = rig.tracker.get_all_histograms()
    assert named(rig.tracker) == set(targets)
    if way is not _reset:
        assert everything[OVERFLOW]["count"] == 600
        assert everything[REMOVED]["count"] == 100
        assert rig.tracker.get_histogram(*REMOVED) == everything[REMOVED]
        assert total(rig.tracker) == 800
    rig.tracker.stop()
    assert rig.tracker.get_all_histograms() == everything


# ---- stop ----


def test_a_stop_keeps_every_name() -> None:
    """Three rings have as many backends each as are allowed; all stay named, and so do more."""
    rings = [stats.MemoryRing(1 << 16) for _ in range(3)]
    streams = [stats.create_event_stream(ring) for ring in rings]
    tracker = LatencyTracker(max_backends=50)
    wanted: set[str] = set()
    for run in range(4):
        tracker.start(streams, None, "web")
        for i, ring in enumerate(rings):
            for target in addresses(1000 * run + 100 * i, 50):
                assert ring.produce(closed(SECOND, target))
                wanted.add(target)
        tracker.stop()
        assert named(tracker) == wanted
        assert OVERFLOW not in tracker.get_all_histograms()
    for target in addresses(100_000, 51):
        tracker.record_latency("web", target, 1)
    assert named(tracker) == wanted | set(addresses(100_000, 50))
    assert tracker.get_all_histograms()[OVERFLOW]["count"] == 1
    assert_accounted(tracker)


def test_proxy_ids_of_one_name_are_one_backend() -> None:
    """They merge in a reading, at a stop and in a removal."""
    rig = Rig(proxies={1: "web", 2: "web", 3: "api"}, removed_row=True)
    rig.send(*(closed(SECOND, proxy_id=i) for i in range(4)))
    for _ in range(2):
        everything = rig.tracker.get_all_histograms()
        assert {key: each["count"] for key, each in everything.items()} == {
            ("web", TARGET): 3,
            ("api", TARGET): 1,
        }
        rig.tracker.stop()
    rig.tracker.start(rig.stream, None, "web", proxies={1: "web", 2: "web"})
    rig.send(*(closed(SECOND, proxy_id=i) for i in range(3)))
    assert rig.tracker.remove("web", TARGET)
    everything = rig.tracker.get_all_histograms()
    assert {key: each["count"] for key, each in everything.items()} == {
        ("api", TARGET): 1,
        REMOVED: 6,
    }


# ---- removal ----


def test_removing_what_is_not_there() -> None:
    """Unknown names and addresses, and rows for several backends, are not removed."""
    rig = Rig()
    rig.send(closed(SECOND))
    for proxy, target in [("api", TARGET), ("web", "10.0.0.1:81"), OVERFLOW, REMOVED]:
        assert rig.tracker.remove(proxy, target) is False
    assert rig.tracker.remove("web", TARGET) is True
    assert rig.tracker.remove("web", TARGET) is False
    assert rig.tracker.backends() == []
    with pytest.raises(ValueError, match="proxy name must not be empty"):
        rig.tracker.remove("", TARGET)
    with pytest.raises(ValueError, match=r"10\.0\.0\.1"):
        rig.tracker.remove("web", "10.0.0.1")


def test_what_is_removed_is_shown_only_if_asked_for() -> None:
    """Without `removed_row`, no reading has it."""
    for asked in (False, True):
        tracker = LatencyTracker(removed_row=asked)
        tracker.record_latency("web", TARGET, 1)
        tracker.remove("web", TARGET)
        assert (REMOVED in tracker.get_all_histograms()) is asked
        assert (tracker.get_histogram(*REMOVED) is not None) is asked
        assert len(tracker.get_status()["backends"]) == asked
        tracker.reset_histograms()
        assert tracker.get_all_histograms() == {}


def test_a_removed_backend_begins_anew() -> None:
    """Its id leads to nobody else, whatever took its row; and it may come back."""
    rig = Rig(removed_row=True)
    one, two = addresses(1, 2)
    for _ in range(3):
        rig.send(*(closed(SECOND, one, backend_id=1) for _ in range(300)))
        assert rig.tracker.remove("web", one)
        rig.send(*(closed(2 * SECOND, two, backend_id=2) for _ in range(10)))
        rig.send(closed(3 * SECOND, two, backend_id=1), closed(SECOND, one, backend_id=1))
        everything = rig.tracker.get_all_histograms()
        assert everything["web", one]["count"] == 1
        assert everything["web", two]["count"] == 11
        assert rig.tracker.remove("web", one)
        assert rig.tracker.remove("web", two)
    assert rig.tracker.get_all_histograms()[REMOVED]["count"] == 3 * 312
    assert_accounted(rig.tracker)


def test_an_id_of_a_removed_backend_leads_nowhere() -> None:
    """Not even for an event with the address that stands for no backend."""
    rig = Rig(max_backends=1, removed_row=True)
    nobody = "255.255.255.255:65535"
    rig.send(opened(TARGET), closed(SECOND, TARGET, backend_id=1))
    rig.send(opened(TARGET))
    assert rig.tracker.remove("web", TARGET)
    rig.send(closed(SECOND, nobody, backend_id=1, proxy_id=65535))
    rig.send(closed(SECOND, "10.0.0.2:80"))
    backends = rig.tracker.get_status()["backends"]
    assert {key: (row["count"], row["opened"]) for key, row in backends.items()} == {
        OVERFLOW: (1, 0),
        REMOVED: (1, 2),
        ("web", "10.0.0.2:80"): (1, 0),
    }


def test_backend_objects_outlive_their_row() -> None:
    """They record a new backend after a removal or a reset, and grow with the tracker."""
    tracker = LatencyTracker(removed_row=True)
    backend = tracker.backend("web", TARGET)
    backend.observe(1)
    for end in (lambda: tracker.remove("web", TARGET), tracker.reset_histograms):
        end()
        tracker.record_latency("web", "10.0.0.2:80", 5)  # takes the row
        backend.observe(2)
        assert tracker.get_all_histograms()["web", TARGET]["sum"] == 2
    for target in addresses(1000, 5000):
        tracker.record_latency("web", target, 1)
    backend.observe(2)
    assert tracker.get_all_histograms()["web", TARGET]["sum"] == 4
    assert len(named(tracker)) == 5002


def test_a_backend_object_is_named_when_there_is_room() -> None:
    """While there is none, it counts in the overflow backend; then it gets its name."""
    tracker = LatencyTracker(max_backends=1)
    tracker.record_latency("web", "10.0.0.2:80", 1)
    backend = tracker.backend("web", TARGET)
    backend.observe(1)
    assert tracker.get_all_histograms().keys() == {("web", "10.0.0.2:80"), OVERFLOW}
    tracker.remove("web", "10.0.0.2:80")
    backend.observe(1)
    assert tracker.get_all_histograms().keys() == {("web", TARGET), OVERFLOW}


def test_what_is_bound_stays_little() -> None:
    """Names that come and go by hand do not pile up, and are bound again after a while."""
    tracker = LatencyTracker(max_backends=10, removed_row=True)
    for target in addresses(0, 1000):
        tracker.record_latency("web", target, 1)
        assert tracker.backend("web", target) is tracker.backend("web", target)
        assert len(tracker._bound) <= 10
        tracker.remove("web", target)
    assert tracker.get_all_histograms().keys() == {REMOVED}


def test_removals_beside_recorders_and_readers() -> None:
    """The sum over all rows never goes down, and is exact at the end."""
    tracker = LatencyTracker(max_backends=20, removed_row=True)
    targets = addresses(0, 30)
    each, n_threads = 3000, 3
    recorders_left = threading.Semaphore(0)

    def record(seed: int) -> None:
        chosen = random.Random(seed)
        for _ in range(each):
            tracker.record_latency("web", chosen.choice(targets), 1)
        recorders_left.release()

    threads = [threading.Thread(target=record, args=(i,)) for i in range(n_threads)]
    for thread in threads:
        thread.start()
    last, chosen, done = 0, random.Random(9), 0
    while done < n_threads:
        tracker.remove("web", chosen.choice(targets))
        now = total(tracker)
        assert now >= last
        last = now
        done += recorders_left.acquire(blocking=False)
    for thread in threads:
        thread.join()
    assert total(tracker) == each * n_threads


# ---- a dictionary of all that was recorded ----


class Book:
    """Counts by backend, and what was removed; nothing is shared with the implementation."""

    def __init__(self, *, may_be_unnamed: bool = False) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.removed = 0
        self.may_be_unnamed = may_be_unnamed

    def remove(self, key: tuple[str, str]) -> None:
        """Move a backend's count."""
        self.removed += self.counts.pop(key, 0)

    def reset(self) -> None:
        """Forget all counts."""
        self.counts.clear()
        self.removed = 0


def _steps(chosen: random.Random, rig: Rig, book: Book) -> Iterator[None]:
    """One random call per step, of the tracker and of the book."""
    targets = addresses(0, 40)
    running = True
    while True:
        target = chosen.choice(targets)
        key = "web", target
        call = chosen.choices(
            ["event", "hand", "remove", "reset", "stop", "start"], [40, 20, 15, 1, 2, 4]
        )[0]
        if call == "event" and running:
            n = chosen.choice([1, 1, 3, 200])
            backend_id = targets.index(target) + 1 if chosen.random() < 0.7 else 0
            rig.send(*(closed(SECOND, target, backend_id=backend_id) for _ in range(n)))
            book.counts[key] += n
        elif call == "hand":
            rig.tracker.record_latency(*key, 1)
            book.counts[key] += 1
        elif call == "remove":
            was_there = book.counts[key]
            assert rig.tracker.remove(*key) >= (was_there > 0 and not book.may_be_unnamed)
            book.remove(key)
        elif call == "reset":
            rig.tracker.reset_histograms()
            book.reset()
        elif call == "stop":
            rig.tracker.stop()
            running = False
        elif call == "start":
            rig.tracker.start(rig.stream, None, "web")
            running = True
        yield


@pytest.mark.parametrize("seed", range(6))
def test_random_churn_equals_a_dictionary(seed: int) -> None:
    """Every backend has what was recorded for it since it last went."""
    rig, book = Rig(1 << 16, removed_row=True), Book()
    steps = _steps(random.Random(seed), rig, book)
    for i in range(600):
        next(steps)
        if i % 10 == 0:
            wanted = {key: count for key, count in book.counts.items() if count}
            if book.removed:
                wanted[REMOVED] = book.removed
            found = rig.tracker.get_all_histograms()
            assert {key: each["count"] for key, each in found.items()} == wanted
            for key in wanted:
                assert rig.tracker.get_histogram(*key) == found[key]
    assert_accounted(rig.tracker)


@pytest.mark.parametrize("seed", range(3))
def test_random_churn_without_room_loses_nothing(seed: int) -> None:
    """With room for few, the sum over all rows is what was recorded."""
    rig, book = Rig(1 << 16, max_backends=5, removed_row=True), Book(may_be_unnamed=True)
    steps = _steps(random.Random(seed), rig, book)
    for _ in range(600):
        next(steps)
        assert total(rig.tracker) == sum(book.counts.values()) + book.removed
    assert_accounted(rig.tracker)


# ---- expiry ----


def test_a_backend_goes_after_its_time_and_no_sooner() -> None:
    """Any event or observation begins its time anew."""
    rig = Rig(expire_after=EXPIRY_S, removed_row=True, metrics=("lifetime", "connect"))
    for _ in range(5):
        rig.send(closed(SECOND))
        rig.tracker.record_latency("web", "10.0.0.2:80", 1, metric="connect")
        last = time.monotonic()
        wait_until(lambda: not named(rig.tracker), "idle backends to go")
        assert time.monotonic() - last >= EXPIRY_S
    assert rig.tracker.get_all_histograms()[REMOVED]["count"] == 5
    assert rig.tracker.get_all_histograms(metric="connect")[REMOVED]["count"] == 5
    assert_accounted(rig.tracker)


def test_a_busy_part_keeps_the_backend() -> None:
    """A backend is idle if it is so on all rings."""
    rings = [stats.MemoryRing(4096) for _ in range(2)]
    streams = [stats.create_event_stream(ring) for ring in rings]
    tracker = LatencyTracker(expire_after=EXPIRY_S)
    tracker.start(streams, None, "web")
    rings[0].produce(closed(SECOND))
    rings[0].produce(closed(SECOND, "10.0.0.2:80"))
    streams[0].drain()
    n = 1

    def other_is_gone() -> bool:
        nonlocal n
        rings[1].produce(closed(SECOND))
        n += 1
        streams[1].drain()
        return named(tracker) == {TARGET}

    wait_until(other_is_gone, "the idle backend to go")
    assert tracker.get_all_histograms()["web", TARGET]["count"] == n


def test_open_connections_keep_their_backend() -> None:
    """Unless closes may have been lost: then nobody knows what is open, until a reset."""
    rig = Rig(4096, expire_after=EXPIRY_S)
    for again in range(2):
        rig.send(opened(TARGET), closed(SECOND, "10.0.0.2:80"))
        wait_until(lambda: named(rig.tracker) == {TARGET}, "the idle backend to go")
        while rig.ring.produce(closed(SECOND, "10.0.0.3:80")):
            pass
        wait_until(lambda: not named(rig.tracker), "all backends to go after a drop")
        rig.tracker.reset_histograms()
        assert again or rig.counts("dropped")["dropped"]


def test_a_reset_keeps_what_is_open() -> None:
    """A backend with open connections keeps its row, and its next close is no new backend's."""
    rig = Rig(max_backends=1)
    rig.send(opened())
    rig.tracker.reset_histograms()
    rig.send(closed(SECOND, "10.0.0.2:80"))
    assert rig.tracker.get_status()["backends"]["web", TARGET]["open"] == 1
    assert rig.tracker.get_all_histograms().keys() == {OVERFLOW}
    rig.send(closed(SECOND))
    rig.tracker.reset_histograms()
    rig.send(closed(SECOND, "10.0.0.2:80"))
    assert rig.tracker.get_all_histograms().keys() == {("web", "10.0.0.2:80")}


def test_backends_expire_in_a_child_of_fork() -> None:
    """The child has no thread for it, and looks when it reads or when it has no room."""
    trackers = [LatencyTracker(expire_after=EXPIRY_S, max_backends=1)]
    trackers[0].record_latency("web", TARGET, 1)
    wait_until(lambda: not named(trackers[0]), "the thread at work")
    trackers[0].record_latency("web", TARGET, 1)

    def check() -> None:
        wait_until(lambda: not named(trackers[0]), "idle backends to go in the child")
        trackers[0].record_latency("web", TARGET, 1)
        end = time.monotonic() + 4 * EXPIRY_S
        while time.monotonic() < end:
            trackers[0].record_latency("web", "10.0.0.2:80", 1)
        assert named(trackers[0]) == {"10.0.0.2:80"}
        trackers.clear()  # waits for no thread

    in_child(check)
    trackers[0].record_latency("web", TARGET, 1)
    assert named(trackers[0]) == {TARGET}


def test_the_thread_ends_with_its_tracker() -> None:
    """A tracker with expiry has a thread of its own; others have none."""

    def threads() -> list[str]:
        return sorted(path.read_text() for path in Path("/proc/self/task").glob("*/comm"))

    before = threads()
    tracker = LatencyTracker(expire_after=60)
    wait_until(lambda: "lbl-expiry\n" in threads(), "the thread")
    del tracker
    assert threads() == before


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_thousand_generations() -> None:
    """100 new backends each: nobody is unnamed, totals are exact, and memory stays flat."""
    rig = Rig(1 << 16, max_backends=1000, expire_after=0.04, removed_row=True)
    sent = 0
    for generation in range(1000):
        targets = addresses(generation * 100, 100)
        wait_until(lambda: len(named(rig.tracker)) <= 900, "room for a generation")
        rig.send(*(closed(SECOND, target, backend_id=1 + sent % 997) for target in targets))
        sent += 100
        rig.tracker.record_latency("hand", targets[0], 1)
        if generation % 10 == 0:
            assert total(rig.tracker) == sent + generation + 1
            assert OVERFLOW not in rig.tracker.get_all_histograms()
        if generation == 300:
            resident = _resident_bytes()
    assert _resident_bytes() - resident < 4 << 20
    everything = rig.tracker.get_all_histograms()
    assert OVERFLOW not in everything
    assert sum(each["count"] for each in everything.values()) == sent + 1000
    assert sum(each["sum"] for each in everything.values()) == sent + 1000
    assert_accounted(rig.tracker)


def test_backends_of_earlier_starts_expire() -> None:
    """Stopped or started anew, also with connections open at the stop: their time goes on."""
    tracker = LatencyTracker(max_backends=200, expire_after=0.04, removed_row=True)
    for cycle in range(100):
        ring = stats.MemoryRing(1 << 16)
        with stats.create_event_stream(ring) as stream:
            tracker.start(stream, None, "web")
            for target in addresses(cycle * 100, 100):
                assert ring.produce(opened(target))
                assert ring.produce(opened(target))
                assert ring.produce(closed(SECOND, target))
            stream.drain()
            if cycle % 2:
                tracker.stop()
                wait_until(lambda: not named(tracker), "all to go while the tracker is stopped")
            else:
                wait_until(lambda: len(named(tracker)) <= 100, "earlier ones to go")
            tracker.stop()
        assert OVERFLOW not in tracker.get_all_histograms()
        if cycle == 30:
            resident = _resident_bytes()
    assert _resident_bytes() - resident < 4 << 20
    assert tracker.get_all_histograms()[REMOVED]["count"] == total(tracker) == 100 * 100
    assert_accounted(tracker)


def test_what_opened_before_a_reset_stays_counted_when_its_backend_goes() -> None:
    """Sums over all backends never go down, that of opened connections neither."""
    rings = [stats.MemoryRing(1 << 16) for _ in range(2)]
    streams = [stats.create_event_stream(ring) for ring in rings]
    tracker = LatencyTracker(removed_row=True)
    tracker.start(streams, None, "web")

    def send(ring: int, kind: str, n: int) -> None:
        for _ in range(n):
            assert rings[ring].produce(stats.Event(kind, TARGET, 2 * SECOND, SECOND).pack())
        streams[ring].drain()

    send(0, "opened", 7)
    send(1, "closed", 2)
    tracker.reset_histograms()
    send(0, "opened", 1)
    assert sum(row.opened for row in tracker.backends()) == 6
    assert tracker.remove("web", TARGET)
    assert [(row.proxy, row.opened) for row in tracker.backends()] == [("removed", 6)]
    tracker.reset_histograms()
    assert tracker.backends() == []
