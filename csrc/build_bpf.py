"""Compile bpf/*.bpf.c and turn each into a skeleton header: csrc/demo/<name>.skel.h."""

import platform
import subprocess
from pathlib import Path

INCLUDE = Path(__file__).resolve().parent.parent / "bpf" / "include"


def compile_bpf(source: Path, compiled: Path, *options: str, compiler: str = "clang") -> None:
    """Make an object file of one BPF program."""
    subprocess.run(
        [
            compiler, "-g", "-O2", "-Wall", "-Wextra", "-Werror", "-target", "bpf", "-mcpu=v3",
            f"-I{INCLUDE}", f"-I/usr/include/{platform.machine()}-linux-gnu", *options,
            "-c", str(source), "-o", str(compiled),
        ],
        check=True,
    )  # fmt: skip


def build(bpf: Path, skeletons: Path) -> None:
    """Write the skeletons that are older than their sources. Needs clang, llvm-strip, bpftool."""
    newest_header = max(header.stat().st_mtime for header in bpf.glob("**/*.h"))
    for source in sorted(bpf.glob("*.bpf.c")):
        name = source.name.removesuffix(".bpf.c")
        skeleton = skeletons / f"{name}.skel.h"
        if skeleton.exists() and skeleton.stat().st_mtime > max(
            source.stat().st_mtime, newest_header
        ):
            continue
        compiled = skeleton.with_suffix(".o")
        compile_bpf(source, compiled)
        subprocess.run(["llvm-strip", "-g", str(compiled)], check=True)
        generated = subprocess.run(
            ["bpftool", "gen", "skeleton", str(compiled), "name", name],
            check=True,
            capture_output=True,
        )
        # Warnings about generated code are nobody's to mend.
        skeleton.write_bytes(b"#pragma GCC system_header\n" + generated.stdout)
        compiled.unlink()
