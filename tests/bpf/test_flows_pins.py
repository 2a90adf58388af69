"""The flows source with programs, links and maps pinned: killed agents, and those after them."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

import pytest

from lblatency._ffi import lib
from lblatency.errors import BpfError, LatencyError
from lblatency.sources import Flows
from tests.support import bpf
from tests.support.flows import Followed
from tests.support.netns import Namespace
from tests.support.rig import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("netns")]

LINK_CREATE = 28
OURS = ["lbl_flows_in", "lbl_flows_out"]
RULES = ["127.0.0.0/8:1-65535=web"]


@pytest.fixture
def netns() -> Iterator[Namespace]:
    """A namespace with a device pod0, and this thread in it."""
    with closing(Namespace()) as made, made.inside():
        made.run("ip link add pod0 type veth peer name far0")
        yield made


@pytest.fixture
def directory(bpffs: bpf.Bpffs) -> Path:
    """A directory in a BPF file system, which other processes can open, too."""
    return Path(f"/proc/{os.getpid()}/fd/{bpffs.fd}/lblatency")


def folder(directory: Path) -> Path:
    """Where the source pins."""
    return directory / f"v{lib.LBL_PIN_LAYOUT}" / "flows"


def links(directory: Path) -> list[str]:
    """The names of the pins of links."""
    return sorted(path.name for path in folder(directory).glob("link_*"))


def programs(device: str) -> list[str]:
    """The names of the programs at the device, in and out."""
    ifindex = socket.if_nametoindex(device)
    return [
        name
        for hook in (bpf.TCX_INGRESS, bpf.TCX_EGRESS)
        for name in bpf.programs_at(ifindex, hook)
    ]


def gone(device: str) -> None:
    """Wait for the end of the programs at the device: links end a little after their pins."""
    wait_until(lambda: not programs(device), f"the programs' end at {device}")


def pinned(directory: Path, *interfaces: str, **options: Any) -> Flows:
    """A source that pins, at all devices of the namespace if none is named."""
    return Flows(interfaces or ["*"], backends=RULES, pin=directory, **options)


@contextmanager
def watched(source: Flows) -> Iterator[Followed]:
    """An open source with its events; it is closed in the end."""
    with source, source.stream.subscribe() as events:
        yield Followed(source, events)


@contextmanager
def connection() -> Iterator[socket.socket]:
    """A connection over loopback, which ends with the block."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        yield client
        server.close()
        assert client.recv(1) == b""


def test_an_orderly_end_leaves_nothing(directory: Path) -> None:
    """Unless it is told to keep the pins; then the next one takes the same links over."""
    with pinned(directory, "lo"):
        assert len(links(directory)) == 2
    assert not list(folder(directory).iterdir())
    gone("lo")
    pinned(directory, "lo", keep_pins=True).close()
    there = links(directory)
    assert len(there) == 2
    assert programs("lo") == OURS
    with pinned(directory, "lo") as source:
        assert links(directory) == there
        assert source.status()["followed"] == 1
        assert programs("lo") == OURS
    assert not list(folder(directory).iterdir())
    gone("lo")


def test_connections_that_are_open_over_a_restart_keep_their_beginning(directory: Path) -> None:
    """The next source has the lifetime of a connection that opened under the one before."""
    before = monotonic_ns()
    with pinned(directory, "lo", keep_pins=True) as source:
        open_connection = connection()
        open_connection.__enter__()
        assert source.status()["produced"] == 1
    middle = monotonic_ns()
    with watched(pinned(directory, "lo")) as followed:
        with connection():
            pass
        open_connection.__exit__(None, None, None)
        events = followed.closed(2)
    assert before <= events[1].created_ns <= middle <= events[1].timestamp_ns


def test_what_came_meanwhile_is_followed(directory: Path, netns: Namespace) -> None:
    """Devices that came, went, or are not named any more while no agent ran, and while one runs."""
    netns.run("ip link add old0 type veth peer name far1")
    pinned(directory, "pod*", "old0", keep_pins=True).close()
    netns.run("ip link del pod0")
    netns.run("ip link add pod1 type veth peer name far0")
    pinned(directory, "pod*", keep_pins=True).close()
    assert programs("pod1") == OURS
    gone("old0")
    assert len(links(directory)) == 2
    with pinned(directory, "pod*") as source:
        netns.run("ip link add pod2 type veth peer name far2")
        source.tick()
        assert programs("pod2") == OURS
        assert len(links(directory)) == 4
        netns.run("ip link del pod1")
        source.tick()
        assert len(links(directory)) == 2
        assert source.status()["followed"] == 1
    gone("pod2")


def test_a_device_that_comes_under_the_number_of_another_is_followed(
    directory: Path, netns: Namespace
) -> None:
    """A number of an interface is no promise."""
    with pinned(directory, "pod*") as source:
        number = socket.if_nametoindex("pod0")
        before = links(directory)
        netns.run("ip link del pod0")
        netns.run(f"ip link add pod0 index {number} type veth peer name far0")
        source.tick()
        assert programs("pod0") == OURS
        assert len(links(directory)) == 2
        assert not set(links(directory)) & set(before)


def test_links_of_another_namespace_go(directory: Path, netns: Namespace) -> None:
    """Its devices may have the same numbers and names."""
    pinned(directory, "lo", keep_pins=True).close()
    before = links(directory)
    with closing(Namespace()) as other, other.inside(), pinned(directory, "lo"):
        assert programs("lo") == OURS
        assert not set(links(directory)) & set(before)
        with netns.inside():
            gone("lo")


@pytest.mark.parametrize("missing", ["link_", "program_in", "flows_conns"])
def test_what_is_missing_is_made_anew(directory: Path, missing: str) -> None:
    """Pins of a process that was killed while it pinned do not stay in the way."""
    pinned(directory, "lo", keep_pins=True).close()
    next(path for path in folder(directory).iterdir() if path.name.startswith(missing)).unlink()
    with watched(pinned(directory, "lo")) as followed:
        assert programs("lo") == OURS
        with connection():
            pass
        followed.only()


def test_only_one_process_uses_the_pins(directory: Path) -> None:
    """The second is refused, and takes nothing away from the first."""
    with watched(pinned(directory, "lo")) as followed:
        with pytest.raises(LatencyError, match="another process uses the pins") as error:
            pinned(directory, "lo")
        assert "\n" not in str(error.value)
        with connection():
            pass
        followed.only()


def test_pins_for_something_else_are_left_alone(directory: Path) -> None:
    """Of another layout, for more connections, or for interfaces that a typo does not name."""
    pinned(directory, "lo", keep_pins=True).close()
    there = links(directory)
    with pytest.raises(LatencyError, match=r"max_connections 131072, not 7: say the same"):
        pinned(directory, "lo", max_connections=7)
    with pytest.raises(LatencyError, match="there is no interface lol; `ip link` lists them"):
        pinned(directory, "lol")
    assert links(directory) == there
    assert programs("lo") == OURS
    other = directory / "v999"
    folder(directory).parent.rename(other)
    with pytest.raises(LatencyError, match=r"another version of lblatency.*remove the directory"):
        pinned(directory, "lo")
    assert list((other / "flows").iterdir())


def test_what_is_not_ours_is_refused(directory: Path, tmp_path: Path) -> None:
    """A directory elsewhere, a map that is another one, and a link that is none of ours."""
    with pytest.raises(LatencyError, match=r"not in a BPF file system.*`mount -t bpf"):
        pinned(tmp_path / "new", "lo")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="nothing is pinned"):
        Flows(["lo"], backends=RULES, keep_pins=True)
    pinned(directory, "lo", keep_pins=True).close()
    stranger = bpf.create_map(bpf.HASH, 4, 4, 1, "flows_conns")
    link = folder(directory) / links(directory)[0]
    conns = folder(directory) / "flows_conns"
    for path in (link, conns):
        path.rename(directory / path.name)
        assert lib.lbl_pin(stranger, os.fsencode(path)) == 0
    with pytest.raises(LatencyError, match="is not of lblatency"):
        pinned(directory, "lo")
    conns.unlink()
    (directory / conns.name).rename(conns)
    (directory / link.name).unlink()
    with pinned(directory, "lo"):
        assert programs("lo") == OURS
    os.close(stranger)


def test_a_new_device_cannot_be_pinned_if_the_directory_is_gone(directory: Path) -> None:
    """It is an error that the agent tells, and no other."""
    with pinned(directory, "pod*") as source:
        for path in folder(directory).iterdir():
            path.unlink()
        folder(directory).rmdir()
        with pytest.raises(BpfError, match=r"pin in .*No such"):
            source.tick()


def test_kernels_without_links_are_told(directory: Path, netns: Namespace) -> None:
    """Their filters cannot be pinned; so nothing is."""
    code = (
        "import errno, sys; from tests.support.seccomp import deny_bpf;"
        "from lblatency.sources import Flows;"
        f"deny_bpf({LINK_CREATE}, {errno.EINVAL});"
        f"Flows(['lo'], backends={RULES}, pin=sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)], stderr=subprocess.PIPE, text=True
    )
    assert "they came with Linux 6.6; say no directory for pins" in done.stderr
    assert not list(folder(directory).iterdir())
    assert "lbl_flows" not in netns.run("tc filter show dev lo egress")


def test_a_process_without_capabilities_goes_on_with_pins(
    bpffs: bpf.Bpffs, netns: Namespace
) -> None:
    """A privileged process loads; one that only may open the files serves, and ends the silent."""
    directory = Path(bpffs.path) / "shared"
    group = 12345
    directory.mkdir()
    os.chown(directory, -1, group)
    directory.chmod(0o770)
    Path(bpffs.path).chmod(0o755)
    with pinned(directory, "pod*", keep_pins=True) as source:
        netns.run("ip link add pod1 type veth peer name far1")
        source.tick()
    pinned(directory, "lo", "pod*", keep_pins=True).close()
    code = (
        "import os, sys; from lblatency.sources import Flows;"
        f"os.fchdir({bpffs.fd}); os.setgroups([{group}]); os.setgid({group}); os.setuid(12345);"
        f"s = Flows(['lo', 'pod*'], backends={RULES}, pin='shared', udp_idle_s=0);"
        "e = s.stream.subscribe();"
        "print('ready', flush=True); sys.stdin.readline(); s.tick(); s.stream.drain();"
        "print(e.get().type, e.get().reason, s.lost(), s.status()['followed']); s.close()"
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
    with socket.socket(type=socket.SOCK_DGRAM) as sender:
        sender.sendto(b"?", ("127.0.0.1", 9))
    said, _ = agent.communicate("\n", timeout=20)
    assert said == "opened timeout {'flows_full': 0} 3\n", said
    assert not list(folder(directory).iterdir())


def test_what_comes_once_capabilities_are_given_up_is_pinned(
    bpffs: bpf.Bpffs, netns: Namespace
) -> None:
    """With those that a source keeps, and for the group of the directory."""
    directory = Path(bpffs.path) / "shared"
    group = 12345
    directory.mkdir()
    os.chown(directory, -1, group)
    code = (
        "import sys; from lblatency._privileges import keep_only;"
        "from lblatency.sources import Flows;"
        f"s = Flows(['pod*'], backends={RULES}, pin={str(directory)!r}, keep_pins=True);"
        "keep_only(s.keeps); print('ready', flush=True); sys.stdin.readline(); s.tick(); s.close()"
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
    before = links(directory)
    netns.run("ip link add pod1 type veth peer name far1")
    agent.communicate("\n", timeout=20)
    assert agent.returncode == 0
    new = [folder(directory) / name for name in links(directory) if name not in before]
    assert [(path.stat().st_gid, path.stat().st_mode & 0o777) for path in new] == [
        (group, 0o660)
    ] * 2
    assert programs("pod1") == OURS
