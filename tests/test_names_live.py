"""The table of names with its history, and the thread that keeps it fresh."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from lblatency.errors import LatencyError
from lblatency.names import READERS, FileSd, Name, Names, NameTable, Reader, Row
from tests.support.names import row
from tests.support.rig import wait_until

GOOD = '{"targets": ["10.0.0.1:80"], "labels": {"backend": "a"}}'


def table(*rows: Row) -> NameTable:
    """The table of these rows."""
    return NameTable().updated(rows, 0)


def test_an_address_has_one_name() -> None:
    """However it is written; another port has another one; port 0 stands for all."""
    names = table(row("a/s1"), row("a/any", "10.0.0.2", 0), row("a/s2", "10.0.0.2", 81))
    assert names.find("10.0.0.1", 80) == Name("a", "s1")
    assert names.find("::ffff:10.0.0.1", 80) == Name("a", "s1")
    assert names.find("10.0.0.1", 81) is None
    assert names.find("10.0.0.2", 80) == Name("a", "any")
    assert names.find("10.0.0.2", 81) == Name("a", "s2")
    assert names.find("overflow", 0) is None


def test_two_names_of_one_address_are_joint() -> None:
    """In any order; never the first one. A name that comes twice is one."""
    for rows in ([row("b/other"), row("a/s1")], [row("a/s1"), row("b/other"), row("a/s1")]):
        assert table(*rows).find("10.0.0.1", 80) == Name("a|b", "a/s1|b/other")
    assert table(row("a/s2"), row("a/s1")).find("10.0.0.1", 80) == Name("a", "s1|s2")
    assert str(table(row("b/other"), row("a/s1")).find("10.0.0.1", 80)) == "a/s1|b/other"
    assert str(table(row("a/s2"), row("a/s1")).find("10.0.0.1", 80)) == "a/s1|s2"
    assert str(table(row("a|b/s1")).find("10.0.0.1", 80)) == "a|b/s1"
    many = [row(f"a/s{i:03}") for i in range(500)]
    found = table(*many).find("10.0.0.1", 80)
    assert found == Name("a", "s000|s001|s002|s003|s004|s005|s006|s007|492 more")


def test_the_source_address_tells_servers_apart() -> None:
    """A row that names a source is for that alone; others are for the rest."""
    names = table(row("a/s1", source="127.0.0.21"), row("b/s1", source="::1"), row("c/s1"))
    assert names.find("10.0.0.1", 80, "127.0.0.21") == Name("a", "s1")
    assert names.find("10.0.0.1", 80, "::ffff:127.0.0.21") == Name("a", "s1")
    assert names.find("10.0.0.1", 80, "0:0::1") == Name("b", "s1")
    assert names.find("10.0.0.1", 80, "127.0.0.1") == Name("c", "s1")
    assert names.find("10.0.0.1", 80) == Name("a|b|c", "a/s1|b/s1|c/s1")
    told = table(row("a/s1", source="127.0.0.21"), row("b/s1", source="127.0.0.22"))
    assert told.find("10.0.0.1", 80, "127.0.0.1") == Name("a|b", "a/s1|b/s1")


def test_a_name_belongs_to_the_time_of_the_connection() -> None:
    """An address that was another server's before has that name for connections of that time."""
    names = table(row("a/s1")).updated([row("a/s2")], 100).updated([row("a/s3")], 200)
    found = [names.find("10.0.0.1", 80, at_ns=at) for at in (-1, 0, 99, 100, 199, 200, 10**18)]
    assert [name.server for name in found if name] == ["s1", "s1", "s1", "s2", "s2", "s3", "s3"]
    assert names.find("10.0.0.1", 80) == Name("a", "s3")


def test_an_address_that_left_keeps_its_last_name() -> None:
    """The server's new address has the same name; who takes the old one over, takes its name."""
    moved = table(row("a/s1")).updated([row("a/s1", "10.0.0.2")], 1)
    assert moved.find("10.0.0.1", 80) == moved.find("10.0.0.2", 80) == Name("a", "s1")
    taken = moved.updated([row("b/new"), row("a/s1", "10.0.0.2")], 2)
    assert taken.find("10.0.0.1", 80) == Name("b", "new")
    assert moved.find("10.0.0.1", 80) == Name("a", "s1")  # a table never changes


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of changes, the latest; of addresses, those that are there now."""
    names = table()
    for i in range(50):
        names = names.updated([row(f"a/s{i}")], i)
    servers = [names.find("10.0.0.1", 80, at_ns=i) for i in range(50)]
    assert len(set(servers)) == 8
    assert servers[-1] == Name("a", "s49")
    monkeypatch.setattr("lblatency.names.base.TARGETS_MAX", 10)
    for i in range(50):
        names = names.updated([row("a/s", f"10.0.1.{i}")], 100 + i)
        assert len(names) <= 10
    assert names.find("10.0.1.49", 80)


# ---- the thread ----


class Scripted(Reader):
    """A reader that does what it is told."""

    option, metavar, help = "scripted", "X", "for tests"
    place = "here"
    interval_s = 0.01

    def __init__(self, *rows: Row) -> None:
        self.does: Callable[[float], Iterable[Row]] = lambda _: rows
        self.n_reads = 0

    def read(self, deadline: float) -> Iterable[Row]:
        """Do it."""
        self.n_reads += 1
        return self.does(deadline)


def fails(error: Exception) -> Callable[[float], Iterable[Row]]:
    """Raise this."""

    def read(_deadline: float) -> Iterable[Row]:
        raise error

    return read


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (LatencyError("line 3: bad \x1b[2J"), "here: line 3: bad \ufffd[2J"),
        (FileNotFoundError(2, "No such file or directory", "x"), "here: No such file or directory"),
        (KeyError("x"), "here: 'x'"),
        (RecursionError(), "here: RecursionError()"),
        (MemoryError("m" * 1000), "here: mmm"),
    ],
)
def test_the_old_names_stay_if_a_reader_cannot(error: Exception, text: str) -> None:
    """Whatever it raises, the thread goes on, says why, and finds the new names afterwards."""
    reader = Scripted(row("a/s1"))
    with Names([reader]) as names:
        wait_until(lambda: names.find("10.0.0.1", 80), "the first names")
        reader.does = fails(error)
        wait_until(lambda: names.status()[0]["error"], "the error")
        (status,) = names.status()
        assert status["error"].startswith(text)
        assert (status["from"], status["place"], status["count"]) == ("scripted", "here", 1)
        assert names.find("10.0.0.1", 80) == Name("a", "s1")
        age = status["age_s"]
        wait_until(lambda: names.status()[0]["age_s"] > age + 0.02, "old names to get older")
        reader.does = lambda _: [row("a/s2")]
        wait_until(lambda: names.find("10.0.0.1", 80) == Name("a", "s2"), "the new name")
        assert names.status()[0]["error"] is None


def test_a_broken_file_keeps_the_old_names(tmp_path: Path) -> None:
    """And the status has the file and its line."""
    path = tmp_path / "names.json"
    path.write_text(f"[{GOOD}]")
    with Names([FileSd(str(path))]) as names:
        names.refresh()
        path.write_text("[\n{}]")
        names.refresh()
        assert names.status()[0]["error"].startswith(f"{path}: line 2: a group is")
        path.unlink()
        names.refresh()
        assert names.status()[0]["error"] == f"{path}: No such file or directory"
        assert names.find("10.0.0.1", 80) == Name("a", "10.0.0.1:80")


def test_news_come_once() -> None:
    """An error when it comes, another one when it changes, and that it went."""
    reader = Scripted(row("a/s1"))
    reader.interval_s = 3600
    with Names([reader]) as names:
        names.refresh()
        assert names.news() == []
        for error, text in (("away", "here: away"), ("away", None), ("line 3", "here: line 3")):
            reader.does = fails(LatencyError(error))
            names.refresh()
            assert names.news() == ([f"{text}; 1 older names stay"] if text else [])
        reader.does = lambda _: [row("a/s1"), row("a/s2")]
        names.refresh()
        assert names.news() == ["here: 2 names are read again"]
        assert names.news() == []


def test_news_say_that_no_name_is_known_yet(tmp_path: Path) -> None:
    """Not that none of none stay."""
    with Names([FileSd(str(tmp_path / "absent.json"))]) as names:
        names.refresh()
        (told,) = names.news()
    assert told == (
        f"{tmp_path}/absent.json: No such file or directory; its servers have no names until it"
        " can be read"
    )


def test_nobody_waits_for_a_slow_reader() -> None:
    """Look-ups and the end come at once while a reader hangs."""
    hangs, goes_on = threading.Event(), threading.Event()
    reader = Scripted(row("a/s1"))

    def hang(_deadline: float) -> Iterable[Row]:
        hangs.set()
        goes_on.wait(20)
        return []

    names = Names([reader])
    wait_until(lambda: names.find("10.0.0.1", 80), "the first names")
    reader.does = hang
    assert hangs.wait(20)
    started = time.monotonic()
    assert names.find("10.0.0.1", 80)
    assert names.find("10.0.0.2", 80) is None
    assert names.status()[0]["count"] == 1
    names.close()
    assert time.monotonic() - started < 5
    goes_on.set()


def test_an_unknown_address_is_looked_for_at_once() -> None:
    """Once, not for each look-up; what is no address is not looked for."""
    reader = Scripted()
    reader.interval_s = 3600
    with Names([reader]) as names:
        (book,) = names._books
        wait_until(lambda: reader.n_reads == 1, "the first read")
        reader.does = lambda _: [row("a/s1")]
        wait_until(lambda: book.read_at, "the end of the first read")
        book.read_at = time.monotonic() - 1000  # more than a fifth of the interval
        assert names.find("overflow", 0) is None
        assert not book.is_wanted
        assert names.find("10.0.0.1", 80) is None
        wait_until(lambda: names.find("10.0.0.1", 80), "its name")
        assert names.find("10.0.0.9", 80) is None
        assert book.is_wanted
        names.refresh()
        assert names.find("10.0.0.9", 80) is None
        assert not book.is_wanted
        wait_until(lambda: not names._wake.is_set(), "the thread to go back to sleep")
        assert reader.n_reads == 3


def test_names_of_several_readers_are_joint() -> None:
    """Each keeps its own while another is away."""
    one, two = Scripted(row("a/s1")), Scripted(row("b/s1"))
    with Names([one, two]) as names:
        names.refresh()
        assert names.find("10.0.0.1", 80) == Name("a|b", "a/s1|b/s1")
        two.does = fails(LatencyError("away"))
        names.refresh()
        assert names.find("10.0.0.1", 80) == Name("a|b", "a/s1|b/s1")
        two.does = lambda _: []
        names.refresh()
        assert names.find("10.0.0.1", 80) == Name("a", "s1")
    Names([]).close()


def test_too_many_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused as a whole, not cut."""
    monkeypatch.setattr("lblatency.names.live.TARGETS_MAX", 10)
    reader = Scripted()
    reader.does = lambda _: (row("a/s", f"10.0.0.{i}") for i in range(11))
    with Names([reader]) as names:
        names.refresh()
        assert names.status()[0]["error"] == "here: it has more than 10 servers"
        assert names.find("10.0.0.1", 80) is None


def test_a_place_is_shown_as_text() -> None:
    """Also one whose name is no Unicode, which would break each scrape."""
    with Names([FileSd("/nowhere/\udcff\x1b")]) as names:
        names.refresh()
        (status,) = names.status()
        assert status["place"] == "/nowhere/\ufffd\ufffd"
        assert status["error"] == "/nowhere/\ufffd\ufffd: No such file or directory"


def test_readers_have_options_of_their_own() -> None:
    """A front end can make a flag of each."""
    options: list[Any] = [reader.option for reader in READERS]
    assert options == ["haproxy", "nginx", "envoy", "names"]
