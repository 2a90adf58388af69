"""`lblatency top`: the table of backends in a real terminal, in a pipe, and in parts."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from lblatency.cli import main
from lblatency.history import History, LocalView
from lblatency.top.bars import bar, bars
from lblatency.top.keys import Keys
from lblatency.top.screen import Seen, State, table_lines
from lblatency.top.table import COLUMNS, chosen_rows, column, fitting
from lblatency.top.terms import parse_terms
from tests.support.rig import SECOND, Rig, closed, wait_until
from tests.support.served_api import served
from tests.support.tmux import Tmux, shell

HOSTILE = "\x1b[31mred\x1b]0;title\x07\u202e<b>\n"
LONG = "x" * 60_000
TOP = f"{sys.executable} -m lblatency top"


def made(backends: int = 30, samples: int = 14) -> tuple[Rig, LocalView]:
    """Traffic of four proxies, whose lifetimes grow with the backend's number."""
    proxies: dict[int | str, str] = {1: "api", 2: HOSTILE, 3: "データベース"}
    rig = Rig(1 << 20, proxies=proxies, metrics=("lifetime", "connect", "first_byte"))
    history = History(rig.tracker)
    source = random.Random(1)
    for step in range(samples):
        for i in range(backends):
            lifetime = round(source.lognormvariate(-6 + i / 10, 0.3) * 1e9)
            reason = "rst" if i == 5 else "fin"
            target = f"10.0.{i >> 8}.{i & 255}:8080"
            rig.send(closed(lifetime, target, proxy_id=i % 4, reason=reason, connect_us=100 + i))
        history.sample(10**15 + step * 5 * SECOND)
    return rig, LocalView(rig.tracker, history)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of an exporter's API."""
    _, view = made()
    with served(view) as where:
        yield where


def is_table(screen: str) -> bool:
    """Whether the table is there, and not the shell."""
    return "% of closed connections have a lifetime" in screen


def filled(screen: str) -> list[str]:
    """Its lines that are not empty."""
    return [line for line in screen.split("\n") if line]


@pytest.mark.parametrize(
    ("width", "height", "titles"),
    [
        (80, 24, "PROXY BACKEND ENDED/s OPEN p50 p95 p99 RST"),
        (
            200,
            50,
            "PROXY BACKEND ENDED/s OPEN p50 p95 p99 CONN95 BYTE95 RST FAILED CHANGE COUNT",
        ),
        (40, 10, "BACKEND ENDED/s p99"),
    ],
)
def test_a_terminal_of_any_size(
    url: str, tmp_path: Path, width: int, height: int, titles: str
) -> None:
    """What fits is shown: coverage, then the most important columns, and as many rows as can be."""
    with shell(tmp_path, width, height) as tmux:
        tmux.type(f"{TOP} --url {url}", "Enter")
        full = min(30, height - 4) + 4
        lines = tmux.wait_for(lambda screen: len(filled(screen)) == full).split("\n")
        assert max(map(cell_len, lines)) <= width
        assert lines[1].startswith("100 % of closed connections have a l")
        assert lines[2].split() == titles.split()
        tmux.type("q")


def test_it_follows_the_size(url: str, tmp_path: Path) -> None:
    """A larger terminal has more columns and rows at once, a smaller one fewer."""
    with shell(tmp_path, 80, 24) as tmux:
        tmux.type(f"{TOP} --url {url}", "Enter")
        tmux.wait_for(is_table)
        tmux.resize(200, 50)
        tmux.wait_for(lambda screen: "CHANGE" in screen and len(screen.split()) > 30 * 13)
        tmux.resize(80, 12)
        tmux.wait_for(lambda screen: "CHANGE" not in screen and len(filled(screen)) == 12)
        tmux.type("q")


def first(tmux: Tmux) -> str:
    """The target of the first row."""
    found = re.search(r"10\.0\.0\.\d+:8080", tmux.screen())
    return found[0] if found else ""


def test_keys_do_what_the_last_line_says(url: str, tmp_path: Path) -> None:
    """Sort, reverse, filter, move, look at one backend, change the window, and quit."""
    with shell(tmp_path, 120, 30) as tmux:
        tmux.type(f"{TOP} --url {url} --sort p50", "Enter")
        tmux.wait_for(lambda _: first(tmux) == "10.0.0.29:8080")
        tmux.type("r")
        tmux.wait_for(lambda _: first(tmux) == "10.0.0.0:8080")
        tmux.type("r", "Right", "Right", "Right")  # by connect time
        tmux.wait_for(lambda _: first(tmux) == "10.0.0.29:8080")
        tmux.type("/", "proxy:api ip:10.0.0.0/28 port:8080")
        tmux.wait_for(lambda screen: "4 of 30 backends" in screen and "8080▏" in screen)
        tmux.type("Space", "reason:none", "Enter")
        tmux.wait_for("reason:none: the reasons are rst and failed")
        tmux.type(*["BSpace"] * 4, "rst", "Enter")
        tmux.wait_for(lambda screen: "1 of 30 backends" in screen and "filter: proxy" in screen)
        tmux.type("Enter")
        shown = tmux.wait_for("up to")
        assert shown.startswith("api/10.0.0.5:8080  lifetime, last 60 s")
        assert re.search(r"backend +12 +mean .* p50 .* p999 ", shown)
        assert re.search(r"proxy +96 +mean", shown)
        assert "█" in shown
        assert "◂p50" in shown
        tmux.type("w")
        tmux.wait_for("last 65 s")  # of 300; there is no more
        tmux.type("Escape")
        tmux.wait_for("last 65 of 300 s")
        tmux.type("Escape")  # the filter
        tmux.wait_for("30 backends")
        tmux.type("End")
        tmux.wait_for(lambda screen: "10.0.0.0:8080" in screen.split("\n")[28])
        tmux.type("Home")
        tmux.wait_for(lambda _: first(tmux) == "10.0.0.29:8080")
        tmux.type("q")
        tmux.wait_for(lambda screen: not is_table(screen))
        check_restored(tmux)


def check_restored(tmux: Tmux) -> None:
    """The terminal is as it was: its screen, its cursor, and how it reads lines."""
    wait_until(lambda: tmux.told("#{alternate_on} #{cursor_flag}") == "0 1", "the screen of before")
    tmux.type("stty -a | tr ' ;' '\\n' | grep -xE -e '-?(icanon|echo)' | xargs echo is:", "Enter")
    tmux.wait_for("is: icanon echo")


def pid_of_top(tmux: Tmux) -> int:
    """The process in the foreground."""
    (child,) = subprocess.run(
        ["pgrep", "-P", tmux.told("#{pane_pid}")], capture_output=True, text=True, check=True
    ).stdout.split()
    return int(child)


@pytest.mark.parametrize(
    "end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, "C-c", "Ctrl-\\"]
)
def test_whatever_ends_it_the_terminal_is_as_it_was(
    url: str, tmp_path: Path, end: signal.Signals | str
) -> None:
    """After signals and keys that end it."""
    with shell(tmp_path, 80, 24) as tmux:
        tmux.type(f"{TOP} --url {url}", "Enter")
        tmux.wait_for(is_table)
        assert tmux.told("#{alternate_on} #{cursor_flag}") == "1 0"
        if isinstance(end, signal.Signals):
            os.kill(pid_of_top(tmux), end)
        else:
            tmux.type(end.replace("Ctrl-", "C-"))
        tmux.wait_for(lambda screen: not is_table(screen))
        assert "Traceback" not in tmux.screen()
        check_restored(tmux)


def test_it_can_be_stopped_and_go_on(url: str, tmp_path: Path) -> None:
    """Ctrl-Z gives the shell its terminal; `fg` brings the table back."""
    with shell(tmp_path, 80, 24) as tmux:
        tmux.type(f"{TOP} --url {url}", "Enter")
        tmux.wait_for(is_table)
        tmux.type("C-z")
        tmux.wait_for("Stopped")
        check_restored(tmux)
        tmux.type("fg", "Enter")
        tmux.wait_for(is_table)
        assert tmux.told("#{alternate_on} #{cursor_flag}") == "1 0"
        tmux.type("q")
        tmux.wait_for(lambda screen: not is_table(screen))
        check_restored(tmux)


@pytest.mark.parametrize("no_color", ["", "1"])
def test_no_color_is_obeyed(url: str, tmp_path: Path, no_color: str) -> None:
    """With NO_COLOR there is no colour; names that are sequences do nothing in either case."""
    with shell(tmp_path, 80, 24, **({"NO_COLOR": "1"} if no_color else {})) as tmux:
        tmux.type("printf '\\033]2;mine\\007'", "Enter")
        tmux.type(f"{TOP} --url {url} --filter red", "Enter")
        tmux.wait_for("\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}")
        shown = tmux.screen(colours=True)
        assert bool(re.search(r"\x1b\[[0-9;]*3[1-7]m", shown)) == (not no_color)
        assert tmux.told("#{pane_title}") == "mine"
        assert "\u202e" not in shown
        tmux.type("q")


def test_an_exporter_that_goes_is_told(tmp_path: Path) -> None:
    """What was known stays, with its age; when an exporter is back there, it goes on."""
    _, view = made(3)
    with shell(tmp_path, 80, 24) as tmux:
        with served(view) as url:
            tmux.type(f"{TOP} --url {url}", "Enter")
            tmux.wait_for(is_table)
        tmux.wait_for(lambda screen: "does not answer" in screen and "10.0.0.2:8080" in screen)
        tmux.type("q")
        tmux.wait_for(lambda screen: not is_table(screen))
        tmux.type(f"{TOP} --url {url}", "Enter")
        tmux.wait_for("does not answer")
        tmux.type("q")
        check_restored(tmux)


# ---- once ----


def test_once_prints_all_rows_as_text(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """To a pipe it is plain text: no escape sequence, no name that is one."""
    assert main(["top", "--url", url, "--sort", "p50", "--filter", "port:8080"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "100 % of closed connections have a lifetime; 0 lost"
    assert lines[1].split()[:3] == ["PROXY", "BACKEND", "ENDED/s"]
    assert len(lines) == 32
    assert lines[2].split()[1] == "10.0.0.29:8080"
    assert all(line.isprintable() for line in lines)


def test_json_is_the_answer_of_the_api(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows as objects, sorted and filtered, with names as they are."""
    assert main(["top", "--url", url, "--json", "--filter", "red", "--window", "start"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["window"], found["rows"]) == (1, "start", 7)
    assert {row["proxy"] for row in found["backends"]} == {HOSTILE}
    assert found["backends"][0].keys() >= {"target", "p99", "change"}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--url", "http://127.0.0.1:9"], "http://127.0.0.1:9 does not answer"),
        (["--url", "x://y"], "is not the URL of an exporter"),
        (["--url", "{url}", "--comm", "nginx"], "--url is an exporter's"),
        (["--url", "{url}", "--sort", "nothing"], "'nothing' is not one of proxy, target"),
        (["--url", "{url}", "--window", "5"], "window '5' must be one of 60, 300, 900, start"),
        (["--url", "{url}", "--filter", "ip:x"], "ip:x: say it like ip:10.0.0.7"),
        ([], "say where events come from"),
    ],
)
def test_a_mistake_is_one_line(
    url: str, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what is wrong."""
    given = [each.format(url=url) for each in argv]
    try:
        code = main(["top", "--once", *given])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    told = capsys.readouterr().err
    assert code in (1, 2)
    assert said in told
    assert told.count("\n") == 1


def test_a_missing_library_is_named(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to install."""
    for name in [each for each in sys.modules if each.startswith("lblatency.top.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich.cells", None)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert main(["top", "--url", url, "--once"]) == 1
    told = capsys.readouterr().err
    assert re.fullmatch(
        r"lblatency: top needs rich\.\w+, .* pip install 'lblatency\[top\]'\n", told
    )


def test_a_source_is_shown_as_an_exporter_is(tmp_path: Path) -> None:
    """`top` opens sources itself, and takes samples until there is something to compare."""
    command = [sys.executable, "-m", "tests.support.fake_source", "top", "--fake", "a"]
    done = subprocess.run(
        [*command, "--count", "3", "--proxy", "web", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = json.loads(done.stdout)
    assert [row["target"] for row in found["backends"]] == [f"10.0.0.{i}:80" for i in (1, 2, 3)]
    assert {row["proxy"] for row in found["backends"]} == {"web"}
    with shell(tmp_path, 80, 24) as tmux:
        tmux.type(" ".join([*command, "--count 3 --proxy web"]), "Enter")
        tmux.wait_for(lambda screen: is_table(screen) and "3 backends" in screen)
        tmux.type("C-c")
        check_restored(tmux)


# ---- parts ----


def row(**fields: Any) -> dict[str, Any]:
    """A row of the table."""
    return {
        "proxy": "web",
        "target": "10.0.0.1:80",
        "server": "be/s1",
        "closed_per_s": 1500,
        "p50": None,
        "p99": 0.25,
        "change": 0.4,
        "resets": 0,
        "failed_connects": 2,
        **fields,
    }


@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        ("", True),
        ("web", True),
        ("WEB 10.0", True),
        ("api", False),
        ("proxy:we", True),
        ("proxy:10", False),
        ("ip:10.0.0.1", True),
        ("ip:10.0.0.0/24", True),
        ("ip:10.0.1.0/24", False),
        ("ip:::/0", False),
        ("port:80", True),
        ("port:0", False),
        ("port:8", False),
        ("server:S1", True),
        ("reason:rst", False),
        ("reason:failed", True),
        ("-reason:reset", True),
        ("-web", False),
        ("p99>100ms", True),
        ("p99>=0.25 p99<=250ms", True),
        ("p99<.25s", False),
        ("P99>1min", False),
        ("p50>0", False),
        ("-p50>0", True),
        ("p50<1h", False),
        ("rate>1k", True),
        ("change>10%", True),
        ("change>50%", False),
        ("failed>1", True),
        ('"be/s1"', True),
        ('"be/s1', True),
        ('"be s1"', False),
        ("proxy: ip:", True),
        ("-", True),
        ("10.0.0.1:8", True),
        ("x:y", False),
        ("Proxy:WEB", True),
        ("ip:[10.0.0.1]", True),
        ("proxy:web reason:rst", False),
        ("10.0.0.1:80", True),
    ],
)
def test_terms(text: str, is_taken: bool) -> None:
    """Each kind of term; all must hold."""
    assert parse_terms(text)(row()) is is_taken


@pytest.mark.parametrize(
    "term",
    ["ip:10.0.0", "ip:10.0.0.0/33", "ip:1::2::3", "reason:fun", "p99>fast", "p99>1.2.3ms", "x>3"],
)
def test_a_wrong_term_says_how_it_is_said(term: str) -> None:
    """Each of its kind, beside what is right."""
    with pytest.raises(ValueError, match=f"^{re.escape(term)}: (say it like|the reasons are)"):
        parse_terms(f"web {term}")


def test_terms_of_strange_rows() -> None:
    """Rows without a server or an address are no error."""
    overflow = row(target="overflow:0", server=None)
    assert not parse_terms("ip:0.0.0.0/0")(overflow)
    assert not parse_terms("server:x")(overflow)
    assert parse_terms("ip:fd00::/8 port:443")(row(target="[fd00::1]:443"))


def test_every_column_sorts() -> None:
    """Numbers from the largest on, words from the first on; what is not known comes last."""
    _, view = made(12)
    table = view.backends(60)
    for each in COLUMNS:
        if each.name not in table["columns"]:
            continue
        for is_reversed in (False, True):
            rows = chosen_rows(table, each, is_reversed=is_reversed)
            values = [found[each.name] for found in rows]
            known = [value for value in values if value is not None]
            assert values[len(known) :] == [None] * (12 - len(known))
            assert known == sorted(known, reverse=each.is_text == is_reversed)


def test_columns_leave_in_order() -> None:
    """However narrow the terminal, what is shown fits, and no column comes back."""
    table: dict[str, Any] = {"columns": {each.name: [] for each in COLUMNS}, "proxies": [LONG]}
    before = {each.name for each in COLUMNS}
    for width in range(200, 0, -1):
        shown = fitting(table, width)
        names = {each.name for each in shown}
        assert names <= before
        assert sum(each.width + 1 for each in shown) - 1 <= width or len(shown) == 1
        before = names


@pytest.mark.parametrize(("width", "proxy", "target"), [(78, 12, 21), (81, 15, 21), (200, 48, 43)])
def test_names_get_the_width_that_is_left(width: int, proxy: int, target: int) -> None:
    """As much as the longest of them needs."""
    _, view = made(8)
    table = view.backends(60)
    table["proxies"][0] = LONG
    table["columns"]["target"][0] = "[fd00:1111:2222:3333:4444:5555:6666:7]:8080"
    shown = {each.name: each.width for each in fitting(table, width)}
    assert (shown["proxy"], shown["target"]) == (proxy, target)


def test_long_and_wide_names_break_no_layout() -> None:
    """Every line has the width of the terminal at most, whatever the names are."""
    _, view = made(8)
    table = view.backends(60)
    table["proxies"] = [LONG, HOSTILE, "データ" * 9, "e\u0301" * 30]
    table["columns"]["server"] = [LONG, None, HOSTILE, "表" * 50] * 2
    seen = Seen(view.status(), table)
    for width in (20, 80, 200):
        for line in table_lines(State(LONG), seen, width, 24):
            assert cell_len(line.plain) <= width
            assert line.plain.isprintable()


def test_keys_are_decoded_however_they_come() -> None:
    """Sequences, characters of several bytes, and bytes that are none."""
    keys = Keys()
    assert list(keys.feed("\x1b[Aä\x1bOB\r\x7f/\x1b".encode())) == [
        "up", "ä", "down", "enter", "backspace", "/", "escape",
    ]  # fmt: skip
    assert list(keys.feed(b"\xc3")) == []
    assert list(keys.feed(b"\xa4\x00\xff\x1b[200~\x1b[1;5D")) == ["ä", "\N{REPLACEMENT CHARACTER}"]


def series(*pairs: tuple[float | None, int]) -> dict[str, Any]:
    """A distribution as the API has it."""
    names = ("p50", "p90", "p95", "p99", "p999")
    return {
        "upper": [upper for upper, _ in pairs],
        "counts": [count for _, count in pairs],
        "count": sum(count for _, count in pairs),
        **dict.fromkeys(names, pairs[0][0] if pairs else None),
    }


@pytest.mark.parametrize("most", [2, 3, 5, 20, 100])
def test_bars_have_all_counts(most: int) -> None:
    """As many lines as may be, at most, and nothing is left out."""
    one, two = series((1e-6, 1), (0.01, 5), (1.0, 4)), series((0.01, 7), (2.0**24, 1), (None, 2))
    found = bars([one, two], most)
    assert len(found) <= most
    assert [sum(each.counts[i] for each in found) for i in (0, 1)] == [10, 10]
    assert [sum(each.shares[i] for each in found) for i in (0, 1)] == pytest.approx([1, 1])
    assert [each.flags for each in found if each.flags] == [["p50", "p90", "p95", "p99", "p999"]]


def test_bars_of_nothing() -> None:
    """Without observations or room there are none; a bar is as long as its share."""
    assert bars([series()], 20) == []
    assert bars([series((1.0, 1))], 1) == []
    assert [bar(share, 4) for share in (0, 1e-9, 0.5, 0.53, 1)] == ["", "▏", "██", "██▏", "████"]


def test_the_first_answer_is_waited_for() -> None:
    """Before it, the screen says so, or what is wrong."""
    assert "waiting" in table_lines(State("x"), Seen(), 80, 24)[1].plain
    assert table_lines(State("x"), Seen(error="it is away"), 80, 24)[2].plain == "it is away"
    assert column("p50").cell(None) == "-"
