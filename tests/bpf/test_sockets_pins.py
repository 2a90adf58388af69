"""The socket source with programs, links and maps pinned: killed agents, and those after them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING

import pytest

from lblatency._ffi import lib
from lblatency.errors import LatencyError
from lblatency.sources import Sockets
from tests.support import bpf
from tests.support.netns import Namespace
from tests.support.rig import wait_until
from tests.support.ring import Ring
from tests.support.sockets import Connection, Seen, named_process

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.bpf

KILLS = 50
RING_BYTES = 1 << 22
TYPES = {lib.LBL_OPENED: "opened", lib.LBL_CLOSED: "closed"}
# For each line, an agent: it tells its first event, and takes all that come until it is killed.
AGENTS = """
import os, signal, sys
from lblatency.sources import Sockets
for _ in sys.stdin:
    if not os.fork():
        source = Sockets(comms=[sys.argv[2]], pin=sys.argv[1])
        events = source.stream.subscribe(1 << 17)
        source.stream.drain()
        first = events.get()
        print(os.getpid(), first.type, first.timestamp_ns, flush=True)
        signal.pause()
    os.wait()
"""


@pytest.fixture
def process() -> Iterator[str]:
    """The name of this process, which is in a namespace of its own."""
    with closing(Namespace()) as namespace, namespace.inside(), named_process() as name:
        yield name


@pytest.fixture
def directory(bpffs: bpf.Bpffs) -> Path:
    """A directory in a BPF file system, which other processes can open, too."""
    return Path(f"/proc/{os.getpid()}/fd/{bpffs.fd}/lblatency")


def folder(directory: Path) -> Path:
    """Where the source pins."""
    return directory / f"v{lib.LBL_PIN_LAYOUT}" / "sockets"


@contextmanager
def traffic() -> Iterator[list[int]]:
    """Short connections all the time; the list has how many there were at the end."""
    count = [0]
    stop = threading.Event()

    def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            while not stop.is_set():
                with socket.create_connection(listener.getsockname()):
                    listener.accept()[0].close()
                count[0] += 1

    thread = threading.Thread(target=run)
    thread.start()
    yield count
    stop.set()
    thread.join()


def test_killed_agents_lose_nothing_that_the_kernel_kept(directory: Path, process: str) -> None:
    """50 times: the next agent begins with the very event at which the killed one ended."""
    Sockets(comms=[process], pin=directory, keep_pins=True).close()
    fd = lib.lbl_pinned(os.fsencode(folder(directory) / "lbl_events"))
    ring = Ring(fd, RING_BYTES)
    agents = subprocess.Popen(
        [sys.executable, "-c", AGENTS, str(directory), process],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert agents.stdin is not None
    assert agents.stdout is not None
    with traffic() as count, agents:
        for _ in range(KILLS):
            wait_until(ring.pending, "an event that the next agent must have")
            expected = ring.peek()
            print(file=agents.stdin, flush=True)
            pid, kind, timestamp_ns = agents.stdout.readline().split()
            assert (kind, int(timestamp_ns)) == (TYPES[expected.type], expected.timestamp_ns)
            os.kill(int(pid), signal.SIGKILL)
            wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "its end")  # type: ignore[misc]
        wait_until(ring.pending, "an event that is left for us")
        expected = ring.peek()
        agents.stdin.close()
    with Sockets(comms=[process], pin=directory) as source:
        seen = Seen(source)
        wait_until(lambda: ring.consumed() == 2 * count[0], "the rest")
        assert seen.poll()[0].timestamp_ns == expected.timestamp_ns
        assert not source.stream.stats().dropped
    os.close(fd)
    assert not list(folder(directory).iterdir())


def test_connections_that_are_open_over_a_restart_keep_their_beginning(
    directory: Path, process: str
) -> None:
    """The next source has the lifetime of a connection that opened under the one before."""
    with Sockets(comms=[process], pin=directory, keep_pins=True):
        made = Connection()
        made.exchange()
    began = monotonic_ns()
    with Sockets(comms=["nobody"], pin=directory) as source, made:
        seen = Seen(source)
        assert source.status()["open_at_start"] == 0
        made.close()
        (event,) = seen.closed()
        assert event.created_ns is not None
        assert made.before_ns <= event.created_ns <= made.connected_ns
        assert event.timestamp_ns >= began
        with Connection():
            pass
        seen.closed()  # the new rules take no other
    assert not list(folder(directory).iterdir())


def test_only_one_process_uses_the_pins(directory: Path, process: str) -> None:
    """The second is refused, and takes nothing away from the first."""
    with Sockets(comms=[process], pin=directory) as source:
        with pytest.raises(LatencyError, match="another process uses the pins") as error:
            Sockets(comms=[process], pin=directory)
        assert "\n" not in str(error.value)
        seen = Seen(source)
        with Connection():
            pass
        seen.only()


def test_half_of_the_pins_are_replaced(directory: Path, process: str) -> None:
    """Pins of a process that was killed while it pinned do not stay in the way."""
    Sockets(comms=[process], pin=directory, keep_pins=True).close()
    (folder(directory) / "link_state").unlink()
    with Sockets(comms=[process], pin=directory) as source:
        seen = Seen(source)
        with Connection():
            pass
        seen.only()


def test_pins_of_another_layout_are_left_alone(directory: Path) -> None:
    """An upgrade that keeps other things says so, and how to go on."""
    Sockets(pin=directory, keep_pins=True).close()
    other = directory / "v999"
    folder(directory).parent.rename(other)
    with pytest.raises(LatencyError, match=r"another version of lblatency.*remove the directory"):
        Sockets(pin=directory)
    assert list((other / "sockets").iterdir())


def test_what_is_not_ours_is_refused(directory: Path, tmp_path: Path) -> None:
    """A directory elsewhere and a map that is another one give one line each."""
    with pytest.raises(LatencyError, match=r"not in a BPF file system.*`mount -t bpf"):
        Sockets(pin=tmp_path / "new")
    assert not list(tmp_path.iterdir())
    Sockets(pin=directory, keep_pins=True).close()
    names = ("comms", "filter")
    paths = [folder(directory) / name for name in names]
    paths[0].unlink()
    paths[1].rename(paths[0])
    stranger = bpf.create_map(bpf.HASH, 4, 4, 1, "filter")
    assert lib.lbl_pin(stranger, os.fsencode(paths[1])) == 0
    os.close(stranger)
    with pytest.raises(LatencyError, match="is not of lblatency"):
        Sockets(pin=directory)


def test_a_process_without_capabilities_goes_on_with_pins(bpffs: bpf.Bpffs, process: str) -> None:
    """A privileged process loads; one that only may open the files serves."""
    directory = Path(bpffs.path) / "shared"
    group = 12345
    directory.mkdir()
    os.chown(directory, -1, group)
    directory.chmod(0o770)
    Path(bpffs.path).chmod(0o755)
    Sockets(comms=[process], pin=directory, keep_pins=True).close()
    code = (
        "import os, sys; from lblatency.sources import Sockets;"
        f"os.fchdir({bpffs.fd}); os.setgroups([{group}]); os.setgid({group}); os.setuid(12345);"
        f"s = Sockets(comms=['{process}'], pin='shared'); e = s.stream.subscribe();"
        "print('ready', flush=True); sys.stdin.readline(); s.stream.drain();"
        "print(e.get().type, e.get().reason, s.lost()); s.close()"
    )
    agent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[bpffs.fd],
    )
    assert agent.stdout is not None
    assert agent.stdout.readline() == "ready\n"
    with Connection():
        pass
    said, _ = agent.communicate("\n", timeout=20)
    assert said.startswith("opened fin {'recursion': 0"), said
    assert not list(folder(directory).iterdir())
