"""The conntrack BPF map of a load balancer. It knows when connections were created."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ._address import format_endpoint, parse_target
from ._closing import Closing
from ._ffi import check, ffi, lib
from ._maps import MapSpec, map_fd
from .errors import LatencyError

__all__ = ["Connection", "ConntrackMap"]


@dataclass(frozen=True, slots=True)
class Connection:
    """One entry. Times are CLOCK_MONOTONIC nanoseconds. Values of a per-CPU map are combined."""

    client: str
    target: str
    protocol: int
    created_ns: int
    last_seen_ns: int
    packets_fwd: int
    packets_rev: int
    bytes_fwd: int
    bytes_rev: int


def _connection(found: Any) -> Connection:
    return Connection(
        client=format_endpoint(found.client_addr, found.client_port),
        target=format_endpoint(found.backend_addr, found.backend_port),
        protocol=found.protocol,
        created_ns=found.created_ns,
        last_seen_ns=found.last_seen_ns,
        packets_fwd=found.packets_fwd,
        packets_rev=found.packets_rev,
        bytes_fwd=found.bytes_fwd,
        bytes_rev=found.bytes_rev,
    )


class ConntrackMap(Closing):
    """A hash map, plain or per-CPU, from a connection's tuple after NAT to its times and counts.

    A tracker that is started with the map takes creation times from it, for closed events that do
    not tell one. It scans the map when it starts, and about once per second until it stops (less
    often if a scan costs more than 50 ms of CPU time), and remembers the earliest creation time of
    each connection. This is how exact a lifetime is then:

    - If the balancer writes the creation time once, exact.
    - If later packets overwrite it, up to a scan's interval too short; for a connection that was
      open before the start, too short by its time until the last packet before the start.
    - A connection that no scan saw is `unmatched`, unless this map has shown that its creation
      times stay: a connection's packets came, all on one CPU, between two looks while its creation
      time stayed, and none has ever moved.

    An entry belongs to a connection if its original destination is the event's VIP, or is all 0.
    If it could be another's (there is one for TCP and one for UDP, and the event does not tell the
    protocol; or the entry was there at the last close already), the event is `unmatched`, too.

    Args:
        spec: fd, pin path, id (digits in a string) or name. The key has 16 bytes (IPv4)
            or 40 (IPv6 and IPv4); `bpf/include/lbl_abi.h` defines both.

    Raises:
        BpfError: there is no such map, or the kernel refuses access to it.
        LatencyError: it is a map of another kind.
    """

    def __init__(self, spec: MapSpec) -> None:
        out = ffi.new("struct lbl_conntrack **")
        with map_fd(spec) as fd:
            rc = lib.lbl_conntrack_open(fd, ffi.NULL, out)
        if rc == -errno.EINVAL:
            raise LatencyError(
                f"map {spec} is no conntrack map: it must be a hash, plain or per-CPU, with keys of"
                " 16 or 40 bytes and values of at least 64 or 88"
            )
        check(rc, f"opening the conntrack map {spec}")
        self._ptr = ffi.gc(out[0], lib.lbl_conntrack_free)
        self._spec = spec

    def __repr__(self) -> str:
        return f"<ConntrackMap: {self._spec!r}{', closed' * (self._ptr is None)}>"

    def get(self, client: str, target: str, protocol: int = 6) -> Connection | None:
        """The entry of one connection, both ends as `ip:port`; None if the map has none."""
        if not 0 <= protocol < 256:
            raise ValueError(f"protocol must be 0 to 255, not {protocol!r}")
        found = ffi.new("struct lbl_connection *")
        for end, (address, port) in (
            ("client", parse_target(client)),
            ("backend", parse_target(target)),
        ):
            setattr(found, f"{end}_addr", address)
            setattr(found, f"{end}_port", port)
        found.protocol = protocol
        rc = lib.lbl_conntrack_lookup(self.ptr, found)
        if rc == -errno.ENOENT:
            return None
        check(rc, "reading the conntrack map")
        return _connection(found)

    def __iter__(self) -> Iterator[Connection]:
        """All entries. One that is there all the while comes exactly once, whatever else changes.

        Raises:
            BpfError: the kernel does not let us list the map.
        """
        out = ffi.new("struct lbl_connection **")
        n = check(lib.lbl_conntrack_list(self.ptr, out), "reading the conntrack map")
        found = ffi.gc(out[0], lib.lbl_connections_free)
        for i in range(n):
            yield _connection(found[i])

    def scan(self) -> int:
        """Scan the map now, as a running tracker does by itself about once per second.

        Returns:
            How many connections there are.

        Raises:
            BpfError: the kernel does not let us list the map.
        """
        return check(lib.lbl_conntrack_scan(self.ptr), "scanning the conntrack map")

    def status(self) -> dict[str, Any]:
        """What scans have found out.

        Returns:
            `scans` that found all connections; `failures`, of which `error` is the last one's text
            or None; `interval`, seconds from a scan to the next; connections `remembered`, and
            `forgotten` because there are more than a million; whether creation times have `stayed`
            while packets came, and `moved`.
        """
        raw = ffi.new("struct lbl_conntrack_stats *")
        lib.lbl_conntrack_stats(self.ptr, raw)
        return {
            "scans": raw.scans,
            "failures": raw.failures,
            "error": os.strerror(raw.error) if raw.error else None,
            "interval": raw.interval_ns / 1e9,
            "remembered": raw.remembered,
            "forgotten": raw.forgotten,
            "stayed": bool(raw.stayed),
            "moved": bool(raw.moved),
        }

    @property
    def ptr(self) -> Any:
        """The C object."""
        if self._ptr is None:
            raise ValueError("the conntrack map is closed")
        return self._ptr

    def close(self) -> None:
        """Release the map. A tracker that was started with it keeps it until it stops."""
        self._ptr = None
