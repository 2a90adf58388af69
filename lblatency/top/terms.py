"""What a filter says: terms, all of which must hold. The status page has the same ones."""

from __future__ import annotations

import ipaddress
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from .._address import split_endpoint

__all__ = ["EXAMPLES", "parse_terms"]

EXAMPLES = 'proxy:web ip:10.0.0.0/24 port:80 server:s1 reason:rst p99>100ms "any text" -not'
Row = Mapping[str, Any]  # of the API's table of backends; `proxy` is the name
Term = Callable[[Row], bool]
_TERM = re.compile(r'-?(?:[a-z0-9_]+(?::|[<>]=?))?(?:"[^"]*"?|[^\s"]+)', re.IGNORECASE)
_PARTS = re.compile(r"(-?)(?:([a-z0-9_]+)(:|[<>]=?))?(.*)", re.IGNORECASE | re.DOTALL)
_REASONS = {"rst": "resets", "reset": "resets", "failed": "failed_connects"}
_WORDS = {
    "rate": "closed_per_s",
    "open": "open",
    "count": "count",
    "p50": "p50",
    "p95": "p95",
    "p99": "p99",
    "connect": "connect_p95",
    "first_byte": "first_byte_p95",
    "active": "active_p95",
    "resets": "resets",
    "failed": "failed_connects",
    "change": "change",
}
_SIGNS = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le}
_UNITS = {
    "": 1, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "%": 0.01, "k": 1e3,
}  # fmt: skip
_AMOUNT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([a-zµ%]*)")


def _contains(text: str, *columns: str) -> Term:
    wanted = text.casefold()
    return lambda row: any(wanted in (row.get(name) or "").casefold() for name in columns)


def _ip(text: str) -> Term | None:
    try:
        network = ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None

    def is_in(row: Row) -> bool:
        try:
            return ipaddress.ip_address(split_endpoint(row["target"])[0]) in network
        except ValueError:  # the overflow backend has no address
            return False

    return is_in


def _reason(text: str) -> Term | None:
    column = _REASONS.get(text.casefold())
    return None if column is None else lambda row: row[column] > 0


def _compared(word: str, sign: str, text: str) -> Term | None:
    column, amount = _WORDS.get(word), _AMOUNT.fullmatch(text.casefold())
    if column is None or amount is None or amount[2] not in _UNITS:
        return None
    limit, holds = float(amount[1]) * _UNITS[amount[2]], _SIGNS[sign]

    def compared(row: Row) -> bool:
        value = row.get(column)
        return bool(holds(math.nan if value is None else value, limit))

    return compared


_KINDS: Mapping[str, tuple[Callable[[str], Term | None], str]] = {
    "proxy": (lambda text: _contains(text, "proxy"), ""),
    "server": (lambda text: _contains(text, "server"), ""),
    "port": (lambda text: lambda row: row["target"].endswith(f":{text}"), ""),
    "ip": (_ip, "say it like ip:10.0.0.7, ip:10.0.0.0/24 or ip:fd00::/8"),
    "reason": (_reason, "the reasons are rst and failed"),
}


def _term(text: str) -> Term | None:
    """A term; None if it says nothing yet, like `proxy:`."""
    found = _PARTS.fullmatch(text)
    assert found is not None  # it takes any text
    minus, word, sign, quoted = found.groups()
    value = re.sub(r'^"|"$', "", quoted)
    if not value:
        return None
    term: Term | None
    if sign and sign != ":":
        term, help_ = _compared(word.casefold(), sign, value), "say it like p99>100ms"
    elif word and word.casefold() in _KINDS:
        make, help_ = _KINDS[word.casefold()]
        term = make(value)
    else:
        whole = f"{word}{sign}{value}" if word else value
        term, help_ = _contains(whole, "proxy", "target", "server"), ""
    if term is None:
        raise ValueError(f"{text}: {help_}")
    return _not(term) if minus else term


def _not(term: Term) -> Term:
    return lambda row: not term(row)


def parse_terms(text: str) -> Term:
    """Whether a row has all of it: `proxy:web ip:10.0.0.0/24 p99>100ms -reason:rst checkout`.

    Raises:
        ValueError: a term is not well-formed.
    """
    terms = [term for each in _TERM.findall(text) if (term := _term(each))]
    return lambda row: all(term(row) for term in terms)
