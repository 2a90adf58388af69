"""The formats of a scrape, and which of them an `Accept` header asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ._ffi import lib

__all__ = ["FORMATS", "OPENMETRICS", "PROTOBUF", "TEXT", "TEXT_1", "Format", "negotiate"]

_ACCEPT_MAX = 4096  # characters that are looked at: Prometheus sends 300
_ESCAPINGS = ("allow-utf-8", "underscores", "values")  # all leave our names as they are


@dataclass(frozen=True)
class Format:
    """A format of a scrape.

    Attributes:
        content_type: for the header of the answer.
        number: of the format in C.
    """

    content_type: str
    number: int
    _range: str = field(repr=False)  # the media type in an Accept header, with what it must say
    _says: Mapping[str, tuple[str, ...]] = field(repr=False, hash=False)
    _can_escape: bool = False

    def fits(self, media_type: str, says: Mapping[str, str]) -> int:
        """How well a range of an `Accept` header fits; 0 if it does not."""
        if media_type == "*/*":
            return 1
        if media_type == self._range.partition("/")[0] + "/*":
            return 2
        if media_type == self._range and all(
            says.get(key, "") in values for key, values in self._says.items()
        ):
            return 3
        return 0

    def escaping(self, scheme: str | None) -> Format:
        """The same, naming in its content type the escaping of names that it was asked for."""
        if not self._can_escape:
            return self
        scheme = scheme if scheme in _ESCAPINGS else "underscores"
        return replace(self, content_type=f"{self.content_type}; escaping={scheme}")


TEXT = Format(
    "text/plain; version=0.0.4; charset=utf-8",
    lib.LBL_TEXT,
    "text/plain",
    {"version": ("", "0.0.4")},
)
TEXT_1 = Format(
    "text/plain; version=1.0.0; charset=utf-8",
    lib.LBL_TEXT,
    "text/plain",
    {"version": ("1.0.0",)},
    _can_escape=True,
)
OPENMETRICS = Format(
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
    lib.LBL_OPENMETRICS,
    "application/openmetrics-text",
    {"version": ("", "1.0.0")},
    _can_escape=True,
)
PROTOBUF = Format(
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited",
    lib.LBL_PROTOBUF,
    "application/vnd.google.protobuf",
    {"proto": ("io.prometheus.client.metricfamily",), "encoding": ("delimited",)},
)
FORMATS = (TEXT, TEXT_1, OPENMETRICS, PROTOBUF)  # the first for headers that do not care


def _ranges(accept: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Media type, parameters and q of each range that can be read."""
    for part in accept[:_ACCEPT_MAX].lower().split(","):
        media_type, *parameters = (each.strip() for each in part.split(";"))
        says = {}
        for each in parameters:
            key, _, value = each.partition("=")
            says[key.strip()] = value.strip().strip('"')
        try:
            q = float(says.pop("q", "1"))
        except ValueError:
            continue
        if 0 <= q <= 1:
            yield media_type, says, q


def negotiate(accept: str | None) -> Format:
    """The format that the `Accept` header of a request likes best; text 0.0.4 if it has none.

    It obeys the weights (`q`) and versions, and of ranges that weigh the same takes the more
    specific, then the first. It never fails: what cannot be read is passed over.
    """
    best: tuple[float, int, int] = (0, 0, 0)
    chosen = TEXT
    ranges = list(_ranges(accept or ""))
    for each in FORMATS:
        fitting = [
            (each.fits(media_type, says), -place, q, says)
            for place, (media_type, says, q) in enumerate(ranges)
        ]
        fit, place, q, says = max(fitting, key=lambda one: one[:2], default=(0, 0, 0.0, {}))
        if fit and q and (q, fit, place) > best:
            best, chosen = (q, fit, place), each.escaping(says.get("escaping"))
    return chosen
