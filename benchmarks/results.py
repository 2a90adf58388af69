"""The results in results.csv: a line per contender of a case."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).parent / "results.csv"
_HEAD = ["topic", "case", "contender", "ns", "figures"]


@dataclass(frozen=True)
class Result:
    """The figures of one contender in one case.

    Attributes:
        topic: what was measured.
        case: the circumstances.
        contender: its name.
        ns: the median over the rounds, mostly per event.
        figures: other figures, by name.
    """

    topic: str
    case: str
    contender: str
    ns: float
    figures: Mapping[str, float]


class Results:
    """All results of a run."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._by_name = {(each.topic, each.case, each.contender): each for each in results}

    def __iter__(self) -> Iterator[Result]:
        return iter(self._by_name.values())

    def ns(self, topic: str, case: str, contender: str) -> float:
        """The ns of a contender; KeyError if it was not measured."""
        return self._by_name[topic, case, contender].ns

    def ratio(self, topic: str, case: str, contender: str, other: str) -> float:
        """The ns over those of another contender of the case; KeyError if not measured."""
        return self.ns(topic, case, contender) / self.ns(topic, case, other)

    def figure(self, topic: str, case: str, contender: str, name: str) -> float:
        """One of the other figures; KeyError if it was not measured."""
        return self._by_name[topic, case, contender].figures[name]


def write(results: Iterable[Result], path: Path = PATH) -> None:
    """Write all results with six digits, which is more than a second run repeats."""
    with path.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(_HEAD)
        for each in results:
            figures = " ".join(f"{name}={value:.6g}" for name, value in each.figures.items())
            lines.writerow([each.topic, each.case, each.contender, f"{each.ns:.6g}", figures])


def read(path: Path = PATH) -> Results:
    """The results of the last run."""
    with path.open(newline="") as file:
        return Results(_result(line) for line in csv.DictReader(file))


def _result(line: Mapping[str, str]) -> Result:
    figures = (figure.split("=") for figure in line["figures"].split())
    return Result(
        line["topic"],
        line["case"],
        line["contender"],
        float(line["ns"]),
        {name: float(value) for name, value in figures},
    )
