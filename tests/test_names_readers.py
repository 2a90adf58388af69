"""What servers are called: readers before hostile peers and wrong files, the table, its thread."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from lblatency.errors import LatencyError
from lblatency.names import (
    READERS,
    Envoy,
    FileSd,
    HAProxy,
    Name,
    Names,
    NameTable,
    Nginx,
    Reader,
    Row,
)
from tests.support.rig import wait_until

HEADER = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_fqdn srv_port\n"
ESCAPES = "\x1b[2Ja\x07\r\x9b31m\u202eb\x00"


def soon(seconds: float = 5) -> float:
    """A deadline."""
    return time.monotonic() + seconds


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


def haproxy(answer: str | bytes) -> list[Row]:
    """What the reader makes of an answer."""
    with peer(says(answer)) as place:
        return list(HAProxy(place).read(soon()))


def test_the_state_of_haproxys_servers() -> None:
    """Columns are found by their names; servers without an address, and odd lines, are skipped."""
    rows = haproxy(
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
    other = "1\n# srv_port srv_addr be_name new srv_name\n80 10.0.0.1 web x blue\n"
    assert haproxy(other) == [Row("10.0.0.1", 80, Name("web", "blue"))]


def test_names_from_outside_are_text() -> None:
    """Escapes, controls, broken UTF-8 and marks of direction are replaced; a long name is cut."""
    (row,) = haproxy(HEADER.encode() + b"2 \x1b[2Jbad\xff 1 s\xc2\x9b 10.0.0.1 2 - 80\n")
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
        ("HTTP/1.0 400 Bad request\r\n\r\n<html>", "answers 'HTTP/1.0 400 Bad request'"),
        ("x" * 1_000_000, "and not the state"),
    ],
)
def test_what_haproxy_does_not_say(answer: str | bytes, text: str) -> None:
    """Anything but the state is one short line of printable text."""
    with pytest.raises(LatencyError, match=text) as caught:
        haproxy(answer)
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
    with pytest.raises((LatencyError, ValueError), match=r"no HAProxy answers there|has no port"):
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


# ---- the file ----


def read_file(path: Path, text: str | bytes) -> list[Row]:
    """The rows of a file with this text."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(FileSd(str(path)).read(soon()))


GROUPS = [
    {"targets": ["10.0.0.1:80", "[2001:db8::1]:80"], "labels": {"backend": "web"}},
    {"targets": [], "labels": {"backend": "none", "job": "x"}},
    {
        "targets": ["[::ffff:10.0.0.2]:80"],
        "labels": {"backend": "web", "server": "blue", "source": "127.0.0.21"},
    },
]
FILE_ROWS = [
    Row("10.0.0.1", 80, Name("web", "10.0.0.1:80")),
    Row("2001:db8::1", 80, Name("web", "[2001:db8::1]:80")),
    Row("10.0.0.2", 80, Name("web", "blue"), "127.0.0.21"),
]
YAML = """\
# names
- targets: ["10.0.0.1:80", "[2001:db8::1]:80"]
  labels: &web {backend: web}
- {targets: [], labels: {backend: none, job: x}}
- targets:
  - "[::ffff:10.0.0.2]:80"
  labels:
    <<: *web
    server: blue
    source: 127.0.0.21
"""


def test_the_file_of_names(tmp_path: Path) -> None:
    """JSON and YAML in the form of file_sd give the same rows."""
    assert read_file(tmp_path / "a.json", json.dumps(GROUPS)) == FILE_ROWS
    assert read_file(tmp_path / "b.names", json.dumps(GROUPS, indent=8)) == FILE_ROWS
    assert read_file(tmp_path / "c.yml", YAML) == FILE_ROWS
    assert read_file(tmp_path / "d.yaml", json.dumps(GROUPS)) == FILE_ROWS
    assert read_file(tmp_path / "e.json", "\ufeff [ ] \r\n") == []
    assert read_file(tmp_path / "f.yaml", "[]") == []


GOOD = '{"targets": ["10.0.0.1:80"], "labels": {"backend": "a"}}'


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "line 1: expected \\["),
        ("\n\n{}", "line 3: expected \\["),
        ("[", "line 1: Expecting value"),
        (f"[\n{GOOD}\n", "line 3: expected , or \\]"),
        (f"[\n{GOOD},\n", "line 3: Expecting value"),
        (f"[\n{GOOD},\n]", "line 3: Expecting value"),
        (f"[\n{GOOD}\n]\n]", "line 4: expected the end of the file"),
        (f"[{GOOD}]\n\n[{GOOD}]", "line 3: expected the end of the file"),
        ("[]\n x", "line 2: expected the end of the file"),
        ("[5]", "line 1: a group is"),
        ("[" + "[]," * 2_000_000 + "[]]", "more than 1048576 values"),
        ("[\n" + "9" * 5000 + "]", "line 2: a number is too long"),
        ("[\n[[" + "[" * 100_000, "nested too deeply"),
        ('[\n\n{"targets": "10.0.0.1:80", "labels": {"backend": "a"}}]', "line 3: a group is"),
        ('[\n{"targets": []}]', 'line 2: the group has no label "backend"'),
        ('[\n{"targets": [], "labels": {"backend": ""}}]', "line 2: the group has no label"),
        ('[\n{"targets": [], "labels": []}]', "line 2: the group has no label"),
        ('[\n{"targets": [], "labels": {"backend": 5}}]', "line 2: the label 'backend' is"),
        (f'[\n{GOOD},\n{{"targets": ["app:80"], "labels": {{"backend": "a"}}}}]', "line 3: 'app'"),
        ('[{"targets": ["10.0.0.1"], "labels": {"backend": "a"}}]', "line 1: '10.0.0.1' has no"),
        ('[{"targets": ["10.0.0.1:99999"], "labels": {"backend": "a"}}]', "line 1: .*not 0 to"),
        ('[{"targets": [5], "labels": {"backend": "a"}}]', "line 1: the target 5 is not text"),
        ('[{"targets": ["10.0.0.1:1"], "labels": {"backend": "a", "source": "x"}}]', "line 1: 'x'"),
        (b"[\n\xff", "line 2: it is not UTF-8"),
        ('[\n{"targets": ["\x1b[2J:80"], "labels": {"backend": "a"}}]', "line 2: Invalid control"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_explained(tmp_path: Path, text: str | bytes, error: str) -> None:
    """Each mistake is one line that has the file's line."""
    with pytest.raises(LatencyError, match=error):
        read_file(tmp_path / "names.json", text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "line 1: expected a list"),
        ("a: b", "line 1: expected a list"),
        ("- targets: [\n", "line 2: "),
        ("\n- a: b\n\tc: d", "line 3: found a tab"),
        ("- targets: []\n  labels: {backend: on}", "line 1: the label 'backend' is not text"),
        ("\n- targets: [1]\n  labels: {backend: a}", "line 2: the target 1 is not text"),
        ("- !!python/object/apply:os.system [ls]", "line 1: could not determine a constructor"),
        ("- &a [*a]", "line 1: "),
        ("- {" * 100_000, "."),
        ("# " + "x" * (1 << 20), "YAML has more than 1 MiB"),
        ("- \x1b[2J", "line 1: "),
    ],
)
def test_wrong_yaml_is_explained(tmp_path: Path, text: str, error: str) -> None:
    """The same in YAML."""
    with pytest.raises(LatencyError, match=error):
        read_file(tmp_path / "names.yaml", text)


def test_what_is_no_file(tmp_path: Path) -> None:
    """Nothing waits for a pipe or reads a device; too large a file is not read."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises((LatencyError, OSError), match=r"not a regular file|Is a directory"):
            FileSd(str(place)).read(soon())
    with pytest.raises(OSError, match="No such file"):
        FileSd(str(tmp_path / "none")).read(soon())
    with pytest.raises(LatencyError, match="it has more than 16 MiB"):
        read_file(tmp_path / "large", b" " * (17 << 20))


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """Written in place or replaced, broken and mended; an unchanged one is not parsed again."""
    path = tmp_path / "names.json"
    reader = FileSd(str(path))
    path.write_text(f"[{GOOD}]")
    first = reader.read(soon())
    assert reader.read(soon()) is first
    path.write_text("[\n5]")
    for _ in range(2):
        with pytest.raises(LatencyError, match="line 2: a group is"):
            reader.read(soon())
    other = tmp_path / "new"
    other.write_text(json.dumps(GROUPS))
    other.replace(path)
    assert reader.read(soon()) == FILE_ROWS


# ---- nginx ----

NGINX = """\
worker_processes 1;
pid {root}/nginx.pid;
error_log stderr;
include /etc/nginx/modules-enabled/50-mod-stream.conf;
events {{ }}
http {{
    include inc/*.conf;
    proxy_bind 127.0.0.40;
    server {{
        listen 127.0.0.1:1;
        location /a {{ proxy_pass http://web; proxy_bind 127.0.0.41; }}
        location /b {{ proxy_pass http://web/path; }}
        location /c {{ proxy_bind off; proxy_pass https://10.0.0.9; }}
        location /d {{ set $x 10.0.0.8:80; proxy_pass http://$x; }}
        location /e {{ if ($uri) {{ proxy_pass http://10.0.0.7:81; }} }}
        location /f {{ proxy_bind $remote_addr transparent; proxy_pass http://plain; }}
        location /g {{ fastcgi_pass 10.0.0.6:9000; proxy_pass http://unix:/run/x.sock:/; }}
    }}
}}
stream {{
    upstream web {{ server [2001:db8::2]:5432; include {root}/inc/servers; }}
    server {{ listen 127.0.0.1:2; proxy_pass web; proxy_bind 2001:db8::9; }}
}}
"""
INCLUDED = """\
upstream web {  # a comment; } with marks
    server 10.0.0.1:8000 weight=5 max_fails=0; server "10.0.0.2";
    server localhost:8001 backup; server unix:/run/app.sock;
}
upstream plain { zone x 64k; server 10.0.0.3:80; }
upstream unused { server 10.0.0.3:80; }
"""


def nginx_files(root: Path) -> Path:
    """A configuration in several files."""
    (root / "inc").mkdir()
    (root / "inc/up.conf").write_text(INCLUDED)
    (root / "inc/servers").write_text("server 10.0.0.5:5432;")
    (root / "nginx.conf").write_text(NGINX.format(root=root))
    return root / "nginx.conf"


def test_nginxs_upstreams(tmp_path: Path) -> None:
    """Upstreams of both modules, in included files; sources as `proxy_bind` is inherited."""
    rows = Nginx(str(nginx_files(tmp_path))).read(soon(20))
    web = {Row("10.0.0.1", 8000, Name("web", "10.0.0.1:8000"), f"127.0.0.{i}") for i in (40, 41)}
    web |= {Row("10.0.0.2", 80, Name("web", "10.0.0.2"), f"127.0.0.{i}") for i in (40, 41)}
    local = {row for row in rows if row.port == 8001}
    assert Row("127.0.0.1", 8001, Name("web", "localhost:8001"), "127.0.0.40") in local
    assert set(rows) - local == {
        *web,
        Row("10.0.0.3", 80, Name("plain", "10.0.0.3:80")),
        Row("10.0.0.3", 80, Name("unused", "10.0.0.3:80")),
        Row("10.0.0.9", 443, Name("10.0.0.9", "10.0.0.9")),
        Row("10.0.0.7", 81, Name("10.0.0.7:81", "10.0.0.7:81"), "127.0.0.40"),
        Row("10.0.0.6", 9000, Name("10.0.0.6:9000", "10.0.0.6:9000")),
        Row("2001:db8::2", 5432, Name("web", "[2001:db8::2]:5432"), "2001:db8::9"),
        Row("10.0.0.5", 5432, Name("web", "10.0.0.5:5432"), "2001:db8::9"),
    }


def test_a_changed_configuration_is_parsed_again(tmp_path: Path) -> None:
    """One that nginx refuses is an error with its line, and then the old rows are still known."""
    path = nginx_files(tmp_path)
    reader = Nginx(str(path))
    first = reader.read(soon(20))
    assert reader.read(soon(20)) is first
    (tmp_path / "inc/up.conf").write_text(INCLUDED.replace("10.0.0.2", "10.0.0.22"))
    assert {row.ip for row in reader.read(soon(20))} - {row.ip for row in first} == {"10.0.0.22"}
    (tmp_path / "inc/up.conf").write_text("upstream web { server; }")
    with pytest.raises(LatencyError, match=r"fails: .*invalid number of arguments.*up\.conf:1"):
        reader.read(soon(20))


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("sleep 60", "did not end in time"),
        ("exec yes", r"more than 16 MiB|did not end in time"),
        ("exec >&-; exec 2>&-; exec sleep 60", "did not end in time"),
        ("printf '\\033[2J\\377'; exit 1", "fails: "),
        ("exit 0", "shows no configuration file"),
        ("echo '# configuration file /a:'; echo 'http {'", "/a, line 2: unexpected end of file"),
        ("echo '# configuration file /a:'; echo 'http'", "/a, line 1: it breaks off"),
        ("echo '# configuration file /a:'; echo 'http { include /a; }'", "include each other"),
    ],
)
def test_a_hostile_nginx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: str
) -> None:
    """A program of that name that hangs, floods or says something else is one line of error."""
    program = tmp_path / "nginx"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(LatencyError, match=error) as caught:
        Nginx().read(soon(1))
    assert str(caught.value).isprintable()


def test_no_nginx(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said which program is missing."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LatencyError, match="cannot run nginx: No such file or directory"):
        Nginx().read(soon())


# ---- the table ----


def table(*rows: Row) -> NameTable:
    """The table of these rows."""
    return NameTable().updated(rows, 0)


def row(name: str, ip: str = "10.0.0.1", port: int = 80, source: str | None = None) -> Row:
    """A row of the server `backend/server`."""
    backend, _, server = name.partition("/")
    return Row.of(ip, port, backend, server, source)


def test_an_address_has_one_name() -> None:
    """However it is written; another port has another one; port 0 stands for all."""
    names = table(row("a/s1"), row("a/any", "10.0.0.2", 0), row("a/s2", "10.0.0.2", 81))
    assert names.find("10.0.0.1", 80) == Name("a", "s1")
    assert names.find("::ffff:10.0.0.1", 80) == Name("a", "s1")
    assert names.find("10.0.0.1", 81) is None
    assert names.find("10.0.0.2", 80) == Name("a", "any")
    assert names.find("10.0.0.2", 81) == Name("a", "s2")
    assert names.find("overflow", 0) is None


def test_two_names_of_one_address_are_joint() -> None:
    """In any order; never the first one. A name that comes twice is one."""
    for rows in ([row("b/other"), row("a/s1")], [row("a/s1"), row("b/other"), row("a/s1")]):
        assert table(*rows).find("10.0.0.1", 80) == Name("a|b", "a/s1|b/other")
    assert table(row("a/s2"), row("a/s1")).find("10.0.0.1", 80) == Name("a", "s1|s2")
    many = [row(f"a/s{i:03}") for i in range(500)]
    found = table(*many).find("10.0.0.1", 80)
    assert found == Name("a", "s000|s001|s002|s003|s004|s005|s006|s007|492 more")


def test_the_source_address_tells_servers_apart() -> None:
    """A row that names a source is for that alone; others are for the rest."""
    names = table(row("a/s1", source="127.0.0.21"), row("b/s1", source="::1"), row("c/s1"))
    assert names.find("10.0.0.1", 80, "127.0.0.21") == Name("a", "s1")
    assert names.find("10.0.0.1", 80, "::ffff:127.0.0.21") == Name("a", "s1")
    assert names.find("10.0.0.1", 80, "0:0::1") == Name("b", "s1")
    assert names.find("10.0.0.1", 80, "127.0.0.1") == Name("c", "s1")
    assert names.find("10.0.0.1", 80) == Name("a|b|c", "a/s1|b/s1|c/s1")
    told = table(row("a/s1", source="127.0.0.21"), row("b/s1", source="127.0.0.22"))
    assert told.find("10.0.0.1", 80, "127.0.0.1") == Name("a|b", "a/s1|b/s1")


def test_a_name_belongs_to_the_time_of_the_connection() -> None:
    """An address that was another server's before has that name for connections of that time."""
    names = table(row("a/s1")).updated([row("a/s2")], 100).updated([row("a/s3")], 200)
    found = [names.find("10.0.0.1", 80, at_ns=at) for at in (-1, 0, 99, 100, 199, 200, 10**18)]
    assert [name.server for name in found if name] == ["s1", "s1", "s1", "s2", "s2", "s3", "s3"]
    assert names.find("10.0.0.1", 80) == Name("a", "s3")


def test_an_address_that_left_keeps_its_last_name() -> None:
    """The server's new address has the same name; who takes the old one over, takes its name."""
    moved = table(row("a/s1")).updated([row("a/s1", "10.0.0.2")], 1)
    assert moved.find("10.0.0.1", 80) == moved.find("10.0.0.2", 80) == Name("a", "s1")
    taken = moved.updated([row("b/new"), row("a/s1", "10.0.0.2")], 2)
    assert taken.find("10.0.0.1", 80) == Name("b", "new")
    assert moved.find("10.0.0.1", 80) == Name("a", "s1")  # a table never changes


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of changes, the latest; of addresses, those that are there now."""
    names = table()
    for i in range(50):
        names = names.updated([row(f"a/s{i}")], i)
    servers = [names.find("10.0.0.1", 80, at_ns=i) for i in range(50)]
    assert len(set(servers)) == 8
    assert servers[-1] == Name("a", "s49")
    monkeypatch.setattr("lblatency.names.base.TARGETS_MAX", 10)
    for i in range(50):
        names = names.updated([row("a/s", f"10.0.1.{i}")], 100 + i)
        assert len(names) <= 10
    assert names.find("10.0.1.49", 80)


# ---- the thread ----


class Scripted(Reader):
    """A reader that does what it is told."""

    option, metavar, help = "scripted", "X", "for tests"
    place = "here"
    interval_s = 0.01

    def __init__(self, *rows: Row) -> None:
        self.does: Callable[[float], Iterable[Row]] = lambda _: rows
        self.n_reads = 0

    def read(self, deadline: float) -> Iterable[Row]:
        """Do it."""
        self.n_reads += 1
        return self.does(deadline)


def fails(error: Exception) -> Callable[[float], Iterable[Row]]:
    """Raise this."""

    def read(_deadline: float) -> Iterable[Row]:
        raise error

    return read


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (LatencyError("line 3: bad \x1b[2J"), "here: line 3: bad \ufffd[2J"),
        (FileNotFoundError(2, "No such file or directory", "x"), "here: No such file or directory"),
        (KeyError("x"), "here: 'x'"),
        (RecursionError(), "here: RecursionError()"),
        (MemoryError("m" * 1000), "here: mmm"),
    ],
)
def test_the_old_names_stay_if_a_reader_cannot(error: Exception, text: str) -> None:
    """Whatever it raises, the thread goes on, says why, and finds the new names afterwards."""
    reader = Scripted(row("a/s1"))
    with Names([reader]) as names:
        wait_until(lambda: names.find("10.0.0.1", 80), "the first names")
        reader.does = fails(error)
        wait_until(lambda: names.status()[0]["error"], "the error")
        (status,) = names.status()
        assert status["error"].startswith(text)
        assert (status["from"], status["place"], status["count"]) == ("scripted", "here", 1)
        assert names.find("10.0.0.1", 80) == Name("a", "s1")
        age = status["age_s"]
        wait_until(lambda: names.status()[0]["age_s"] > age + 0.02, "old names to get older")
        reader.does = lambda _: [row("a/s2")]
        wait_until(lambda: names.find("10.0.0.1", 80) == Name("a", "s2"), "the new name")
        assert names.status()[0]["error"] is None


def test_a_broken_file_keeps_the_old_names(tmp_path: Path) -> None:
    """And the status has the file and its line."""
    path = tmp_path / "names.json"
    path.write_text(f"[{GOOD}]")
    with Names([FileSd(str(path))]) as names:
        names.refresh()
        path.write_text("[\n{}]")
        names.refresh()
        assert names.status()[0]["error"].startswith(f"{path}: line 2: a group is")
        path.unlink()
        names.refresh()
        assert names.status()[0]["error"] == f"{path}: No such file or directory"
        assert names.find("10.0.0.1", 80) == Name("a", "10.0.0.1:80")


def test_news_come_once() -> None:
    """An error when it comes, another one when it changes, and that it went."""
    reader = Scripted(row("a/s1"))
    reader.interval_s = 3600
    with Names([reader]) as names:
        names.refresh()
        assert names.news() == []
        for error, text in (("away", "here: away"), ("away", None), ("line 3", "here: line 3")):
            reader.does = fails(LatencyError(error))
            names.refresh()
            assert names.news() == ([f"{text}; 1 older names stay"] if text else [])
        reader.does = lambda _: [row("a/s1"), row("a/s2")]
        names.refresh()
        assert names.news() == ["here: 2 names are read again"]
        assert names.news() == []


def test_nobody_waits_for_a_slow_reader() -> None:
    """Look-ups and the end come at once while a reader hangs."""
    hangs, goes_on = threading.Event(), threading.Event()
    reader = Scripted(row("a/s1"))

    def hang(_deadline: float) -> Iterable[Row]:
        hangs.set()
        goes_on.wait(20)
        return []

    names = Names([reader])
    wait_until(lambda: names.find("10.0.0.1", 80), "the first names")
    reader.does = hang
    assert hangs.wait(20)
    started = time.monotonic()
    assert names.find("10.0.0.1", 80)
    assert names.find("10.0.0.2", 80) is None
    assert names.status()[0]["count"] == 1
    names.close()
    assert time.monotonic() - started < 5
    goes_on.set()


def test_an_unknown_address_is_looked_for_at_once() -> None:
    """Once, not for each look-up; what is no address is not looked for."""
    reader = Scripted()
    reader.interval_s = 3600
    with Names([reader]) as names:
        wait_until(lambda: reader.n_reads == 1, "the first read")
        reader.does = lambda _: [row("a/s1")]
        names._books[0].read_at = time.monotonic() - 1000  # more than a fifth of the interval
        assert names.find("overflow", 0) is None
        assert names.find("10.0.0.1", 80) is None
        wait_until(lambda: names.find("10.0.0.1", 80), "its name")
        assert names.find("10.0.0.9", 80) is None
        assert names.find("10.0.0.9", 80) is None
        assert reader.n_reads == 2


def test_names_of_several_readers_are_joint() -> None:
    """Each keeps its own while another is away."""
    one, two = Scripted(row("a/s1")), Scripted(row("b/s1"))
    with Names([one, two]) as names:
        names.refresh()
        assert names.find("10.0.0.1", 80) == Name("a|b", "a/s1|b/s1")
        two.does = fails(LatencyError("away"))
        names.refresh()
        assert names.find("10.0.0.1", 80) == Name("a|b", "a/s1|b/s1")
        two.does = lambda _: []
        names.refresh()
        assert names.find("10.0.0.1", 80) == Name("a", "s1")
    Names([]).close()


def test_too_many_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused as a whole, not cut."""
    monkeypatch.setattr("lblatency.names.live.TARGETS_MAX", 10)
    reader = Scripted()
    reader.does = lambda _: (row("a/s", f"10.0.0.{i}") for i in range(11))
    with Names([reader]) as names:
        names.refresh()
        assert names.status()[0]["error"] == "here: it has more than 10 servers"
        assert names.find("10.0.0.1", 80) is None


def test_readers_have_options_of_their_own() -> None:
    """A front end can make a flag of each."""
    options: list[Any] = [reader.option for reader in READERS]
    assert options == ["haproxy", "nginx", "envoy", "names"]
