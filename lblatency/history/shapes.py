"""What answers of the API must look like before anybody here relies on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["BACKENDS", "DISTRIBUTION", "HEATMAP", "STATUS", "misfit"]

_MOST = 10**18  # no number of ours is larger, but sums of ns


class Optional(tuple[Any]):
    """A shape, or null, or nothing at all."""


STATUS = {
    "metrics": [str],
    "coverage": {"share": Optional((float,)), "lost": int, "counted": bool},
    "sources": [{"name": str, "trouble": Optional((str,))}],
}
_TIMES = {name: Optional((float,)) for name in ("p50", "p90", "p95", "p99", "p999", "mean")}
_COVERED = {"since": Optional((float,)), "until": Optional((float,)), "seconds": float}
_COLUMN = Optional(([Optional((float,))],))
BACKENDS = {
    **_COVERED,
    "left_out": int,
    "rows": int,
    "proxies": [str],
    "columns": {
        "proxy": [int],
        "target": [str],
        "server": Optional(([Optional((str,))],)),
        **{name: [float] for name in ("closed_per_s", "opened_per_s", "open", "count")},
        **{name: [Optional((float,))] for name in ("p50", "p95", "p99")},
        **{f"{metric}_p95": _COLUMN for metric in ("connect", "first_byte", "active")},
        **{name: [float] for name in ("resets", "failed_connects")},
        "change": [Optional((float,))],
        "change_in": [Optional((str,))],
    },
}
HEATMAP = {"upper": [float], "columns": {"end": [float], "total": [float], "counts": [[float]]}}
DISTRIBUTION = {
    **_COVERED,
    "metric": str,
    "bounds": [float],
    "series": [
        {
            "proxy": Optional((str,)),
            "target": Optional((str,)),
            "server": Optional((str,)),
            "count": int,
            "sum_ns": object,  # `HistogramSnapshot` checks it
            **_TIMES,
            "upper": [Optional((float,))],
            "counts": [int],
        }
    ],
}


def misfit(value: Any, shape: Any, name: str = "it") -> str | None:
    """Where a value is not of its shape; None if it is.

    A float may be any finite number that is not below 0, an int a whole one.
    """
    if isinstance(shape, Optional):
        return None if value is None else misfit(value, shape[0], name)
    if isinstance(shape, dict):
        if not isinstance(value, Mapping):
            return name
        wrong = (misfit(value.get(key), each, key) for key, each in shape.items())
        return next((each for each in wrong if each), None)
    if isinstance(shape, list):
        if not isinstance(value, list):
            return name
        return next((each for item in value if (each := misfit(item, shape[0], name))), None)
    if shape in (int, float):
        kinds = int if shape is int else (int, float)
        is_good = isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value < _MOST
        return None if is_good else name
    return None if isinstance(value, shape) else name
