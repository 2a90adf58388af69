"""The one-way rule: code knows what lies below it, never what lies above or beside it.

ARCHITECTURE.md says why, and draws the floors that are listed here.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
Edges = Mapping[str, set[str]]

# Each line may use all lines above it. The rooms of one line may not use each other.
C_FLOORS = (
    {"base"},
    {"kernel", "event", "hist"},
    {"stream"},
    {"record", "source"},
    {"track"},
    {"render"},
    {"python"},
)
C_NARROWER = {"demo": {"base", "kernel"}}  # may use less than all that lies below
PYTHON_FLOORS = (
    {
        "_native",
        "_observe",
        "_version",
        "_address",
        "_closing",
        "_numbers",
        "_room",
        "_rules",
        "_signals",
        "errors",
    },
    {"_ffi"},
    {"_layout", "_maps", "_plot", "_privileges", "_proxies", "names"},
    {"event", "buckets"},
    {"_portable"},
    {"histogram"},
    {"stats", "conntrack", "backend", "families"},
    {"_status"},
    {"tracker"},
    {"sources", "_default", "formats", "_given"},
    {"_known", "_page"},
    {"collector", "check", "render", "history"},
    {"exporter"},
    {"demo", "report", "top"},
    {"commands"},
    {"cli"},
    {"__main__"},
    {"__init__"},
)


def allowed(floors: tuple[set[str], ...], narrower: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The rooms that each room may use."""
    may: dict[str, set[str]] = {}
    below: set[str] = set()
    for floor in floors:
        may |= {room: set(below) for room in floor}
        below |= floor
    return may | {room: set(rooms) for room, rooms in narrower.items()}


C_MAY = allowed(C_FLOORS, C_NARROWER)
PYTHON_MAY = allowed(PYTHON_FLOORS, {})


def c_sources() -> dict[str, str]:
    """`folder/file` to text, of all that is built into the extensions."""
    csrc = ROOT / "csrc"
    return {
        path.relative_to(csrc).as_posix(): path.read_text()
        for path in sorted(csrc.glob("*/*.[ch]"))
        if path.parent.name != "tests" and not path.name.endswith(".skel.h")
    }


def _c_target(name: str, include: str, names: Collection[str]) -> str | None:
    """The file of ours that an include means, as a compiler finds it; None for the BPF headers."""
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(name), include))
    if beside in names or include.startswith("."):
        return None if beside.startswith("..") else beside
    return include if "/" in include else None


def c_includes(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Each file to the files of ours that it includes."""
    return {
        name: {
            target
            for include in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.MULTILINE)
            if (target := _c_target(name, include, sources))
        }
        for name, text in sources.items()
    }


def c_violations(includes: Edges) -> list[str]:
    """A sentence for each include that goes up or sideways."""
    found = []
    for name, included in includes.items():
        room = name.split("/")[0]
        if room not in C_MAY:
            found.append(f"csrc/{name}: folder {room} has no floor in test_layers.py")
            continue
        for each in sorted(included):
            other = each.split("/")[0]
            if other not in C_MAY[room] | {room}:
                may = ", ".join(sorted(C_MAY[room])) or "nothing"
                found.append(f"csrc/{name} includes {each}: {room}/ may use {may}, not {other}/")
            elif each == "stream/queue.h" and room == "stream" and name != "stream/queue.c":
                found.append(f"csrc/{name} includes {each}: stream/ knows sinks by sink.h alone")
    return found


def stems(includes: Edges) -> dict[str, set[str]]:
    """The same edges, with a .c and its .h as one node."""
    merged: dict[str, set[str]] = {}
    for name, included in includes.items():
        stem = str(PurePosixPath(name).with_suffix(""))
        merged.setdefault(stem, set()).update(
            str(PurePosixPath(each).with_suffix("")) for each in included
        )
        merged[stem].discard(stem)
    return merged


def cycle(edges: Edges) -> str | None:
    """One cycle as a sentence; None if there is none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return "these use each other in a ring: " + " <- ".join(error.args[1])
    return None


def python_sources() -> dict[str, str]:
    """Module (`demo.run`; a package by its own name) to text."""
    package = ROOT / "lblatency"
    return {
        ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path.read_text()
        for path in sorted(package.rglob("*.py"))
    }


def _imported(module: str, is_package: bool, node: ast.AST, modules: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [each.name for each in node.names]
        yield from (
            name.removeprefix("lblatency").removeprefix(".") or "__init__"
            for name in names
            if name.split(".")[0] == "lblatency"
        )
    elif isinstance(node, ast.ImportFrom):
        here = [] if module == "__init__" else module.split(".")
        if node.level:
            up = node.level - (1 if is_package else 0)
            base = here[: len(here) - up] if up else here
        elif (node.module or "").split(".")[0] == "lblatency":
            base = []
        else:
            return
        base = base + [
            part for part in (node.module or "").split(".") if part not in ("", "lblatency")
        ]
        for each in node.names:
            whole = ".".join([*base, each.name])
            yield whole if whole in modules else ".".join(base) or "__init__"


def python_imports(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Each module to the modules of ours that it imports, wherever in the file it does so."""
    modules = set(sources) | {"_native", "_observe"}
    packages = {name.rpartition(".")[0] for name in sources} | {"__init__"}
    return {
        module: {
            imported
            for node in ast.walk(ast.parse(text))
            for imported in _imported(module, module in packages, node, modules)
            if imported != module
        }
        for module, text in sources.items()
    }


def python_violations(imports: Edges) -> list[str]:
    """A sentence for each import that goes up or sideways."""
    found = []
    for module, imported in imports.items():
        room = module.split(".")[0]
        if room not in PYTHON_MAY:
            found.append(f"lblatency.{module}: {room} has no floor in test_layers.py")
            continue
        for each in sorted(imported):
            other = each.split(".")[0]
            if other not in PYTHON_MAY[room] | {room}:
                found.append(f"lblatency.{module} imports {each}, which does not lie below {room}")
            elif other == "_native" and module != "_ffi":
                found.append(f"lblatency.{module} imports _native, which only _ffi may")
    return found


def report(violations: list[str]) -> str:
    """Print each sentence on a line."""
    return "\n".join(["", *violations])


def test_c_includes_go_down() -> None:
    """No C file includes a header of a floor above it, or of a folder beside it."""
    violations = c_violations(c_includes(c_sources()))
    assert not violations, report(violations)


def test_c_files_have_no_cycle() -> None:
    """No file includes itself through others; a .c and its .h count as one."""
    found = cycle(stems(c_includes(c_sources())))
    assert found is None, found


def test_python_imports_go_down() -> None:
    """No module imports from a floor above or beside it, except within its package."""
    violations = python_violations(python_imports(python_sources()))
    assert not violations, report(violations)


def test_python_modules_have_no_cycle() -> None:
    """No module imports itself through others, not even in a function or for types alone."""
    found = cycle(python_imports(python_sources()))
    assert found is None, found


@pytest.mark.parametrize(
    ("name", "include", "sentence"),
    [
        ("base/util.h", "hist/buckets.h", "base/ may use nothing, not hist/"),
        ("hist/read.c", "event/event.h", "hist/ may use base, not event/"),
        ("stream/drain.c", "record/shard.h", "stream/ may use base, event, hist, kernel"),
        ("stream/drain.h", "../record/shard.h", "not record/"),
        ("stream/drain.h", "queue.h", "stream/ knows sinks by sink.h alone"),
        ("stream/drain.h", "stream/queue.h", "stream/ knows sinks by sink.h alone"),
        ("record/shard.c", "source/conntrack.h", "not source/"),
        ("source/conntrack.c", "record/births.h", "not record/"),
        ("demo/nat_lb.c", "event/event.h", "demo/ may use base, kernel, not event/"),
        ("track/tracker.c", "demo/nat_lb.h", "not demo/"),
        ("attic/old.c", "base/util.h", "folder attic has no floor"),
    ],
)
def test_a_forbidden_include_is_found(name: str, include: str, sentence: str) -> None:
    """Each include upwards or sideways gives a sentence that says what is allowed."""
    sources = {"stream/queue.h": "", name: f'\n#include "{include}"\n'}
    (violation,) = c_violations(c_includes(sources))
    assert violation.startswith(f"csrc/{name}")
    assert sentence in violation


def test_allowed_includes_are_not_found() -> None:
    """Includes downwards, within a folder, of the ABI and of the system are allowed."""
    always = '#include <errno.h>\n#include "lbl_abi.h"\n#include "../../bpf/nat_lb.h"\n'
    text = always + '#include "base/util.h"\n#include "{}"\n'
    for name, own in (("stream/queue.c", "stream/queue.h"), ("track/tracker.c", "record/shard.h")):
        assert not c_violations(c_includes({name: text.format(own)}))


@pytest.mark.parametrize(
    ("module", "statement", "sentence"),
    [
        ("stats", "from .tracker import LatencyTracker", "imports tracker, which does not lie"),
        ("stats", "from . import conntrack", "imports conntrack"),
        ("stats", "import lblatency.cli", "imports cli"),
        ("stats", "import lblatency", "imports __init__"),
        ("stats", "from lblatency.demo import run", "imports demo.run"),
        ("stats", "from ._native import lib", "imports _native, which only _ffi may"),
        ("sources.ring", "from ..collector import LatencyCollector", "imports collector"),
        ("demo", "from ..commands import serve", "imports commands"),
        ("demo.run", "def f():\n    from .. import cli", "imports cli"),
        ("attic", "import os", "attic has no floor"),
    ],
)
def test_a_forbidden_import_is_found(module: str, statement: str, sentence: str) -> None:
    """A forbidden import is found in any form, anywhere in the file."""
    others = (
        "__init__",
        "cli",
        "collector",
        "commands",
        "conntrack",
        "demo",
        "demo.run",
        "tracker",
    )
    sources = dict.fromkeys(others, "") | {module: statement}
    (violation,) = python_violations(python_imports(sources))
    assert violation.startswith(f"lblatency.{module}")
    assert sentence in violation


def test_a_cycle_is_found() -> None:
    """A cycle is found, also one that goes through a header and its source."""
    files = {
        "record/a.c": '#include "record/a.h"\n#include "record/b.h"\n',
        "record/b.c": '#include "record/b.h"\n#include "record/a.h"\n',
    }
    assert "record/a" in (cycle(stems(c_includes(files))) or "")
    modules = {"demo.a": "from .b import x", "demo.b": "from . import a"}
    assert "demo.a" in (cycle(python_imports(modules)) or "")
    assert cycle(stems(c_includes({"base/a.c": '#include "base/a.h"\n', "base/a.h": ""}))) is None
