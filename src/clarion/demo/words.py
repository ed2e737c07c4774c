"""A delivery in words: what changed, and the numbers over many of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from clarion.demo.delivery import IGNORED, Delivery
from clarion.demo.terminal import Terminal

_TELLING: Final[tuple[str, ...]] = ("status", "value", "title", "quantity", "disposition")
"""Fields that say most about a change, the first first."""
_UNTOLD: Final[tuple[str, ...]] = ("_at", "_by_id", "available_to_work")
"""How fields end that say least; told only where nothing else changed."""
_FIELDS_SHOWN: Final = 2
_VALUE_LENGTH_MAX: Final = 36
_CHANGE_WIDTH: Final = 62
_NAMES: Final = ("title", "packing_slip", "name")


def change_words(delivery: Delivery) -> str:
    """What changed, as `RUN_STEPS update 42  status: todo → in_progress`."""
    if not delivery.resource:
        return f"a card  {_short(delivery.card[1])}" if len(delivery.card) > 1 else "a body of another's making"
    words = f"{delivery.resource} {delivery.action.lower()} {delivery.object_id}"
    name = next((str(delivery.data[key]) for key in _NAMES if delivery.data.get(key)), "")
    if delivery.action != "UPDATE":
        return f"{words}  {_short(name)}" if name else words
    told = [name for name in _TELLING if name in delivery.changed]
    told += [name for name in delivery.changed if name not in told and not name.endswith(_UNTOLD)]
    told = told or list(delivery.changed)
    parts = [
        f"{one}: {_value(delivery.previous.get(one))} → {_value(delivery.data.get(one))}"
        for one in told[:_FIELDS_SHOWN]
    ]
    if len(told) > _FIELDS_SHOWN:
        parts.append(f"{len(told) - _FIELDS_SHOWN} more")
    return f"{words}  {', '.join(parts)}"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return _short(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _VALUE_LENGTH_MAX else line[: _VALUE_LENGTH_MAX - 1] + "…"


@dataclass(slots=True)
class Tally:
    """Counts over deliveries; `latencies_ms` of the verified ones."""

    deliveries_count: int = 0
    verified_count: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    def add(self, delivery: Delivery) -> None:
        """One more."""
        self.deliveries_count += 1
        if delivery.is_verified:
            self.verified_count += 1
        if delivery.ms is not None:
            self.latencies_ms.append(delivery.ms)

    def words(self) -> str:
        """As `12 deliveries, 12 verified; commit to receiver: median 18 ms, p99 31 ms`."""
        counted = f"{self.deliveries_count} deliveries, {self.verified_count} verified"
        if not self.latencies_ms:
            return counted
        median, high = quantile(self.latencies_ms, 0.5), quantile(self.latencies_ms, 0.99)
        return f"{counted}; commit to receiver: median {median:.0f} ms, p99 {high:.0f} ms"


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` (not empty) that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def delivery_lines(delivery: Delivery, terminal: Terminal) -> list[str]:
    """The delivery for people: one line, or two where the terminal is narrow."""
    at = datetime.fromisoformat(delivery.received_at).astimezone().strftime("%H:%M:%S")
    took = f"{'' if delivery.ms is None else f'{delivery.ms:.0f} ms':>7}"
    sign = terminal.plain("✓" if delivery.is_verified else "✗")
    path = f"{delivery.path:<10}"
    changed = terminal.plain(change_words(delivery) if delivery.is_verified else "a request that does not verify")
    did = terminal.plain(f"⇒ {delivery.did}")
    head_width = len(f"{at} {took}  {sign} {path}  ")
    good = delivery.is_verified and not delivery.is_failed
    quiet = good and delivery.did.startswith(IGNORED)
    head = (
        f"{terminal.style(at, dim=True)} {took}  {terminal.style(sign, 'green' if good else 'red', bold=True)}"
        f" {terminal.style(path, 'cyan', dim=quiet)}  "
    )
    shown_did = terminal.style(did, None if good else "red", bold=good and not quiet, dim=quiet)
    padding = " " * max(0, _CHANGE_WIDTH - len(changed))
    shown_change = terminal.style(changed, dim=quiet)
    if head_width + len(changed) + len(padding) + 2 + len(did) <= terminal.width:
        return [f"{head}{shown_change}{padding}  {shown_did}"]
    if head_width + len(changed) + 2 + len(did) <= terminal.width:
        return [f"{head}{shown_change}  {shown_did}"]
    return [f"{head}{shown_change}", f"{'':{head_width}}{shown_did}"]
