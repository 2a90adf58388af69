"""README.md agrees with the code."""

from __future__ import annotations

from tools import metrics_table


def test_metrics_are_those_of_the_families() -> None:
    """README has the table that tools/metrics_table.py makes from the families."""
    readme = metrics_table.README.read_text()
    assert metrics_table.updated(readme) == readme, "README.md is stale; run `make metrics-table`"
