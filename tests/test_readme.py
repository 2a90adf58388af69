"""README.md agrees with the code where it repeats it."""

from __future__ import annotations

from tools import metrics_table


def test_metrics_are_those_of_the_families() -> None:
    """The table of metrics is what C's table of families and the collector say."""
    readme = metrics_table.README.read_text()
    assert metrics_table.updated(readme) == readme, "README.md is stale; run `make metrics-table`"
