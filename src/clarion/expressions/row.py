"""What a change gives to expressions: its rows and circumstances as plain values. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

import orjson

from clarion.expressions.program import EvaluationFailed, Program, activation
from clarion.ledger.change import ACTION_NAMES, Captured, Change
from clarion.ledger.difference import changed_names

ROW_BYTES_MAX = 1024 * 1024
"""Old and new row together, above which no expression is evaluated: their size is nothing that its author can foresee."""

_UNSAFE = re.compile(r"[\x00\ud800-\udfff]")
_WHOLE_MAX = 2**64


class Values:
    """The values of one change, made when the first expression asks for them."""

    __slots__ = ("_activation", "_change", "_decimals", "_failed", "_rows", "elements", "row_bytes")

    def __init__(self, change: Captured | Change, decimals: Collection[str] = ()) -> None:
        """`decimals` names columns that are decimal numbers also where one is written without a point."""
        self._change = change
        self._decimals = decimals
        self._activation: Any = None
        self._rows: tuple[dict[str, Any], dict[str, Any]] | None = None
        self._failed: EvaluationFailed | None = None
        self.row_bytes = 0
        self.elements = 0

    def activation(self) -> Any:
        """What expressions are evaluated with. Raises EvaluationFailed for rows that cannot be looked into."""
        if self._activation is None:
            new, old = self.rows()
            change = self._change
            self._activation = activation(
                {
                    "object": new,
                    "oldObject": old,
                    "changed": changed_names(change.action, change.old, change.new),
                    "action": ACTION_NAMES[change.action],
                    "actor": {"id": _safe(change.actor_id), "name": _safe(change.actor_name)},
                    "resource": change.resource,
                    "objectId": change.object_id,
                    "correlationId": _safe(change.correlation_id),
                }
            )
        return self._activation

    def rows(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The new and the old row; one that there is not is empty. Raises EvaluationFailed."""
        if self._failed is not None:
            raise self._failed
        if self._rows is None:
            try:
                self._rows = self._read()
            except EvaluationFailed as failed:
                # Not tried again for each of a thousand subscriptions.
                self._failed = failed
                raise
        return self._rows

    def decide(self, condition: Program) -> bool:
        """Whether the condition holds. Raises EvaluationFailed."""
        return condition.decide(self.activation(), self.row_bytes, self.elements)

    def evaluate(self, expression: Program) -> Any:
        """The expression's result as plain values. Raises EvaluationFailed."""
        return expression.evaluate(self.activation(), self.row_bytes, self.elements)

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        change = self._change
        old, new = change.old, change.new
        length = len(old or "") + len(new or "")
        if length > ROW_BYTES_MAX:
            raise EvaluationFailed(f"the row has {length} characters, expressions look into {ROW_BYTES_MAX} at most")
        texts = (old, new, change.actor_id, change.actor_name, change.correlation_id, change.object_id, change.resource)
        self.row_bytes = sum(_utf8_bytes(text or "") for text in texts)
        self.elements = (old or "").count(",") + (new or "").count(",") + 1
        return {} if new is None else self._row(new), {} if old is None else self._row(old)

    def _row(self, text: str) -> dict[str, Any]:
        try:
            row: dict[str, Any] = orjson.loads(text)
            if "\\u0000" in text:
                row = _clean(row)
        except orjson.JSONDecodeError:
            row = _read_slowly(text)
        for name in self._decimals:
            value = row.get(name)
            if type(value) is int or (type(value) is str and value in {"NaN", "Infinity", "-Infinity"}):
                row[name] = float(value)
        return row


def _read_slowly(text: str) -> dict[str, Any]:
    """What PostgreSQL's json type takes and the fast reader does not: lone surrogates, numbers of any size."""
    try:
        row = _clean(json.loads(text, parse_int=_number))
        if not isinstance(row, dict):
            raise EvaluationFailed("the row is no JSON object")
        return row
    except RecursionError:
        raise EvaluationFailed("the row is nested too deeply to be looked into") from None
    except ValueError as error:
        raise EvaluationFailed("the row is no JSON") from error


def _number(digits: str) -> float:
    # Python refuses to read whole numbers of more than 4,300 digits.
    if len(digits) > 20:
        return float(digits)
    value = int(digits)
    return value if -(2**63) <= value < _WHOLE_MAX else float(value)


def _clean(value: Any) -> Any:
    """The value with U+FFFD for each NUL and lone surrogate, which no expression can hold."""
    match value:
        case str():
            return _safe(value)
        case dict():
            return {_safe(name): _clean(one) for name, one in value.items()}
        case list():
            return [_clean(one) for one in value]
        case _:
            return value


def _utf8_bytes(text: str) -> int:
    # Whether it is ASCII is known without looking; most rows are.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _safe(text: str | None) -> str | None:
    return None if text is None else _UNSAFE.sub("\ufffd", text)
