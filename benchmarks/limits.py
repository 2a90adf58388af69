"""Regression limits of the figures, and where the results have these figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .results import Results

Reader = Callable[[Results], float]

SIZES = [f"{n} backends" for n in (16, 1_000, 10_000)]
STATES = ("after others", "back to back")
ORDERS = {"ids": "lblatency, ids", "hash": "lblatency, hash"}


@dataclass(frozen=True)
class Limit:
    """One row: limits, and as many figures.

    Attributes:
        text: what the figures measure.
        sign: "≤" or "≥".
        limits: of each figure, the most or the least.
        readers: functions that read one figure from the results; KeyError if it is not there.
    """

    text: str
    sign: str
    limits: tuple[float, ...]
    readers: tuple[Reader, ...]

    def kept(self, values: list[float | None]) -> bool:
        """Whether all figures are within their limits."""
        return all(
            value is not None and (value <= limit if self.sign == "≤" else value >= limit)
            for value, limit in zip(values, self.limits, strict=True)
        )


def _ns(topic: str, case: str, contender: str) -> Reader:
    return lambda results: results.ns(topic, case, contender)


def _ratio(topic: str, case: str, contender: str, other: str) -> Reader:
    return lambda results: results.ratio(topic, case, contender, other)


def _figure(topic: str, case: str, contender: str, name: str) -> Reader:
    return lambda results: results.figure(topic, case, contender, name)


def _growth(topic: str, contender: str) -> Reader:
    return lambda results: (
        results.ns(topic, "100000 backends", contender)
        / results.ns(topic, "10000 backends", contender)
    )


def _drain_limits(state: str) -> list[Limit]:
    topic = f"drain, {state}"
    floor = {"ids": (4.5, 8.0, 24.0), "hash": (8.5, 17.0, 26.0)}
    peers = {
        ("C++ stack", "ids"): (8.0, 5.0, 3.0),
        ("C++ stack", "hash"): (4.0, 3.0, 3.0),
        ("Go stack", "ids"): (15.0, 8.0, 4.0),
        ("Go stack", "hash"): (8.0, 4.0, 3.0),
    }
    rows = [
        Limit(
            f"drain {state}, {order}, 16 / 1k / 10k: times the memory floor", "≤", limits,
            tuple(_ratio(topic, size, ORDERS[order], "memory floor") for size in SIZES),
        )
        for order, limits in floor.items()
    ]  # fmt: skip
    rows += [
        Limit(
            f"drain {state}, {order}, 16 / 1k / 10k / 100k: times the counting floor", "≤",
            (3, 3, 3, 3),
            tuple(
                _ratio(topic, size, ours, "counting floor") for size in [*SIZES, "100000 backends"]
            ),
        )
        for order, ours in ORDERS.items()
    ]  # fmt: skip
    rows.append(
        Limit(
            f"drain {state}, ids / hash: 100k times 10k", "≤", (1.6, 1.6),
            tuple(_growth(topic, each) for each in ORDERS.values()),
        )
    )  # fmt: skip
    rows += [
        Limit(
            f"drain {state}, {order}, 16 / 1k / 10k: times faster than the {peer}", "≥", limits,
            tuple(_ratio(topic, size, peer, ORDERS[order]) for size in SIZES),
        )
        for (peer, order), limits in peers.items()
    ]  # fmt: skip
    return rows


def _latencies(backends: str) -> Reader:
    return _ratio("latencies", backends, "four latencies", "lifetime alone")


_PYTHON = "python per event", "16 backends"
_RECORD = "record", "one call"
_BULK = "bulk", "1 M doubles"
_SUSTAINED = "sustained", "10 M events/s, 16 MiB ring", "lblatency"
_ORDINARY = "ordinary", "7000 events/s", "lblatency"
_SNAPSHOT = "snapshot", "10000 backends", "drain during snapshots"
_SCRAPED = "snapshot", "10000 backends", "drain during scrapes"
_RENDER = "render", "10000 backends"
_FORMATS = "text, in pieces", "protobuf, classic and native"
_MEMORY = "memory", "10000 backends"
_TYPICAL = "two decades of lifetimes"
_FULL = "memory", "1000 backends", "every counter there can be, carried"

_OURS, _THEIRS = "lblatency serve", "prometheus_client's server, LatencyCollector"
_SCRAPES = ("10000 backends, text", "10000 backends, text, gzip")
_MANY = ("100000 backends, text, gzip", "100000 backends, OpenMetrics, gzip")
_BAD_CLIENTS = [
    ("scrape beside others", case, clients)
    for case in ("10000 backends", "10000 backends, TLS")
    for clients in ("200 clients that never read", "200 silent clients")
]


def _seconds(case: str) -> Reader:
    return lambda results: results.ns("scrape", case, _OURS) / 1e9


def _added(case: str) -> Reader:
    return lambda results: (
        results.figure("scrape", case, _OURS, "added_mib")
        / results.figure("scrape", case, _THEIRS, "added_mib")
    )


_PAGE = ("first paint", "sort", "filter", "scroll, longest of 60 frames", "update, longest frame")
LIMITS = [
    *_drain_limits(STATES[0]),
    *_drain_limits(STATES[1]),
    Limit(
        "recording four latencies, 16 / 1k / 10k / 100k: times the lifetime alone", "≤",
        (2.2, 2.2, 2.2, 2.2), tuple(_latencies(size) for size in [*SIZES, "100000 backends"]),
    ),
    Limit(
        "an event, 16 backends, times faster than a cffi callback / prometheus_client observe", "≥",
        (100, 150),
        (
            _ratio(*_PYTHON, "cffi callback, prometheus_client observe()", "lblatency"),
            _ratio(*_PYTHON, "prometheus_client observe(), no ring", "lblatency"),
        ),
    ),
    Limit(
        "record_latency(), times faster than labels().observe()", "≥", (6,),
        (_ratio(*_RECORD, "prometheus_client labels().observe()", "record_latency()"),),
    ),
    Limit(
        "backend().observe(), times faster than a prometheus_client child", "≥", (6,),
        (_ratio(*_RECORD, "prometheus_client child.observe()", "backend().observe()"),),
    ),
    Limit("record_many(), ns per value", "≤", (5,), (_ns(*_BULK, "record_many()"),)),
    Limit(
        "record_many(), times faster than boost-histogram", "≥", (1,),
        (_ratio(*_BULK, "boost-histogram fill()", "record_many()"),),
    ),
    Limit(
        "10 M events/s: dropped / % of a core", "≤", (0, 15),
        (_figure(*_SUSTAINED, "dropped"), _figure(*_SUSTAINED, "core_percent")),
    ),
    Limit(
        "7,000 events/s: producer / consumer, ns of CPU per event", "≤", (300, 1000),
        (_figure(*_ORDINARY, "producer_ns"), _figure(*_ORDINARY, "consumer_ns")),
    ),
    Limit(
        "idle: % of a core", "≤", (0.05,),
        (_figure("idle", "no events", "lblatency", "core_percent"),),
    ),
    Limit(
        "drain during snapshots of 10k backends: times drain alone / longest call, ms", "≤",
        (1 / 0.9, 1), (_ratio(*_SNAPSHOT, "drain alone"), _figure(*_SNAPSHOT, "longest_ms")),
    ),
    Limit(
        "drain during scrapes of 10k backends: times drain alone / longest call, ms", "≤",
        (1.05, 1), (_ratio(*_SCRAPED, "drain alone"), _figure(*_SCRAPED, "longest_ms")),
    ),
    Limit(
        "rendering 10k backends, times faster than generate_latest() with the Collector:"
        " text / protobuf", "≥", (40, 40),
        tuple(_ratio(*_RENDER, "generate_latest(), LatencyCollector", name) for name in _FORMATS),
    ),
    Limit(
        "generate_latest() with the Collector, times faster than with HistogramMetricFamily", "≥",
        (1.3,),
        (
            _ratio(
                *_RENDER, "generate_latest(), HistogramMetricFamily",
                "generate_latest(), LatencyCollector",
            ),
        ),
    ),
    Limit(
        "rendering 100k backends, times 10k: text / protobuf", "≤", (15, 15),
        tuple(_growth("render", name) for name in _FORMATS),
    ),
    Limit(
        "KiB per backend: two decades of lifetimes / all there can be", "≤", (4, 20),
        (
            _figure(*_MEMORY, _TYPICAL, "kib_per_backend"),
            _figure(*_FULL, "kib_per_backend"),
        ),
    ),
    Limit("10k typical backends, MiB", "≤", (60,), (_figure(*_MEMORY, _TYPICAL, "mib"),)),
    Limit(
        "lbl_conn_closed() in a TC program, ns: clock read by it / by the balancer", "≤", (60, 60),
        tuple(
            _figure("kernel", "TC program", name, "own_ns")
            for name in ("lbl_conn_closed()", "lbl_conn_closed(), the time being known")
        ),
    ),
    Limit(
        "nat_lb, packet of an established TCP flow, ns: in / out", "≤", (150, 150),
        tuple(_figure("nat_lb", "hot", f"TCP, IPv4, {way}", "own_ns") for way in ("in", "out")),
    ),
    Limit(
        "flows, packet of real traffic, ns: ping-pong in / out / flood", "≤", (350, 350, 350),
        tuple(
            _figure("flows", "live, TCP or UDP, IPv4", name, "own_ns")
            for name in ("ping_pong, in", "ping_pong, out", "flood, out")
        ),
    ),
    Limit(
        "flows, bulk throughput, times that without", "≥", (0.95,),
        (_figure("flows", "bulk, ns per byte", "followed", "throughput"),),
    ),
    Limit(
        "scan of 100,000 entries, ms of CPU: hash / per-CPU, 40-byte keys", "≤", (60, 60),
        tuple(
            _figure("scan", "100000 entries", f"{kind}, keys of 40 bytes", "cpu_ms")
            for kind in ("hash", "per-CPU hash")
        ),
    ),
    Limit(
        "socket source: connections per second through HAProxy / of the loopback, times those"
        " without it", "≥", (0.98, 1 / 1.05),
        tuple(
            _ratio("sockets", case, "no source", "taken by the source")
            for case in ("connection through HAProxy", "loopback connection")
        ),
    ),
    Limit(
        "socket source, a hit of other traffic, ns: state / second program / data", "≤",
        (120, 120, 120),
        tuple(
            _ns("sockets", "hit of a connection left alone by the source", program)
            for program in ("change of state", "change of state, second program", "data")
        ),
    ),
    Limit(
        "scrape of 10k backends, text / gzip: times faster than prometheus_client's server", "≥",
        (40, 20), tuple(_ratio("scrape", case, _THEIRS, _OURS) for case in _SCRAPES),
    ),
    Limit(
        "scrape of 10k backends, text / gzip: memory added, times that server's", "≤",
        (0.25, 0.25), tuple(map(_added, _SCRAPES)),
    ),
    Limit(
        "scrape of 100k backends with gzip, s: text / OpenMetrics", "≤", (2, 2),
        tuple(map(_seconds, _MANY)),
    ),
    Limit(
        "scrape of 100k backends with gzip, MiB added: text / OpenMetrics", "≤", (300, 300),
        tuple(_figure("scrape", case, _OURS, "added_mib") for case in _MANY),
    ),
    Limit(
        "p99 of a scrape beside 200 clients, times that alone: never read / silent, then TLS", "≤",
        (2, 2, 2, 2), tuple(_figure(*each, "p99_times_that_alone") for each in _BAD_CLIENTS),
    ),
    Limit(
        "MiB added by them", "≤", (300, 300, 300, 300),
        tuple(_figure(*each, "added_mib") for each in _BAD_CLIENTS),
    ),
    Limit(
        "import lblatency, ms over bare python", "≤", (60,),
        (_figure("import", "an interpreter's life", "import lblatency", "ms_over_bare"),),
    ),
    Limit(
        "page, 10k backends, ms: first paint / sort / filter / scroll / update", "≤",
        (1000, 50, 50, 50, 50),
        tuple(_figure("page", case, "10000 backends", "ms") for case in _PAGE),
    ),
]  # fmt: skip
