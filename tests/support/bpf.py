"""The bpf() system call for tests: maps, pins, and runs of programs."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    Buffer = ctypes.Array[ctypes.c_char]

HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_HASH, LRU_PERCPU_HASH, RINGBUF = 1, 2, 5, 6, 9, 10, 27
QUEUE, ARRAY_OF_MAPS = 22, 12
WRONLY = 1 << 4  # flag: the fd of the new map cannot be read
VERDICT_PASS, VERDICT_DROP = 0xFFFFFFFF, 2  # of a TC program

MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_DELETE, MAP_NEXT_KEY, PROG_LOAD = range(6)
OBJ_PIN, OBJ_GET, PROG_RUN, OBJ_INFO, ENABLE_STATS = 6, 7, 10, 15, 32
ATTACH_TRACING = 17
PROG_BY_ID, MAP_BY_ID, LINK_BY_ID, PROG_QUERY = 13, 14, 30, 16
TCX_INGRESS, TCX_EGRESS = 46, 47

BPF_NUMBER = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_ATTR_BYTES = 128
_libc = ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: object) -> int:
    rc = int(_libc.syscall(number, *arguments))
    if rc < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return rc


def call(command: int, attr: bytes | Buffer) -> int:
    """Make the system call. The kernel writes its answers into a buffer of attributes."""
    buffer = ctypes.create_string_buffer(attr, _ATTR_BYTES) if isinstance(attr, bytes) else attr
    return _syscall(BPF_NUMBER[platform.machine()], command, buffer, len(buffer))


def _copy(data: bytes) -> Buffer:
    return ctypes.create_string_buffer(data, len(data))


def _map_call(command: int, fd: int, key: Buffer | None, value: Buffer | None = None) -> None:
    places = (ctypes.addressof(place) if place is not None else 0 for place in (key, value))
    call(command, struct.pack("=I4xQQQ", fd, *places, 0))


# ---- maps ----


def create_map(
    kind: int, key: int, value: int, entries: int, name: str = "", *, flags: int = 0
) -> int:
    """An fd of a new map, to be closed."""
    attr = struct.pack("=7I16s", kind, key, value, entries, flags, 0, 0, name.encode())
    fd = call(MAP_CREATE, attr)
    os.set_inheritable(fd, False)
    return fd


def create_array_of_rings(entries: int) -> int:
    """An fd of a new empty array of rings of one page, to be closed."""
    inner = create_map(RINGBUF, 0, 0, 4096)
    fd = call(MAP_CREATE, struct.pack("=6I", ARRAY_OF_MAPS, 4, 4, entries, 0, inner))
    os.close(inner)
    os.set_inheritable(fd, False)
    return fd


def lookup(fd: int, key: bytes, value_bytes: int) -> bytes:
    """The value of an entry; for a per-CPU map, `value_bytes` is for all CPUs."""
    value = ctypes.create_string_buffer(value_bytes)
    _map_call(MAP_LOOKUP, fd, _copy(key), value)
    return value.raw


def update(fd: int, key: bytes, value: bytes) -> None:
    """Put an entry; for a per-CPU map, `value` has the values of all CPUs in a row."""
    _map_call(MAP_UPDATE, fd, _copy(key), _copy(value))


def delete(fd: int, key: bytes) -> None:
    """Delete an entry."""
    _map_call(MAP_DELETE, fd, _copy(key))


def entries(fd: int, key_bytes: int, value_bytes: int) -> dict[bytes, bytes]:
    """The contents of a hash map."""
    found: dict[bytes, bytes] = {}
    key: bytes | None = None
    while True:
        following = ctypes.create_string_buffer(key_bytes)
        try:
            _map_call(MAP_NEXT_KEY, fd, None if key is None else _copy(key), following)
        except FileNotFoundError:
            return found
        key = following.raw
        found[key] = lookup(fd, key, value_bytes)


def map_id(fd: int) -> int:
    """The number that the kernel gave the map."""
    info = ctypes.create_string_buffer(256)
    call(OBJ_INFO, struct.pack("=IIQ", fd, len(info), ctypes.addressof(info)))
    return int(struct.unpack_from("=II", info)[1])


program_id = map_id  # the two structs begin alike


def open_id(command: int, number: int) -> int:
    """An fd, to be closed, of the object that has this id; `command` tells its kind."""
    return call(command, struct.pack("=I", number))


def possible_cpus() -> int:
    """How many values a per-CPU map has: a new one has zeros, and the kernel writes no more."""
    fd = create_map(PERCPU_ARRAY, 4, 8, 1)
    values = _copy(b"\xff" * 8 * 65536)
    _map_call(MAP_LOOKUP, fd, _copy(bytes(4)), values)
    os.close(fd)
    return values.raw.index(b"\xff") // 8


# ---- pins ----


class Bpffs(NamedTuple):
    """A mounted BPF file system."""

    fd: int
    path: str


@contextmanager
def mounted_bpffs() -> Iterator[Bpffs]:
    """A BPF file system without a mount point: its descriptor, and a path through that."""
    context = _syscall(_FSOPEN, b"bpf", 1)  # close-on-exec
    try:
        _syscall(_FSCONFIG, context, 6, None, None, 0)  # create
        mounted = _syscall(_FSMOUNT, context, 1, 0)  # close-on-exec
    finally:
        os.close(context)
    try:
        yield Bpffs(mounted, f"/proc/self/fd/{mounted}")
    finally:
        os.close(mounted)


def pin(fd: int, path: str) -> None:
    """Pin a map or a program in a bpffs."""
    text = ctypes.create_string_buffer(path.encode())
    call(OBJ_PIN, struct.pack("=QI", ctypes.addressof(text), fd))


def open_pinned(path: str) -> int:
    """An fd, to be closed, of a pinned map or program."""
    text = ctypes.create_string_buffer(path.encode())
    return call(OBJ_GET, struct.pack("=QII", ctypes.addressof(text), 0, 0))


def load(compiled: Path, bpffs: Bpffs) -> None:
    """Load an object file: its programs are then in `programs/` and its maps in `maps/`."""
    at = bpffs.path
    loaded = subprocess.run(
        ["bpftool", "prog", "loadall", compiled, f"{at}/programs", "pinmaps", f"{at}/maps"],
        pass_fds=[bpffs.fd], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr


# ---- programs ----


def load_return_0(name: str, *maps: int) -> int:
    """An fd, to be closed, of a socket filter that returns 0 and holds these maps."""
    ops = [op for fd in maps for op in ((0x18, 0x11, fd), (0, 0, 0))]  # r1 = the map
    ops += [(0xB7, 0, 0), (0x95, 0, 0)]
    code = _copy(b"".join(struct.pack("=BBhi", op, regs, 0, value) for op, regs, value in ops))
    licence = _copy(b"GPL\0")
    places = ctypes.addressof(code), ctypes.addressof(licence)
    fd = call(PROG_LOAD, struct.pack("=IIQQ24x16s", 1, len(ops), *places, name.encode()))
    os.set_inheritable(fd, False)
    return fd


def run(prog: int, context: bytes) -> None:
    """Run a program of type syscall once."""
    given = _copy(context)
    call(PROG_RUN, struct.pack("=I36xIIQQ", prog, len(context), 0, ctypes.addressof(given), 0))


def attach(prog: int) -> int:
    """Attach a tracing program where it was loaded for; returns the fd of the link."""
    return call(ATTACH_TRACING, struct.pack("=QI4x", 0, prog))


def programs_at(ifindex: int, attach_type: int) -> list[str]:
    """The names of the programs that links have put at a hook of this thread's namespace."""
    ids = ctypes.create_string_buffer(4 * 64)
    query = struct.pack("=IIIIQI", ifindex, attach_type, 0, 0, ctypes.addressof(ids), 64)
    attr = ctypes.create_string_buffer(query, _ATTR_BYTES)
    call(PROG_QUERY, attr)
    (count,) = struct.unpack_from("=I", attr, 24)
    names = []
    for number in struct.unpack_from(f"={count}I", ids):
        fd = open_id(PROG_BY_ID, number)
        info = ctypes.create_string_buffer(256)
        call(OBJ_INFO, struct.pack("=IIQ", fd, len(info), ctypes.addressof(info)))
        os.close(fd)
        names.append(info.raw[64:80].rstrip(b"\0").decode())
    return names


class Run(NamedTuple):
    """The result of a TC or XDP program on a frame."""

    verdict: int
    frame: bytes
    ns: int


def run_on_frame(prog: int, frame: bytes, repeat: int = 1) -> Run:
    """Run a TC or XDP program on a frame `repeat` times; the result has the mean time."""
    given, out = _copy(frame), ctypes.create_string_buffer(len(frame) + 256)
    places = ctypes.addressof(given), ctypes.addressof(out)
    packed = struct.pack("=IIIIQQI", prog, 0, len(frame), len(out), *places, repeat)
    attr = ctypes.create_string_buffer(packed, _ATTR_BYTES)
    call(PROG_RUN, attr)
    _, verdict, _, out_bytes, _, _, _, ns = struct.unpack_from("=IIIIQQII", attr)
    return Run(verdict, out.raw[:out_bytes], ns)
