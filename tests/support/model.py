"""A model of the documented API: slow, obvious, and independent of the implementation.

It keeps every observation as whole nanoseconds and does all arithmetic on integers and fractions.
"""

from __future__ import annotations

import ipaddress
import math
from fractions import Fraction

SECOND = 10**9


def to_ns(seconds: float) -> int:
    """The nearest whole nanosecond."""
    return round(Fraction(seconds) * SECOND)


def native_index(ns: int, schema: int) -> int:
    """The i with 2**((i-1) / 2**schema) s < ns <= 2**(i / 2**schema) s, in integers."""
    power = 1 << max(schema, 0)
    widen = 1 << max(-schema, 0)

    def at_most(i: int) -> bool:
        exponent = i * widen
        left: int = ns**power
        right: int = SECOND**power
        return left <= right << exponent if exponent >= 0 else left << -exponent <= right

    low, high = -64 * power, 64 * power
    while low < high:
        middle = (low + high) // 2
        if at_most(middle):
            high = middle
        else:
            low = middle + 1
    return low


class Model:
    """The documented API."""

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.buckets = buckets
        self.seen: dict[tuple[str, str], list[int]] = {}

    @staticmethod
    def target(target_id: str) -> tuple[str, str]:
        """Address and port, each as text."""
        host, _, port = target_id.rpartition(":")
        return str(ipaddress.ip_address(host.strip("[]"))), str(int(port))

    def record(self, proxy: str, target_id: str, ns: int) -> None:
        """Record one connection."""
        self.seen.setdefault((proxy, target_id), []).append(ns)

    def counts(self, proxy: str, target_id: str) -> tuple[int, ...]:
        """How many connections took at most each bound."""
        values = self.seen[proxy, target_id]
        return tuple(
            sum(1 for ns in values if ns <= Fraction(str(bound)) * SECOND) for bound in self.buckets
        )

    def sum(self, proxy: str, target_id: str) -> float:
        """Seconds, rounded once."""
        return float(Fraction(sum(self.seen[proxy, target_id]), SECOND))

    def mean(self, proxy: str, target_id: str) -> float:
        """Seconds, rounded once."""
        values = self.seen[proxy, target_id]
        return float(Fraction(sum(values), SECOND * len(values)))

    def percentile(self, proxy: str, target_id: str, q: str) -> Fraction:
        """The exact value at rank ceil(q * count), seconds; `q` in decimals, as text."""
        values = sorted(self.seen[proxy, target_id])
        rank = max(1, math.ceil(Fraction(q) * len(values)))
        return Fraction(values[rank - 1], SECOND)

    def native(self, proxy: str, target_id: str, schema: int) -> tuple[int, dict[int, int]]:
        """The count of the zero bucket, and the counts of the others by index."""
        zero = 0
        buckets: dict[int, int] = {}
        for ns in self.seen[proxy, target_id]:
            if ns << 20 <= SECOND:
                zero += 1
            else:
                index = native_index(ns, schema)
                buckets[index] = buckets.get(index, 0) + 1
        return zero, buckets
