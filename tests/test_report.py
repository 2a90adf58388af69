"""`lblatency report`: percentiles and plots, of an exporter and of files."""

from __future__ import annotations

import json
import random
import struct
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lblatency import LatencyTracker
from lblatency.cli import main
from lblatency.errors import LatencyError
from lblatency.history import History, LocalView, RemoteView, Selection
from lblatency.report.figures import percentile_points, points, text
from lblatency.report.readings import Reading, difference, load, observe
from tests.support.rig import SECOND
from tests.support.served_api import served

HOSTILE = "\x1b[31m$\\frac{$<script>alert(1)</script>\u202e&amp;"
HIDDEN = "_hidden"
TARGET = "10.0.0.1:80"


def record(tracker: LatencyTracker, seed: int, n: int = 50) -> None:
    """Observations of three proxies."""
    source = random.Random(seed)
    for i in range(1, 7):
        for metric in tracker.metrics:
            values = [source.lognormvariate(-4, 1) for _ in range(n)]
            name = ("web", HOSTILE, HIDDEN)[i % 3]
            tracker.record_many(name, f"10.0.0.{i}:80", values, metric=metric)


def traffic() -> LatencyTracker:
    """A tracker with some."""
    tracker = LatencyTracker(metrics=("lifetime", "connect"))
    record(tracker, 1)
    return tracker


@pytest.fixture(scope="module")
def api() -> Iterator[tuple[str, LatencyTracker]]:
    """An exporter's URL, and its tracker, of which all is in the last minute."""
    tracker = LatencyTracker(metrics=("lifetime", "connect"))
    history = History(tracker)
    for step in range(4):
        if step:
            record(tracker, step)
        history.sample(10**15 + step * 5 * SECOND)
    with served(LocalView(tracker, history)) as url:
        yield url, tracker


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A saved snapshot."""
    path = tmp_path / "before.json"
    path.write_text(traffic().to_json())
    return str(path)


def of(reading: Reading, selection: Selection) -> Any:
    """The histograms of a series."""
    (found,) = [each.histograms for each in reading.series if each.selection == selection]
    return found


# ---- where numbers come from ----


def test_a_file_has_the_tracker_s_numbers(file: str) -> None:
    """Backends as they are, and exact sums of proxies and of all."""
    tracker = traffic()
    reading = load(file)
    for metric in tracker.metrics:
        single = tracker.get_all_histograms(metric=metric)
        for (proxy, target), histogram in single.items():
            assert of(reading, Selection(proxy, target))[metric] == histogram
        web = single["web", "10.0.0.3:80"] + single["web", "10.0.0.6:80"]
        assert of(reading, Selection("web"))[metric] == web
        assert of(reading, Selection())[metric].count == 300
    assert [each.selection for each in reading.series][:4] == [
        Selection(), Selection(HOSTILE), Selection(HIDDEN), Selection("web"),
    ]  # fmt: skip


@pytest.mark.parametrize("window", [60, "start"])
def test_an_exporter_has_the_same(api: tuple[str, LatencyTracker], window: int | str) -> None:
    """What came over HTTP is exact."""
    url, tracker = api
    reading = observe(RemoteView(url), url, window)
    for metric in tracker.metrics:
        for (proxy, target), histogram in tracker.get_all_histograms(metric=metric).items():
            assert of(reading, Selection(proxy, target))[metric] == histogram
        assert of(reading, Selection())[metric].count == 900
        assert of(reading, Selection("web"))[metric].count == 300
    assert reading.facts[0].endswith(" s, 6 backends")


def test_chosen_backends_come_with_their_proxy(api: tuple[str, LatencyTracker], file: str) -> None:
    """And with nothing else but the sum of all."""
    chosen = [Selection("web", "10.0.0.3:80")]
    expected = [Selection(), Selection("web"), *chosen]
    assert [each.selection for each in load(file, chosen).series] == expected
    reading = observe(RemoteView(api[0]), "x", 60, chosen)
    assert [each.selection for each in reading.series] == expected


def test_a_saved_report_can_be_read(api: tuple[str, LatencyTracker], tmp_path: Path) -> None:
    """`-o FILE.json` loses nothing, so that later ones can be compared with it."""
    path = tmp_path / "saved.json"
    assert main(["report", "--url", api[0], "--window", "start", "-o", str(path)]) == 0
    saved, direct = load(str(path)), observe(RemoteView(api[0]), "x", "start")
    assert {each.selection: each.histograms for each in saved.series} == {
        each.selection: each.histograms for each in direct.series
    }


def test_a_difference_is_exact(file: str, tmp_path: Path) -> None:
    """It has what came between, and whoever is new."""
    tracker = traffic()
    record(tracker, 2)
    tracker.record_latency("new", TARGET, 1.0)
    after = tmp_path / "after.json"
    after.write_text(tracker.to_json())
    between = LatencyTracker(metrics=("lifetime", "connect"))
    record(between, 2)
    between.record_latency("new", TARGET, 1.0)
    found = difference(load(str(after)), load(file))
    for (proxy, target), histogram in between.get_all_histograms().items():
        assert of(found, Selection(proxy, target))["lifetime"] == histogram
    assert of(found, Selection())["lifetime"].count == 301
    with pytest.raises(LatencyError, match=r"is no later snapshot than after\.json"):
        difference(load(file), load(str(after)))


# ---- what is written ----


class Page(HTMLParser):
    """Notes elements, and whatever would load something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.refers: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.tags.append(tag)
        self.refers += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "xlink:href", "action") and not (value or "").startswith("#")
        ]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        """Note it."""
        self.words.append(data)


@pytest.mark.parametrize("files", [1, 2])
def test_the_page_needs_nothing_and_runs_nothing(file: str, tmp_path: Path, files: int) -> None:
    """No script, nothing to load; hostile names are text; the same report is the same file."""
    out = tmp_path / "report.html"
    for _ in range(2):
        before = out.read_bytes() if out.exists() else None
        assert main(["report", *[file] * files, "-o", str(out)]) == 0
        assert before in (None, out.read_bytes())
    page = Page(out.read_text())
    assert "script" not in page.tags
    assert page.refers == []
    assert page.tags.count("svg") == page.tags.count("table") == 2
    shown = "[31m$\\frac{$<script>alert(1)</script>\N{REPLACEMENT CHARACTER}&amp;"
    assert any(shown in each for each in page.words)
    ids = [part.split('"')[0] for part in out.read_text().split(' id="')[1:]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("files", [1, 2])
def test_pictures_are_what_their_names_say(file: str, tmp_path: Path, files: int) -> None:
    """An SVG that loads nothing, with all names of its curves, and a PNG."""
    svg, png = tmp_path / "plot.svg", tmp_path / "plot.png"
    assert main(["report", *[file] * files, "-o", str(svg), "-o", str(png)]) == 0
    root = ElementTree.fromstring(svg.read_text())  # noqa: S314  # we wrote it
    words = " ".join(root.itertext())
    for name in ("all", "$\\frac{$<script>", HIDDEN, "p99", "100 %"):
        assert name in words
    links = [
        value
        for each in root.iter()
        for name, value in each.attrib.items()
        if name.endswith("href") and not value.startswith("#")
    ]
    assert links == []
    data = png.read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    assert struct.unpack(">II", data[16:24]) == (1500, 690)


def test_text_has_a_table_per_metric(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Aligned, of printable characters only."""
    assert main(["report", file]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line.split() for line in lines if line.startswith(("LIFETIME", "CONNECT"))]
    assert [head[1:] for head in heads] == [
        ["count", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"]
    ] * 2
    assert all(line.isprintable() for line in lines)
    assert len({len(line) for line in lines[2:12]}) == 1
    (row,) = [line for line in lines if line.startswith("web/10.0.0.3:80")][:1]
    found = traffic().get_percentiles("web", "10.0.0.3:80")
    assert found
    assert f"{found['p99'] * 1000:.3g} ms" in row


def test_two_files_are_side_by_side(file: str) -> None:
    """A row of each below the other."""
    lines = list(text([load(file), load(file)]))
    rows = [line for line in lines if line.startswith("all: before.json")]
    assert len(rows) == 4
    assert rows[0] == rows[1]


def test_nothing_is_reported_of_nothing(tmp_path: Path) -> None:
    """A snapshot without backends gives files without curves."""
    path, svg = tmp_path / "empty.json", tmp_path / "empty.svg"
    path.write_text(LatencyTracker().to_json())
    assert main(["report", str(path), "-o", str(svg), "-o", str(tmp_path / "x.html")]) == 0
    assert "no observations" in svg.read_text()
    assert list(text([load(str(path))])) == ["empty.json"]


def test_points_are_steps_of_the_counts() -> None:
    """The share at each end of a slot; the longest is one of all."""
    tracker = LatencyTracker()
    tracker.record_many("web", TARGET, [0.001] * 90 + [0.1] * 9 + [2.0**25])
    histogram = tracker.get_histogram("web", TARGET)
    assert histogram
    assert points(histogram) == ([0.001, pytest.approx(0.1, rel=0.01), 2.0**24], [0.9, 0.99, 1.0])
    odds, seconds = percentile_points(histogram)
    assert odds == pytest.approx([1, 10, 100, 100])
    assert seconds[:2] == [0.001, 0.001]


def test_long_names_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name of a megabyte makes neither a line nor a picture of that length."""
    tracker = LatencyTracker()
    tracker.record_latency("x" * 2**20, TARGET, 1.0)
    path, page = tmp_path / "long.json", tmp_path / "long.html"
    path.write_text(tracker.to_json())
    assert main(["report", str(path)]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) < 400
    assert main(["report", str(path), "-o", str(page)]) == 0
    assert page.stat().st_size < 200_000


# ---- mistakes ----


def test_a_missing_library_is_named(
    file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to install; text needs none."""
    for name in ("lblatency.report.plots", "lblatency.report.page"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", file]) == 0
    assert main(["report", file, "-o", str(Path(file).parent / "x.svg")]) == 1
    told = "x.svg needs matplotlib, which is not installed: pip install 'lblatency[report]'"
    assert capsys.readouterr().err == f"lblatency: {told}\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "say what the report is about"),
        (["{file}", "--url", "http://127.0.0.1:9"], "--url goes without files"),
        (["--url", "http://127.0.0.1:9", "--difference"], "--url goes without files"),
        (["--url", "http://127.0.0.1:9"], "does not answer"),
        (["{file}", "--window", "60"], "--window does nothing without --url"),
        (["{file}", "{file}", "{file}"], "at most 2 files, not 3"),
        (["{file}", "--difference"], "--difference needs two files"),
        (["{file}", "-o", "x.pdf"], "'x.pdf' must end with one of .html, .svg, .png, .json"),
        (["{file}", "{file}", "-o", "{folder}/x.json"], "not of two"),
        (["{file}", "-o", "{folder}/no/x.json"], "No such file or directory"),
        (["{file}", "--backend", "web/10.9.9.9:80"], "it has no web/10.9.9.9:80"),
        (["{file}", "--backend", "web"], "is not of the form PROXY/IP:PORT"),
        (["{folder}/missing.json"], "missing.json: No such file or directory"),
        (["{folder}"], "Is a directory"),
    ],
)
def test_a_mistake_is_one_line(
    file: str, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what is wrong."""
    given = [each.format(file=file, folder=Path(file).parent) for each in argv]
    try:
        code = main(["report", *given])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    told = capsys.readouterr().err
    assert code in (1, 2)
    assert said in told
    assert told.count("\n") == 1


BACKEND = {"proxy_name": "web", "target_id": TARGET, "histograms": {}}
GOOD = {"version": 1, "buckets": [1.0], "slots": [], "sum_ns": 0}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "not of version 1"),
        ({"version": 2}, "not of version 1"),
        ({"version": 1}, "of another form"),
        ({"version": 1, "backends": [1]}, "of another form"),
        ({"version": 1, "backends": [{**BACKEND, "proxy_name": 3}]}, "is no text"),
        ({"version": 1, "backends": [{**BACKEND, "histograms": {"lifetime": {}}}]}, "version None"),
        ({"version": 1, "backends": [{**BACKEND, "histograms": {"x": GOOD}}]}, "metric 'x' must"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, data: Any, said: str) -> None:
    """In one line that names it."""
    path = tmp_path / "strange.json"
    path.write_text(json.dumps(data))
    with pytest.raises(LatencyError, match=said) as refused:
        load(str(path))
    assert "\n" not in str(refused.value)
    assert "strange.json is no snapshot" in str(refused.value)


@pytest.mark.parametrize("text_", ["", "{", "[" * 100_000, "\xff"])
def test_a_file_that_is_no_json_is_refused(tmp_path: Path, text_: str) -> None:
    """Likewise."""
    path = tmp_path / "strange.json"
    path.write_bytes(text_.encode("latin-1"))
    with pytest.raises(LatencyError, match="is no snapshot"):
        load(str(path))
