"""Pushes from a host of its own, whose server of names is silent."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from tests.support.netns import Namespace

ROOT = Path(__file__).parent.parent.parent
RESOLVER = "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n"


def test_a_silent_server_of_names_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """Scrapes go on, and an orderly end takes 2 s, not the minutes that a look-up takes."""
    resolver = tmp_path / "resolv.conf"
    resolver.write_text(RESOLVER)
    with closing(Namespace()) as host, host.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 53))
        serve = [sys.executable, "-m", "tests.support.fake_source", "serve", "--fake", "a"]
        serve += ["--proxy", "web", "--listen", "127.0.0.1:9100", "--otlp", "http://a.example"]
        mount = f'mount --bind {resolver} /etc/resolv.conf && exec "$@"'
        command = ["nsenter", f"--net={host.path}", "unshare", "--mount", "sh", "-c", mount, "sh"]
        with subprocess.Popen(
            [*command, *serve], text=True, stderr=subprocess.PIPE, cwd=ROOT, pass_fds=[host.fd]
        ) as process:
            try:
                silent.recv(512)  # it asks
                host.run("curl -sSf -o /dev/null http://127.0.0.1:9100/metrics")
                began = time.monotonic()
                process.terminate()
                _, said = process.communicate(timeout=60)
            finally:
                process.kill()
    assert process.returncode == 0
    assert time.monotonic() - began < 15
    assert "the last push to http://a.example/v1/metrics has no answer within 2 s" in said
