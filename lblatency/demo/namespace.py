"""System calls that Python 3.11 does not wrap: networks, and the end of a process's parent."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["die_with_parent", "enter_new_network", "inside_network_of", "set_sysctls"]

_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _check(rc: int, what: str) -> None:
    if rc != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends, even by kill -9."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def enter_new_network() -> None:
    """Move into a new network namespace, without a name: it goes when its last process goes."""
    _check(_libc.unshare(_CLONE_NEWNET), "unshare(CLONE_NEWNET)")


@contextmanager
def inside_network_of(pid: int) -> Iterator[None]:
    """Have this thread in the network namespace of a process; sockets that it opens stay there."""
    with (
        Path("/proc/thread-self/ns/net").open("rb") as home,
        Path(f"/proc/{pid}/ns/net").open("rb") as there,
    ):
        _check(_libc.setns(there.fileno(), _CLONE_NEWNET), f"setns to that of process {pid}")
        try:
            yield
        finally:
            _check(_libc.setns(home.fileno(), _CLONE_NEWNET), "setns back")


def set_sysctls(settings: dict[str, int]) -> None:
    """Set kernel parameters of this process's namespace, named as `net/ipv4/ip_forward`."""
    for name, value in settings.items():
        Path("/proc/sys", name).write_text(f"{value}\n")
