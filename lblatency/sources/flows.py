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
from ._pins import Pins
from .base import BACKEND, KEEP_PINS, PIN, Option, Source

__all__ = ["Flows"]

_RING_BYTES = 1 << 22  # 65,536 events
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MOST_SWEEPS = 64  # of a tick; each ends up to half a ring's events
_CAUSES = ("refused", "timed_out", "unreachable", "given_up")
_MOST_SECONDS = 3e9  # a century, which does not overflow in ns
_LONGEST_NAME = 15  # of an interface
_PATTERN = set("*?[")


def _ns(name: str, seconds: float) -> int:
    if not 0 <= seconds < _MOST_SECONDS:  # false for NaN, too
        raise ValueError(f"{name} {seconds} is not between 0 and {_MOST_SECONDS:.0f} seconds")
    return int(seconds * 1e9)


def _load(ring_bytes: int, max_connections: int, *, only_links: bool = False) -> Any:
    """The programs, loaded; they are to be released."""
    ret = ffi.new("struct lbl_flows **")
    rc = lib.lbl_flows_open(ring_bytes, max_connections, only_links, ret)
    check_loaded(rc, "load the programs")
    return ffi.gc(ret[0], lib.lbl_flows_free)


def _fd_names() -> list[str]:
    """The names of all that is pinned, but for links: these are as many as there are interfaces."""
    return [ffi.string(lib.lbl_flows_fd_name(which)).decode() for which in range(lib.LBL_FLOWS_FDS)]


class Flows(Source):
    """The connections to backends, TCP and UDP, as packets pass interfaces of this host.

    The programs only look on: all other programs and filters of the interfaces go on. They go with
    this process, however it ends, unless they are pinned; before Linux 6.6, where they are filters
    of a `clsact` qdisc, a killed process leaves them behind, and the next source on the interface
    replaces them.

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
        pin: a directory in a BPF file system, where programs, links and maps outlive this process,
            so that the next one with this directory goes on where a killed one ended. It is for
            Linux 6.6 and later. The next one needs capabilities only for interfaces that are not
            followed yet.
        keep_pins: whether they outlive `close()`, too.

    Raises:
        BpfError: the kernel refuses, or there is no such interface. It needs CAP_BPF, CAP_PERFMON
            and CAP_NET_ADMIN.
        LatencyError: an interface is neither an Ethernet device nor an IP tunnel; another process
            uses the pins, another version made them, or they are for another `max_connections`.
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
        PIN,
        KEEP_PINS,
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
        pin: str | os.PathLike[str] | None = None,
        keep_pins: bool = False,
    ) -> None:
        self._flows: Any = None
        self._pins: Pins | None = None
        self._is_new = True
        if keep_pins and pin is None:
            raise ValueError("nothing is pinned that could be kept; say pin, a directory, too")
        self._keeps = keep_pins
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
        for name in self._interfaces:
            if not 0 < len(os.fsencode(name)) <= _LONGEST_NAME or "\0" in name or "/" in name:
                raise ValueError(f"{name!r} is not the name of an interface")
        try:
            self._flows = self._load(pin, max_connections)
            check(
                lib.lbl_networks_set(
                    lib.lbl_flows_networks_fd(self._flows), networks, len(networks)
                ),
                "set the rules for backends",
            )
            self.stream = create_event_stream(
                lib.lbl_flows_ring_fd(self._flows), counters=lib.lbl_flows_counters_fd(self._flows)
            )
            self.stream.proxies = proxies.names
            self._attach()
        except BaseException:
            if self._pins is not None and self._is_new:
                self._pins.remove()
            self._release()
            raise

    def _load(self, pin: str | os.PathLike[str] | None, max_connections: int) -> Any:
        """Go on with what is pinned, or load the programs and pin them."""
        if pin is None:
            return _load(_RING_BYTES, max_connections)
        cookie = ffi.new("uint64_t *")
        check(lib.lbl_netns_cookie(cookie), "tell the network namespace")
        self._link_prefix = f"link_{cookie[0]}_"
        self._pins = Pins(pin, "flows", _fd_names())
        found = self._pins.open()
        self._is_new = found is None
        if found is not None:
            return self._adopt(found, max_connections)
        made = _load(_RING_BYTES, max_connections, only_links=True)
        fds = [lib.lbl_flows_fd(made, which) for which in range(lib.LBL_FLOWS_FDS)]
        self._pins.put(dict(zip(_fd_names(), fds, strict=True)))
        return made

    def _adopt(self, found: Mapping[str, int], max_connections: int) -> Any:
        ret = ffi.new("struct lbl_flows **")
        try:
            rc = lib.lbl_flows_adopt(list(found.values()), ret)
        finally:
            for fd in found.values():
                os.close(fd)
        if rc == -errno.EMEDIUMTYPE:
            raise LatencyError(f"what is pinned in {self._pins} is not of lblatency; remove it")
        check_loaded(rc, f"go on with the pins in {self._pins}")
        flows = ffi.gc(ret[0], lib.lbl_flows_free)
        there = check(lib.lbl_flows_max_connections(flows), "read how many may be open")
        if there != max_connections:
            raise LatencyError(
                f"what is pinned in {self._pins} is for max_connections {there}, not"
                f" {max_connections}: say the same, or remove it"
            )
        self._adopt_links(flows)
        return flows

    def _adopt_links(self, flows: Any) -> None:
        """Go on with the links to interfaces of this namespace; others are removed later."""
        assert self._pins is not None
        for path in self._pins.others():
            if not path.name.startswith(self._link_prefix):
                continue
            fd = lib.lbl_pinned(os.fsencode(path))
            if fd == -errno.ENOENT:
                continue
            check(fd, f"open the pin {path}")
            try:
                rc = lib.lbl_flows_adopt_link(flows, fd)
            finally:
                os.close(fd)
            if rc not in (-errno.ESTALE, -errno.EMEDIUMTYPE):
                check_loaded(rc, f"go on with the pin {path}")

    def _attach(self) -> None:
        """Attach to all interfaces that are there."""
        for name in self._interfaces:
            rc = lib.lbl_flows_watch(self._flows, os.fsencode(name))
            if rc == -errno.EPFNOSUPPORT:
                raise LatencyError(
                    f"{name} is neither an Ethernet device nor an IP tunnel, so its packets cannot"
                    " be read; name another interface that they pass"
                )
            if rc == -errno.ENODEV:
                raise LatencyError(f"there is no interface {name}; `ip link` lists them")
            check_loaded(rc, f"attach to {name}")
        self._follow()

    def _follow(self) -> None:
        rc = lib.lbl_flows_follow(self._open)
        if self._pins is not None:
            self._pins.set_others(self._links())
        if rc == -errno.EOPNOTSUPP:
            raise LatencyError(
                "this kernel has no links for packets, without which nothing can be pinned: they"
                " came with Linux 6.6; say no directory for pins"
            )
        check_loaded(rc, f"attach to {', '.join(self._interfaces)}")

    def _links(self) -> dict[str, int]:
        """The links' descriptors by the names of their pins."""
        number = ffi.new("uint32_t *")
        links = {}
        for which in range(2 * lib.lbl_flows_followed(self._open)):
            fd = check(lib.lbl_flows_link(self._open, which, number), "read a link's id")
            links[f"{self._link_prefix}{number[0]}"] = fd
        return links

    def _release(self) -> None:
        flows, self._flows = self._flows, None
        pins, self._pins = self._pins, None
        if flows is not None:
            ffi.release(flows)
        if pins is not None:
            pins.close()

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
        self._follow()

    def trouble(self) -> str | None:
        """Which interfaces have gone, if as many are not there as have been named."""
        named = [name for name in self._interfaces if not _PATTERN & set(name)]
        followed = int(lib.lbl_flows_followed(self._open))
        if followed >= len(named):
            return None
        return f"of the interfaces {', '.join(named)}, {len(named) - followed} are not there"

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
            `unreachable`: the backend, or a router before it, said so by ICMP, and the client did
                not try on for as long as it may wait between two SYNs: 3.5 s after the first.
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
        """Detach, and forget what is open; unless pins are kept. A second call has no effect."""
        if self._flows is None:
            return
        self.stream.close()
        if self._pins is not None and not self._keeps:
            self._pins.remove()
        self._release()
