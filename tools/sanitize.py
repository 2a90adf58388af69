"""Run tests/support/storm.py under AddressSanitizer and ThreadSanitizer. Needs root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from csrc.build_bpf import search_sbin  # noqa: E402
from tests.support import bpf  # noqa: E402
from tests.support.clang import compiled  # noqa: E402

ROUNDS = 1000
KINDS = {  # gcc's flags, and the libraries to load before Python
    "address": ("-fsanitize=address,undefined", ["libasan.so", "libubsan.so"]),
    "thread": ("-fsanitize=thread -Wno-tsan", ["libtsan.so"]),
}
OPTIONS = {
    "PYTHONMALLOC": "malloc",
    "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter leaks at exit
    "TSAN_OPTIONS": "die_after_fork=0 second_deadlock_stack=1",
}


def build(flags: str, into: Path) -> None:
    """Build the package with a sanitized extension, and put the tests beside it."""
    env = os.environ | {"LBLATENCY_CFLAGS": f"{flags} -g -O1", "LBLATENCY_LDFLAGS": flags}
    command = [sys.executable, "setup.py", "-q", "build", "--force", "--build-base",
               str(into / "build"), "--build-lib", str(into)]  # fmt: skip
    subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    (into / "tests").symlink_to(ROOT / "tests")


def library(name: str) -> str:
    """The path of one of gcc's libraries."""
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, check=True)
    return found.stdout.decode().strip()


def storm(kind: str) -> int:
    """Build and run the storm; returns its exit code."""
    flags, libraries = KINDS[kind]
    with TemporaryDirectory() as folder, bpf.mounted_bpffs() as bpffs:
        into = Path(folder)
        build(flags, into)
        bpf.load(compiled("filler", into), bpffs)
        env = os.environ | OPTIONS | {"LD_PRELOAD": " ".join(map(library, libraries))}
        command = [sys.executable, "-m", "tests.support.storm", bpffs.path, str(ROUNDS)]
        ran = subprocess.run(command, cwd=into, env=env, pass_fds=[bpffs.fd])
        return ran.returncode


def main() -> None:
    """Run the storm under both sanitizers; fail if one run fails."""
    search_sbin()
    codes = {kind: storm(kind) for kind in KINDS}
    for kind, code in codes.items():
        print(f"{kind}: {'passed' if code == 0 else f'FAILED with exit code {code}'}", flush=True)
    sys.exit(any(codes.values()))


if __name__ == "__main__":
    main()
