"""`lblatency serve --config`: what a file may say, what is told of mistakes, and reloads."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lblatency._rules import BackendRule, NameRule
from lblatency.cli import main
from lblatency.commands import _sources
from lblatency.commands._config import read_config
from lblatency.commands._settings import Settings
from lblatency.errors import LatencyError
from lblatency.exporter import Address
from lblatency.names import FileSd
from lblatency.sources import Sockets
from tests.support.fake_source import Fake
from tests.support.rig import wait_until

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake source is the only one."""
    monkeypatch.setattr(_sources, "SOURCES", (Fake,))
    monkeypatch.setattr(Fake, "opened", [])


def read(text: str) -> Settings:
    """The settings in a text."""
    return read_config("f.toml", text.encode())


FULL = """\
# All that can be said.
listen = ":9100"
metrics = ["lifetime", "connect"]
buckets = ["1,2", "connect=0.1"]
max-backends = 10
otlp = "http://c:4318"
otlp-interval = 5
wait = 1.5
conntrack = "/sys/fs/bpf/x"

[[source]]
fake = ["a", "b"]
count = 3
proxy = "web"
proxy-id = ["2=api", "10.0.0.1:80=shop"]
backend = "10.0.0.0/24:80=x"

[[source]]
fake = "c"
comm = ["haproxy=edge"]
names = "/n.json"
"""


@pytest.mark.parametrize(
    ("line", "comm", "place"),
    [
        ('haproxy = "/run/a.sock"', "haproxy=haproxy", "/run/a.sock"),
        ('envoy = "http://h:1"', "envoy=envoy", "http://h:1"),
        ("nginx = true", "nginx=nginx", ""),
        ('nginx = "/etc/n.conf"', "nginx=nginx", "/etc/n.conf"),
        ('nginx = true\nproxy = "web"', "nginx=web", ""),
    ],
)
def test_a_proxy_brings_its_sockets(
    line: str, comm: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where names of its servers are is all that must be said."""
    monkeypatch.setattr(_sources, "SOURCES", (Sockets,))
    settings = read(f"[[source]]\n{line}\n")
    (source,) = settings.sources
    assert dict(source.arguments) == {"comms": (NameRule.parse(comm),)}
    assert [at for _, at in settings.readers] == [place]


def test_all_that_flags_can_say() -> None:
    """Each key is a flag; sources have their own options, which are those of the constructor."""
    settings = read(FULL)
    assert settings.web.listen == (Address("", 9100),)
    assert settings.wait_s == 1.5
    assert settings.push is not None
    assert (settings.push.url, settings.push.interval_s) == ("http://c:4318/v1/metrics", 5)
    assert settings.conntrack == "/sys/fs/bpf/x"
    assert settings.recording["metrics"] == ("lifetime", "connect")
    assert settings.recording["buckets"] == {"lifetime": (1.0, 2.0), "connect": (0.1,)}
    assert settings.recording["max_backends"] == 10
    a, b, c = settings.sources
    rule = BackendRule.parse("10.0.0.0/24:80=x")
    assert dict(a.arguments) == {"fake": "a", "count": 3, "backends": (rule,)}
    assert dict(b.arguments) == {"fake": "b", "count": 3, "backends": (rule,)}
    assert dict(a.proxies) == {0: "web", 2: "api", "10.0.0.1:80": "shop"}
    assert [name for name, _ in c.arguments] == ["fake", "comms"]
    assert settings.readers == ((FileSd, "/n.json"),)
    assert c.proxies == ()


def test_every_flag_is_a_key() -> None:
    """The file lacks nothing that the command line has, except itself."""
    help_text = subprocess.run(
        [sys.executable, "-m", "tests.support.fake_source", "serve", "--help"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    flags = set(re.findall(r"^  --([a-z.-]+)", help_text, re.MULTILINE)) - {"help", "config"}
    with pytest.raises(LatencyError) as top:
        read("x = 1")
    with pytest.raises(LatencyError) as of_source:
        read("[[source]]\nx = 1")
    keys = {
        key
        for raised in (top, of_source)
        for key in str(raised.value).partition("may be: ")[2].split(", ")
    }
    assert keys == flags | {"source"}


GOOD = '[[source]]\nfake = "a"\nproxy = "web"\n'
MISTAKES = {
    "": (1, "say where events come from: a table [[source]] for each source"),
    "\n\nlisten = ':1'\n": (1, "say where events come from"),
    "source = 5": (1, "say where events come from"),
    "x = 1\nsource = []": (1, "unknown key 'x'"),
    "\nsource = []": (2, "say where events come from"),
    "source = [1]": (1, "say where events come from"),
    "[source]\nfake = 'a'": (1, "say where events come from"),
    "[[sources]]\nfake = 'a'": (1, "unknown key 'sources'; above the first [[source]] may be: "),
    f"{GOOD}colour = 1": (
        4,
        "unknown key 'colour'; in [[source]] may be: haproxy, nginx, envoy, names, fake, ",
    ),
    f"{GOOD}listen = ':1'": (4, "unknown key 'listen'; in [[source]] may be"),
    f"{GOOD}\n[[source]]\n\n# here\nfake = 'b'\nproxy = 'b'\n'' = 1": (10, "unknown key ''"),
    f"max_backends = 5\n{GOOD}": (1, "unknown key 'max_backends'"),
    f"proxy = 'web'\n{GOOD}": (1, "unknown key 'proxy'"),
    "[[source]]\nproxy = 'a'": (
        1,
        "this [[source]] opens none; it needs one of: haproxy, nginx, envoy, fake",
    ),
    f"{GOOD}[[source]]\ncount = 1": (
        4,
        "this [[source]] opens none; it needs one of: haproxy, nginx, envoy, fake",
    ),
    "[[source]]\nfake = []\nproxy = 'web'": (1, "this [[source]] opens none"),
    "[[source]]\nfake = 'a'": (1, "say proxy NAME: the proxy_name label"),
    "[[source]]\nfake = 'a'\ncomm = ['x=y', 'x']": (1, "say proxy NAME"),
    "[[source]]\nfake = 5\nproxy = 'web'": (2, 'fake must be text in quotes: "NAME", or a list'),
    "[[source]]\nfake = 'a'\nproxy = ['web']": (3, 'proxy must be text in quotes: "NAME"'),
    "[[source]]\nfake = 'a'\nproxy = true": (3, 'proxy must be text in quotes: "NAME"'),
    "[[source]]\nfake = 'a'\nproxy = ''": (3, "proxy: proxy name must not be empty"),
    f"{GOOD}count = '5'": (4, "count must be a number"),
    f"{GOOD}count = true": (4, "count must be a number"),
    f"{GOOD}count = 1.5": (4, "count: invalid literal for int"),
    f"{GOOD}count = 1979-05-27": (4, "count must be a number"),
    f"{GOOD}proxy-id = 'x'": (4, "proxy-id: 'x' is not of the form ID=NAME"),
    f"{GOOD}proxy-id = '0=x'": (4, "proxy-id: proxy id 0"),
    f"{GOOD}proxy-id = '99999=x'": (4, "proxy-id: proxy id 99999 must be 1 to 65535"),
    f"{GOOD}proxy-id = {{ 1 = 'x' }}": (4, "proxy-id must be text in quotes"),
    f"{GOOD}backend = '10.0.0.1'": (4, "backend: '10.0.0.1' is not of the form ADDR[/LEN]:PORT"),
    f"{GOOD}backend = [\n'10.0.0.1:1',\n\n'10.0.0.1:0']": (7, "backend: '10.0.0.1:0': ports must"),
    f"{GOOD}backend = [['10.0.0.1:1']]": (4, "backend must be text in quotes"),
    f"{GOOD}comm = '=x'": (4, "comm: '=x' is not of the form NAME[=PROXY]"),
    f"{GOOD}envoy = 'x'": (4, "envoy: 'x' is not a URL of the form http://HOST:PORT"),
    f"{GOOD}envoy = true": (4, 'envoy must be text in quotes: "URL"'),
    f"{GOOD}nginx = false": (4, 'nginx must be text in quotes: "CONF" or true'),
    f"{GOOD}nginx = 1": (4, 'nginx must be text in quotes: "CONF" or true'),
    f"listen = 80\n{GOOD}": (1, 'listen must be text in quotes: "[ADDR]:PORT"'),
    f"listen = '80'\n{GOOD}": (1, "listen: '80' has no port"),
    f"\nmetrics = 'size'\n{GOOD}": (2, "'size' must be one of lifetime"),
    f"metrics = [\n'connect']\n{GOOD}": (1, "must include 'lifetime'"),
    f"buckets = 'x'\n{GOOD}": (1, "buckets: 'x' is not of the form SECONDS,SECONDS"),
    f"wait = 1\nbuckets = '2,1'\n{GOOD}": (2, "ascending"),
    f"buckets = [1, 2]\n{GOOD}": (1, "buckets must be text in quotes"),
    f"buckets = 'connect=1'\n{GOOD}": (1, "connect"),
    f"max-backends = 0\n{GOOD}": (1, "max_backends must be 1 to"),
    f"max-backends = 1.5\n{GOOD}": (1, "max-backends: '1.5' is not a whole number"),
    f"wait = -1\n{GOOD}": (1, "wait: '-1' is not a number of seconds"),
    f"wait = nan\n{GOOD}": (1, "wait: 'nan' is not a number of seconds"),
    f"otlp = 1\n{GOOD}": (1, 'otlp must be text in quotes: "URL" or true'),
    f"otlp = 'c:4318'\n{GOOD}": (1, "otlp: 'c:4318' is not of the form http[s]://HOST[:PORT]"),
    f"otlp = true\notlp-interval = 0.5\n{GOOD}": (2, "otlp-interval: 0.5 is not a number of"),
    f"\notlp-interval = 5\n{GOOD}": (2, "otlp-interval is of no use without otlp"),
    f"{GOOD}count = 1\ncount = 2": (5, "Cannot overwrite a value"),
    f"{GOOD}count = 1\ncount = 2\n\n": (5, "Cannot overwrite a value"),
    f"{GOOD}count = ": (4, "Invalid value"),
    f"{GOOD}count == 1\n": (4, "Invalid value"),
    f"{GOOD}comm = ['a',\n\n": (4, "Invalid value"),
    f'{GOOD}comm = """a\n': (4, "Unterminated string"),
    "listen = ':1'\n= 5\n": (2, "Invalid statement"),
    "\x00": (1, "Invalid statement"),
    f"wait = {'9' * 5000}": (1, "it is no TOML that can be read: "),
    f"\n\n{'[[' * 5000}": (3, "Invalid initial character"),
    f"wait = {'[' * 5000}{']' * 5000}": (1, "it is no TOML that can be read: "),
}


@pytest.mark.parametrize("text", MISTAKES, ids=range(len(MISTAKES)))
def test_each_mistake_has_a_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr: the file, the number of the line, what is wrong, what is allowed."""
    path = tmp_path / "f.toml"
    path.write_text(text)
    line, why = MISTAKES[text]
    assert main(["serve", "--config", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"lblatency: {path}:{line}: ")
    assert why in err
    assert len(err) < 1000


@pytest.mark.parametrize(
    ("data", "line"), [(b"\xff", 1), (b"wait = 1\n\n# \xc3\n", 3)], ids=["start", "later"]
)
def test_what_is_no_text_has_a_line(data: bytes, line: int) -> None:
    """The first byte that is not UTF-8."""
    with pytest.raises(LatencyError, match=rf"^f\.toml:{line}: it is not UTF-8$"):
        read_config("f.toml", data)


def test_windows_files_are_read() -> None:
    """With a byte order mark, and lines that end with CR LF."""
    data = b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()
    (source,) = read_config("f.toml", data).sources
    assert dict(source.arguments) == {"fake": "a"}
    with pytest.raises(LatencyError, match=r"^f\.toml:4: unknown key 'x'"):
        read_config("f.toml", data + b"x = 1\r\n")


def test_a_long_file_is_told_quickly() -> None:
    """The line is searched for by halves: the last of 10,000 takes no more than a few parses."""
    text = GOOD + "".join(f"# {n}\n" for n in range(10_000)) + "x = 1\n"
    began = time.monotonic()
    with pytest.raises(LatencyError, match=r"^f\.toml:10004: unknown key 'x'"):
        read(text)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("absent", "cannot read .*: No such file or directory"),
        (".", "is not a regular file|Is a directory"),
        ("fifo", "is not a regular file"),
        ("large", "has more than 1 MiB"),
        ("a\0b", "cannot read .*null"),
    ],
)
def test_what_is_no_file_is_told(
    name: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does not wait for a pipe, and does not read without end."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"#" * (1 << 20) + b"#")
    assert main(["serve", "--config", f"{tmp_path}/{name}"]) == 1
    assert re.fullmatch(f"lblatency: .*({why}).*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    "others", [["--fake", "a"], ["--proxy", "web"], ["--listen", ":1"], ["--wait", "0"]]
)
def test_a_file_says_all(others: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Flags beside it are refused, so that the file is the whole truth."""
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--config", "f.toml", *others])
    assert ended.value.code == 2
    assert f"--config and {others[0]}: say all of it in the file" in capsys.readouterr().err


# ---- reloads ----


class Served:
    """A running `serve --config` with the fake source."""

    def __init__(self, path: Path, process: subprocess.Popen[str]) -> None:
        self._path = path
        self._process = process
        self.said: list[str] = []
        self.url = self.until("metrics at (.*)")

    def until(self, pattern: str) -> str:
        """Read what it says until a line has the pattern; returns its group, or all of the line."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said.append(line)
            if found := re.search(pattern, line):
                return found[1] if found.lastindex else line
        raise AssertionError(f"no {pattern!r} in {self.said}")

    def write(self, text: str, *, in_place: bool = False) -> None:
        """Replace the file, as editors do, or write into it."""
        if in_place:
            self._path.write_text(text)
        else:
            new = self._path.with_suffix(".new")
            new.write_text(text)
            new.replace(self._path)

    def hang_up(self) -> None:
        """Send SIGHUP."""
        self._process.send_signal(signal.SIGHUP)

    def values(self) -> dict[str, float]:
        """All samples of a scrape."""
        with urllib.request.urlopen(self.url, timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def total(self) -> float:
        """How many connections were recorded."""
        return sum(
            value
            for name, value in self.values().items()
            if name.startswith("lb_backend_latency_seconds_count")
        )


@contextmanager
def serving(path: Path, text: str) -> Iterator[Served]:
    """Serve a file until the end of the block, which must be orderly."""
    path.write_text(text)
    command = [sys.executable, "-m", "tests.support.fake_source", "serve", "--config", str(path)]
    with subprocess.Popen(command, text=True, stderr=subprocess.PIPE, cwd=ROOT) as process:
        try:
            yield Served(path, process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()


ANY_PORT = 'listen = "127.0.0.1:0"\n'
A = '[[source]]\nfake = "a"\ncount = 5\nproxy = "web"\n'
B = '[[source]]\nfake = "b"\ncount = 3\nproxy = "web"\n'
SUCCESSFUL = "lblatency_config_last_reload_successful"
SUCCESS_TIME = "lblatency_config_last_reload_success_timestamp_seconds"


@pytest.mark.parametrize("in_place", [False, True])
def test_a_change_is_taken_over_and_counts_stay(tmp_path: Path, in_place: bool) -> None:
    """Sources are added and removed; those that stay are not opened again, and no count is lost."""
    with serving(tmp_path / "f.toml", ANY_PORT + A) as served:
        wait_until(lambda: served.total() == 5, "the first source")
        before = served.values()
        assert before[SUCCESSFUL] == 1
        assert abs(before[SUCCESS_TIME] - time.time()) < 60
        served.write(ANY_PORT + A + B, in_place=in_place)
        served.until("is read again")
        wait_until(lambda: served.total() == 8, "the second source")
        after = served.values()
        assert after[SUCCESSFUL] == 1
        assert after[SUCCESS_TIME] > before[SUCCESS_TIME]
        served.write(ANY_PORT + B, in_place=in_place)
        served.until("is read again")
        assert served.total() == 8
        assert served.values()['lblatency_events_lost_total{reason="fake_full"}'] == 0


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (ANY_PORT + A + "x = 1\n", ":6: unknown key 'x'"),
        (ANY_PORT + A + '[[source]]\nfake = "broken"\nproxy = "web"\n', ":6: it is broken; repair"),
        (ANY_PORT + A + '[[source]]\nfake = "away"\nproxy = "web"\n', "no BPF map is pinned"),
        (ANY_PORT + "max-backends = 7\n" + A, "cannot change while it runs; restart it"),
        (ANY_PORT + "otlp = true\n" + A, "cannot change while it runs; restart it"),
        ('listen = "127.0.0.1:1"\n' + A, "cannot change while it runs; restart it"),
        (ANY_PORT + 'conntrack = "/nowhere/map"\n' + A, "/nowhere/map"),
    ],
)
def test_a_broken_file_keeps_the_old_one(tmp_path: Path, broken: str, why: str) -> None:
    """It is told once per change, and by metrics; a good file sets all right again."""
    with serving(tmp_path / "f.toml", ANY_PORT + A) as served:
        good_at = served.values()[SUCCESS_TIME]
        served.write(broken)
        assert why in served.until("; what was there goes on")
        wait_until(lambda: served.values()[SUCCESSFUL] == 0, "the metric")
        values = served.values()
        assert values[SUCCESS_TIME] == good_at
        assert values["lblatency_running"] == 1
        wait_until(lambda: served.total() == 5, "the source that stayed")
        said = len(served.said)
        served.hang_up()
        served.until("; what was there goes on")
        assert len(served.said) == said + 1  # it was not told again before the signal
        served.write(ANY_PORT + A)
        served.until("is read again")
        assert served.values()[SUCCESSFUL] == 1
        assert served.total() == 5


def test_sighup_reads_the_file_again(tmp_path: Path) -> None:
    """Also if it has not changed: what a rule means may have."""
    with serving(tmp_path / "f.toml", ANY_PORT + A) as served:
        before = served.values()[SUCCESS_TIME]
        served.hang_up()
        served.until("is read again")
        assert served.values()[SUCCESS_TIME] > before


def test_a_file_that_goes_is_told(tmp_path: Path) -> None:
    """All goes on without it; it is told once."""
    with serving(tmp_path / "f.toml", ANY_PORT + A) as served:
        (tmp_path / "f.toml").unlink()
        assert "cannot read" in served.until("what was there goes on")
        said = len(served.said)
        served.write(ANY_PORT + A)
        served.until("is read again")
        assert len(served.said) == said + 1


def test_a_source_is_opened_as_soon_as_it_is_pinned(tmp_path: Path) -> None:
    """While it is waited for, another file takes its place."""
    away = '[[source]]\nfake = "away"\nproxy = "web"\n'
    with serving(tmp_path / "f.toml", ANY_PORT + away) as served:
        assert "waiting for it" in served.said[0]
        assert served.values()["lblatency_running"] == 0
        served.write(ANY_PORT + A)
        served.until("is read again")
        wait_until(lambda: served.total() == 5, "the source")


def test_a_source_that_is_not_there_keeps_no_other_one_waiting(tmp_path: Path) -> None:
    """It is told, and the others are recorded meanwhile."""
    away = '[[source]]\nfake = "away"\nproxy = "web"\n'
    with serving(tmp_path / "f.toml", ANY_PORT + away + A) as served:
        assert "waiting for it" in served.said[0]
        wait_until(lambda: served.total() == 5, "the source that is there")
        served.write(ANY_PORT + A)
        served.until("is read again")
        assert served.total() == 5


def test_what_must_be_opened_again_is(tmp_path: Path) -> None:
    """If a file replaces a source by one that does not open, the old one is opened once more."""
    changed = A.replace("count = 5", 'count = 6\ncomm = "x=y"')
    broken = changed + '[[source]]\nfake = "broken"\nproxy = "web"\n'
    with serving(tmp_path / "f.toml", ANY_PORT + A) as served:
        wait_until(lambda: served.total() == 5, "the first source")
        served.write(ANY_PORT + broken)
        served.until("what was there goes on")
        wait_until(lambda: served.total() == 10, "the first source, opened again")
        assert served.values()["lblatency_running"] == 1


def test_the_example_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """examples/lblatency.toml is read; what it has as comments is, too."""
    from lblatency.sources import SOURCES

    monkeypatch.setattr(_sources, "SOURCES", SOURCES)
    text = (ROOT / "examples" / "lblatency.toml").read_text()
    assert read(text).sources
    everything = re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE)
    assert len(read(everything).sources) > len(read(text).sources)
