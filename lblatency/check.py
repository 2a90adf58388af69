"""Check what this machine allows, and give advice about what is missing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from ._ffi import lib

__all__ = ["Finding", "check_machine", "missing_capabilities"]

_BITS = {"CAP_BPF": 39, "CAP_PERFMON": 38, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
_IN_SYS_ADMIN = {"CAP_BPF", "CAP_PERFMON"}  # Linux 5.8 split them off from CAP_SYS_ADMIN
_USES = {
    "CAP_BPF": "load BPF programs and maps",
    "CAP_PERFMON": "load BPF programs that read packets",
    "CAP_NET_ADMIN": "attach to network interfaces",
    "CAP_SYS_ADMIN": "look maps up by id or name, make network namespaces",
}


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        name: of what was checked.
        ok: whether it is as it should be.
        found: what the machine has.
        advice: what it is for, and what to do if it is not ok.
        required: whether `lblatency demo` needs it.
    """

    name: str
    ok: bool
    found: str
    advice: str
    required: bool = True


def missing_capabilities(status: Path = Path("/proc/self/status")) -> list[str]:
    """Which of CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN this process lacks."""
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
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return Finding(
        name="kernel",
        ok=numbers is not None and (int(numbers[1]), int(numbers[2])) >= (5, 8),
        found=release,
        advice="BPF ring buffers need Linux 5.8 or newer",
    )


def _btf() -> Finding:
    path = Path("/sys/kernel/btf/vmlinux")
    return Finding(
        name="BTF",
        ok=path.exists(),
        found=str(path) if path.exists() else "none",
        advice="tracing programs need a kernel built with CONFIG_DEBUG_INFO_BTF; `lblatency demo`"
        " and `lblatency serve` do not",
        required=False,
    )


def _capabilities() -> list[Finding]:
    missing = missing_capabilities()
    return [
        Finding(
            name=name,
            ok=name not in missing,
            found="missing" if name in missing else "held",
            advice=f"needed to {use}; run as root, or give python {name.lower()} with `setcap`",
        )
        for name, use in _USES.items()
    ]


def _bpffs(mounts: Path = Path("/proc/mounts")) -> Finding:
    fields = [line.split() for line in mounts.read_text().splitlines()]
    points = [point for _, point, kind, *_ in fields if kind == "bpf"]
    return Finding(
        name="bpffs",
        ok=bool(points),
        found=", ".join(points) or "not mounted",
        advice="only pinned maps need it; mount it with `mount -t bpf bpf /sys/fs/bpf`",
        required=False,
    )


def _libbpf() -> Finding:
    version = lib.lbl_libbpf_version()
    return Finding(
        name="libbpf",
        ok=version >= 1000,
        found=f"{version // 1000}.{version % 1000}",
        advice="needs libbpf 1.0 or newer",
    )


def check_machine() -> list[Finding]:
    """Check the kernel, BTF, capabilities, bpffs and libbpf."""
    return [_kernel(), _btf(), *_capabilities(), _bpffs(), _libbpf()]
