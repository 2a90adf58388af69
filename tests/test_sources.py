"""What all sources have in common, and `lblatency serve` with them."""

from __future__ import annotations

import argparse
import inspect
import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import ClassVar

import pytest

from lblatency import LatencyTracker, sources, stats
from lblatency.cli import main
from lblatency.commands import _sources, serve


class Spoken(sources.Source):
    """A source that remembers how it was opened."""

    options = (
        sources.Option("say", "WORD", "what to say", is_list=True),
        sources.Option("how_loud", "DB", "in decibels"),
        sources.Option("twice", "", "say it again"),
    )
    closed: ClassVar[list[object]] = []

    def __init__(self, say: Sequence[str], *, how_loud: str = "60", twice: bool = False) -> None:
        self.stream = stats.create_event_stream(stats.MemoryRing(4096))
        self.given = (say, how_loud, twice)

    def close(self) -> None:
        """Remember that it was closed."""
        self.closed.append(self.given)
        super().close()


@pytest.mark.parametrize("source", sources.SOURCES)
def test_options_are_what_the_constructor_takes(source: type[sources.Source]) -> None:
    """All but a switch that opens are keyword arguments; what has no default is an option."""
    parameters = inspect.signature(source).parameters
    arguments = source.options if source.options[0].metavar else source.options[1:]
    keywords = [each.keyword for each in arguments]
    assert len(set(keywords)) == len(keywords)
    assert set(keywords) <= set(parameters)
    empty = inspect.Parameter.empty
    assert {name for name, each in parameters.items() if each.default is empty} <= set(keywords)
    switches = {each.keyword for each in arguments if not each.metavar}
    assert {name for name, each in parameters.items() if each.default is False} >= switches
    assert all(each.help for each in source.options)


def test_sources_that_share_an_option_mean_the_same() -> None:
    """`--backend` is one flag, whichever sources take it."""
    by_name: dict[str, sources.Option] = {}
    for source in sources.SOURCES:
        for option in source.options:
            assert by_name.setdefault(option.name, option) == option


def test_a_ring_takes_all_that_can_be_said() -> None:
    """Its options are all arguments of its constructor."""
    keywords = [each.keyword for each in sources.Ring.options]
    assert list(inspect.signature(sources.Ring).parameters) == keywords


def test_a_ring_is_a_source() -> None:
    """A tracker records a Ring's stream, and its status says where the events are."""
    ring = stats.MemoryRing(4096)
    tracker = LatencyTracker()
    with sources.Ring(ring) as source:
        tracker.start(source.stream, None, "web")
        ring.produce(stats.Event("closed", "10.0.0.1:80", 2 * 10**9, 10**9).pack())
        source.tick()
        source.stream.drain()
        assert source.status()["received"] == 1
        tracker.stop()
    histogram = tracker.get_histogram("web", "10.0.0.1:80")
    assert histogram is not None
    assert histogram["sum"] == 1
    with pytest.raises(ValueError, match="closed"):
        source.stream.drain()


def parse(*argv: str) -> argparse.Namespace:
    """Parse a command line that has the sources' options only."""
    parser = argparse.ArgumentParser()
    _sources.add_sources(parser)
    return parser.parse_args(argv)


def open_all(options: argparse.Namespace, stack: ExitStack) -> list[sources.Source]:
    """Open what a command line opens."""
    return [stack.enter_context(each.open()) for each in _sources.planned(options, must_name=False)]


def test_one_line_makes_a_source_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first option of a registered source opens it; the end of the command closes it."""
    monkeypatch.setattr(_sources, "SOURCES", (*sources.SOURCES, Spoken))
    monkeypatch.setattr(Spoken, "closed", [])
    with ExitStack() as stack:
        (opened,) = open_all(parse("--say", "a", "--say", "b", "--how-loud", "9", "--twice"), stack)
        assert isinstance(opened, Spoken)
        assert opened.given == (("a", "b"), "9", True)
        (quiet,) = open_all(parse("--say", "c"), stack)
        assert isinstance(quiet, Spoken)
        assert quiet.given == (("c",), "60", False)
        assert not Spoken.closed
    assert Spoken.closed == [(("c",), "60", False), (("a", "b"), "9", True)]


def test_no_source_is_an_error_that_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names all first options; other options open no source."""
    monkeypatch.setattr(_sources, "SOURCES", (sources.Ring, Spoken))
    with ExitStack() as stack, pytest.raises(argparse.ArgumentError, match=r"--ring or --say$"):
        open_all(parse("--how-loud", "9", "--counters", "x"), stack)


class Ending(Spoken):
    """A source whose tick() ends the command."""

    ticks: ClassVar[list[object]] = []

    def tick(self) -> None:
        """Send the main thread SIGTERM, as systemd does."""
        self.ticks.append(self.given)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)


def test_serve_ticks_its_sources_and_closes_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`serve` calls tick(), and closes the source when a signal ends the command."""
    monkeypatch.setattr(_sources, "SOURCES", (Ending,))
    monkeypatch.setattr(serve, "_TICK_S", 0.001)
    monkeypatch.setattr(Spoken, "closed", [])
    monkeypatch.setattr(Ending, "ticks", [])
    in_vain = threading.Timer(20, signal.pthread_kill, (threading.get_ident(), signal.SIGTERM))
    in_vain.start()
    try:
        assert main(["serve", "--say", "a", "--proxy", "web", "--listen", "127.0.0.1:0"]) == 0
    finally:
        in_vain.cancel()
        in_vain.join()
    assert Ending.ticks == Spoken.closed == [(("a",), "60", False)]
    assert "lblatency: metrics at http://127.0.0.1:" in capsys.readouterr().err
