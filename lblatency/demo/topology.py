"""The demo's own networks: clients, balancer and backends, joined by veth pairs.

No namespace has a name: each lives in a worker process and ends with it. Network 0 joins the
clients to the balancer, network N the backend numbered N; the balancer is .1, the other end .2.
The proxies' addresses are the balancer's, too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from .._closing import Closing
from .plan import PROXIES, Backend
from .worker import DemoError, Worker

__all__ = ["BACKEND_INTERFACE", "CLIENT_INTERFACE", "Topology", "run_inside"]

CLIENT_INTERFACE = "clients"  # the balancer's side
BACKEND_INTERFACE = "backend"  # likewise; the backend's number follows
_RUN_S = 15.0


class Topology(Closing):
    """Namespaces with addresses and routes, and a server listening in each backend's."""

    def __init__(self, backends: Sequence[Backend], duration: float) -> None:
        self._workers: list[Worker] = []
        try:
            self.clients = self._worker("client", str(duration))
            self.balancer = self._worker("balancer")
            self.servers = {
                backend.number: self._worker("server", str(backend.number)) for backend in backends
            }
            self._connect(self.servers)
            _start(list(self.servers.values()))
        except BaseException:
            self.close()
            raise

    def _worker(self, *role: str) -> Worker:
        worker = Worker(*role)
        self._workers.append(worker)
        return worker

    def _connect(self, servers: dict[int, Worker]) -> None:
        for worker in (self.clients, self.balancer, *servers.values()):
            worker.wait_for("ready")
        lines = ["link set lo up", *(f"addr add {proxy.vip} dev lo" for proxy in PROXIES)]
        lines += _balancer_end(CLIENT_INTERFACE, 0, self.clients)
        for number, server in servers.items():
            lines += _balancer_end(f"{BACKEND_INTERFACE}{number}", number, server)
        _ip(self.balancer, lines)
        _ip(self.clients, _far_end(0))
        for number, server in servers.items():
            _ip(server, _far_end(number))

    def close(self) -> None:
        """End all workers and with them the namespaces."""
        for worker in self._workers:
            worker.finish()
        for worker in self._workers:
            worker.close()


def _start(servers: Sequence[Worker]) -> None:
    for server in servers:
        server.go()
    for server in servers:
        server.wait_for("listening")


def _balancer_end(interface: str, network: int, peer: Worker) -> list[str]:
    """Lines for `ip -batch` in the balancer's namespace: a link to the peer's."""
    return [
        f"link add {interface} type veth peer name eth0 netns {peer.pid}",
        f"addr add 10.77.{network}.1/24 dev {interface}",
        f"addr add fd77:{network}::1/64 dev {interface} nodad",
        f"link set {interface} up",
    ]


def _far_end(network: int) -> list[str]:
    """Lines for `ip -batch` in the namespace of a client or backend."""
    return [
        "link set lo up",
        f"addr add 10.77.{network}.2/24 dev eth0",
        f"addr add fd77:{network}::2/64 dev eth0 nodad",
        "link set eth0 up",
        f"route add 0.0.0.0/0 via 10.77.{network}.1",
        f"route add ::/0 via fd77:{network}::1",
    ]


def _ip(worker: Worker, lines: list[str]) -> None:
    run_inside(worker, ["ip", "-batch", "-"], "\n".join(lines) + "\n")


def run_inside(worker: Worker, command: list[str], text: str) -> None:
    """Run a command that reads text, in the worker's network namespace."""
    command = ["nsenter", f"--net=/proc/{worker.pid}/ns/net", *command]
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_RUN_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DemoError(f"cannot run {' '.join(command)}: {error}") from error
    if done.returncode:
        raise DemoError(
            f"{' '.join(command[2:])} failed in the namespace of {worker.role}:"
            f" {done.stderr.strip()}"
        )
