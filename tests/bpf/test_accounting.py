"""The sums of each tracker, while the kernel produces events and signals arrive."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import bpf
from tests.support.clang import compiled

if TYPE_CHECKING:
    from pathlib import Path as PathType

pytestmark = pytest.mark.bpf

ROOT = Path(__file__).parents[2]
ROUNDS = 1000


def test_every_sum_is_exact_in_a_storm_of_signals(bpffs: bpf.Bpffs, tmp_path: PathType) -> None:
    """All sums are exact after 1,000 starts and stops, with a signal per ms."""
    bpf.load(compiled("filler", tmp_path), bpffs)
    ran = subprocess.run(
        [sys.executable, "-X", "dev", "-m", "tests.support.storm", bpffs.path, str(ROUNDS)],
        cwd=ROOT,
        pass_fds=[bpffs.fd],
        capture_output=True,
        text=True,
        timeout=120,
    )
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
