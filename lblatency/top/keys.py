"""The keyboard and the screen of a terminal, which is put back whatever happens."""

from __future__ import annotations

import codecs
import os
import re
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

__all__ = ["Keys", "Terminal"]

_ENTER = "\x1b[?1049h\x1b[?25l"  # the alternate screen, without a cursor
_LEAVE = "\x1b[0m\x1b[?25h\x1b[?1049l"
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[ -~])")
_NAMES = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[C": "right",
    "\x1bOC": "right",
    "\x1b[D": "left",
    "\x1bOD": "left",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1bOH": "home",
    "\x1b[1~": "home",
    "\x1b[F": "end",
    "\x1bOF": "end",
    "\x1b[4~": "end",
    "\x1b": "escape",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
}


class Keys:
    """Turns what a terminal sends into keys: characters, and words for others."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> Iterator[str]:
        """The keys. A sequence comes whole, since a terminal writes it at once."""
        text = self._decoder.decode(data)
        while text:
            found = _SEQUENCE.match(text)
            key = found[0] if found else text[0]
            text = text[len(key) :]
            if key in _NAMES:
                yield _NAMES[key]
            elif key.isprintable():
                yield key


class Terminal:
    """The terminal of this process, as long as `taken()` lasts.

    Signals that end the process, Ctrl-C and Ctrl-Z leave it as it was. `wake` is called at a new
    size, and after Ctrl-Z and `fg`.
    """

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._before: list[Any] = []

    @contextmanager
    def taken(self, wake: Callable[[], object]) -> Iterator[None]:
        """Take it for the block."""
        self._before = termios.tcgetattr(self._in)
        self._wake = wake
        handlers = {
            **dict.fromkeys(_ENDING, self._end),
            signal.SIGTSTP: self._suspend,
            signal.SIGWINCH: lambda *_: wake(),
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            self._enter()
            yield
        finally:
            with suppress(OSError):  # it may have been hung up
                self._leave()
            for number, handler in before.items():
                signal.signal(number, handler)

    def read(self) -> bytes:
        """What was typed; call it when there is something."""
        return os.read(self._in, 1024)

    def fileno(self) -> int:
        """What can be waited for."""
        return self._in

    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            found = os.get_terminal_size(self._out)
        except OSError:
            return 80, 24
        return found.columns or 80, found.lines or 24

    def draw(self, lines: list[str]) -> None:
        """Put lines on the screen, which may have escape sequences for colours, and no others."""
        text = "\r\n".join(f"{line}\x1b[0m\x1b[K" for line in lines)
        self._write(f"\x1b[H{text}\x1b[J")

    def _write(self, text: str) -> None:
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(self._out, data) :]

    def _enter(self) -> None:
        tty.setcbreak(self._in, termios.TCSADRAIN)
        self._write(_ENTER)

    def _leave(self) -> None:
        self._write(_LEAVE)
        termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    def _suspend(self, number: int, _frame: FrameType | None) -> None:
        self._leave()
        ours = signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # it returns when the shell says so
        signal.signal(number, ours)
        self._enter()
        self._wake()
