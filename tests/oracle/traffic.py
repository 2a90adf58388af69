"""Random records of every kind."""

from __future__ import annotations

import random
import struct
from itertools import count

from lblatency.event import REASONS, Event
from tests.support.rig import foreign64, foreign72

from .model import Record

IPV4 = [f"10.0.0.{i}:80" for i in range(1, 6)]
TARGETS = [*IPV4, "[2001:db8::1]:443", "[2001:db8::2]:443"]
PROXIES = (0, 0, 0, 2, 7, 65535, 65534)
VIPS = ("198.51.100.1:443", "198.51.100.2:443", "198.51.100.3:443")
NAMES: dict[int | str, str] = {2: "api", VIPS[0]: "shop", VIPS[2]: "api"}
_LIFETIMES = (0, 10**3, 10**6, 10**9, 10**12, 10**16)
_FIRST = 1 << 60  # ns; later than the longest lifetime


def _pair(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


class Traffic:
    """Makes records. Each has a time of its own, so each can be told from all others."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._clock = count(_FIRST, 1009)
        self._ids = {key: n for n, key in enumerate(((p, t) for p in PROXIES for t in TARGETS), 1)}
        self._open: list[Record] = []

    def records(self, n: int) -> list[Record]:
        """Make `n` records, most of them plain closes."""
        makers = (
            self._own_closed, self._own_closed, self._own_closed, self._own_opened,
            self._foreign_opened, self._foreign_closed, self._odd,
        )  # fmt: skip
        weights = self._chance.choice(
            ((20, 9, 9, 9, 4, 4, 1), (1, 0, 0, 0, 0, 0, 0), (3, 3, 1, 9, 1, 1, 1))
        )
        return [self._chance.choices(makers, weights)[0]() for _ in range(n)]

    def _backend(self) -> tuple[int, str, int]:
        proxy, target = self._chance.choice(PROXIES), self._chance.choice(TARGETS)
        backend_id = self._ids[proxy, target] if self._chance.random() < 0.7 else 0
        if self._chance.random() < 0.01:
            backend_id = self._chance.randrange(1 << 32)  # a hint may be wrong
        return proxy, target, backend_id

    def _own(self, kind: str, **fields: object) -> Record:
        proxy, target, backend_id = self._backend()
        at = next(self._clock)
        created = 0
        if kind == "closed" and (dice := self._chance.random()) < 0.95:
            longest = self._chance.choice(_LIFETIMES)
            created = at - self._chance.randint(0, longest) if dice < 0.93 else at + 5
        event = Event(
            kind, target, at, created, proxy_id=proxy, backend_id=backend_id,
            reason=str(fields.get("reason", "unknown")), probe=bool(fields.get("probe")),
        )  # fmt: skip
        return Record(
            event.pack(), kind, proxy, target, at, created,
            REASONS.index(event.reason), event.probe,
        )  # fmt: skip

    def _own_closed(self) -> Record:
        record = self._own(
            "closed",
            reason=self._chance.choice(REASONS),
            probe=self._chance.random() < 0.03,
        )
        if self._chance.random() < 0.03:  # an extended event
            record.data += bytes(64)
        return record

    def _own_opened(self) -> Record:
        return self._own("opened")

    def _foreign(self, kind: int, client: tuple[str, int], vip: str, target: str) -> Record:
        pack = self._chance.choice((foreign64, foreign72))
        at = next(self._clock)
        data = pack(kind, at, client, _pair(vip), _pair(target))
        names = ("", "opened", "closed", "periodic")
        return Record(data, names[kind], vip, target, at, connection=(client, vip, target))

    def _tuple(self) -> tuple[tuple[str, int], str, str]:
        client = ("192.0.2.7", self._chance.randint(40000, 40015))
        return client, self._chance.choice(VIPS), self._chance.choice(IPV4[:2])

    def _foreign_opened(self) -> Record:
        return self._foreign(1, *self._tuple())

    def _foreign_closed(self) -> Record:
        return self._foreign(2, *self._tuple())

    def _odd(self) -> Record:
        dice = self._chance.randrange(4)
        if dice == 0:
            return self._own("periodic")
        if dice == 1:
            return Record(b"")
        if dice == 2:
            return Record(struct.pack("=24s", b"neither"), "malformed")
        record = self._own("closed")
        return Record(bytes([9]) + record.data[1:], "malformed")
