"""What all tests rely on, on a machine that does other work too."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import HealthCheck, settings

from csrc.build_bpf import search_sbin


def test_examples_have_no_deadline() -> None:
    """A machine with other work fails no test by being slow, whatever else a test sets."""
    for each in (settings(), settings(max_examples=5)):
        assert each.deadline is None
        assert HealthCheck.too_slow in each.suppress_health_check


def test_tools_are_found_in_sbin(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user's PATH has no /usr/sbin; what is in PATH comes first."""
    monkeypatch.setenv("PATH", "/nowhere:/usr/bin:/bin")
    search_sbin()
    assert shutil.which("bpftool")
    assert os.environ["PATH"].startswith("/nowhere:/usr/bin:/bin:")
