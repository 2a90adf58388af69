"""Balancing by a proxy as Debian has it, which knows nothing of lblatency."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..sources import Sockets, Source
from .plan import PROXIES, Proxy, backend_rules, backends_of
from .programs import NGINX_STREAM, find_program
from .worker import DemoError, Worker

__all__ = ["open_haproxy", "open_nginx"]

_MOST_CONNECTIONS = 4096  # many times what the clients have open
_START_S = 10.0
_LISTENING = "0A"  # the state in /proc/net/tcp


def open_haproxy(worker: Worker) -> Source:
    """Have HAProxy balance in the worker's namespace, and follow its sockets."""
    return _open(worker, "haproxy", _haproxy_config, lambda home: ["-db", "-f", f"{home}/config"])


def open_nginx(worker: Worker) -> Source:
    """Have nginx balance in the worker's namespace, and follow its sockets."""
    return _open(
        worker,
        "nginx",
        _nginx_config,
        lambda home: ["-e", "stderr", "-p", home, "-c", f"{home}/config"],
    )


def _open(
    worker: Worker,
    program: str,
    config: Callable[[], str],
    arguments: Callable[[str], Sequence[str]],
) -> Source:
    """Let the worker become the program, under a name that no other process has.

    Once the program listens, it needs none of its files any more.
    """
    name = f"lbl-{worker.pid}"
    with tempfile.TemporaryDirectory(prefix="lblatency-demo-") as home:
        Path(home, name).symlink_to(find_program(program))
        Path(home, "config").write_text(config())
        worker.become(f"{home}/{name}", *arguments(home))
        _wait_until_it_listens(worker, program)
    return Sockets(comms=[name], backends=backend_rules())


def _wait_until_it_listens(worker: Worker, program: str) -> None:
    deadline = time.monotonic() + _START_S
    while _listeners(worker.pid) < len(PROXIES):
        if worker.has_ended() or time.monotonic() > deadline:
            raise DemoError(f"{program} did not start: {worker.last_words() or 'no word of why'}")
        time.sleep(0.01)


def _listeners(pid: int) -> int:
    """How many sockets listen in the namespace of a process; none if it has ended."""
    with contextlib.suppress(OSError):
        return sum(
            line.split()[3] == _LISTENING
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()
        )
    return 0


def _address(proxy: Proxy) -> str:
    host = f"[{proxy.vip}]" if ":" in proxy.vip else proxy.vip
    return f"{host}:{proxy.port}"


def _haproxy_config() -> str:
    lines = [
        "global",
        f"maxconn {_MOST_CONNECTIONS}",
        "defaults",
        "mode tcp",
        "balance roundrobin",
        *(f"timeout {side} 60s" for side in ("connect", "client", "server")),
    ]
    for proxy in PROXIES:
        lines += [f"listen {proxy.name}", f"bind {_address(proxy)}"]
        lines += [
            f"server s{one.number} {one.target} weight {one.weight}" for one in backends_of(proxy)
        ]
    return "\n".join([*lines, ""])


def _nginx_config() -> str:
    """A single process, so that none outlives the demo. It logs each reset, so it must not log."""
    lines = [
        f"load_module {NGINX_STREAM};",
        "daemon off; master_process off; pid pid; error_log stderr emerg;",
        f"worker_rlimit_nofile {2 * _MOST_CONNECTIONS};",
        f"events {{ worker_connections {_MOST_CONNECTIONS}; }}",
        "stream {",
    ]
    for proxy in PROXIES:
        servers = "".join(
            f"server {one.target} weight={one.weight}; " for one in backends_of(proxy)
        )
        lines += [
            f"upstream {proxy.name} {{ {servers}}}",
            f"server {{ listen {_address(proxy)}; proxy_pass {proxy.name}; }}",
        ]
    return "\n".join([*lines, "}", ""])
