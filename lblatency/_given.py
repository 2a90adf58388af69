"""Metric families of other collectors, packed for the renderers in C."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

from ._ffi import ffi, lib

__all__ = ["Given", "GivenSample"]

_TYPES = {
    "counter": lib.LBL_COUNTER,
    "gauge": lib.LBL_GAUGE,
    "histogram": lib.LBL_HISTOGRAM,
    "info": lib.LBL_INFO,
    "summary": lib.LBL_SUMMARY,
    "stateset": lib.LBL_STATESET,
    "gaugehistogram": lib.LBL_GAUGE_HISTOGRAM,
}
_JOINING = {"histogram": "le", "gaugehistogram": "le", "summary": "quantile"}
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_:]")

GivenSample = tuple[str, Mapping[str, str], float, float | None]  # name, labels, value, timestamp


def _number(text: str | None) -> float:
    try:
        return float("nan" if text is None else text)
    except ValueError:
        return math.nan


def _legal(name: str) -> str:
    """The name with underscores for what only newer formats allow."""
    name = _NOT_IN_A_NAME.sub("_", name)
    return "_" + name if name[:1].isdigit() else name


class Given:
    """Families that were added in the order of C's table, then others."""

    def __init__(self) -> None:
        self._texts: list[bytes] = []
        self._numbers = array("I")
        self._values = array("d")
        self._n_families = 0
        self._max_labels = 0

    def add(
        self,
        name: str,
        sentence: str,
        kind: str,
        samples: Iterable[GivenSample],
        *,
        unit: str = "",
        index: int = lib.LBL_NOT_IN_TABLE,
    ) -> None:
        """Add a family, with its help and type; with an `index`, add to that of C's table."""
        samples = list(samples)
        self._add_texts(_legal(name), sentence, unit)
        self._numbers.extend((_TYPES.get(kind, lib.LBL_UNKNOWN), index, len(samples)))
        self._n_families += 1
        for full_name, labels, value, timestamp in samples:
            legal = sorted((_legal(label), text) for label, text in labels.items())
            self._add_texts(_legal(full_name), *(text for pair in legal for text in pair))
            self._numbers.append(len(legal))
            self._values.extend(
                (
                    value,
                    math.nan if timestamp is None else float(timestamp),
                    _number(labels.get(_JOINING.get(kind, ""))),
                )
            )
            self._max_labels = max(self._max_labels, len(legal))

    def add_attributes(self, attributes: Mapping[str, str]) -> None:
        """Add a family whose one sample has these as labels, with their names as they are."""
        self._add_texts("", "", "", "", *(text for pair in attributes.items() for text in pair))
        self._numbers.extend((lib.LBL_INFO, lib.LBL_NOT_IN_TABLE, 1, len(attributes)))
        self._values.extend((1, math.nan, math.nan))
        self._n_families += 1

    def add_metric(self, metric: Any) -> None:
        """Add a `prometheus_client` Metric. Exemplars and `_created` samples are left out."""
        self.add(
            metric.name,
            metric.documentation,
            metric.type,
            (
                (each.name, each.labels, float(each.value), each.timestamp)
                for each in metric.samples
                if each.value is not None and not each.name.endswith("_created")
            ),
            unit=metric.unit or "",
        )

    def _add_texts(self, *texts: str) -> None:
        self._texts.extend(str(text).encode(errors="replace") for text in texts)

    def packed(self) -> tuple[Any, list[Any]]:
        """A C `struct lbl_given`, and what has to live as long as it."""
        texts = ffi.from_buffer(b"".join(self._texts))
        lengths = ffi.from_buffer("uint32_t[]", array("I", map(len, self._texts)))
        numbers = ffi.from_buffer("uint32_t[]", self._numbers)
        values = ffi.from_buffer("double[]", self._values)
        given = ffi.new(
            "struct lbl_given *",
            {
                "texts": texts,
                "lengths": lengths,
                "numbers": numbers,
                "values": values,
                "n_families": self._n_families,
                "max_labels": self._max_labels,
            },
        )
        return given, [texts, lengths, numbers, values]
