"""Conditions of a filtered list as plain values, made into SQL in one place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, assert_never

from sqlalchemy import ColumnElement, false


class Operator(StrEnum):
    """How a column is compared: with one value, or (IN) with a list of them."""

    EQ = "eq"
    NEQ = "neq"
    IN = "in"
    GTE = "gte"
    LT = "lt"


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison. `values` has one entry but for IN; none at all means a value that no row can have."""

    column: str
    operator: Operator
    values: tuple[Any, ...]


def matches(condition: Condition, value: Any) -> bool:
    """Whether a row with this value is in the list filtered by EQ, NEQ or IN."""
    return (value in condition.values) != (condition.operator is Operator.NEQ)


class Columns(Protocol):
    """A table's columns by name, or a mapping."""

    def __getitem__(self, name: str, /) -> ColumnElement[Any]: ...


def where(columns: Columns, conditions: Iterable[Condition]) -> list[ColumnElement[bool]]:
    """The conditions on these columns, all of which must hold. Raises KeyError for a column that is not among them."""
    return [_clause(columns[condition.column], condition) for condition in conditions]


def _clause(column: ColumnElement[Any], condition: Condition) -> ColumnElement[bool]:
    match condition.operator:
        case Operator.NEQ:
            return column.not_in(condition.values)
        case Operator.EQ | Operator.IN:
            return column.in_(condition.values)
        case Operator.GTE:
            return column >= condition.values[0] if condition.values else false()
        case Operator.LT:
            return column < condition.values[0] if condition.values else false()
        case _:
            assert_never(condition.operator)
