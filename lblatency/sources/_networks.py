"""Rules for backends as the kernel has them: networks, each with ranges of ports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._ffi import check, ffi, lib
from .._rules import BackendRule

__all__ = ["put_networks"]

_FAMILY_BITS = 8
_MAPPED_BITS = 96
_MAPPED = bytes(10) + b"\xff\xff"


def _key(rule: BackendRule) -> dict[str, Any]:
    """A network: its family and its address are one prefix."""
    is_ipv4 = rule.network.version == 4
    return {
        "prefix_bits": _FAMILY_BITS + _MAPPED_BITS * is_ipv4 + rule.network.prefixlen,
        "family": rule.network.version,
        "addr": _MAPPED * is_ipv4 + rule.network.network_address.packed,
    }


def _applying(rule: BackendRule, rules: Sequence[BackendRule]) -> list[BackendRule]:
    """The rules for the addresses of one rule's network: its own, and those of wider networks."""
    applying = [
        other
        for other in rules
        if other.network.version == rule.network.version and rule.network.subnet_of(other.network)  # type: ignore[arg-type]  # of one version
    ]
    if len(applying) > lib.LBL_PORT_RANGES:
        raise ValueError(
            f"{len(applying)} rules are for {rule.network}; at most {lib.LBL_PORT_RANGES}:"
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
    ordered = sorted(
        rules, key=lambda rule: (-rule.network.prefixlen, rule.last_port - rule.first_port)
    )
    networks = {rule.network: _applying(rule, ordered) for rule in ordered}
    if len(networks) > lib.LBL_NETWORKS:
        raise ValueError(
            f"the rules have {len(networks)} networks; at most {lib.LBL_NETWORKS}: use wider ones"
        )
    for applying in networks.values():
        ranges = [
            {"first": each.first_port, "last": each.last_port, "proxy_id": id_of(each.proxy)}
            for each in applying
        ]
        value = {"n": len(ranges), "ranges": ranges}
        check(
            lib.lbl_networks_put(
                fd,
                ffi.new("struct lbl_network *", _key(applying[0])),
                ffi.new("struct lbl_port_ranges *", value),
            ),
            f"add the rules for {applying[0].network}",
        )
