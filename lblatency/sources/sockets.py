"""The connections that proxies of this host open to their backends: HAProxy, nginx, any other."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import Any

from .._ffi import check_loaded, ffi, lib
from .._rules import BackendRule, NameRule
from ..errors import LatencyError
from ..stats import create_event_stream
from ._pins import Pins
from ._socket_rules import SocketRules
from .base import BACKEND, KEEP_PINS, PIN, Option, Source

__all__ = ["KNOWN_PROXIES", "Sockets"]

KNOWN_PROXIES = ("haproxy", "nginx", "envoy", "traefik", "caddy", "varnishd", "squid", "pen")
_NOBODY = "192.0.2.1:9"  # of RFC 5737: addresses for documents
_RING_BYTES = 1 << 22  # 65,536 events, as many connections may be open at the start
_CAUSES = ("refused", "timed_out", "unreachable", "given_up", "no_port", "other")
_NAMED_MOST = 8  # rules that people are told of
_PROGRAMS = ("state", "state_again", "first_byte")


def _some(names: Sequence[str]) -> str:
    """The names, or the first of many."""
    more = len(names) - _NAMED_MOST
    return ", ".join(names[:_NAMED_MOST]) + (f" and {more} more" if more > 0 else "")


def _fd_names() -> list[str]:
    """The names of all that is pinned."""
    return [
        ffi.string(lib.lbl_sockets_fd_name(which)).decode() for which in range(lib.LBL_SOCKETS_FDS)
    ]


def _backend_rule(rule: BackendRule | str) -> BackendRule:
    return BackendRule.parse(rule) if isinstance(rule, str) else rule


def _name_rule(rule: NameRule | str) -> NameRule:
    return NameRule.parse(rule) if isinstance(rule, str) else rule


class Sockets(Source):
    """The connections that processes of this host open, as their sockets have them.

    All network namespaces, IPv4 and IPv6; addresses are those that the process connects to.

    A connection is taken if its process is named by `comms` or is in one of `cgroups`, and its
    backend matches one of `backends`. What is not given does not restrict; if nothing is given,
    the processes are `KNOWN_PROXIES`, each a proxy of its own name.

    Args:
        backends: rules, or texts as `BackendRule.parse()` takes them. Of several that match, the
            one with the longest prefix counts, then the one with the fewest ports.
        comms: names of processes as `ps` shows them, or texts as `NameRule.parse()` takes them.
        cgroups: directories in a cgroup2 file system, likewise; those below them are included.

        pin: a directory in a BPF file system, where programs, links and maps outlive this process,
            so that the next one with this directory goes on where a killed one ended. It needs no
            capability then, only access to the files.
        keep_pins: whether they outlive `close()`, too.

    Raises:
        BpfError: the kernel refuses. It needs CAP_BPF and CAP_PERFMON.
        LatencyError: another process uses the pins, or another version made them.
        ValueError: a rule is malformed, or there are too many.
    """

    options = (
        Option("sockets", "", "watch the sockets of proxies on this host, untouched"),
        Option(
            "comm",
            "NAME[=PROXY]",
            "take connections of processes of this name; may be given again",
            is_list=True,
            argument="comms",
            parse=NameRule.parse,
        ),
        Option(
            "cgroup",
            "PATH[=PROXY]",
            "take connections of processes in this cgroup or below; may be given again",
            is_list=True,
            argument="cgroups",
            parse=NameRule.parse,
        ),
        BACKEND,
        PIN,
        KEEP_PINS,
    )
    capabilities = ("CAP_BPF", "CAP_PERFMON")

    @classmethod
    def try_out(cls) -> None:
        """Watch for connections to an address that nobody has."""
        with cls(backends=[_NOBODY]):
            pass

    @classmethod
    def is_named(
        cls,
        *,
        backends: Sequence[BackendRule] = (),
        comms: Sequence[NameRule] = (),
        cgroups: Sequence[NameRule] = (),
        **_arguments: Any,
    ) -> bool:
        """Whether each connection that is taken has a name of its own."""
        processes = (*comms, *cgroups)
        if not (backends or processes):
            return True
        return any(
            rules and all(rule.proxy is not None for rule in rules)
            for rules in (backends, processes)
        )

    def __init__(
        self,
        *,
        backends: Sequence[BackendRule | str] = (),
        comms: Sequence[NameRule | str] = (),
        cgroups: Sequence[NameRule | str] = (),
        pin: str | os.PathLike[str] | None = None,
        keep_pins: bool = False,
        _by_read: bool = False,
    ) -> None:
        self._sockets: Any = None
        self._pins: Pins | None = None
        if keep_pins and pin is None:
            raise ValueError("nothing is pinned that could be kept; say pin, a directory, too")
        self._keeps = keep_pins
        self._backends = [_backend_rule(rule) for rule in backends]
        self._comms = [_name_rule(rule) for rule in comms]
        self._cgroups = [_name_rule(rule) for rule in cgroups]
        if not (self._backends or self._comms or self._cgroups):
            self._comms = [NameRule(name, name) for name in KNOWN_PROXIES]
        rules = SocketRules(self._backends, self._comms, self._cgroups)
        try:
            self._sockets = ffi.gc(self._open(rules, pin, _by_read), lib.lbl_sockets_free)
            self.stream = create_event_stream(
                lib.lbl_sockets_ring_fd(self._sockets),
                counters=lib.lbl_sockets_counters_fd(self._sockets),
            )
        except BaseException:
            self._release()
            raise
        self.stream.proxies = rules.proxies

    def _open(self, rules: SocketRules, pin: str | os.PathLike[str] | None, by_read: bool) -> Any:
        """Go on with what is pinned, or load the programs and pin them."""
        ret = ffi.new("struct lbl_sockets **")
        if pin is not None:
            self._pins = Pins(pin, "sockets", _fd_names())
            found = self._pins.open()
            if found is not None:
                try:
                    rc = lib.lbl_sockets_adopt(list(found.values()), rules.ptr, ret)
                finally:
                    for fd in found.values():
                        os.close(fd)
                if rc == -errno.EMEDIUMTYPE:
                    raise LatencyError(f"what is pinned in {pin} is not of lblatency; remove it")
                check_loaded(rc, f"go on with the pins in {pin}")
                return ret[0]
        check_loaded(lib.lbl_sockets_open(_RING_BYTES, rules.ptr, by_read, ret), "watch sockets")
        if self._pins is not None:
            fds = [lib.lbl_sockets_fd(ret[0], which) for which in range(lib.LBL_SOCKETS_FDS)]
            try:
                self._pins.put(dict(zip(_fd_names(), fds, strict=True)))
            except BaseException:
                lib.lbl_sockets_free(ret[0])
                raise
        return ret[0]

    def _release(self) -> None:
        sockets, self._sockets = self._sockets, None
        pins, self._pins = self._pins, None
        if sockets is not None:
            ffi.release(sockets)
        if pins is not None:
            pins.close()

    def _read(self) -> Any:
        if self._sockets is None:
            raise ValueError("the source is closed")
        state = ffi.new("struct lbl_sockets_state *")
        check_loaded(lib.lbl_sockets_read(self._sockets, state), "read the sockets' counters")
        return state

    def takes(self) -> str:
        """Whose connections, and to which backends."""
        processes = [rule.name for rule in (*self._comms, *self._cgroups)]
        backends = [rule.backends for rule in self._backends]
        whose = _some(processes) if processes else "any process"
        return f"connections of {whose}" + (f" to {_some(backends)}" if backends else "")

    def tick(self) -> None:
        """Report ends that were not seen. A look at 50,000 open connections takes 10 ms of CPU."""
        if self._sockets is None:
            return
        check_loaded(lib.lbl_sockets_mend(self._sockets), "look for ends that were not seen")

    def lost(self) -> Mapping[str, int]:
        """What could not be seen. `recursion` is a limit from above: other sockets count too.

        Returns:
            `recursion`: changes of state for which both programs were skipped, at most.
            `births_full`: connections for which there was no memory.
            `overwritten`: connections whose end was not seen before their sockets connected again.
                They are reported then, as `unmatched`, for a reason that is unknown.
            `unseen_ends`: connections whose end the kernel told no program. `tick()` finds them,
                and reports them likewise.
        """
        state = self._read()
        return {
            "recursion": min(
                state.skipped[lib.LBL_SOCKETS_STATE], state.skipped[lib.LBL_SOCKETS_STATE_AGAIN]
            ),
            "births_full": int(state.counters.births_full),
            "overwritten": int(state.counters.overwritten),
            "unseen_ends": int(state.counters.unseen),
        }

    def failed_connects(self) -> Mapping[str, int]:
        """How many connections were never established, by cause."""
        counters = self._read().counters
        return {cause: int(getattr(counters, cause)) for cause in _CAUSES}

    def status(self) -> Mapping[str, Any]:
        """What is taken, and what was seen."""
        state = self._read()
        return {
            **super().status(),
            "backends": [str(rule.network) for rule in self._backends],
            "processes": [rule.name for rule in self._comms],
            "cgroups": [rule.name for rule in self._cgroups],
            "open_at_start": int(state.counters.older),
            "failed_connects": dict(self.failed_connects()),
            "caught": int(state.counters.caught),
            "skipped": dict(zip(_PROGRAMS, map(int, state.skipped), strict=True)),
        }

    def close(self) -> None:
        """Detach, and forget what is open; unless pins are kept. A second call has no effect."""
        if self._sockets is None:
            return
        self.stream.close()
        if self._pins is not None and not self._keeps:
            self._pins.remove()
        self._release()
