"""The sdist, the wheel that is built from it, and the wheel in a clean environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from lblatency import _native, _observe

ROOT = Path(__file__).parent.parent
PACKAGES = ("commands", "demo", "exporter", "sources")
PAGE = ("index.html", "app.js", "style.css", "uplot/uPlot.iife.min.js", "uplot/LICENSE")
SMOKE = """
import lblatency, sys
lblatency.record_latency("web", "[2001:db8::1]:443", 3600.0)
assert lblatency.get_percentiles("web", "[2001:db8::1]:443")["count"] == 1
assert "site-packages" in lblatency.__file__, lblatency.__file__
assert "prometheus_client" not in sys.modules
"""


def run(*command: str | Path, **env: str) -> str:
    """Run a command; if it fails, fail with its output."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", out, ROOT)
    return out


def test_sdist_has_the_sources_and_nothing_generated(built: Path) -> None:
    """The sdist has the C and BPF sources, but no skeletons and objects."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"csrc/build_native.py", "csrc/track/tracker.h", "bpf/nat_lb.bpf.c", "LICENSE"} <= names
    assert not [name for name in names if name.endswith((".so", ".o", ".skel.h"))]
    assert not [name for name in names if name.startswith(("tests/", "csrc/tests/", "benchmarks/"))]


def test_wheel_is_abi3_and_typed(built: Path) -> None:
    """One wheel works with all CPythons from 3.11 on, and has the types."""
    (wheel,) = built.glob("*.whl")
    assert "-cp311-abi3-linux_" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert {"lblatency/_native.abi3.so", "lblatency/_observe.abi3.so"} <= set(names)
    assert {"lblatency/py.typed", "lblatency/_observe.pyi"} <= set(names)
    assert {f"lblatency/{folder}/__init__.py" for folder in PACKAGES} <= set(names)
    assert {f"lblatency/exporter/page/{name}" for name in PAGE} <= set(names)
    assert not [name for name in names if name.startswith(("csrc/", "tests/", "bpf/"))]


def test_wheel_works_in_a_clean_environment(built: Path, tmp_path: Path) -> None:
    """The installed wheel records, and its command answers."""
    (wheel,) = built.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel)
    run(python, "-I", "-c", SMOKE)
    assert run(tmp_path / "venv/bin/lblatency", "--version").startswith("lblatency 0.")


@pytest.mark.parametrize("module", [_native, _observe])
def test_extensions_export_nothing_but_their_start(module: ModuleType) -> None:
    """The extensions export one symbol each, so no C name can clash with another library's."""
    assert module.__file__ is not None
    exported = run("nm", "-D", "--defined-only", "--format=just-symbols", module.__file__)
    assert exported.split() == [f"PyInit_{module.__name__.rpartition('.')[2]}"]


TOOLS = {"clang": "clang", "llvm-strip": "llvm", "pkg-config": "pkg-config", "gcc": "gcc"}


def build_ext(out: Path, **env: str) -> str:
    """Build the extensions, which must fail; returns what it says."""
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--force", "--build-lib", out / "lib",
         "--build-temp", out / "temp"],
        cwd=ROOT, env={**os.environ, "CC": "gcc", **env}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize("missing", [*([tool] for tool in TOOLS), [*TOOLS]])
def test_all_missing_tools_are_named_at_once(missing: list[str], tmp_path: Path) -> None:
    """The build stops and names them and their packages, and no tool that is there.

    bpftool is found in /usr/sbin by those who do not have that in PATH.
    """
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS.keys() - missing:
        (tools / tool).symlink_to(shutil.which(tool) or "")
    *_, needed, advice = build_ext(tmp_path, PATH=str(tools)).splitlines()
    named = needed.partition("not found: ")[2].split(", ")
    assert sorted(named) == sorted(missing)
    assert advice.split()[4:] == [TOOLS[tool] for tool in named]


def test_packages_that_are_missing_are_named_at_once(tmp_path: Path) -> None:
    """`make test` by an ordinary user names what building and testing need, in one line."""
    for name, text in {
        "dpkg-query": 'case "$4" in clang | nftables) exit 1 ;; esac; echo "install ok installed"',
        "id": "echo 1000",
        "apt-get": "exit 9",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["make", "-C", ROOT, "test", f"VENV={tmp_path / 'venv'}"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "missing packages: clang nftables\n" in done.stderr


def test_a_too_old_libbpf_is_named(tmp_path: Path) -> None:
    """The build stops and names the version that it needs and the one that it found."""
    (tmp_path / "libbpf.pc").write_text("Name: libbpf\nDescription: old\nVersion: 0.8.1\n")
    said = build_ext(tmp_path, PKG_CONFIG_PATH=str(tmp_path))
    assert "not found: libbpf >= 1.0 with its headers (found 0.8.1)\n" in said
    assert "apt-get install libbpf-dev" in said
