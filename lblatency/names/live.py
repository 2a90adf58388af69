"""The names as they are now, read again and again by a thread of their own."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

from .._address import parse_ip
from .._closing import Closing
from .base import TARGETS_MAX, Name, NameTable, Reader, Row, printable

__all__ = ["Names"]

_WANTED_SHARE = 5  # what is wanted at once is read after this fraction of the interval
_ASKED_MAX = 10_000  # unknown addresses that are remembered, so that each is asked for once
_CLOSING_S = 1.0


class _Book:
    """What one reader read last, and when to read again. Only `Names` writes, under its lock."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.place = printable(reader.place)
        self.rows: list[Row] = []
        self.read_at: float | None = None  # by time.monotonic()
        self.good_at: float | None = None
        self.error: str | None = None
        self.told: str | None = None  # the error that people know of
        self.is_wanted = True

    def due_in(self) -> float:
        """Seconds."""
        if self.read_at is None:
            return 0.0
        pause = self.reader.interval_s / (_WANTED_SHARE if self.is_wanted else 1)
        return self.read_at + pause - time.monotonic()

    def read(self) -> None:
        """Read all rows; keep the old ones if the reader cannot."""
        self.is_wanted = False
        started = time.monotonic()
        try:
            rows = list(islice(self.reader.read(started + self.reader.timeout_s), TARGETS_MAX + 1))
            if len(rows) > TARGETS_MAX:
                raise ValueError(f"it has more than {TARGETS_MAX} servers")
        except Exception as error:  # whatever a place outside says, the thread goes on
            why = error.strerror if isinstance(error, OSError) else None
            self.error = f"{self.place}: {printable(why or str(error) or repr(error))}"
        else:
            self.rows, self.error, self.good_at = rows, None, started
        self.read_at = time.monotonic()

    def status(self) -> dict[str, Any]:
        """For people."""
        age = None if self.good_at is None else time.monotonic() - self.good_at
        return {
            "from": self.reader.option,
            "place": self.place,
            "count": len(self.rows),
            "age_s": age,
            "error": self.error,
        }


class Names(Closing):
    """The names of servers, from several readers at once.

    A thread reads them every few seconds, and at once when an address is looked up that is not
    known. Nobody waits for it: a place that is slow, away or hostile costs nothing but fresh names.
    A child of `fork()` has no such thread, so its names stay as they are.

    Args:
        readers: where the names come from.
    """

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._books = [_Book(reader) for reader in readers]
        self._table = NameTable()
        self._reading = threading.Lock()
        self._asked: set[tuple[str, int]] = set()
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="lblatency-names", daemon=True)
        self._thread.start()

    def find(
        self, ip: str, port: int, source: str | None = None, at_ns: int | None = None
    ) -> Name | None:
        """The name of a server. See `NameTable.find()`.

        If it is not known, it is looked for at once, but this call does not wait: the next one may
        find it.
        """
        found = self._table.find(ip, port, source, at_ns)
        if found is None and (ip, port) not in self._asked and _is_ip(ip):
            if len(self._asked) >= _ASKED_MAX:
                self._asked.clear()
            self._asked.add((ip, port))
            for book in self._books:
                book.is_wanted = True
            self._wake.set()
        return found

    def replace(self, readers: Sequence[Reader]) -> None:
        """Read from these from now on. Those that stay are not read at once; known names stay."""
        books = {book.reader: book for book in self._books}
        self._books = [books.get(reader) or _Book(reader) for reader in readers]
        self._wake.set()

    def refresh(self) -> None:
        """Read all names now. It returns after the readers' timeouts at the latest."""
        self._read(self._books)

    def status(self) -> list[dict[str, Any]]:
        """Of each reader: `from`, `place`, `count` of servers, `age_s` of them, `error` or None."""
        return [book.status() for book in self._books]

    def news(self) -> list[str]:
        """What to tell people, each once: a place that cannot be read any more, or can again."""
        told = []
        for book in self._books:
            error = book.error
            if error != book.told:
                book.told = error
                told.append(
                    f"{error}; {_what_stays(book)}"
                    if error
                    else f"{book.place}: {len(book.rows)} names are read again"
                )
        return told

    def close(self) -> None:
        """End the thread. The names stay."""
        self._ended = True
        self._wake.set()
        self._thread.join(_CLOSING_S)  # it may be in the middle of a read, which ends by itself

    def _run(self) -> None:
        others = signal.valid_signals() - {signal.SIGRTMAX}  # that one: kernel/privileges.h
        signal.pthread_sigmask(signal.SIG_BLOCK, others)  # they are the program's
        while not self._ended:
            due_in = min((book.due_in() for book in self._books), default=None)
            if due_in is None or due_in > 0:
                self._wake.wait(due_in)
                self._wake.clear()
            else:
                self._read([book for book in self._books if book.due_in() <= 0])

    def _read(self, books: Sequence[_Book]) -> None:
        with self._reading:
            started_ns = time.monotonic_ns()
            before = [book.rows for book in self._books]
            for book in books:
                book.read()
            if [book.rows for book in self._books] != before:
                rows = [row for book in self._books for row in book.rows]
                self._table = self._table.updated(rows, started_ns)


def _what_stays(book: _Book) -> str:
    if book.good_at is None:
        return "its servers have no names until it can be read"
    return f"{len(book.rows)} older names stay"


def _is_ip(ip: str) -> bool:
    """False for what is no address, such as the backend `overflow`."""
    try:
        return bool(parse_ip(ip))
    except ValueError:
        return False
