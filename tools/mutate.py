"""Break the C engine in one place at a time, and see whether a test fails.

A mutant is the engine with one operator, constant, condition, return value or statement changed. It
is built and tested in a copy of the tree: by the C tests first, and by the Python tests that are
named if it survives those. From the top of the tree:

    .venv/bin/python tools/mutate.py --each 8 --pytest tests/test_stats.py -- csrc/stream/*.c
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
C_SECONDS, SECONDS = 40, 300  # what takes longer hangs: the C tests, all else
FOLDERS = ("base", "event", "hist", "stream", "record", "track", "source", "render")

# What is found in a line of code, and what is put in its place.
CHANGES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r" == ", " != "), (r" != ", " == "), (r" < ", " <= "), (r" <= ", " < "),
        (r" > ", " >= "), (r" >= ", " > "), (r" && ", " || "), (r" \|\| ", " && "),
        (r" \+ ", " - "), (r" - ", " + "), (r" \* ", " / "), (r" / ", " * "), (r" % ", " / "),
        (r" & ", " | "), (r" \| ", " & "), (r" << ", " >> "), (r" >> ", " << "),
        (r" \+= ", " -= "), (r" -= ", " += "), (r" \|= ", " &= "), (r" &= ", " |= "),
        (r"\+\+(?!\)( \{)?$)", "--"), (r"(?<=[(\s,])[-!~](?=[\w(])", ""),
        (r"\btrue\b", "false"), (r"\bfalse\b", "true"),
        (r"(?<![\w.])(?<!e-)(\d+U?L*)\b(?!\.)", r"(\1+1)"),
        (r"(?<=\bif \()(?!!|.* [=!<>]=? )(.*)(?=\)( \{)?$)", r"!(\1)"),
        (r"(?<=\breturn )(?!0;)([^;]+)(?=;)", "0"), (r"(?<=\breturn )0(?=;)", "1"),
        (r"(?<=\t)(?!return)[^\s;(]+(\(| [-+|&]?= |\+\+|--)[^;]*(?=;$)", ""),
    )
]  # fmt: skip
COMMENT = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\])*"', re.DOTALL)


class Mutant(NamedTuple):
    """One changed line of a file."""

    path: str
    number: int  # of the line, from 0
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path}:{self.number + 1}: {self.before.strip()}  ->  {self.after.strip()}"


def mutants_of(path: str) -> list[Mutant]:
    """All mutants of a file: of the bodies of functions, which kernel style makes easy to find."""
    text = (ROOT / path).read_text()
    blank = COMMENT.sub(lambda found: re.sub(r"[^\n]", "\x00", found[0]), text)
    found, inside, whole = [], False, True
    for number, (line, code) in enumerate(zip(text.split("\n"), blank.split("\n"), strict=True)):
        inside = line == "{" or (inside and line != "}")
        for pattern, replacement in CHANGES if inside and not line.endswith("\\") else ():
            for match in pattern.finditer(code):
                new = match.expand(replacement) if "\x00" not in match[0] else ""
                after = line[: match.start()] + new + line[match.end() :]
                # Part of a statement is not a statement.
                if after != line and (whole or match.start() > len(code) - len(code.lstrip())):
                    found.append(Mutant(path, number, line, after))
        whole = not code or code.endswith((";", "{", "}", ")", "else", "do", ":", "\x00"))
    return found


def run(command: list[str], tree: Path, seconds: float) -> bool:
    """Whether the command succeeds in time. It is the first to go if memory runs out."""
    process = subprocess.Popen(
        ["choom", "-n", "1000", "--", *command],
        cwd=tree, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(tree), "CFLAGS": "-w"}, start_new_session=True,
    )  # fmt: skip
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has started, too
        process.wait()


def judge(tree: Path, pytest: list[str]) -> str:
    """What becomes of the mutant in this tree."""
    make = ["make", "-C", "csrc/tests", "-j2", "VARIANT=plain"]
    if not run([*make, "build"], tree, SECONDS):
        return "does not compile"
    if not run([*make, "check"], tree, C_SECONDS):
        return "killed by C"
    python = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *pytest]
    build = [sys.executable, "setup.py", "build_ext", "--inplace"]
    if pytest and not (run(build, tree, SECONDS) and run(python, tree, SECONDS)):
        return "killed by Python"
    return "survived"


def judge_all(mutants: list[Mutant], tree: Path, pytest: list[str]) -> list[Mutant]:
    """Print what becomes of each, and what share is killed; return those that survive."""
    if judge(tree, pytest) != "survived":
        sys.exit("mutate: the tests fail without a mutant, or take too long")
    survivors = []
    verdicts: Counter[str] = Counter()
    for mutant in mutants:
        file = tree / mutant.path
        original = file.read_text()
        lines = original.split("\n")
        lines[mutant.number] = mutant.after
        file.write_text("\n".join(lines))
        verdict = judge(tree, pytest)
        file.write_text(original)
        print(f"{verdict:16}  {mutant}", flush=True)
        verdicts[verdict] += 1
        if verdict == "survived":
            survivors.append(mutant)
    compiled = len(mutants) - verdicts["does not compile"]
    print(dict(verdicts), f"killed: {1 - len(survivors) / compiled:.0%} of {compiled}")
    return survivors


def main() -> None:
    """Parse arguments, copy the tree, run the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--each", type=int, default=8, help="mutants of each file (default: 8)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (default: 1)")
    parser.add_argument("--pytest", nargs="*", default=[], help="Python tests for survivors")
    parser.add_argument("files", nargs="*", help="default: all of the engine")
    args = parser.parse_args()
    files = args.files or [
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in sorted((ROOT / "csrc" / folder).glob("*.[ch]"))
    ]
    mutants: list[Mutant] = []
    for path in files:
        found = mutants_of(path)
        chosen = random.Random(f"{args.seed} {path}").sample(found, min(args.each, len(found)))
        mutants += sorted(chosen)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        ignore = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", ".*_cache")
        shutil.copytree(ROOT, tree, ignore=ignore)
        for survivor in judge_all(mutants, tree, args.pytest):
            print(f"\n{survivor.path}:{survivor.number + 1}\n-{survivor.before}\n+{survivor.after}")


if __name__ == "__main__":
    main()
