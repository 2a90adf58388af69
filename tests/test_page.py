"""The status page in Debian's Chromium, against documents in the form of docs/api-v1.md."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from lblatency.exporter import api, pages
from lblatency.history import History, LocalView
from lblatency.top.terms import parse_terms
from tests.support.chromium import Chromium, Page, chromium
from tests.support.fake_api import HOSTILE, Backend, FakeExporter
from tests.support.rig import SECOND, Rig, closed, wait_until
from tests.support.served_api import serving

PAGE = Path(__file__).parent.parent / "lblatency/exporter/page"
AXE = "axe-core@4.14.1"
BUDGET = 60_000  # bytes of the whole page, compressed
READY = "document.querySelector('.body .line:not(.totals)') && document.querySelector('.uplot')"
NONE = "\u2013"
# Of the lines in view: what their cells say, from the left.
LINES = """
[...document.querySelectorAll('.body .line:not([hidden])')].map((line) =>
  [line.classList.contains('totals'), ...[...line.children].map((cell) =>
    [...cell.querySelectorAll('bdi')].map((name) => name.textContent).join(' ').trim()
      || cell.textContent)])
"""


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """Chromium, for all tests of the page."""
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, from the npm registry."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm, to get axe-core")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(["npm", "pack", AXE], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm cannot get {AXE}: {done.stderr.strip().splitlines()[0]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        found = archive.extractfile("package/axe.min.js")
        assert found is not None
        return found.read().decode()


@pytest.fixture
def fake() -> FakeExporter:
    """An exporter of 300 backends in five proxies."""
    return FakeExporter.of(300)


@contextmanager
def opened(browser: Chromium, url: str, **how: Any) -> Iterator[Page]:
    """The page, with its table and plots; at the end, it has not complained or asked elsewhere."""
    with browser.page(url, **how) as page:
        page.until(READY)
        yield page
        assert page.complaints() == []
        host = "/".join(url.split("/")[:3]) + "/"
        assert [each for each in page.requested() if not each.startswith((host, "data:"))] == []
        assert page.events("Page.javascriptDialogOpening") == []


def said(page: Page, selector: str) -> str:
    """What an element says."""
    return str(page.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))


def until_says(page: Page, selector: str, text: str) -> None:
    """Wait until an element says something."""
    words = f"document.querySelector({json.dumps(selector)}).innerText.replace(/\\s+/g, ' ')"
    page.until(f"{words}.includes({json.dumps(text)})")


def focus(page: Page, selector: str) -> None:
    """Move the keyboard's focus to an element."""
    page.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")


def names(page: Page) -> list[str]:
    """Of the lines of backends that are elements now, from above: what their first cells say."""
    return [line[1] for line in page.evaluate(LINES) if not line[0]]


def label(backend: Backend, *, grouped: bool = True) -> str:
    """What a backend's first cell says."""
    name, more = backend.server or backend.target, backend.target if backend.server else ""
    return " ".join(filter(None, (name, more, "" if grouped else backend.proxy)))


# The files


@pytest.fixture
def url(fake: FakeExporter) -> Iterator[str]:
    """The URL of a server with the page."""
    with fake.serving() as url:
        yield url


def paths() -> list[str]:
    """What a browser asks for."""
    files = [path.relative_to(PAGE.parent).as_posix() for path in PAGE.rglob("*") if path.is_file()]
    return ["", *sorted(path for path in files if not path.endswith(("LICENSE", "index.html")))]


@pytest.mark.parametrize("path", paths())
def test_files_are_served_with_what_browsers_need(url: str, path: str) -> None:
    """Each file has a type, a tag, and a policy; it comes packed, and only if it is new."""
    kinds = {"": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    plain = urlopen(url + path)
    body = plain.read()
    assert plain.headers.get_content_type() == kinds[path.rpartition(".")[2]]
    assert plain.headers["X-Content-Type-Options"] == "nosniff"
    assert plain.headers["Cache-Control"] == "no-cache"
    policy = plain.headers["Content-Security-Policy"].split("; ")
    assert policy[:2] == ["default-src 'none'", "script-src 'self'"]
    assert not [each for each in policy if "unsafe" in each or "*" in each or "http" in each]
    packed = urlopen(Request(url + path, headers={"Accept-Encoding": "br, gzip"}))
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.read()) == body
    refusing = urlopen(Request(url + path, headers={"Accept-Encoding": "gzip;q=0"}))
    assert (refusing.headers["Content-Encoding"], refusing.read()) == (None, body)
    head = urlopen(Request(url + path, method="HEAD"))
    assert (int(head.headers["Content-Length"]), head.read()) == (len(body), b"")
    etag = plain.headers["ETag"]
    for tags in (etag, f'"other", {etag.removeprefix("W/")}', "*"):
        with pytest.raises(HTTPError) as refusal:
            urlopen(Request(url + path, headers={"If-None-Match": tags}))
        assert (refusal.value.code, refusal.value.read()) == (304, b"")
        assert refusal.value.headers["ETag"] == etag
        refusal.value.close()
    for tags in ("garbage", '"', 'W/"', ",,", '"\u00ff"'):
        assert urlopen(Request(url + path, headers={"If-None-Match": tags})).read() == body


def test_the_page_is_small(url: str) -> None:
    """All that a browser loads fits into 60 KB."""
    sizes = {
        path: len(urlopen(Request(url + path, headers={"Accept-Encoding": "gzip"})).read())
        for path in paths()
    }
    assert sum(sizes.values()) < BUDGET, sizes


def test_vendored_code_has_its_licence() -> None:
    """Who vendors uPlot ships its licence."""
    assert "MIT License" in (PAGE / "uplot/LICENSE").read_text()
    assert "1.6.32" in (PAGE / "uplot/uPlot.iife.min.js").read_text()[:100]


def test_all_modules_are_asked_for_at_once() -> None:
    """The page names each of its modules, so that a browser need not find them one by one."""
    named = re.findall(r"page/(\w+\.js)", (PAGE / "index.html").read_text())
    assert sorted(named) == sorted(path.name for path in PAGE.glob("*.js"))


def test_no_text_becomes_markup() -> None:
    """Nothing in the page's own code makes elements of text, or code."""
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|Function\("
    )
    for path in PAGE.glob("*.js"):
        assert not re.search(forbidden, path.read_text()), path.name


# Coverage


def test_coverage_comes_first_and_turns_red(browser: Chromium, fake: FakeExporter) -> None:
    """The header says what share has a lifetime; a lost event makes it red, and says so aloud."""
    with fake.serving() as url, opened(browser, url) as page:
        until_says(page, "#coverage", "99.97 % of closed connections have a lifetime 0 lost")
        assert page.evaluate("document.getElementById('coverage').className") == "good"
        good = page.evaluate("getComputedStyle(document.getElementById('share')).color")
        fake.overrides |= {"coverage.lost": 3, "coverage.lost_by.dropped": 3}
        until_says(page, "#coverage", "3 lost")
        assert page.evaluate("document.getElementById('coverage').className") == "bad"
        assert page.evaluate("getComputedStyle(document.getElementById('share')).color") != good
        assert (
            page.evaluate("document.getElementById('said').textContent") == "Coverage bad: 3 lost"
        )
        assert page.evaluate("document.title").startswith("(!) 3 lost")
        page.click("#coverage summary")
        until_says(page, "#losses", "dropped")
        page.press("Escape")
        page.until("!document.getElementById('coverage').open")


@pytest.mark.parametrize(
    ("overrides", "health", "text"),
    [
        ({"coverage.share": 1.0}, "good", "100 % of closed"),
        ({"coverage.share": 0.99999}, "good", "99.99 % of closed"),  # never rounded to all
        ({"coverage.share": 0.5}, "bad", "50.00 %"),
        ({"coverage.share": None}, "unknown", "no connection has closed yet"),
        ({"coverage.counted": False}, "unknown", "losses are not counted"),
        ({"running": False}, "bad", "not recording"),
        ({"sources.0.trouble": "its ring is gone"}, "bad", "1 of 1 sources in trouble"),
    ],
)
def test_coverage_is_good_only_if_it_is(
    browser: Chromium, fake: FakeExporter, overrides: dict[str, Any], health: str, text: str
) -> None:
    """Whatever is not known, or not well, shows in the header."""
    fake.overrides = overrides
    with fake.serving() as url, opened(browser, url) as page:
        until_says(page, "#coverage", text)
        assert page.evaluate("document.getElementById('coverage').className") == health


# The table

COLUMNS: dict[str, Callable[[Backend], float]] = {
    "closed_per_s": lambda backend: backend.rate,
    "open": lambda backend: round(backend.rate * backend.median * 9),
    "p50": lambda backend: backend.quantile(0.5),
    "p95": lambda backend: backend.quantile(0.95),
    "p99": lambda backend: backend.quantile(0.99),
    "connect_p95": lambda backend: backend.quantile(0.95, "connect"),
    "resets": lambda backend: backend.resets,
    "failed_connects": lambda backend: backend.failed,
    "change": lambda backend: backend.change,
}


def test_each_column_sorts_both_ways(browser: Chromium, fake: FakeExporter) -> None:
    """A click on a column's head sorts by it, another one the other way round."""
    with fake.serving() as url, opened(browser, url + "?group=0&sort=backend") as page:
        for column, descending in product(COLUMNS, (True, False)):
            values = [COLUMNS[column](backend) for backend in fake.backends]
            ranks = sorted(
                range(300), key=[-each if descending else each for each in values].__getitem__
            )
            page.click(f"[data-column={column}] button")
            way = "descending" if descending else "ascending"
            page.until(f"document.querySelector('[data-column={column}]').ariaSort === '{way}'")
            shown = names(page)
            wanted = [label(fake.backends[i], grouped=False) for i in ranks][: len(shown)]
            assert shown == wanted, column


def test_missing_values_come_last_either_way(browser: Chromium, fake: FakeExporter) -> None:
    """A backend without a value is neither the quickest nor the slowest."""
    with fake.serving() as url:
        for sort in ("first_byte_p95", "-first_byte_p95"):
            with opened(browser, f"{url}?group=0&sort={sort}") as page:
                assert NONE not in [line[8] for line in page.evaluate(LINES)]
                focus(page, "#grid")
                page.press("End")
                page.until("document.getElementById('line-299')")
                assert page.evaluate(LINES)[-1][8] == NONE


def test_backends_are_grouped_with_totals(browser: Chromium, fake: FakeExporter) -> None:
    """Each proxy's line has sums, and percentiles of the proxy; it folds its backends away."""
    rates: dict[str, float] = {}
    for backend in fake.backends:
        rates[backend.proxy] = rates.get(backend.proxy, 0) + backend.rate
    busiest = max(rates, key=lambda proxy: rates[proxy])
    with fake.serving() as url, opened(browser, url) as page:
        page.until(f"({LINES})[0][6].endsWith('ms')")
        first = page.evaluate(LINES)[0]
        assert first[:3] == [True, f"{busiest} 60", f"{rates[busiest]:.0f}"]
        focus(page, "#grid")
        page.press("ArrowDown", "ArrowLeft")
        page.until(f"({LINES})[1][0]")
        assert page.evaluate("document.querySelector('.body .fold').ariaExpanded") == "false"
        page.press("ArrowRight")
        page.until(f"!({LINES})[1][0]")
        page.click(".body .fold")
        page.until(f"({LINES})[1][0]")


def test_the_table_follows_the_exporter(browser: Chromium, fake: FakeExporter) -> None:
    """New numbers show by themselves, and an unchanged answer is not sent again."""
    with fake.serving() as url, opened(browser, url + "?group=0") as page:
        before = page.evaluate(LINES)[0]
        fake.tick()
        page.until(f"({LINES})[0][2] !== {json.dumps(before[2])}")
        assert page.evaluate(LINES)[0][1] == before[1]
        until_says(page, "#about", "as of")
        statuses = [each["response"] for each in page.events("Network.responseReceived")]
        again = [each for each in statuses if "/backends" in each["url"]]
        wait_until(
            lambda: len(page.events("Network.responseReceived")) > len(statuses) + 4, "polls"
        )
        assert 304 in {
            each["response"]["status"] for each in page.events("Network.responseReceived")
        }, again


def test_windows_are_chosen(browser: Chromium, fake: FakeExporter) -> None:
    """Another window is asked for at once, also by the keyboard."""
    with fake.serving() as url, opened(browser, url) as page:
        page.click("#windows label:nth-of-type(2)")
        wait_until(lambda: "/api/v1/backends?window=300" in fake.asked, "a request")
        page.press("ArrowRight", "ArrowRight")
        wait_until(lambda: "/api/v1/backends?window=start" in fake.asked, "a request")
        page.until("location.search.includes('window=start')")


def test_ten_thousand_backends_are_a_few_elements(browser: Chromium) -> None:
    """Only lines in view are elements; a reader hears how many there are, and which this is."""
    fake = FakeExporter.of(10_000)
    with fake.serving() as url, opened(browser, url) as page:
        until_says(page, "#counts", "10,000 backends")
        assert page.evaluate("document.getElementById('grid').ariaRowCount") == "10006"
        assert page.evaluate("document.querySelectorAll('.body .line').length") < 60
        focus(page, "#grid")
        page.press("End")
        page.until("document.getElementById('line-10004')")
        active = "document.getElementById('grid').getAttribute('aria-activedescendant')"
        assert page.evaluate(active) == "line-10004"
        assert page.evaluate(f"document.getElementById({active}).ariaRowIndex") == "10006"
        page.press("PageDown", "ArrowUp")
        page.until(f"{active} === 'line-10003'")
        page.press("Home")
        page.until(f"{active} === 'line-0'")


# The filter

TERMS: dict[str, Callable[[Backend], bool]] = {
    "proxy:web": lambda backend: backend.proxy == "web",
    "-proxy:web": lambda backend: backend.proxy != "web",
    "PROXY:Web srv-a": lambda backend: backend.proxy == "web" and backend.server == "srv-a",
    'proxy:"web"': lambda backend: backend.proxy == "web",
    "server:srv-b": lambda backend: backend.server == "srv-b",
    "ip:10.0.1.0/24": lambda backend: backend.target.startswith("10.0.1."),
    "ip:10.0.1.7": lambda backend: backend.target.startswith("10.0.1.7:"),
    "ip:10.0.0.0/31": lambda backend: backend.target == "10.0.0.1:8080",
    "ip:fd00::/16": lambda backend: backend.target.startswith("["),
    "ip:[fd00::32]": lambda backend: backend.target == "[fd00::32]:443",
    "ip:::/0": lambda backend: backend.target.startswith("["),
    "ip:0.0.0.0/0": lambda backend: backend.target.startswith("10."),
    "port:443": lambda backend: backend.target.endswith(":443"),
    "fd00::": lambda backend: "fd00::" in backend.target,
    "reason:rst": lambda backend: backend.resets > 0,
    "reason:failed": lambda backend: backend.failed > 0,
    "p99>100ms": lambda backend: backend.quantile(0.99) > 0.1,
    "p99<=0.1": lambda backend: backend.quantile(0.99) <= 0.1,
    "rate>=100 resets<1": lambda backend: backend.rate >= 100 and backend.resets < 1,
    "change>10%": lambda backend: backend.change > 0.1,
    "count<=60 reason:reset": lambda backend: backend.rate <= 1 and backend.resets > 0,
    "nothing:like this": lambda _backend: False,
}


def test_terms_filter(browser: Chromium, fake: FakeExporter) -> None:
    """Each kind of term shows those backends that it says, here as in `lblatency top`.

    `/` begins one, and Escape ends it.
    """
    table = fake.table("60")
    columns = table["columns"] | {
        "proxy": [table["proxies"][proxy] for proxy in table["columns"]["proxy"]]
    }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    with fake.serving() as url, opened(browser, url + "?sort=backend") as page:
        focus(page, "#grid")
        for term, holds in TERMS.items():
            wanted = [backend for backend in fake.backends if holds(backend)]
            assert [row["target"] for row in filter(parse_terms(term), rows)] == [
                backend.target for backend in wanted
            ], f"top: {term}"
            page.press("/")
            page.type(term)
            assert said(page, "#counts") == f"{len(wanted)} of 300 backends", term
            assert page.evaluate("document.getElementById('mistake').hidden"), term
            lines = page.evaluate("Number(document.getElementById('grid').ariaRowCount) - 1")
            assert lines == len(wanted) + len({backend.proxy for backend in wanted}), term
            shown = names(page)
            assert shown == [label(backend) for backend in wanted][: len(shown)], term
            page.press("Escape")
            assert said(page, "#counts") == "300 backends"


def test_a_wrong_term_is_told_and_left_out(browser: Chromium, fake: FakeExporter) -> None:
    """A mistake is told beside the filter, and the other terms hold."""
    terms = "ip:10.0.0 ip:10.0.0.256 ip:10.0.0.0/33 ip:1::2::3 ip:10.0.0.0/8/8 reason:fun p99>fast"
    with fake.serving() as url, opened(browser, url) as page:
        focus(page, "#grid")
        for term in [*terms.split(), "p99>1.2.3ms", "colour>3"]:
            with pytest.raises(ValueError, match=re.escape(term)):
                parse_terms(term)
            page.press("/")
            page.type(f"proxy:web {term}")
            assert said(page, "#mistake").startswith(f"{term}: "), term
            assert said(page, "#counts") == "60 of 300 backends", term
            page.press("Escape")


# What is chosen


def test_a_chosen_backend_is_compared_with_its_proxy(browser: Chromium, fake: FakeExporter) -> None:
    """A click chooses, one with Ctrl adds, and Escape leaves; the URL has it."""
    with fake.serving() as url, opened(browser, url) as page:
        until_says(page, "#chosen-name", "All backends")
        until_says(page, "#legend", "All backends")
        first, second = names(page)[:2]
        page.click("#line-1")
        page.until("document.querySelectorAll('.entry').length === 2")
        assert first.split()[-1] in said(page, "#chosen-name")
        assert page.evaluate("document.getElementById('line-1').ariaSelected") == "true"
        page.click("#line-2", ctrl=True)
        page.until("document.querySelectorAll('.entry').length === 3")
        assert said(page, "#legend").splitlines()[0] == first.split()[0]
        assert second.split()[-1] in said(page, "#chosen-name")
        asked = [each for each in fake.asked if each.count("backend=") == 2]
        assert [each.split("?")[0] for each in asked] == ["/api/v1/distribution"]
        page.go(page.evaluate("location.href"))
        page.until("document.querySelectorAll('.entry').length === 3")
        page.click(".entry button")
        page.until("document.querySelectorAll('.entry').length === 2")
        page.press("Escape")
        until_says(page, "#legend", "All backends")
        assert page.evaluate("location.search") == ""


def test_the_keyboard_chooses(browser: Chromium, fake: FakeExporter) -> None:
    """Enter chooses the line, Space compares it; a proxy can be chosen, too."""
    with fake.serving() as url, opened(browser, url) as page:
        focus(page, "#grid")
        page.press("ArrowDown", "Enter")
        until_says(page, "#chosen-name", "all its backends")
        page.press("ArrowDown", " ", "ArrowDown", " ")
        page.until("document.querySelectorAll('.entry').length === 3")
        page.press("Enter")
        page.until("document.querySelectorAll('.entry').length === 2")


def test_a_backend_that_went_is_told(browser: Chromium, fake: FakeExporter) -> None:
    """What the exporter does not know any more is said, and its plots do not stay."""
    gone = fake.backends[0]
    with fake.serving() as url, browser.page(f"{url}?show={gone.proxy}/{gone.target}") as page:
        until_says(page, "#legend", gone.server or gone.target)
        fake.backends = fake.backends[1:]
        fake.tick()
        until_says(page, "#hint", f"{gone.proxy}/{gone.target} is not known")
        assert said(page, "#legend") == ""
        assert page.evaluate("document.querySelectorAll('.uplot').length") == 0
        assert page.evaluate("document.getElementById('away').hidden")
        page.click("#clear")
        until_says(page, "#legend", "All backends")


def test_the_heatmap_tells_its_cells(browser: Chromium, fake: FakeExporter) -> None:
    """A cell under the mouse tells its range, count and share; arrows go from cell to cell."""
    with fake.serving() as url, opened(browser, url + "?time=300") as page:
        document = json.load(urlopen(url + "api/v1/heatmap?window=300"))
        columns, upper = document["columns"], document["upper"]
        focus(page, "#heat-canvas")
        page.press("ArrowLeft")
        until_says(page, "#heat-tip", " of ")
        row = next(r for r, end in enumerate(upper) if end >= columns["p50"][-1] * 0.99)
        count, total = columns["counts"][-1][row], columns["total"][-1]
        told = said(page, "#heat-tip")
        tip = told.splitlines()
        assert tip[1].startswith(f"{count:,} of {total:,} (")
        shown = tip[0].split(" \u2013 ")[1].removesuffix(" ms")
        assert float(shown) == pytest.approx(upper[row] * 1e3, rel=5e-3)
        x, y = page.middle("#heat-canvas")
        page.move(x, y)
        page.until(f"document.querySelector('#heat-tip').innerText !== {json.dumps(told)}")
        page.move(x, 5)
        page.until("document.getElementById('heat-tip').hidden")


def test_a_quiet_backend_has_wider_columns(browser: Chromium) -> None:
    """Columns of few connections are merged, and every connection is in one of them."""
    fake = FakeExporter.of(3)
    for backend in fake.backends:
        backend.rate = 0.4
    with fake.serving() as url, opened(browser, url) as page:
        columns = json.load(urlopen(url + "api/v1/heatmap?window=900"))["columns"]
        summary = page.evaluate("document.getElementById('heat-canvas').ariaLabel")
        shown = re.search(r"of (\d+) columns: ([\d,]+) connections", summary)
        assert shown, summary
        assert 10 <= int(shown[1]) < 100
        assert int(shown[2].replace(",", "")) == sum(columns["total"])
        focus(page, "#heat-canvas")
        page.press("ArrowLeft")
        until_says(page, "#heat-tip", " of ")


def test_the_heatmap_has_colours(browser: Chromium, fake: FakeExporter) -> None:
    """The canvas has many shades where there were connections, and none where there were none."""
    count_colours = """(() => {
      const canvas = document.getElementById('heat-canvas');
      const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d');
      copy.drawImage(canvas, 0, 0);
      const { data } = copy.getImageData(60, 8, canvas.width - 70, canvas.height - 60);
      const found = new Set();
      for (let i = 0; i < data.length; i += 4) found.add(data.slice(i, i + 3).join());
      return found.size;
    })()"""
    with fake.serving() as url, opened(browser, url) as page:
        assert page.until(count_colours) > 12
        fake.backends = []
        fake.tick()
        page.until("document.getElementById('heat-canvas').ariaLabel.includes('no connection')")
        page.until(f"{count_colours} < 100")
        until_says(page, "#empty", "No backend has had a connection yet")


def test_the_distribution_tells_the_bucket(browser: Chromium, fake: FakeExporter) -> None:
    """The mouse finds the bucket of each series: its ends, its count, and the share up to it."""
    with fake.serving() as url, opened(browser, url) as page:
        series = json.load(urlopen(url + "api/v1/distribution?window=60"))["series"][0]
        x, y = page.middle("#cdf-plot")
        page.move(x, y)
        until_says(page, "#cdf-tip", "up to here")
        told = said(page, "#cdf-tip").splitlines()[-1]
        high = float(told.rpartition(" \u2013 ")[2].split()[0]) / 1e3
        at = min(range(len(series["upper"])), key=lambda i: abs(series["upper"][i] - high))
        assert series["upper"][at] == pytest.approx(high, rel=1e-4)
        assert f", {series['counts'][at]:,} in " in told
        share = sum(series["counts"][: at + 1]) / series["count"]
        assert float(told.split(" %")[0]) == pytest.approx(100 * share, abs=0.011)
        page.click("#tail")
        page.until("location.search === '?tail=1'")
        page.until("document.querySelectorAll('.uplot').length === 1")


def test_the_metric_is_chosen(browser: Chromium, fake: FakeExporter) -> None:
    """The plots show any latency that is recorded."""
    with fake.serving() as url, opened(browser, url) as page:
        page.until("document.getElementById('metric').options.length === 3")
        page.evaluate(
            "{ const metric = document.getElementById('metric'); metric.value = 'first_byte';"
            " metric.dispatchEvent(new Event('change', { bubbles: true })); }"
        )
        wait_until(
            lambda: "/api/v1/heatmap?window=900&metric=first_byte" in fake.asked, "a request"
        )
        page.until("location.search === '?metric=first_byte'")


# The page as a whole


def test_the_url_has_what_is_shown(browser: Chromium, fake: FakeExporter) -> None:
    """A URL that is sent to others shows them the same."""
    backend = fake.backends[7]
    query = (
        "?q=proxy%3Aapi+p99%3E1ms&sort=-change&group=0&window=300&time=300&metric=connect"
        f"&show={backend.proxy}%2F{backend.target.replace(':', '%3A')}&absolute=1&tail=1"
    )
    with fake.serving() as url, opened(browser, url + query) as page:
        assert page.evaluate("document.getElementById('filter').value") == "proxy:api p99>1ms"
        for name in ("absolute", "tail"):
            assert page.evaluate(f"document.getElementById('{name}').checked")
        assert not page.evaluate("document.getElementById('grouped').checked")
        until_says(page, "#chosen-name", backend.target)
        page.until("document.querySelector('[data-column=change]').ariaSort === 'descending'")
        focus(page, "#filter")
        page.type(" 10")
        page.until("location.search.includes('p99%3E1ms+10')")
        assert page.evaluate("location.search").replace("+10", "", 1) == query


@pytest.mark.parametrize(
    "query",
    [
        "?window=constructor&time=toString&metric=nothing&sort=no&show=nothing&q=%00",
        "?" + "show=a/b&" * 50,
    ],
)
def test_a_url_with_nonsense_shows_the_page(
    browser: Chromium, fake: FakeExporter, query: str
) -> None:
    """What a URL says wrong is left out."""
    with fake.serving() as url, browser.page(url + query) as page:
        page.until(
            "document.querySelectorAll('.body .line').length > 5"
            " || !document.getElementById('empty').hidden"
        )
        until_says(page, "#coverage", "0 lost")
        assert page.events("Runtime.exceptionThrown") == []


def test_light_and_dark(browser: Chromium, fake: FakeExporter) -> None:
    """The system's theme holds until a person says otherwise, and then stays."""
    background = "getComputedStyle(document.body).backgroundColor"
    with fake.serving() as url, opened(browser, url) as page:
        light = page.evaluate(background)
        page.prefer_dark(True)
        page.until(f"{background} !== '{light}'")
        dark = page.evaluate(background)
        page.click("#theme")  # light
        page.until(f"{background} === '{light}'")
        page.go(url + "?tail=1")
        page.until(READY)
        assert page.evaluate(background) == light
        page.click("#theme")  # dark
        page.prefer_dark(False)
        page.until(f"{background} === '{dark}'")


def test_a_hidden_page_rests(browser: Chromium, fake: FakeExporter) -> None:
    """Who looks at another tab costs the exporter nothing; who comes back sees the news at once."""
    hide = (
        "Object.defineProperty(document, 'hidden', { value: %s, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange'))"
    )
    with fake.serving() as url, opened(browser, url) as page:
        page.evaluate(hide % "true")
        with opened(browser, url + "?window=300") as other:
            before = sum("/backends?window=60" in each for each in fake.asked)
            polls = len(fake.asked)
            wait_until(lambda: sum("=300" in each for each in fake.asked[polls:]) >= 6, "polls", 60)
            assert sum("/backends?window=60" in each for each in fake.asked) <= before + 1
            assert other.evaluate("document.hidden") is False
        fake.overrides = {"coverage.lost": 5}
        page.evaluate(hide % "false")
        until_says(page, "#coverage", "5 lost")


def test_an_exporter_that_goes_is_told_and_found_again(
    browser: Chromium, fake: FakeExporter
) -> None:
    """Without an answer the page keeps what it has, says so, and goes on when there is one."""
    with fake.serving() as url:
        port = int(url.split(":")[2].strip("/"))
        context = browser.page(url)
        page = context.__enter__()
        page.until(READY)
    try:
        until_says(page, "#away", "No data from the exporter: no connection")
        assert len(names(page)) > 5
        assert page.evaluate("document.body.classList.contains('stale')")
        fake.overrides = {"coverage.lost": 9}
        with fake.serving(port):
            until_says(page, "#coverage", "9 lost")
            page.until("document.getElementById('away').hidden")
            assert page.events("Runtime.exceptionThrown") == []
    finally:
        context.__exit__(None, None, None)


@pytest.mark.parametrize("status", [500, 503])
def test_an_exporter_that_answers_nonsense_is_told(
    browser: Chromium, fake: FakeExporter, status: int
) -> None:
    """An answer that is none of the API's is told with its status."""
    with fake.serving() as url, browser.page(url) as page:
        page.until(READY)
        fake.refusal = status
        until_says(page, "#away", f"it answered {status}")
        fake.refusal = None
        page.until("document.getElementById('away').hidden")


@pytest.mark.parametrize("dark", [False, True])
def test_hostile_names_are_text(browser: Chromium, dark: bool) -> None:
    """Markup, quotes, newlines, directions, escapes and a megabyte are text that breaks nothing."""
    fake = FakeExporter.hostile()
    with fake.serving() as url, opened(browser, url, dark=dark) as page:
        seen: set[str] = set()
        focus(page, "#grid")
        for _ in range(40):
            page.press("ArrowDown")
            seen |= {line[1].rsplit(" ", 1)[0] for line in page.evaluate(LINES)}
        for name in HOSTILE:
            readable = "".join(chr(0x2400 + ord(c)) if c < " " else c for c in name)
            assert any(each.rstrip("…") in readable and len(each) > 5 for each in seen), name[:50]
            assert any(readable.startswith(each.rstrip("…")) for each in seen if len(each) > 5)
        heights = page.evaluate(
            "[...new Set([...document.querySelectorAll('.body .line:not([hidden])')]"
            ".map((line) => line.getBoundingClientRect().height))]"
        )
        assert heights == [28]
        # A name that is written from right to left leaves what is beside it where it was.
        turned = page.evaluate(
            "[...document.querySelectorAll('.body :not([hidden]) > .backend')].filter((cell) => {"
            " const [name, more] = [...cell.querySelectorAll('bdi')];"
            " return more.offsetLeft < name.offsetLeft"
            " || getComputedStyle(name).unicodeBidi !== 'isolate'; }).length"
        )
        assert turned == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("document.getElementById('grid').scrollWidth <= innerWidth")
        assert (
            page.evaluate("document.querySelectorAll('#grid img, #grid script, main a').length")
            == 0
        )
        assert page.evaluate("document.documentElement.outerHTML.length") < 200_000
        page.click("#coverage summary")
        until_says(page, "#losses", HOSTILE[0])
        page.press("Escape")
        page.press("Home")
        for _ in range(len(fake.backends) + len(HOSTILE) - 1):
            page.press("ArrowDown", "Enter")
        until_says(page, "#legend", "p99")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_can_be_chosen(browser: Chromium, name: str) -> None:
    """A proxy of any name is asked for by it; one that is too long for a request is told."""
    fake = FakeExporter.hostile()
    fake.backends = [backend for backend in fake.backends if backend.proxy == name]
    with fake.serving() as url, opened(browser, url) as page:
        page.click("#line-0")
        if len(name) < 1000:
            page.until("document.querySelectorAll('.entry button').length === 1")
            assert page.evaluate("new URLSearchParams(location.search).get('show')") == f"{name}/"
        else:
            until_says(page, "#hint", "too long to ask for")
            assert page.evaluate("location.search") == ""
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["wide", "narrow"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing(
    browser: Chromium, fake: FakeExporter, axe: str, dark: bool, size: tuple[int, int]
) -> None:
    """Colours have contrast, and all has names and roles, in each state of the page."""
    run = """axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) =>
      violations.map(({ id, nodes: [{ html, failureSummary }] }) => [id, html, failureSummary]))"""
    width, height = size
    with (
        fake.serving() as url,
        opened(browser, url, dark=dark, width=width, height=height) as page,
    ):
        page.evaluate(axe)
        assert page.evaluate(run) == []
        focus(page, "#grid")
        page.press("ArrowDown", "ArrowDown", "Enter", "ArrowDown", " ")
        page.until("document.querySelectorAll('.entry').length === 3")
        page.evaluate("document.getElementById('grid').scrollTop = 100")
        focus(page, "#filter")
        page.type("proxy:web ip:wrong")
        fake.overrides = {"coverage.lost": 3}
        until_says(page, "#coverage", "3 lost")
        assert page.evaluate(run) == []
        page.evaluate("document.getElementById('coverage').open = true")
        until_says(page, "#losses", "History")
        assert page.evaluate(run) == []


# Beside the real API, and the fake one beside its document


def test_the_fake_answers_as_the_document_says(url: str) -> None:
    """The documents of these tests have the fields of docs/api-v1.md, and of the same kinds."""
    document = (Path(__file__).parent.parent / "docs/api-v1.md").read_text()
    for path in ("status", "backends", "heatmap", "distribution"):
        shown = re.search(rf"## `GET /api/v1/{path}.*?```json\n(.*?)```", document, re.DOTALL)
        assert shown, path
        wanted = json.loads(shown[1])
        given = json.load(urlopen(f"{url}api/v1/{path}"))
        assert given.keys() == wanted.keys(), path
        for name in {"columns", "coverage", "history"} & given.keys():
            assert given[name].keys() == wanted[name].keys(), (path, name)
        for name in {"series", "sources", "names"} & given.keys():
            assert given[name][0].keys() == wanted[name][0].keys(), (path, name)


def test_the_page_shows_what_a_tracker_has(browser: Chromium) -> None:
    """With the real API: what was recorded is in the table and in both plots."""
    rig = Rig(1 << 16, proxies={1: "web"})
    history = History(rig.tracker)
    for step in range(13):
        for i in range(50 * step):
            rig.send(closed(10_000_000 + i, f"10.0.0.{i % 2 + 1}:80", proxy_id=1))
        history.sample(10**18 + step * 5 * SECOND)
    view = LocalView(rig.tracker, history)
    with serving([*pages.routes(), *api.routes(view)]) as url, opened(browser, f"{url}/") as page:
        page.until(f"({LINES})[0][6] === '10.0 ms'")
        assert [line[1:7] for line in page.evaluate(LINES)] == [
            ["web 2", "65.0", "0", "10.0 ms", "10.0 ms", "10.0 ms"],
            ["10.0.0.1:80", "32.5", "0", "10.0 ms", "10.0 ms", "10.0 ms"],
            ["10.0.0.2:80", "32.5", "0", "10.0 ms", "10.0 ms", "10.0 ms"],
        ]
        until_says(page, "#coverage", "100 % of closed connections have a lifetime 0 lost")
        page.click("#line-1")
        until_says(page, "#legend", "10.0.0.1:80 p50 10.0 ms, p99 10.0 ms")
        page.until("document.getElementById('heat-canvas').ariaLabel.includes('1,950 connections')")
        # The bound of 10 ms splits a bucket, so the part above begins there.
        focus(page, "#cdf-plot")
        page.press("ArrowRight")
        until_says(page, "#cdf-tip", "in 10 ms \u2013 10.0")
