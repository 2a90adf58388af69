"""The agent of `lblatency serve`: sources come and go, and no count goes down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lblatency.commands import _sources
from lblatency.commands._agent import Agent
from lblatency.commands._config import read_config
from lblatency.commands._settings import Settings
from lblatency.errors import LatencyError
from lblatency.history import History
from tests.support.fake_source import TARGET, Fake, closed
from tests.support.rig import wait_until


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake source is the only one."""
    monkeypatch.setattr(_sources, "SOURCES", (Fake,))
    monkeypatch.setattr(Fake, "opened", [])


def settings(*names: str, more: str = "") -> Settings:
    """Settings that open a source for each name."""
    tables = [f'[[source]]\nfake = "{name}"\nproxy = "web"\n' for name in names]
    return read_config("f.toml", (more + "".join(tables)).encode())


@pytest.fixture
def agent() -> Iterator[Agent]:
    """An agent that records sources a and b."""
    with Agent(settings("a", "b")) as made:
        made.apply(settings("a", "b"))
        yield made
    assert not any(source.is_open for source in Fake.opened)


def count(agent: Agent) -> int:
    """How many connections were recorded, with those that still are in a ring."""
    for source in agent.sources:
        source.stream.drain()
    histogram = agent.tracker.get_histogram("web", TARGET)
    return histogram["count"] if histogram else 0


def test_what_stays_is_not_touched(agent: Agent) -> None:
    """A source of the same settings goes on; another one comes and goes."""
    a, b = Fake.opened
    agent.apply(settings("a", "c"))
    c = Fake.opened[-1]
    assert [a.is_open, b.is_open, c.is_open] == [True, False, True]
    assert len(Fake.opened) == 3
    agent.tick()
    assert [a.ticks, b.ticks, c.ticks] == [1, 0, 1]


def test_a_source_that_cannot_do_its_work_ends_nothing_and_is_told_once(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that raises, one that says what is wrong: each once, and again once it is another."""
    a, b = Fake.opened

    def fail() -> None:
        raise LatencyError("attach to cali7: no room")

    with monkeypatch.context() as failing:
        failing.setattr(a, "tick", fail)
        b.wrong = "no map is pinned"
        told = [
            "attach to cali7: no room; it is tried again",
            "no map is pinned; it is tried again",
        ]
        assert agent.tick() == told
        assert agent.tick() == []
        b.wrong = "its map is no conntrack map"
        assert agent.tick() == ["its map is no conntrack map; it is tried again"]
    b.wrong = None
    assert agent.tick() == [
        "it works again, after: attach to cali7: no room",
        "it works again, after: its map is no conntrack map",
    ]
    assert (a.ticks, b.ticks) == (1, 4)


def test_what_a_closed_source_had_in_its_ring_is_recorded(agent: Agent) -> None:
    """The tracker empties the ring when the source is replaced."""
    for source in Fake.opened:
        assert source.ring.produce(closed())
    agent.apply(settings("c"))
    assert count(agent) == 2
    assert Fake.opened[-1].ring.produce(closed())
    assert count(agent) == 3


def test_losses_never_go_down(agent: Agent) -> None:
    """What a closed source has lost still counts, also if the same one is opened again."""
    a, b = Fake.opened
    a.counts.update(lost=2, failed=1)
    b.counts.update(lost=5, failed=7)
    told = agent.lost(), agent.failed_connects()
    assert told == ({"fake_full": 7}, {"refused": 8})
    agent.apply(settings("a"))
    assert (agent.lost(), agent.failed_connects()) == told
    agent.apply(settings("a", "b"))
    assert (agent.lost(), agent.failed_connects()) == told
    Fake.opened[-1].counts.update(lost=1)
    assert agent.lost() == {"fake_full": 8}


def test_names_come_from_other_places_after_a_change(agent: Agent, tmp_path: Path) -> None:
    """A reader that stays is not opened again; names that are known stay."""
    groups = '[{"targets": ["10.0.0.1:80"], "labels": {"backend": "web", "server": "one"}}]'
    (tmp_path / "one.json").write_text(groups)

    def named(*files: str) -> Settings:
        places = [str(tmp_path / file) for file in files]
        text = f'[[source]]\nfake = "a"\nproxy = "web"\nnames = {places}\n'
        return read_config("f.toml", text.encode())

    agent.apply(named("one.json"))
    (one,) = agent.names.status()
    wait_until(lambda: agent.names.find("10.0.0.1", 80), "the name")
    agent.apply(named("absent.json", "one.json"))
    wait_until(lambda: agent.names.status()[0]["error"], "the other place")
    absent, same = agent.names.status()
    assert [each["place"] for each in (absent, same)] == [
        str(tmp_path / "absent.json"), one["place"],
    ]  # fmt: skip
    assert same["count"] == 1
    agent.apply(settings("a"))
    assert agent.names.status() == []
    assert agent.names.find("10.0.0.1", 80) == ("web", "one")


def test_a_malformed_file_of_names_is_refused(agent: Agent, tmp_path: Path) -> None:
    """With its line, and all stays as it was; one that stays and breaks later is none's error."""
    path = tmp_path / "names.json"
    named = f'[[source]]\nfake = "a"\nproxy = "web"\nnames = "{path}"\n'
    with_names = read_config("f.toml", named.encode())
    path.write_text("[\n{}]")
    for _ in range(2):
        with pytest.raises(LatencyError) as error:
            agent.apply(with_names)
        assert str(error.value).startswith(f"{path}: line 2: a group is ")
        assert all(source.is_open for source in Fake.opened)
        assert agent.names.status() == []
    path.unlink()
    path.mkdir()
    with pytest.raises(LatencyError, match=r"names\.json: Is a directory"):
        agent.apply(with_names)
    path.rmdir()
    path.write_text("[]")
    agent.apply(with_names)
    path.write_text("{")
    agent.apply(with_names)


@pytest.mark.parametrize("after", [("a", "broken"), ("c", "away"), ("b", "c", "broken")])
def test_a_failure_leaves_all_as_it_was(agent: Agent, after: tuple[str, ...]) -> None:
    """What stays is not touched, what was closed is opened again, what is new is closed."""
    a = Fake.opened[0]
    assert a.ring.produce(closed())
    with pytest.raises(LatencyError, match=r"it is broken|no BPF map is pinned at away"):
        agent.apply(settings(*after))
    assert {source.fake for source in Fake.opened if source.is_open} == {"a", "b"}
    assert a.is_open is ("a" in after)
    assert agent.tracker.running()
    for source in agent.sources:
        assert isinstance(source, Fake)
        assert source.ring.produce(closed())
    assert count(agent) == 3


def test_what_is_there_does_not_wait_for_the_others(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is opened as soon as it is pinned; those that are open are not touched meanwhile."""
    monkeypatch.setattr(Fake, "away", {"c", "d"})
    wanted = settings("a", "c", "b", "d")
    for _ in range(2):
        assert "pinned at c" in str(agent.apply_what_is_there(wanted))
        assert [each.fake for each in Fake.opened] == ["a", "b"]
    Fake.away.remove("d")
    assert "pinned at c" in str(agent.apply_what_is_there(wanted))
    Fake.away.remove("c")
    for _ in range(2):
        assert agent.apply_what_is_there(wanted) is None
        assert [each.fake for each in Fake.opened] == ["a", "b", "d", "c"]
    for source in Fake.opened:
        source.ring.produce(closed())
    assert count(agent) == 4


def test_a_source_that_is_away_does_not_stop_the_recording(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again and again."""
    monkeypatch.setattr(agent.tracker, "stop", lambda: pytest.fail("it stopped"))
    with pytest.raises(LatencyError, match="pinned at away"):
        agent.apply(settings("a", "b", "away"))
    monkeypatch.undo()


def test_the_same_source_twice_is_one(agent: Agent) -> None:
    """Two tables that say the same open one source."""
    agent.apply(settings("c", "c"))
    assert [source.fake for source in Fake.opened if source.is_open] == ["c"]


@pytest.mark.parametrize(
    "more", ["metrics = 'lifetime,connect'\n", "buckets = '1'\n", "max-backends = 9\n"]
)
def test_what_is_recorded_cannot_change(agent: Agent, more: str) -> None:
    """A tracker is made once; the message says what to do."""
    with pytest.raises(LatencyError, match="cannot change while it runs; restart it"):
        agent.apply(settings("c", more=more))
    assert [source.is_open for source in Fake.opened] == [True, True]


def test_scrapes_may_come_at_any_time(agent: Agent) -> None:
    """No scrape reads a source that is closed, and none sees a count go down."""
    seen: list[int] = []
    ended = threading.Event()

    def scrape() -> None:
        while not ended.is_set():
            seen.append(agent.lost()["fake_full"])

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        for _ in range(50):
            for name in ("c", "a"):
                Fake.opened[-1].counts.update(lost=1)
                agent.apply(settings(name))
    finally:
        ended.set()
        thread.join()
    assert seen == sorted(seen)
    assert agent.lost() == {"fake_full": 100}


def test_ticks_sample_what_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its view has what happened between two samples, and how each source is."""
    with Agent(settings("a"), interval_s=1e-6) as agent:
        agent.apply(settings("a"))
        agent.tick()
        (a,) = Fake.opened
        a.ring.produce(closed())
        a.stream.drain()
        agent.tick()
        table = agent.view.backends(60)
        assert (table["columns"]["target"], table["columns"]["count"]) == ([TARGET], [1])
        a.wrong = "no map is pinned"
        (state,) = agent.view.status()["sources"]
        assert (state["name"], state["trouble"]) == ("fake", "no map is pinned")
        assert state["lost"] == {"fake_full": 0}

        def fail() -> None:
            raise LatencyError("cannot read lbl_counters")

        with monkeypatch.context() as failing:
            failing.setattr(a, "lost", fail)
            (state,) = agent.view.status()["sources"]
        assert (state["trouble"], state["lost"]) == ("cannot read lbl_counters", {})


def test_a_sample_that_fails_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends nothing, and the next one may succeed."""

    def fail(_history: History) -> None:
        raise MemoryError("no memory")

    with Agent(settings("a"), interval_s=1e-6) as agent:
        agent.apply(settings("a"))
        for _ in range(2):
            with monkeypatch.context() as failing:
                failing.setattr(History, "sample", fail)
                told = ["no memory; the next sample has what this one would have"]
                assert agent.tick() == told
                assert agent.tick() == []
            assert agent.tick() == []
