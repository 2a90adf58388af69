"""What a container's seccomp profile does: bpf() is denied, whatever the capabilities are."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys

from tests.support.bpf import BPF_NUMBER

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_FIRST_ARGUMENT = 16 if sys.byteorder == "little" else 20  # its lower half in seccomp_data
_ERRNO, _ALLOW = 0x00050000, 0x7FFF0000
_libc = ctypes.CDLL(None, use_errno=True)


def deny_bpf(command: int | None = None, error: int = errno.EPERM) -> None:
    """Deny the system call to this process and its children, for good; or one of its commands."""
    allow, deny = (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | error)
    rules = [(_LOAD, 0, 0, 0), (_JUMP_IF_EQUAL, 1, 0, BPF_NUMBER[platform.machine()]), allow]
    if command is not None:
        rules += [(_LOAD, 0, 0, _FIRST_ARGUMENT), (_JUMP_IF_EQUAL, 1, 0, command), allow]
    rules.append(deny)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *rule) for rule in rules))
    program = struct.pack("=H6xQ", len(rules), ctypes.addressof(code))
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _FILTER, program)):
        if _libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")
