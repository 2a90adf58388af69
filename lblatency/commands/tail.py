"""`lblatency tail`: a line per connection as it ends."""

from __future__ import annotations

import argparse
import ipaddress
import json
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice

from .._address import format_endpoint, parse_target, split_endpoint
from .._privileges import keep_only
from .._rules import BackendRule
from ..event import NEVER, Event
from ..names import Names
from ..sources import BACKEND, Source
from ..stats import Subscription
from ._options import given
from ._sources import add_sources, checked, kept, planned, readers, source_options
from ._ticks import Ticks

__all__ = ["EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "print a line per connection as it ends"
EXAMPLES = """\
  lblatency tail --haproxy /run/haproxy/admin.sock
                                       a line per connection as it ends
  lblatency tail --ring lbl_events --json
"""
_TICK_S = 1.0
_QUEUE = 1 << 17  # events that may wait, while the reader of our lines does not read
_TURN = 10_000  # events of a source, then it is another's turn
_TERMINATED = 128 + signal.SIGTERM
_FORMAT = "{:<12}  {:<12}  {:<21}  {:>11}  {:>10}  {:>11}  {:<14}  {}"
_TITLES = (
    "TIME",
    "PROXY",
    "BACKEND",
    "LIFETIME ms",
    "CONNECT ms",
    "1ST BYTE ms",
    "REASON",
    "SERVER",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sources' options, the filter, and the form of the output."""
    add_sources(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object per line")


class _Tailed:
    """A source, and a copy of its events."""

    def __init__(self, source: Source, events: Subscription, names: Names | None) -> None:
        self.source = source
        self._servers = names
        self.events = events
        self._names = {
            format_endpoint(*parse_target(key)) if isinstance(key, str) else key: name
            for key, name in source.stream.proxies.items()
        }

    def proxy(self, event: Event) -> str | None:
        """The name of the event's proxy, if it has one."""
        key = event.proxy_id or event.vip or 0
        return self._names.get(key) or self._names.get(0)

    def server(self, event: Event) -> str | None:
        """The name of the server, when the connection was created."""
        if self._servers is None:
            return None
        host, port = split_endpoint(event.target)
        found = self._servers.find(host, port, at_ns=event.created_ns or None)
        return found and str(found)

    def closed(self) -> Iterator[Event]:
        """The connections that ended, of those events that are there."""
        while (event := self.events.get(timeout=0)) is not None:
            if event.type == "closed":
                yield event


def _lifetime_us(event: Event) -> float | None:
    """None if the event does not tell it, or there was no connection."""
    is_told = 0 < event.created_ns <= event.timestamp_ns and event.reason != "connect_failed"
    return (event.timestamp_ns - event.created_ns) / 1e3 if is_told else None


def _seconds(us: float) -> float:
    """Whole nanoseconds, without the digits that a division adds."""
    return round(us / 1e6, 9)


def _object(event: Event, proxy: str | None, server: str | None, at: datetime) -> str:
    """A line for programs. What is not known is left out; null is what never came."""
    times = {
        "lifetime_s": _lifetime_us(event),
        "connect_s": event.connect_us,
        "first_byte_s": event.first_byte_us,
        "closing_s": event.closing_us,
    }
    fields = {
        "time": at.isoformat(),
        "proxy": proxy,
        "backend": event.target,
        "server": server,
        **{name: us if us is None else _seconds(us) for name, us in times.items()},
        "reason": event.reason,
        "protocol": event.protocol or None,
        "client": event.client,
        "vip": event.vip,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    never = {name: None for name, value in known.items() if value == NEVER}
    return json.dumps({**known, **never, "probe": event.probe})


def _ms(us: float | None) -> str:
    return "-" if us is None else "never" if us == NEVER else f"{us / 1e3:.3f}"


def _row(event: Event, proxy: str | None, server: str | None, at: datetime) -> str:
    """A line for people."""
    line = _FORMAT.format(
        at.astimezone().strftime("%H:%M:%S.%f")[:-3],
        proxy or "-",
        event.target,
        _ms(_lifetime_us(event)),
        _ms(event.connect_us),
        _ms(event.first_byte_us),
        event.reason + (" (probe)" if event.probe else ""),
        server or "",
    )
    return line.rstrip()


def _matches(rules: Sequence[BackendRule], target: str) -> bool:
    host, port = split_endpoint(target)
    address = ipaddress.ip_address(host)
    return not rules or any(
        rule.first_port <= port <= rule.last_port and address in rule.network for rule in rules
    )


def _tell(*texts: str) -> None:
    for text in texts:
        print(f"lblatency: {text}", file=sys.stderr, flush=True)


def _terminate(*_: object) -> None:
    sys.exit(_TERMINATED)


class _Tail:
    """Prints what ends, until it is interrupted or nobody reads."""

    def __init__(
        self,
        tailed: Sequence[_Tailed],
        names: Names,
        rules: Sequence[BackendRule],
        *,
        is_json: bool,
    ) -> None:
        self._tailed = tailed
        self._names = names
        self._rules = rules
        self._line = _object if is_json else _row
        self._dropped = 0
        self._ticks = Ticks()
        self._poll = select.poll()
        for each in tailed:
            self._poll.register(each.events.fileno(), select.POLLIN)
        if sys.stdout:
            self._poll.register(sys.stdout.fileno(), 0)  # tells if a pipe's reader is gone
        if not is_json:
            print(_FORMAT.format(*_TITLES))

    def run(self) -> None:
        """Print, and tick the sources."""
        next_tick = time.monotonic() + _TICK_S
        while True:
            if sys.stdout:
                sys.stdout.flush()
            ready = self._poll.poll(max(0.0, next_tick - time.monotonic()) * 1000)
            if any(happened & select.POLLERR for _, happened in ready):
                raise BrokenPipeError
            self._print()
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + _TICK_S
                _tell(*self._ticks.tick([each.source for each in self._tailed]))
                _tell(*self._names.news())
                self.tell_dropped()

    def _print(self) -> None:
        since_boot_ns = time.time_ns() - time.monotonic_ns()
        for each in self._tailed:
            for event in islice(each.closed(), _TURN):
                if _matches(self._rules, event.target):
                    at = datetime.fromtimestamp((event.timestamp_ns + since_boot_ns) / 1e9, UTC)
                    print(self._line(event, each.proxy(event), each.server(event), at))

    def tell_dropped(self) -> None:
        """Say how many events found no room since this was said last."""
        dropped = sum(each.events.dropped for each in self._tailed)
        if dropped > self._dropped:
            new = dropped - self._dropped
            _tell(f"{new} events are missing here, since lines were not read fast enough")
            self._dropped = dropped


def run(options: argparse.Namespace) -> int:
    """Print until Ctrl-C, SIGTERM, or the end of who reads."""
    plans = planned(options, must_name=False, also_used=(BACKEND,))
    before = signal.signal(signal.SIGTERM, _terminate)  # so that sources are closed
    try:
        with ExitStack() as stack:
            named = readers(given(options, source_options().values()))
            names = stack.enter_context(Names(list(checked(named).values())))
            names.refresh()  # else the first connections had none
            tailed = []
            for each in plans:
                source = stack.enter_context(each.open())
                events = stack.enter_context(source.stream.subscribe(_QUEUE))
                tailed.append(_Tailed(source, events, names if named else None))
            keep_only(kept(plans, named))
            taken = (each.source.takes() for each in tailed)
            _tell(*(f"takes {what}" for what in taken if what))
            tail = _Tail(tailed, names, options.backend or (), is_json=options.json)
            stack.callback(tail.tell_dropped)
            tail.run()
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0
