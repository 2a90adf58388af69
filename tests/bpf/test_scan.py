"""Events from conntrack maps of balancers that send none."""

from __future__ import annotations

import errno
import os
import random
import struct
import time
from collections import Counter
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

import lblatency
from lblatency import LatencyCollector, LatencyTracker
from lblatency._ffi import ffi
from lblatency.sources import Scan
from tests.bpf.test_conntrack_churn import churn
from tests.support import bpf
from tests.support.clang import compiled
from tests.support.conntrack import KINDS, Table
from tests.support.conntrack_lb import BACKEND, Balancer, Lived
from tests.support.rig import SECOND, assert_accounted, in_child, wait_until
from tests.support.timed import Span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lblatency.stats import Event, Subscription

pytestmark = pytest.mark.bpf

NEVER = 3600  # seconds between the thread's scans: the test makes them itself
TARGET = f"{BACKEND}:80"


@contextmanager
def scanned(
    kind: str = "per-CPU hash", unified: bool = False, entries: int = 1000, interval: float = NEVER
) -> Iterator[tuple[Table, Scan]]:
    """A map and its source."""
    table = Table(KINDS[kind], unified, entries)
    with Scan(table.fd, interval=interval) as source:
        yield table, source
    table.close()


def events(queue: Subscription, source: Scan) -> list[Event]:
    """The events that have come since."""
    source.stream.drain()
    found = []
    while (event := queue.get(timeout=0)) is not None:
        found.append(event)
    return found


def lifetime(event: Event) -> int:
    """In ns."""
    assert event.created_ns
    return event.timestamp_ns - event.created_ns


class Looks:
    """The scans that a test makes, and when: what bounds errors, however late the test runs."""

    def __init__(self, source: Scan, before_ns: int) -> None:
        """The source was opened after `before_ns`, which made its first scan."""
        self._source = source
        self._spans = [Span(before_ns, time.monotonic_ns())]

    def scan(self) -> int:
        """Scan now; returns how many entries."""
        before_ns = time.monotonic_ns()
        found = self._source.scan()
        self._spans.append(Span(before_ns, time.monotonic_ns()))
        return found

    @property
    def longest_ns(self) -> int:
        """The longest time that may have been from a scan's look at an entry to the next one's."""
        return max(after.last - before.first for before, after in pairwise(self._spans))


def off_by(event: Event, truth: Lived) -> int:
    """How far a lifetime is outside of what the balancer's own clock allows, in ns."""
    return max(truth.least_ns - lifetime(event), lifetime(event) - truth.most_ns, 0)


@pytest.mark.parametrize("moves", [True, False], ids=["moving", "written once"])
@pytest.mark.parametrize("unified", [False, True], ids=["16", "40"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_connection_counts_once_within_the_interval(
    kind: str, unified: bool, moves: bool
) -> None:
    """Connections that come, go and send at random: counts exact, lifetimes within an interval."""
    choose = random.Random(f"{kind} {unified} {moves}")
    truths: dict[int, Lived] = {}
    began_scan: dict[int, int] = {}
    seen: set[int] = set()
    ends = []
    port = 1000
    before = time.monotonic_ns()
    with scanned(kind, unified) as (table, source), source.stream.subscribe() as queue:
        looks = Looks(source, before)
        balancer = Balancer(table, moves=moves)
        for step in range(60):
            for each in list(began_scan):
                if choose.random() < 0.15:
                    truths[each] = balancer.end(each)
                    del began_scan[each]
            for _ in range(choose.randrange(12) if step < 50 else 0):
                port += 1
                began_scan[port] = step
                balancer.packet(port)
            for each in choose.choices(list(began_scan) or [0], k=30):
                if each:
                    balancer.packet(each)
            assert looks.scan() == len(began_scan)
            seen |= set(began_scan)
        for each in began_scan:
            truths[each] = balancer.end(each)
        looks.scan()
        found = events(queue, source)
        ends = [event for event in found if event.type == "closed"]
        opened = Counter(event.target for event in found if event.type == "opened")
        assert opened == Counter(f"{BACKEND}:{each}" for each in seen)
        assert Counter(event.target for event in ends) == opened
        assert source.status()["open"] == 0
    errors = [off_by(event, truths[int(event.target.rpartition(":")[2])]) for event in ends]
    assert max(errors) <= looks.longest_ns


def test_the_thread_scans_by_itself() -> None:
    """With a tracker, on the thread's own time: none lost, none twice, within status()'s error."""
    truths: dict[int, Lived] = {}
    tracker = LatencyTracker()
    with scanned(interval=0.02) as (table, source), source.stream.subscribe() as queue:
        tracker.start(source.stream, None, "web")
        balancer = Balancer(table)
        for port in range(1000, 1200):
            balancer.packet(port)
        wait_until(lambda: source.status()["open"] == 200, "all to be found")
        worst = 0.0
        for port in range(1000, 1200):
            balancer.packet(port)
            truths[port] = balancer.end(port)
            worst = max(worst, source.status()["error"])
        wait_until(lambda: source.status()["open"] == 0, "all to be gone")
        worst = max(worst, source.status()["error"])
        ends = [event for event in events(queue, source) if event.type == "closed"]
        tracker.stop()
    assert len(ends) == 200
    assert all(off_by(each, truths[int(each.target[-4:])]) <= worst * SECOND for each in ends)
    counts = assert_accounted(tracker)
    assert (counts["recorded"], counts["closed"], counts["dropped"]) == (200, 200, 0)


def test_one_look_is_no_proof_that_creation_times_stay() -> None:
    """The first connection of all is within the interval, though it was seen but once."""
    before = time.monotonic_ns()
    with scanned("hash") as (table, source), source.stream.subscribe() as queue:
        looks = Looks(source, before)
        balancer = Balancer(table)
        for _ in range(2):
            looks.scan()
            until = time.monotonic_ns() + SECOND // 20
            while time.monotonic_ns() < until:
                balancer.packet(80)
        truth = balancer.end(80)
        looks.scan()
        ended = events(queue, source)[-1]
    assert off_by(ended, truth) <= looks.longest_ns


def test_lifetimes_are_off_evenly() -> None:
    """Where creation times move, half of the lifetimes are too long, and half too short."""
    errors = []
    with scanned("hash") as (table, source), source.stream.subscribe() as queue:
        balancer = Balancer(table)
        choose = random.Random(1)
        alive: list[int] = []
        truths: dict[int, Lived] = {}
        port = 1000
        for _ in range(400):
            for _ in range(20):  # small steps in time, so that scans come at any of them
                what = choose.random()
                if what < 0.1:
                    port += 1
                    alive.append(port)
                    balancer.packet(port)
                elif what < 0.2 and alive:
                    each = alive.pop(choose.randrange(len(alive)))
                    truths[each] = balancer.end(each)
                for each in alive[-5:]:
                    balancer.packet(each)
            source.scan()
        for event in events(queue, source):
            if event.type == "closed":
                truth = truths[int(event.target.rpartition(":")[2])]
                errors.append(lifetime(event) - (truth.least_ns + truth.most_ns) // 2)
    longer = sum(error > 0 for error in errors)
    assert len(errors) > 300
    assert 0.3 < longer / len(errors) < 0.7


def test_an_idle_sweep_ends_a_connection_at_its_last_packet() -> None:
    """The documented balancer deletes what was idle for 300 s: exact, with the reason."""
    with scanned() as (table, source), source.stream.subscribe() as queue:
        now = time.monotonic_ns()
        times = (now - 400 * SECOND, now - 300 * SECOND, 5, 5, 5, 5)
        table.put(backend=(BACKEND, 80), per_cpu=[times])
        source.scan()
        table.delete(backend=(BACKEND, 80))
        source.scan()
        opened, ended = events(queue, source)
        assert opened.type == "opened"
        assert (ended.reason, lifetime(ended)) == ("timeout", 100 * SECOND)
        assert source.status()["timed_out"] == 1


def test_a_map_that_loses_entries_promptly_has_no_idle_sweep() -> None:
    """Once most entries vanish soon after a packet, an idle connection ends when it vanishes."""
    with scanned() as (table, source), source.stream.subscribe() as queue:
        balancer = Balancer(table)
        for port in (81, 82):
            balancer.packet(port)
        source.scan()
        for port in (81, 82):
            balancer.end(port)
        now = time.monotonic_ns()
        table.put(
            backend=(BACKEND, 80), per_cpu=[(now - 400 * SECOND, now - 300 * SECOND, *[5] * 4)]
        )
        source.scan()
        before = time.monotonic_ns()
        table.delete(backend=(BACKEND, 80))
        source.scan()
        ended = events(queue, source)[-1]
        assert (ended.target, ended.reason) == (TARGET, "unknown")
        assert before - SECOND < ended.timestamp_ns < time.monotonic_ns()


def test_a_tuple_that_is_used_again_is_two_connections() -> None:
    """The entry was deleted and made again between two scans: it has fewer packets."""
    before = time.monotonic_ns()
    with scanned() as (table, source), source.stream.subscribe() as queue:
        looks = Looks(source, before)
        balancer = Balancer(table)
        for _ in range(5):
            balancer.packet(80)
        looks.scan()
        first = balancer.end(80)
        balancer.packet(80)
        looks.scan()
        second = balancer.end(80)
        looks.scan()
        found = events(queue, source)
        assert [(event.type, event.reason) for event in found] == [
            ("opened", "unknown"),
            ("closed", "reused"),
            ("opened", "unknown"),
            ("closed", "unknown"),
        ]
        assert off_by(found[1], first) <= looks.longest_ns
        assert off_by(found[3], second) <= looks.longest_ns
        assert found[1].timestamp_ns <= found[2].timestamp_ns


@pytest.mark.parametrize("moves", [True, False])
def test_what_is_older_than_the_source(moves: bool) -> None:
    """It is open, and unmatched as it ends; what is open is right at any time."""
    table = Table(bpf.HASH, False)
    balancer = Balancer(table, moves=moves)
    for port in (80, 81, 82) * 3:
        balancer.packet(port)
    with Scan(table.fd, interval=NEVER) as source:
        tracker = LatencyTracker()
        tracker.start(source.stream, None, "web")

        def is_open() -> dict[int, int]:
            source.scan()
            source.stream.drain()
            return {row.port: row.open for row in tracker.backends()}

        assert is_open() == {80: 1, 81: 1, 82: 1}
        for port in (80, 81, 82, 90, 90, 91):
            balancer.packet(port)
        assert is_open() == {80: 1, 81: 1, 82: 1, 90: 1, 91: 1}
        for port in (80, 90):
            balancer.end(port)
        assert is_open() == {80: 0, 81: 1, 82: 1, 90: 0, 91: 1}
        tracker.stop()
        balancer.packet(92)
        balancer.packet(92)
        source.scan()
        tracker.start(source.stream, None, "web")
        assert is_open()[92] == 1
        balancer.end(92)
        assert is_open()[92] == 0
        tracker.stop()
        assert source.status()["older"] == 1
        assert assert_accounted(tracker)["unmatched"] == 1
    table.close()


@pytest.mark.parametrize("kind", KINDS)
def test_18000_stay_while_others_churn(kind: str) -> None:
    """Of a connection that stays, there is one event, whatever comes and goes beside it."""
    with scanned(kind, entries=40_000) as (table, source):
        tracker = LatencyTracker()
        tracker.start(source.stream, None, "web")
        row = (5 * SECOND, 7 * SECOND, 1, 2, 3, 4)
        for i in range(20_000):
            port = 80 if i >= 2_000 else 81  # what churns is at a backend of its own
            table.put((f"192.0.2.{i // 50_000}", 1024 + i % 50_000), (BACKEND, port), per_cpu=[row])
        assert source.scan() == 20_000
        with churn(table, (BACKEND, 81)):
            for _ in range(20):
                source.scan()
        tracker.stop()
        backends = {each.target: each for each in tracker.backends()}
        stayed, churned = (backends[f"{BACKEND}:{port}"].connections() for port in (80, 81))
        assert (stayed["opened"], stayed["closed"]) == (18_000, 0)
        assert churned["opened"] - churned["closed"] == source.status()["open"] - 18_000
        assert churned["closed"] > 0
        assert assert_accounted(tracker)["dropped"] == 0


def test_what_nobody_takes_is_dropped_and_counted() -> None:
    """The ring has room for a full map's connections; what is more is counted."""
    with scanned("hash", entries=10_000) as (table, source):
        for i in range(10_000):
            table.put(("192.0.2.1", 1024 + i), per_cpu=[(SECOND, SECOND, 1, 1, 1, 1)])
        source.scan()
        assert source.stream.stats().dropped == 0
        for i in range(10_000):
            table.delete(("192.0.2.1", 1024 + i))
        source.scan()
        counts = source.stream.stats()
        assert counts.produced == 20_000
        assert counts.dropped == 20_000 - counts.in_ring > 0


@contextmanager
def starved_drains() -> Iterator[None]:
    """Threads that drain rings run only if this one, on the same CPU, waits."""
    before = os.sched_getaffinity(0)
    here = {min(before)}
    os.sched_setaffinity(0, here)
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().startswith("lbl-drain"):
            os.sched_setaffinity(int(task.name), here)
            os.sched_setscheduler(int(task.name), os.SCHED_IDLE, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def test_no_event_is_dropped_while_somebody_takes_them() -> None:
    """20,000 events of a scan go through a ring for 16,384, though its thread hardly runs."""
    with scanned("hash", entries=10_000) as (table, source):
        tracker = LatencyTracker()
        tracker.start(source.stream, None, "web")
        with starved_drains():
            for packets in range(4, 0, -1):  # fewer: each entry is another connection's
                for i in range(10_000):
                    table.put(("192.0.2.1", 1024 + i), per_cpu=[(SECOND, SECOND, packets, 1, 1, 1)])
                source.scan()
        tracker.stop()
        counts = assert_accounted(tracker)
        assert (counts["opened"], counts["closed"], counts["dropped"]) == (40_000, 30_000, 0)


def test_rules_choose_backends_and_proxies() -> None:
    """The longest prefix counts, then the fewest ports; what matches none is not there."""
    table = Table(bpf.PERCPU_HASH, True)
    rules = [
        "10.0.0.0/8:1-65535=all",
        "10.0.0.1:80=web",
        "10.0.0.0/24:81",
        "[2001:db8::]/32:80=six",
    ]
    for i, backend in enumerate(
        [(BACKEND, 80), (BACKEND, 81), ("10.0.1.1", 80), ("2001:db8::1", 80), ("192.0.2.1", 80)]
    ):
        client = "2001:db8::7" if ":" in backend[0] else "192.0.2.7"
        table.put((client, 4000 + i), backend, per_cpu=[(SECOND, SECOND, 1, 1, 1, 1)])
    with Scan(table.fd, interval=NEVER, backends=rules) as source:
        with source.stream.subscribe() as queue:
            found = {
                (source.stream.proxies.get(event.proxy_id), event.target)
                for event in events(queue, source)
            }
        assert set(source.ages()) == found == {
            ("web", TARGET),
            (None, f"{BACKEND}:81"),
            ("all", "10.0.1.1:80"),
            ("six", "[2001:db8::1]:80"),
        }  # fmt: skip
    table.close()


def test_ages_of_open_connections() -> None:
    """A histogram per backend; a creation time that the map does not tell is open, of no age."""
    with scanned("hash") as (table, source):
        now = time.monotonic_ns()
        for i, age in enumerate([0.5, 5, 50, 500]):
            born = now - int(age * SECOND)
            table.put(("192.0.2.1", 4000 + i), (BACKEND, 80), per_cpu=[(born, born, 1, 0, 0, 0)])
        table.put(("192.0.2.1", 5000), (BACKEND, 80), per_cpu=[(0, now, 1, 0, 0, 0)])
        table.put(("192.0.2.1", 6000), (BACKEND, 81), per_cpu=[(now, now, 1, 0, 0, 0)])
        source.scan()
        ages = source.ages([1, 10, 100])
        assert set(ages) == {(None, TARGET), (None, f"{BACKEND}:81")}
        found = ages[None, TARGET]
        assert (found.open, found.count, found.counts) == (5, 4, [1, 2, 3])
        assert 555.5 <= found.sum < 600
        assert ages[None, f"{BACKEND}:81"].counts[0] == 1
        table.delete(("192.0.2.1", 6000), (BACKEND, 81))
        source.scan()
        assert set(source.ages()) == {(None, TARGET)}


def test_ages_and_the_interval_are_exported() -> None:
    """By the tracker's name; and what the interval bounds is what the last scans took."""
    tracker = LatencyTracker()
    with scanned("hash") as (table, source):
        registry = CollectorRegistry()
        registry.register(LatencyCollector(tracker, sources=[source]))
        tracker.start(source.stream, None, "web")
        now = time.monotonic_ns()
        for i, age in enumerate([0.5, 50]):
            born = now - int(age * SECOND)
            table.put(("192.0.2.1", 4000 + i), (BACKEND, 80), per_cpu=[(born, born, 1, 0, 0, 0)])
        source.scan()
        labels = {"proxy_name": "web", "target_ip": BACKEND, "target_port": "80"}
        value = registry.get_sample_value
        assert value("lb_backend_open_age_seconds_bucket", {**labels, "le": "30.0"}) == 1
        assert value("lb_backend_open_age_seconds_gcount", labels) == 2
        assert 50.5 <= (value("lb_backend_open_age_seconds_gsum", labels) or 0) < 60
        interval = value("lblatency_scan_interval_seconds")
        assert interval == source.scan_interval() == source.status()["error"]
        tracker.stop()


# ---- layouts ----


def test_a_described_layout() -> None:
    """Any key and value, also with the backend in the value, and host order."""
    fd = bpf.create_map(bpf.PERCPU_HASH, 9, 40, 100)
    text = (
        "client=key+1 client_port=key+5:2:host protocol=key+0,backend=value+4, backend_port=value+8"
        " created=value+12:8:be\tlast_seen=value+20 packets_fwd=value+28:4"
    )
    key = struct.pack("=B4sHxx", 6, bytes([192, 0, 2, 7]), 4000)
    born = time.monotonic_ns()
    value = (
        struct.pack("=I4s", 0, bytes([10, 0, 0, 1]))
        + struct.pack(">H2xQ", 80, born)
        + struct.pack("=QI", born, 3)
    ).ljust(40, b"\0")
    with Scan(fd, layout=text, interval=NEVER) as source, source.stream.subscribe() as queue:
        bpf.update(fd, key, bytes(40) * (bpf.possible_cpus() - 1) + value)
        source.scan()
        (opened,) = events(queue, source)
        assert (opened.target, opened.created_ns) == (TARGET, born)
        assert "backend_port=value+8:2:be" in source.status()["layout"]
        assert Scan(fd, layout=source.status()["layout"]).status()["open"] == 1
    os.close(fd)


@pytest.fixture(scope="module")
def typed_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps with type information."""
    return compiled("typed_maps", tmp_path_factory.mktemp("typed"))


def test_the_layout_is_read_from_type_information(typed_object: Path, bpffs: bpf.Bpffs) -> None:
    """Names of members tell; nested structs, typedefs and unions are looked into."""
    bpf.load(typed_object, bpffs)
    path = f"{bpffs.path}/maps/sessions"
    fd = bpf.open_pinned(path)
    now = time.monotonic_ns()
    key = struct.pack(">4s4sHHBxH", bytes([192, 0, 2, 7]), bytes([203, 0, 113, 1]), 4000, 443, 6, 0)
    value = struct.pack("=IxxxxQQ", 7, now, now) + struct.pack(">4sHxx", bytes([10, 0, 0, 1]), 80)
    bpf.update(fd, key, value.ljust(48, b"\0"))
    with Scan(path, interval=NEVER) as source:
        assert source.status()["layout"] == (
            "client=key+0:4 client_port=key+8:2:be backend=value+24:4 backend_port=value+28:2:be"
            " protocol=key+12:1:host vip=key+4:4 created=value+8:8:host last_seen=value+16:8:host"
        )
        assert set(source.ages()) == {(None, TARGET)}
    os.close(fd)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("unclear", "key.a.saddr or key.b.saddr of the map may be the field client; give its"),
        ("lacking", "no member of the map is backend or backend_port or created: it has key.saddr"),
        (
            "plain",
            "keys of 8 bytes and values of 8, has no documented layout and no type information",
        ),
    ],
)
def test_type_information_that_does_not_tell(
    typed_object: Path, bpffs: bpf.Bpffs, name: str, said: str
) -> None:
    """The error says what is there, and that a layout must be given."""
    bpf.load(typed_object, bpffs)
    with pytest.raises(lblatency.LatencyError, match=said):
        Scan(f"{bpffs.path}/maps/{name}")


@pytest.mark.parametrize(
    ("kind", "key_bytes", "value_bytes"),
    [(bpf.ARRAY, 4, 128), (bpf.HASH, 8, 128), (bpf.HASH, 16, 8192), (bpf.QUEUE, 0, 128)],
)
@pytest.mark.parametrize("layout", [None, "small"])
def test_other_maps_are_refused(
    kind: int, key_bytes: int, value_bytes: int, layout: str | None
) -> None:
    """One line says why."""
    fd = bpf.create_map(kind, key_bytes, value_bytes, 10)
    text = (
        layout
        and "client=key+0 client_port=key+4 backend=value+0 backend_port=value+4 created=value+8"
    )
    if (kind, text) == (bpf.HASH, None) or not text or key_bytes < 6 or value_bytes > 4096:
        with pytest.raises((lblatency.LatencyError, ValueError)) as caught:
            Scan(fd, layout=text)
        assert "\n" not in str(caught.value)
    else:
        Scan(fd, layout=text).close()
    os.close(fd)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("created=value+16", "created would be at bytes 16 to 23 of the value, which has 20"),
        ("created=key+9999", "created would be at bytes 9999 to 10006 of the key, which has 16"),
    ],
)
def test_a_layout_must_fit_the_map(change: str, said: str) -> None:
    """The error tells the bytes, and how many there are."""
    fd = bpf.create_map(bpf.HASH, 16, 20, 10)
    text = "client=key+0 client_port=key+8 backend=key+4 backend_port=key+10 "
    with pytest.raises(ValueError, match=said):
        Scan(fd, layout=text + change)
    os.close(fd)


def test_two_entries_of_one_tuple_are_counted() -> None:
    """If the layout leaves out a part of the key that tells entries apart, lost() says so."""
    fd = bpf.create_map(bpf.HASH, 16, 64, 10)
    text = "client=key+0 client_port=key+8 backend=key+4 backend_port=key+10 created=value+16"
    for direction in range(2):
        bpf.update(fd, struct.pack("=12xB3x", direction), bytes(64))
    with Scan(fd, layout=text, interval=NEVER) as source:
        source.scan()
        assert source.lost() == {"scan_full": 0, "scan_ambiguous": 2}
        assert source.status()["open"] == 1
    os.close(fd)


def test_a_map_that_cannot_be_read_is_an_error() -> None:
    """The source does not open, and nothing is left."""
    fd = bpf.create_map(bpf.HASH, 16, 128, 10, flags=bpf.WRONLY)
    with pytest.raises(lblatency.BpfError, match=f"scanning the conntrack map {fd}"):
        Scan(fd)
    os.close(fd)


def test_another_map_is_pinned_in_its_place(bpffs: bpf.Bpffs) -> None:
    """The balancer restarts: what was open is given up, and the new map is scanned."""
    old, new = Table(bpf.HASH, False), Table(bpf.PERCPU_HASH, True)
    path = f"{bpffs.path}/conntrack"
    bpf.pin(old.fd, path)
    for port in (80, 81):
        Balancer(old).packet(port)
    tracker = LatencyTracker()
    with Scan(path, interval=NEVER) as source:
        tracker.start(source.stream, None, "web")
        source.tick()
        assert source.status()["open"] == 2
        os.unlink(path)
        source.tick()
        assert source.status()["open"] == 2
        assert "no BPF map is pinned" in source.status()["scan_error"]
        assert "no BPF map is pinned" in str(source.trouble())
        Balancer(new).packet(82)
        bpf.pin(new.fd, path)
        source.tick()
        status = source.status()
        assert (status["open"], status["scan_error"], source.trouble()) == (1, None, None)
        assert status["layout"] == "documented, keys of 40 bytes"
    tracker.stop()
    closed = {row.port: row.closed["evicted"] for row in tracker.backends()}
    assert closed == {80: 1, 81: 1, 82: 1}
    assert assert_accounted(tracker)["unmatched"] == 3
    for table in (old, new):
        table.close()


def test_a_map_of_another_kind_in_its_place(bpffs: bpf.Bpffs) -> None:
    """The old one is still scanned, and the status says what is wrong."""
    old, other = Table(bpf.HASH, False), bpf.create_map(bpf.ARRAY, 4, 8, 10)
    path = f"{bpffs.path}/conntrack"
    bpf.pin(old.fd, path)
    with Scan(path, interval=NEVER) as source:
        os.unlink(path)
        bpf.pin(other, path)
        source.tick()
        assert "give its layout" in source.status()["scan_error"]
        assert source.trouble() == source.status()["scan_error"]
        Balancer(old).packet(80)
        source.scan()
        assert source.status()["open"] == 1
    old.close()
    os.close(other)


def test_scans_that_fail_are_told_until_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trouble is with the scans since the last tick, not with one that failed long ago."""
    with scanned() as (table, source):
        raw = ffi.new("struct lbl_scan_stats *")
        monkeypatch.setattr(source, "_stats", lambda: raw)
        raw.of_map.failures, raw.of_map.error = 3, errno.EPERM
        source.tick()
        assert source.trouble() == f"scanning the conntrack map {table.fd}: Operation not permitted"
        source.tick()
        assert source.trouble() is None


def test_a_fork_leaves_it_to_the_parent() -> None:
    """The child reads what was known and closes; the parent goes on."""
    with scanned("hash", interval=0.01) as (table, source):
        Balancer(table).packet(80)
        wait_until(lambda: source.status()["open"] == 1, "the connection")

        def check() -> None:
            assert source.status()["open"] == 1
            assert len(source.ages()) == 1
            source.close()

        for _ in range(20):
            in_child(check)
        before = source.status()["scans"]
        wait_until(lambda: source.status()["scans"] > before, "another scan")


def test_a_closed_source_is_closed() -> None:
    """Twice is once; then nothing works."""
    with scanned("hash") as (_, source):
        source.close()
        source.close()
        for call in (source.scan, source.ages, source.status, source.lost):
            with pytest.raises(ValueError, match="closed"):
                call()
