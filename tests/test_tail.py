"""`lblatency tail`: a line per connection as it ends."""

from __future__ import annotations

import json
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lblatency import stats
from lblatency.cli import main
from lblatency.commands import _sources
from tests.support.fake_source import Fake, closed


def tail(*argv: str, **rest: Any) -> subprocess.Popen[str]:
    """Start the command with the fake source."""
    command = [sys.executable, "-m", "tests.support.fake_source", "tail", "--fake", "a", *argv]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | rest
    return subprocess.Popen(command, text=True, **pipes)


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_lines_come_at_once_and_the_end_is_quiet(ended_by: signal.Signals) -> None:
    """Its lines can be read while it runs; a signal ends it without a word."""
    with tail("--count", "2") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(ended_by)
        out, err = process.communicate(timeout=30)
    assert lines[0].split()[0] == "TIME"
    assert [line.split()[2] for line in lines[1:]] == ["10.0.0.1:80", "10.0.0.2:80"]
    assert (out, err, process.returncode) == ("", "", 128 + ended_by)


@pytest.mark.parametrize("count", [0, 1000])
def test_the_end_of_the_reader_is_the_end(count: int) -> None:
    """`lblatency tail | head -1` ends, also while no connection does."""
    with tail("--count", str(count)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_who_reads_too_slowly_is_told_what_is_missing() -> None:
    """Events that the queue had no room for are counted on stderr."""
    script = (
        "import sys; from lblatency.commands import tail; tail._QUEUE = 5;"
        "sys.argv[1:] = ['tail', '--fake', 'a', '--count', '50', '--json'];"
        "import runpy; runpy.run_module('tests.support.fake_source', run_name='__main__')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    found = re.fullmatch(r"lblatency: (\d+) events are missing here, .*\n", told)
    assert found
    assert int(found[1]) + len(out.splitlines()) == 50


class Ending(Fake):
    """A source whose first tick produces what a test says, and whose second one interrupts."""

    events: tuple[bytes, ...] = ()

    def tick(self) -> None:
        """Produce, then interrupt."""
        super().tick()
        if self.ticks == 1:
            for event in self.events:
                assert self.ring.produce(event)
            self.stream.drain()
        else:
            raise KeyboardInterrupt


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Ending]]:
    """The source is the only one; a test that hangs is interrupted."""
    monkeypatch.setattr(_sources, "SOURCES", (Ending,))
    monkeypatch.setattr("lblatency.commands.tail._TICK_S", 0.05)
    in_vain = threading.Timer(20, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
    in_vain.start()
    yield Ending
    in_vain.cancel()
    in_vain.join()


def printed(capfd: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    """The lines of the command, in this process."""
    with pytest.raises(KeyboardInterrupt):
        main(["tail", "--fake", "a", *argv])
    assert not Ending.opened[-1].is_open
    return capfd.readouterr().out.splitlines()


EVENTS = (
    closed(lifetime_ns=1_234_567, reason="fin", connect_us=100, first_byte_us=2_000, proxy_id=1),
    closed("[2001:db8::1]:8080", 60 * 10**9, reason="rst", first_byte_us=stats.NEVER),
    closed("10.0.0.2:81", reason="connect_failed", connect_us=stats.NEVER),
    stats.Event("closed", "10.0.0.3:81", 5 * 10**9, 0, probe=True).pack(),
    stats.Event("opened", "10.0.0.4:81", 5 * 10**9).pack(),
)


def test_columns_are_aligned(
    ending: type[Ending], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Titles and lines; what was not measured is `-`, what never came is `never`."""
    monkeypatch.setattr(ending, "events", EVENTS)
    titles, *lines = printed(capfd, "--comm", "x=web", "--proxy", "others")
    assert [line.split()[1:] for line in lines] == [
        ["web", "10.0.0.1:80", "1.235", "0.100", "2.000", "fin"],
        ["others", "[2001:db8::1]:8080", "60000.000", "-", "never", "rst"],
        ["others", "10.0.0.2:81", "-", "never", "-", "connect_failed"],
        ["others", "10.0.0.3:81", "-", "-", "-", "unknown", "(probe)"],
    ]
    reason = titles.index("REASON")
    assert all(line[reason - 1] == " " and line[reason] != " " for line in lines)
    (ended_ns,) = struct.unpack_from("=Q", EVENTS[0], 8)  # timestamp_ns
    age = (time.monotonic_ns() - ended_ns) / 10**9
    around = [time.localtime(time.time() - age + seconds) for seconds in (-1, 0, 1)]
    assert lines[0][:8] in [time.strftime("%H:%M:%S", each) for each in around]


def test_json_tells_all(
    ending: type[Ending], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object per line: seconds; without what is not known, null for what never came."""
    monkeypatch.setattr(ending, "events", EVENTS)
    first, second, failed, probe = map(json.loads, printed(capfd, "--json", "--comm", "x=web"))
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "proxy": "web", "backend": "10.0.0.1:80", "lifetime_s": 0.001234567, "connect_s": 0.0001,
        "first_byte_s": 0.002, "reason": "fin", "protocol": 6, "probe": False,
    }  # fmt: skip
    assert second["first_byte_s"] is None
    assert "connect_s" not in second
    assert "proxy" not in second
    assert failed["connect_s"] is None
    assert "lifetime_s" not in failed
    assert probe["probe"]


def test_backends_are_filtered(
    ending: type[Ending], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--backend` may be given again; its networks and ports are those of the rules."""
    monkeypatch.setattr(ending, "events", EVENTS)
    lines = printed(
        capfd, "--json", "--backend", "[2001:db8::]/32:8000-8999", "--backend", "10.0.0.0/30:81"
    )
    assert [json.loads(line)["backend"] for line in lines] == [
        "[2001:db8::1]:8080", "10.0.0.2:81", "10.0.0.3:81",
    ]  # fmt: skip


def test_a_place_that_cannot_be_read_is_told_once(
    ending: type[Ending], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A file that is not there yet ends nothing; the connections come without names."""
    ending.events = ()
    with pytest.raises(KeyboardInterrupt):
        main(["tail", "--fake", "a", "--names", str(tmp_path / "absent.json")])
    (told,) = capfd.readouterr().err.splitlines()
    assert told.startswith(f"lblatency: {tmp_path}/absent.json: No such file or directory; ")


@pytest.mark.parametrize("command", ["serve", "tail"])
def test_a_malformed_file_of_names_is_an_error(command: str, tmp_path: Path) -> None:
    """At the start, with its line."""
    path = tmp_path / "names.json"
    path.write_text("[\n\n{}]")
    argv = [command, "--fake", "a", "--proxy", "web", "--names", str(path)]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.fake_source", *argv],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"lblatency: {path}: line 3: a group is ")
    assert ran.stderr.count("\n") == 1
