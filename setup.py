"""Build the extensions: BPF programs to skeletons, then C and skeletons to abi3 modules."""

import importlib.util
import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

import cffi  # noqa: F401  (without it setuptools silently builds an empty wheel)
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
LIBBPF = "libbpf >= 1.0"


def missing_tools() -> dict[str, str]:
    """What is needed to build and was not found, and the Debian packages that have it."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    tools = {
        compiler: "gcc",
        "pkg-config": "pkg-config",
        "clang": "clang",
        "bpftool": "bpftool",
        "llvm-strip": "llvm",
    }
    missing = {tool: debian for tool, debian in tools.items() if shutil.which(tool) is None}
    if (
        "pkg-config" not in missing
        and subprocess.run(["pkg-config", "--exists", LIBBPF]).returncode
    ):
        found = subprocess.run(
            ["pkg-config", "--modversion", "libbpf"], capture_output=True, text=True
        )
        missing[f"{LIBBPF} with its headers (found {found.stdout.strip() or 'none'})"] = (
            "libbpf-dev"
        )
    return missing


def require_tools() -> None:
    """Stop and name all that is missing, before a compiler fails."""
    missing = missing_tools()
    if missing:
        raise SystemExit(
            f"lblatency: needed to build and not found: {', '.join(missing)}\n"
            f"  on Debian: apt-get install {' '.join(missing.values())}"
        )


def build_script(name: str) -> ModuleType:
    """A module of csrc/, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "csrc" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildExt(build_ext):
    def pre_run(self, ext, _ffi) -> None:
        """Called by cffi when it compiles a module, so not for metadata or an sdist."""
        bpf = build_script("build_bpf")
        bpf.search_sbin()
        require_tools()
        bpf.build(ROOT / "bpf", ROOT / "csrc")
        flags = subprocess.run(
            ["pkg-config", "--cflags", "libbpf"], check=True, capture_output=True, text=True
        ).stdout.split()
        ext.extra_compile_args += flags


native = build_script("build_native")
setup(
    ext_modules=[
        Extension(
            "lblatency._observe",
            ["csrc/python/observe.c"],
            depends=native.DEPENDS,
            include_dirs=native.INCLUDE_DIRS,
            extra_compile_args=native.CFLAGS,
            py_limited_api=True,
        )
    ],
    cffi_modules=["csrc/build_native.py:ffibuilder"],
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
