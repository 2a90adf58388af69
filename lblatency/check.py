"""What this machine allows, and what to do about what it does not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ._ffi import lib

__all__ = ["Finding", "check_machine", "missing_capabilities"]

_BITS = {"CAP_BPF": 39, "CAP_PERFMON": 38, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
_IN_SYS_ADMIN = {"CAP_BPF", "CAP_PERFMON"}  # they were split off from it in Linux 5.8
_USES = {
    "CAP_BPF": "load BPF programs and maps",
    "CAP_PERFMON": "load BPF programs that read packets",
    "CAP_NET_ADMIN": "attach to network interfaces",
    "CAP_SYS_ADMIN": "look maps up by id or name, make network namespaces",
}


class Finding(NamedTuple):
    """One thing looked at.

    Attributes:
        name: what.
        ok: whether it is as it should be.
        found: what it is.
        advice: what it is for, and what to do if it is not ok.
        required: whether `lblatency demo` cannot do without.
    """

    name: str
    ok: bool
    found: str
    advice: str
    required: bool = True


def missing_capabilities(status: Path = Path("/proc/self/status")) -> list[str]:
    """Those of CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN that this process lacks."""
    effective = 0
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    held = {name for name, bit in _BITS.items() if effective >> bit & 1}
    if "CAP_SYS_ADMIN" in held:
        held |= _IN_SYS_ADMIN
    return [name for name in _BITS if name not in held]


def _kernel() -> Finding:
    release = os.uname().release
    major, minor = (int("".join(c for c in part if c.isdigit()) or 0)
                    for part in (*release.split("."), "0")[:2])  # fmt: skip
    return Finding(
        "kernel", (major, minor) >= (5, 8), release, "BPF ring buffers need Linux 5.8 or newer"
    )


def _btf() -> Finding:
    path = Path("/sys/kernel/btf/vmlinux")
    return Finding(
        "BTF", path.exists(), str(path) if path.exists() else "none",
        "tracing programs need a kernel built with CONFIG_DEBUG_INFO_BTF; the balancer of"
        " `lblatency demo` and `lblatency serve` do without",
        required=False,
    )  # fmt: skip


def _capabilities() -> list[Finding]:
    missing = missing_capabilities()
    return [
        Finding(
            name, name not in missing, "held" if name not in missing else "missing",
            f"needed to {use}; run as root, or give python {name.lower()} with `setcap`",
        )
        for name, use in _USES.items()
    ]  # fmt: skip


def _bpffs(mounts: Path = Path("/proc/mounts")) -> Finding:
    points = [line.split()[1] for line in mounts.read_text().splitlines()
              if line.split()[2] == "bpf"]  # fmt: skip
    return Finding(
        "bpffs", bool(points), ", ".join(points) or "not mounted",
        "only pinned maps need it; mount it with `mount -t bpf bpf /sys/fs/bpf`",
        required=False,
    )  # fmt: skip


def _libbpf() -> Finding:
    version = lib.lbl_libbpf_version()
    return Finding(
        "libbpf", version >= 1000, f"{version // 1000}.{version % 1000}",
        "needs libbpf 1.0 or newer",
    )  # fmt: skip


def check_machine() -> list[Finding]:
    """Look at the kernel, BTF, capabilities, bpffs and libbpf."""
    return [_kernel(), _btf(), *_capabilities(), _bpffs(), _libbpf()]
