"""What a filter says: typed terms and words, all of which must hold."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from typing import Any

from .._address import split_endpoint

__all__ = ["KINDS", "parse_terms"]

Row = Mapping[str, Any]  # of the API's table of backends; `proxy` is the name
Term = Callable[[Row], bool]
_REASONS = {"rst": "resets", "connect_failed": "failed_connects"}


def _contains(text: str, *columns: str) -> Term:
    wanted = text.casefold()
    return lambda row: any(wanted in (row.get(name) or "").casefold() for name in columns)


def _ip(text: str) -> Term:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"ip:{text} is neither an address nor a network") from None

    def is_in(row: Row) -> bool:
        try:
            return ipaddress.ip_address(split_endpoint(row["target"])[0]) in network
        except ValueError:  # the overflow backend has no address
            return False

    return is_in


def _port(text: str) -> Term:
    if not text.isdecimal():
        raise ValueError(f"port:{text} is not a number")
    return lambda row: row["target"].endswith(f":{text}")


def _reason(text: str) -> Term:
    column = _REASONS.get(text)
    if column is None:
        raise ValueError(f"reason:{text} is not one of {', '.join(_REASONS)}")
    return lambda row: row[column] > 0


KINDS: Mapping[str, Callable[[str], Term]] = {
    "proxy": lambda text: _contains(text, "proxy"),
    "server": lambda text: _contains(text, "server"),
    "ip": _ip,
    "port": _port,
    "reason": _reason,
}
"""What stands before the colon of a term; any other text is a word of any of the names."""


def parse_terms(text: str) -> Term:
    """Whether a row has all of it: `proxy:web ip:10.0.0.0/24 reason:rst checkout`.

    Raises:
        ValueError: a term is not well-formed.
    """
    terms = []
    for each in text.split():
        kind, colon, value = each.partition(":")
        if colon and kind in KINDS:
            terms.append(KINDS[kind](value))
        else:
            terms.append(_contains(each, "proxy", "target", "server"))
    return lambda row: all(term(row) for term in terms)
