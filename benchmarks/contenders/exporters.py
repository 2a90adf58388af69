"""HTTP servers of /metrics as processes of their own, and the clients that scrape them.

    python -m benchmarks.contenders.exporters SERVER BACKENDS [WEB_CONFIG]

prints a port, and serves there until its standard input ends.
"""

from __future__ import annotations

import random
import socket
import ssl
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lblatency import LatencyCollector, LatencyTracker

__all__ = ["OURS", "THEIRS", "Exporter", "running"]

ROOT = Path(__file__).parents[2]
OURS, THEIRS = "lblatency serve", "prometheus_client's server, LatencyCollector"
HOST = "127.0.0.1"
TCP_CLOSE = 7  # of the kernel's tcp_states.h
_PAGE = 1 << 20


def _tracker(backends: int) -> LatencyTracker:
    """With two decades of lifetimes, as backends usually have; the same for all."""
    tracker = LatencyTracker(max_backends=backends)
    rng = random.Random(1)
    seconds = array("d", (10 ** rng.uniform(-1.8, 0.3) for _ in range(50)))
    for i in range(backends):
        tracker.record_many("web", f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}:8080", seconds)
    return tracker


def _serve_ours(tracker: LatencyTracker, config: str | None) -> None:
    from lblatency.exporter import Address, serving
    from lblatency.exporter.served import Served

    served = Served(tracker)
    with serving(served, [Address(HOST, 0)], print, config_file=config) as (url,):
        print(url.split(":")[2].partition("/")[0], flush=True)
        sys.stdin.read()


def _serve_theirs(tracker: LatencyTracker, _config: str | None) -> None:
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(LatencyCollector(tracker))
    server, _ = start_http_server(0, addr=HOST, registry=registry)
    print(server.server_port, flush=True)
    sys.stdin.read()


_SERVERS: dict[str, Callable[[LatencyTracker, str | None], None]] = {
    OURS: _serve_ours,
    THEIRS: _serve_theirs,
}


class Exporter:
    """A server that runs.

    Args:
        pid: its process.
        port: where it serves.
        client: how to speak TLS with it; None if it speaks none.
    """

    def __init__(self, pid: int, port: int, client: ssl.SSLContext | None) -> None:
        self._pid = pid
        self._port = port
        self._client = client
        self._clients: list[socket.socket] = []

    def connect(self, *, buffer: int = 0, speaks_tls: bool = True) -> socket.socket:
        """A connection; `buffer` bytes of what comes may wait to be read."""
        sock = socket.socket()
        sock.settimeout(60)
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.connect((HOST, self._port))
        if self._client and speaks_tls:
            return self._client.wrap_socket(sock, server_hostname=HOST)
        return sock

    def scrape(self, *headers: str) -> tuple[float, int]:
        """Ns, and bytes, of a scrape on a connection of its own."""
        lines = ("GET /metrics HTTP/1.1", "Host: a", "Connection: close", *headers, "", "")
        request = "\r\n".join(lines).encode()
        page = bytearray(_PAGE)
        count = 0
        start = time.perf_counter_ns()
        with self.connect() as sock:
            sock.sendall(request)
            while length := sock.recv_into(page):
                if not count and not page.startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 ")):
                    raise RuntimeError(f"no scrape: {bytes(page[:100])!r}")
                count += length
        return time.perf_counter_ns() - start, count

    def _memory(self, name: str) -> float:
        (line,) = (
            line
            for line in Path(f"/proc/{self._pid}/status").read_text().splitlines()
            if line.startswith(f"{name}:")
        )
        return int(line.split()[1]) / 1024

    @contextmanager
    def added_mib(self) -> Iterator[list[float]]:
        """The peak of the resident memory during the block, over what there was before."""
        before = self._memory("VmRSS")
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")  # the peak begins anew
        found: list[float] = []
        yield found
        found.append(self._memory("VmHWM") - before)

    def attach(self, count: int, *, asks: bool) -> None:
        """Have so many clients that ask and never read, or that never ask."""
        kept = [each for each in self._clients if _is_open(each)]
        for each in set(self._clients) - set(kept):
            each.close()
        new = [self.connect(buffer=4096, speaks_tls=asks) for _ in range(count - len(kept))]
        for each in new:
            if asks:
                each.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        for each in new:
            if asks:
                each.recv(1)  # its answer has begun
        self._clients = kept + new

    def detach(self) -> None:
        """Close these."""
        for each in self._clients:
            each.close()


def _is_open(sock: socket.socket) -> bool:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_CLOSE


@contextmanager
def running(
    server: str, backends: int, config: Path | None = None, client: ssl.SSLContext | None = None
) -> Iterator[Exporter]:
    """Run one in a process of its own during the block."""
    command = [sys.executable, "-m", __name__, server, str(backends)]
    with (
        ExitStack() as stack,
        subprocess.Popen(
            [*command, *([str(config)] if config else [])],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ) as process,
    ):  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        stack.callback(process.kill)
        exporter = Exporter(process.pid, int(process.stdout.readline()), client)
        try:
            yield exporter
        finally:
            exporter.detach()
            process.stdin.close()
            process.wait(60)


def main() -> None:
    """Serve as the arguments say."""
    server, backends, *config = sys.argv[1:]
    _SERVERS[server](_tracker(int(backends)), config[0] if config else None)


if __name__ == "__main__":
    main()
