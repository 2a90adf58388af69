"""A small real load balancer in the kernel, which reports how long its connections live."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._address import is_ipv4, parse_ip, parse_target
from .._closing import Closing
from .._ffi import check_loaded, ffi, lib

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NatBalancer"]

_PROTOCOLS = {"tcp": 6, "udp": 17}


def _endpoint(address: bytes, port: int) -> dict[str, Any]:
    if not 0 < port < 65536:
        raise ValueError(f"port {port} is not between 1 and 65535")
    return {"addr": address, "port": port}


class NatBalancer(Closing):
    """An L4 balancer (TCP and UDP, IPv4 and IPv6) of BPF programs at an interface's TC hooks.

    It rewrites the destination of what clients send to a listener's address, and the source of the
    replies; the kernel routes in between, so forwarding must be on, and the backends must route to
    their clients through this host. Connections are reported through `ring_fd`, whose layouts
    lblatency reads. Use it from one thread at a time.

    Args:
        ring_bytes: Size of the event ring: a power of two, at least a page. 64 bytes per event.
        max_connections: How many connections may exist at once; more are refused and counted.

    Raises:
        BpfError: If the kernel refuses, with its own words. Loading needs CAP_BPF, CAP_PERFMON and
            CAP_NET_ADMIN.
        ValueError: For sizes that cannot be.
    """

    def __init__(self, *, ring_bytes: int = 1 << 20, max_connections: int = 65536) -> None:
        self._lb: Any = None
        if not 4096 <= ring_bytes <= 1 << 30 or ring_bytes & (ring_bytes - 1):
            raise ValueError(f"ring_bytes {ring_bytes} is not a power of two from 4096 to 2**30")
        if not 0 < max_connections <= 1 << 24:
            raise ValueError(f"max_connections {max_connections} is not between 1 and 2**24")
        ret = ffi.new("struct lbl_nat_lb **")
        check_loaded(lib.lbl_nat_lb_open(ring_bytes, max_connections, ret), "load the NAT balancer")
        self._lb = ffi.gc(ret[0], lib.lbl_nat_lb_free)

    @property
    def _open(self) -> Any:
        if self._lb is None:
            raise ValueError("the balancer is closed")
        return self._lb

    def add_listener(
        self,
        proxy_id: int,
        vip: str,
        port: int,
        protocol: str,
        backends: Sequence[tuple[int, str, int]],
    ) -> None:
        """Balance what comes to `vip` and `port` among backends.

        For a listener that exists, its backends are replaced; connections stay where they are.

        Args:
            proxy_id: Reported with each of its connections, 0 to 65535.
            vip: The address that clients connect to. If it is also an address of this host, clients
                of forgotten connections are reset at once instead of waiting.
            port: 1 to 65535.
            protocol: "tcp" or "udp".
            backends: Triples of id (1 to 4095, reported too), "ip:port" or "[ip6]:port", and
                weight. Weight 0 takes no new connections.

        Raises:
            BpfError: If there are too many listeners (64) or backends (256).
            ValueError: For malformed addresses, numbers out of range, or a backend of another
                address family than the listener's.
        """
        if protocol not in _PROTOCOLS:
            raise ValueError(f'protocol {protocol!r} is neither "tcp" nor "udp"')
        if not 0 <= proxy_id < 65536:
            raise ValueError(f"proxy_id {proxy_id} is not between 0 and 65535")
        address = parse_ip(vip)
        made = []
        for backend_id, target, weight in backends:
            host, backend_port = parse_target(target)
            if is_ipv4(host) != is_ipv4(address):
                raise ValueError(f"backend {target} is not of the address family of {vip}")
            if not 0 < backend_id < 4096:
                raise ValueError(f"backend id {backend_id} is not between 1 and 4095")
            if not 0 <= weight < 1 << 32:
                raise ValueError(f"weight {weight} is not between 0 and 2**32 - 1")
            made.append({"at": _endpoint(host, backend_port), "id": backend_id, "weight": weight})
        check_loaded(
            lib.lbl_nat_lb_add_listener(
                self._open,
                proxy_id,
                _PROTOCOLS[protocol],
                ffi.new("struct lbl_nat_lb_endpoint *", _endpoint(address, port)),
                ffi.new("struct lbl_nat_lb_backend[]", made),
                len(made),
            ),
            f"add listener {vip} port {port}",
        )

    def attach(self, interface: str, netns: int | None = None) -> None:
        """Attach to the interface that faces the clients.

        Args:
            interface: Its name; an Ethernet device.
            netns: A descriptor of the network namespace that it is in; None is the caller's own.

        Raises:
            BpfError: If there is no such interface, or the kernel refuses.
        """
        check_loaded(
            lib.lbl_nat_lb_attach(self._open, interface.encode(), -1 if netns is None else netns),
            f"attach to {interface}",
        )

    def detach(self) -> None:
        """Detach from all interfaces, whether they still exist or not; connections then break.

        Raises:
            BpfError: If the kernel refuses.
        """
        check_loaded(lib.lbl_nat_lb_detach(self._open), "detach from the interfaces")

    def sweep(
        self,
        *,
        half_open_s: float = 60,
        closing_s: float = 120,
        idle_s: float = 28800,
        udp_idle_s: float = 30,
    ) -> int:
        """Close the connections that have been silent for too long. Call it every few seconds.

        Args:
            half_open_s: Seconds for those whose handshake is not complete: reported as failed.
            closing_s: Seconds for those of which at least one side has sent a FIN.
            idle_s: Seconds for all other TCP connections.
            udp_idle_s: Seconds for UDP, where this is the ordinary end.

        Returns:
            How many were closed.

        Raises:
            BpfError: If the kernel refuses, or for negative timeouts.
        """
        timeouts = ffi.new(
            "struct lbl_nat_lb_timeouts *",
            {
                "half_open": half_open_s,
                "closing": closing_s,
                "idle": idle_s,
                "udp_idle": udp_idle_s,
            },
        )
        return check_loaded(lib.lbl_nat_lb_sweep(self._open, timeouts), "sweep connections")

    def pin(self, directory: str | os.PathLike[str]) -> None:
        """Pin the maps for others to read: lbl_events, lbl_counters and lbl_conntrack.

        `close()` takes the pins away.

        Args:
            directory: On a mounted BPF file system; made if missing.

        Raises:
            BpfError: If it is not on such one, or the maps are there already.
        """
        path = Path(directory)
        check_loaded(
            lib.lbl_nat_lb_pin(self._open, os.fsencode(path)),
            f"pin in {path}, which must be on a mounted BPF file system",
        )

    @property
    def ring_fd(self) -> int:
        """The descriptor of the event ring; it stays the balancer's."""
        return int(lib.lbl_nat_lb_ring_fd(self._open))

    @property
    def counters_fd(self) -> int:
        """The descriptor of the map of events produced and dropped; it stays the balancer's."""
        return int(lib.lbl_nat_lb_counters_fd(self._open))

    @property
    def conntrack_fd(self) -> int:
        """The descriptor of the connection table; it stays the balancer's."""
        return int(lib.lbl_nat_lb_conntrack_fd(self._open))

    @property
    def ingress_fd(self) -> int:
        """The descriptor of the program that clients' packets pass; it stays the balancer's."""
        return int(lib.lbl_nat_lb_ingress_fd(self._open))

    @property
    def egress_fd(self) -> int:
        """The descriptor of the program that replies pass; it stays the balancer's."""
        return int(lib.lbl_nat_lb_egress_fd(self._open))

    def counters(self) -> dict[str, int]:
        """What happened since loading.

        Returns:
            `produced` and `dropped` events; connections refused for `conntrack_full` and
            `no_backend`; packets passed on as they came because they were `ignored` (truncated,
            fragments, IPv6 extension headers) or `stray` (TCP, of no known connection).
        """
        ret = ffi.new("struct lbl_nat_lb_counters *")
        check_loaded(lib.lbl_nat_lb_counters(self._open, ret), "read the balancer's counters")
        return {
            name: int(getattr(ret, name))
            for name in (
                "produced",
                "dropped",
                "conntrack_full",
                "no_backend",
                "ignored",
                "stray",
            )
        }

    def close(self) -> None:
        """Detach, take the pins away and free everything; connections break. Again: no effect."""
        lb, self._lb = self._lb, None
        if lb is not None:
            lib.lbl_nat_lb_unpin(lb)
            ffi.release(lb)
