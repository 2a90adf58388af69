"""The real `nginx -T`, programs that only have its name, and any configuration."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lblatency.errors import LatencyError
from lblatency.names import Name, Nginx, Row, nginx
from tests.support.names import soon

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
    told = set()
    for _ in range(2):  # the same text, whatever the time and the process
        with pytest.raises(LatencyError, match=r"fails: .*arguments.*up\.conf:1") as error:
            reader.read(soon(20))
        told.add(str(error.value))
    assert len(told) == 1


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("sleep 60", "did not end in time"),
        ("exec yes", r"more than 16 MiB|did not end in time"),
        ("exec >&-; exec 2>&-; exec sleep 60", "did not end in time"),
        ("printf '\\033[2J\\377'; exit 1", "fails: "),
        (
            "echo 'nginx: [warn] x'; echo 'nginx: [emerg] why'; exit 1",
            r"fails: nginx: \[emerg\] why",
        ),
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


WORDS = st.sampled_from(
    ["http", "stream", "upstream", "server", "proxy_pass", "proxy_bind", "include", "/a", "/b",
     "web", "10.0.0.1:80", "http://web", "$x", "$x:80", "'a b'",
     "unix:/x", "[::1]", "[::1]:5", "off",
     "x:99999"]
)  # fmt: skip
HEADS = st.lists(WORDS, min_size=1, max_size=3).map(" ".join)
BLOCKS = st.recursive(
    HEADS.map(lambda head: f"{head};"),
    lambda inner: st.tuples(HEADS, st.lists(inner, max_size=4)).map(
        lambda each: f"{each[0]} {{ {' '.join(each[1])} }}"
    ),
)
FILES = st.lists(st.tuples(st.sampled_from(["/a", "/b", "/c"]), BLOCKS), max_size=4)


def test_nobody_is_asked_for_a_variable_or_a_path() -> None:
    """What is known only for each request, or is no address, is not resolved."""
    passes = " ".join(
        f"proxy_pass {to};" for to in ("http://$x", "$x:80", "http://unix:/x:/", "app")
    )
    asked: list[str] = []

    def resolve(host: str, _deadline: float) -> list[str]:
        asked.append(host)
        return []

    with patch.object(nginx, "resolve", resolve):
        dump = f"# configuration file /a:\nhttp {{ upstream u {{ server $y; }} {passes} }}\n"
        assert nginx._rows(dump, soon()) == []
    assert asked == ["app"]


@given(FILES, st.sampled_from(["", "}", "{", "'", "\\"]))
def test_any_configuration_is_read_or_refused(files: list[tuple[str, str]], end: str) -> None:
    """Whatever is in it: rows, or an error."""
    dump = "".join(f"# configuration file {path}:\nhttp {{ {text} }}\n" for path, text in files)
    with patch.object(nginx, "resolve", lambda host, _deadline: [host]):
        try:
            rows = nginx._rows(dump + end, soon())
        except LatencyError:
            return
    assert all(isinstance(row, Row) for row in rows)
