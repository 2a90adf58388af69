"""What the demo is made of: two proxies, four backends and how each behaves."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["BACKENDS", "CONNECTIONS_PER_SECOND", "PROXIES", "Backend", "Proxy", "backend_numbered"]

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


@dataclass(frozen=True)
class Backend:
    """A server behind a proxy. `number` names its network, its events and its answers."""

    number: int
    label: str
    proxy: Proxy
    host: str
    port: int
    weight: int
    lifetime_s: tuple[float, float, float]  # least, most, most likely
    reset_share: float = 0.0

    @property
    def target(self) -> str:
        """The backend as lblatency names it: `ip:port` or `[ip6]:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def draw(self) -> tuple[float, bool]:
        """How long the next connection is served, seconds, and whether a reset cuts it short."""
        resets = random.random() < self.reset_share
        return random.triangular(*self.lifetime_s) * (_CUT_SHORT if resets else 1), resets


# Private and documentation ranges, and they exist inside the demo's own namespaces only.
_WEB = Proxy(1, "web", "203.0.113.80", 80, 0.75)
_WEB6 = Proxy(2, "web6", "2001:db8::80", 80, 0.25)
PROXIES = (_WEB, _WEB6)

BACKENDS = (
    Backend(1, "quick", _WEB, "10.77.1.2", 8080, 2, (0.002, 0.012, 0.004)),
    Backend(2, "slow", _WEB, "10.77.2.2", 8080, 1, (0.05, 0.4, 0.12)),
    Backend(3, "resetting", _WEB, "10.77.3.2", 8080, 1, (0.01, 0.06, 0.02), reset_share=0.6),
    Backend(4, "ipv6", _WEB6, "fd77:4::2", 8080, 1, (0.004, 0.03, 0.008)),
)


def backend_numbered(number: int) -> Backend:
    """The backend of that number; `KeyError` if there is none."""
    for backend in BACKENDS:
        if backend.number == number:
            return backend
    raise KeyError(number)
