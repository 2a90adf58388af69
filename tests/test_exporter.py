"""The exporter's answers: what each path, method and header gets, and what scrapes share."""

from __future__ import annotations

import gzip
import os
import re
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from lblatency.exporter import _body, landing, served
from lblatency.exporter._scrapes import Scrapes
from lblatency.render import Capture, exposition
from tests.support.rig import TARGET, wait_until
from tests.support.web import ask, exporter, many_backends

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lblatency.render import Collects, Format

TEXT = "text/plain; version=0.0.4; charset=utf-8"


def samples(body: bytes) -> dict[str, float]:
    """The sum of the samples of each name."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def test_metrics_are_those_of_the_tracker_and_of_the_process() -> None:
    """The scrape begins with what `exposition()` says, and has the process and itself after it."""
    tracker = many_backends(3)
    expected, _ = exposition(tracker)
    with exporter(tracker) as running:
        answer = running.get()
        again = running.get()
    assert answer.status == 200
    assert answer.headers["content-type"] == TEXT
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body.startswith(expected)
    found = samples(again.body)
    assert found["process_open_fds"] > 0
    assert found["python_info"] == 1
    assert found["lblatency_scrape_duration_seconds_count"] == 1
    assert 0 < found["lblatency_scrape_duration_seconds_sum"] < 20
    assert running.told == []


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", TEXT),
        ("", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4",
         "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"),
        ("application/openmetrics-text;version=1.0.0;q=0.1,text/plain;version=0.0.4;q=0.4", TEXT),
        ("\xff;;;q=q,,,/", TEXT),
    ],
)  # fmt: skip
def test_the_format_is_the_one_that_was_asked_for(accept: str, content_type: str) -> None:
    """By `Accept`, whose weights count."""
    with exporter() as running:
        answer = running.get(Accept=accept)
    assert answer.headers["content-type"] == content_type
    assert answer.body.endswith(b"# EOF\n") == ("openmetrics" in content_type)


@pytest.mark.parametrize(
    ("accepted", "is_gzip"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("identity", False),
        ("", False),
        (";;,,q=,gzip;;=", True),
    ],
)
@pytest.mark.parametrize("has_isal", [True, False])
def test_bodies_are_compressed_if_that_is_accepted(
    accepted: str, is_gzip: bool, has_isal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By isal or by zlib; who does not say so, gets plain text."""
    assert _body._zlib.__name__ == "isal.isal_zlib"
    if not has_isal:
        monkeypatch.setattr(_body, "_zlib", zlib)
    with exporter() as running:
        answer = running.get(Accept_Encoding=accepted)
    assert answer.headers.get("content-encoding") == ("gzip" if is_gzip else None)
    text = gzip.decompress(answer.body) if is_gzip else answer.body
    assert samples(text)["lb_backend_latency_seconds_count"] == 1


def test_head_has_the_headers_alone_and_connections_live_on() -> None:
    """Both on one connection, with everything else that there is."""
    with exporter() as running:
        connection = running.connect()
        whole = ask(connection, "/metrics")
        sock = connection.sock
        for accepted in ("", "gzip"):
            connection.request("HEAD", "/metrics", headers={"Accept-Encoding": accepted})
            reply = connection.getresponse()
            assert reply.read() == b""
            assert reply.headers["Content-Type"] == whole.headers["content-type"]
            assert reply.headers["Content-Encoding"] == (accepted or None)
        assert ask(connection, "/-/healthy").body == b"healthy\n"
        assert ask(connection, "/nothing").status == 404
        assert ask(connection, "/").status == 200
        assert connection.sock is sock
        connection.close()


@pytest.mark.parametrize(
    "path", ["/nothing", "/metrics/", "/metrics/..", "//", "/-/", "/%00", "/%F0%9F%A6%80"]
)
def test_unknown_paths_are_told_where_metrics_are(path: str) -> None:
    """404 with one line, not a scrape."""
    with exporter() as running:
        answer = running.send(
            f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        )
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert body == b"Not Found: there is nothing here; metrics are at /metrics\n"


def test_other_methods_are_told_which_to_use() -> None:
    """405 with one line, also if a body comes along."""
    with exporter() as running:
        connection = running.connect()
        connection.request("POST", "/metrics", body=b"x" * 100_000)
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (405, b"Method Not Allowed: use GET, HEAD\n")
        assert reply.headers["Allow"] == "GET, HEAD"
        connection.close()


def test_the_page_links_to_what_there_is() -> None:
    """Each link works."""
    with exporter() as running:
        page = running.get("/")
        assert page.headers["content-type"].startswith("text/html")
        links = re.findall(r'href="([^"]+)"', page.body.decode())
        assert "metrics" in links
        assert {running.get(f"/{link}").status for link in links} == {200}


@pytest.mark.parametrize("size", [10, 1_000_000])
@pytest.mark.parametrize("accepted", ["gzip", ""])
def test_other_parts_answer_with_whole_bodies(
    size: int, accepted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application compresses large ones if it may; status and headers stay."""
    body = bytes(range(256)) * (size // 256 + 1)

    async def part(_request: web.Request) -> web.Response:
        return web.Response(body=body, status=203, headers={"ETag": '"x"'}, content_type="a/b")

    monkeypatch.setattr(landing, "routes", lambda: [web.get("/part", part)])
    with exporter() as running:
        answer = running.get("/part", Accept_Encoding=accepted)
    is_packed = bool(accepted) and size > 10_000
    assert answer.headers.get("content-encoding") == ("gzip" if is_packed else None)
    assert (gzip.decompress(answer.body) if is_packed else answer.body) == body
    assert (answer.status, answer.headers["etag"]) == (203, '"x"')
    assert answer.headers["content-type"] == "a/b"
    assert int(answer.headers["content-length"]) == len(answer.body)


def test_what_a_part_has_compressed_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not packed twice."""
    body = gzip.compress(os.urandom(100_000))

    async def part(_request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    monkeypatch.setattr(landing, "routes", lambda: [web.get("/part", part)])
    with exporter() as running:
        assert running.get("/part", Accept_Encoding="gzip").body == body


def test_readiness_says_what_is_missing() -> None:
    """503 with the reason while there is one; health does not care."""
    missing: list[str] = ["the ring is gone"]
    with exporter(why_not_ready=lambda: missing[0] if missing else None) as running:
        waiting = running.get("/-/ready")
        assert (waiting.status, waiting.body) == (503, b"the ring is gone\n")
        assert running.get("/-/healthy").status == 200
        missing.clear()
        assert running.get("/-/ready").status == 200


class Gate:
    """Holds captures until it is opened, and counts them."""

    def __init__(self) -> None:
        """Closed."""
        self.opened = threading.Event()
        self.begun = 0

    def capture(self, of: served.Served, more: Sequence[Collects]) -> Capture:
        """In place of `Served.capture()`."""
        self.begun += 1
        assert self.opened.wait(20)
        return Capture(of.tracker, more=more)


def test_scrapes_share_what_began_after_they_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come during a capture wait for one other, in which all is new."""
    gate = Gate()
    monkeypatch.setattr(served.Served, "capture", lambda of, more: gate.capture(of, more))
    asked: list[Any] = []
    body = Scrapes.body

    async def count(of: Scrapes, form: Format, *, is_gzip: bool) -> Any:
        asked.append(form)
        return await body(of, form, is_gzip=is_gzip)

    monkeypatch.setattr(Scrapes, "body", count)
    tracker = many_backends(1)
    with exporter(tracker) as running, ThreadPoolExecutor(33) as pool:
        first = pool.submit(running.get)
        wait_until(lambda: gate.begun, "the first capture")
        tracker.record_latency("web", TARGET, 1)
        later = [pool.submit(running.get) for _ in range(32)]
        for _ in range(4):  # and some that do not wait for the answer
            with running.raw() as sock:
                sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: len(asked) == 1 + 32 + 4, "all requests")
        gate.opened.set()
        bodies = [each.result().body for each in (first, *later)]
    counts = [samples(body)["lb_backend_latency_seconds_count"] for body in bodies]
    assert set(counts[1:]) == {2}
    assert gate.begun == 2


def test_backends_beyond_the_limit_of_series_are_folded() -> None:
    """Into `overflow`, so that the page has all connections nevertheless."""
    with exporter(many_backends(50), max_series=200) as running:
        page = running.get().body
    assert samples(page)["lb_backend_latency_seconds_count"] == 50
    assert page.count(b"lb_backend_latency_seconds_count{") < 10
    assert b'target_ip="overflow"' in page


def test_a_scrape_that_fails_is_500_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one may work again."""

    def fail(_of: Any, _more: Any) -> Capture:
        raise MemoryError("there is no memory for all metrics")

    with exporter() as running:
        with monkeypatch.context() as patched:
            patched.setattr(served.Served, "capture", fail)
            assert running.get().status == 500
        assert running.get().status == 200
    (line,) = running.told
    assert "there is no memory for all metrics" in line
    assert "\n" not in line
