"""The collector, seen by a registry, a scrape and promtool."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

import lblatency
from lblatency import LatencyCollector, LatencyTracker, stats
from lblatency.sources import OpenAges
from tests.support.rig import SECOND, TARGET, Rig, closed

LATENCY = "lb_backend_latency_seconds"
HOSTILE = [
    'q"uote',
    "back\\slash",
    "new\nline",
    "\\n",
    "\N{SNOWMAN}\U0001f600",
    "a,b={}",
    " ",
    "\t\r",
    "x\\",
]
BACKEND = {"proxy_name": "web", "target_ip": "10.0.0.1", "target_port": "80"}


def registry_of(tracker: LatencyTracker) -> CollectorRegistry:
    """A registry that calls describe(), as the default one does."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(LatencyCollector(tracker))
    return registry


def samples(
    families: Iterable[Metric],
) -> list[tuple[tuple[str, tuple[tuple[str, str], ...]], float]]:
    """A mapping from the name and labels of every sample to its value."""
    return [
        ((sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        for family in families
        for sample in family.samples
    ]


def busy() -> Rig:
    """A tracker that has recorded events of all kinds."""
    rig = Rig(proxies={1: HOSTILE[0]}, max_backends=20)
    rig.send(
        stats.Event("opened", TARGET, SECOND).pack(),
        stats.Event("opened", TARGET, SECOND).pack(),
        closed(2 * SECOND, reason="fin"),
        closed(3 * SECOND, reason="rst", proxy_id=1),
        closed(SECOND, probe=True),
        stats.Event("closed", "[2001:db8::1]:80", 5, 9).pack(),
        stats.Event("closed", "[2001:db8::2]:443", 5).pack(),
        stats.Event("periodic", TARGET, SECOND).pack(),
        b"garbage",
    )
    for name in HOSTILE:
        rig.tracker.record_latency(name, TARGET, 0.25)
    for i in range(20):
        rig.tracker.record_latency("many", f"10.1.0.{i}:80", 1)
    return rig


def test_the_histogram_is_exposed() -> None:
    """The histogram has cumulative buckets at each bound and +Inf, a sum and a count."""
    tracker = LatencyTracker(buckets=(0.001, 1, 10))
    for seconds in (0.001, 0.5, 1, 11):
        tracker.record_latency("web", TARGET, seconds)
    registry = registry_of(tracker)
    for bound, count in (("0.001", 1), ("1.0", 3), ("10.0", 3), ("+Inf", 4)):
        assert registry.get_sample_value(f"{LATENCY}_bucket", BACKEND | {"le": bound}) == count
    assert registry.get_sample_value(f"{LATENCY}_count", BACKEND) == 4
    assert registry.get_sample_value(f"{LATENCY}_sum", BACKEND) == 12.501
    text = generate_latest(registry).decode()
    assert f"# HELP {LATENCY} Backend connection latency in seconds\n" in text
    assert f"# TYPE {LATENCY} histogram\n" in text


def test_its_own_counts_are_exposed() -> None:
    """It exports events by type, losses and connections by reason, and the ring."""
    registry = registry_of(busy().tracker)
    value = registry.get_sample_value
    for kind, count in (("opened", 2), ("closed", 5), ("periodic", 1), ("malformed", 1)):
        assert value("lblatency_events_total", {"type": kind}) == count
    for reason in ("unmatched", "rejected", "malformed"):
        assert value("lblatency_events_lost_total", {"reason": reason}) == 1
    assert value("lblatency_events_lost_total", {"reason": "dropped"}) == 0
    assert value("lblatency_connections_closed_total", BACKEND | {"reason": "fin"}) == 1
    assert value("lblatency_connections_closed_total", BACKEND | {"reason": "rst"}) is None
    assert value("lblatency_connections_open", BACKEND) == 0
    for name, count in (("recorded", 2), ("unmatched", 1), ("rejected", 1), ("ignored", 1)):
        assert value("lblatency_closed_events_total", {"outcome": name}) == count
    assert value("lblatency_events_produced_total") == value("lblatency_events_received_total") == 9
    assert value("lblatency_counters_attached") == 1
    assert value("lblatency_ring_events") == 0
    assert value("lblatency_ring_fill_bytes") == 0
    assert (value("lblatency_ring_fill_max_bytes") or 0) >= 64
    assert value("lblatency_ring_size_bytes") == 1 << 16
    (build,) = (family for family in registry.collect() if family.name == "lblatency_build")
    assert build.samples[0].labels["version"] == lblatency.__version__
    assert build.samples[0].name == "lblatency_build_info"


def test_no_series_twice() -> None:
    """After any events, no two samples have the same name and labels."""
    rig = busy()
    rig.tracker.record_latency("overflow", TARGET, 1)
    found = [series for series, _ in samples(registry_of(rig.tracker).collect())]
    assert len(found) == len(set(found))
    everything = rig.tracker.get_all_histograms()
    assert sum(name == f"{LATENCY}_count" for name, _ in found) == len(everything)
    assert ("overflow", "overflow:0") in everything


def test_ipv6_targets_stay_apart() -> None:
    """The address without brackets is one label, the port is another."""
    tracker = LatencyTracker()
    tracker.record_latency("web", "[2001:db8::1]:80", 1)
    tracker.record_latency("web", "[2001:db8::2]:443", 2)
    registry = registry_of(tracker)
    for address, port, total in (("2001:db8::1", "80", 1), ("2001:db8::2", "443", 2)):
        labels = {"proxy_name": "web", "target_ip": address, "target_port": port}
        assert registry.get_sample_value(f"{LATENCY}_sum", labels) == total


def test_describe_names_all_families_and_reads_nothing() -> None:
    """describe() has the families of collect(), without samples of backends."""
    rig = busy()
    collector = LatencyCollector(rig.tracker)
    described = {(family.name, family.type) for family in collector.describe()}
    assert described == {(family.name, family.type) for family in collector.collect()}
    assert not any(
        "target_ip" in sample.labels for family in collector.describe() for sample in family.samples
    )


def test_two_collectors_in_one_registry_are_refused() -> None:
    """The registry learns from describe() that their names are the same."""
    registry = registry_of(LatencyTracker())
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(LatencyCollector(LatencyTracker()))


def test_one_family_can_be_asked_for() -> None:
    """A registry can collect one family, as `/metrics?name[]=` does."""
    restricted = registry_of(busy().tracker).restricted_registry([f"{LATENCY}_count"])
    names = {sample.name for family in restricted.collect() for sample in family.samples}
    assert names == {f"{LATENCY}_count"}


def test_hostile_names_survive_the_scrape() -> None:
    """Quotes, backslashes, newlines and UTF-8 survive the text format."""
    text = generate_latest(registry_of(busy().tracker)).decode()
    found = {
        sample.labels["proxy_name"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "proxy_name" in sample.labels
    }
    assert {*HOSTILE, "web"} <= found


def test_promtool_accepts_it() -> None:
    """`promtool check metrics` accepts the output, with hostile names in it."""
    text = generate_latest(registry_of(busy().tracker))
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text;version=1.0.0"])
@pytest.mark.parametrize("seen", ["nothing", "everything"])
def test_both_text_formats_say_what_was_collected(seen: str, accept: str) -> None:
    """Parsing the text gives every sample with its labels and value, and no other sample."""
    tracker = busy().tracker if seen == "everything" else LatencyTracker()
    tracker.stop()
    registry = registry_of(tracker)
    encode, content_type = choose_encoder(accept)
    assert content_type.startswith(accept.partition(";")[0])
    parse = openmetrics if "openmetrics" in accept else text_string_to_metric_families
    found = samples(parse(encode(registry).decode()))
    assert found == samples(registry.collect())
    targets = {dict(labels).get("target_ip") for (_, labels), _ in found} - {None}
    if seen == "everything":
        assert {"10.0.0.1", "10.1.0.1", "2001:db8::1", "2001:db8::2", "overflow"} <= targets
    else:
        assert targets == set()
        names = [name for (name, _), value in found if value]
        assert names == ["lblatency_counters_attached", "lblatency_build_info"]


class Losing:
    """What a source tells."""

    def __init__(self, lost: Mapping[str, int], failed: Mapping[str, int]) -> None:
        self._lost, self._failed = lost, failed

    def lost(self) -> Mapping[str, int]:
        """As given."""
        return self._lost

    def failed_connects(self) -> Mapping[str, int]:
        """As given."""
        return self._failed


def test_what_sources_lost_is_exported() -> None:
    """Several sources are summed up, zeros are there, and the tracker's own reasons stay."""
    registry = CollectorRegistry()
    sources = [
        Losing({"recursion": 2, "births_full": 0}, {"refused": 1}),
        Losing({"recursion": 3}, {"refused": 4, "timed_out": 0}),
    ]
    tracker = busy().tracker
    registry.register(LatencyCollector(tracker, sources=sources, const_labels={"host": "a"}))
    value = registry.get_sample_value
    for reason, count in (("recursion", 5), ("births_full", 0), ("unmatched", 1)):
        labels = {"reason": reason, "host": "a"}
        assert value("lblatency_events_lost_total", labels) == count
    for cause, count in (("refused", 5), ("timed_out", 0)):
        labels = {"cause": cause, "host": "a"}
        assert value("lblatency_failed_connects_total", labels) == count


class Scanning(Losing):
    """What a source that scans tells."""

    def __init__(
        self, interval: float | None, ages: Mapping[tuple[str | None, str], OpenAges]
    ) -> None:
        super().__init__({}, {})
        self._interval, self._ages = interval, ages

    def scan_interval(self) -> float | None:
        """As given."""
        return self._interval

    def ages(self) -> Mapping[tuple[str | None, str], OpenAges]:
        """As given."""
        return self._ages


def test_ages_of_open_connections_are_exported() -> None:
    """Those of several sources are summed up; a name of the tracker's is that of its start."""
    one = OpenAges(3, (0.5, 10), [1, 2], 12.5, 2)
    two = OpenAges(4, (0.5, 10), [0, 3], 100.5, 4)
    sources = [
        Losing({}, {}),
        Scanning(1.5, {("web", "10.0.0.1:80"): one, ("six", "[fd00::1]:81"): two}),
        Scanning(2.5, {(None, "10.0.0.1:80"): two}),
        Scanning(None, {}),
    ]
    rig = busy()
    registry = CollectorRegistry()
    registry.register(LatencyCollector(rig.tracker, sources=sources, const_labels={"host": "a"}))
    web = {"proxy_name": "web", "target_ip": "10.0.0.1", "target_port": "80", "host": "a"}
    six = {"proxy_name": "six", "target_ip": "fd00::1", "target_port": "81", "host": "a"}
    name = "lb_backend_open_age_seconds"

    def read(labels: dict[str, str]) -> list[float | None]:
        value = registry.get_sample_value
        bounds = [value(f"{name}_bucket", {**labels, "le": le}) for le in ("0.5", "10.0", "+Inf")]
        return [*bounds, value(f"{name}_gcount", labels), value(f"{name}_gsum", labels)]

    assert read(six) == [0, 3, 4, 4, 100.5]
    assert read(web) == [1, 5, 6, 6, 113]
    assert registry.get_sample_value("lblatency_scan_interval_seconds", {"host": "a"}) == 2.5
    rig.tracker.stop()
    assert read(web) == [1, 2, 2, 2, 12.5]
    for text, parse in (
        (openmetrics_latest(registry).decode(), openmetrics),  # type: ignore[no-untyped-call]
        (generate_latest(registry).decode(), text_string_to_metric_families),
    ):
        assert f'{name}_bucket{{host="a",le="10.0",proxy_name="web"' in text
        assert any(family.name == name for family in parse(text))


def test_without_scans_nothing_is_said_of_ages() -> None:
    """Nor of an interval."""
    collector = LatencyCollector(busy().tracker, sources=[Losing({}, {})])
    names = {family.name for family in (*collector.collect(), *collector.describe())}
    assert not names & {"lb_backend_open_age_seconds", "lblatency_scan_interval_seconds"}


def test_without_sources_nothing_is_said_of_failed_connects() -> None:
    """A tracker alone does not know them."""
    names = {family.name for family in LatencyCollector(busy().tracker).collect()}
    assert "lblatency_failed_connects" not in names
    described = {family.name for family in LatencyCollector(busy().tracker).describe()}
    assert "lblatency_failed_connects" not in described


def test_sources_belong_to_one_tracker() -> None:
    """With several trackers, nobody knows whose they are."""
    with pytest.raises(ValueError, match="make a collector for each tracker"):
        LatencyCollector({"a": LatencyTracker(max_backends=1)}, sources=[Losing({}, {})])
