"""`lblatency serve`: export the metrics of a running balancer or proxy."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from contextlib import ExitStack

from .._privileges import keep_only
from .._signals import HeldSignals
from ..errors import LatencyError, NotPinnedError
from ..exporter import serving
from ..exporter.systemd import notify, notify_reloading
from ..names import READERS
from ..sources import SOURCES, Source
from ..tracker import LatencyTracker
from ._agent import Agent
from ._config import ConfigFile, ReloadStatus
from ._options import add_flag, flag, given
from ._settings import DEFAULT_ADDRESS, SERVE_OPTIONS, Settings
from ._sources import add_sources, kept, planned, readers, source_options

__all__ = ["EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "serve /metrics of a running balancer or proxy"
EXAMPLES = """\
  lblatency serve --haproxy /run/haproxy/admin.sock
                                       metrics of a proxy that is left as it is
  lblatency serve --sockets --comm traefik=edge --backend 10.0.0.0/24:8080=web
  lblatency serve --ring /sys/fs/bpf/mylb/lbl_events --proxy web
                                       metrics of a balancer that runs already
  lblatency serve --ring lbl_events --proxy web --proxy-id 2=api --listen 0.0.0.0:10435
  lblatency serve --config /etc/lblatency.toml
                                       all of it in a file, reread when it changes
"""
_TICK_S = 1.0
_POLL_S = 0.1  # between looks for a pin that is not there yet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sources' options, those of the command, and the file that has them all."""
    add_sources(parser)
    for option in SERVE_OPTIONS:
        add_flag(parser, option)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="read all options from a TOML file, instead of flags; it is read again on SIGHUP and"
        " when it changes",
    )


def _say(text: str) -> None:
    print(f"lblatency: {text}", file=sys.stderr, flush=True)


def _from_flags(options: argparse.Namespace) -> Settings:
    named = readers(given(options, source_options().values()))
    return Settings.of(given(options, SERVE_OPTIONS), planned(options), named)


def _check_alone(options: argparse.Namespace) -> None:
    known = [*source_options().values(), *SERVE_OPTIONS]
    by_name = {option.name: option for option in known}
    if others := [flag(by_name[name]) for name in given(options, known)]:
        raise argparse.ArgumentError(None, f"--config and {others[0]}: say all of it in the file")


def _tell_changes(sources: list[Source], before: list[str]) -> list[str]:
    """Say once which rings' pins are gone, and which are back; returns those that are gone."""
    now = [pin for source in sources for pin in source.stream.detached()]
    for pin in now:
        if pin not in before:
            _say(f"{pin} is not the ring that is drained any more; waiting for a ring there")
    for pin in before:
        if pin not in now:
            _say(f"{pin} is drained again")
    return now


def _tell_if_not_counted(tracker: LatencyTracker) -> None:
    if tracker.event_counts()["produced"] is None:
        _say(
            "no readable lbl_counters map of the ring, so events that do not fit into it are not"
            " counted; if the balancer has such a map, name it with --counters"
        )


def _kept(settings: Settings, *, may_change: bool) -> set[str]:
    """The capabilities that are needed once all is open; a file that changes may say anything."""
    if may_change:
        opening = {name for source in SOURCES for name in source.capabilities}
        reading = {name for reader in READERS for name in reader.capabilities}
        return {"CAP_SYS_ADMIN", *opening, *reading}  # the first for maps by id or name
    return kept(settings.sources, settings.readers)


class _Server:
    """The loop of the command: what it does at each signal, and about once per second."""

    def __init__(self, agent: Agent, settings: Settings, config: ConfigFile | None) -> None:
        self.reloads = ReloadStatus()
        self._agent = agent
        self._settings = settings
        self._config = config
        self._deadline: float | None = None  # while pins are waited for
        self._detached: list[str] = []

    def start(self) -> None:
        """Open the sources, and begin to wait for what is not pinned yet."""
        if away := self._open():
            if not self._settings.wait_s:
                raise away
            _say(f"{away}; waiting for it")
            self._deadline = time.monotonic() + self._settings.wait_s
        self.reloads.told(is_good=True)

    def _open(self) -> NotPinnedError | None:
        """Open what is there; returns what is not, if anything."""
        try:
            return self._agent.apply_what_is_there(self._settings)
        except NotPinnedError as away:
            return away

    def _opened(self) -> None:
        """Say what is taken and what cannot be known; give up what only opening needs."""
        for source in self._agent.sources:
            if taken := source.takes():
                _say(f"takes {taken}")
        _tell_if_not_counted(self._agent.tracker)
        keep_only(_kept(self._settings, may_change=self._config is not None))

    def run(self, signals: HeldSignals) -> None:
        """Serve until SIGINT or SIGTERM."""
        if self._deadline is None:
            self._opened()
        while True:
            has_work = self._deadline is None or self._agent.sources
            arrived = signals.next(_TICK_S if has_work else _POLL_S)
            if arrived not in (None, signal.SIGHUP):
                return
            if self._config and (arrived == signal.SIGHUP or self._config.has_changed()):
                self._reload(self._config)
            if self._deadline is not None:
                self._try_again(self._deadline)
            for news in (*self._agent.tick(), *self._agent.names.news()):
                _say(news)
            self._detached = _tell_changes(self._agent.sources, self._detached)

    def why_not_ready(self) -> str | None:
        """What is missing, in a line; None if events are recorded."""
        if self._deadline is not None:
            return "waiting for a pinned ring"
        gone = self._detached
        return f"{gone[0]} is not the ring that is drained" if gone else None

    def _try_again(self, deadline: float) -> None:
        away = self._open()
        if away is None:
            self._deadline = None
            self._opened()
        elif time.monotonic() >= deadline:
            raise away

    def _reload(self, config: ConfigFile) -> None:
        """Take over what the file says now; keep what there is if it is broken."""
        notify_reloading()
        try:
            settings = config.read()
            self._agent.apply(settings)
        except (LatencyError, MemoryError, OSError, ValueError) as error:
            self.reloads.told(is_good=False)
            _say(f"{error}; what was there goes on")
        else:
            waited = self._deadline is not None
            self._settings, self._deadline = settings, None
            if waited:
                self._opened()
            self.reloads.told(is_good=True)
            _say(f"{config.path} is read again")
        notify("READY=1")


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    from ..exporter.served import Served  # imports prometheus_client, which takes long

    config = None if options.config is None else ConfigFile(options.config)
    if config:
        _check_alone(options)
    settings = config.read() if config else _from_flags(options)
    with ExitStack() as stack:
        agent = stack.enter_context(Agent(settings))
        server = _Server(agent, settings, config)
        server.start()
        held = (signal.SIGHUP,) if config else ()
        signals = stack.enter_context(HeldSignals(*held))
        web = settings.web
        served = Served(
            agent.tracker,
            names=agent.names,
            sources=[agent],
            more=[server.reloads] if config else [],
            max_series=web.max_series,
            view=agent.view,
            why_not_ready=server.why_not_ready,
        )
        for url in stack.enter_context(
            serving(
                served,
                web.listen,
                _say,
                default=DEFAULT_ADDRESS,
                config_file=web.config_file,
                push=settings.push,
            )
        ):
            _say(f"metrics at {url}")
        if push := settings.push:
            _say(f"pushing to {push.shown} every {push.interval_s:g} s")
        notify("READY=1")
        stack.callback(notify, "STOPPING=1")
        server.run(signals)
    return 0
