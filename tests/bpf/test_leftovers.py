"""The search for leftovers finds ours, each kind of them, and is blind for those of others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support import bpf
from tests.support.leftovers import Leftovers
from tests.support.netns import Namespace
from tests.support.rig import wait_until

pytestmark = pytest.mark.bpf

# Holds a map until its standard input ends; its child holds a network namespace.
PROGRAM = """
import os, sys
from lblatency.demo.namespace import die_with_parent, enter_new_network
from tests.support import bpf
held = bpf.create_map(bpf.ARRAY, 4, 4, 1)
ready, told = os.pipe()
if os.fork() == 0:
    die_with_parent()
    enter_new_network()
    os.write(told, b"!")
    os.read(0, 1)
    os._exit(0)
os.read(ready, 1)
print(bpf.map_id(held), os.getpid(), flush=True)
os.read(0, 1)
"""


@contextmanager
def program(leftovers: Leftovers) -> Iterator[tuple[int, int]]:
    """Run it during the block; gives the map's id and the pid."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=leftovers.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        number, pid = map(int, process.stdout.readline().split())
        yield number, pid


def test_each_kind_is_found_and_named(bpffs: bpf.Bpffs) -> None:
    """While it runs all is left; then what a pin and a descriptor hold; in the end nothing."""
    leftovers = Leftovers()
    with program(leftovers) as (number, pid):
        leftovers.look()
        assert leftovers.found() == {"process", "map", "namespace"}
        left = "; ".join(leftovers.remaining())
        assert f"map {number}" in left
        assert f"process {pid} (" in left
        assert "namespace /proc/" in left
        fd = bpf.open_id(bpf.MAP_BY_ID, number)
    bpf.pin(fd, f"{bpffs.path}/left")
    os.close(fd)
    wait_until(lambda: leftovers.remaining() == [f"map {number}"], "the pinned map to be all")
    os.unlink(f"{bpffs.path}/left")
    wait_until(lambda: not leftovers.remaining(), lambda: f"left: {leftovers.remaining()}")


def test_what_others_make_is_not_ours() -> None:
    """Their maps, namespaces and processes are no leftovers, whenever they appear."""
    leftovers, others = Leftovers(), Leftovers()
    with program(others):
        others.look()
        leftovers.look()
        namespace = Namespace()
        fd = bpf.create_map(bpf.ARRAY, 4, 4, 1)
        assert others.remaining()
        assert leftovers.remaining() == []
        os.close(fd)
        namespace.close()
