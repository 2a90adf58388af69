"""The exceptions of lblatency."""

from __future__ import annotations

import errno as _errno
import os

__all__ = ["BpfError", "LatencyError", "NotPinnedError"]

_ADVICE = {
    _errno.EPERM: "needs CAP_BPF and CAP_PERFMON (CAP_NET_ADMIN too to attach, CAP_SYS_ADMIN to"
    " look maps up by id or name); run as root or `setcap cap_bpf,cap_perfmon,cap_net_admin+ep`",
    _errno.EACCES: "needs read and write access to the pinned map; run as root, or give its mode"
    " or group that access",
    _errno.ENOENT: "no such BPF object; `bpftool map` lists what is loaded",
    _errno.ECHILD: "the stream belongs to the parent process; open another one after fork()",
    _errno.ENOMEM: "out of memory or address space, or RLIMIT_MEMLOCK is too low on this kernel",
}


class LatencyError(Exception):
    """The base of all exceptions that only lblatency raises."""


class NotPinnedError(LatencyError):
    """No BPF map is pinned at a path, or none is in the array there. A balancer may pin it yet."""


class BpfError(LatencyError, OSError):
    """The kernel refused a BPF operation; `errno` holds its code."""

    def __str__(self) -> str:
        return str(self.strerror)

    @classmethod
    def from_errno(cls, code: int, what: str) -> BpfError:
        """An error that says what was being done, the kernel's answer and, if known, what to do."""
        advice = _ADVICE.get(code)
        text = os.strerror(code)
        return cls(code, f"{what}: {text}" + (f"; {advice}" if advice else ""))
