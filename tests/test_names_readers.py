"""HAProxy's stats socket and Envoy's admin port: what they say, and peers that are hostile."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lblatency.errors import LatencyError
from lblatency.names import Envoy, HAProxy, Name, Reader, Row, envoy, haproxy
from tests.support.names import ESCAPES, soon

HEADER = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_fqdn srv_port\n"


@contextmanager
def peer(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """A TCP server that answers each connection so; yields its `ip:port`."""
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with suppress(OSError):
                connected, _ = listener.accept()
                with connected:
                    connected.settimeout(10)
                    answer(connected)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def says(text: str | bytes) -> Callable[[socket.socket], object]:
    """Read a question, and answer it with this text."""
    data = text.encode() if isinstance(text, str) else text

    def answer(connected: socket.socket) -> None:
        connected.recv(4096)
        connected.sendall(data)
        connected.shutdown(socket.SHUT_WR)
        connected.recv(1)

    return answer


def never_ends(connected: socket.socket) -> None:
    """Send lines until nobody takes them."""
    while True:
        connected.sendall(b"x" * 65536)


def drips(connected: socket.socket) -> None:
    """Send a byte now and then, so that a timeout of each read never comes."""
    while True:
        connected.sendall(b"1")
        time.sleep(0.01)


def is_silent(connected: socket.socket) -> None:
    """Say nothing until the other end goes."""
    while connected.recv(4096):
        pass


# ---- HAProxy ----


def said(answer: str | bytes) -> list[Row]:
    """What the reader makes of an answer."""
    with peer(says(answer)) as place:
        return list(HAProxy(place).read(soon()))


def test_the_state_of_haproxys_servers() -> None:
    """Columns are found by their names; servers without an address, and odd lines, are skipped."""
    rows = said(
        HEADER
        + "2 a 1 s1 127.0.0.11 2 - 9001\n"
        + "2 a 2 s2 ::ffff:10.88.2.11 2 - 8000\n"
        + "2 a 3 s3 2001:DB8::1 2 app.example 443\n"
        + "2 a 4 any 127.0.0.13 2 - 0\n"
        + "2 a 5 slot - 2 nosuch.example 80\n"
        + "2 a 6 unix /run/app.sock 2 - 0\n"
        + "2 a 7 port 127.0.0.1 2 - 70000\n"
        + "2 a 8 text 127.0.0.1 2 - http\n"
        + "2 short\n\n"
    )
    assert rows == [
        Row("127.0.0.11", 9001, Name("a", "s1")),
        Row("10.88.2.11", 8000, Name("a", "s2")),
        Row("2001:db8::1", 443, Name("a", "s3")),
        Row("127.0.0.13", 0, Name("a", "any")),
    ]
    other = "1\n# srv_port srv_addr be_name new srv_name\n80 10.0.0.1 web x blue\n\n"
    assert said(other) == [Row("10.0.0.1", 80, Name("web", "blue"))]


def test_names_from_outside_are_text() -> None:
    """Escapes, controls, broken UTF-8 and marks of direction are replaced; a long name is cut."""
    (row,) = said(HEADER.encode() + b"2 \x1b[2Jbad\xff 1 s\xc2\x9b 10.0.0.1 2 - 80\n\n")
    assert row.name == Name("\ufffd[2Jbad\ufffd", "s\ufffd")
    row = Row.of("10.0.0.1", 80, ESCAPES, "x" * 100_000)
    assert row.name.backend == "\ufffd[2Ja\ufffd\ufffd\ufffd31m\ufffdb\ufffd"
    assert len(row.name.server) == 200


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("Permission denied\n", "answers 'Permission denied' and not the state"),
        ("Unknown command: 'show servers state'\n", "give it `level operator`"),
        ("", "answers 'nothing'"),
        ("\n", "answers ''"),
        (b"\x00\xff\x1b[2J" * 1000, "and not the state"),
        ("1\n# be_id be_name\n2 a\n", "answers '1' and not"),
        (f"{HEADER}2 a 1 s1 127.0.0.11 2 - 9001\n", "its answer breaks off"),
        (f"{HEADER}2 a 1 s1 127.0.0.11 2 - 90", "its answer breaks off"),
        ("HTTP/1.0 400 Bad request\r\n\r\n<html>", "answers 'HTTP/1.0 400 Bad request'"),
        ("x" * 1_000_000, "and not the state"),
    ],
)
def test_what_haproxy_does_not_say(answer: str | bytes, text: str) -> None:
    """Anything but the state is one short line of printable text."""
    with pytest.raises(LatencyError, match=text) as caught:
        said(answer)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("behave", [never_ends, drips, is_silent])
@pytest.mark.parametrize("make", [HAProxy, lambda place: Envoy(f"http://{place}")])
def test_a_hostile_peer_is_bounded(
    make: Callable[[str], Reader], behave: Callable[[socket.socket], object]
) -> None:
    """Whoever never ends, or is slow, ends with an error at the deadline or at the limit."""
    with peer(behave) as place:
        started = time.monotonic()
        with pytest.raises(LatencyError, match=r"its answer (did not end in|has more than)"):
            list(make(place).read(soon(1)))
        assert time.monotonic() - started < 5


def test_the_limit_is_one_of_bytes() -> None:
    """It holds however long the deadline is; and a deadline holds that has passed already."""
    with peer(never_ends) as place, pytest.raises(LatencyError, match="more than 16 MiB"):
        list(HAProxy(place).read(soon(60)))
    with peer(is_silent) as place, pytest.raises(LatencyError, match="did not end in time"):
        list(HAProxy(place).read(soon(-1)))


@pytest.mark.parametrize("make", [HAProxy, lambda place: Envoy(f"http://{place}")])
def test_a_peer_that_hangs_up(make: Callable[[str], Reader]) -> None:
    """A connection that ends at once, or is refused, is an error that says so."""
    with peer(lambda _: None) as place, pytest.raises((LatencyError, OSError)):
        list(make(place).read(soon()))
    with pytest.raises(LatencyError, match="answers there: Connection refused"):
        list(make(place).read(soon()))


@pytest.mark.parametrize(
    "place", ["/nowhere/haproxy.sock", "/dev/null", "/" + "x" * 200, "host:1x"]
)
def test_a_place_that_is_no_socket(place: str) -> None:
    """It is an error in words."""
    with pytest.raises(
        (LatencyError, ValueError), match=r"no HAProxy answers there|neither a path"
    ):
        list(HAProxy(place).read(soon()))


# ---- Envoy ----

CLUSTERS = {
    "cluster_statuses": [
        {
            "name": "web",
            "added_via_api": True,
            "host_statuses": [
                {
                    "address": {"socket_address": {"address": "10.0.0.1", "port_value": 8080}},
                    "stats": [{"type": "GAUGE", "name": "cx_active"}],
                    "health_status": {"eds_health_status": "HEALTHY"},
                    "weight": 1,
                    "hostname": "app.example",
                },
                {"address": {"socket_address": {"address": "2001:db8::1", "port_value": 443}}},
                {"address": {"pipe": {"path": "/run/app.sock"}}},
                {"address": {"envoy_internal_address": {"server_listener_name": "x"}}},
                {"address": {"socket_address": {"address": "10.0.0.3"}}},
                {"address": {"socket_address": {"address": 5, "port_value": 80}}},
                {"address": {"socket_address": {"address": "10.0.0.4", "port_value": -1}}},
                {"address": {"socket_address": {"address": "10.0.0.5", "port_value": 80.5}}},
                {"address": None},
                "text",
            ],
        },
        {"name": "empty"},
        {
            "name": ESCAPES,
            "host_statuses": [
                {"address": {"socket_address": {"address": "10.0.0.2", "port_value": 1}}}
            ],
        },
    ]
}
ENVOY_ROWS = [
    Row("10.0.0.1", 8080, Name("web", "app.example")),
    Row("2001:db8::1", 443, Name("web", "[2001:db8::1]:443")),
    Row("10.0.0.2", 1, Name("\ufffd[2Ja\ufffd\ufffd\ufffd31m\ufffdb\ufffd", "10.0.0.2:1")),
]


def http(body: bytes, head: str = "", status: str = "200 OK") -> bytes:
    """An answer in HTTP."""
    return f"HTTP/1.1 {status}\r\nServer: envoy\r\n{head}\r\n".encode() + body


def chunked(body: bytes) -> bytes:
    """An answer in chunks of a hundred bytes."""
    parts = [body[at : at + 100] for at in range(0, len(body), 100)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return http(chunks + b"0\r\n\r\n", "Transfer-Encoding: chunked\r\n")


@pytest.mark.parametrize("form", [http, chunked])
def test_envoys_clusters(form: Callable[[bytes], bytes]) -> None:
    """Its documented form gives a row per endpoint; what is no address with a port is skipped."""
    asked: list[bytes] = []

    def answer(connected: socket.socket) -> None:
        asked.append(connected.recv(4096))
        connected.sendall(form(json.dumps(CLUSTERS).encode()))

    with peer(answer) as place:
        assert list(Envoy(f"http://{place}/").read(soon())) == ENVOY_ROWS
        port = place.partition(":")[2]
        assert list(Envoy(f"http://localhost:{port}").read(soon())) == ENVOY_ROWS
    assert asked[0].startswith(b"GET /clusters?format=json HTTP/1.1\r\nHost: 127.0.0.1:")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (http(b"", status="404 Not Found"), "answers with status 404"),
        (http(b"", status="426 Upgrade Required"), "status 426"),
        (b"\x1b[2J\xff", "does not answer in HTTP"),
        (b"", "does not answer in HTTP"),
        (http(b"x: y\r\n" * 1000), "not the JSON"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 1000 + b"\r\n", "does not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"a" * 100_000, "does not answer in HTTP"),
        (http(b"zz\r\n", "Transfer-Encoding: chunked\r\n"), "does not answer in HTTP"),
        (http(b"ab", "Content-Length: 9\r\n"), "does not answer in HTTP"),
        (http(b"web::10.0.0.1:80::cx_active::0"), "not the JSON of /clusters"),
        (http(b"[" * 100_000), "not the JSON"),
        (http(b"[]"), "not the JSON"),
        (http(b"{}"), "not the JSON"),
        (http(b'{"cluster_statuses": 5}'), "not the JSON"),
        (http(b'{"cluster_statuses": [{"name": "a", "host_statuses": 5}]}'), "not the JSON"),
        (http(b'{"cluster_statuses": [5]}'), "not the JSON"),
        (http(b"\xff\xfe"), "not the JSON"),
        (http(b"9" * 10_000), "not the JSON"),
        (http(b"[" + b"[]," * 2_000_000 + b"[]]"), "more than 1048576 values"),
    ],
)
def test_what_is_no_envoy(answer: bytes, text: str) -> None:
    """Anything else is one line."""
    with peer(says(answer)) as place, pytest.raises(LatencyError, match=text) as caught:
        list(Envoy(f"http://{place}").read(soon()))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:9901", "https://h:1", "http://", "http://h:x", "http://h:1\r\nX: y",
     "http://h h", "http://h:1?x", "http://[::1", "http://h:99999"],
)  # fmt: skip
def test_a_wrong_url_is_refused(url: str) -> None:
    """Before anything connects, and what would be a header of its own, too."""
    with pytest.raises(ValueError, match=r"is not a URL of the form http://HOST:PORT"):
        Envoy(url)


MARKS = [
    "1\n# be_name srv_name srv_addr srv_port\n", "10.0.0.1", " ", "80", "-", "[", "]", "{", "}",
    ",", ":", '"cluster_statuses":', '"name":', '"host_statuses":', '"address":', "null",
    "\x1b", "\x85",
]  # fmt: skip


@given(
    st.one_of(
        st.binary(), st.lists(st.sampled_from(MARKS)).map(lambda each: "".join(each).encode())
    )
)
def test_any_answer_is_read_or_refused(data: bytes) -> None:
    """Whatever they say: names that can be shown, or an error."""
    for read in (
        envoy._rows,
        envoy._body,
        lambda each: haproxy._rows(each.decode(errors="replace")),
    ):
        with suppress(LatencyError):
            assert all(isinstance(row, (Row, int)) for row in read(data))
