"""How a benchmark speaks: one row per figure, with the floor it should not fall below and the goal it works towards."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

_INTERPRETER = (
    f"interpreter: {platform.python_implementation()} {platform.python_version()}, {platform.python_build()[1]}"
)


@dataclass(slots=True)
class Figure:
    """One measured quantity. `runs` has its value in each run; `largest` the largest single value behind a percentile."""

    name: str
    unit: str
    floor: float | None = None
    goal: float | None = None
    runs: list[float] = field(default_factory=list)
    largest: float | None = None

    @property
    def value(self) -> float:
        """The median of the runs."""
        return statistics.median(self.runs)

    def add(self, value: float, largest: float | None = None) -> None:
        """The value of one more run."""
        self.runs.append(value)
        if largest is not None:
            self.largest = largest if self.largest is None else max(self.largest, largest)


class Figures:
    """The figures of one script, in the order in which they are named."""

    def __init__(self, *figures: Figure) -> None:
        self._figures = {figure.name: figure for figure in figures}

    def __getitem__(self, name: str) -> Figure:
        return self._figures[name]

    def show(self, *, as_json: bool, notes: Sequence[str] = ()) -> None:
        """Print what was measured; a figure without a run is left out. `notes` say what to know beside the rows."""
        measured = [figure for figure in self._figures.values() if figure.runs]
        if as_json:
            rows = [
                {
                    "name": figure.name,
                    "value": round(figure.value, 3),
                    "unit": figure.unit,
                    "floor": figure.floor,
                    "goal": figure.goal,
                    "largest": None if figure.largest is None else round(figure.largest, 3),
                    "runs": [round(value, 3) for value in figure.runs],
                }
                for figure in measured
            ]
            print(json.dumps({"figures": rows, "notes": [*notes, _INTERPRETER]}))
            return
        print(f"{'name':52}{'value':>10} {'unit':14}{'floor':>9}{'goal':>9}{'largest':>10}  runs")
        for figure in measured:
            print(
                f"{figure.name:52}{_text(figure.value):>10} {figure.unit:14}{_text(figure.floor):>9}{_text(figure.goal):>9}"
                f"{_text(figure.largest):>10}  {' '.join(_text(value) for value in figure.runs)}"
            )
        for note in (*notes, _INTERPRETER):
            print(f"note: {note}")


def numbers(text: str) -> list[float]:
    """Comma-separated numbers of an option."""
    return [float(part) for part in text.split(",") if part.strip()]


def options(description: str, *, runs: int = 3) -> argparse.ArgumentParser:
    """A parser with what every script takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=runs, help="the value of a figure is the median of them")
    parser.add_argument("--json", action="store_true")
    return parser


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
