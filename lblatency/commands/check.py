"""`lblatency check`: what this machine allows."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator

from .. import check

__all__ = ["EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "what this machine allows"
EXAMPLES = """\
  lblatency check                      what this machine allows
"""
_COLUMNS = 79


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the form of the output."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace) -> int:
    """Print the findings, and a verdict for each command; returns 1 if one does not work."""
    findings = check.check_machine()
    verdicts = check.verdicts(findings)
    if options.json:
        found = {
            "findings": [finding._asdict() for finding in findings],
            "verdicts": [verdict._asdict() for verdict in verdicts],
        }
        print(json.dumps(found))
    else:
        print("\n".join(_lines(findings, verdicts)))
    return 0 if all(verdict.ok for verdict in verdicts) else 1


def _lines(findings: list[check.Finding], verdicts: list[check.Verdict]) -> Iterator[str]:
    for finding in findings:
        mark = "ok" if finding.ok else "NO" if finding.needed_by else "--"
        yield from _wrapped(f"{mark}  {finding.name:<14} ", finding.found)
        if not finding.ok:
            yield from _wrapped(" " * 6, finding.advice)
    yield ""
    for verdict in verdicts:
        yield from _wrapped(f"{verdict.command}: ", verdict.text)


def _wrapped(start: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, _COLUMNS, initial_indent=start, subsequent_indent=" " * len(start)
    ) or [start.rstrip()]
