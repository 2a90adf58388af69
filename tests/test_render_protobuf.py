"""Protobuf: read by the official schema, it says what the text says, and native buckets exactly."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

import lblatency
from lblatency import DEFAULT_BUCKETS, LatencyTracker
from lblatency.render import PROTOBUF, TEXT, Capture
from tests.support.protobuf import delimited, unknown_fields
from tests.support.rig import TARGET
from tests.test_collector import HOSTILE, busy
from tests.test_render import Also, Series, all_latencies, series

ACCEPT = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "text/plain;q=0.5"
)
SCHEMAS = range(-4, 7)
ZERO = 2.0**-20


def _samples(family: Any, metric: Any) -> Iterator[tuple[str, dict[str, str], float]]:
    """A metric's samples, as the text has them."""
    if metric.HasField("histogram"):
        histogram = metric.histogram
        count = histogram.sample_count
        bounds = [(each.upper_bound, each.cumulative_count) for each in histogram.bucket]
        if not bounds or bounds[-1][0] != math.inf:
            bounds.append((math.inf, count))
        for bound, cumulative in bounds:
            yield "_bucket", {"le": str(bound).replace("inf", "+Inf")}, cumulative
        suffix = "_g" if family.type == 5 else "_"
        yield f"{suffix}count", {}, count
        yield f"{suffix}sum", {}, histogram.sample_sum
    elif metric.HasField("summary"):
        for each in metric.summary.quantile:
            yield "", {"quantile": str(each.quantile)}, each.value
        yield "_count", {}, metric.summary.sample_count
        yield "_sum", {}, metric.summary.sample_sum
    else:
        for field in ("counter", "gauge", "untyped"):
            if metric.HasField(field):
                yield "", {}, getattr(metric, field).value


def as_series(families: list[Any]) -> Series:
    """All samples by name and labels, as the text has them."""
    found: Series = {}
    for family in families:
        for metric in family.metric:
            labels = {each.name: each.value for each in metric.label}
            assert [each.name for each in metric.label] == sorted(labels)
            for suffix, own, value in _samples(family, metric):
                key = (family.name + suffix, tuple(sorted((labels | own).items())))
                assert key not in found
                found[key] = value
    return found


def text_series(capture: Capture) -> Series:
    """What the text has, with bounds written as Python writes them."""
    found: Series = {}
    for (name, labels), value in series(parse_text(bytes(capture.render(TEXT)).decode())).items():
        plain = tuple(
            (key, str(float(text)).replace("inf", "+Inf") if key in ("le", "quantile") else text)
            for key, text in labels
        )
        found[name, plain] = value
    return found


def same(a: Series, b: Series) -> bool:
    """Equal, and NaN is NaN."""
    return a.keys() == b.keys() and all(
        a[key] == b[key] or (math.isnan(a[key]) and math.isnan(b[key])) for key in a
    )


@pytest.mark.parametrize("make", [lambda: busy().tracker, all_latencies, LatencyTracker])
def test_it_says_what_the_text_says(make: Any) -> None:
    """Every sample, with names of all kinds, and of all types that other collectors have."""
    capture = Capture(make(), more=[Also()])
    families = delimited(bytes(capture.render(PROTOBUF)))
    assert same(as_series(families), text_series(capture))
    assert len(families) == len({family.name for family in families})
    assert not any(unknown_fields(family) for family in families)


def test_heads_are_those_of_the_text() -> None:
    """Help, type and unit; families without samples are left out."""
    capture = Capture(busy().tracker, more=[Also()])
    families = {each.name: each for each in delimited(bytes(capture.render(PROTOBUF)))}
    lifetime = families["lb_backend_latency_seconds"]
    assert lifetime.help == "Backend connection latency in seconds"
    assert (lifetime.type, lifetime.unit) == (4, "seconds")
    types = {name: each.type for name, each in families.items()}
    assert types["lblatency_events_total"] == 0
    assert types["lblatency_running"] == types["lblatency_build_info"] == 1
    assert (types["other_summary"], types["other_unknown"], types["other_gauges"]) == (2, 3, 5)
    assert all(family.metric for family in families.values())
    empty = delimited(bytes(Capture(LatencyTracker()).render(PROTOBUF)))
    assert "lb_backend_latency_seconds" not in {family.name for family in empty}


def test_negotiated() -> None:
    """The media type names what the body is."""
    body, content_type = lblatency.exposition(busy().tracker, ACCEPT)
    assert content_type.startswith("application/vnd.google.protobuf; proto=io.prometheus.client.")
    assert content_type.endswith("; encoding=delimited")
    assert delimited(body)


# ---- native histograms ----


def index_of(seconds: Fraction, schema: int) -> int:
    """The bucket of a duration, by exact arithmetic: (2 ** ((i-1)/2**s), 2 ** (i/2**s)]."""
    guess = round(math.log2(seconds) * 2.0**schema)
    for index in range(guess - 2, guess + 3):
        # seconds <= 2 ** (index / 2**schema), both raised to 2**schema or its inverse
        if schema >= 0:
            fits = seconds ** (2**schema) <= Fraction(2) ** index
        else:
            fits = seconds <= Fraction(2) ** (index * 2**-schema)
        if fits:
            return index
    raise AssertionError(f"{float(seconds)} s has no bucket near {guess}")


def expected_native(durations: list[int], schema: int) -> tuple[int, dict[int, int]]:
    """The zero bucket and the others, of durations in ns."""
    zero, buckets = 0, Counter[int]()
    for ns in durations:
        seconds = Fraction(ns, 10**9)
        if seconds <= Fraction(1, 2**20):
            zero += 1
        else:
            buckets[index_of(seconds, schema)] += 1
    return zero, dict(buckets)


def read_native(histogram: Any) -> tuple[int, dict[int, int]]:
    """The zero bucket and the others, as Prometheus reads spans and deltas."""
    buckets: dict[int, int] = {}
    index = count = 0
    deltas = iter(histogram.positive_delta)
    for place, span in enumerate(histogram.positive_span):
        assert span.offset > 0 or place == 0  # a gap, or the first index
        index += span.offset
        for _ in range(span.length):
            count += next(deltas)
            assert count > 0
            buckets[index] = count
            index += 1
    assert next(deltas, None) is None
    assert histogram.sample_count == histogram.zero_count + sum(buckets.values())
    return histogram.zero_count, buckets


def native_of(tracker: LatencyTracker, schema: int) -> Any:
    """The only histogram of lifetimes."""
    families = delimited(bytes(Capture(tracker).render(PROTOBUF, schema=schema)))
    (family,) = (each for each in families if each.name == "lb_backend_latency_seconds")
    (metric,) = family.metric
    return metric.histogram


def recorded(durations: list[int]) -> LatencyTracker:
    """A tracker with these, in ns, of one backend."""
    tracker = LatencyTracker()
    for ns in durations:
        tracker.record_latency("web", TARGET, ns / 1e9)
    return tracker


def on_bounds(schema: int) -> list[int]:
    """The last whole ns of some buckets, and one more, over the whole range."""
    found = []
    for index in range(-19 * 64, 24 * 64 + 1, 97):
        at = int(2 ** (index / 64) * 1e9)
        found += [at - 1, at, at + 1]
    for bound in DEFAULT_BUCKETS:
        found += [int(bound * 1e9), int(bound * 1e9) + 1]
    for power in range(-20, 25):
        found += [10**9 * 2**power if power >= 0 else 10**9 // 2**-power]
    return [ns for ns in found if 0 <= ns <= 2**24 * 10**9 and index_fits(ns, schema)]


def index_fits(ns: int, schema: int) -> bool:
    """Keep the arithmetic with large powers affordable."""
    return schema <= 3 or ns < 10**12


@pytest.mark.parametrize("schema", SCHEMAS)
def test_native_buckets_are_exact(schema: int) -> None:
    """On bounds, which belong to the bucket below them, and beside them, in every schema."""
    durations = on_bounds(schema)
    random.Random(schema).shuffle(durations)
    histogram = native_of(recorded(durations), schema)
    used = histogram.schema
    assert used == schema or len(expected_native(durations, used + 1)[1]) > 160
    assert read_native(histogram) == expected_native(durations, used)
    assert histogram.zero_threshold == ZERO


def test_classic_and_native_are_in_one_message() -> None:
    """The same observations, counted twice; le is inclusive."""
    tracker = recorded([10**6] * 3 + [10**6 + 1] * 2 + [5 * 10**6] * 4)
    histogram = native_of(tracker, 3)
    counts = {each.upper_bound: each.cumulative_count for each in histogram.bucket}
    assert (counts[0.001], counts[0.005], counts[86400.0]) == (3, 9, 9)
    assert histogram.sample_count == 9
    assert math.inf not in counts  # which is sample_count
    assert histogram.sample_sum == 0.025000002


@pytest.mark.parametrize("wanted", [6, 5, 4])
def test_at_most_160_buckets(wanted: int) -> None:
    """A histogram of many buckets gets a coarser schema, by merging pairs, as often as need be."""
    durations = [round(1000 * 1.02**i) for i in range(1400)]
    histogram = native_of(recorded(durations), wanted)
    _, buckets = read_native(histogram)
    assert len(buckets) <= 160 < len(expected_native(durations, histogram.schema + 1)[1])
    assert histogram.schema < wanted
    assert read_native(histogram) == expected_native(durations, histogram.schema)


def test_an_empty_one_is_native_all_the_same() -> None:
    """If only the zero bucket has counts, a span without buckets tells what it is."""
    histogram = native_of(recorded([0, 1, 953]), 3)
    assert [(span.offset, span.length) for span in histogram.positive_span] == [(0, 0)]
    assert (histogram.zero_count, histogram.sample_count) == (3, 3)
    assert not histogram.positive_delta


def test_longer_than_the_top() -> None:
    """What no bucket tells apart counts above 2**24 s, not among what is not."""
    histogram = native_of(recorded([2**24 * 10**9, 2**24 * 10**9 + 100, 10**18]), 0)
    assert read_native(histogram) == (0, {24: 1, 25: 2})


def test_start_timestamps_are_renewed_by_a_reset() -> None:
    """A histogram and a backend's counters start with the tracker, or with its last reset."""
    before = time.time()
    rig = busy()
    made = time.time()

    def starts(name: str) -> set[float]:
        families = delimited(bytes(Capture(rig.tracker).render(PROTOBUF)))
        (family,) = (each for each in families if each.name == name)
        field = "histogram" if family.type == 4 else "counter"
        found = [getattr(each, field).start_timestamp for each in family.metric]
        return {each.seconds + each.nanos / 1e9 for each in found}

    (first,) = starts("lb_backend_latency_seconds")
    assert before - 1e-3 <= first <= made
    assert starts("lblatency_connections_closed_total") == {first}
    events = starts("lblatency_events_total")
    rig.tracker.reset_histograms()
    rig.tracker.record_latency("web", TARGET, 1)
    (second,) = starts("lb_backend_latency_seconds")
    assert first < second <= time.time()
    assert starts("lblatency_events_total") == events == {first}


@pytest.mark.parametrize("schema", [-5, 7, 100])
def test_a_schema_that_is_none(schema: int) -> None:
    """It is refused with those that there are."""
    with pytest.raises(ValueError, match="between -4 and 6"):
        Capture(LatencyTracker()).render(PROTOBUF, schema=schema)


def test_sums_are_rounded_once() -> None:
    """A sum of more digits than a double has is the nearest double, as in the Collector."""
    tracker = LatencyTracker()
    generator = random.Random(7)
    for _ in range(200):
        for _ in range(50):
            tracker.record_latency("web", TARGET, generator.randrange(2**60) / 1e9)
        expected = tracker.get_all_histograms()["web", TARGET]["sum"]
        assert native_of(tracker, 3).sample_sum == expected
    assert expected > 2**53 / 1e9


def test_hostile_names_are_text() -> None:
    """Labels are the names themselves: protobuf has no escapes."""
    families = delimited(bytes(Capture(busy().tracker).render(PROTOBUF)))
    names = {
        label.value
        for family in families
        for metric in family.metric
        for label in metric.label
        if label.name == "proxy_name"
    }
    assert names >= set(HOSTILE)
