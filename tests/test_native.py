"""The C unit tests and the fuzz target: as they are, and under the sanitizers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

C_TESTS = Path(__file__).parent.parent / "csrc" / "tests"


@pytest.mark.parametrize("variant", ["plain", "asan", "tsan"])
def test_native(variant: str) -> None:
    """All C tests pass: plain, under ASan and UBSan, and under TSan."""
    ran = subprocess.run(
        ["make", "-s", "-j2", "-C", str(C_TESTS), f"VARIANT={variant}", "check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
