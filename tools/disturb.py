"""Other work on the machine, for tests to run beside: `disturb.py [COMMAND...]`. Needs root.

Until a signal ends it (or COMMAND ends, whose exit code it takes), it makes and deletes network
namespaces, BPF maps, programs, mounts and pins, listens on ports, and burns CPU.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lblatency.demo.namespace import die_with_parent  # noqa: E402
from tests.support import bpf  # noqa: E402

_number = count()


def run(*command: str) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True)


@contextmanager
def namespace() -> Iterator[None]:
    """A named namespace with a pair of interfaces, called as the demo calls its own."""
    name = f"lbl-disturb-{os.getpid()}-{next(_number)}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "add", "backend1", "type", "veth", "peer", "name", "clients")
        yield
    finally:
        run("ip", "netns", "delete", name)


@contextmanager
def objects() -> Iterator[None]:
    """Maps and a program, with names that a balancer's have too."""
    fds = [bpf.create_map(bpf.HASH, 4, 8, 16, name) for name in ("lbl_counters", "other")]
    fds += [bpf.create_map(bpf.RINGBUF, 0, 0, 4096, "lbl_events"), bpf.load_return_0("other")]
    yield
    for fd in fds:
        os.close(fd)


@contextmanager
def pins() -> Iterator[None]:
    """A bpffs at a mount point, with a map and a program pinned in it."""
    with tempfile.TemporaryDirectory(prefix="lbl-disturb-") as folder:
        run("mount", "-t", "bpf", "bpf", folder)
        try:
            for fd in (bpf.create_map(bpf.ARRAY, 4, 4, 1), bpf.load_return_0("pinned")):
                bpf.pin(fd, f"{folder}/{fd}")
                os.close(fd)
            yield
        finally:
            run("umount", folder)


@contextmanager
def ports() -> Iterator[None]:
    """Listen on some of the ports that the kernel gives away."""
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        yield


@contextmanager
def burn() -> Iterator[None]:
    """Use the CPU, and some memory."""
    sum(bytearray(8 << 20))
    yield


Job = Callable[[], AbstractContextManager[None]]
JOBS: tuple[Job, ...] = (namespace, objects, pins, ports, burn, burn)


def work(job: Job) -> None:
    """Do the job again and again, each time before the last is undone, until SIGTERM comes."""
    die_with_parent()
    os.setsid()  # a Ctrl-C is for the parent
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # so that each round is finished
    last = ExitStack()
    while not signal.sigpending():
        current = ExitStack()
        current.enter_context(job())
        last.close()
        last = current
    last.close()
    os._exit(0)


def main(command: list[str]) -> int:
    """Disturb until a signal comes or the command ends; returns its exit code."""
    workers = []
    for job in JOBS:
        pid = os.fork()
        if pid == 0:
            work(job)
        workers.append(pid)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if command:
            return subprocess.run(command).returncode
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGTERM)
        for pid in workers:
            os.waitpid(pid, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
