"""Compile BPF programs of the tests as our own are compiled."""

from __future__ import annotations

import shutil
from pathlib import Path

from csrc.build_bpf import compile_bpf

COMPILERS = [name for name in ("clang", "clang-19") if shutil.which(name)]
_SOURCES = Path(__file__).parents[1] / "bpf"


def compiled(name: str, folder: Path, *options: str, compiler: str = "clang") -> Path:
    """Compile tests/bpf/`name`.bpf.c into `folder`; returns the object file."""
    out = folder / f"{name}.o"
    compile_bpf(_SOURCES / f"{name}.bpf.c", out, *options, compiler=compiler)
    return out
