"""Pushes by OTLP: what a receiver gets, when, and what its answers lead to."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from lblatency import LatencyTracker, render
from lblatency.exporter import Address, _push, serving
from lblatency.exporter._reply import Outcome, Reply, read_reply
from lblatency.exporter.otlp import Push, endpoint
from lblatency.exporter.served import Served
from lblatency.render import Capture
from tests.support.certificates import Authority
from tests.support.otlp import Answer, Got, Receiver, partial, receiver, saying
from tests.support.rig import TARGET, wait_until
from tests.support.web import Running, exporter, many_backends

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parent.parent
PUSHES = "lblatency_otlp_pushes_total"
GOOD_AT = "lblatency_otlp_last_success_timestamp_seconds"


def push_to(url: str, interval_s: float = 0.05, environ: Mapping[str, str] | None = None) -> Push:
    """As `serve` would make it, but quicker."""
    return Push.of(endpoint(url), interval_s, environ or {})


@contextmanager
def pushing(
    receiver: Receiver, interval_s: float = 0.05, tracker: LatencyTracker | None = None
) -> Iterator[Running]:
    """An exporter that pushes there."""
    with exporter(tracker, push=push_to(receiver.url, interval_s)) as running:
        yield running


def value(running: Running, name: str) -> float:
    """A sample of a scrape."""
    lines = running.get().body.decode().splitlines()
    (found,) = [line.rpartition(" ")[2] for line in lines if line.startswith(f"{name} ")]
    return float(found)


def outcomes(running: Running) -> dict[str, float]:
    """How many pushes came to what."""
    return {each.value: value(running, f'{PUSHES}{{outcome="{each.value}"}}') for each in Outcome}


# ---- what is sent ----


def test_a_receiver_gets_what_scrapes_get() -> None:
    """All families, compressed, with the headers and attributes that the environment says."""
    tracker = LatencyTracker(max_backends=10)
    tracker.record_many("web", TARGET, [0.25] * 3)
    environ = {
        "OTEL_EXPORTER_OTLP_HEADERS": "Api-Key=a%20b, x=general",
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "X=1,content-type=text/html",
        "OTEL_RESOURCE_ATTRIBUTES": "host.name=other,deployment.environment.name=a%2Cb",
        "OTEL_SERVICE_NAME": "edge",
    }
    assert set(push_to("http://a", environ=environ).headers) == {"api-key", "x", "content-type"}
    with receiver() as to, exporter(tracker, push=push_to(to.url, environ=environ)) as running:
        first, second = to.until(2)
        tracker.record_latency("web", TARGET, 4.0)
        wait_until(lambda: to.got[-1].lifetimes().count == 4, "what was recorded since")
        port = running.port
    assert first.path == "/v1/metrics"
    expected = {
        "content-type": "application/x-protobuf",
        "content-encoding": "gzip",
        "api-key": "a b",
        "x": "1",
    }
    assert {name: first.headers[name] for name in expected} == expected
    assert first.headers["user-agent"].startswith("lblatency/")
    assert first.resource() == {
        "service.name": "edge",
        "service.instance.id": f"{socket.gethostname()}:{port}",
        "host.name": "other",
        "deployment.environment.name": "a,b",
    }
    assert (first.lifetimes().count, first.lifetimes().sum) == (3, 0.75)
    assert first.metrics()["lb_backend_latency_seconds"].unit == "s"
    assert {"lblatency_running", "process_cpu_seconds", "lblatency_build_info"} <= set(
        first.metrics()
    )
    points = second.metrics()["lblatency_otlp_pushes"].sum.data_points
    assert {each.attributes[0].value.string_value: each.as_double for each in points} == {
        "accepted": 1,
        "partial": 0,
        "failed": 0,
    }
    assert running.told == []


def test_start_times_are_renewed_by_a_reset() -> None:
    """So that a receiver sees counts begin again, instead of a decrease."""
    tracker = LatencyTracker(max_backends=10)
    tracker.record_many("web", TARGET, [0.25] * 3)
    with receiver() as to, pushing(to, tracker=tracker):
        before = to.until(2)[1].lifetimes()
        reset_at = time.time_ns()
        tracker.reset_histograms()
        tracker.record_latency("web", TARGET, 0.25)
        wait_until(lambda: to.got[-1].lifetimes().count == 1, "a push after the reset")
        after = to.got[-1].lifetimes()
    assert before.count == 3
    assert before.start_time_unix_nano < reset_at <= after.start_time_unix_nano
    assert after.start_time_unix_nano <= after.time_unix_nano
    first, second = (each.lifetimes() for each in to.got[:2])
    assert first.start_time_unix_nano == second.start_time_unix_nano
    assert first.time_unix_nano < second.time_unix_nano


def test_the_last_push_has_what_came_just_before_the_end() -> None:
    """An orderly end pushes once more, however long the interval."""
    tracker = LatencyTracker(max_backends=10)
    tracker.record_latency("web", TARGET, 0.25)
    with receiver() as to:
        with pushing(to, 3600, tracker):
            to.until(1)
            tracker.record_latency("web", TARGET, 0.25)
        assert [each.lifetimes().count for each in to.got] == [1, 2]


def test_a_receiver_that_never_answers_holds_up_nothing() -> None:
    """Neither scrapes, nor the end for more than 2 s; and it is not asked twice at once."""

    async def never(_request: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        raise AssertionError("the test takes too long")

    with receiver() as to:
        to.finally_ = never
        with pushing(to) as running:
            to.until(1)
            for _ in range(20):
                assert running.get().status == 200
            assert len(to.got) == 1
            began = time.monotonic()
        took = time.monotonic() - began
    assert 2 <= took < 10
    assert len(to.got) == 2
    assert running.told == [f"the last push to {to.url}/v1/metrics has no answer within 2 s"]


def test_a_time_out_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """As what cannot be reached."""
    monkeypatch.setattr(_push, "_TIMEOUT_S", 0.2)

    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:  # it answers, and never comes to an end
            await asyncio.sleep(0.01)
            await response.write(b"\0" if len(to.got) == 1 else b"")

    with receiver() as to:
        to.answers = [slow]
        with pushing(to) as running:
            to.until(3)
            wait_until(lambda: len(running.told) == 2, "two lines")
            assert outcomes(running)["failed"] == 1
    assert running.told == [
        f"cannot push to {to.url}/v1/metrics: no answer within 0 s; it is tried again",
        f"pushing to {to.url}/v1/metrics works again",
    ]


def backends_of(got: list[Got]) -> set[str]:
    """The addresses that requests have lifetimes of."""
    found = (each.metrics().get("lb_backend_latency_seconds") for each in got)
    return {
        attribute.value.string_value
        for metric in found
        if metric
        for point in metric.exponential_histogram.data_points
        for attribute in point.attributes
        if attribute.key == "target_ip"
    }


def test_a_large_page_is_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one push, which counts once; a failure ends it, and the next one begins anew."""
    monkeypatch.setattr(render, "_MESSAGE", 2000)
    with receiver() as to:
        to.answers = [saying(200), saying(500), *[saying(200)] * 3, saying(200, partial(1, "x"))]
        with pushing(to, 0.05, many_backends(1000)) as running:
            wait_until(lambda: outcomes(running)["accepted"] >= 1, "a good push")
            found = outcomes(running)
            rest = to.got[2:]
    assert (found["failed"], found["partial"]) == (1, 1)
    assert len(backends_of(to.got[:2])) < 1000
    first = [each for each in rest if each.captured_at() == rest[0].captured_at()]
    assert len(first) > 4
    assert len(backends_of(first)) == 1000
    assert len(running.told) == 3


# ---- what answers lead to ----


async def cut_off(request: web.Request) -> web.Response:
    """End the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


FAILURES: dict[str, tuple[Answer, str]] = {
    "429": (saying(429, b"", Retry_After="0"), "429 Too Many Requests"),
    "500 as text": (
        saying(500, b"no\n  room\x1b[31m"),
        "500 Internal Server Error: no room\ufffd[31m",
    ),
    "400 as google.rpc.Status": (
        saying(400, b"\x08\x03\x12\x03bad", Content_Type="application/x-protobuf"),
        "400 Bad Request: bad",
    ),
    "502": (saying(502), "502 Bad Gateway"),
    "503": (saying(503, b"x" * 100_000), f"503 Service Unavailable: {'x' * 174}…"),
    "504": (saying(504), "504 Gateway Timeout"),
    "a redirect": (
        saying(307, Location="http://127.0.0.1:1/"),
        "307 Temporary Redirect: it redirects to 'http://127.0.0.1:1/', which is not followed",
    ),
    "a page": (
        saying(200, b"<html>\n</html>"),
        "the answer is not one of OTLP, but '<html>\\n</html>'; is that a receiver's URL?",
    ),
    "garbage": (saying(200, b"\x0a\xff\xff\xff\xff\x0f"), "the answer is not one of OTLP, but "),
    "no answer": (cut_off, "Server disconnected"),
}  # fmt: skip


@pytest.mark.parametrize("answer", FAILURES)
def test_a_failure_is_told_once_and_so_is_its_end(answer: str) -> None:
    """Each of several is counted, and scrapes go on."""
    to_answer, why = FAILURES[answer]
    with receiver() as to:
        to.answers = [saying(200), to_answer, to_answer, to_answer]
        with pushing(to) as running:
            to.until(5)
            wait_until(lambda: outcomes(running)["accepted"] >= 2, "a good push")
            assert outcomes(running) == {
                "accepted": pytest.approx(2, abs=200),
                "partial": 0,
                "failed": 3,
            }
            assert abs(value(running, GOOD_AT) - time.time()) < 60
        failing, works = running.told
    assert failing.startswith(f"cannot push to {to.url}/v1/metrics: {why}")
    assert failing.endswith("; it is tried again")
    assert failing.isprintable()
    assert works == f"pushing to {to.url}/v1/metrics works again"


def test_partial_success_is_told_once() -> None:
    """It is no failure, so nothing is retried."""
    answer = saying(200, partial(3, "too\nmany series"))
    with receiver() as to:
        to.answers = [answer, answer, answer]
        with pushing(to) as running:
            to.until(4)
            wait_until(lambda: outcomes(running)["accepted"] >= 1, "a good push")
            assert outcomes(running)["partial"] == 3
    assert running.told == [
        f"{to.url}/v1/metrics takes pushes in part: 3 points were rejected: too many series",
        f"pushing to {to.url}/v1/metrics works again",
    ]


def test_what_cannot_be_reached_is_told_once() -> None:
    """And tried again until it is there."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    tracker = LatencyTracker(max_backends=10)
    tracker.record_latency("web", TARGET, 0.25)
    with exporter(tracker, push=push_to(f"http://127.0.0.1:{port}")) as running:
        wait_until(lambda: outcomes(running)["failed"] >= 3, "failures")
        assert value(running, GOOD_AT) == 0
    (line,) = running.told
    assert line.startswith(f"cannot push to http://127.0.0.1:{port}/v1/metrics: Cannot connect")


def test_a_broken_collector_fails_a_push_and_not_the_next() -> None:
    """As it fails a scrape."""
    broken = [True, True]

    class Collector:
        def collect(self) -> list[Any]:
            if broken:
                broken.pop()
                raise RuntimeError("not now")
            return []

    with receiver() as to, exporter(more=[Collector()], push=push_to(to.url)) as running:
        to.until(1)
    failing, works = running.told
    assert "RuntimeError('not now')" in failing
    assert works.endswith("works again")


@pytest.mark.parametrize("status", [429, 503])
def test_retries_leave_the_receiver_the_time_it_wants(status: int) -> None:
    """At least what Retry-After says, and then the newest counts."""
    tracker = LatencyTracker(max_backends=10)
    tracker.record_latency("web", TARGET, 0.25)
    with receiver() as to:
        to.answers = [saying(status, Retry_After="1")]
        with pushing(to, 0.05, tracker):
            to.until(1)
            tracker.record_latency("web", TARGET, 0.25)
            first, second = to.until(2)
    assert second.at - first.at >= 1
    assert (first.lifetimes().count, second.lifetimes().count) == (1, 2)


def test_each_retry_waits_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before the next push would be due, and with at least half of the doubled pause."""
    monkeypatch.setattr(_push, "_BACKOFF_S", 0.1)
    with receiver() as to:
        to.answers = [saying(status) for status in (502, 503, 504, 429)]
        with pushing(to, 3600):
            times = [each.at for each in to.until(5)]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert all(gap >= least for gap, least in zip(gaps, (0.05, 0.1, 0.2, 0.4), strict=True))


def test_pauses_grow_up_to_the_interval_and_differ() -> None:
    """Doubled from a second on, of which at least half is kept; never longer than a bound."""
    push = push_to("http://127.0.0.1:1", 60)
    pusher = _push.Pusher(push, lambda: Capture(LatencyTracker()), "1", print)
    failed = Reply(Outcome.FAILED, "x", is_retried=True)
    for n_retries, longest in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (10_000, 60)]:
        pauses = {pusher._pause_s(failed, n_retries) for _ in range(50)}
        assert len(pauses) > 40
        assert longest / 2 <= min(pauses) < max(pauses) <= longest
    assert pusher._pause_s(Reply(Outcome.FAILED, "x"), 0) == 0
    greedy = Reply(Outcome.FAILED, "x", is_retried=True, after_s=1e9)
    assert 600 < pusher._pause_s(greedy, 1) <= 601
    pusher.close()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("0", 0), ("-1", 0), ("x", 0), ("٣", 0), ("1e5", 0), ("", 0),
     (formatdate(time.time() - 100, usegmt=True), 0), ("Mon, 99 Jan 9999999 00:00:00 GMT", 0)],
)  # fmt: skip
def test_retry_after_is_read(text: str, seconds: float) -> None:
    """Seconds or a date; nothing, if it is neither."""
    assert read_reply(503, "x", {"Retry-After": text}, b"").after_s == seconds
    soon = formatdate(time.time() + 100, usegmt=True)
    assert 90 < read_reply(429, "x", {"Retry-After": soon}, b"").after_s <= 100
    assert read_reply(500, "x", {"Retry-After": "7"}, b"").after_s == 0


@pytest.mark.parametrize("status", range(200, 600))
def test_only_four_statuses_are_retried(status: int) -> None:
    """Those that OTLP names."""
    reply = read_reply(status, "x", {}, b"")
    assert reply.is_retried == (status in (429, 502, 503, 504))
    assert (reply.outcome is Outcome.ACCEPTED) == (status < 300)
    assert bool(reply.why) == (status >= 300)


def test_random_answers_are_read_without_an_error() -> None:
    """What comes from outside may be anything, or a good answer that is broken somewhere."""
    generator = random.Random(1)
    good = partial(3, "why not")
    assert read_reply(200, "OK", {}, partial(0, "slow")) == Reply(Outcome.ACCEPTED, "slow")
    assert read_reply(200, "OK", {}, partial(0, "")) == Reply(Outcome.ACCEPTED)
    for _ in range(20_000):
        body = bytearray(good if generator.random() < 0.5 else generator.randbytes(12))
        body[generator.randrange(len(body))] = generator.randrange(256)
        for status in (200, 400):
            headers = {"Content-Type": "application/x-protobuf"}
            reply = read_reply(status, "x", headers, bytes(body[: generator.randrange(20)]))
            assert reply.why.isprintable()
            assert len(reply.why) <= 200


# ---- TLS ----


def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver whose authority is unknown gets nothing; SSL_CERT_FILE makes it known."""
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with receiver(context) as to:
        with pushing(to) as running:
            wait_until(lambda: outcomes(running)["failed"] >= 2, "failures")
        assert to.got == []
        (line,) = running.told
        assert "certificate verify failed" in line
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.folder / "ca.pem"))
        with pushing(to) as running:
            to.until(1)
        assert running.told == []


# ---- what is told ----


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://a", "http://a/v1/metrics"),
        ("https://a:1/", "https://a:1/v1/metrics"),
        ("http://[::1]:1?x=y", "http://[::1]:1/v1/metrics?x=y"),
        ("http://a/opentelemetry/v1/metrics?x=%41", "http://a/opentelemetry/v1/metrics?x=%41"),
        ("http://a/x/", "http://a/x/"),
        ("", ""),
    ],
)
def test_a_url_without_a_path_gets_the_usual_one(text: str, url: str) -> None:
    """Any other is taken as it is."""
    assert endpoint(text) == url


@pytest.mark.parametrize(
    "text",
    ["a", "a:1", "//a", "ftp://a", "http:/a", "http://", "http://:1", "http://a:0", "http://a:x",
     "http://a:70000", "http://a b", "http://a/\n", "http://a/#x", "http://u:p@a", "http://u@a",
     "http://[::1", "http://é/"],
)  # fmt: skip
def test_what_is_no_url_is_refused(text: str) -> None:
    """In one line."""
    with pytest.raises(ValueError, match=r"http|port|Port|URL") as raised:
        endpoint(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://localhost:4318/v1/metrics"),
        ({"ENDPOINT": "http://a:1"}, "http://a:1/v1/metrics"),
        ({"ENDPOINT": "http://a:1/base/"}, "http://a:1/base/v1/metrics"),
        ({"ENDPOINT": "http://a", "METRICS_ENDPOINT": "http://b"}, "http://b/"),
        ({"METRICS_ENDPOINT": "http://b/x?y=z"}, "http://b/x?y=z"),
    ],
)
def test_the_environment_says_where(environ: dict[str, str], url: str) -> None:
    """If the flag does not, by OpenTelemetry's rules."""
    named = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in environ.items()}
    assert Push.of("", 60, named).url == url
    assert Push.of("http://c/x", 60, named).url == "http://c/x"


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "a"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "secret"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "=secret"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "a=secret%0d%0ab:c"},
        {"OTEL_EXPORTER_OTLP_HEADERS": "a%20b=secret"},
        {"OTEL_RESOURCE_ATTRIBUTES": "secret"},
        {"OTEL_RESOURCE_ATTRIBUTES": ",".join(f"k{i}=v" for i in range(62))},
    ],
)
def test_a_broken_environment_is_told(environ: dict[str, str]) -> None:
    """By the variable's name, without what may be secret."""
    with pytest.raises(ValueError, match=r"OTEL_|'a' is not") as raised:
        Push.of("", 60, environ)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("bare", [False, True])
def test_serve_pushes(bare: bool) -> None:
    """By the flag, with or without a URL; and it ends in order, with a last push."""
    with receiver() as to:
        url = [] if bare else [f"{to.url}/x?token=secret"]
        command = [sys.executable, "-m", "tests.support.fake_source", "serve", "--fake", "a"]
        command += ["--proxy", "web", "--listen", "127.0.0.1:0", "--otlp-interval", "3600"]
        command += ["--otlp", *url]
        environ = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": to.url}
        with subprocess.Popen(
            command, text=True, stderr=subprocess.PIPE, cwd=ROOT, env=environ
        ) as process:
            try:
                to.until(1)
                process.terminate()
                _, said = process.communicate(timeout=30)
            finally:
                process.kill()
    assert process.returncode == 0
    assert [each.path for each in to.got] == ["/v1/metrics" if bare else "/x?token=secret"] * 2
    assert f"pushing to {to.url}/{'v1/metrics' if bare else 'x'} every 3600 s" in said
    assert "secret" not in said


def test_a_unix_socket_is_an_instance_too(tmp_path: Path) -> None:
    """Its path is what tells it apart."""
    path = str(tmp_path / "s")
    with receiver() as to:
        push = push_to(to.url)
        with serving(Served(LatencyTracker()), [Address(path=path)], print, push=push):
            (got,) = to.until(1)
    assert got.resource()["service.instance.id"] == f"{socket.gethostname()}:{path}"
