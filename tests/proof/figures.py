"""One figure of the proof programme, and how a list of them is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value and what it has to be; `target` None: shown, not judged."""

    name: str
    value: float
    unit: str
    target: float | None = None
    kind: Literal["at most", "at least", "exactly"] = "at most"

    @property
    def verdict(self) -> Literal["PASS", "FAIL", "-"]:
        """FAIL also for a value that could not be measured (nan)."""
        match self.kind, self.target:
            case _, None:
                return "-"
            case "at most", target:
                held = self.value <= target
            case "at least", target:
                held = self.value >= target
            case "exactly", target:
                held = self.value == target
        return "PASS" if held else "FAIL"

    def row(self) -> str:
        """`name value unit target verdict` in columns."""
        sign = {"at most": "≤", "at least": "≥", "exactly": "="}[self.kind]
        target = "" if self.target is None else f"{sign} {self.target:g}"
        return f"{self.name:66} {self.value:>12.6g} {self.unit:11} {target:>10}  {self.verdict}"

    def as_json(self) -> dict[str, object]:
        """The same for `--json`."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "target": self.target,
            "kind": self.kind,
            "verdict": self.verdict,
        }
