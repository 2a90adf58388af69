"""BPF programs of the tests, compiled as our own are."""

from __future__ import annotations

import shutil
from pathlib import Path

from csrc.build_bpf import compile_bpf

COMPILERS = [name for name in ("clang", "clang-19") if shutil.which(name)]
_SOURCES = Path(__file__).parents[1] / "bpf"


def compiled(name: str, folder: Path, *options: str, compiler: str = "clang") -> Path:
    """The object file, in `folder`, of tests/bpf/`name`.bpf.c."""
    out = folder / f"{name}.o"
    compile_bpf(_SOURCES / f"{name}.bpf.c", out, *options, compiler=compiler)
    return out
