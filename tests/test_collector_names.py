"""The collector's options: several trackers, other names, further labels."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from lblatency import LatencyCollector, LatencyTracker
from lblatency.buckets import METRICS
from lblatency.families import FAMILIES
from lblatency.names import FileSd, Names
from tests.support.rig import SECOND, TARGET, Rig, closed
from tests.test_collector import HOSTILE, LATENCY, busy, samples

FORMATS: dict[str, Any] = {
    "text/plain; version=0.0.4": text_string_to_metric_families,
    "text/plain; version=1.0.0; escaping=allow-utf-8": text_string_to_metric_families,
    "application/openmetrics-text; version=1.0.0": openmetrics,
    "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8": openmetrics,
}


def registry_of(*args: Any, **options: Any) -> CollectorRegistry:
    """A registry with a collector of these arguments."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(LatencyCollector(*args, **options))
    return registry


def parsed(registry: CollectorRegistry, accept: str) -> Any:
    """What a scraper of this format reads; no sample twice."""
    encode, _ = choose_encoder(accept)
    found = samples(FORMATS[accept](encode(registry).decode()))
    assert len({series for series, _ in found}) == len(found)
    return found


def recorded(*targets: str) -> LatencyTracker:
    """A tracker with a second recorded for each target."""
    tracker = LatencyTracker()
    for target in targets:
        tracker.record_latency("web", target, 1)
    return tracker


@pytest.mark.parametrize("accept", FORMATS)
def test_two_trackers_in_one_registry(accept: str) -> None:
    """Their samples differ in the label `tracker`, and each family comes once."""
    trackers = {"one": busy().tracker, 'q"\\\n\N{SNOWMAN}': busy().tracker}
    for tracker in trackers.values():
        tracker.stop()
    registry = registry_of(trackers)
    found = parsed(registry, accept)
    assert found == samples(registry.collect())
    alone = samples(registry_of(trackers["one"]).collect())
    for name in trackers:
        its = [(sample, labels) for sample, labels in found if ("tracker", name) in sample[1]]
        assert len(its) == len(alone) - 1  # each but lblatency_build_info
    families = [family.name for family in registry.collect()]
    assert len(set(families)) == len(families)


def test_trackers_may_record_different_latencies() -> None:
    """A histogram is exported if one of them records it."""
    one, two = LatencyTracker(), LatencyTracker(metrics=METRICS)
    one.record_latency("web", TARGET, 1)
    two.record_latency("web", TARGET, 2, metric="active")
    found = dict(samples(registry_of({"one": one, "two": two}).collect()))
    labels = {"proxy_name": "web", "target_ip": "10.0.0.1", "target_port": "80"}

    def sum_of(name: str, tracker: str) -> float | None:
        return found.get((f"{name}_sum", tuple(sorted({**labels, "tracker": tracker}.items()))))

    assert (sum_of(LATENCY, "one"), sum_of(LATENCY, "two")) == (1, None)
    assert (sum_of("lb_backend_active_seconds", "two")) == 2


@pytest.mark.parametrize("accept", FORMATS)
def test_every_option_at_once(accept: str) -> None:
    """Names, labels, further labels and backend names are where they belong, in every format."""
    rig = Rig()
    rig.send(closed(SECOND, reason="rst"))
    rig.tracker.stop()
    registry = registry_of(
        {"a": rig.tracker},
        name="upstream_seconds",
        labels={"proxy_name": "lb", "target_ip": "ip", "target_port": "port", "tracker": "zone",
                "backend_name": "server"},
        const_labels={"pid": 42, "host": HOSTILE[0]},
        backend_names={TARGET: HOSTILE[1]},
    )  # fmt: skip
    found = dict(parsed(registry, accept))
    assert found == dict(samples(registry.collect()))
    last = {"zone": "a", "pid": "42", "host": HOSTILE[0]}
    backend = {"lb": "web", "ip": "10.0.0.1", "port": "80", "server": HOSTILE[1], **last}

    def value(name: str, **labels: str) -> float | None:
        return found.get((name, tuple(sorted(labels.items()))))

    assert value("upstream_seconds_sum", **backend) == 1
    assert value("upstream_seconds_bucket", **backend, le="1.0") == 1
    assert value("lblatency_connections_closed_total", **backend, reason="rst") == 1
    assert value("lblatency_running", **last) == 0
    assert value("lblatency_events_total", **last, type="closed") == 1
    assert not [name for name, _ in found if name.startswith(LATENCY)]
    (build,) = (labels for name, labels in found if name == "lblatency_build_info")
    assert {("pid", "42"), ("host", HOSTILE[0])} < set(build)


@pytest.mark.parametrize("accept", [accept for accept in FORMATS if "utf-8" in accept])
def test_names_that_must_be_quoted(accept: str) -> None:
    """Names of metrics and labels with dots and quotes come back from the parser."""
    registry = registry_of(
        recorded(TARGET), name="lb.latency", labels={"target_ip": "net.peer ip"},
        const_labels={"\N{SNOWMAN}": "1"},
    )  # fmt: skip
    found = dict(parsed(registry, accept))
    assert found == dict(samples(registry.collect()))
    labels = {"proxy_name": "web", "net.peer ip": "10.0.0.1", "target_port": "80"}
    series = "lb.latency_sum", tuple(sorted({**labels, "\N{SNOWMAN}": "1"}.items()))
    assert found[series] == 1


@pytest.mark.parametrize(
    "names",
    [
        {TARGET: "blue", "[2001:db8::1]:80": "green"},
        {TARGET: "blue", "[2001:db8::1]:80": "green", "10.0.0.9:80": "unused"}.get,
        lambda target: {"10": "blue", "[2": Path("green")}.get(target[:2]),  # anything with a text
    ],
)
def test_backends_have_names(names: Any) -> None:
    """A mapping or a function names each target; one without a name has an empty one."""
    registry = registry_of(recorded(TARGET, "[2001:db8::1]:80", "9.9.9.9:9"), backend_names=names)
    found = {
        sample.labels["target_ip"]: sample.labels["backend_name"]
        for family in registry.collect()
        for sample in family.samples
        if "target_ip" in sample.labels
    }
    assert found == {"10.0.0.1": "blue", "2001:db8::1": "green", "9.9.9.9": ""}


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Names]:
    """The name of TARGET, which is hostile, and one of a server that no backend is."""
    file = tmp_path / "names.json"
    labels = {"backend": HOSTILE[0], "server": HOSTILE[1] + HOSTILE[2] + HOSTILE[4]}
    group = {"targets": [TARGET, "10.0.0.7:80"], "labels": labels}
    file.write_text(json.dumps([group]))
    with Names([FileSd(str(file))]) as names:
        names.refresh()
        yield names


@pytest.mark.parametrize("accept", FORMATS)
def test_servers_have_names(names: Names, accept: str) -> None:
    """A backend whose server has a name has one more sample, in every format; nothing else changes.

    The row of backends that are too many is no server.
    """
    tracker = LatencyTracker(max_backends=2)
    for target in (TARGET, "9.9.9.9:9", "9.9.9.9:10"):
        tracker.record_latency("web", target, 1)
    found = parsed(registry_of(tracker, names=names), accept)
    labels = {
        "proxy_name": "web", "target_ip": "10.0.0.1", "target_port": "80",
        "backend": 'q"uote', "server": "back\\slashnew\ufffdline\N{SNOWMAN}\U0001f600",
    }  # fmt: skip
    (age,) = [each for each in found if each[0][0] == "lblatency_names_age_seconds"]
    assert 0 <= age[1] < 60
    info = (("lb_backend_info", tuple(sorted(labels.items()))), 1)
    assert info in found
    without = dict(parsed(registry_of(tracker), accept))
    assert dict(found) == without | dict([info, age])


def test_names_of_servers_beside_all_other_options(names: Names) -> None:
    """Its labels are called as those of the other series are, so that they join."""
    registry = registry_of(
        {"a": recorded(TARGET)},
        labels={"target_ip": "ip", "tracker": "zone"},
        const_labels={"pid": 42},
        backend_names={TARGET: "blue"},
        names=names,
    )
    (info,) = (
        dict(of) for (name, of), _ in samples(registry.collect()) if name == "lb_backend_info"
    )
    assert info.items() >= {"ip": "10.0.0.1", "zone": "a", "pid": "42"}.items()
    assert (info["backend_name"], info["backend"]) == ("blue", 'q"uote')


def test_the_age_of_names(tmp_path: Path) -> None:
    """One sample per place, of all trackers; an age that nobody knows is above every limit."""
    (tmp_path / "names.json").write_text("[]")
    places = [FileSd(str(tmp_path / name)) for name in ("names.json", HOSTILE[0])]
    with Names(places) as both:
        both.refresh()
        trackers = {"a": recorded(TARGET), "b": recorded(TARGET)}
        registry = registry_of(trackers, const_labels={"pid": 42}, names=both)
        value = registry.get_sample_value

        def age(place: Path) -> float | None:
            labels = {"from": "names", "place": str(place), "pid": "42"}
            return value("lblatency_names_age_seconds", labels)

        assert 0 <= (age(tmp_path / "names.json") or 0) < 60
        assert age(tmp_path / HOSTILE[0]) == math.inf


def test_labels_of_names_are_taken_if_there_are_names(names: Names) -> None:
    """`server` may be a label of all series only without them."""
    options: dict[str, Any] = {"const_labels": {"server": "x"}}
    registry_of(LatencyTracker(), **options)
    with pytest.raises(ValueError, match="label 'server' would come twice"):
        LatencyCollector(LatencyTracker(), names=names, **options)


JOIN = (
    "sum by (backend, server) (rate(lb_backend_latency_seconds_count[5m])"
    " * on (instance, proxy_name, target_ip, target_port) group_left (backend, server)"
    " lb_backend_info)"
)


def test_prometheus_joins_names_to_latencies(tmp_path: Path) -> None:
    """The documented query: two exporters see one server, and another server takes an address."""
    key = '{proxy_name="web",target_ip="10.0.0.1",target_port="80",instance="%s"%s}'

    def series(name: str, instance: str, labels: str, values: str) -> dict[str, str]:
        return {"series": name + key % (instance, labels), "values": values}

    count, info = "lb_backend_latency_seconds_count", "lb_backend_info"
    one, two = ',backend="a",server="s1"', ',backend="a",server="s2"'
    test = {
        "interval": "1m",
        "input_series": [
            series(count, "x", "", "0+60x20"),
            series(count, "y", "", "0+120x20"),
            series(info, "x", one, "1x20"),
            series(info, "y", one, "1x9 stale"),
            series(info, "y", two, "_x10 1x10"),
        ],
        "promql_expr_test": [
            {
                "expr": JOIN,
                "eval_time": at,
                "exp_samples": [
                    {"labels": f'{{backend="a", server="{server}"}}', "value": value}
                    for server, value in values.items()
                ],
            }
            for at, values in (("8m", {"s1": 3}), ("15m", {"s1": 1, "s2": 2}))
        ],
    }
    file = tmp_path / "test.yml"  # JSON is YAML
    file.write_text(json.dumps({"rule_files": [], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_options_nothing_has_changed() -> None:
    """The documented names and labels are those of the table of families."""
    described = LatencyCollector(LatencyTracker(metrics=METRICS)).describe()
    assert not any("name" in family.name for family in described)
    assert "lb_backend" not in {family.name for family in described}
    for family in described[:-1]:
        (known,) = (each for each in FAMILIES if each.name == family.name)
        assert family._labelnames == known.labels  # type: ignore[attr-defined]


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "reserved": ({"const_labels": {"le": "1"}}, ValueError, "'le' is not allowed: Reserved"),
    "double underscore": ({"labels": {"target_ip": "__ip"}}, ValueError, "'__ip' is not allowed"),
    "empty label": ({"labels": {"target_ip": ""}}, ValueError, "label's name must not be empty"),
    "empty name": ({"name": ""}, ValueError, "metric's name must not be empty"),
    "label of another type": ({"const_labels": {5: "x"}}, TypeError, "must be a string, not 5"),
    "name of another type": ({"name": 5}, TypeError, "metric's name must be a string, not 5"),
    "unknown": ({"labels": {"ip": "x"}}, ValueError, "labels has 'ip', which is not among proxy_n"),
    "no names": ({"labels": {"backend_name": "x"}}, ValueError, "has 'backend_name', which is not"),
    "swapped into one": ({"labels": {"target_ip": "proxy_name"}}, ValueError, "would come twice"),
    "one of a family": ({"const_labels": {"reason": "x"}}, ValueError, "'reason' would come twice"),
    "one of the build": ({"const_labels": {"libbpf": "x"}}, ValueError, "'libbpf' would come tw"),
    "taken": ({"name": "lb_backend_connect_seconds"}, ValueError, "clashes with another metric"),
    "taken with suffix": ({"name": "lblatency_events_total"}, ValueError, "clashes with another"),
    "no text": ({"labels": {"target_ip": "\ud800"}}, ValueError, "is not allowed"),
    "names of another type": ({"names": {}}, TypeError, "must be a lblatency.names.Names or None"),
    "names of backends": ({"backend_names": "blue"}, TypeError, "must be a mapping from"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_names_are_explained(case: str) -> None:
    """The error says which name is wrong, and why, before any scrape."""
    options, error, text = BAD[case]
    with pytest.raises(error, match=text):
        LatencyCollector(LatencyTracker(), **options)


@pytest.mark.parametrize(
    "make", [lambda t: [t, t], lambda _: None, lambda t: {1: t}, lambda t: {"a": t, "b": "c"}]
)
def test_several_trackers_have_names(make: Callable[[LatencyTracker], Any]) -> None:
    """A sequence of trackers, whose samples would collide, is a TypeError that says what to do."""
    with pytest.raises(TypeError, match="or a mapping from a name to each of several"):
        LatencyCollector(make(LatencyTracker()))


def test_legacy_names_are_checked_if_prometheus_client_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where it refuses dots, so does the collector."""
    validation = pytest.importorskip("prometheus_client.validation")
    monkeypatch.setattr(validation, "_legacy_validation", True)
    with pytest.raises(ValueError, match=r"'a\.b' is not allowed"):
        LatencyCollector(LatencyTracker(), const_labels={"a.b": "1"})
