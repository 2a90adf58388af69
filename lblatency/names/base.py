"""What a server is called: rows that readers find, and the table of them with its history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar, NamedTuple, Self

from .._address import format_ip, parse_ip

__all__ = ["Name", "NameTable", "Reader", "Row", "printable"]

_TEXT_MAX = 200  # characters of a name; a label needs no more
_JOINED_MAX = 8  # names that a joint name spells out
_CHANGES_MAX = 8  # names in a row that are remembered of one address
TARGETS_MAX = 200_000  # addresses that are remembered; those that left go first


def printable(text: str) -> str:
    """The text as it may be shown: what a terminal would obey is replaced, a long one is cut."""
    if len(text) > _TEXT_MAX:
        text = text[: _TEXT_MAX - 1] + "\N{HORIZONTAL ELLIPSIS}"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


class Name(NamedTuple):
    """What people call a server. Several servers of one address have a joint name."""

    backend: str
    server: str

    def __str__(self) -> str:
        """`backend/server`; a joint name of servers of several backends says so of each anyway."""
        first, is_joint, _ = self.backend.partition("|")
        if is_joint and self.server.startswith(f"{first}/"):
            return self.server
        return f"{self.backend}/{self.server}"


class Row(NamedTuple):
    """A server of a proxy.

    Attributes:
        ip: as `format_ip()` writes it.
        port: 0 for all ports of the address.
        name: of the server.
        source: the address that the proxy connects from, if that is set for this server.
    """

    ip: str
    port: int
    name: Name
    source: str | None = None

    @classmethod
    def of(cls, ip: str, port: int, backend: str, server: str, source: str | None = None) -> Self:
        """A row from what a program outside says: addresses are normalised, names are printable.

        Raises:
            ValueError: an address is none, or the port is out of range.
        """
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port} is not 0 to 65535")
        name = Name(printable(backend), printable(server))
        return cls(_normal(ip), port, name, None if source is None else _normal(source))


class Reader(ABC):
    """Reads the names from one place.

    A subclass is a file in this folder and a line in its `__init__.py`. Its constructor takes the
    place as its one argument, and neither reads nor connects.

    Attributes:
        option: its name in front ends: `--haproxy`.
        metavar: what the place is, in a word for the help.
        help: what it is for.
        process: whose sockets it names; front ends take the connections of processes of this name.
            "" if it is for any source.
        capabilities: what the process needs to read as root may: places of other users.
        if_bare: the place if a front end is told none; None if it must be told.
        interval_s: how often to read.
        timeout_s: how long a read may take.
        place: where the names come from, for people.
    """

    option: ClassVar[str]
    metavar: ClassVar[str]
    help: ClassVar[str]
    process: ClassVar[str] = ""
    capabilities: ClassVar[tuple[str, ...]] = ()
    if_bare: ClassVar[str | None] = None
    interval_s: float = 5.0
    timeout_s: float = 2.0
    place: str

    @abstractmethod
    def __init__(self, place: str) -> None: ...

    @abstractmethod
    def read(self, deadline: float) -> Iterable[Row]:
        """All servers, as they are now.

        Args:
            deadline: by `time.monotonic()`.

        Raises:
            LatencyError: the place is away, or what it says is no such list; in one line.
            OSError: the place cannot be read.
        """

    def check(self) -> None:  # noqa: B027  # most places mend themselves
        """Refuse a place that does not mend itself. One that is only away may come yet.

        Raises:
            LatencyError: it is malformed; in one line, with the place.
        """


class _Served:
    """The names of one address at one time."""

    __slots__ = ("_any", "_by_source")

    def __init__(self, rows: Iterable[Row]) -> None:
        by_source: dict[str | None, set[Name]] = {}
        for row in rows:
            by_source.setdefault(row.source, set()).add(row.name)
        self._any = _joint(set().union(*by_source.values()))
        self._by_source = {source: _joint(names) for source, names in by_source.items()}

    def name(self, source: str | None) -> Name:
        """The name for connections from this address; a joint one if it does not tell."""
        if source is None:
            return self._any
        return self._by_source.get(source) or self._by_source.get(None) or self._any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Served) and self._by_source == other._by_source

    __hash__ = None  # type: ignore[assignment]  # it is compared, never a key


_Target = tuple[str, int]
_Past = tuple[tuple[int, _Served], ...]  # since when (monotonic ns), ascending


class NameTable:
    """The names of addresses, now and before. It never changes: `updated()` makes another one.

    An address that no reader has any more keeps its last name, because its series are still there.
    """

    def __init__(self) -> None:
        self._past: Mapping[_Target, _Past] = {}

    def __len__(self) -> int:
        return len(self._past)

    def updated(self, rows: Iterable[Row], now_ns: int) -> NameTable:
        """The table after all readers' rows were read.

        Args:
            rows: of all readers.
            now_ns: `time.monotonic_ns()` when the reading began.
        """
        by_target: dict[_Target, list[Row]] = {}
        for row in rows:
            by_target.setdefault((row.ip, row.port), []).append(row)
        past = dict(self._past)
        for target, its_rows in by_target.items():
            served, before = _Served(its_rows), past.get(target, ())
            if not before or before[-1][1] != served:
                past[target] = (*before[1 - _CHANGES_MAX :], (now_ns, served))
        if len(past) > TARGETS_MAX:
            past = {target: past[target] for target in by_target}
        table = NameTable()
        table._past = past
        return table

    def find(
        self, ip: str, port: int, source: str | None = None, at_ns: int | None = None
    ) -> Name | None:
        """The name of a server; None if there is none.

        Args:
            ip: of the server.
            port: of the server.
            source: the address that the connection came from, if it is known.
            at_ns: when the connection was created, by the monotonic clock: its name is the one of
                that time. None for now.
        """
        past = self._find(ip, port) or self._find(_normal_or_same(ip), port)
        if past is None:
            return None
        served = past[-1][1]
        if at_ns is not None:
            before = [each for since_ns, each in past if since_ns <= at_ns]
            served = before[-1] if before else past[0][1]
        return served.name(None if source is None else _normal_or_same(source))

    def _find(self, ip: str, port: int) -> _Past | None:
        return self._past.get((ip, port)) or self._past.get((ip, 0))


def _normal(ip: str) -> str:
    return format_ip(parse_ip(ip))


def _normal_or_same(ip: str) -> str:
    try:
        return _normal(ip)
    except ValueError:
        return ip


def _joint(names: set[Name]) -> Name:
    """One name for all; never one of them."""
    backends = sorted({name.backend for name in names})
    if len(backends) == 1:
        return Name(backends[0], _joined(sorted(name.server for name in names)))
    return Name(_joined(backends), _joined(sorted("/".join(name) for name in names)))


def _joined(texts: list[str]) -> str:
    shown = texts[:_JOINED_MAX]
    if more := len(texts) - len(shown):
        shown.append(f"{more} more")
    return "|".join(shown)
