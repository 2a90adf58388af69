"""The rules of the socket source as C takes them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._ffi import ffi, lib
from .._rules import BackendRule, NameRule, Network

__all__ = ["SocketRules"]

_FAMILY_BITS = 8
_MAPPED_BITS = 96


class _Proxies:
    """Gives each name an id, from 1; none has id 0, the name that the tracker was given."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def id_of(self, name: str | None) -> int:
        return 0 if name is None else self._ids.setdefault(name, len(self._ids) + 1)

    @property
    def names(self) -> dict[int | str, str]:
        return {number: name for name, number in self._ids.items()}


def _comm(rule: NameRule) -> bytes:
    """The name of a process as the kernel has it."""
    return os.fsencode(rule.name)[: lib.LBL_SOCKETS_COMM_BYTES - 1]


def _cgroup_id(path: str) -> int:
    """The id of a cgroup: the inode of its directory. Those of version 1 have no controllers."""
    try:
        os.stat(os.path.join(path, "cgroup.controllers"))
        return os.stat(path).st_ino
    except OSError as error:
        raise ValueError(
            f"{path!r} is no directory of a cgroup of version 2 ({error.strerror}): give one such"
            " as /sys/fs/cgroup/system.slice/haproxy.service"
        ) from None


def _network(network: Network) -> dict[str, Any]:
    """The key of a network: its family and its address are one prefix."""
    is_ipv4 = network.version == 4
    packed = network.network_address.packed
    return {
        "prefix_bits": _FAMILY_BITS + _MAPPED_BITS * is_ipv4 + network.prefixlen,
        "family": network.version,
        "addr": (bytes(10) + b"\xff\xff" if is_ipv4 else b"") + packed,
    }


def _by_network(rules: Iterable[BackendRule]) -> dict[Network, list[BackendRule]]:
    """The rules of each network, narrower ranges of ports first."""
    found: dict[Network, list[BackendRule]] = {}
    for rule in sorted(rules, key=lambda rule: rule.last_port - rule.first_port):
        found.setdefault(rule.network, []).append(rule)
    return found


def _applying(
    network: Network, by_network: Mapping[Network, list[BackendRule]]
) -> list[BackendRule]:
    """The rules for the addresses of a network: its own, then those of wider networks."""
    applying = [
        rule
        for bits in range(network.prefixlen, -1, -1)
        for rule in by_network.get(network.supernet(new_prefix=bits), ())
    ]
    if len(applying) > lib.LBL_SOCKETS_RANGES:
        raise ValueError(
            f"{len(applying)} rules are for {network}; at most {lib.LBL_SOCKETS_RANGES}:"
            " use ranges of ports"
        )
    return applying


def _limit(count: int, most: int, what: str) -> None:
    if count > most:
        raise ValueError(f"{count} rules for {what}; at most {most}")


class SocketRules:
    """The rules as C takes them."""

    def __init__(
        self,
        backends: Sequence[BackendRule],
        comms: Sequence[NameRule],
        cgroups: Sequence[NameRule],
    ) -> None:
        proxies = _Proxies()
        by_network = _by_network(backends)
        _limit(len(comms), lib.LBL_SOCKETS_COMMS, "processes")
        _limit(len(cgroups), lib.LBL_SOCKETS_CGROUPS, "cgroups")
        _limit(len(backends), lib.LBL_SOCKETS_NETWORKS, "backends")
        self._comms = ffi.new(
            "struct lbl_sockets_comm_rule[]",
            [
                {"key": {"name": name}, "value": {"id": proxies.id_of(proxy)}}
                for name, proxy in {_comm(rule): rule.proxy for rule in reversed(comms)}.items()
            ],
        )
        self._cgroups = ffi.new(
            "struct lbl_sockets_cgroup_rule[]",
            [
                {"key": _cgroup_id(rule.name), "value": {"id": proxies.id_of(rule.proxy)}}
                for rule in cgroups
            ],
        )
        self._networks = ffi.new(
            "struct lbl_sockets_network_rule[]",
            [
                {
                    "key": _network(network),
                    "value": {
                        "n": len(applying),
                        "ranges": [
                            {
                                "first_port": each.first_port,
                                "last_port": each.last_port,
                                "proxy_id": proxies.id_of(each.proxy),
                            }
                            for each in applying
                        ],
                    },
                }
                for network in by_network
                for applying in [_applying(network, by_network)]
            ],
        )
        self.proxies = proxies.names
        self.ptr = ffi.new(
            "struct lbl_sockets_rules *",
            {
                "comms": self._comms,
                "n_comms": len(self._comms),
                "cgroups": self._cgroups,
                "n_cgroups": len(self._cgroups),
                "networks": self._networks,
                "n_networks": len(self._networks),
            },
        )
