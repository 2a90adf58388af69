"""Histograms, compared with the model."""

from __future__ import annotations

import errno
import math
import pickle
from collections.abc import Mapping
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lblatency
from lblatency import BpfError, histogram
from lblatency._ffi import lib
from lblatency.buckets import DEFAULT_BUCKETS, REFERENCE_BUCKETS, Buckets
from tests.support.model import SECOND, Model, native_index, to_ns

DAY = 86400 * SECOND
WEB = ("web", "10.0.0.1:80")
BUCKETS = Buckets.of(DEFAULT_BUCKETS)
EDGES = [to_ns(bound) + step for bound in DEFAULT_BUCKETS for step in (-1, 0, 1)]
# Up to 26 days: from 2^22 s, 48 days, on a double of seconds does not tell each ns.
SPREAD = st.builds(lambda octave, part: int(2**octave * part),
                   st.integers(0, 50), st.floats(1, 2))  # fmt: skip
DURATIONS = st.lists(
    st.one_of(
        st.sampled_from([0, 1, 953, 954, 30 * DAY, *EDGES]), SPREAD, st.integers(0, 30 * DAY)
    ),
    min_size=1,
    max_size=60,
)


def both(
    values: list[int], buckets: tuple[float, ...] = DEFAULT_BUCKETS
) -> tuple[Model, lblatency.HistogramSnapshot]:
    """Record the same observations in the model and in a tracker."""
    model, tracker = Model(buckets), lblatency.LatencyTracker(buckets=buckets)
    for ns in values:
        model.record(*WEB, ns)
        tracker.record_latency(*WEB, ns / SECOND)
    snapshot = tracker.get_histogram(*WEB)
    assert snapshot is not None
    return model, snapshot


@pytest.mark.parametrize("bound", DEFAULT_BUCKETS)
def test_bounds_are_inclusive_to_the_nanosecond(bound: float) -> None:
    """A duration equal to a bound is in its bucket; one nanosecond more is not."""
    ns = to_ns(bound)
    model, snapshot = both([ns - 1, ns, ns + 1])
    assert snapshot["counts"] == model.counts(*WEB)
    assert snapshot["counts"][DEFAULT_BUCKETS.index(bound)] == 2


def test_zero_and_the_largest_duration_count() -> None:
    """0 is in the first bucket, and 2**62 ns is in +Inf alone."""
    tracker = lblatency.LatencyTracker()
    tracker.record_latency(*WEB, 0)
    tracker.record_latency(*WEB, 2.0**62 / SECOND)
    snapshot = tracker.get_histogram(*WEB)
    assert snapshot is not None
    assert snapshot["counts"] == (1,) * len(DEFAULT_BUCKETS)
    assert snapshot["count"] == 2
    assert snapshot["sum"] == 2**62 / SECOND


@settings(max_examples=100)
@given(DURATIONS)
def test_counts_sum_and_mean_equal_the_model(values: list[int]) -> None:
    """Cumulative counts, sum and mean are exact."""
    model, snapshot = both(values)
    assert snapshot["buckets"] == DEFAULT_BUCKETS
    assert snapshot["counts"] == model.counts(*WEB)
    assert snapshot["count"] == len(values)
    assert snapshot["sum"] == model.sum(*WEB)
    assert snapshot.mean == model.mean(*WEB)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(SPREAD.map(lambda ns: max(ns, 1000)), st.integers(1000, 30 * DAY)),
                min_size=1, max_size=60))  # fmt: skip
def test_percentiles_are_within_half_a_percent(values: list[int]) -> None:
    """From 1 us to 30 days, percentiles are within 0.55 % of the value at the exact rank."""
    model, snapshot = both(values)
    for permille in range(1001):
        exact = model.percentile(*WEB, f"{permille}e-3")
        found = Fraction(snapshot.percentile(permille / 1000))
        assert abs(found - exact) <= exact * Fraction(55, 10_000)


def test_percentile_ranks_do_not_slip() -> None:
    """Of 100 observations an octave apart, each percentile finds the right one."""
    values = [1000 * 2 ** (i // 3) + i % 3 * 300 * 2 ** (i // 3) for i in range(100)]
    model, snapshot = both(sorted(values))
    for hundredth in range(1, 101):
        exact = model.percentile(*WEB, f"{hundredth}e-2")
        assert snapshot.percentile(hundredth / 100) == pytest.approx(float(exact), rel=0.0055)


def test_ten_connections_of_an_hour() -> None:
    """The median of ten one-hour connections is an hour, not the last bound."""
    _, snapshot = both([3600 * SECOND] * 10)
    assert snapshot.percentile(0.5) == pytest.approx(3600, rel=0.0055)
    assert snapshot.percentile(0.99) == pytest.approx(3600, rel=0.0055)


@pytest.mark.parametrize("schema", range(-4, 7))
@settings(max_examples=20)
@given(values=DURATIONS)
def test_native_buckets_equal_the_model(values: list[int], schema: int) -> None:
    """Every native schema has exact counts."""
    model, snapshot = both(values)
    native = snapshot.native(schema)
    zero, buckets = model.native(*WEB, schema)
    assert (native.schema, native.zero_threshold) == (schema, 2.0**-20)
    assert native.zero_count == zero
    assert native.buckets == buckets
    assert native.count == zero + sum(buckets.values()) == snapshot["count"]
    assert native.sum == snapshot["sum"]


def test_native_bounds_are_exact_roots() -> None:
    """Each native bound is the last whole nanosecond of its bucket."""
    classic = {to_ns(bound) for bound in DEFAULT_BUCKETS}
    bounds = [
        lib.lbl_buckets_upper(BUCKETS.ptr, slot)
        for slot in range(lib.lbl_buckets_slots(BUCKETS.ptr))
    ]
    assert bounds.pop() == 2**64 - 1
    assert bounds == sorted(set(bounds))
    native = [ns for ns in bounds if native_index(ns + 1, 6) > native_index(ns, 6)]
    assert [native_index(ns, 6) for ns in native] == list(range(-20 * 64, 24 * 64 + 1))
    assert set(bounds) - set(native) <= classic <= set(bounds)


def test_every_bound_is_the_last_of_its_slot() -> None:
    """One nanosecond above a bound is in the next slot, for all slots."""
    last = lib.lbl_buckets_slots(BUCKETS.ptr) - 1
    for slot in range(last):
        upper = lib.lbl_buckets_upper(BUCKETS.ptr, slot)
        assert lib.lbl_buckets_slot(BUCKETS.ptr, upper) == slot
        assert lib.lbl_buckets_slot(BUCKETS.ptr, upper + 1) == slot + 1
    assert lib.lbl_buckets_slot(BUCKETS.ptr, 2**64 - 1) == last


@given(st.one_of(SPREAD, st.integers(0, 2**64 - 1)))
def test_index_agrees_with_the_bounds(ns: int) -> None:
    """A duration is in the first slot whose bound is not below it."""
    slot = lib.lbl_buckets_slot(BUCKETS.ptr, ns)
    assert ns <= lib.lbl_buckets_upper(BUCKETS.ptr, slot)
    assert slot == 0 or ns > lib.lbl_buckets_upper(BUCKETS.ptr, slot - 1)


@settings(max_examples=100)
@given(st.sets(st.integers(1000, 100 * SECOND), max_size=12), DURATIONS)
def test_any_bounds_that_are_accepted_count_exactly(bounds: set[int], values: list[int]) -> None:
    """Custom bounds count like the model, or are refused because they are too close."""
    buckets = tuple(sorted({ns / SECOND for ns in bounds}))
    near = [ns + step for ns in sorted(bounds) for step in (-1, 0, 1)]
    try:
        Buckets.of(buckets)
    except ValueError as error:
        assert "half a percent" in str(error)  # noqa: PT017
        return
    model, snapshot = both([*values, *near], buckets)
    assert snapshot["counts"] == model.counts(*WEB)


@pytest.mark.parametrize(
    ("buckets", "text"),
    [
        ((1.0, 1.0), "ascending"),
        ((2.0, 1.0), "ascending"),
        ((0.0, 1.0), "between"),
        ((-1.0,), "between"),
        ((math.nan,), "between"),
        ((math.inf, math.inf), "between"),
        ((2.0**25,), "between"),
        ((1.23e-6, 1.23e-6 + 1e-13), "nanosecond"),
        ((1.0, 1.001, 1.002, 1.003), "half a percent"),
        (tuple(1 + i / 4 for i in range(600)), "512"),
    ],
)
def test_bad_bounds_are_refused(buckets: tuple[float, ...], text: str) -> None:
    """Bounds that cannot be counted exactly are an error that says why."""
    with pytest.raises(ValueError, match=text):
        lblatency.LatencyTracker(buckets=buckets)


def test_no_bounds_at_all() -> None:
    """A histogram without classic bounds still has its sum, count and percentiles."""
    _, snapshot = both([SECOND, 3 * SECOND], ())
    assert dict(snapshot) == {"buckets": (), "counts": (), "sum": 4.0, "count": 2}
    assert snapshot.percentile(1) == pytest.approx(3, rel=0.0055)


@settings(max_examples=60)
@given(DURATIONS, DURATIONS)
def test_merge_is_exact(one: list[int], other: list[int]) -> None:
    """A merge equals the histogram of all observations, in every way to read it."""
    merged = both(one)[1].merge(both(other)[1])
    _, together = both(one + other)
    assert dict(merged) == dict(together)
    assert merged.native(6) == together.native(6)
    assert merged.percentile(0.5) == together.percentile(0.5)


def test_merge_of_different_bounds_is_an_error() -> None:
    """Only histograms of the same bounds can be merged."""
    _, default = both([SECOND])
    _, reference = both([SECOND], REFERENCE_BUCKETS)
    with pytest.raises(ValueError, match="different bucket bounds"):
        default.merge(reference)
    with pytest.raises(TypeError, match="not dict"):
        default.merge({})  # type: ignore[arg-type]


def test_a_snapshot_is_an_immutable_mapping_of_four() -> None:
    """A snapshot has exactly the documented keys, and cannot be changed."""
    _, snapshot = both([SECOND])
    assert isinstance(snapshot, Mapping)
    assert list(snapshot) == ["buckets", "counts", "sum", "count"]
    assert len(snapshot) == 4
    assert "mean" not in snapshot
    with pytest.raises(KeyError):
        snapshot["mean"]
    with pytest.raises(TypeError):
        snapshot["sum"] = 1  # type: ignore[index]
    assert repr(snapshot) == "<HistogramSnapshot count=1 sum=1.0>"


def test_a_snapshot_does_not_move() -> None:
    """A snapshot does not change when more is recorded."""
    tracker = lblatency.LatencyTracker()
    tracker.record_latency(*WEB, 1)
    before = tracker.get_histogram(*WEB)
    tracker.record_latency(*WEB, 2)
    assert before is not None
    assert before["count"] == 1


def test_bad_arguments_of_a_snapshot() -> None:
    """A share outside 0 to 1 or a schema outside -4 to 6 is a ValueError."""
    _, snapshot = both([SECOND])
    for q in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            snapshot.percentile(q)
    for schema in (-5, 7):
        with pytest.raises(ValueError, match="between -4 and 6"):
            snapshot.native(schema)


def test_an_empty_snapshot_has_no_percentiles() -> None:
    """Percentiles and mean of an empty histogram are NaN."""
    empty = lblatency.HistogramSnapshot(BUCKETS, b"", b"", 0)
    assert math.isnan(empty.percentile(0.5))
    assert math.isnan(empty.mean)
    assert empty["counts"] == (0,) * len(DEFAULT_BUCKETS)
    assert empty.native(3).buckets == {}


def test_snapshots_can_be_pickled() -> None:
    """A snapshot survives pickling, as exporters with worker processes need it."""
    tracker = lblatency.LatencyTracker(buckets=(0.5, 2))
    for seconds in (0.1, 1, 3):
        tracker.record_latency("web", "10.0.0.1:80", seconds)
    histogram = tracker.get_histogram("web", "10.0.0.1:80")
    assert histogram is not None
    copy = pickle.loads(pickle.dumps(histogram))
    assert copy == histogram
    assert copy.merge(histogram)["count"] == 6


class Wider:
    """The C library, but with a wider range of schemas for Python to believe in."""

    LBL_NATIVE_SCHEMA_MIN = lib.LBL_NATIVE_SCHEMA_MIN - 1
    LBL_NATIVE_SCHEMA = lib.LBL_NATIVE_SCHEMA + 1

    def __getattr__(self, name: str) -> object:
        return getattr(lib, name)


@pytest.mark.parametrize("schema", [Wider.LBL_NATIVE_SCHEMA_MIN, Wider.LBL_NATIVE_SCHEMA])
def test_what_c_refuses_is_no_empty_histogram(schema: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema that C refuses is an error."""
    monkeypatch.setattr(histogram, "lib", Wider())
    with pytest.raises(BpfError, match="making a native histogram") as refused:
        lblatency.HistogramSnapshot(BUCKETS, b"", b"", 0).native(schema)
    assert refused.value.errno == errno.EINVAL
