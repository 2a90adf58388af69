"""The rules of the socket source as C takes them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .._ffi import ffi, lib
from .._rules import BackendRule, NameRule
from ._networks import ProxyIds, network_rules

__all__ = ["SocketRules"]


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
        proxies = ProxyIds()
        _limit(len(comms), lib.LBL_SOCKETS_COMMS, "processes")
        _limit(len(cgroups), lib.LBL_SOCKETS_CGROUPS, "cgroups")
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
        self._networks = network_rules(backends, proxies)
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
