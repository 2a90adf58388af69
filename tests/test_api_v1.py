"""`/api/v1`: what docs/api-v1.md promises, over HTTP."""

from __future__ import annotations

import copy
import http.client
import json
import random
import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import pytest

from lblatency import LatencyTracker
from lblatency.errors import LatencyError
from lblatency.history import History, LocalView, RemoteView, Selection, UnknownBackendError
from lblatency.names import Names
from lblatency.names.base import Reader, Row
from lblatency.top.screen import Seen, State, detail_lines, table_lines
from lblatency.top.table import column
from tests.support.rig import SECOND, Rig, closed
from tests.support.served_api import served

DOCUMENT = (Path(__file__).parent.parent / "docs" / "api-v1.md").read_text()
HOSTILE = '<script>alert(1)</script>/\x1b[31m\u202e\n"quoted"\' & 100%'
SOURCE = {
    "name": "sockets",
    "trouble": None,
    "attached": True,
    "lost": {"recursion": 3},
    "failed_connects": {"refused": 4},
    "status": {"path": Path("/run")},
}


class Fixed(Reader):
    """Names that stay."""

    option, metavar, help, interval_s, timeout_s = "fixed", "X", "for tests", 3600.0, 1.0

    def __init__(self, place: str) -> None:
        self.place = place

    def read(self, _deadline: float) -> Iterator[Row]:
        """One server."""
        yield Row.of("10.0.0.1", 80, "be_web", "s1")


class Api(NamedTuple):
    """What is served, and where."""

    url: str
    view: LocalView
    tracker: LatencyTracker

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, Any, Any]:
        """Status, headers and body."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, f"/api/v1/{path}", headers=sent)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        return response.status, response.headers, json.loads(body) if body else None

    def good(self, path: str) -> dict[str, Any]:
        """The body of an answer that must be good."""
        status, headers, body = self.ask(path)
        assert status == 200, body
        assert headers["Content-Type"] == "application/json"
        assert isinstance(body, dict)
        assert body["version"] == 1
        return body


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """Three proxies of hostile names; half an hour of samples."""
    proxies: dict[int | str, str] = {1: "a/b", 2: HOSTILE}
    rig = Rig(1 << 18, proxies=proxies, metrics=("lifetime", "connect", "first_byte"))
    history = History(rig.tracker)
    source = random.Random(1)
    for step in range(360):
        for i in range(1, 5):
            rig.send(
                closed(
                    round(source.lognormvariate(-4, 1) * 1e9),
                    f"10.0.0.{i}:80",
                    proxy_id=i % 3,
                    connect_us=100 + i,
                    reason=source.choice(["fin", "rst"]),
                )
            )
        history.sample(10**15 + step * 5 * SECOND)
    with Names([Fixed("here")]) as names:
        names.refresh()
        view = LocalView(rig.tracker, history, sources=lambda: [SOURCE], names=names)
        with served(view) as url:
            yield Api(url, view, rig.tracker)


def shape(value: Any) -> Any:
    """The names and kinds of what is in it. Numbers are alike, and null is as anything."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) else type(value).__name__


def example(path: str) -> dict[str, Any]:
    """The JSON that the document shows below a heading."""
    found = re.search(rf"## `GET /api/v1/{path}[^\n]*\n.*?```json\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found, path
    parsed: dict[str, Any] = json.loads(found[1])
    return parsed


def alike(one: Any, two: Any) -> bool:
    """Whether two shapes have the same names and, where both have values, kinds."""
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(alike(one[name], two[name]) for name in one)
    if isinstance(one, list) and isinstance(two, list):
        return not (one and two) or alike(one[0], two[0])
    return one == two or "NoneType" in (one, two)


BACKEND = quote("web/10.0.0.3:80", safe="")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("status", ""),
        ("backends", "?window=60"),
        ("heatmap", f"?backend={BACKEND}"),
        ("distribution", f"?backend={BACKEND}&window=300"),
    ],
)
def test_the_document_shows_what_is_served(api: Api, path: str, query: str) -> None:
    """Each example has the names and kinds of a real answer."""
    shown, real = example(path), api.good(path + query)
    if path == "status":  # these differ by source and machine
        for each in (shown, real):
            each["sources"][0]["status"] = each["coverage"]["lost_by"] = {}
            each["sources"][0]["failed_connects"] = {}
    assert alike(shape(shown), shape(real)), (shape(shown), shape(real))


@pytest.mark.parametrize("path", ["status", "backends", "heatmap", "distribution"])
def test_every_field_has_a_row_in_the_document(api: Api, path: str) -> None:
    """A reader finds each name between backquotes in the part about it."""
    start = DOCUMENT.index(f"## `GET /api/v1/{path}")
    part = DOCUMENT[start : (DOCUMENT.find("\n## ", start + 1) + 1) or None]
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", part))))
    nested = ("columns", "coverage", "history")
    body = api.good(path)
    names = {*body, *(name for key in nested for name in body.get(key, ()))} - {"version", *nested}
    assert names - words == set()


def test_the_table_has_every_backend_once(api: Api) -> None:
    """Columns are of one length, grouped by proxy in the order of names; names are as they are."""
    body = api.good("backends?window=300")
    columns = body["columns"]
    assert {len(column) for column in columns.values()} == {body["rows"]}
    assert body["proxies"] == sorted(["web", "a/b", HOSTILE])
    assert columns["proxy"] == sorted(columns["proxy"])
    rows = zip(columns["proxy"], columns["target"], columns["server"], strict=True)
    assert {(body["proxies"][proxy], target, server) for proxy, target, server in rows} == {
        ("a/b", "10.0.0.1:80", "be_web/s1"),
        (HOSTILE, "10.0.0.2:80", None),
        ("web", "10.0.0.3:80", None),
        ("a/b", "10.0.0.4:80", None),
    }
    assert columns["count"] == [60] * 4
    assert columns["closed_per_s"] == [0.2] * 4
    assert columns["first_byte_p95"] == [None] * 4
    assert body["seconds"] == 300


def test_coverage_counts_what_sources_lost(api: Api) -> None:
    """Reasons of sources are beside the tracker's own, and in the sum."""
    coverage = api.good("status")["coverage"]
    assert coverage["lost"] == 3
    assert coverage["lost_by"]["recursion"] == 3
    assert coverage["closed"] == coverage["recorded"] == 4 * 360
    assert coverage["share"] == 1


@pytest.mark.parametrize("window", [60, 300, 900, "start"])
def test_distributions_add_up(api: Api, window: int | str) -> None:
    """Backends of a proxy add up to it; each has as many as the table says."""
    chosen = ["a/b/10.0.0.1:80", "a/b/10.0.0.4:80"]
    query = "&".join(f"backend={quote(each, safe='')}" for each in chosen)
    series = api.good(f"distribution?{query}&window={window}")["series"]
    assert [each["target"] for each in series] == ["10.0.0.1:80", "10.0.0.4:80", None]
    assert series[0]["server"] == "be_web/s1"
    total: dict[float, int] = {}
    for each in series[:2]:
        assert sum(each["counts"]) == each["count"]
        assert each["upper"] == sorted(each["upper"])
        for upper, count in zip(each["upper"], each["counts"], strict=True):
            total[upper] = total.get(upper, 0) + count
    assert total == dict(zip(series[2]["upper"], series[2]["counts"], strict=True))
    table = api.good(f"backends?window={window}")["columns"]
    counts = dict(zip(table["target"], table["count"], strict=True))
    assert [each["count"] for each in series[:2]] == [counts[each["target"]] for each in series[:2]]
    for name in ("p50", "p95", "p99"):
        by_target = dict(zip(table["target"], table[name], strict=True))
        assert [each[name] for each in series[:2]] == [by_target[e["target"]] for e in series[:2]]


@pytest.mark.parametrize(("window", "columns"), [(60, 12), (900, 180), (14400, None)])
def test_a_heat_map_has_the_counts_of_its_time(api: Api, window: int, columns: int | None) -> None:
    """Of a proxy, in columns by time; rows end where the document says."""
    body = api.good(f"heatmap?proxy={quote(HOSTILE, safe='')}&window={window}")
    found = body["columns"]
    assert {len(column) for column in found["counts"]} == {len(body["upper"])}
    assert [sum(column) for column in found["counts"]] == found["total"]
    assert sum(found["total"]) == (window / 5 if columns else 359)
    assert columns in (None, len(found["total"]))
    for low, high in zip(body["upper"], body["upper"][1:], strict=False):
        assert high / low == pytest.approx(2**0.25)
    assert (body["proxy"], body["target"]) == (HOSTILE, None)


def test_what_has_not_changed_is_not_sent_again(api: Api) -> None:
    """A tag leads to 304 until something happens, in any of the forms that clients send."""
    for path in ("backends?window=60", "heatmap", "distribution"):
        status, headers, _ = api.ask(path)
        tag = headers["ETag"]
        assert (status, headers["Cache-Control"]) == (200, "no-cache")
        assert tag.startswith('W/"')
        for sent in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*"):
            assert api.ask(path, If_None_Match=sent)[::2] == (304, None)
        assert api.ask(path, If_None_Match='"other"')[0] == 200
        assert api.ask(path, "HEAD")[::2] == (200, None)


def test_a_sample_changes_the_answer() -> None:
    """After the next sample, the tag is another, and so is the answer."""
    tracker = LatencyTracker()
    history = History(tracker)
    for i in range(2):
        tracker.record_latency("web", "10.0.0.1:80", 1)
        history.sample(10**15 + i)
    with served(LocalView(tracker, history)) as url:
        api = Api(url, LocalView(tracker, history), tracker)
        tag = api.ask("backends")[1]["ETag"]
        tracker.record_latency("web", "10.0.0.1:80", 1)
        assert api.ask("backends", If_None_Match=tag)[0] == 304
        history.sample(10**15 + 5 * SECOND)
        status, _, body = api.ask("backends", If_None_Match=tag)
        assert (status, body["columns"]["count"]) == (200, [2])


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("backends?window=61", 400, "window '61' must be one of 60, 300, 900, start"),
        ("backends?window=60&window=60", 400, "window must be given once"),
        ("backends?metric=connect", 400, "'metric' is not known here; known: window"),
        ("status?x", 400, "'x' is not known here; known: nothing"),
        ("heatmap?window=start", 400, "window 'start' must be one of 60, 300, 900, 14400"),
        ("heatmap?proxy=web&proxy=web", 400, "of one backend, or of one proxy, or of all"),
        ("heatmap?metric=active", 400, "'active' is not one that is recorded: lifetime, connect"),
        ("heatmap?metric=speed", 400, "metric 'speed' must be one of"),
        ("heatmap?backend=10.0.0.1:80", 400, "is not of the form PROXY/IP:PORT"),
        ("heatmap?backend=web/10.0.0.1", 400, "has no port"),
        ("heatmap?backend=web/x:80", 400, "has no valid address"),
        ("heatmap?backend=web/10.0.0.77:80", 404, "there is no web/10.0.0.77:80"),
        ("heatmap?proxy=%1b%00", 404, "there is no \x1b\x00"),
        ("heatmap?proxy=", 404, "there is no "),
        ("distribution?proxy=%ff%fe", 404, "there is no"),
        ("distribution?" + "&".join(["proxy=web"] * 17), 400, "at most 16"),
        ("distribution?x=" + "x" * 7000, 400, "is not known here"),
    ],
)
def test_a_mistake_is_told(api: Api, path: str, code: int, said: str) -> None:
    """One line says what is wrong."""
    status, _, body = api.ask(path)
    assert (status, body["version"]) == (code, 1)
    assert said in body["error"]


@pytest.mark.parametrize("error", [LatencyError("no memory, reading it"), MemoryError("no memory")])
def test_what_cannot_be_read_now_is_told(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is nobody's mistake, and another time it may be read."""
    tracker = LatencyTracker()
    view = LocalView(tracker, History(tracker))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(view.history, "overview", fail)
    with served(view) as url:
        status, _, body = Api(url, view, tracker).ask("backends")
        assert (status, body) == (503, {"version": 1, "error": str(error)})
        with pytest.raises(LatencyError, match="no memory"):
            RemoteView(url).backends(60)


def test_a_client_in_python_gets_the_same(api: Api) -> None:
    """`RemoteView` gives what `LocalView` does, also from its memory, and says what is wrong."""
    remote = RemoteView(f"{api.url}/metrics")
    local = api.view
    selection = Selection(HOSTILE, "10.0.0.2:80")
    for _ in range(2):
        assert remote.backends(60) == json.loads(json.dumps(local.backends(60)))
        assert remote.heatmap(selection, 60) == local.heatmap(selection, 60)
        chosen = [selection, Selection("web")]
        assert remote.distribution(chosen, 60) == local.distribution(chosen, 60)
        assert remote.status()["sources"][0]["failed_connects"] == {"refused": 4}
    with pytest.raises(UnknownBackendError, match="there is no nobody"):
        remote.heatmap(Selection("nobody"), 60)
    with pytest.raises(LatencyError, match="must be one of"):
        remote.backends(61)


def test_many_may_ask_at_once(api: Api) -> None:
    """Answers that are made for several are right for each."""
    paths = [f"backends?window={window}" for window in (60, 300, 900, "start")] * 10
    paths += [f"heatmap?proxy=web&window={window}" for window in (60, 300, 900)] * 5
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(api.good, paths))
    for path, body in zip(paths, answers, strict=True):
        assert str(body["window"]) == path.rpartition("=")[2]


STRANGE: Mapping[bytes, str] = {
    b"<html>": "no JSON",
    b"[" * 100_000: "no JSON",
    b'{"version": 2}': "something that is not version 1",
    b"[1]": "something that is not version 1",
    b'{"version": 1}': "something else than numbers and names",
}


@pytest.fixture(scope="module")
def stranger() -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers whatever a test wants, to any question."""
    answers: list[bytes] = [b""]

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answers[0])

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", answers
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("answer", STRANGE, ids=lambda answer: answer[:20].decode())
def test_a_stranger_is_told_from_an_exporter(
    stranger: tuple[str, list[bytes]], answer: bytes
) -> None:
    """Whatever answers there, a line says what is strange about it."""
    url, answers = stranger
    answers[0] = answer
    with pytest.raises(LatencyError, match=STRANGE[answer]):
        RemoteView(url).status()


ARGUMENTS: Mapping[str, tuple[Any, ...]] = {
    "status": (),
    "backends": (60,),
    "distribution": ([], 60),
}
BAD: list[Any] = ["x", -1, True, [1], {}, 10**400, float("nan"), float("inf"), 1.5, None]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something is in an answer; of lists, in the first item."""
    if path:
        yield path
    for key, each in value.items() if isinstance(value, dict) else enumerate(value[:1]):
        if isinstance(each, dict | list):
            yield from places(each, (*path, key))
        else:
            yield (*path, key)


@pytest.mark.parametrize("path", ["status", "backends", "distribution"])
def test_an_answer_with_anything_in_it_is_used_or_refused(
    api: Api, stranger: tuple[str, list[bytes]], path: str
) -> None:
    """With any value anywhere, what `top` and `report` make of it is text, or a line of error."""
    url, answers = stranger
    good = {each: api.good(each) for each in ("status", "backends", "distribution")}
    refusals = []
    for place in places(good[path]):
        for bad in BAD:
            answer = copy.deepcopy(good)
            into = answer[path]
            for key in place[:-1]:
                into = into[key]
            into[place[-1]] = bad
            answers[0] = json.dumps(answer[path]).encode()
            try:
                answer[path] = getattr(RemoteView(url), path)(*ARGUMENTS[path])
            except LatencyError as error:
                refusals.append(str(error))
            else:
                draw(answer)
    assert len(refusals) > 10
    assert not any("\n" in each for each in refusals)


def draw(answer: Mapping[str, Any]) -> None:
    """What `top` shows of it."""
    seen = Seen(answer["status"], answer["backends"])
    for name in ("p50", "target"):
        lines = table_lines(State("x", sort=column(name)), seen, 200, 50)
        assert all(line.plain.isprintable() for line in lines)
    for line in detail_lines(answer["distribution"], "", 100, 40):
        assert line.plain.isprintable()


def test_random_questions_have_answers(api: Api) -> None:
    """Whatever is asked, it is answered, or told in a line."""
    source = random.Random(3)
    words = [
        "window",
        "metric",
        "proxy",
        "backend",
        "60",
        "start",
        "web",
        "/",
        "=",
        "&",
        "%00",
        "%ff",
    ]
    words += ["10.0.0.3:80", "lifetime", "connect", "[::1]:0", "%2F", "x" * 300, ";", "+", "%"]
    for _ in range(1000):
        path = source.choice(["status", "backends", "heatmap", "distribution"])
        query = "".join(source.choice(words) for _ in range(source.randrange(12)))
        code, _, body = api.ask(f"{path}?{query}")
        assert code in (200, 400, 404), (path, query)
        assert code == 200 or body["error"]


@pytest.mark.parametrize("url", ["ftp://host", "http://", "", "http://[::1"])
def test_a_bad_url_is_refused(url: str) -> None:
    """It says how one looks."""
    with pytest.raises(ValueError, match=r"URL|Invalid"):
        RemoteView(url)


def test_nobody_answers() -> None:
    """It says so."""
    with pytest.raises(LatencyError, match=r"does not answer: .*refused"):
        RemoteView("http://127.0.0.1:9").status()
