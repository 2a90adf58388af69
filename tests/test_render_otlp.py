"""OTLP: read by opentelemetry-proto, it says what Prometheus' protobuf says."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from lblatency import LatencyTracker, render
from lblatency.render import PROTOBUF, Capture
from tests.support.protobuf import delimited, unknown_fields
from tests.test_collector import HOSTILE, busy
from tests.test_render import RECORDS, Also, Series, all_latencies
from tests.test_render import recorded as of_records
from tests.test_render_protobuf import as_series, read_native, recorded, same, text_series

RESOURCE = {"service.name": "lblatency", "host.name": HOSTILE[4]}


def read(body: bytes | memoryview) -> Any:
    """The request."""
    request = ExportMetricsServiceRequest.FromString(bytes(body))
    assert not unknown_fields(request)
    return request


def metrics(capture: Capture, schema: int = 3) -> dict[str, Any]:
    """All metrics by name. Each comes once, except those of gauge histograms, whose points mix."""
    (resource,) = read(capture.render_otlp({}, schema=schema)).resource_metrics
    (scope,) = resource.scope_metrics
    found: dict[str, Any] = {}
    for each in scope.metrics:
        if each.name in found:
            assert each.name.startswith("other_gauges_")
            found[each.name].gauge.data_points.extend(each.gauge.data_points)
        else:
            found[each.name] = each
    return found


def attributes(point: Any) -> dict[str, str]:
    """As labels."""
    return {each.key: each.value.string_value for each in point.attributes}


def key(name: str, labels: dict[str, str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Of a Series."""
    return name, tuple(sorted(labels.items()))


def as_samples(name: str, metric: Any) -> Series:
    """The samples that a metric means, as Prometheus has them, without exponential buckets."""
    found: Series = {}
    data = getattr(metric, metric.WhichOneof("data"))
    for point in data.data_points:
        labels = attributes(point)
        if metric.HasField("sum"):
            assert (data.is_monotonic, data.aggregation_temporality) == (True, 2)
            found[key(f"{name}_total", labels)] = point.as_double
        elif metric.HasField("gauge"):
            found[key(name, labels)] = point.as_double
        else:
            found[key(f"{name}_count", labels)] = point.count
            found[key(f"{name}_sum", labels)] = point.sum
        if metric.HasField("summary"):
            for each in point.quantile_values:
                found[key(name, labels | {"quantile": str(each.quantile)})] = each.value
        if metric.HasField("histogram"):
            assert data.aggregation_temporality == 2
            bounds = [*point.explicit_bounds, math.inf]
            cumulative = 0
            for bound, count in zip(bounds, point.bucket_counts, strict=True):
                cumulative += count
                le = str(bound).replace("inf", "+Inf")
                found[key(f"{name}_bucket", labels | {"le": le})] = cumulative
    return found


def without_tracked_buckets(found: Series) -> Series:
    """What OTLP has in another form: the classic buckets of our own histograms."""
    return {
        (name, labels): value
        for (name, labels), value in found.items()
        if not (name.startswith("lb_") and name.endswith("_bucket"))
    }


@pytest.mark.parametrize("make", [lambda: busy().tracker, all_latencies, LatencyTracker])
def test_it_says_what_protobuf_says(make: Any) -> None:
    """Every sample of every type; a gauge histogram is gauges, since OTLP has none."""
    capture = Capture(make(), more=[Also()])
    found: Series = {}
    for name, metric in metrics(capture).items():
        found |= as_samples(name, metric)
    expected = as_series(delimited(bytes(capture.render(PROTOBUF))))
    assert same(found, without_tracked_buckets(expected))


@given(RECORDS, st.integers(-4, 6))
@settings(deadline=None)
def test_all_formats_agree(records: list[tuple[str, str, float]], schema: int) -> None:
    """Whatever is recorded, protobuf says what the text says, and OTLP what protobuf says."""
    capture = Capture(of_records(records))
    families = delimited(bytes(capture.render(PROTOBUF, schema=schema)))
    samples = as_series(families)
    assert same(samples, text_series(capture))
    found: Series = {}
    for name, metric in metrics(capture, schema).items():
        found |= as_samples(name, metric)
    assert same(found, without_tracked_buckets(samples))
    for family in families:
        for each in family.metric if family.name == "lb_backend_latency_seconds" else ():
            zero, buckets = read_native(each.histogram)
            assert zero + sum(buckets.values()) == each.histogram.sample_count


@pytest.mark.parametrize("schema", range(-4, 7))
def test_exponential_buckets_are_those_of_protobuf(schema: int) -> None:
    """Dense, each index one less, and no more than 160 of them, or else of a coarser scale."""
    tracker = recorded([0, 953, 954, 10**6, 10**6 + 1, *(2**i for i in range(8, 35)), 10**18])
    capture = Capture(tracker)
    (point,) = metrics(capture, schema)[
        "lb_backend_latency_seconds"
    ].exponential_histogram.data_points
    (family,) = (
        each
        for each in delimited(bytes(capture.render(PROTOBUF, schema=point.scale)))
        if each.name == "lb_backend_latency_seconds"
    )
    zero, buckets = read_native(family.metric[0].histogram)
    dense = {
        point.positive.offset + 1 + i: count
        for i, count in enumerate(point.positive.bucket_counts)
        if count
    }
    assert (point.zero_count, dense) == (zero, buckets)
    assert point.count == zero + sum(dense.values())
    assert point.zero_threshold == 2.0**-20
    width = max(buckets) - min(buckets) + 1
    assert len(point.positive.bucket_counts) == width <= 160
    assert point.scale == schema or 2 * width > 160


def test_times() -> None:
    """Points are of the moment of reading, and start with the tracker or its last reset."""
    before = time.time_ns()
    tracker = recorded([10**9])
    made = time.time_ns()
    found = metrics(Capture(tracker))
    (point,) = found["lb_backend_latency_seconds"].exponential_histogram.data_points
    (events, *_) = found["lblatency_events"].sum.data_points
    assert before <= point.start_time_unix_nano == events.start_time_unix_nano <= made
    assert made <= point.time_unix_nano == events.time_unix_nano <= time.time_ns()
    tracker.reset_histograms()
    tracker.record_latency("web", "10.0.0.1:80", 1)
    found = metrics(Capture(tracker))
    (point,) = found["lb_backend_latency_seconds"].exponential_histogram.data_points
    assert point.start_time_unix_nano > made
    assert found["lblatency_events"].sum.data_points[0].start_time_unix_nano <= made


def test_heads_and_resource() -> None:
    """Units are those of UCUM, and the resource's attributes are what was given."""
    capture = Capture(busy().tracker)
    (resource,) = read(capture.render_otlp(RESOURCE)).resource_metrics
    assert {each.key: each.value.string_value for each in resource.resource.attributes} == RESOURCE
    (scope,) = resource.scope_metrics
    assert scope.scope.name == "lblatency"
    units = {each.name: each.unit for each in scope.metrics}
    assert units["lb_backend_latency_seconds"] == "s"
    assert units["lblatency_ring_size_bytes"] == "By"
    assert units["lblatency_events"] == ""
    names = {
        each["proxy_name"]
        for each in map(attributes, scope.metrics[0].exponential_histogram.data_points)
    }
    assert names >= set(HOSTILE)


def test_too_many_attributes() -> None:
    """A resource is refused that has more than are ever sent."""
    with pytest.raises(ValueError, match="64 attributes, not 65"):
        Capture(LatencyTracker()).render_otlp({str(i): "x" for i in range(65)})
    many = {str(i): "x" for i in range(64)}
    (resource,) = read(Capture(LatencyTracker()).render_otlp(many)).resource_metrics
    assert len(resource.resource.attributes) == 64


def points(*requests: Any) -> dict[tuple[Any, ...], list[bytes]]:
    """The points of each metric, by all that is said of it, in order."""
    found: dict[tuple[Any, ...], list[bytes]] = {}
    for request in requests:
        (resource,) = request.resource_metrics
        assert attributes(resource.resource) == RESOURCE
        (scope,) = resource.scope_metrics
        assert scope.scope.name == "lblatency"
        for each in scope.metrics:
            kind = each.WhichOneof("data")
            data = getattr(each, kind)
            temporality = getattr(data, "aggregation_temporality", None)
            head = (each.name, each.description, each.unit, kind, temporality)
            serialized = [point.SerializeToString() for point in data.data_points]
            assert serialized
            found.setdefault(head, []).extend(serialized)
    return found


@pytest.mark.parametrize("length", [1, 100, 3000, 1 << 30])
@pytest.mark.parametrize("make", [lambda: busy().tracker, all_latencies])
def test_each_piece_is_a_request(make: Any, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever one ends, it is whole, and together they say what one says; so do their bytes."""
    capture = Capture(make(), more=[Also()])
    monkeypatch.setattr(render, "_MESSAGE", length)
    pieces = list(capture.otlp_pieces(RESOURCE))
    whole = points(read(capture.render_otlp(RESOURCE)))
    assert points(*map(read, pieces)) == whole
    assert (len(pieces) == 1) == (length == 1 << 30)
    assert all(len(each) >= length for each in pieces[:-1])
    joined = ExportMetricsServiceRequest.FromString(b"".join(pieces))
    assert len(joined.resource_metrics) == len(pieces)


def test_pieces_are_about_4_mib() -> None:
    """Far from what receivers refuse, and each is made when it is asked for."""
    tracker = LatencyTracker(max_backends=30_000)
    for i in range(30_000):
        tracker.record_latency("web", f"10.0.{i >> 8}.{i & 255}:80", i / 100)
    capture = Capture(tracker)
    pieces = capture.otlp_pieces({})
    first = next(pieces)
    lengths = [len(first), *map(len, pieces)]
    assert len(lengths) > 1
    assert all(4 << 20 <= each < 5 << 20 for each in lengths[:-1])
    capture.otlp_pieces({})  # not asked for any
    with pytest.raises(ValueError, match="between -4 and 6"):
        capture.otlp_pieces({}, schema=9)
    with pytest.raises(ValueError, match="64 attributes, not 65"):
        capture.otlp_pieces({str(i): "x" for i in range(65)})
