"""The history of a tracker: differences of samples, against sums that are made by hand."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest

from lblatency import LatencyTracker, stats
from lblatency._ffi import lib
from lblatency.buckets import LIFETIME, METRICS
from lblatency.history import FINE_S, LONGEST_S, History, Overview, Selection, UnknownBackendError
from lblatency.history.history import Heat
from tests.support.history_model import Column, Count, HistoryModel, coarse_row, is_selected, total
from tests.support.rig import SECOND, Rig

ALL = Selection()
PROXIES: dict[int | str, str] = {1: "api", 2: "a/b"}
REASONS = ("fin", "rst", "timeout", "connect_failed")


class Twin:
    """A history and its model, with a made-up clock."""

    def __init__(self, tracker: LatencyTracker, **options: Any) -> None:
        self.history = History(tracker, **options)
        self.now = 10**15  # later than any machine has run
        self.model = HistoryModel(tracker, self.now)

    def sample(self, seconds: float = 5.0) -> None:
        """Let time pass, then sample both."""
        self.now += round(seconds * SECOND)
        self.history.sample(self.now)
        self.model.sample(self.now)

    def check(
        self, selection: Selection, seconds: int, columns: list[Column] | None = None
    ) -> None:
        """Compare a window of every latency."""
        span = self.model.span(seconds) if columns is None else columns
        expected = self.model.sum(span, selection)
        for metric in self.history.metrics:
            window = self.history.window(selection, seconds, metric)
            form = window.histogram.to_dict()
            slots = expected.slots.get(metric, Counter())
            assert dict(map(tuple, form["slots"])) == {ns: n for ns, n in slots.items() if n}
            assert form["sum_ns"] == expected.sums.get(metric, 0)
            if span:
                assert window.since is not None
                assert window.until is not None
                covered = (span[-1].ended - span[0].began) / 1e9
                assert window.until - window.since == pytest.approx(covered, abs=2e-3)


def connection(source: random.Random, targets: int) -> bytes:
    """A connection that opened, or one that ended, of any kind."""
    lifetime = round(2 ** source.uniform(15, 40))
    target = f"10.0.0.{source.randrange(targets)}:80"
    if source.random() < 0.3:
        return stats.Event("opened", target, 10**13, 10**13, proxy_id=source.randrange(3)).pack()
    reason = source.choice(REASONS)
    return stats.Event(
        "closed",
        target,
        10**13 + lifetime,
        10**13,
        reason=reason,
        proxy_id=source.randrange(3),
        connect_us=source.choice([None, source.randrange(1, 10**5)]),
        first_byte_us=source.choice([None, stats.NEVER, source.randrange(1, 10**6)]),
        probe=reason != "connect_failed" and source.random() < 0.1,
    ).pack()


def rig() -> Rig:
    """All latencies, and proxies whose numbers are not in the order of their names."""
    return Rig(1 << 18, proxies=PROXIES, metrics=METRICS)


@pytest.mark.parametrize("seed", range(3))
def test_every_window_is_the_sum_of_what_happened(seed: int) -> None:
    """Windows, heat maps and tables equal sums by hand, over resets, removals and restarts."""
    source = random.Random(seed)
    made = rig()
    twin = Twin(made.tracker)
    selections = [ALL, Selection("api"), Selection("web", "10.0.0.1:80")]
    for step in range(240):
        made.send(*(connection(source, 6) for _ in range(source.randrange(40))))
        if source.random() < 0.03:
            made.tracker.reset_histograms()
        if source.random() < 0.05:
            made.tracker.stop()
            made.tracker.start(made.stream, None, "web", proxies=PROXIES)
        if source.random() < 0.1:
            made.tracker.remove("web", f"10.0.0.{source.randrange(6)}:80")
        twin.sample(source.choice([5, 5, 5, 1, 0.2, 17]))
        if step % 40 == 39:
            for seconds in (60, 300, FINE_S):
                fine = twin.model.span(seconds)
                check_overview(twin, seconds, fine)
                for selection in selections:
                    twin.check(selection, seconds)
                    check_heat(twin, selection, seconds, fine)
    for selection in selections:
        check_long_heat(twin, selection)


def rows_of(heat: Heat) -> Counter[int]:
    """Its counts by row."""
    return Counter(
        {
            row: n
            for row in range(lib.LBL_COARSE_ROWS)
            if (n := sum(counts[row] for counts in heat.counts))
        }
    )


def coarse(counts: Count, metric: str) -> Counter[int]:
    """Counts by row."""
    rows: Counter[int] = Counter()
    for ns, n in counts.slots.get(metric, {}).items():
        rows[coarse_row(ns)] += n
    return +rows


def check_heat(twin: Twin, selection: Selection, seconds: int, span: list[Column]) -> None:
    """Each column has the counts of its time, and percentiles as exact as the tracker's."""
    heat = twin.history.heat(selection, seconds, "connect")
    assert len(heat.counts) == len(span)
    for i, column in enumerate(span):
        expected = coarse(twin.model.sum([column], selection), "connect")
        assert {row: n for row, n in enumerate(heat.counts[i]) if n} == expected
        assert heat.ended[i] - heat.began[i] == pytest.approx(
            (column.ended - column.began) / 1e9, abs=2e-3
        )
        if expected:
            assert lib.lbl_coarse_upper(min(expected)) / 2 <= heat.p50[i] <= heat.p99[i]
            assert heat.p99[i] <= lib.lbl_coarse_upper(max(expected))
        else:
            assert math.isnan(heat.p50[i])
            assert math.isnan(heat.p99[i])


def check_long_heat(twin: Twin, selection: Selection) -> None:
    """The hours have all counts, in columns of a minute or more, without gaps."""
    heat = twin.history.heat(selection, LONGEST_S)
    assert rows_of(heat) == coarse(twin.model.sum(twin.model.columns, selection), LIFETIME)
    assert heat.began[1:] == heat.ended[:-1]
    for i, counts in enumerate(heat.counts):
        used = [row for row, n in enumerate(counts) if n]
        if used:  # the rows' bounds hold the percentiles of coarse columns, too
            assert lib.lbl_coarse_upper(used[0]) / 2 <= heat.p50[i] <= heat.p99[i]
            assert heat.p99[i] <= lib.lbl_coarse_upper(used[-1])
        else:
            assert math.isnan(heat.p50[i])
    lengths = [end - begin for begin, end in zip(heat.began, heat.ended, strict=True)]
    assert all(59.9 < each < 80 for each in lengths[:-2])  # the last of each level is what is left


def check_overview(twin: Twin, seconds: int, span: list[Column]) -> None:
    """Each number of the table equals one by hand."""
    found = twin.history.overview(seconds)
    columns = found.columns
    keys = list(zip(found.proxy, found.target, strict=True))
    assert len(set(keys)) == len(keys)
    assert set(keys) == {*twin.model.open, *(key for column in span for key in active(column))}
    until, since = span[-1].ended, span[0].began
    before = twin.model.span(seconds, since)
    covers = before and before[-1].ended - before[0].began >= seconds * SECOND / 2
    for i, key in enumerate(keys):
        now = total(column.rows[key] for column in span if key in column.rows)
        ended = sum(n for reason, n in now.reasons.items() if reason != "connect_failed")
        length = (until - since) / 1e9
        assert columns["open"][i] == twin.model.open.get(key, 0)
        assert columns["count"][i] == sum(now.slots.get(LIFETIME, Counter()).values())
        assert columns["resets"][i] == now.reasons["rst"]
        assert columns["failed"][i] == now.reasons["connect_failed"]
        assert columns["closed_rate"][i] == pytest.approx(ended / length, rel=5e-3)
        assert columns["opened_rate"][i] == pytest.approx(now.opened / length, rel=5e-3)
        check_percentiles(twin, found, i, seconds)
        if covers:
            check_change(found, i, now, total(c.rows[key] for c in before if key in c.rows))
        else:
            assert math.isnan(columns["change"][i])


def active(column: Column) -> set[tuple[str, str]]:
    """The backends to which something happened."""
    return {
        key
        for key, of in column.rows.items()
        if any(of.sums.values()) or any(of.reasons.values()) or of.opened
    }


def check_percentiles(twin: Twin, found: Overview, i: int, seconds: int) -> None:
    """They are those of the window's histogram, with three digits."""
    selection = Selection(found.proxy[i], found.target[i])
    for metric in twin.history.metrics:
        histogram = twin.history.window(selection, seconds, metric).histogram
        asked = {0.95: found.p95_of[metric][i]}
        if metric == LIFETIME:
            asked |= {0.5: found.columns["p50"][i], 0.99: found.columns["p99"][i]}
            assert found.columns["p95"][i] == asked[0.95] or not histogram.count
        for q, value in asked.items():
            if histogram.count:
                assert value == float(f"{histogram.percentile(q):.3g}")
            else:
                assert math.isnan(value)


def check_change(found: Overview, i: int, now: Count, before: Count) -> None:
    """The score, by its definition in docs/api-v1.md, within rounding."""
    one, two = coarse(now, LIFETIME), coarse(before, LIFETIME)
    n, m = one.total(), two.total()
    score = found.columns["change"][i]
    assert 0 <= score <= 1
    assert (found.change_in[i] is None) == (score == 0)
    if n and m:
        largest = max(
            abs(sum(one[k] for k in range(r + 1)) / n - sum(two[k] for k in range(r + 1)) / m)
            for r in range(lib.LBL_COARSE_ROWS)
        )
        moved = max(0.0, largest - 1.36 * math.sqrt((n + m) / (n * m)))
        assert score >= moved * 0.994
        if found.change_in[i] == "lifetime":
            assert score == pytest.approx(moved, rel=6e-3)


def test_all_time_is_what_the_tracker_has() -> None:
    """The window of all time equals the tracker's histograms, and its table their counts."""
    made = rig()
    history = History(made.tracker)
    source = random.Random(4)
    for step in range(3):
        made.send(*(connection(source, 5) for _ in range(100)))
        history.sample(10**15 + step * 5 * SECOND)
    for row in made.tracker.backends():
        selection = Selection(row.proxy, row.target)
        assert history.window(selection, None).histogram == row.histogram
    found = history.overview(None)
    assert sum(found.columns["count"]) == sum(
        row.histogram.count for row in made.tracker.backends()
    )
    assert all(map(math.isnan, found.columns["change"]))


def test_nothing_is_known_before_two_samples() -> None:
    """Before there is a difference, nothing is covered, which is no error."""
    tracker = LatencyTracker()
    tracker.record_latency("web", "10.0.0.1:80", 1.0)
    history = History(tracker)
    for _ in range(2):
        for window in (60, None):
            assert history.overview(window).target == []
            assert history.overview(window).since is None
        assert history.window(ALL, 60).until is None
        assert history.heat(ALL, 60).counts == []
        history.sample()
    assert history.overview(60).target == ["10.0.0.1:80"]
    assert history.overview(60).columns["count"] == [0]  # it was there before
    assert history.overview(None).columns["count"] == [1]


def test_a_change_of_lifetimes_or_of_the_rate_is_seen() -> None:
    """What changes has a score and a word; what does not has 0, whatever chance does."""
    tracker = LatencyTracker()
    history = History(tracker)
    source = random.Random(5)
    for step in range(25):
        for target, scale, n in (
            ("10.0.0.1:80", 1, 100),
            ("10.0.0.2:80", 3 if step > 12 else 1, 100),
            ("10.0.0.3:80", 1, 20 if step > 12 else 100),
        ):
            values = [scale * source.lognormvariate(-4, 0.5) for _ in range(n)]
            tracker.record_many("web", target, values)
        history.sample(10**15 + step * 5 * SECOND)
    found = history.overview(60)
    assert found.change_in == [None, "lifetime", "rate"]
    assert found.columns["change"][0] == 0
    assert found.columns["change"][1] > 0.5
    assert found.columns["change"][2] == pytest.approx(2 / 3, abs=0.1)


@pytest.mark.parametrize("backends", [1, 100])
def test_memory_has_a_limit(backends: int) -> None:
    """Under a limit, fine columns become coarse ones, and those go; a minute stays exact."""
    tracker = LatencyTracker()
    twin = Twin(tracker, bytes_max=3 << 20)
    source = random.Random(6)
    for _ in range(60):
        for b in range(backends):
            values = [source.lognormvariate(-4, 2) for _ in range(400)]
            tracker.record_many("web", f"10.0.0.{b}:80", values)
        twin.sample()
    info = twin.history.info()
    own = 2 << 20  # of what does not grow: tables of backends
    assert info["bytes"] < (3 << 20) + own
    if backends == 1:
        assert (info["fine_columns"], info["coarse_columns"]) == (59, 0)
        return
    assert 60 <= info["covers_s"] < 240
    twin.check(ALL, 60)
    span = twin.model.span(FINE_S)[-info["fine_columns"] :]
    twin.check(ALL, FINE_S, span)


def test_hours_are_kept_as_long_as_is_said() -> None:
    """What is older than four hours is forgotten."""
    tracker = LatencyTracker()
    twin = Twin(tracker)
    for _ in range(5 * 60):
        tracker.record_latency("web", "10.0.0.1:80", 0.1)
        twin.sample(60)
    heat = twin.history.heat(ALL, LONGEST_S)
    assert len(heat.counts) == LONGEST_S // 60
    assert all(sum(column) == 1 for column in heat.counts)


def test_backends_without_room_are_told() -> None:
    """Backends beyond the limit are counted; when others have gone, they get their room."""
    room = lib.LBL_HISTORY_BACKENDS
    tracker = LatencyTracker(max_backends=room + 10)
    history = History(tracker)
    targets = [f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}:80" for i in range(room + 5)]
    for target in targets:
        tracker.record_latency("web", target, 0.1)
    history.sample(10**15)
    history.sample(10**15 + SECOND)
    assert history.overview(60).left_out == history.info()["left_out"] == 5
    assert len(history.overview(60).target) == history.info()["backends"] == room
    for target in targets[:20]:
        tracker.remove("web", target)
    history.sample(10**15 + 2 * SECOND)  # it finds that they have gone
    for target in targets[-20:]:
        tracker.record_latency("web", target, 0.1)
    history.sample(10**15 + 3 * SECOND)
    found = history.overview(60)
    assert (found.left_out, len(found.target)) == (0, room - 15)
    # When the newcomers' first connections were is not known, so they are not of this window.
    assert sum(found.columns["count"]) == 15
    for target in targets[20:]:
        tracker.record_latency("web", target, 0.1)
    history.sample(10**15 + 4 * SECOND)
    assert sum(history.overview(1).columns["count"]) == room - 15


def test_a_backend_without_any_count_is_no_row() -> None:
    """Who is bound only is not shown, in no window."""
    tracker = LatencyTracker()
    tracker.backend("web", "10.0.0.1:80")
    tracker.record_latency("web", "10.0.0.2:80", 0.1)
    history = History(tracker)
    for step in range(3):
        history.sample(10**15 + step * SECOND)
    for window in (60, None):
        assert history.overview(window).target == ["10.0.0.2:80"]


def test_the_overflow_backend_is_a_row() -> None:
    """The backends that the tracker does not tell apart are one row, by its name."""
    tracker = LatencyTracker(max_backends=1)
    history = History(tracker)
    history.sample(10**15)
    for i in range(3):
        tracker.record_latency("web", f"10.0.0.{i}:80", 0.1)
    history.sample(10**15 + SECOND)
    found = history.overview(60)
    assert sorted(zip(found.proxy, found.target, found.columns["count"], strict=True)) == [
        ("overflow", "overflow:0", 2),
        ("web", "10.0.0.0:80", 1),
    ]
    assert history.window(Selection("overflow", "overflow:0"), 60).histogram.count == 2
    assert history.window(Selection("overflow"), 60).histogram.count == 2


@pytest.mark.parametrize(
    "selection",
    [
        Selection("nobody"),
        Selection("web", "10.0.0.2:80"),
        Selection("api", "10.0.0.1:80"),
        Selection(""),
        Selection("overflow"),
    ],
)
def test_an_unknown_backend_is_an_error(selection: Selection) -> None:
    """It says which one."""
    tracker = LatencyTracker()
    tracker.record_latency("web", "10.0.0.1:80", 1.0)
    tracker.record_latency("api", "10.0.0.9:80", 1.0)
    history = History(tracker)
    history.sample()
    for ask in (history.window, history.heat):
        with pytest.raises(UnknownBackendError, match=f"there is no {selection}"):
            ask(selection, 60)


def test_wrong_questions_are_refused() -> None:
    """Windows that it does not have, latencies that nobody records, a clock that stands still."""
    tracker = LatencyTracker()
    history = History(tracker)
    for wrong in (0, -1, math.nan, math.inf):
        with pytest.raises(ValueError, match="more than 0 seconds"):
            history.overview(wrong)
    with pytest.raises(ValueError, match="'connect' is not one that is recorded: lifetime"):
        history.window(ALL, 60, "connect")
    with pytest.raises(ValueError, match="must be one of"):
        history.heat(ALL, 60, "speed")
    with pytest.raises(OSError, match="Invalid argument"):
        history.overview(FINE_S + 1)
    with pytest.raises(OSError, match="Invalid argument"):
        history.heat(ALL, LONGEST_S + 1)
    with pytest.raises(ValueError, match="bytes_max"):
        History(tracker, bytes_max=0)
    history.sample(10**15)
    with pytest.raises(OSError, match="Invalid argument"):
        history.sample(10**15)


def test_selected_keys_are_matched() -> None:
    """The model's own rule, so that it cannot agree with everything."""
    assert is_selected(("a", "b"), ALL)
    assert is_selected(("a", "b"), Selection("a"))
    assert not is_selected(("a", "b"), Selection("a", "c"))
    assert not is_selected(("a", "b"), Selection("b", "b"))
