"""The C unit tests and the fuzz targets. `make sanitize` has them under the sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

C_TESTS = Path(__file__).parent.parent / "csrc" / "tests"


def test_native() -> None:
    """All C tests pass."""
    ran = subprocess.run(
        ["make", "-s", "-j2", "-C", str(C_TESTS), "VARIANT=plain", "check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
