"""Check what this machine allows, and give advice about what is missing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ._ffi import lib
from ._privileges import BITS
from .errors import LatencyError
from .sources import SOURCES, Source

__all__ = [
    "Finding",
    "Verdict",
    "check_machine",
    "find_bpffs",
    "missing_capabilities",
    "verdicts",
]

_IN_SYS_ADMIN = {"CAP_BPF", "CAP_PERFMON"}  # Linux 5.8 split them off from CAP_SYS_ADMIN
_USES = {
    "CAP_BPF": "load BPF programs and maps",
    "CAP_PERFMON": "load BPF programs that read packets",
    "CAP_NET_ADMIN": "attach to network interfaces",
    "CAP_SYS_ADMIN": "look maps up by id or name, make network namespaces",
}


_BOTH = ("demo", "serve")
_DEMO = ("demo",)
_PROBES = {  # of bpf(): what is tried, what it is for and which commands need it
    "open pins": (lib.LBL_PROBE_PINS, "read pinned maps", _BOTH),
    "look up ids": (lib.LBL_PROBE_IDS, "open maps by id or name", ()),
    "make maps": (lib.LBL_PROBE_MAPS, "load the demo's balancer", _DEMO),
    "load programs": (lib.LBL_PROBE_PROGRAMS, "load the demo's balancer", _DEMO),
}


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        name: of what was checked.
        ok: whether it is as it should be.
        found: what the machine has.
        advice: what it is for, and what to do if it is not ok.
        needed_by: the commands that need it.
    """

    name: str
    ok: bool
    found: str
    advice: str
    needed_by: tuple[str, ...] = _BOTH


class Verdict(NamedTuple):
    """Whether a command works here.

    Attributes:
        command: its name.
        ok: whether it works in full.
        text: `yes`, or what is missing and what works nevertheless.
    """

    command: str
    ok: bool
    text: str


def missing_capabilities(status: Path = Path("/proc/self/status")) -> list[str]:
    """Which of CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN and CAP_SYS_ADMIN this process lacks."""
    effective = 0
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    held = {name for name, bit in BITS.items() if effective >> bit & 1}
    if "CAP_SYS_ADMIN" in held:
        held |= _IN_SYS_ADMIN
    return [name for name in _USES if name not in held]


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
        needed_by=(),
    )


def _capabilities() -> list[Finding]:
    missing = missing_capabilities()
    return [
        Finding(
            name=name,
            ok=name not in missing,
            found="missing" if name in missing else "held",
            advice=f"needed to {use}; run as root, or give python {name.lower()} with `setcap`",
            needed_by=_DEMO,
        )
        for name, use in _USES.items()
    ]


def _probes() -> list[Finding]:
    """What bpf() does when it is called: a container may deny what capabilities allow."""
    advice = "run as root with CAP_BPF"
    if not missing_capabilities():
        advice = "the capabilities are held, so look at the container's seccomp profile"
    findings = []
    for name, (what, use, needed_by) in _PROBES.items():
        rc = lib.lbl_probe(what)
        findings.append(
            Finding(
                name=name,
                ok=rc == 0,
                found="works" if rc == 0 else os.strerror(-rc),
                advice=f"needed to {use}; {advice}",
                needed_by=needed_by,
            )
        )
    return findings


def find_bpffs(mounts: Path = Path("/proc/mounts")) -> Finding:
    """Where BPF file systems are mounted."""
    fields = [line.split() for line in mounts.read_text().splitlines()]
    points = [point for _, point, kind, *_ in fields if kind == "bpf"]
    return Finding(
        name="bpffs",
        ok=bool(points),
        found=", ".join(points) or "not mounted",
        advice="only pinned maps need it; mount it with `mount -t bpf bpf /sys/fs/bpf`",
        needed_by=(),
    )


def _libbpf() -> Finding:
    version = lib.lbl_libbpf_version()
    return Finding(
        name="libbpf",
        ok=version >= 1000,
        found=f"{version // 1000}.{version % 1000}",
        advice="needs libbpf 1.0 or newer",
    )


def _tools() -> Finding:
    missing = [tool for tool in ("ip", "nsenter") if shutil.which(tool) is None]
    return Finding(
        name="tools",
        ok=not missing,
        found=f"no {', no '.join(missing)}" if missing else "ip, nsenter",
        advice="the demo makes its networks with them; install iproute2 and util-linux",
        needed_by=_DEMO,
    )


def _source(source: type[Source], missing: Sequence[str]) -> Finding:
    lacking = [name for name in source.capabilities if name in missing]
    advice = "see above what this machine lacks; else look at the container's seccomp profile"
    if lacking:
        found = f"no {', no '.join(lacking)}"
        names = ",".join(source.capabilities).lower()
        advice = f"run as root, or give python {names} with `setcap`"
    else:
        try:
            source.try_out()
            found = "works"
        except (LatencyError, OSError) as error:
            found = str(error)
    return Finding(
        name=f"--{source.options[0].name}",
        ok=found == "works",
        found=found,
        advice=advice,
        needed_by=(),
    )


def _sources() -> list[Finding]:
    """Whether each source opens, by trying it, if its capabilities are held."""
    missing = missing_capabilities()
    return [_source(source, missing) for source in SOURCES]


def check_machine() -> list[Finding]:
    """Check the kernel, BTF, capabilities, what bpf() does, bpffs, libbpf, tools and sources."""
    return [
        _kernel(),
        _btf(),
        *_capabilities(),
        *_probes(),
        find_bpffs(),
        _libbpf(),
        _tools(),
        *_sources(),
    ]


def verdicts(findings: Sequence[Finding]) -> list[Verdict]:
    """What follows from the findings for each command."""

    def lacking(command: str) -> list[str]:
        return [each.name for each in findings if command in each.needed_by and not each.ok]

    demo, serve = lacking("demo"), lacking("serve")
    by_path_only = any(each.name == "look up ids" and not each.ok for each in findings)
    return [
        Verdict(
            "demo", not demo, f"needs {', '.join(demo)}; simulated until then" if demo else "yes"
        ),
        Verdict(
            "serve",
            not serve,
            f"needs {', '.join(serve)}"
            if serve
            else "yes, if maps are given by pin path; by id or name it needs CAP_SYS_ADMIN"
            if by_path_only
            else "yes",
        ),
    ]
