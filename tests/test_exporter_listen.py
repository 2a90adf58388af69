"""Where `serve` listens: addresses, unix sockets, and what systemd passes and wants to hear."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lblatency.errors import LatencyError
from lblatency.exporter import Address, systemd
from lblatency.exporter.listen import Listener
from tests.support.rig import wait_until
from tests.support.web import read_all

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
FAKE = [sys.executable, "-m", "tests.support.fake_source", "serve"]
SERVE = [*FAKE, "--fake", "a", "--proxy", "web"]
# What systemd does: the sockets from 3 on, and the pid of who is to have them.
HAND_OVER = """
import os, sys
for place, fd in enumerate(map(int, sys.argv[1].split(",")), 3):
    os.dup2(fd, place + 100)
for place in range(3, 3 + len(sys.argv[1].split(","))):
    os.dup2(place + 100, place, inheritable=True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(place - 2)}
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@contextmanager
def serving(command: list[str], count: int = 1, **env: str) -> Iterator[tuple[list[str], int]]:
    """Run `serve` until the end of the block; yields its URLs and its pid."""
    fds = [int(fd) for fd in command[3].split(",")] if command[1] == "-c" else []
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **env},
        pass_fds=fds,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(count)]
        assert all("metrics at " in line for line in lines), lines
        yield [line.rpartition(" ")[2].strip() for line in lines], process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()


def ping(sock: socket.socket) -> bool:
    """Whether an exporter answers."""
    with closing(sock):
        sock.settimeout(20)
        sock.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return read_all(sock).endswith(b"healthy\n")


def at(url: str) -> socket.socket:
    """A connection to a URL that was told."""
    if url.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(url.removeprefix("unix:"))
        return sock
    host, _, port = url.split("/")[2].rpartition(":")
    return socket.create_connection(({"[::]": "::1"}.get(host, host.strip("[]")), int(port)))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":9", Address("", 9)),
        ("[::1]:9", Address("::1", 9)),
        ("localhost:0", Address("localhost", 0)),
        ("unix:/run/x", Address(path="/run/x")),
        ("unix:x", Address(path="x")),
    ],
)
def test_addresses_are_written_in_many_ways(text: str, address: Address) -> None:
    """And shown as they were written."""
    assert Address.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "9", "::1:9", "a:65536", "a:-1", "a:", "unix:", "a:9x"])
def test_others_are_refused(text: str) -> None:
    """With what is wrong."""
    with pytest.raises(ValueError, match=r"has no|is not 0 to 65535"):
        Address.parse(text)


def test_several_addresses_at_once(tmp_path: Path) -> None:
    """By either flag, each as often as you like; all are told, and the unix socket goes."""
    path = tmp_path / "socket"
    longer = ["--web.listen-address", "127.0.0.1:0", "--web.listen-address", f"unix:{path}"]
    command = [*SERVE, *longer, "--listen", "[::1]:0", "--listen", ":0"]
    with serving(command, 4) as (urls, _):
        assert [url.rpartition(":")[0] for url in urls] == [
            "http://[::1]", "http://[::]", "http://127.0.0.1", "unix",
        ]  # fmt: skip
        assert all(ping(at(url)) for url in urls)
    assert not path.exists()


def test_addresses_are_keys_of_the_file(tmp_path: Path) -> None:
    """`web.listen-address`, in either of TOML's ways of writing."""
    web = tmp_path / "web.yml"
    web.write_text("http_server_config: {headers: {X-Frame-Options: deny}}\n")
    config = tmp_path / "f.toml"
    source = '[[source]]\nfake = "a"\nproxy = "web"\n'
    for text in (
        f'web.listen-address = ["127.0.0.1:0"]\nweb.config.file = "{web}"\n',
        f'[web]\nlisten-address = "127.0.0.1:0"\nconfig.file = "{web}"\n',
    ):
        config.write_text(f'listen = "127.0.0.1:0"\n{text}{source}')
        with serving([*FAKE, "--config", str(config)], 2) as (urls, _):
            for url in urls:
                with at(url) as sock:
                    sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    assert b"X-Frame-Options: deny\r\n" in read_all(sock)


@pytest.mark.parametrize("address", [Address("127.0.0.1", 0), Address("", 0), Address("::1", 0)])
def test_an_address_in_use_is_told_in_a_line(address: Address) -> None:
    """With the address, and without Python's own words."""
    with Listener(address.bind()) as first:
        taken = Address(address.host, first.socket.getsockname()[1])
        with pytest.raises(LatencyError) as refused:
            taken.bind()
    assert str(refused.value) == f"cannot listen on {taken}: Address already in use"
    Listener(taken.bind()).close()


def test_a_unix_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    """One that a process listens on is not, nor is a file."""
    path = tmp_path / "socket"
    address = Address(path=str(path))
    address.bind().close()  # as by a process that was killed
    assert path.is_socket()
    with (
        Listener(address.bind(), str(path)),
        pytest.raises(LatencyError, match=rf"unix:{path}: Address already in use"),
    ):
        address.bind()
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(LatencyError, match="Address already in use"):
        address.bind()
    assert path.read_text() == "mine"
    for bad, why in (
        (tmp_path / "no/socket", "No such file"),
        (tmp_path / ("x" * 200), "too long"),
    ):
        with pytest.raises(LatencyError, match=why):
            Address(path=str(bad)).bind()


def test_sockets_of_systemd_are_served(tmp_path: Path) -> None:
    """All that were passed, and the default address is not; children do not inherit them."""
    path = tmp_path / "socket"
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(path))
        unix.listen()
        waiting = socket.create_connection(tcp.getsockname())  # before the service starts
        command = [sys.executable, "-c", HAND_OVER, f"{tcp.fileno()},{unix.fileno()}", *SERVE[1:]]
        with serving(command, 2) as (urls, pid):
            assert urls == [
                f"http://127.0.0.1:{tcp.getsockname()[1]}/metrics", f"unix:{path}",
            ]  # fmt: skip
            assert ping(waiting)
            assert all(ping(at(url)) for url in urls)
            for fd in (3, 4):
                flags = int(Path(f"/proc/{pid}/fdinfo/{fd}").read_text().split()[3], 8)
                assert flags & os.O_CLOEXEC
    assert path.exists()  # it is systemd's


@pytest.mark.parametrize(("pid", "fds"), [("1", "1"), ("", ""), ("x", "1"), (None, "x")])
def test_sockets_for_others_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, pid: str | None, fds: str
) -> None:
    """A process that inherits the variables is not the one that is meant."""
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()) if pid is None else pid)
    monkeypatch.setenv("LISTEN_FDS", fds)
    assert systemd.passed_sockets() == []
    assert "LISTEN_PID" not in os.environ


def test_what_is_no_listening_socket_is_refused(tmp_path: Path) -> None:
    """With what to write in the unit."""
    with ExitStack() as stack:
        file = stack.enter_context((tmp_path / "file").open("w"))
        one, _ = map(stack.enter_context, socket.socketpair())
        for fd, why in ((file.fileno(), "is no socket"), (one.fileno(), "use ListenStream=")):
            command = [sys.executable, "-c", HAND_OVER, str(fd), *SERVE[1:]]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, cwd=ROOT, pass_fds=[fd]
            )
            assert done.returncode == 1
            assert done.stderr.startswith("lblatency: descriptor 3 of LISTEN_FDS ")
            assert why in done.stderr
            assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("is_abstract", [False, True])
def test_systemd_is_told_how_far_it_is(tmp_path: Path, is_abstract: bool) -> None:
    """Ready when it can be scraped, and about reloads and the end."""
    name = f"@lblatency-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    config = tmp_path / "f.toml"
    config.write_text('listen = "127.0.0.1:0"\n[[source]]\nfake = "a"\nproxy = "web"\n')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        sock.bind("\0" + name[1:] if is_abstract else name)

        def told() -> dict[str, str]:
            return dict(line.split("=", 1) for line in sock.recv(1000).decode().split("\n"))

        process = subprocess.Popen(
            [*FAKE, "--config", str(config)], cwd=ROOT, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "NOTIFY_SOCKET": name},
        )  # fmt: skip
        try:
            assert told() == {"READY": "1"}
            assert process.stderr is not None
            assert "metrics at " in process.stderr.readline()
            process.send_signal(signal.SIGHUP)
            reloading = told()
            assert reloading.keys() == {"RELOADING", "MONOTONIC_USEC"}
            assert int(reloading["MONOTONIC_USEC"]) > 0
            assert told() == {"READY": "1"}
            process.send_signal(signal.SIGTERM)
            assert told() == {"STOPPING": "1"}
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("place", ["", "/no/where", "@nobody-listens", "relative"])
def test_nobody_needs_to_listen(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Outside of systemd it is as if nothing was told."""
    monkeypatch.setenv("NOTIFY_SOCKET", place)
    systemd.notify("READY=1")


def test_the_limit_of_series_is_a_flag() -> None:
    """What is beyond it is folded."""
    command = [*SERVE, "--count", "200", "--listen", "127.0.0.1:0", "--web.max-series", "99"]
    with serving(command) as ((url,), _):

        def folded() -> bool:
            with at(url) as sock:
                sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                return b'target_ip="overflow"' in read_all(sock)

        wait_until(folded, "the fold")


@pytest.mark.parametrize("value", ["-1", "many", "1.5"])
def test_a_wrong_limit_is_refused(value: str) -> None:
    """With what it should be."""
    done = subprocess.run(
        [*SERVE, "--web.max-series", value], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"argument --web.max-series: {value!r} is not a whole number" in done.stderr or (
        f"{value} is not a number of series" in done.stderr
    )


def test_readiness_follows_the_source() -> None:
    """Not while a ring that is not pinned yet is waited for; healthy all the same."""
    command = [*FAKE, "--fake", "away", "--proxy", "web", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        (url,) = [line.split()[-1] for line in lines if "metrics at" in line]
        with at(url) as sock:
            sock.sendall(b"GET /-/ready HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"waiting for a pinned ring\n")
        assert ping(at(url))
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_missing_library_is_told_in_a_line() -> None:
    """With what to install; other commands do not need it."""
    script = (
        "import sys; sys.modules['aiohttp'] = None;"
        "from tests.support import fake_source; from lblatency.cli import main;"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "demo", "--duration", "1"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "serving needs aiohttp, which is not installed:" in done.stderr
    assert "pip install 'lblatency[exporter]'" in done.stderr
    assert "Traceback" not in done.stderr
