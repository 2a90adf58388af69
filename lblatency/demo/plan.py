"""What the demo is made of: two proxies, four backends and how each behaves."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "BACKENDS",
    "CONNECTIONS_PER_SECOND",
    "PROXIES",
    "Backend",
    "Proxy",
    "Service",
    "backend_numbered",
    "backend_rules",
    "backends_of",
]

CONNECTIONS_PER_SECOND = 320.0
# A client learns of a reset only when it is scheduled, well after the balancer on a busy machine.
# Of the other end both learn by the client's own close: so let that one make the high percentiles.
_CUT_SHORT = 0.4


@dataclass(frozen=True)
class Proxy:
    """A listener of the load balancer: where clients connect to."""

    number: int
    name: str
    vip: str
    port: int
    share: float  # of all connections


class Service(NamedTuple):
    """How a connection is served: seconds from the request to the answer and to the end."""

    answer_s: float
    end_s: float
    resets: bool


@dataclass(frozen=True)
class Backend:
    """A server behind a proxy. `number` names its network, its events and its answers."""

    number: int
    proxy: Proxy
    host: str
    port: int
    weight: int
    answer_s: tuple[float, float, float]  # least, most, most likely
    end_s: tuple[float, float, float]
    reset_share: float = 0.0

    @property
    def target(self) -> str:
        """The backend as lblatency names it: `ip:port` or `[ip6]:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def draw(self) -> Service:
        """How the next connection is served."""
        resets = random.random() < self.reset_share
        end_s = random.triangular(*self.end_s) * (_CUT_SHORT if resets else 1)
        return Service(random.triangular(*self.answer_s), end_s, resets)


# Private and documentation ranges, and they exist inside the demo's own namespaces only.
_WEB = Proxy(1, "web", "203.0.113.80", 80, 0.75)
_WEB6 = Proxy(2, "web6", "2001:db8::80", 80, 0.25)
PROXIES = (_WEB, _WEB6)

# An answer comes before even the earliest reset. The median of each is at most 20 ms, of which the
# buckets' width is 0.1 ms.
BACKENDS = (
    Backend(
        number=1,
        proxy=_WEB,
        host="10.77.1.2",
        port=8080,
        weight=2,
        answer_s=(0.0005, 0.0019, 0.001),
        end_s=(0.002, 0.012, 0.004),
    ),
    Backend(
        number=2,
        proxy=_WEB,
        host="10.77.2.2",
        port=8080,
        weight=1,
        answer_s=(0.005, 0.045, 0.01),
        end_s=(0.05, 0.4, 0.12),
    ),
    Backend(
        number=3,
        proxy=_WEB,
        host="10.77.3.2",
        port=8080,
        weight=1,
        answer_s=(0.001, 0.0035, 0.002),
        end_s=(0.01, 0.06, 0.02),
        reset_share=0.6,
    ),
    Backend(
        number=4,
        proxy=_WEB6,
        host="fd77:4::2",
        port=8080,
        weight=1,
        answer_s=(0.001, 0.0035, 0.0015),
        end_s=(0.004, 0.03, 0.008),
    ),
)


def backend_numbered(number: int) -> Backend:
    """The backend of that number; `KeyError` if there is none."""
    for backend in BACKENDS:
        if backend.number == number:
            return backend
    raise KeyError(number)


def backends_of(proxy: Proxy) -> list[Backend]:
    """The backends behind a proxy."""
    return [backend for backend in BACKENDS if backend.proxy == proxy]


def backend_rules() -> list[str]:
    """What a source is to follow, as it takes it: all backends, with the names of their proxies."""
    return [f"{backend.target}={backend.proxy.name}" for backend in BACKENDS]
