"""Compile bpf/*.bpf.c and turn each into a skeleton header beside its loader, csrc/*/<name>.c."""

import functools
import os
import subprocess
from pathlib import Path

INCLUDE = Path(__file__).resolve().parent.parent / "bpf" / "include"
FLAGS = ("-g", "-O2", "-Wall", "-Wextra", "-Werror", "-target", "bpf", "-mcpu=v3")


def search_sbin() -> None:
    """Look for tools in /usr/sbin too: Debian has bpftool there, but ordinary users' PATH not."""
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


@functools.cache
def system_includes(compiler: str) -> tuple[str, ...]:
    """The system headers of this host, which the compiler does not search for `-target bpf`."""
    said = subprocess.run(
        [compiler, "-v", "-E", "-x", "c", "/dev/null"], check=True, capture_output=True, text=True
    ).stderr
    _, _, listed = said.partition("#include <...> search starts here:\n")
    folders = listed.partition("End of search list.")[0].splitlines()
    return tuple(f"-idirafter{folder.strip()}" for folder in folders)


def compile_bpf(source: Path, compiled: Path, *options: str, compiler: str = "clang") -> None:
    """Compile one BPF program into an object file."""
    includes = (f"-I{INCLUDE}", *system_includes(compiler))
    files = ("-c", str(source), "-o", str(compiled))
    subprocess.run([compiler, *FLAGS, *includes, *options, *files], check=True)


def build(bpf: Path, csrc: Path) -> None:
    """Write the skeletons that are older than their sources. Needs clang, llvm-strip, bpftool."""
    newest_header = max(header.stat().st_mtime for header in bpf.glob("**/*.h"))
    for source in sorted(bpf.glob("*.bpf.c")):
        name = source.name.removesuffix(".bpf.c")
        loader = next(csrc.glob(f"*/{name}.c"), csrc / name)  # the benchmarks' has another name
        skeleton = loader.with_name(f"{name}.skel.h")
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
        # We cannot fix warnings about generated code.
        skeleton.write_bytes(b"#pragma GCC system_header\n" + generated.stdout)
        compiled.unlink()
