"""What a program leaves behind, by the ids of what it made; other programs may come and go."""

from __future__ import annotations

import os
import re
import socket
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import bpf
from tests.support.netns import entered
from tests.support.rig import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK = "LBLATENCY_TEST_MARK"
_SO_NETNS_COOKIE = 71
_OPEN = {"prog": bpf.PROG_BY_ID, "map": bpf.MAP_BY_ID, "link": bpf.LINK_BY_ID}


class Leftovers:
    """Knows what the programs of one test made, because they are started with `env`.

    Processes that they start inherit the mark in it, so it finds them too. It also keeps the
    network namespaces and the BPF objects that it found in their hands when it was told to `look`.
    """

    def __init__(self) -> None:
        """Make a mark that nobody else has."""
        mark = uuid.uuid4().hex
        self.env = os.environ | {_MARK: mark}
        self._entry = f"{_MARK}={mark}".encode()
        self._namespaces: set[int] = set()
        self._objects: set[tuple[str, int]] = set()

    def _processes(self) -> Iterator[Path]:
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it ended meanwhile
                if self._entry in (process / "environ").read_bytes().split(b"\0"):
                    yield process

    def look(self) -> None:
        """Note what the programs hold now."""
        home = _cookie(Path("/proc/self/ns/net"))
        for process in self._processes():
            self._objects |= _objects_of(process)
            with suppress(OSError):
                self._namespaces |= {_cookie(process / "ns/net")} - {home}

    def found(self) -> set[str]:
        """The kinds of what there is to be left."""
        kinds = {kind for kind, _ in self._objects} | {"process" for _ in self._processes()}
        return kinds | {"namespace" for _ in self._namespaces}

    def remaining(self) -> list[str]:
        """What still exists, in words: processes, and what a pin, a mount or a process holds."""
        left = [f"process {process.name} ({_command(process)})" for process in self._processes()]
        left += [f"{kind} {number}" for kind, number in self._objects if _exists(kind, number)]
        places = _namespaces()
        left += [f"namespace {places[each]}" for each in self._namespaces & places.keys()]
        return sorted(left)


@contextmanager
def nothing_left() -> Iterator[Leftovers]:
    """At the end of the block, wait for everything to be gone; fail with what is left."""
    leftovers = Leftovers()
    yield leftovers
    wait_until(lambda: not leftovers.remaining(), lambda: f"left: {leftovers.remaining()}")


def _command(process: Path) -> str:
    with suppress(OSError):
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return "ended"


def _objects_of(process: Path) -> set[tuple[str, int]]:
    """The BPF objects that a process has open: kind and id."""
    found = set()
    for info in process.glob("fdinfo/*"):
        with suppress(OSError):
            for kind, number in re.findall(r"^(prog|map|link)_id:\s*(\d+)", info.read_text(), re.M):
                found.add((kind, int(number)))
    return found


def _exists(kind: str, number: int) -> bool:
    try:
        os.close(bpf.open_id(_OPEN[kind], number))
    except FileNotFoundError:
        return False
    return True


def _cookie(namespace: Path) -> int:
    """The number of a network namespace. Unlike its inode's, it is never used again."""
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(fd), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            return int.from_bytes(
                asked.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little"
            )
    finally:
        os.close(fd)


def _namespaces() -> dict[int, str]:
    """The network namespaces that a process or a name holds: number and where it was found."""
    places: dict[int, Path] = {}
    for place in (*Path("/proc").glob("[0-9]*/ns/net"), *Path("/run/netns").glob("*")):
        with suppress(OSError):
            places.setdefault(place.stat().st_ino, place)
    found = {}
    for place in places.values():
        with suppress(OSError):
            found[_cookie(place)] = str(place)
    return found
