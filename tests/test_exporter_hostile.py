"""The exporter's clients at their worst: garbage, floods, silence, and those that never read."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from lblatency.exporter import _body, _watch, server
from tests.support.rig import wait_until
from tests.support.web import Running, exporter, is_closed, many_backends, read_all

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
BAD = {
    "a tls hello": bytes.fromhex("16030102000100") + b"1" * 300,
    "nonsense": b"\x00\xff\x00\r\n\r\n",
    "a space in a name": b"GET / HTTP/1.1\r\nHo st: a\r\n\r\n",
    "two lengths": b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a negative length": b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "length and chunks": b"GET / HTTP/1.1\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n",
    "a long line": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
    "a long header": b"GET / HTTP/1.1\r\nA: " + b"a" * 9000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000 + b"\r\n",
    "a megabyte of name": b"GET / HTTP/1.1\r\n" + b"a" * (1 << 20) + b": b\r\n\r\n",
    "a null": b"GET /\0 HTTP/1.1\r\n\r\n",
    "garbage behind a request": REQUEST + b"\xff\xfe garbage \r\n\r\n",
}  # fmt: skip


@contextmanager
def nothing_left(running: Running) -> Iterator[None]:
    """Fail if the block leaves descriptors or threads behind, or if a scrape fails after it."""
    running.get()

    def count() -> list[int]:
        own = [each for each in threading.enumerate() if not each.name.startswith("scrape")]
        return [len(os.listdir("/proc/self/fd")), len(own)]

    before = count()
    yield
    wait_until(lambda: running.get().status == 200, "a scrape, once the last have gone")
    wait_until(
        lambda: all(map(int.__le__, count(), before)),
        lambda: f"{before} descriptors and threads, not {count()}",
    )


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """400 and the end of the connection; nothing is told, least of all a traceback."""
    with exporter() as running, nothing_left(running):
        answer = running.send(BAD[name])
    assert b" 400 Bad Request\r\n" in answer
    assert running.told == []
    assert capfd.readouterr().err == ""


def random_request(rng: random.Random) -> bytes:
    """Something between a good request and noise."""
    parts = [b"GET", b"POST", b"HEAD", b"PUT", b" ", b"/metrics", b"/", b"/-/ready", b"HTTP/1.1",
             b"HTTP/1.0", b"HTTP/9.9", b"\r\n", b"\r\n\r\n", b"\n", b"Host: a", b"Accept: */*",
             b"Accept-Encoding: gzip", b"Content-Length: 5", b"Transfer-Encoding: chunked",
             b"Connection: close", b"Upgrade: websocket", b"Connection: Upgrade",
             b"Expect: 100-continue",
             b"Authorization: Basic \xff", b":", b"\0", b"0\r\n\r\n", b"fffffffff\r\n"]  # fmt: skip
    made = bytearray(REQUEST if rng.random() < 0.3 else b"")
    for _ in range(rng.randrange(12)):
        made += rng.choice(parts) if rng.random() < 0.9 else rng.randbytes(rng.randrange(40))
    if made and rng.random() < 0.5:
        made[rng.randrange(len(made))] = rng.randrange(256)
    return bytes(made)


def test_ten_thousand_random_requests(capfd: pytest.CaptureFixture[str]) -> None:
    """Each gets an answer of HTTP, or the end of its connection; then all is as before."""
    rng = random.Random(10)
    answered = 0
    with exporter() as running, nothing_left(running):
        for _ in range(10_000):
            with running.raw() as sock:
                sock.sendall(random_request(rng) + b"\r\n\r\n" + REQUEST)
                try:
                    answer = sock.recv(7)
                except ConnectionError:
                    continue
            assert answer in (b"", b"HTTP/1."), answer
            answered += answer != b""
    assert answered > 9000
    assert running.told == []
    assert capfd.readouterr().err == ""


def test_many_requests_at_once_on_one_connection() -> None:
    """A thousand in one packet, in vain or not: each is answered, in order."""
    with exporter() as running, nothing_left(running), running.raw() as sock:
        pings = b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n" * 1000
        sock.sendall(pings + b"GET /-/healthy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert read_all(sock).count(b"healthy\n") == 1001


def test_connections_beyond_the_limit_are_refused() -> None:
    """512 stay; 64 more are told 503; who comes when there is room again is served."""
    most = server._CONNECTIONS_MAX
    ping = b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n"

    def hold() -> socket.socket | None:
        """A connection that is served; None while a closed one still counts."""
        sock = running.raw()
        sock.sendall(ping)
        if sock.recv(1000).startswith(b"HTTP/1.1 200 OK"):
            return open_ones.enter_context(sock)
        sock.close()
        return None

    with exporter() as running, nothing_left(running), ExitStack() as open_ones:
        held = [wait_until(hold, "room") for _ in range(most)]
        for _ in range(64):
            refused = running.send(REQUEST)
            assert refused.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert refused.endswith(b"there are too many connections\n")
        held[0].sendall(ping)
        assert held[0].recv(1000).startswith(b"HTTP/1.1 200 OK")
        held[0].close()
        wait_until(lambda: running.get().status == 200, "room")


@pytest.mark.parametrize("sent", [b"", b"GET /metr", b"GET / HTTP/1.1\r\nHost:"])
def test_a_head_that_does_not_come_is_not_waited_for(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection ends at the deadline; one that has asked before may stay idle."""
    monkeypatch.setattr(server, "HEAD_S", 0.5)
    with exporter() as running, nothing_left(running), running.raw() as sock:
        kept = running.connect()
        kept.request("GET", "/-/healthy")
        assert kept.getresponse().read() == b"healthy\n"
        sock.sendall(sent)
        assert read_all(sock) == b""
        kept.request("GET", "/-/healthy")
        assert kept.getresponse().read() == b"healthy\n"
        kept.close()


def test_clients_that_never_read_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also such that close their side; a slow one that reads gets all of it, however long."""
    monkeypatch.setattr(_watch, "WRITE_S", 1.5)
    tracker = many_backends(5000)
    with exporter(tracker) as running, nothing_left(running), ExitStack() as open_ones:
        slow = open_ones.enter_context(running.raw(buffer=1 << 17))
        slow.sendall(LAST)
        started = next_at = time.monotonic()
        socks = [open_ones.enter_context(running.raw(buffer=4096)) for _ in range(20)]
        for i, sock in enumerate(socks):
            sock.sendall(REQUEST)
            if i % 2:
                sock.shutdown(socket.SHUT_WR)
        length = 0
        while part := slow.recv(1 << 17):
            length += len(part)
            next_at += 0.05
            time.sleep(max(0, next_at - time.monotonic()))  # it is slow
        assert length > 5_000_000
        assert time.monotonic() > started + 1.5
        wait_until(lambda: all(map(is_closed, socks)), "their ends")


def test_slow_clients_keep_few_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are given up when all together are too large, and the newest is served."""
    monkeypatch.setattr(_body, "_ALIVE_BYTES", 1)
    tracker = many_backends(5000)
    with exporter(tracker) as running, nothing_left(running), ExitStack() as open_ones:
        socks = []
        for _ in range(8):
            socks.append(open_ones.enter_context(running.raw(buffer=4096)))
            socks[-1].sendall(LAST)
            assert socks[-1].recv(1) == b"H"  # its body is there
        lengths = [len(read_all(each)) for each in socks]
        assert lengths[-1] > 5_000_000
        assert sum(length > 5_000_000 for length in lengths) == _body._ALIVE_MIN
        assert all(length > 5_000_000 for length in lengths[-_body._ALIVE_MIN :])


def test_a_scrape_in_flight_is_finished() -> None:
    """The server stops accepting at once, lets it end, and is gone within 5 s of that."""
    tracker = many_backends(5000)
    ended: list[bytes] = []
    idle = None
    with exporter(tracker) as running:
        idle = running.raw()
        sock = running.raw()
        sock.sendall(REQUEST)
        first = sock.recv(1)
        port = running.port

        def read_late() -> None:
            def refuses() -> bool:
                with socket.socket() as probe:
                    return probe.connect_ex(("127.0.0.1", port)) != 0

            wait_until(refuses, "no more connections")
            ended.append(read_all(sock))

        reader = threading.Thread(target=read_late)
        reader.start()
    reader.join()
    answer = first + ended[0]
    assert len(answer) > 5_000_000
    assert answer.endswith(b"\n\r\n0\r\n\r\n")  # the last chunk
    assert idle.recv(1) == b""
    idle.close()
    sock.close()


def test_clients_that_never_read_do_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are cut off."""
    monkeypatch.setattr(server, "_GRACE_S", 0.2)
    with ExitStack() as open_ones:
        with exporter(many_backends(5000)) as running:
            socks = [open_ones.enter_context(running.raw()) for _ in range(5)]
            for sock in socks:
                sock.sendall(REQUEST)
                assert sock.recv(1) == b"H"
        assert all(len(read_all(sock)) < 5_000_000 for sock in socks)


def test_who_comes_when_no_descriptor_is_left_waits() -> None:
    """And is served when there is one again."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with exporter() as running, nothing_left(running), ExitStack() as open_ones:
        socks = [open_ones.enter_context(socket.socket()) for _ in range(20)]
        highest = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 3, limits[1]))
        try:
            for sock in socks:
                sock.settimeout(20)
                sock.connect(("127.0.0.1", running.port))
                sock.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert socks[0].recv(1000).endswith(b"healthy\n")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert all(read_all(sock).endswith(b"healthy\n") for sock in socks[1:])
    assert running.told == []


def test_signals_are_left_alone() -> None:
    """The loop's thread takes none."""
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    with exporter():
        assert {each: signal.getsignal(each) for each in before} == before
        assert signal.set_wakeup_fd(-1) == -1
