"""The file of names: its forms, its changes, and each mistake with its line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lblatency.errors import LatencyError
from lblatency.names import FileSd, Name, Row, file_sd
from tests.support.names import soon


def read_file(path: Path, text: str | bytes) -> list[Row]:
    """The rows of a file with this text."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(FileSd(str(path)).read(soon()))


GROUPS = [
    {"targets": ["10.0.0.1:80", "[2001:db8::1]:80"], "labels": {"backend": "web"}},
    {"targets": [], "labels": {"backend": "none", "job": "x"}},
    {
        "targets": ["[::ffff:10.0.0.2]:80"],
        "labels": {"backend": "web", "server": "blue", "source": "127.0.0.21"},
    },
]
FILE_ROWS = [
    Row("10.0.0.1", 80, Name("web", "10.0.0.1:80")),
    Row("2001:db8::1", 80, Name("web", "[2001:db8::1]:80")),
    Row("10.0.0.2", 80, Name("web", "blue"), "127.0.0.21"),
]
YAML = """\
# names
- targets: ["10.0.0.1:80", "[2001:db8::1]:80"]
  labels: {backend: &web web}
- {targets: [], labels: {backend: none, job: x}}
- targets:
  - "[::ffff:10.0.0.2]:80"
  labels:
    backend: *web
    server: blue
    source: 127.0.0.21
"""


def test_the_file_of_names(tmp_path: Path) -> None:
    """JSON and YAML in the form of file_sd give the same rows."""
    assert read_file(tmp_path / "a.json", json.dumps(GROUPS)) == FILE_ROWS
    assert read_file(tmp_path / "b.names", json.dumps(GROUPS, indent=8)) == FILE_ROWS
    assert read_file(tmp_path / "c.yml", YAML) == FILE_ROWS
    assert read_file(tmp_path / "d.yaml", json.dumps(GROUPS)) == FILE_ROWS
    assert read_file(tmp_path / "e.json", "\ufeff [ ] \r\n") == []
    assert read_file(tmp_path / "f.yaml", "[]") == []
    (row,) = read_file(
        tmp_path / "g.yml", "- targets: ['[::1]:1']\n  labels: {backend: on, server: 1}"
    )
    assert row.name == Name("on", "1")


GOOD = '{"targets": ["10.0.0.1:80"], "labels": {"backend": "a"}}'


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "line 1: expected \\["),
        ("\n\n{}", "line 3: expected \\["),
        ("[", "line 1: Expecting value"),
        (f"[\n{GOOD}\n", "line 3: expected , or \\]"),
        (f"[\n{GOOD},\n", "line 3: Expecting value"),
        (f"[\n{GOOD},\n]", "line 3: Expecting value"),
        (f"[\n{GOOD}\n]\n]", "line 4: expected the end of the file"),
        (f"[{GOOD}]\n\n[{GOOD}]", "line 3: expected the end of the file"),
        ("[]\n x", "line 2: expected the end of the file"),
        ("[5]", "line 1: a group is"),
        ("[" + "[]," * 2_000_000 + "[]]", "more than 1048576 values"),
        ("[\n" + "9" * 5000 + "]", "line 2: a number is too long"),
        ("[\n[[" + "[" * 100_000, "nested too deeply"),
        ('[\n\n{"targets": "10.0.0.1:80", "labels": {"backend": "a"}}]', "line 3: a group is"),
        ('[\n{"targets": []}]', 'line 2: the group has no label "backend"'),
        ('[\n{"targets": [], "labels": {"backend": ""}}]', "line 2: the group has no label"),
        ('[\n{"targets": [], "labels": []}]', "line 2: the group has no label"),
        ('[\n{"targets": [], "labels": {"backend": 5}}]', "line 2: the label 'backend' is"),
        (f'[\n{GOOD},\n{{"targets": ["app:80"], "labels": {{"backend": "a"}}}}]', "line 3: 'app'"),
        ('[{"targets": ["10.0.0.1"], "labels": {"backend": "a"}}]', "line 1: '10.0.0.1' has no"),
        ('[{"targets": ["10.0.0.1:99999"], "labels": {"backend": "a"}}]', "line 1: .*not 0 to"),
        ('[{"targets": [5], "labels": {"backend": "a"}}]', "line 1: the target 5 is not text"),
        ('[{"targets": ["10.0.0.1:1"], "labels": {"backend": "a", "source": "x"}}]', "line 1: 'x'"),
        (b"[\n\xff", "line 2: it is not UTF-8"),
        ('[\n{"targets": ["\x1b[2J:80"], "labels": {"backend": "a"}}]', "line 2: Invalid control"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_explained(tmp_path: Path, text: str | bytes, error: str) -> None:
    """Each mistake is one line that has the file's line."""
    with pytest.raises(LatencyError, match=error):
        read_file(tmp_path / "names.json", text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "line 1: expected a list"),
        ("a: b", "line 1: expected a list"),
        ("- targets: [\n", "line 2: "),
        ("\n- a: b\n\tc: d", "line 3: found a tab"),
        ("- targets: []\n  labels: {backend: }", 'line 1: the group has no label "backend"'),
        ("- targets: []\n  labels: {backend: []}", 'line 1: the group has no label "backend"'),
        ("- targets: []\n  labels: {backend: [a]}", "line 1: the label 'backend' is not text"),
        ("\n- targets: [{}]\n  labels: {backend: a}", "line 2: the target {} is not text"),
        ("- !!python/object/apply:os.system [ls]", "line 1: a group is"),
        ("- {[]: 1}", "line 1: found unhashable key"),
        ("- &a [*a]", "line 1: "),
        ("- {" * 100_000, "."),
        ("# " + "x" * (1 << 20), "YAML has more than 1 MiB"),
        ("- \x1b[2J", "line 1: "),
    ],
)
def test_wrong_yaml_is_explained(tmp_path: Path, text: str, error: str) -> None:
    """The same in YAML."""
    with pytest.raises(LatencyError, match=error):
        read_file(tmp_path / "names.yaml", text)


def test_what_is_no_file(tmp_path: Path) -> None:
    """Nothing waits for a pipe or reads a device; too large a file is not read."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises((LatencyError, OSError), match=r"not a regular file|Is a directory"):
            FileSd(str(place)).read(soon())
    with pytest.raises(OSError, match="No such file"):
        FileSd(str(tmp_path / "none")).read(soon())
    with pytest.raises(LatencyError, match="it has more than 16 MiB"):
        read_file(tmp_path / "large", b" " * (17 << 20))


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    """Written in place or replaced, broken and mended; an unchanged one is not parsed again."""
    path = tmp_path / "names.json"
    reader = FileSd(str(path))
    path.write_text(f"[{GOOD}]")
    first = reader.read(soon())
    assert reader.read(soon()) is first
    path.write_text("[\n5]")
    for _ in range(2):
        with pytest.raises(LatencyError, match="line 2: a group is"):
            reader.read(soon())
    other = tmp_path / "new"
    other.write_text(json.dumps(GROUPS))
    other.replace(path)
    assert reader.read(soon()) == FILE_ROWS


def test_a_change_may_leave_size_or_time_alone(tmp_path: Path) -> None:
    """One in place has another time, one that replaces the file has another inode."""
    path, other = tmp_path / "names.json", tmp_path / "new"
    reader = FileSd(str(path))

    def write(place: Path, backend: str, second: int) -> None:
        place.write_text(GOOD.replace('"a"', f'"{backend}"').join("[]"))
        os.utime(place, (second, second))

    def backend() -> str:
        (row,) = reader.read(soon())
        return row.name.backend

    write(path, "a", 1)
    assert backend() == "a"
    write(path, "b", 2)
    assert backend() == "b"
    write(other, "c", 2)
    other.replace(path)
    assert backend() == "c"


MARKS = [
    "[", "]", "{", "}", ",", ":", '"', '"targets"', '"labels"', '"backend":"a"', '"10.0.0.1:80"',
    "- ", "\n", "&a ", "*a", "<<: ", "? ", "!!set ", "!!int ", "null", "1",
    "2026-13-01", "\\ud800", "\x1b",
]  # fmt: skip


@given(
    st.one_of(
        st.binary(), st.lists(st.sampled_from(MARKS)).map(lambda each: "".join(each).encode())
    )
)
def test_any_file_is_read_or_refused(data: bytes) -> None:
    """Whatever is in it, as JSON or as YAML."""
    for name in ("x.json", "x.yml"):
        assert isinstance(FileSd(name)._parsed(data), (list, LatencyError))


@given(st.data())
def test_the_lines_of_groups_are_right(data: Any) -> None:
    """However a file is laid out, its groups are those that `json` finds, each with its line."""
    groups = data.draw(st.lists(st.dictionaries(st.text(), st.lists(st.text()))))
    spaces = st.text(alphabet=" \t\r\n")
    text, lines = data.draw(spaces) + "[", []
    for i, group in enumerate(groups):
        text += "," * (i > 0) + data.draw(spaces)
        lines.append(text.count("\n") + 1)
        text += json.dumps(group, indent=data.draw(st.sampled_from([None, 1]))) + data.draw(spaces)
    text += data.draw(spaces) + "]" + data.draw(spaces)
    assert list(file_sd._json_groups(text)) == list(zip(lines, json.loads(text), strict=True))
