"""What a tracker must say, kept in the slow obvious way: every lifetime is remembered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from lblatency.event import REASONS

if TYPE_CHECKING:
    from collections.abc import Iterable

Key = tuple[str, str]  # proxy name, target
Place = tuple[int | str, str]  # listener by its id or its VIP, target: names may be equal
OVERFLOW: Key = ("overflow", "overflow:0")
REMOVED: Key = ("removed", "removed:0")
CONNECT_FAILED = REASONS.index("connect_failed")


@dataclass
class Record:
    """A record that a producer sends.

    Attributes:
        data: its bytes; none for a reservation that is given up.
        kind: "opened", "closed", "periodic", "malformed", or "" if it is none.
        proxy: the listener by its id (int) or its VIP (str).
        target: the backend.
        at: when it happened, ns.
        created: of the connection, ns; 0 = not told.
        reason: number of the reason.
        probe: whether it is a health check.
        connection: name of the connection, if the format tells it.
        accepted: whether it fit into the ring.
    """

    data: bytes
    kind: str = ""
    proxy: int | str = 0
    target: str = ""
    at: int = 0
    created: int = 0
    reason: int = 0
    probe: bool = False
    connection: tuple[object, ...] | None = None
    accepted: bool = True


@dataclass
class Row:
    """One backend of one shard."""

    lifetimes: list[int] = field(default_factory=list)
    closed: Counter[str] = field(default_factory=Counter)
    opened: int = 0
    probes: int = 0
    open_before: int = 0
    not_open: int = 0  # opened minus closed of connections that began before the horizon

    @property
    def open(self) -> int:
        """Opened minus closed; below 0 if this shard saw only the closes."""
        seen = self.opened - self.closed.total() - self.probes
        return self.open_before + seen - self.not_open

    def add(self, other: Row) -> None:
        """Add what another row counted, besides open connections."""
        self.lifetimes += other.lifetimes
        self.closed += other.closed
        self.opened += other.opened
        self.probes += other.probes


class Seen(NamedTuple):
    """What a tracker says of a backend."""

    lifetimes: tuple[int, ...]
    closed: dict[str, int]
    opened: int
    open: int
    probes: int


class Shared:
    """What the shards of one start have in common.

    Attributes:
        births: when each connection opened that was seen to; None if two could be meant.
        horizon: connections that began earlier do not count as open; None until the first opened
            event, and until then nothing is known to be open.
        earliest: the horizon, once there is one, is beyond all that closed before.
        shards: all of them.
    """

    def __init__(self) -> None:
        self.births: dict[tuple[object, ...], int | None] = {}
        self.horizon: int | None = None
        self.earliest = 0
        self.shards: list[Shard] = []

    def settle(self, began: int) -> None:
        """Set the horizon if there is none."""
        if self.horizon is None:
            self.horizon = max(began, self.earliest)
            for row in chain.from_iterable(shard.rows.values() for shard in self.shards):
                row.not_open += row.open

    def pass_by(self, ended: int) -> None:
        """A connection has closed then."""
        if self.horizon is None:
            self.earliest = max(self.earliest, ended)

    def is_beyond(self, began: int) -> bool:
        """Whether a connection began before the horizon."""
        return self.horizon is not None and began < self.horizon


class Shard:
    """What one attachment to one ring counted."""

    def __init__(self, names: dict[int | str, str], limit: int, shared: Shared) -> None:
        self.names = names
        self.shared = shared
        shared.shards.append(self)
        self.limit = limit
        self.rows: dict[Place, Row] = {OVERFLOW: Row()}
        self.outcomes: Counter[str] = Counter()

    def row(self, record: Record) -> Row:
        """The backend's row; the overflow row if there are too many."""
        unnamed_vip = isinstance(record.proxy, str) and record.proxy not in self.names
        place = (0 if unnamed_vip else record.proxy, record.target)
        if place not in self.rows and len(self.rows) > self.limit:
            return self.rows[OVERFLOW]
        return self.rows.setdefault(place, Row())

    def key(self, place: Place) -> Key:
        """What the backend at a place is called."""
        listener, target = place
        if place == OVERFLOW:
            return OVERFLOW
        return self.names.get(listener, f"proxy-{listener}"), target

    def parts(self) -> list[tuple[Key, Row]]:
        """All rows with their names."""
        return [(self.key(place), row) for place, row in self.rows.items()]

    def take(self, record: Record) -> None:
        """Count one event."""
        if not record.kind:
            return
        self.outcomes[record.kind] += 1
        if record.kind == "opened":
            began = record.created or record.at
            row = self.row(record)
            self.shared.settle(began)
            row.opened += 1
            row.not_open += self.shared.is_beyond(began)
            if record.connection:
                births = self.shared.births
                births[record.connection] = None if record.connection in births else record.at
        elif record.kind == "closed":
            self._close(record, self.row(record))

    def _close(self, record: Record, row: Row) -> None:
        created = record.created
        if record.connection:
            created = created or self.shared.births.pop(record.connection, 0) or 0
        if created:
            row.not_open -= self.shared.is_beyond(created)
        if (created or record.connection) and created <= record.at:
            self.shared.pass_by(record.at)
        if record.probe:
            row.probes += 1
            self.outcomes["ignored"] += 1
            return
        row.closed[REASONS[record.reason]] += 1
        if record.reason == CONNECT_FAILED:
            self.outcomes["ignored"] += 1
        elif not created:
            self.outcomes["unmatched"] += 1
        elif created > record.at:
            self.outcomes["rejected"] += 1
        else:
            self.outcomes["recorded"] += 1
            row.lifetimes.append(record.at - created)

    def reset(self, still_open: set[Key]) -> None:
        """Forget all counts, and all backends but those that are still open."""
        kept = {place: row for place, row in self.rows.items() if self.key(place) in still_open}
        self.rows = {place: Row(open_before=row.open) for place, row in kept.items()}
        self.rows.setdefault(OVERFLOW, Row())


class Ring:
    """A ring, and who gets what comes off it."""

    def __init__(self) -> None:
        self.waiting: list[Record] = []
        self.attempts: list[Record] = []


class TrackerModel:
    """A tracker.

    Args:
        limit: its max_backends.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.own: dict[Key, Row] = {}
        self.shards: list[Shard] = []
        self.removed = Row()
        self.produced = self.received = self.dropped = 0
        self.lost = 0  # since the last start, or since a reset that started anew
        self.open_removed = 0  # likewise: connections that were open in rows that went
        self.rows_freed = False
        self.past: Counter[str] = Counter()

    @property
    def running(self) -> bool:
        """Whether it is attached."""
        return bool(self.shards)

    def start(self, rings: Iterable[Ring], names: dict[int | str, str]) -> None:
        """Attach. What waits in the rings will be received."""
        self._start_open_anew()
        shared = Shared()
        for ring in rings:
            self.shards.append(Shard(names, self.limit, shared))
            self.produced += sum(1 for record in ring.waiting if record.data)

    def sent(self, records: Iterable[Record]) -> None:
        """A producer tried to send records."""
        for record in records:
            if record.data:
                self.produced += 1
                self.dropped += not record.accepted
                self.lost += not record.accepted

    def take(self, ring: int, record: Record) -> None:
        """A record came off a ring."""
        if record.data:
            self.received += 1
            self.lost += record.kind == "malformed"
            self.shards[ring].take(record)

    def stop(self) -> None:
        """Detach: the own rows get what the rings' rows had."""
        for shard in self.shards:
            for key, row in shard.parts():
                own = self.own.setdefault(key, Row())
                own.add(row)
                own.open_before += row.open_before
            self.past += shard.outcomes
        self.shards = []
        self._start_open_anew()

    def _start_open_anew(self) -> None:
        self.lost = self.open_removed = 0
        self.rows_freed = False
        for shard in self.shards:
            shard.shared.horizon = None
            shard.shared.earliest = 0

    def _open(self, rows: Iterable[Row]) -> int:
        """How many are known to be open."""
        known = any(shard.shared.horizon is not None for shard in self.shards)
        return sum(row.open for row in rows) if known else 0

    @property
    def open_error(self) -> int:
        """By how much a number of open connections can be wrong."""
        overflow = self._open(shard.rows[OVERFLOW] for shard in self.shards)
        return (
            self.lost
            + self.open_removed
            + (abs(overflow) if self.rows_freed or len(self.shards) > 1 else 0)
        )

    def _forget(self, n_open: int) -> None:
        self.open_removed += abs(n_open)
        self.rows_freed = True

    def record(self, key: Key, ns: int) -> None:
        """Record by hand."""
        row = self.own.setdefault(key, Row())
        row.lifetimes.append(ns)
        row.closed["unknown"] += 1

    def reset(self) -> None:
        """Forget all counts."""
        keys = {*self.own, *(key for shard in self.shards for key, _ in shard.parts())}
        opens = {
            key: self._open(row for s in self.shards for k, row in s.parts() if k == key)
            for key in keys - {OVERFLOW}
        }
        self.own = {}
        self.removed = Row()
        if self.open_error:
            for shard in self.shards:
                shard.reset(set())
            self._start_open_anew()
            return
        for shard in self.shards:
            shard.reset({OVERFLOW, *(key for key, n in opens.items() if n > 0)})
        for n_open in opens.values():
            if n_open <= 0:
                self._forget(n_open)

    def remove(self, key: Key) -> bool:
        """Remove a backend; whether it was known."""
        parts = []
        for shard in self.shards:
            for place in [place for place in shard.rows if shard.key(place) == key]:
                parts.append(shard.rows.pop(place))
        n_open = self._open(parts)
        if key in self.own:
            parts.append(self.own.pop(key))
        for row in parts:
            self.removed.add(row)
        self.removed.open_before += max(0, sum(row.open_before for row in parts))
        if parts:
            self._forget(n_open)
        return bool(parts)

    def backends(self) -> dict[Key, Seen]:
        """All backends with any count."""
        merged: dict[Key, list[Row]] = {}
        shards = (shard.parts() for shard in self.shards)
        for key, row in chain(self.own.items(), *shards, [(REMOVED, self.removed)]):
            merged.setdefault(key, []).append(row)
        known = [shard for shard in self.shards if shard.shared.horizon is not None]
        live = {id(row) for shard in known for row in shard.rows.values()}
        seen = {key: _merge(rows, live) for key, rows in merged.items()}
        return {key: row for key, row in seen.items() if row.opened or row.closed or row.probes}

    def outcomes(self) -> Counter[str]:
        """Where the received events went."""
        total = Counter(self.past)
        for shard in self.shards:
            total += shard.outcomes
        return total


def _merge(rows: list[Row], live: set[int]) -> Seen:
    total = Row()
    for row in rows:
        total.add(row)
    before = sum(row.open_before for row in rows)
    return Seen(
        lifetimes=tuple(sorted(total.lifetimes)),
        closed=dict(total.closed),
        opened=total.opened + max(0, before),
        open=max(0, sum(row.open for row in rows if id(row) in live)),
        probes=total.probes,
    )
