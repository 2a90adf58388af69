"""A process of the demo in a network namespace of its own, as the demo sees it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

from ..errors import LatencyError

__all__ = ["DemoError", "Worker"]

_START_S = 15.0
_STOP_S = 1.0
_PACKAGES = Path(__file__).resolve().parent.parent.parent


class DemoError(LatencyError):
    """Something that the demo needs did not work."""


class Worker:
    """Starts `python -m lblatency.demo.traffic ROLE …`; `close` ends it, and its namespace."""

    def __init__(self, *role: str) -> None:
        self.role = " ".join(role)
        self._output = bytearray()
        self._is_program = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lblatency.demo.traffic", *role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": str(_PACKAGES)},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin = self._process.stdin
        self._stdout = self._process.stdout

    @property
    def pid(self) -> int:
        """Its process id, which also names its namespace to `ip` and `nsenter`."""
        return self._process.pid

    def go(self) -> None:
        """Tell it to do its part."""
        self._stdin.write(b"g")

    def become(self, program: str, *arguments: str) -> None:
        """Have it run that program in its place: the same process in the same namespace.

        What the program says counts as the worker's output.
        """
        self._is_program = True
        self._stdin.write(b"g" + "\0".join((program, *arguments)).encode())

    def has_ended(self) -> bool:
        """Whether its process has ended."""
        return self._process.poll() is not None

    def last_words(self) -> str:
        """The last line that it wrote so far; "" if none."""
        while self._read(0):
            pass
        lines = self._output.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def finish(self) -> None:
        """Tell it to stop: a client opens no more connections, all others end."""
        self._stdin.close()

    def wait_for(self, word: str) -> None:
        """Wait until it says that line; `DemoError` if it ends or stays silent."""
        line = word.encode() + b"\n"
        deadline = time.monotonic() + _START_S
        while not self._output.startswith(line):
            if not self._read(deadline - time.monotonic()):
                raise DemoError(f"the demo's {self.role} did not get {word}")
        del self._output[: len(line)]

    def has_output(self) -> bool:
        """Whether it has something to say, or has ended."""
        return bool(self._output or select.select([self._stdout], [], [], 0)[0])

    def read_all(self, timeout: float) -> bytes:
        """All it writes until it ends; `DemoError` if that takes longer or it failed."""
        deadline = time.monotonic() + timeout
        while self._read(deadline - time.monotonic()):
            pass
        try:
            code = self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            raise DemoError(f"the demo's {self.role} did not end") from None
        if code != 0:
            raise DemoError(f"the demo's {self.role} failed with exit code {code}")
        return bytes(self._output)

    def _read(self, timeout: float) -> bool:
        """Take what it wrote; false at its end or when nothing came in time."""
        if not select.select([self._stdout], [], [], max(0.0, timeout))[0]:
            return False
        data = os.read(self._stdout.fileno(), 1 << 16)
        self._output += data
        return bool(data)

    def close(self) -> None:
        """End it, by force if it does not end by itself. Legal more than once."""
        self.finish()
        if self._is_program:
            self._process.kill()  # it knows nothing of our pipe
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
