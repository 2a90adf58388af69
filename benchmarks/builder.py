"""Build the benchmarks' programs into benchmarks/build/, if they are older than their sources."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"

_COMMANDS = {
    "cpp": [
        "g++", "-O2", "-std=c++17", "-Wall", "-Wextra", "-o", "build/agent_cpp",
        "contenders/peers/agent.cpp", "-lbpf", "-lprometheus-cpp-core",
    ],
    "go": ["go", "build", "-o", "build/agent_go", "contenders/peers/agent.go"],
}  # fmt: skip
_PACKAGES = {
    "cpp": "g++ libbpf-dev prometheus-cpp-dev",
    "go": "golang-go golang-github-cilium-ebpf-dev golang-github-prometheus-client-golang-dev",
}
_GO = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(BUILD / "go-cache")}


class MissingError(Exception):
    """A peer cannot be built here; the text says what to install."""


def _is_newer(target: Path, sources: list[Path]) -> bool:
    if not target.exists():
        return False
    return target.stat().st_mtime > max(source.stat().st_mtime for source in sources)


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.name.split(".")[0], path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module


def native() -> ModuleType:
    """Build and import the benchmarks' own C."""
    BUILD.mkdir(exist_ok=True)
    builder = HERE / "csrc" / "build_bench.py"
    sources = [
        *HERE.glob("bpf/*"),
        *HERE.glob("csrc/*.[ch]"),
        builder,
        *HERE.glob("../bpf/include/*.h"),
    ]
    sources = [source for source in sources if not source.name.endswith(".skel.h")]
    built = sorted(BUILD.glob("_bench.*.so"))
    if not built or not _is_newer(built[0], sources):
        subprocess.run([sys.executable, builder, BUILD], check=True, stdout=subprocess.DEVNULL)
        built = sorted(BUILD.glob("_bench.*.so"))
    return _load(built[0])


def peer(name: str) -> Path:
    """Build the agent in "cpp" or "go"; `MissingError` if its packages are missing."""
    BUILD.mkdir(exist_ok=True)
    target = BUILD / f"agent_{name}"
    if not _is_newer(target, [HERE / "contenders" / "peers" / f"agent.{name}"]):
        env = os.environ | (_GO if name == "go" else {})
        try:
            subprocess.run(_COMMANDS[name], cwd=HERE, env=env, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise MissingError(f"needs apt-get install {_PACKAGES[name]}") from error
    return target
