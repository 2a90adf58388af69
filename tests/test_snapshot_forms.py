"""What snapshots add up to, and their forms: attributes, dicts, JSON and HTML."""

from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Mapping
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lblatency
from lblatency import HistogramSnapshot, LatencyTracker, stats
from lblatency._plot import Bar, html_plot, readable
from lblatency.buckets import DEFAULT_BUCKETS, SHORT_BUCKETS, Buckets
from tests.support.model import SECOND, Model, native_index
from tests.support.rig import Rig, closed

WEB = ("web", "10.0.0.1:80")
TOP = 2**24 * SECOND
BOUNDS = [DEFAULT_BUCKETS, (), (0.3, 1 / 3, 0.7), tuple(0.1 * i for i in range(1, 20))]
DURATIONS = st.lists(
    st.one_of(
        st.integers(0, 2000),
        st.sampled_from([0, 300_000_000, SECOND, TOP, TOP + 1, 2**62]),
        st.builds(lambda octave, part: int(2**octave * part), st.integers(0, 61), st.floats(1, 2)),
    ),
    max_size=40,
)


def snapshot(values: list[int], bounds: tuple[float, ...] = DEFAULT_BUCKETS) -> HistogramSnapshot:
    """A snapshot of these observations in ns; each is in the slot that C says."""
    buckets = Buckets.of(bounds)
    slots = Counter(int(lblatency._ffi.lib.lbl_buckets_slot(buckets.ptr, ns)) for ns in values)
    return HistogramSnapshot(
        buckets,
        bytes(array("H", sorted(slots))),
        bytes(array("Q", [slots[slot] for slot in sorted(slots)])),
        sum(values),
    )


# ---- attributes ----


def test_every_key_is_an_attribute() -> None:
    """`h.count` is `h["count"]`, and so on; no attribute can be set."""
    histogram = snapshot([SECOND, 3 * SECOND], (1.0, 2.0))
    assert {name: getattr(histogram, name) for name in histogram} == dict(histogram)
    assert (histogram.count, histogram.sum, histogram.mean) == (2, 4.0, 2.0)
    assert (histogram.buckets, histogram.counts) == ((1.0, 2.0), (1, 1))
    with pytest.raises(AttributeError):
        histogram.count = 3  # type: ignore[misc]


@given(DURATIONS, st.lists(st.floats(0, 1), max_size=5))
def test_percentiles_are_those_one_by_one(values: list[int], qs: list[float]) -> None:
    """A list of shares gives a list of values, in the same order."""
    histogram = snapshot(values)
    found = histogram.percentiles(iter(qs))
    assert repr(found) == repr([histogram.percentile(q) for q in qs])


def test_a_bad_share_among_percentiles_is_told() -> None:
    """A share outside 0 to 1 is a ValueError with its value, not a number."""
    with pytest.raises(ValueError, match=r"1\.5"):
        snapshot([1]).percentiles([0.5, 1.5])
    with pytest.raises(TypeError):
        snapshot([1]).percentiles(0.5)  # type: ignore[arg-type]


def test_equality_is_of_all_slots() -> None:
    """Snapshots that differ in a slot differ, though the classic counts are the same."""
    one, other = snapshot([1_100_000, 1_300_000]), snapshot([1_200_000, 1_200_000])
    assert dict(one) == dict(other)
    assert one != other
    assert one == snapshot([1_300_000, 1_100_000])
    assert one == dict(one)
    assert dict(one) == one
    assert one != snapshot([1_100_000, 1_300_000], (1.0,))
    assert one != snapshot([1_100_001, 1_300_000])
    assert one != 5
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


# ---- sums and differences ----


@settings(max_examples=100)
@given(DURATIONS, DURATIONS, st.sampled_from(BOUNDS))
def test_plus_and_minus_are_exact(
    early: list[int], late: list[int], bounds: tuple[float, ...]
) -> None:
    """The sum has all observations; the difference has those that came in between."""
    one, other = snapshot(early, bounds), snapshot(late, bounds)
    both = snapshot(early + late, bounds)
    assert one + other == other + one == one.merge(other) == both
    assert both - one == other
    assert both - other == one
    assert both - both == snapshot([], bounds)
    assert both - snapshot([], bounds) == both


@settings(max_examples=100)
@given(DURATIONS, DURATIONS)
def test_minus_of_what_is_not_earlier_is_refused(one: list[int], other: list[int]) -> None:
    """If any slot or the sum goes down, there is no difference."""
    later, earlier = snapshot(one), snapshot(other)
    slots = [dict(map(tuple, each.to_dict()["slots"])) for each in (later, earlier)]
    is_less = any(slots[0].get(last, 0) < count for last, count in slots[1].items())
    if is_less or sum(one) < sum(other):
        with pytest.raises(ValueError, match="went down"):
            later - earlier
    else:
        assert (later - earlier).count == len(one) - len(other)


def test_the_p99_of_a_minute_without_a_reset() -> None:
    """Differences of a tracker's snapshots are its observations in between; a reset shows."""
    tracker = LatencyTracker()
    tracker.record_latency(*WEB, 1)
    earlier = tracker.get_histogram(*WEB)
    for _ in range(100):
        tracker.record_latency(*WEB, 0.25)
    later = tracker.get_histogram(*WEB)
    assert earlier is not None
    assert later is not None
    assert (later - earlier) == snapshot([250_000_000] * 100)
    assert (later - earlier).percentile(0.99) == pytest.approx(0.25, rel=0.0055)
    tracker.reset_histograms()
    tracker.record_latency(*WEB, 0.25)
    after = tracker.get_histogram(*WEB)
    assert after is not None
    with pytest.raises(ValueError, match=r"count=1 .*count=101 .*reset"):
        after - later


def test_sums_of_other_things_are_refused() -> None:
    """Other bounds are a ValueError, other types a TypeError."""
    one, other = snapshot([1]), snapshot([1], (1.0,))
    with pytest.raises(ValueError, match="bounds cannot be merged"):
        one + other
    with pytest.raises(ValueError, match="bounds cannot be subtracted"):
        one - other
    wrongs: tuple[Any, ...] = (0, None, {}, dict(one))
    for wrong in wrongs:
        with pytest.raises(TypeError):
            one + wrong
        with pytest.raises(TypeError):
            one - wrong
        with pytest.raises(TypeError):
            wrong - one


# ---- dicts ----


@settings(max_examples=150)
@given(DURATIONS, st.sampled_from(BOUNDS))
def test_a_dict_goes_through_json_and_back(values: list[int], bounds: tuple[float, ...]) -> None:
    """What JSON, a pickle and a copy give back is equal; the sum keeps each nanosecond."""
    histogram = snapshot(values, bounds)
    text = json.dumps(histogram.to_dict(), allow_nan=False)
    back = HistogramSnapshot.from_dict(json.loads(text))
    assert back == histogram
    assert dict(back) == dict(histogram)
    assert json.loads(text)["sum_ns"] == sum(values)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(histogram, protocol)) == histogram
    assert copy.copy(histogram) == copy.deepcopy(histogram) == histogram


@settings(max_examples=50)
@given(DURATIONS, st.sampled_from(BOUNDS))
def test_slots_of_a_dict_are_named_by_their_last_nanosecond(
    values: list[int], bounds: tuple[float, ...]
) -> None:
    """The dict says how many observations lie up to each last ns, without any slot's number."""
    found = snapshot(values, bounds).to_dict()
    lasts = [last for last, _ in found["slots"]]
    assert lasts[:-1] == sorted(last for last in lasts[:-1] if last is not None)
    below = 0
    for last, count in found["slots"]:
        assert last is None or last <= TOP
        upto = [ns for ns in values if last is None or ns <= last]
        below += count
        assert len(upto) == below


def test_the_form_of_version_1_does_not_change() -> None:
    """This text was written by the first version, and is read by every later one."""
    text = (
        '{"version": 1, "buckets": [0.3, 0.3333333333333333, 1.0], "slots": [[953, 2], [300000000,'
        ' 1], [333333333, 1], [1000000000, 5], [null, 3]], "sum_ns": 13835058055282163712}'
    )
    histogram = HistogramSnapshot.from_dict(json.loads(text))
    assert json.dumps(histogram.to_dict()) == text
    assert histogram.counts == (3, 4, 9)
    assert histogram.count == 12
    assert histogram.sum == 13835058055.282163712


GOOD = {"version": 1, "buckets": [1.0], "slots": [[953, 1], [None, 2]], "sum_ns": 5}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"version": 2}, "version 2.*update"),
        ({"version": 0}, "version 0"),
        ({"version": "1"}, "version '1'"),
        ({"version": True}, "version True"),
        ({"version": None}, "version None"),
        ({"more": 1}, "more"),
        ({"buckets": None}, "bounds"),
        ({"buckets": 5}, "bounds"),
        ({"buckets": "1"}, "bounds"),
        ({"buckets": ["1"]}, "'1'"),
        ({"buckets": [None]}, "None"),
        ({"buckets": [2, 1]}, "ascending"),
        ({"buckets": [math.nan]}, "nan"),
        ({"slots": None}, "slots"),
        ({"slots": {"953": 1}}, "slots"),
        ({"slots": "ab"}, "slots"),
        ({"slots": [953, 1]}, "953"),
        ({"slots": [[953]]}, "last nanosecond, count"),
        ({"slots": [[953, 1, 1]]}, "last nanosecond, count"),
        ({"slots": ["ab"]}, "last nanosecond, count"),
        ({"slots": [[952, 1]]}, "no slot that ends at 952 ns"),
        ({"slots": [[2**64 - 1, 1]]}, "no slot that ends"),
        ({"slots": [[TOP + 1, 1]]}, "no slot that ends"),
        ({"slots": [[2**64, 1]]}, "last nanosecond of a slot"),
        ({"slots": [[-1, 1]]}, "last nanosecond of a slot"),
        ({"slots": [[953.0, 1]]}, "last nanosecond of a slot"),
        ({"slots": [["953", 1]]}, "last nanosecond of a slot"),
        ({"slots": [[True, 1]]}, "last nanosecond of a slot"),
        ({"slots": [[953, -1]]}, "a count"),
        ({"slots": [[953, 1.0]]}, "a count"),
        ({"slots": [[953, None]]}, "a count"),
        ({"slots": [[953, 2**64]]}, "a count"),
        ({"slots": [[953, 1], [953, 1]]}, "ascending"),
        ({"slots": [[None, 1], [953, 1]]}, "ascending"),
        ({"slots": [[None, 1], [None, 1]]}, "ascending"),
        ({"slots": [[953, 2**63], [None, 2**63]]}, "2\\*\\*64"),
        ({"sum_ns": -1}, "sum_ns"),
        ({"sum_ns": 1.0}, "sum_ns"),
        ({"sum_ns": "1"}, "sum_ns"),
        ({"sum_ns": 2**126}, "sum_ns"),
    ],
)
def test_a_malformed_dict_is_refused(change: dict[str, Any], text: str) -> None:
    """Each part that is not as `to_dict()` writes it is a ValueError that names it."""
    assert HistogramSnapshot.from_dict(GOOD).count == 3
    with pytest.raises(ValueError, match=text):
        HistogramSnapshot.from_dict(GOOD | change)


@pytest.mark.parametrize("key", GOOD)
def test_a_dict_without_a_key_is_refused(key: str) -> None:
    """All four keys are needed."""
    with pytest.raises(ValueError, match=key):
        HistogramSnapshot.from_dict({name: GOOD[name] for name in GOOD if name != key})


def test_what_is_no_dict_is_a_type_error() -> None:
    """A list, a string or nothing is no dict of a histogram."""
    for wrong in (None, [], "{}", 5, [GOOD]):
        with pytest.raises(TypeError, match="mapping"):
            HistogramSnapshot.from_dict(wrong)  # type: ignore[arg-type]


def test_a_snapshot_in_itself_is_no_dict_of_one() -> None:
    """The mapping of a snapshot has other keys than its dict."""
    with pytest.raises(ValueError, match="version None"):
        HistogramSnapshot.from_dict(snapshot([1]))


# ---- HTML ----


class Tags(HTMLParser):
    """All tags with their attributes; each that opens must close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.open.append(tag)
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """It closes the last one."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Text between tags."""
        self.text += data


@settings(max_examples=60)
@given(DURATIONS)
def test_html_shows_every_observation_once(values: list[int]) -> None:
    """The bars have all counts, are few, stay within the picture and have no color of their own."""
    histogram = snapshot(values)
    bars = histogram._bars()
    assert sum(count for _, _, count in bars) == len(values)
    assert len(bars) <= 64
    assert all(one[1] == other[0] for one, other in pairwise(bars))
    html = histogram._repr_html_()
    page = Tags(html)
    rectangles = [attributes for tag, attributes in page.seen if tag == "rect"]
    assert len(rectangles) == sum(count > 0 for _, _, count in bars)
    for each in rectangles:
        x, y, width, height = (float(str(each[name])) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + width <= 641
        assert 0 <= y <= y + height <= 120.2
    assert all("fill" not in attributes for tag, attributes in page.seen if tag != "svg")
    assert f"count {len(values):,}" in page.text
    assert ("p99" in page.text) == bool(values)
    assert "nan" not in html
    if values:
        assert dict(page.seen)["svg"]["fill"] == "currentColor"


def test_a_bar_is_where_its_observations_are() -> None:
    """The axis is that of native buckets; the zero bucket ends at 2**-20 s."""
    bars = snapshot([0, 953, 2**21, 2**21])._bars()
    assert bars[0][1:] == (2.0**-20, 2)
    lower, upper, count = bars[-1]
    assert lower * SECOND < 2**21 <= upper * SECOND
    assert count == 2
    one = snapshot([SECOND])._bars()
    assert one == [(2 ** (-1 / 64), 1.0, 1)]
    assert native_index(SECOND, 6) == 0


def test_text_in_html_is_escaped() -> None:
    """Whatever a fact says, it is text."""
    page = Tags(html_plot([Bar(0.5, 1, 1)], {"<b>": "<script>&"}))
    assert "<b> <script>&" in page.text
    assert "script" not in dict(page.seen)


def test_times_are_readable() -> None:
    """Three digits and the unit that fits."""
    shown = [readable(each) for each in (3600, 1, 0.25, 0.00123456, 5e-5, 1e-8, 0)]
    assert shown == ["3.6e+03 s", "1 s", "250 ms", "1.23 ms", "50 µs", "10 ns", "0 ns"]


def test_an_import_does_not_pay_for_other_forms() -> None:
    """The modules for HTML and JSON come with the first use."""
    code = "import lblatency, sys; print({'json', 'html', 'fractions'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-Ic", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# ---- adding to a tracker ----


def recorded(tracker: LatencyTracker, metric: str = "lifetime") -> HistogramSnapshot:
    """The histogram of the one backend."""
    found = tracker.get_histogram(*WEB, metric=metric)
    assert found is not None
    return found


@settings(max_examples=60)
@given(DURATIONS, st.lists(st.integers(0, 100 * SECOND), min_size=1, max_size=5))
def test_added_observations_are_like_recorded_ones(values: list[int], own: list[int]) -> None:
    """Counts of every slot and the sum are those of all observations together."""
    tracker, model = LatencyTracker(), Model(DEFAULT_BUCKETS)
    for ns in own:
        tracker.record_latency(*WEB, ns / SECOND)
    tracker.add(*WEB, snapshot(values))
    for ns in own + values:
        model.record(*WEB, ns)
    found = recorded(tracker)
    assert found == snapshot(own + values)
    assert found.counts == model.counts(*WEB)
    status = tracker.get_status()
    n = len(own + values)
    backend = status["backends"][WEB]
    assert (backend["closed"], backend["reasons"]["unknown"], backend["opened"]) == (n, n, 0)
    assert status["events"]["observed"] == n


def test_a_histogram_moves_between_trackers() -> None:
    """By way of JSON, from a tracker of events to one of another process, twice."""
    rig = Rig(metrics=("lifetime", "connect"))
    for i in range(1, 400):
        rig.send(closed(i**3 * 1000, connect_us=i))
    other = LatencyTracker(metrics=("lifetime", "connect"))
    for metric in ("lifetime", "connect"):
        text = json.dumps(recorded(rig.tracker, metric).to_dict())
        for _ in range(2):
            other.add(*WEB, HistogramSnapshot.from_dict(json.loads(text)), metric=metric)
        assert recorded(other, metric) == recorded(rig.tracker, metric) + recorded(
            rig.tracker, metric
        )
    assert other.get_status()["backends"][WEB]["closed"] == 2 * 399
    rig.tracker.stop()


def test_adding_keeps_large_counts_exact() -> None:
    """Counts that need all levels of counters, up to the limit; beyond it, nothing is added."""
    tracker = LatencyTracker()
    for n in (1, 127, 128, 2**31, 2**39 - 1, 2**39, 2**61):
        text = GOOD | {"buckets": list(DEFAULT_BUCKETS), "slots": [[953, n]], "sum_ns": n}
        tracker.add(*WEB, HistogramSnapshot.from_dict(text))
    total = 1 + 127 + 128 + 2**31 + 2**40 - 1 + 2**61
    assert recorded(tracker).count == recorded(tracker).counts[0] == total
    assert recorded(tracker).to_dict()["sum_ns"] == total
    assert tracker.get_status()["backends"][WEB]["closed"] == total
    for n in (2**61, 2**62, 2**62 + 1, 2**64 - 1):
        text = GOOD | {"buckets": list(DEFAULT_BUCKETS), "slots": [[953, n]]}
        with pytest.raises(ValueError, match="more observations than a tracker can count"):
            tracker.add(*WEB, HistogramSnapshot.from_dict(text))
    assert recorded(tracker).count == total
    one = {"slots": [[None, 1]], "sum_ns": 2**62 + 1, "buckets": list(DEFAULT_BUCKETS)}
    with pytest.raises(ValueError, match="a sum that its observations cannot have"):
        tracker.add(*WEB, HistogramSnapshot.from_dict(GOOD | one))
    tracker.add(*WEB, HistogramSnapshot.from_dict(GOOD | one | {"sum_ns": 2**62}))
    assert recorded(tracker).count == total + 1
    assert recorded(tracker).to_dict()["sum_ns"] == total + 2**62


@pytest.mark.parametrize(
    ("arguments", "metric", "error", "text"),
    [
        ((*WEB, None), "lifetime", TypeError, "HistogramSnapshot, not NoneType"),
        ((*WEB, GOOD), "lifetime", TypeError, "from_dict"),
        ((*WEB, snapshot([1], (1.0,))), "lifetime", ValueError, "lifetime.*same buckets"),
        ((*WEB, snapshot([1], SHORT_BUCKETS)), "lifetime", ValueError, "other bucket bounds"),
        ((*WEB, snapshot([1])), "connect", ValueError, "metric 'connect'"),
        ((*WEB, snapshot([1])), 5, ValueError, "metric 5"),
        (("", WEB[1], snapshot([1])), "lifetime", ValueError, "name"),
        ((5, WEB[1], snapshot([1])), "lifetime", TypeError, "name"),
        (("web", "nonsense", snapshot([1])), "lifetime", ValueError, "nonsense"),
    ],
)
def test_a_refused_add_leaves_nothing_behind(
    arguments: Any, metric: Any, error: Any, text: str
) -> None:
    """The tracker has no backend and no count after it."""
    tracker = LatencyTracker()
    with pytest.raises(error, match=text):
        tracker.add(*arguments, metric=metric)
    assert tracker.backends() == []
    assert tracker.event_counts()["observed"] == 0


def test_adding_nothing_is_nothing() -> None:
    """An empty snapshot has no observations to add."""
    tracker = LatencyTracker()
    tracker.add(*WEB, snapshot([]))
    assert tracker.get_histogram(*WEB) is None


def test_more_backends_than_there_is_room_for_are_added_to_overflow() -> None:
    """As with latencies that are recorded by hand."""
    tracker = LatencyTracker(max_backends=1)
    for i in range(3):
        tracker.add("web", f"10.0.0.{i}:80", snapshot([SECOND]))
    assert {row.target: row.histogram.count for row in tracker.backends()} == {
        "10.0.0.0:80": 1,
        "overflow:0": 2,
    }


# ---- a tracker as JSON ----


def test_a_tracker_as_json() -> None:
    """One call has the status and all histograms, with strings for keys and no NaN."""
    rig = Rig(metrics=("lifetime", "connect"))
    rig.send(
        closed(SECOND, connect_us=100),
        closed(2 * SECOND),
        stats.Event("opened", "[2001:db8::1]:443", SECOND).pack(),
    )
    rig.tracker.record_latency("api", "10.0.0.2:80", 0.5, metric="connect")
    found = json.loads(rig.tracker.to_json())
    assert found == json.loads(json.dumps(rig.tracker.to_dict(), allow_nan=False))
    status = rig.tracker.get_status()
    assert list(found) == ["version", *status]
    assert found["version"] == 1
    assert {key: found[key] for key in status if key != "backends"} == {
        key: status[key] for key in status if key != "backends"
    }
    by_name = {(each["proxy_name"], each["target_id"]): each for each in found["backends"]}
    assert len(by_name) == len(found["backends"]) == 3
    web = by_name[WEB]
    for metric in ("lifetime", "connect"):
        assert HistogramSnapshot.from_dict(web["histograms"][metric]) == recorded(
            rig.tracker, metric
        )
        assert web["percentiles"][metric] == rig.tracker.get_percentiles(*WEB, metric=metric)
    for name, each in status["backends"].items():
        assert {key: by_name[name][key] for key in ("opened", "closed", "open", "reasons")} == {
            key: each[key] for key in ("opened", "closed", "open", "reasons")
        }
    assert by_name["web", "[2001:db8::1]:443"]["histograms"] == {}
    assert by_name["web", "[2001:db8::1]:443"]["percentiles"] == {}
    assert list(by_name["api", "10.0.0.2:80"]["histograms"]) == ["connect"]
    rig.tracker.stop()


def test_an_empty_tracker_as_json() -> None:
    """Without backends the list is empty."""
    found = json.loads(LatencyTracker().to_json())
    assert (found["backends"], found["running"], found["histogram_count"]) == ([], False, 0)


def test_names_in_json_are_as_given() -> None:
    """Quotes, line ends and other scripts survive."""
    tracker = LatencyTracker()
    name = 'a"b\\c\n<é漢>\0'
    tracker.record_latency(name, WEB[1], 1)
    assert json.loads(tracker.to_json())["backends"][0]["proxy_name"] == name


def test_the_module_has_the_same_functions() -> None:
    """`add`, `to_dict` and `to_json` work on the process's own tracker."""
    try:
        lblatency.add(*WEB, snapshot([SECOND]))
        assert lblatency.to_dict()["backends"][0]["target_id"] == WEB[1]
        assert json.loads(lblatency.to_json())["histogram_count"] == 1
        assert isinstance(lblatency.get_histogram(*WEB), Mapping)
    finally:
        lblatency.reset_histograms()
