"""The renderers in C say what the Collector says, and only that."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import core as families
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families as parse_text

import lblatency
from lblatency import LatencyCollector, LatencyTracker
from lblatency.names import FileSd, Names
from lblatency.render import FORMATS, OPENMETRICS, PROTOBUF, TEXT, TEXT_1, Capture, Format
from lblatency.sources import OpenAges
from tests.support.rig import TARGET, Rig, in_child
from tests.test_collector import HOSTILE, busy

OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0"
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Also:
    """A collector of somebody else's, with a family of each type."""

    def collect(self) -> Iterator[Metric]:
        """One family after the other."""
        counter = families.CounterMetricFamily("other", 'help "\\\n', labels=["b", "a"])
        counter.add_metric(['q"', "\\n\n"], 1.5, created=5)
        counter.add_metric(["", "\N{SNOWMAN}"], 1e300)
        yield counter
        yield families.GaugeMetricFamily("other_seconds", "", value=-0.25, unit="seconds")
        yield families.UnknownMetricFamily("other_unknown", "x", value=float("nan"))
        yield families.InfoMetricFamily("other_info", "x", value={"version": "1"})
        yield families.StateSetMetricFamily("other_state", "x", value={"on": True, "off": False})
        summary = families.SummaryMetricFamily("other_summary", "x", labels=["a"])
        summary.add_metric(["1"], 3, 4.5)
        summary.add_sample("other_summary", {"a": "1", "quantile": "0.5"}, 0.125)
        yield summary
        histogram = families.HistogramMetricFamily("other_histogram", "x", labels=["a"])
        histogram.add_metric(["1"], [("0.5", 1), ("+Inf", 3)], 7.5)
        yield histogram
        gauges = families.GaugeHistogramMetricFamily("other_gauges", "x", labels=["a"])
        gauges.add_metric(["1"], [("0.5", 1), ("+Inf", 3)], 7.5)
        gauges.add_metric(["2"], [("0.5", 0), ("+Inf", 1)], 1)
        yield gauges


def generate_openmetrics(registry: CollectorRegistry) -> bytes:
    """The same text in OpenMetrics."""
    return bytes(exposition.generate_latest(registry))  # type: ignore[no-untyped-call]


def openmetrics(body: bytes) -> Iterable[Metric]:
    """What a strict parser reads."""
    found: Iterable[Metric] = parser.text_string_to_metric_families(  # type: ignore[no-untyped-call]
        body.decode()
    )
    return found


def series(parsed: Iterable[Metric]) -> Series:
    """All samples; fails if one comes twice."""
    found: Series = {}
    for family in parsed:
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def by_collector(*collectors: object) -> CollectorRegistry:
    """A registry with these."""
    registry = CollectorRegistry()
    for each in collectors:
        registry.register(each)  # type: ignore[arg-type]
    return registry


def all_latencies() -> LatencyTracker:
    """A tracker with four histograms, of which one has bounds of its own, and a large count."""
    tracker = LatencyTracker(
        metrics=("lifetime", "connect", "first_byte", "active"),
        buckets={"connect": (1e-6, 0.3, 16777216), "active": ()},
    )
    for metric in tracker.metrics:
        tracker.record_latency("web", TARGET, 0.1, metric=metric)
        tracker.record_latency("api", "[2001:db8::1]:443", 1e8, metric=metric)
    one = LatencyTracker()
    one.record_latency("web", TARGET, 1 / 3)
    for _ in range(24):
        for snapshot in one.get_all_histograms().values():
            one.add("web", TARGET, snapshot)
    tracker.add("web", TARGET, one.get_all_histograms()["web", TARGET])
    return tracker


def test_text_is_what_the_collector_gives_byte_for_byte() -> None:
    """All families, samples, labels and escapes, in the same order."""
    rig = busy()
    body, content_type = lblatency.exposition(rig.tracker)
    assert body == generate_latest(by_collector(LatencyCollector(rig.tracker)))
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    capture = Capture(rig.tracker)
    assert bytes(capture.render(TEXT_1)) == bytes(capture.render(TEXT)) == body


def test_openmetrics_is_what_the_collector_gives_byte_for_byte() -> None:
    """With its types, units and its end."""
    rig = busy()
    body, content_type = lblatency.exposition(rig.tracker, OPENMETRICS_TYPE)
    assert body == generate_openmetrics(by_collector(LatencyCollector(rig.tracker)))
    assert content_type.startswith(OPENMETRICS_TYPE)
    assert b"# UNIT lb_backend_latency_seconds seconds\n" in body
    assert body.endswith(b"\n# EOF\n")


def test_large_numbers_and_several_latencies() -> None:
    """What is printed in another way is the same number."""
    tracker = all_latencies()
    capture = Capture(tracker)
    expected = series(parse_text(generate_latest(by_collector(LatencyCollector(tracker))).decode()))
    assert series(parse_text(bytes(capture.render(TEXT)).decode())) == expected
    assert max(expected.values()) > 2**24
    found = series(openmetrics(bytes(capture.render(OPENMETRICS))))
    assert found == series(
        openmetrics(generate_openmetrics(by_collector(LatencyCollector(tracker))))
    )


def test_several_trackers_share_each_head() -> None:
    """A mapping gives each its label, and a family has one head."""
    trackers = {'first "one"': all_latencies(), "second": busy().tracker}
    body = lblatency.exposition(trackers)[0]
    expected = generate_latest(by_collector(LatencyCollector(trackers))).decode()
    assert series(parse_text(body.decode())) == series(parse_text(expected))
    heads = [line for line in body.splitlines() if line.startswith(b"#")]
    assert len(heads) == len(set(heads))
    assert [line for line in expected.splitlines() if line.startswith("#")] == [
        line.decode() for line in heads
    ]


def test_other_collectors_come_last_in_every_format() -> None:
    """Any type that prometheus_client has, as it would write it; without `_created`."""
    tracker = all_latencies()
    capture = Capture(tracker, more=[Also()])
    registry = by_collector(LatencyCollector(tracker), Also())
    created = ("other_created", (("a", "\\n\n"), ("b", 'q"')))
    for rendered, expected in (
        (bytes(capture.render(TEXT)), generate_latest(registry)),
        (bytes(capture.render(OPENMETRICS)), generate_openmetrics(registry)),
    ):
        mine = rendered.decode().splitlines()
        theirs = [line for line in expected.decode().splitlines() if "other_created" not in line]
        at = mine.index(next(line for line in mine if line.startswith("# HELP other")))
        assert mine[at:] == theirs[-len(mine) + at :]
    assert created not in series(parse_text(bytes(capture.render(TEXT)).decode()))


class Losses:
    """What a source lost."""

    def lost(self) -> Mapping[str, int]:
        """By reason."""
        return {"ring_of_source": 3}

    def failed_connects(self) -> Mapping[str, int]:
        """By cause."""
        return {"refused": 2}


class Scans(Losses):
    """What a source that scans knows."""

    def ages(self) -> Mapping[tuple[str | None, str], OpenAges]:
        """Of two proxies."""
        return {
            ("web", "10.0.0.1:80"): OpenAges(3, (0.5, 10), [1, 2], 12.5, 2),
            ("six", "[fd00::1]:81"): OpenAges(4, (0.5, 10), [0, 3], 100.5, 4),
        }

    def scan_interval(self) -> float:
        """Seconds."""
        return 1.5


def test_ages_of_open_connections_are_what_the_collector_has() -> None:
    """In text and OpenMetrics, where a gauge histogram has other names, byte for byte."""
    rig = busy()
    registry = by_collector(LatencyCollector(rig.tracker, sources=[Scans()]))
    capture = Capture(rig.tracker, sources=[Scans()])
    assert bytes(capture.render(TEXT)) == generate_latest(registry)
    expected = exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
    assert bytes(capture.render(OPENMETRICS)) == expected
    assert b"lb_backend_open_age_seconds_gsum{" in expected
    name = b"lb_backend_open_age_seconds"
    assert name in bytes(capture.render(PROTOBUF))
    assert name in bytes(capture.render_otlp({}))


def test_names_and_losses_have_their_places(tmp_path: Path) -> None:
    """What only Python knows is among the families of the table, where the Collector has it."""
    rig = busy()
    places = tmp_path / "places.json"
    labels = {"backend": "be", "server": 'srv"1'}
    places.write_text(json.dumps([{"targets": [TARGET], "labels": labels}]))
    with Names([FileSd(str(places))]) as names:
        names.refresh()
        body = lblatency.exposition(rig.tracker, names=names, sources=[Losses()])[0]
        collector = LatencyCollector(rig.tracker, names=names, sources=[Losses()])
        expected = generate_latest(by_collector(collector))

    def timeless(text: bytes) -> list[bytes]:
        return [line for line in text.splitlines() if not line.startswith(b"lblatency_names_age")]

    assert timeless(body) == timeless(expected)
    assert b'lb_backend_info{backend="be",proxy_name="' in body
    assert b'lblatency_events_lost_total{reason="ring_of_source"} 3.0' in body
    assert b'lblatency_failed_connects_total{cause="refused"} 2.0' in body


def test_a_copy_says_only_what_is_its_own() -> None:
    """In a child of fork() the page is the Collector's, too."""
    rig = busy()

    def check() -> None:
        body = lblatency.exposition(rig.tracker)[0]
        assert body == generate_latest(by_collector(LatencyCollector(rig.tracker)))
        assert b"lblatency_running 0.0" in body

    in_child(check)


def test_removed_and_overflowing_backends() -> None:
    """Rows without a backend are named as the Collector names them."""
    rig = Rig(max_backends=2, removed_row=True)
    for port in range(1, 6):
        rig.tracker.record_latency("web", f"10.0.0.1:{port}", 1)
    rig.tracker.remove("web", "10.0.0.1:1")
    body = lblatency.exposition(rig.tracker)[0]
    assert body == generate_latest(by_collector(LatencyCollector(rig.tracker)))
    for name in (b"overflow", b"removed"):
        assert b'proxy_name="%s",target_ip="%s",target_port="0"' % (name, name) in body


def test_the_default_tracker_is_the_default() -> None:
    """As with all functions of the package."""
    lblatency.record_latency("of-default", TARGET, 1)
    try:
        assert b'proxy_name="of-default"' in lblatency.exposition()[0]
    finally:
        lblatency.reset_histograms()


def test_what_is_no_tracker_is_refused() -> None:
    """With an error that says what to give."""
    with pytest.raises(TypeError, match="mapping from a name to each"):
        lblatency.exposition([LatencyTracker()])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sources is for one tracker"):
        lblatency.exposition({"a": LatencyTracker()}, sources=[Losses()])


RECORDS = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from(HOSTILE),
            st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=20),
        ),
        st.sampled_from([TARGET, "[::1]:0", "[::ffff:1.2.3.4]:65535", "255.255.255.255:1"]),
        st.floats(0, 1e9),
    ),
    max_size=20,
)


def recorded(records: list[tuple[str, str, float]]) -> LatencyTracker:
    """A tracker with these."""
    tracker = LatencyTracker(buckets=(0.001, 1, 1e6))
    for record in records:
        tracker.record_latency(*record)
    return tracker


@given(RECORDS)
@settings(deadline=None)
def test_any_names_and_any_latencies(records: list[tuple[str, str, float]]) -> None:
    """Whatever is recorded, text is what the Collector gives, and OpenMetrics says the same."""
    tracker = recorded(records)
    capture = Capture(tracker)
    registry = by_collector(LatencyCollector(tracker))
    mine, theirs = bytes(capture.render(TEXT)), generate_latest(registry)
    assert normal(mine) == normal(theirs)
    assert normal(bytes(capture.render(OPENMETRICS))) == normal(generate_openmetrics(registry))


def normal(text: bytes) -> list[tuple[bytes, float | bytes]]:
    """Each line's series and its number, which can be written in several ways."""
    lines = []
    for line in text.split(b"\n"):
        start, _, number = line.rpartition(b" ")
        lines.append((start, number if line.startswith(b"#") or not number else float(number)))
    return lines


def test_promtool_finds_nothing_to_say() -> None:
    """No lint of Prometheus' own tool, with names of all kinds."""
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=lblatency.exposition(busy().tracker)[0],
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@pytest.mark.parametrize("into", FORMATS, ids=lambda into: into.content_type[:24])
def test_pieces_make_the_whole(into: Format) -> None:
    """In any format; text in pieces of a size, and what is not asked for is not made."""
    capture = Capture(many(2000))
    pieces = list(capture.pieces(into))
    assert b"".join(pieces) == capture.render(into)
    assert len(pieces) > 2
    if into is not PROTOBUF:
        assert all(64 << 10 <= len(piece) < 128 << 10 for piece in pieces[:-1])
    begun = capture.pieces(into)
    assert next(begun) == pieces[0]
    del capture, begun
    with pytest.raises(ValueError, match="schema"):
        Capture(LatencyTracker()).pieces(into, schema=9)


def test_a_name_of_a_megabyte() -> None:
    """It is text in every line of its backend, and comes once per sample in protobuf."""
    name = '"\n' * (1 << 19)
    tracker = LatencyTracker(buckets=(1,))
    tracker.record_latency(name, TARGET, 0.5)
    capture = Capture(tracker)
    escaped = b'\\"\\n' * (1 << 19)
    lines = [line for line in bytes(capture.render(TEXT)).splitlines() if escaped in line]
    assert len(lines) == 6  # two buckets, count and sum; closed, open
    assert all(len(line) < len(escaped) + 200 for line in lines)
    assert bytes(capture.render(PROTOBUF)).count(name.encode()) == 3


# ---- limits ----


def many(n: int, **kwargs: Any) -> LatencyTracker:
    """A tracker with that many backends, of which each has one observation of each latency."""
    tracker = LatencyTracker(metrics=("lifetime", "connect"), **kwargs)
    for i in range(n):
        for metric in tracker.metrics:
            tracker.record_latency("web", f"10.0.{i >> 8}.{i & 255}:80", 0.001 * i, metric=metric)
    return tracker


def of_backends(tracker: LatencyTracker, **kwargs: Any) -> tuple[Series, float | None]:
    """The series of backends, and how many backends were folded."""
    found = series(parse_text(lblatency.exposition(tracker, **kwargs)[0].decode()))
    folded = found.get(("lblatency_backends_folded", ()))
    return {key: found[key] for key in found if "target_ip" in dict(key[1])}, folded


@pytest.mark.parametrize("max_series", [0, 1, 100, 500, 10_000])
def test_later_backends_are_folded(max_series: int) -> None:
    """No more series than allowed besides the row "overflow", and no count is lost."""
    tracker = many(30)
    all_series, folded = of_backends(tracker)
    assert folded is None
    kept, folded = of_backends(tracker, max_series=max_series)
    targets = [ip for (name, labels), _ in kept.items() if (ip := dict(labels)["target_ip"])]
    own = sorted({ip for ip in targets if ip != "overflow"}, key=lambda ip: ip.split("."))
    assert sum(ip != "overflow" for ip in targets) <= max_series
    assert folded == 30 - len(own)
    assert (folded == 0) == (max_series == 10_000)
    assert {ip.rpartition(".")[2] for ip in own} == {str(i) for i in range(len(own))}
    for (name, labels), value in kept.items():
        if dict(labels)["target_ip"] != "overflow":
            assert all_series[name, labels] == value
    for name in ("lb_backend_latency_seconds", "lb_backend_connect_seconds"):
        for suffix in ("_count", "_sum", "_bucket"):
            for le in {dict(labels).get("le") for _, labels in all_series}:
                assert total(kept, name + suffix, le) == pytest.approx(
                    total(all_series, name + suffix, le), rel=1e-12
                )


def total(found: Series, name: str, le: str | None) -> float:
    """The sum over all backends."""
    return sum(
        value
        for (each, labels), value in found.items()
        if each == name and dict(labels).get("le") == le
    )


def test_a_series_that_is_there_stays() -> None:
    """Backends that come later push none out, wherever their names are in the order of rows."""
    tracker = LatencyTracker()
    limit = 3 * tracker.series_per_backend()
    for proxy in ("m", "n", "o"):
        tracker.record_latency(proxy, "10.0.0.5:500", 1)
    before, folded = of_backends(tracker, max_series=limit)
    assert folded == 0
    for target in ("0.0.0.1:1", "255.0.0.1:65535", "[::1]:80"):
        for proxy in ("a", "z"):
            tracker.record_latency(proxy, target, 1)
    after, folded = of_backends(tracker, max_series=limit)
    assert folded == 6
    assert {key: after[key] for key in before} == before
    assert {dict(labels)["proxy_name"] for _, labels in after} == {"m", "n", "o", "overflow"}


def test_what_overflowed_before_is_in_the_same_row() -> None:
    """Backends beyond `max_backends` and those beyond the limit of series are one row."""
    tracker = many(10, max_backends=5)
    kept, folded = of_backends(tracker, max_series=0)
    assert folded == 5
    assert total(kept, "lb_backend_latency_seconds_count", None) == 10
    assert {dict(labels)["target_ip"] for _, labels in kept} == {"overflow"}


def test_limits_of_several_trackers() -> None:
    """They share the limit, and each tells how many it folded."""
    trackers = {"a": many(4), "b": many(6)}
    each = trackers["a"].series_per_backend()
    text = lblatency.exposition(trackers, max_series=2 * 5 * each)[0].decode()
    assert 'lblatency_backends_folded{tracker="a"} 0.0\n' in text
    assert 'lblatency_backends_folded{tracker="b"} 1.0\n' in text
    with pytest.raises(ValueError, match="0 or more"):
        Capture(trackers, max_series=-1)
