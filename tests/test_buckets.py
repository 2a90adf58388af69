"""Bounds and slots, compared with rational arithmetic."""

from __future__ import annotations

import math
import pickle
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lblatency
from lblatency import HistogramSnapshot
from lblatency._ffi import ffi, lib
from lblatency.buckets import DEFAULT_BUCKETS, REFERENCE_BUCKETS, SHORT_BUCKETS, Buckets
from tests.support.model import SECOND, to_ns

WEB = ("web", "10.0.0.1:80")
TOP = 2**24 * SECOND
STATED = Fraction(55, 10_000)  # README: 0.55 %
MICROSECOND = 1000


def slot_of(buckets: Buckets, ns: int) -> int:
    """The slot that counts a duration."""
    return int(lib.lbl_buckets_slot(buckets.ptr, ns))


def read(buckets: Buckets, slot: int) -> Fraction:
    """What a percentile reports for an observation in this slot, ns."""
    one = ffi.buffer(ffi.new("uint16_t *", slot))[:]
    seconds = HistogramSnapshot(buckets, one, (1).to_bytes(8, "little"), 0).percentile(0.5)
    return Fraction(seconds) * SECOND


def uppers(buckets: Buckets) -> list[int]:
    """The last whole ns of each slot but the last, which has none."""
    slots = lib.lbl_buckets_slots(buckets.ptr)
    return [int(lib.lbl_buckets_upper(buckets.ptr, slot)) for slot in range(slots - 1)]


def random_bounds(seed: int) -> tuple[float, ...]:
    """Bounds of any size, some of them beside each other and beside native ones."""
    random = Random(seed)
    native = uppers(Buckets.of(()))
    ns = {random.choice(native) + random.randint(-2, 2) for _ in range(12)}
    ns |= {int(10 ** random.uniform(3, 16)) for _ in range(12)}
    return tuple(each / SECOND for each in sorted(ns) if 1000 <= each <= 2**22 * SECOND)


MANY = [DEFAULT_BUCKETS, REFERENCE_BUCKETS, SHORT_BUCKETS, ()]
MANY += [random_bounds(seed) for seed in range(40)]


@pytest.mark.parametrize("bounds", MANY)
def test_a_percentile_is_off_by_at_most_what_readme_says(bounds: tuple[float, ...]) -> None:
    """In every slot, each whole ns (both ends of a large slot) is within 0.55 % of the reading.

    Nothing is nearer than the true bound, half the width of a native bucket.
    """
    try:
        buckets = Buckets.of(bounds)
    except ValueError:
        pytest.skip("too many bounds within half a percent")
    growth = 2 ** (1 / 64)
    worst = Fraction(0)
    for slot, (below, last) in enumerate(pairwise(uppers(buckets)), start=1):
        found = read(buckets, slot)
        held = range(below + 1, last + 1)
        rounding = Fraction(last, 10**15)
        assert held[0] - rounding <= found <= last + rounding
        for ns in held if len(held) < 300 else (held[0], last):
            assert slot_of(buckets, ns) == slot
            if ns >= MICROSECOND:
                worst = max(worst, abs(found - ns) / ns)
    assert worst <= STATED
    assert worst <= Fraction((growth - 1) / (growth + 1)) + Fraction(1, 10**9)
    assert worst > Fraction(54, 10_000)


def test_the_middle_of_a_slot_is_that_of_its_whole_nanoseconds() -> None:
    """1,134 ns shares its slot with 1,122 ns and all between, so both are equally far."""
    buckets = Buckets.of(DEFAULT_BUCKETS)
    slot = slot_of(buckets, 1134)
    assert {ns for ns in range(1000, 1300) if slot_of(buckets, ns) == slot} == {*range(1122, 1135)}
    found = read(buckets, slot)
    assert abs((found - 1122) / 1122 - (1134 - found) / 1134) < Fraction(1, 10**9)


def test_a_slot_of_one_nanosecond_is_read_exactly() -> None:
    """Bounds of 2,000 and 2,001 ns leave one whole ns between them."""
    tracker = lblatency.LatencyTracker(buckets=(2e-6, 2.001e-6))
    tracker.record_latency(*WEB, 2.001e-6)
    snapshot = tracker.get_histogram(*WEB)
    assert snapshot is not None
    assert snapshot.percentile(0.5) == 2.001e-6


def test_a_percentile_beyond_its_range_is_as_documented() -> None:
    """Below 1 us it is at most half a us off; above 2**24 s it is 2**24 s."""
    buckets = Buckets.of(DEFAULT_BUCKETS)
    for ns in range(MICROSECOND):
        assert abs(read(buckets, slot_of(buckets, ns)) - ns) < 500
    for ns in (TOP + 1, 2 * TOP, 2**62):
        assert read(buckets, slot_of(buckets, ns)) == TOP


@pytest.mark.parametrize("schema", range(-4, 7))
def test_native_buckets_end_where_the_docstring_says(schema: int) -> None:
    """Above 2**24 s, all are in the bucket that begins there, or that contains it."""
    tracker = lblatency.LatencyTracker()
    for ns in (TOP, TOP + 4 * 2**20, 2**60, 2**62):
        tracker.record_latency(*WEB, ns / SECOND)
    snapshot = tracker.get_histogram(*WEB)
    assert snapshot is not None
    at_top = math.ceil(24 * 2.0**schema)
    beyond = at_top + (24 * 2.0**schema == at_top)
    expected = {at_top: 1, beyond: 3} if beyond > at_top else {at_top: 4}
    assert snapshot.native(schema).buckets == expected
    for text in (HistogramSnapshot.native.__doc__, lblatency.NativeHistogram.__doc__):
        assert "2**24 s" in str(text)


# ---- bounds as they are given ----


def counts(buckets: Any, *ns: int) -> tuple[float, ...]:
    """The cumulative counts of these durations."""
    tracker = lblatency.LatencyTracker(buckets=buckets)
    for each in ns:
        tracker.record_latency(*WEB, each / SECOND)
    snapshot = tracker.get_histogram(*WEB)
    assert snapshot is not None
    return tuple(snapshot["counts"])


@pytest.mark.parametrize(
    "bounds",
    [
        [0.1 * i for i in range(1, 20)],
        [0.001 * 1.5**i for i in range(20)],
        [math.pi / 10**i for i in range(5, -6, -1)],
        [1 / 3, 2 / 3, 1.0000000005],
        [0.3, 0.6, 0.7],
        [1e-6, 1.5e-6, 1.0000000001],
        [float(2**23) + 1e-9, float(2**24)],
    ],
)
def test_bounds_need_not_be_whole_nanoseconds(bounds: list[float]) -> None:
    """A bound is kept as given, and counts the whole ns that are not above what it reads."""
    for i, bound in enumerate(bounds):
        whole = math.floor(Fraction(repr(bound)) * SECOND)
        buckets = Buckets.of(tuple(bounds))
        assert buckets.bounds == tuple(bounds)
        slot = slot_of(buckets, whole)
        assert uppers(buckets)[slot] == whole
        one, other = (
            HistogramSnapshot(buckets, each.to_bytes(2, "little"), (1).to_bytes(8, "little"), 0)
            for each in (slot, slot + 1)
        )
        assert one["counts"][i] == 1
        assert other["counts"][i] == 0


@settings(max_examples=200)
@given(st.floats(1e-6, 2.0**24), st.integers(-1, 2))
def test_a_duration_is_within_a_bound_as_their_decimals_say(bound: float, step: int) -> None:
    """A duration of d ns is counted if d is not above the bound's decimals, in ns."""
    buckets = Buckets.of((bound,))
    exact = Fraction(repr(bound)) * SECOND
    ns = math.floor(exact) + step
    slot = slot_of(buckets, ns).to_bytes(2, "little")
    snapshot = HistogramSnapshot(buckets, slot, (1).to_bytes(8, "little"), ns)
    assert snapshot["counts"] == (int(ns <= exact),)
    assert snapshot["buckets"] == (bound,)


def test_a_last_infinity_is_dropped() -> None:
    """The +Inf that other libraries take at the end is there anyway: it is `count`."""
    for last in (math.inf, Decimal("inf")):
        tracker = lblatency.LatencyTracker(buckets={"lifetime": [1, 2.5, last]})
        tracker.record_latency(*WEB, 3)
        snapshot = tracker.get_histogram(*WEB)
        assert snapshot is not None
        assert dict(snapshot) == {"buckets": (1, 2.5), "counts": (0, 0), "sum": 3, "count": 1}
    assert counts([math.inf], 1) == ()


@pytest.mark.parametrize(
    "given",
    [
        [1, 2],
        (1.0, Decimal(2)),
        (Fraction(each) for each in (1, 2)),
        range(1, 3),
        {1: "a", 2: "b"}.keys(),
        [True, 2],
    ],
)
def test_bounds_are_any_iterable_of_numbers(given: Any) -> None:
    """Generators and other numbers are taken as `prometheus_client` takes them."""
    tracker = lblatency.LatencyTracker(buckets={"lifetime": given})
    tracker.record_latency(*WEB, 1.5)
    snapshot = tracker.get_histogram(*WEB)
    assert snapshot is not None
    assert repr(snapshot["buckets"]) == "(1.0, 2.0)"
    assert snapshot["counts"] == (0, 1)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("123", TypeError, "str"),
        (b"123", TypeError, "bytes"),
        (bytearray(b"123"), TypeError, "bytearray"),
        (["0.1", "0.2"], TypeError, "'0.1'"),
        ([b"1"], TypeError, "b'1'"),
        ([None], TypeError, "None"),
        ([1j], TypeError, "1j"),
        (5, TypeError, "int"),
        (0.5, TypeError, "float"),
        ([10**400], ValueError, "bucket bound 1000"),
        ([1, 10**400], ValueError, "between"),
        ([Fraction(10**400)], ValueError, "between"),
        ([math.nan], ValueError, "nan"),
        ([1, math.nan], ValueError, "nan"),
        ([math.inf, math.inf], ValueError, "inf"),
        ([math.inf, 1], ValueError, "inf"),
        ([-math.inf, 1], ValueError, "-inf"),
        ([9.99e-7], ValueError, "between"),
        ([2.0**24 + 1], ValueError, "between"),
        ([0], ValueError, "between"),
        ([-1], ValueError, "between"),
        ([1, 1], ValueError, "ascending"),
        ([1, 1.0000000001], ValueError, "1.0 and 1.0000000001 .*same.* nanosecond"),
        ([2, 1], ValueError, "ascending"),
        ([1, 1.001, 1.002, 1.003], ValueError, "half a percent"),
        ([1 + i / 4 for i in range(600)], ValueError, "more than 512"),
    ],
)
def test_bad_bounds_are_told_by_type_and_value(given: Any, error: Any, text: str) -> None:
    """A wrong type is a TypeError, a wrong value a ValueError; both name what was given."""
    for buckets in (given, {"lifetime": given}):
        with pytest.raises(error, match=text):
            lblatency.LatencyTracker(buckets=buckets)


def test_infinite_generators_end() -> None:
    """Bounds without an end are refused, not read for ever."""

    def endless() -> Any:
        bound = 1.0
        while True:
            yield bound
            bound += 1

    with pytest.raises(ValueError, match="more than 512"):
        lblatency.LatencyTracker(buckets=endless())


def test_such_bounds_survive_pickling_and_merging() -> None:
    """A snapshot keeps its bounds as given."""
    bounds = [0.1 * i for i in range(1, 10)]
    tracker = lblatency.LatencyTracker(buckets=[*bounds, math.inf])
    for i in range(1, 10):
        tracker.record_latency(*WEB, i / 10)
    snapshot = tracker.get_histogram(*WEB)
    assert snapshot is not None
    copy = pickle.loads(pickle.dumps(snapshot))
    assert copy == snapshot
    merged = copy.merge(snapshot)
    assert merged["buckets"] == tuple(bounds)
    assert merged["counts"] == tuple(2 * i for i in range(1, 10))
    assert merged["sum"] == 9


def test_floats_of_whole_nanoseconds_are_those() -> None:
    """For every bound of whole ns, the slot ends there to the ns."""
    random = Random(1)
    for ns in [*range(1000, 3000), *(int(10 ** random.uniform(3, 15.9)) for _ in range(2000))]:
        assert to_ns(ns / SECOND) == ns
        buckets = Buckets((ns / SECOND,))
        assert uppers(buckets)[slot_of(buckets, ns)] == ns
