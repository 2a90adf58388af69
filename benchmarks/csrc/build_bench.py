"""The cffi builder of the benchmarks' own C, which the package does not ship."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from cffi import FFI

HERE = Path(__file__).resolve().parents[1]
ROOT = HERE.parent
HEADERS = [
    ROOT / "bpf" / "include" / "lbl_abi.h",
    HERE / "bpf" / "events.h",
    HERE / "csrc" / "bench.h",
]


def load(path: Path) -> ModuleType:
    """A build script of the package as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(into: Path) -> Path:
    """Compile the BPF programs and the extension; returns its path."""
    (HERE / "csrc" / "filler.skel.h").unlink(missing_ok=True)  # may be stale
    load(ROOT / "csrc" / "build_bpf.py").build(HERE / "bpf", HERE / "csrc")
    native = load(ROOT / "csrc" / "build_native.py")
    builder = FFI()
    builder.cdef(
        native.KERNEL_TYPES
        + "".join(native.declarations(path) for path in HEADERS)
        + 'extern "Python" int bench_seen(void *, void *, size_t);'
    )
    builder.set_source(
        "_bench",
        '#include "bench.c"',
        sources=[str(HERE / "csrc" / "floors.c")],
        include_dirs=[str(HERE / "csrc")],
        libraries=["bpf"],
        extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"],
    )
    return Path(builder.compile(tmpdir=str(into)))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
