"""What holds for all tests: tools in /usr/sbin, no deadlines, and where BPF cannot be tested."""

from __future__ import annotations

import functools
import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from csrc.build_bpf import search_sbin
from lblatency.commands import serve, tail
from tests.support import bpf

search_sbin()
# A shell's background job ignores Ctrl-C, and what it starts inherits that: tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example takes tells about the machine's other work, not about us.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

REQUIRE_BPF = os.environ.get("LBLATENCY_REQUIRE_BPF") == "1"


@functools.cache
def bpf_refusal() -> str | None:
    """Why BPF tests cannot run here; None if they can."""
    if os.geteuid():
        return "needs root"
    if not os.path.exists("/sys/kernel/btf/vmlinux"):
        return "the kernel has no BTF"
    try:
        os.close(bpf.create_map(bpf.HASH, 4, 4, 1))
    except OSError as error:
        return f"the kernel refuses BPF: {error.strerror}"
    return None


@pytest.fixture(autouse=True)
def _keeps_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that runs in this process must not give up what the tests need."""
    for command in (serve, tail):
        monkeypatch.setattr(command, "keep_only", lambda _names: None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip BPF tests if the kernel refuses BPF, and say why; fail if BPF is required."""
    if item.get_closest_marker("bpf") and (reason := bpf_refusal()):
        if REQUIRE_BPF:
            pytest.fail(f"LBLATENCY_REQUIRE_BPF=1, but {reason}")
        pytest.skip(reason)
