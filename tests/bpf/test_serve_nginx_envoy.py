"""`serve --nginx` beside a real nginx, and `serve --envoy` beside a stand-in: no Envoy was at hand.

The stand-in is a proxy whose process is called envoy, with an admin port of the documented form.
"""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.rig import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.bpf

ADDRESS = "127.88.10.1"  # of backends, which no other test uses
NGINX = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
user root;
pid {home}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    upstream pages {{ server {page}; }}
    server {{
        listen unix:{home}/http.sock;
        location / {{ proxy_pass http://pages; }}
    }}
}}
stream {{
    upstream shop {{ server {item}; }}
    server {{
        listen unix:{home}/in.sock;
        proxy_pass shop;
    }}
}}
"""
ENVOY = """
import http.server, os, socket, sys, threading
from pathlib import Path

home, host, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
Path("/proc/self/comm").write_text("envoy")

class Admin(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.path == "/clusters?format=json"
        body = (home / "clusters.json").read_bytes() if known else b""
        self.send_response(200 if known else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

admin = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Admin)
threading.Thread(target=admin.serve_forever, daemon=True).start()
listener = socket.socket(socket.AF_UNIX)
listener.bind(str(home / "in.sock"))
listener.listen()
print(admin.server_port, flush=True)
while True:
    client, _ = listener.accept()
    with client, socket.create_connection((host, port)) as upstream:
        upstream.sendall(client.recv(100))
        while data := upstream.recv(100):
            client.sendall(data)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder with a short name, for sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def servers() -> Iterator[list[socket.socket]]:
    """Three backends."""
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_server((ADDRESS, 0))) for _ in range(3)]


def target(server: socket.socket) -> str:
    """Its address."""
    return "{}:{}".format(*server.getsockname())


def use(entrance: Path, *servers: socket.socket) -> socket.socket:
    """A connection through the proxy, which the backend closes; returns the one of these."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(entrance))
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        found, _, _ = select.select(servers, [], [], 10)
        assert found, "the proxy connects to none of them"
        end, _ = found[0].accept()
        with end:
            end.recv(100)
            end.sendall(b"HTTP/1.0 200 OK\r\n\r\nanswer")
        while client.recv(100):
            pass
    server: socket.socket = found[0]
    return server


class Metrics:
    """What a `serve` exports."""

    def __init__(self, url: str) -> None:
        """At this URL."""
        self._url = url

    def text(self) -> str:
        """As Prometheus gets it."""
        with urllib.request.urlopen(self._url, timeout=10) as reply:
            return str(reply.read().decode())

    def wait_for(self, server: socket.socket, proxy: str, count: int, backend: str) -> None:
        """Wait for so many connections of the server, and for the name of its backend."""
        ip, port = server.getsockname()
        labels = f'proxy_name="{proxy}",target_ip="{ip}",target_port="{port}"'
        line = f"lb_backend_latency_seconds_count{{{labels}}} {count}.0\n"
        wait_until(lambda: line in self.text(), lambda: f"{line} in {self.text()}")
        named = re.compile(rf'lb_backend_info{{backend="{backend}",.*target_port="{port}"}} 1\.0')
        wait_until(lambda: named.search(self.text()), lambda: f"{backend} in {self.text()}")


@contextmanager
def serving(servers: list[socket.socket], *flags: str) -> Iterator[Metrics]:
    """Run the command, for these backends only."""
    rules = [each for server in servers for each in ("--backend", target(server))]
    with subprocess.Popen(
        [sys.executable, "-m", "lblatency", "serve", *flags, *rules, "--listen", "127.0.0.1:0"],
        text=True, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            found = re.search(r"metrics at (\S+)", said)
            assert found, said
            yield Metrics(found[1])
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def test_one_flag_measures_nginx(home: Path, servers: list[socket.socket]) -> None:
    """Its connections, of stream and http, have its name; so has a server that it takes up."""
    item, page, new = servers
    config = home / "nginx.conf"
    config.write_text(NGINX.format(home=home, item=target(item), page=target(page)))
    with subprocess.Popen(
        ["nginx", "-p", str(home), "-c", str(config)], stderr=subprocess.DEVNULL
    ) as nginx:
        try:
            wait_until(
                lambda: (home / "in.sock").exists() and (home / "http.sock").exists(), "nginx"
            )
            with serving(servers, "--nginx", str(config)) as metrics:
                for _ in range(3):
                    use(home / "in.sock", item)
                for _ in range(2):
                    use(home / "http.sock", page)
                metrics.wait_for(item, "nginx", 3, "shop")
                metrics.wait_for(page, "nginx", 2, "pages")
                config.write_text(NGINX.format(home=home, item=target(new), page=target(page)))
                nginx.send_signal(signal.SIGHUP)
                wait_until(lambda: use(home / "in.sock", item, new) is new, "the other server")
                metrics.wait_for(new, "nginx", 1, "shop")
        finally:
            nginx.terminate()


def test_one_flag_measures_envoy(home: Path, servers: list[socket.socket]) -> None:
    """The stand-in's connections have its name, and its endpoints those of their clusters."""
    server = servers[0]
    ip, port = server.getsockname()
    host = {
        "address": {"socket_address": {"address": ip, "port_value": port}},
        "hostname": "first",
        "health_status": {"eds_health_status": "HEALTHY"},
    }
    clusters = [
        {"name": "shop", "added_via_api": True, "host_statuses": [host]},
        {"name": "empty"},
    ]
    (home / "clusters.json").write_text(json.dumps({"cluster_statuses": clusters}))
    with subprocess.Popen(
        [sys.executable, "-c", ENVOY, str(home), ip, str(port)], stdout=subprocess.PIPE, text=True
    ) as envoy:
        try:
            assert envoy.stdout is not None
            admin = f"http://127.0.0.1:{envoy.stdout.readline().strip()}"
            with serving(servers, "--envoy", admin) as metrics:
                for _ in range(3):
                    use(home / "in.sock", server)
                metrics.wait_for(server, "envoy", 3, "shop")
                assert 'server="first"' in metrics.text()
        finally:
            envoy.kill()
