"""The renderers in C say what the Collector says, and only that."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

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
from lblatency.render import OPENMETRICS, TEXT, TEXT_1, Capture
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


@given(
    st.lists(
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
)
@settings(deadline=None)
def test_any_names_and_any_latencies(records: list[tuple[str, str, float]]) -> None:
    """Whatever is recorded, text is what the Collector gives, and OpenMetrics says the same."""
    tracker = LatencyTracker(buckets=(0.001, 1, 1e6))
    for record in records:
        tracker.record_latency(*record)
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
