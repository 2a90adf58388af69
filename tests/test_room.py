"""Address space: what imports, trackers and starts reserve, and what to do where it is scarce."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from lblatency import LatencyTracker
from lblatency._room import no_room

LIMIT = 512 << 20
HEADER = """
    import resource
    from pathlib import Path
    import lblatency
    from lblatency import LatencyTracker, stats

    def used():
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

    def start(tracker):
        stream = stats.create_event_stream(stats.MemoryRing(4096))
        tracker.start(stream, None, "web")
        return stream
"""


def limited(*command: str, limit: int = LIMIT) -> str:
    """Run a command with limited address space; return what it prints."""
    ran = subprocess.run(
        command,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def python(code: str, limit: int = LIMIT) -> str:
    """Run code in another Python with limited address space; return what it prints."""
    return limited(
        sys.executable, "-c", textwrap.dedent(HEADER) + textwrap.dedent(code), limit=limit
    )


def test_importing_reserves_nothing() -> None:
    """Neither an import nor `--version` needs more than Python itself."""
    assert limited(sys.executable, "-c", "import lblatency, lblatency.cli", limit=64 << 20) == ""
    assert limited(str(Path(sys.executable).parent / "lblatency"), "--version").strip()


def test_recording_by_hand_reserves_what_it_uses() -> None:
    """The default tracker works in little address space, and grows with its backends."""
    code = """
        before = used()
        for i in range(2000):
            lblatency.record_latency("web", f"10.0.{i >> 8}.{i & 255}:80", 0.5 + i)
        everything = lblatency.get_all_histograms()
        assert len(everything) == 2000
        for i in range(2000):
            histogram = everything["web", f"10.0.{i >> 8}.{i & 255}:80"]
            assert histogram["count"] == 1 and histogram["sum"] == 0.5 + i
        assert used() - before < 64 << 20, used() - before
    """
    python(code, limit=256 << 20)


def test_a_small_tracker_reserves_little() -> None:
    """Ten backends take kilobytes; starting takes a thread's stack and the ids of events."""
    code = """
        start(LatencyTracker(max_backends=10)).close()  # loads all code
        before = used()
        trackers = [LatencyTracker(max_backends=10) for _ in range(10)]
        print((used() - before) / 10 / 2**20)
        before = used()
        streams = [start(tracker) for tracker in trackers]
        print((used() - before) / 10 / 2**20)
    """
    made, started = map(float, python(code).split())
    assert made < 0.5
    assert started < 8 + 4 + 1


def test_the_default_tracker_can_start_in_half_a_gibibyte() -> None:
    """It reserves for its backends once per ring."""
    code = """
        before = used()
        start(lblatency.default_tracker)
        print((used() - before) / 2**20)
    """
    assert 280 < float(python(code)) < 350


def test_what_an_error_advises_fits() -> None:
    """It names the limit, with its value, and a number of backends that can be followed."""
    code = """
        tracker = LatencyTracker(max_backends={})
        try:
            start(tracker)
        except MemoryError as error:
            print(error)
    """
    error = python(code.format(1_000_000))
    assert "no address space for 1000000 backends per ring" in error
    assert f"RLIMIT_AS leaves 4{error.split('leaves 4')[1][:2]} MiB" in error
    assert "`ulimit -v` is 524288" in error
    found = re.search(r"max_backends=(\d+) fits", error)
    assert found is not None
    fits = int(found[1])
    assert 100_000 < fits < 160_000
    assert python(code.format(fits)) == ""
    assert "max_backends=" in python(code.format(fits * 3 // 2))


def test_what_is_refused_without_a_limit() -> None:
    """Where no limit is set, the message does not speak of one."""
    error = str(no_room(100, 3000, 2))
    assert "for 100 backends per ring (2 * 16 MiB): memory is exhausted" in error
    assert "RLIMIT_AS" not in error
    assert "lower max_backends" in error


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e10])
def test_expire_after_has_limits(seconds: float) -> None:
    """Other values are a ValueError, and leave nothing behind."""
    with pytest.raises(ValueError, match="expire_after must be more than 0"):
        LatencyTracker(expire_after=seconds)


@pytest.mark.parametrize("seconds", ["1", True, b"", [1]])
def test_expire_after_is_a_number(seconds: object) -> None:
    """Something else is a TypeError."""
    with pytest.raises(TypeError, match="expire_after must be seconds or None"):
        LatencyTracker(expire_after=seconds)  # type: ignore[arg-type]
