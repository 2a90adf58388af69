"""`lblatency check`: what this machine allows."""

from __future__ import annotations

import argparse

from .. import check

__all__ = ["EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "what this machine allows"
EXAMPLES = """\
  lblatency check                      what this machine allows
"""


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """Add no arguments."""


def run(_options: argparse.Namespace) -> int:
    """Print a line per finding, and advice; returns 1 if something required is missing."""
    findings = check.check_machine()
    for finding in findings:
        mark = "ok" if finding.ok else "NO" if finding.required else "--"
        print(f"{mark}  {finding.name:<14} {finding.found}")
        if not finding.ok:
            print(f"      {finding.advice}")
    return 0 if all(finding.ok or not finding.required for finding in findings) else 1
