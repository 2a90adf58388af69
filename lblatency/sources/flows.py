"""The connections that pass this host: kernel NAT, or any router in the path."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .._ffi import check, check_loaded, ffi, lib
from .._rules import BackendRule
from ..errors import LatencyError
from ..stats import create_event_stream
from ._networks import ProxyIds, network_rules
from .base import BACKEND, Option, Source

__all__ = ["Flows"]

_RING_BYTES = 1 << 22  # 65,536 events
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MOST_SWEEPS = 64  # of a tick; each ends up to half a ring's events
_CAUSES = ("refused", "timed_out", "given_up")
_MOST_SECONDS = 3e9  # a century, which does not overflow in ns
_LONGEST_NAME = 15  # of an interface


def _ns(name: str, seconds: float) -> int:
    if not 0 <= seconds < _MOST_SECONDS:  # false for NaN, too
        raise ValueError(f"{name} {seconds} is not between 0 and {_MOST_SECONDS:.0f} seconds")
    return int(seconds * 1e9)


def _load(ring_bytes: int, max_connections: int) -> Any:
    """The programs, loaded; they are to be released."""
    ret = ffi.new("struct lbl_flows **")
    check_loaded(lib.lbl_flows_open(ring_bytes, max_connections, ret), "load the programs")
    return ffi.gc(ret[0], lib.lbl_flows_free)


class Flows(Source):
    """The connections to backends, TCP and UDP, as packets pass interfaces of this host.

    The programs only look on: all other programs and filters of the interfaces go on. They go with
    this process, however it ends; before Linux 6.6, where they are filters of a `clsact` qdisc, a
    killed process leaves them behind, and the next source on the interface replaces them.

    Args:
        interfaces: Ethernet devices and IP tunnels of this thread's network namespace: those that
            face the backends, where packets have the backends' addresses. With wildcards, also
            those that come later, from the next `tick()` on. A connection counts once, however
            many interfaces it passes.
        backends: rules, or texts as `BackendRule.parse()` takes them: what is sent to their
            addresses and ports comes from clients. Of several that match, the one with the longest
            prefix counts, then the one with the fewest ports.
        max_connections: how many may be open at once; more are counted as lost, "flows_full".
            Each takes about 150 bytes of kernel memory, from the start.
        half_open_s: seconds of silence after which an incomplete handshake is a failed connect.
        closing_s: the same after the first FIN; it ends a connection.
        idle_s: the same for any other TCP connection.
        udp_idle_s: the same for UDP, where it is the ordinary end: such a connection lasts from
            its first to its last datagram.

    Raises:
        BpfError: the kernel refuses, or there is no such interface. It needs CAP_BPF, CAP_PERFMON
            and CAP_NET_ADMIN.
        LatencyError: an interface is neither an Ethernet device nor an IP tunnel.
        ValueError: a rule is malformed or there is none, or a number is out of range.
    """

    options = (
        Option(
            "flows",
            "INTERFACE",
            "follow the packets of an interface that faces the backends, or of all that match a"
            " pattern such as 'cali*'; may be given again",
            is_list=True,
            argument="interfaces",
        ),
        BACKEND,
    )
    capabilities = ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN")
    keeps = ("CAP_NET_ADMIN",)  # interfaces come and go

    @classmethod
    def is_named(cls, *, backends: Sequence[BackendRule] = (), **_arguments: Any) -> bool:
        """Whether each rule names its proxy."""
        return all(rule.proxy is not None for rule in backends)

    @classmethod
    def try_out(cls) -> None:
        """Load the programs, and attach them to nothing."""
        ffi.release(_load(_PAGE, 1))

    def __init__(
        self,
        interfaces: Sequence[str],
        *,
        backends: Sequence[BackendRule | str],
        max_connections: int = 1 << 17,
        half_open_s: float = 60,
        closing_s: float = 120,
        idle_s: float = 28800,
        udp_idle_s: float = 30,
    ) -> None:
        self._flows: Any = None
        if isinstance(interfaces, str) or not interfaces:
            raise ValueError("name at least one interface, in a list: the one to the backends")
        rules = [BackendRule.parse(each) if isinstance(each, str) else each for each in backends]
        if not rules:
            raise ValueError(
                "name the backends, such as 10.0.0.0/24:8080: only what is sent to them is followed"
            )
        if not 0 < max_connections <= 1 << 24:
            raise ValueError(f"max_connections {max_connections} is not between 1 and 2**24")
        proxies = ProxyIds()
        networks = network_rules(rules, proxies)
        self._interfaces = list(interfaces)
        self._backends = rules
        self._idle = ffi.new(
            "struct lbl_idle *",
            {
                "half_open_ns": _ns("half_open_s", half_open_s),
                "closing_ns": _ns("closing_s", closing_s),
                "idle_ns": _ns("idle_s", idle_s),
                "udp_idle_ns": _ns("udp_idle_s", udp_idle_s),
            },
        )
        self._flows = _load(_RING_BYTES, max_connections)
        check(
            lib.lbl_networks_set(lib.lbl_flows_networks_fd(self._flows), networks, len(networks)),
            "set the rules for backends",
        )
        self.stream = create_event_stream(
            lib.lbl_flows_ring_fd(self._flows), counters=lib.lbl_flows_counters_fd(self._flows)
        )
        self.stream.proxies = proxies.names
        try:
            for name in self._interfaces:
                self._watch(name)
        except BaseException:
            self.close()
            raise

    def _watch(self, name: str) -> None:
        if not name or len(os.fsencode(name)) > _LONGEST_NAME or "\0" in name or "/" in name:
            raise ValueError(f"{name!r} is not the name of an interface")
        rc = lib.lbl_flows_watch(self._flows, os.fsencode(name))
        if rc == -errno.EPFNOSUPPORT:
            raise LatencyError(
                f"{name} is neither an Ethernet device nor an IP tunnel, so its packets cannot be"
                " read; name another interface that they pass"
            )
        check_loaded(rc, f"attach to {name}")

    @property
    def _open(self) -> Any:
        if self._flows is None:
            raise ValueError("the source is closed")
        return self._flows

    @property
    def program_fds(self) -> tuple[int, int]:
        """The descriptors of the programs for packets that come in and go out; they stay its."""
        return int(lib.lbl_flows_in_fd(self._open)), int(lib.lbl_flows_out_fd(self._open))

    def tick(self) -> None:
        """End what has been silent for too long, and follow interfaces that come and go.

        Raises:
            BpfError: the kernel refuses.
        """
        for _ in range(_MOST_SWEEPS):
            if not check_loaded(lib.lbl_flows_sweep(self._open, self._idle), "end what is silent"):
                break
            self.stream.drain()
        check_loaded(lib.lbl_flows_follow(self._open), "attach to interfaces")

    def _counters(self) -> Any:
        ret = ffi.new("struct lbl_flows_counters *")
        check_loaded(lib.lbl_flows_counters(self._open, ret), "read the counters of packets")
        return ret

    def lost(self) -> Mapping[str, int]:
        """Connections that are not counted: `flows_full`, for which there was no room."""
        return {"flows_full": int(self._counters().full)}

    def failed_connects(self) -> Mapping[str, int]:
        """How many connections were never established, by cause.

        Returns:
            `refused`: the backend reset them.
            `timed_out`: silence.
            `given_up`: the client began another one from the same port.
        """
        counters = self._counters()
        return {cause: int(getattr(counters, cause)) for cause in _CAUSES}

    def status(self) -> Mapping[str, Any]:
        """What is followed, and what was seen.

        Returns:
            As any source's, and: `followed`, how many interfaces; `linked`, whether the programs
            end with this process even if it is killed; `ignored` packets (later fragments, unknown
            extension headers, more than two VLAN tags, malformed); `stray` packets, which have the
            FIN or RST of no known connection: it is older than the start, or has ended before.
        """
        counters = self._counters()
        return {
            **super().status(),
            "interfaces": self._interfaces,
            "followed": int(lib.lbl_flows_followed(self._open)),
            "linked": bool(lib.lbl_flows_is_linked(self._open)),
            "backends": [str(rule.network) for rule in self._backends],
            "ignored": int(counters.ignored),
            "stray": int(counters.stray),
            "failed_connects": dict(self.failed_connects()),
        }

    def close(self) -> None:
        """Detach. Connections that are open are forgotten. A second call has no effect."""
        flows, self._flows = self._flows, None
        if flows is not None:
            self.stream.close()
            ffi.release(flows)
