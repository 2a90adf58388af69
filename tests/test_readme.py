"""README.md agrees with the code: its table of metrics, and each of its blocks of code."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from csrc.build_bpf import compile_bpf
from lblatency import cli
from tests.support import readme
from tests.support.clang import COMPILERS
from tools import metrics_table

ROOT = readme.README.parent
BLOCKS = list(enumerate(readme.blocks()))
PROGRAM = """\
{include}
struct backend {{ __u32 index; __be32 addr; __be16 port; }};
struct entry {{ __u64 created_ns, syn_ack_ns; }};
struct listener {{ __u16 id; }};

SEC("tc")
int readme(struct __sk_buff *skb)
{{
	(void)skb;
	struct backend backend[1] = {{}};
	struct entry entry[1] = {{}};
	struct listener listener[1] = {{}};

{body}
	return 0;
}}
"""


def of_kind(*kinds: str) -> list[object]:
    """The blocks of these kinds as parameters."""
    return [
        pytest.param(number, block, id=f"{number}-{block.kind}")
        for number, block in BLOCKS
        if block.kind in kinds
    ]


def test_metrics_are_those_of_the_families() -> None:
    """README has the table that tools/metrics_table.py makes from the families."""
    text = metrics_table.README.read_text()
    assert metrics_table.updated(text) == text, "README.md is stale; run `make metrics-table`"


def test_each_block_is_tested() -> None:
    """No fence is left over, and each kind of block has its test below."""
    text = readme.README.read_text()
    assert text.count("```") == 2 * len(BLOCKS) > 10
    assert {block.kind for _, block in BLOCKS} == {"python", "sh", "c", "promql"}
    firsts = [block.first for _, block in BLOCKS]
    assert {*readme.BEFORE, *readme.AFTER} <= set(firsts), "a block that is prepared for has gone"


@pytest.mark.bpf
@pytest.mark.parametrize(("number", "block"), of_kind("python"))
def test_python_runs(number: int, block: readme.Block) -> None:
    """As it stands, with the maps where it looks for them."""
    ran = subprocess.run(
        ["unshare", "--mount", sys.executable, "-W", "error", "-m", "tests.support.readme",
         str(number)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, block.text + ran.stderr


@pytest.mark.parametrize(("number", "block"), of_kind("c"))
def test_c_compiles(number: int, block: readme.Block, tmp_path: Path) -> None:
    """In a program that has what it names, and without warnings."""
    include, _, body = block.text.partition("\n\n")
    source = tmp_path / f"readme{number}.bpf.c"
    headers = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
    source.write_text(PROGRAM.format(include=headers + include, body=body))
    compile_bpf(source, tmp_path / "readme.o", compiler=COMPILERS[0])


def commands() -> list[object]:
    """The lines of all blocks of shell, with what their comments say."""
    return [
        pytest.param(*line.partition("#")[::2], id=line.partition("#")[0].strip())
        for _, block in BLOCKS
        if block.kind == "sh"
        for line in block.text.splitlines()
    ]


@pytest.mark.parametrize(("line", "comment"), commands())
def test_commands_exist(line: str, comment: str) -> None:
    """A target of make, or arguments that lblatency takes, as do the flags in the comment."""
    program, *arguments = shlex.split(line)
    if program == "make":
        subprocess.run(["make", "-n", *arguments], cwd=ROOT, check=True, capture_output=True)
        return
    assert program == "lblatency"
    parser = cli.make_parser()
    options = parser.parse_args(arguments)
    usage = options.parser.format_help()
    for flag in re.findall(r"--[a-z][a-z-]*", comment):
        assert re.search(rf"{flag}\b", usage), flag


def test_commands_in_the_text_exist() -> None:
    """So do the flags of each `lblatency ...` within a sentence."""
    found = re.findall(r"`(?:\.venv/bin/)?lblatency ([a-z][^`]*)`", readme.README.read_text())
    assert len(found) > 3
    for command in found:
        name, *flags = command.split()
        usage = cli.make_parser().parse_args(
            [name, *(["--proxy", "p"] if name == "serve" else [])]
        ).parser.format_help()  # fmt: skip
        assert all(re.search(rf"{flag}\b", usage) for flag in flags if flag.startswith("-"))
