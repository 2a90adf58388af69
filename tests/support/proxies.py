"""HAProxy and nginx as Debian has them, each in a network namespace and under a name of its own."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from lblatency._closing import Closing
from tests.support.rig import wait_until

if TYPE_CHECKING:
    from tests.support.netns import Namespace

_number = itertools.count(1)


class Proxy(Closing):
    """A running proxy. Its processes have the name `comm`, which no other has."""

    def __init__(
        self, program: str, arguments: list[str], home: Path, namespace: Namespace, listeners: int
    ) -> None:
        """Start it in the namespace, and wait until it listens on so many sockets."""
        real = shutil.which(program)
        assert real, f"{program} is not installed; `make test` installs it"
        self.comm = f"{program[:3]}{os.getpid()}-{next(_number)}"
        link = home / self.comm
        link.symlink_to(real)
        self._log = home / f"{self.comm}.log"
        with self._log.open("wb") as log, namespace.inside():
            self.process = subprocess.Popen(
                [str(link), *arguments], stdout=log, stderr=log, start_new_session=True
            )
        self._namespace = namespace
        wait_until(lambda: self._listens(listeners), lambda: f"{program}: {self._log.read_text()}")

    def _listens(self, count: int) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        return self._namespace.run("ss -Hltn").count("\n") >= count

    def log(self) -> list[str]:
        """The lines that it has logged so far."""
        return self._log.read_text().splitlines()

    def kill(self) -> None:
        """Kill all its processes at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """Stop it, if it still runs."""
        if self.process.poll() is None:
            self.kill()


def haproxy(config: str, home: Path, namespace: Namespace, listeners: int) -> Proxy:
    """HAProxy with these sections after `defaults` in TCP mode; it logs what `log-format` says."""
    path = home / f"haproxy-{next(_number)}.cfg"
    path.write_text(f"""
global
    log stdout format raw local0
    maxconn 8000
defaults
    mode tcp
    log global
    log-format "%b/%s %rc %ts"
    timeout client 60s
    timeout server 60s
    timeout connect 20s
    retries 0
{config}
""")
    return Proxy("haproxy", ["-db", "-f", str(path)], home, namespace, listeners)


def nginx(config: str, home: Path, namespace: Namespace, listeners: int) -> Proxy:
    """Nginx with these blocks beside `events`."""
    path = home / f"nginx-{next(_number)}.conf"
    path.write_text(f"""
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
user root;
pid {home}/nginx-{next(_number)}.pid;
error_log stderr warn;
worker_processes 2;
worker_rlimit_nofile 20000;
events {{ worker_connections 8000; }}
{config}
""")
    return Proxy("nginx", ["-p", str(home), "-c", str(path)], home, namespace, listeners)
