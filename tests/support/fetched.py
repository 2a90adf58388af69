"""Servers that are newer than this system's, fetched when a test asks."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SERVERS = ROOT / "build" / "servers"


@cache
def _why_not(package: str) -> str | None:
    """Fetch a package's program, if it is not there; why it cannot be, or None."""
    if (SERVERS / package).exists():
        return None
    command = [str(ROOT / "tools" / "fetch-servers"), str(SERVERS), package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else " ".join(done.stderr.split()) or "apt failed"


def fetched(package: str) -> str:
    """The program that a package is called after, from Debian's unstable; or skip."""
    if why := _why_not(package):
        pytest.skip(f"{package} of Debian's unstable cannot be fetched: {why}")
    return str(SERVERS / package)
