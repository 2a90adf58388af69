"""Rules for backends as the kernel has them: networks, each with ranges of ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._ffi import ffi, lib
from .._rules import BackendRule, Network

__all__ = ["ProxyIds", "network_rules"]

Rules = Mapping[Network, Sequence[BackendRule]]

_FAMILY_BITS = 8
_MAPPED_BITS = 96
_MAPPED = bytes(10) + b"\xff\xff"


class ProxyIds:
    """Gives each name an id, from 1; none has id 0, the name that the tracker was given."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def id_of(self, name: str | None) -> int:
        """The id of a proxy, the next one if it is new; 0 for None."""
        return 0 if name is None else self._ids.setdefault(name, len(self._ids) + 1)

    @property
    def names(self) -> dict[int | str, str]:
        """The names by their ids."""
        return {number: name for name, number in self._ids.items()}


def _key(network: Network) -> dict[str, Any]:
    """A network as the map's key: its family and its address are one prefix."""
    is_ipv4 = network.version == 4
    return {
        "prefix_bits": _FAMILY_BITS + _MAPPED_BITS * is_ipv4 + network.prefixlen,
        "family": network.version,
        "addr": _MAPPED * is_ipv4 + network.network_address.packed,
    }


def _applying(network: Network, rules: Rules, lengths: Sequence[int]) -> list[BackendRule]:
    """The rules for the addresses of a network: its own, then those of wider networks."""
    applying = [
        rule
        for bits in lengths
        if bits <= network.prefixlen
        for rule in rules.get(network.supernet(new_prefix=bits), ())
    ]
    if len(applying) > lib.LBL_PORT_RANGES:
        raise ValueError(
            f"{len(applying)} rules are for {network}; at most {lib.LBL_PORT_RANGES}:"
            " use ranges of ports"
        )
    return applying


def network_rules(rules: Sequence[BackendRule], proxies: ProxyIds) -> Any:
    """Rules as `lbl_networks_set()` takes them.

    Of several rules that match, the one with the longest prefix counts, then the one with the
    fewest ports.

    Raises:
        ValueError: there are too many rules for the addresses of one network, or in all.
    """
    by_network: dict[Network, list[BackendRule]] = {}
    for rule in sorted(rules, key=lambda rule: rule.last_port - rule.first_port):
        by_network.setdefault(rule.network, []).append(rule)
    if len(by_network) > lib.LBL_NETWORKS:
        raise ValueError(
            f"the rules have {len(by_network)} networks; at most {lib.LBL_NETWORKS}: use wider ones"
        )
    lengths = sorted({network.prefixlen for network in by_network}, reverse=True)
    made = []
    for network in by_network:
        ranges = [
            {
                "first": each.first_port,
                "last": each.last_port,
                "proxy_id": proxies.id_of(each.proxy),
            }
            for each in _applying(network, by_network, lengths)
        ]
        made.append({"key": _key(network), "value": {"n": len(ranges), "ranges": ranges}})
    return ffi.new("struct lbl_network_rule[]", made)
