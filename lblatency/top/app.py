"""The loop of `lblatency top`: keys, sizes and news, and what they do."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rich.console import Console, ConsoleDimensions

from ..errors import LatencyError
from ..history import WINDOWS, Selection, View
from .keys import Keys, Terminal
from .screen import Seen, State, ansi, column_after, detail_lines, table_lines
from .table import fitting

__all__ = ["App"]

POLL_S = 2.0
_DRAW_S = 0.05  # at most twenty times per second, however fast keys come
_PAGES = {"page up": -1, "page down": 1}
_ERRORS = (LatencyError, OSError, ValueError, LookupError, TypeError)


class _Reader:
    """Asks the view again and again in a thread, so that nobody waits for an answer."""

    def __init__(self, view: View, tick: Callable[[], object], wake: Callable[[], object]) -> None:
        self.seen = Seen()
        self.distribution: dict[str, Any] | None = None
        self._view = view
        self._tick = tick
        self._wake = wake
        self._asked = threading.Event()
        self._window: int | str = 60
        self._selection: Selection | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="lblatency-top", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask(self, window: int | str, selection: Selection | None) -> None:
        """Read this now, and from now on."""
        if selection != self._selection:
            self.distribution = None
        self._window, self._selection = window, selection
        self._asked.set()

    def close(self, timeout: float | None) -> None:
        """End it."""
        self._ended = True
        self._asked.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._ended:
            self._asked.clear()
            self._read()
            self._wake()
            self._asked.wait(POLL_S)

    def _read(self) -> None:
        window, selection = self._window, self._selection
        try:
            self._tick()
            status, table = self._view.status(), self._view.backends(window)
            if selection:
                self.distribution = self._view.distribution([selection], window)
        except _ERRORS as error:  # what comes from elsewhere may be anything
            before = self.seen
            self.seen = Seen(before.status, before.table, str(error) or repr(error), before.at)
        else:
            self.seen = Seen(status, table, "", time.monotonic())


class App:
    """The table in a terminal, until somebody quits.

    Args:
        view: what is shown.
        state: what is chosen at first.
        tick: called every two seconds, in another thread: it samples. None if somebody else does.
    """

    def __init__(self, view: View, state: State, tick: Callable[[], object] | None) -> None:
        self._state = state
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        self._reader = _Reader(view, tick or (lambda: None), self._wake)
        self._patience_s = 0.5 if tick is None else None  # an answer may never come, a tick ends
        self._terminal = Terminal()
        self._keys = Keys()
        self._console = Console(force_terminal=True, highlight=False, legacy_windows=False)
        self._selection: Selection | None = None  # whose distribution is shown
        self._size = (80, 24)

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # it is awake already
            os.write(self._pipe[1], b"x")

    def run(self) -> None:
        """Until q or Ctrl-C."""
        self._reader.start()
        try:
            with self._terminal.taken(self._wake), suppress(KeyboardInterrupt):
                self._loop()
        finally:
            self._reader.close(self._patience_s)

    def _loop(self) -> None:
        poll = select.poll()
        for fd in (self._terminal.fileno(), self._pipe[0]):
            poll.register(fd, select.POLLIN)
        while True:
            self._draw()
            time.sleep(_DRAW_S)
            for fd, happened in poll.poll(1000 * POLL_S):
                if fd == self._pipe[0]:
                    os.read(fd, 4096)
                elif happened & select.POLLIN:
                    if not all(map(self._press, self._keys.feed(self._terminal.read()))):
                        return
                else:  # nobody sits there any more
                    return

    def _draw(self) -> None:
        self._size = width, height = self._terminal.size()
        self._console.size = ConsoleDimensions(width, height)
        seen, found = self._reader.seen, self._reader.distribution
        if self._selection and found:
            lines = detail_lines(found, seen.error, width, height)
        else:
            lines = table_lines(self._state, seen, width, height)
        self._terminal.draw(ansi(self._console, lines[:height]))

    def _press(self, key: str) -> bool:
        """Do what a key says; returns whether to go on."""
        state = self._state
        if state.typed is not None:
            self._type(key)
        elif key == "q":
            return False
        elif key == "w":
            at = WINDOWS.index(state.window)
            state.window = WINDOWS[(at + 1) % len(WINDOWS)]
            self._ask()
        elif self._selection:
            if key in ("escape", "enter", "backspace", "left"):
                self._selection = None
                self._ask()
        elif key == "/":
            state.typed = state.filter
        elif key == "r":
            state.is_reversed = not state.is_reversed
        elif key == "escape":
            state.filter = ""
        elif key in ("left", "right"):
            if table := self._reader.seen.table:
                shown = fitting(table, self._size[0])
                state.sort = column_after(state, shown, 1 if key == "right" else -1)
        else:
            self._move(key)
        return True

    def _ask(self) -> None:
        self._reader.ask(self._state.window, self._selection)

    def _type(self, key: str) -> None:
        state = self._state
        typed = state.typed or ""
        if key == "enter":
            table = self._reader.seen.table
            if table is None or not state.rows(table)[1]:
                state.filter, state.typed = typed, None
        elif key == "escape":
            state.typed = None
        elif key == "backspace":
            state.typed = typed[:-1]
        elif len(key) == 1 and len(typed) < 200:
            state.typed = typed + key

    def _move(self, key: str) -> None:
        state, table = self._state, self._reader.seen.table
        rows = state.rows(table)[0] if table else []
        if not rows:
            return
        at, room = state.selected(rows), max(1, self._size[1] - 4)
        if key == "enter":
            self._selection = Selection(rows[at]["proxy"], rows[at]["target"])
            self._ask()
        elif key in ("up", "k", "down", "j"):
            at += (1 if key in ("down", "j") else -1) if state.cursor else 0
        elif key in _PAGES:
            at += room * _PAGES[key]
        elif key in ("home", "end"):
            at = 0 if key == "home" else len(rows) - 1
        else:
            return
        row = rows[max(0, min(at, len(rows) - 1))]
        state.cursor = (row["proxy"], row["target"])
