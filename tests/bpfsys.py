"""The bpf() system call as far as tests need it: make maps, fill, pin and name them."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_HASH, LRU_PERCPU_HASH, RINGBUF = 1, 2, 5, 6, 9, 10, 27
QUEUE = 22

_NUMBER = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_MAP_CREATE, _MAP_UPDATE, _OBJ_PIN, _OBJ_GET, _PROG_RUN, _INFO = 0, 2, 6, 7, 10, 15
_ATTR_BYTES = 128
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, _ATTR_BYTES)
    rc = _libc.syscall(_NUMBER[platform.machine()], command, buffer, _ATTR_BYTES)
    if rc < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(rc)


def create_map(kind: int, key: int, value: int, entries: int, name: str = "") -> int:
    """An fd of a new map, to be closed."""
    attr = struct.pack("=7I16s", kind, key, value, entries, 0, 0, 0, name.encode())
    fd = _bpf(_MAP_CREATE, attr)
    os.set_inheritable(fd, False)
    return fd


def update(fd: int, key: bytes, value: bytes) -> None:
    """Put an entry; of a per-CPU map, `value` holds all CPUs' in a row."""
    k, v = ctypes.create_string_buffer(key), ctypes.create_string_buffer(value)
    _bpf(_MAP_UPDATE, struct.pack("=I4xQQQ", fd, ctypes.addressof(k), ctypes.addressof(v), 0))


def pin(fd: int, path: str) -> None:
    """Pin a map in a bpffs."""
    text = ctypes.create_string_buffer(path.encode())
    _bpf(_OBJ_PIN, struct.pack("=QI", ctypes.addressof(text), fd))


def open_pinned(path: str) -> int:
    """An fd, to be closed, of a pinned map or program."""
    text = ctypes.create_string_buffer(path.encode())
    return _bpf(_OBJ_GET, struct.pack("=QII", ctypes.addressof(text), 0, 0))


def run(prog: int, context: bytes) -> None:
    """Run a program of type syscall once."""
    given = ctypes.create_string_buffer(context, len(context))
    _bpf(_PROG_RUN, struct.pack("=I36xIIQQ", prog, len(context), 0, ctypes.addressof(given), 0))


def map_id(fd: int) -> int:
    """The number that the kernel gave the map."""
    info = ctypes.create_string_buffer(256)
    _bpf(_INFO, struct.pack("=IIQ", fd, len(info), ctypes.addressof(info)))
    return int(struct.unpack_from("=II", info)[1])


def possible_cpus() -> int:
    """How many values a per-CPU map has."""
    with open("/sys/devices/system/cpu/possible") as file:
        return int(file.read().strip().rpartition("-")[2]) + 1
