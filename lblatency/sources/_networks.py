"""Rules for backends as the kernel has them: networks, each with ranges of ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._ffi import check, ffi, lib
from .._rules import BackendRule, Network

__all__ = ["put_networks"]

Rules = Mapping[Network, Sequence[BackendRule]]

_FAMILY_BITS = 8
_MAPPED_BITS = 96
_MAPPED = bytes(10) + b"\xff\xff"


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


def put_networks(fd: int, rules: Sequence[BackendRule], id_of: Callable[[str | None], int]) -> None:
    """Write rules into a map `lbl_networks`.

    Of several rules that match, the one with the longest prefix counts, then the one with the
    fewest ports.

    Args:
        fd: of the map.
        rules: at least one.
        id_of: gives the proxy id for the name in a rule.

    Raises:
        BpfError: the kernel refuses.
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
    for network in by_network:
        ranges = [
            {"first": each.first_port, "last": each.last_port, "proxy_id": id_of(each.proxy)}
            for each in _applying(network, by_network, lengths)
        ]
        value = {"n": len(ranges), "ranges": ranges}
        check(
            lib.lbl_networks_put(
                fd,
                ffi.new("struct lbl_network *", _key(network)),
                ffi.new("struct lbl_port_ranges *", value),
            ),
            f"add the rules for {network}",
        )
