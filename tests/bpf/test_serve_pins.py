"""`lblatency serve --pin`: agents that are killed, upgraded and ended, and those after them."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from lblatency._ffi import ffi, lib
from lblatency.cli import main
from lblatency.sources import Sockets
from lblatency.sources._pins import Pins
from tests.support import bpf
from tests.support.netns import Namespace
from tests.support.rig import wait_until
from tests.support.ring import Ring
from tests.support.sockets import named_process

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.bpf

KILLS = {"sockets": 50, "flows": 10}
RING_BYTES = 1 << 22
LEFT = 200  # connections of the load after which an agent is killed


class Place(NamedTuple):
    """Where agents pin, and which connections they count: not those that scrape."""

    bpffs: bpf.Bpffs
    process: str
    listener: socket.socket
    source: str

    @property
    def arguments(self) -> list[str]:
        """What tells an agent its source, and which connections to take."""
        which = {"sockets": ["--sockets", "--comm", self.process], "flows": ["--flows", "lo"]}
        backend = "{}:{}=web".format(*self.listener.getsockname())
        return [*which[self.source], "--backend", backend, "--pin", str(self.directory)]

    @property
    def directory(self) -> Path:
        """Agents inherit the file system's descriptor, so it is the same path for them."""
        return Path(self.bpffs.path) / "lblatency"

    @property
    def pins(self) -> Path:
        """Those of the source."""
        return self.directory / f"v{lib.LBL_PIN_LAYOUT}" / self.source


@pytest.fixture(params=KILLS)
def place(request: pytest.FixtureRequest, bpffs: bpf.Bpffs) -> Iterator[Place]:
    """This process is in a namespace of its own."""
    with (
        closing(Namespace()) as namespace,
        namespace.inside(),
        named_process() as name,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        yield Place(bpffs, name, listener, request.param)


class Agent:
    """The command, as it serves."""

    def __init__(self, place: Place, *more: str) -> None:
        """Start it, and wait until its metrics are there."""
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "lblatency", "serve", *place.arguments,
                "--listen", "127.0.0.1:0", *more,
            ],
            pass_fds=[place.bpffs.fd], stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stderr is not None
        self.said = self.process.stderr.readline()
        found = re.search(r"metrics at (\S+)", self.said)
        self._url = found[1] if found else ""

    def __enter__(self) -> Agent:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it, if a test has failed."""
        self.end(signal.SIGKILL)

    def page(self) -> str:
        """What it exports."""
        with urllib.request.urlopen(self._url, timeout=20) as reply:
            text: str = reply.read().decode()
        return text

    def scrape(self) -> dict[str, int]:
        """The sums over all labels of what it exports."""
        sums: dict[str, int] = {}
        found = re.findall(r"^(\w+)(?:\{.*\})? (\d+)(?:\.0)?$", self.page(), re.MULTILINE)
        for name, value in found:
            sums[name] = sums.get(name, 0) + int(value)
        return sums

    def end(self, number: signal.Signals) -> int:
        """Send it a signal, and wait for its end."""
        self.process.send_signal(number)
        code = self.process.wait(20)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


class Load:
    """Short connections of this process all the time, unless it pauses."""

    def __init__(self, listener: socket.socket) -> None:
        """Start."""
        self.count = 0
        self._listener = listener
        self._may_run = threading.Event()
        self._pauses = threading.Event()
        self._ends = False
        self._thread = threading.Thread(target=self._run)
        self._may_run.set()
        self._thread.start()

    def _run(self) -> None:
        while not self._ends:
            with socket.create_connection(self._listener.getsockname()):
                self._listener.accept()[0].close()
            self.count += 1
            if not self._may_run.is_set():
                self._pauses.set()
                self._may_run.wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Between two connections."""
        self._pauses.clear()
        self._may_run.clear()
        self._pauses.wait()
        try:
            yield
        finally:
            self._may_run.set()

    def close(self) -> None:
        """End."""
        self._ends = True
        self._may_run.set()
        self._thread.join()


@contextmanager
def pinned_ring(place: Place) -> Iterator[Ring]:
    """A look at the ring from outside."""
    fd = lib.lbl_pinned(os.fsencode(place.pins / "lbl_events"))
    with closing(Ring(fd, RING_BYTES)) as ring:
        os.close(fd)
        yield ring


def produced(place: Place) -> tuple[int, int]:
    """What the kernel's counters say: events produced, and dropped."""
    fd = lib.lbl_pinned(os.fsencode(place.pins / "lbl_counters"))
    values = bpf.lookup(fd, bytes(4), 16 * bpf.possible_cpus())
    os.close(fd)
    numbers = struct.unpack(f"={len(values) // 8}Q", values)
    return sum(numbers[::2]), sum(numbers[1::2])


def wait_for_all(place: Place, load: Load, ring: Ring) -> None:
    """Wait until the agent has both events of each connection of the load, which stands still."""
    wait_until(lambda: produced(place) == (2 * load.count, 0), "both events of each connection")
    wait_until(lambda: not ring.pending(), "the ring to be empty")


def kill_under_load(place: Place, agent: Agent, load: Load, ring: Ring, begin: int) -> int:
    """Returns how many events its last scrape has: all that it had taken, since `begin`."""
    wait_until(lambda: ring.consumed() > begin, "an event that the agent takes")
    with load.paused():
        wait_for_all(place, load, ring)
        seen = agent.scrape()["lblatency_events_received_total"]
        assert seen == ring.consumed() - begin
        until = load.count + LEFT
    wait_until(lambda: load.count >= until, "load")
    agent.end(signal.SIGKILL)
    return seen


def test_each_event_is_taken_by_exactly_one_agent(place: Place) -> None:
    """Many agents are killed under load; what each exports is what it took from the ring.

    So the events of the kernel's own count are those that a scrape had seen, those that an agent
    had taken and nobody had scraped, which died with it, and those of the last agent.
    """
    scraped = died = begin = 0
    with ExitStack() as stack:
        agent = stack.enter_context(Agent(place))
        load = stack.enter_context(closing(Load(place.listener)))
        ring = stack.enter_context(pinned_ring(place))
        for _ in range(KILLS[place.source]):
            seen = kill_under_load(place, agent, load, ring, begin)
            scraped += seen
            died += ring.consumed() - begin - seen
            begin = ring.consumed()
            agent = stack.enter_context(Agent(place))
        load.close()
        wait_for_all(place, load, ring)
        last = agent.scrape()["lblatency_events_received_total"]
        assert last == ring.consumed() - begin
        assert scraped + died + last == 2 * load.count
        assert agent.end(signal.SIGTERM) == 0
    print(f"{2 * load.count} events: {scraped} scraped, {died} taken and not scraped, {last} last")
    assert not list(place.pins.iterdir())


def test_pins_stay_only_if_told_to(place: Place) -> None:
    """An orderly end takes them away; with --keep-pins, the next agent has what came meanwhile."""
    with Agent(place, "--keep-pins") as agent:
        assert agent.end(signal.SIGTERM) == 0
    with closing(Load(place.listener)) as load:
        wait_until(lambda: load.count >= LEFT, "load")
    with Agent(place) as agent, pinned_ring(place) as ring:
        wait_for_all(place, load, ring)
        assert agent.scrape()["lblatency_events_received_total"] == 2 * load.count
        assert agent.end(signal.SIGTERM) == 0
    assert not list(place.pins.iterdir())


@pytest.mark.parametrize("place", ["sockets"], indirect=True)
def test_the_next_agent_reports_an_end_that_no_program_saw(place: Place) -> None:
    """It is exported as lost, and as closed; no row has it open."""
    address = place.listener.getsockname()
    with (
        Sockets(comms=[f"{place.process}=web"]) as source,
        socket.create_connection(address) as client,
        place.listener.accept()[0] as server,
    ):
        pin_blind(place, source)
        server.close()
        client.close()
    with Agent(place) as agent:
        lost = 'lblatency_events_lost_total{reason="unseen_ends"}'
        wait_until(lambda: f"{lost} 1.0" in agent.page(), "the end that was not seen")
        wait_until(lambda: agent.scrape()["lblatency_events_received_total"] == 2, "its events")
        told = agent.scrape()
        assert told["lblatency_connections_open"] == 0
        assert told["lblatency_connections_closed_total"] == 1
        assert produced(place) == (2, 0)


def pin_blind(place: Place, source: Sockets) -> None:
    """Pin what the source has, but no link to a program that sees changes of state."""
    fds = {
        ffi.string(lib.lbl_sockets_fd_name(which)).decode(): lib.lbl_sockets_fd(
            source._sockets, which
        )
        for which in range(lib.LBL_SOCKETS_FDS)
    }
    fds["link_state"] = fds["link_state_again"] = fds["link_first_byte"]
    with Pins(place.directory, "sockets", list(fds)) as pins:
        pins.put(fds)
    for program in (lib.LBL_SOCKETS_STATE, lib.LBL_SOCKETS_STATE_AGAIN):
        lib.lbl_sockets_detach(source._sockets, program)


def test_an_upgrade_with_another_layout_says_how_to_go_on(place: Place) -> None:
    """In one line; and what the other version keeps is left alone."""
    with Agent(place, "--keep-pins") as agent:
        agent.end(signal.SIGKILL)
    other = place.directory / "v999"
    place.pins.parent.rename(other)
    with Agent(place) as agent:
        assert agent.process.wait(20) == 1
        assert re.search(r"another version of lblatency.*remove the directory", agent.said)
        assert agent.process.stderr is not None
        assert agent.process.stderr.read() == ""
    assert list((other / place.source).iterdir())


@pytest.mark.parametrize("source", [["--sockets"], ["--flows", "lo", "--backend", "10.0.0.1:80"]])
def test_nothing_can_be_kept_without_pins(
    capsys: pytest.CaptureFixture[str], source: list[str]
) -> None:
    """It is one line."""
    arguments = [*source, "--proxy", "web", "--keep-pins", "--listen", "127.0.0.1:0"]
    assert main(["serve", *arguments]) == 1
    assert "nothing is pinned" in capsys.readouterr().err
