"""From GraphQL's inputs to plain values: ids, sizes, filters, and what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime
from enum import Enum
from typing import Any

import strawberry
from strawberry.utils.str_converters import to_camel_case

from clarion.core.errors import Code, RequestRefused
from clarion.core.ids import ResourceName
from clarion.database.filters import Condition, Operator
from clarion.database.page import SIZE_MAX

NESTED_DEFAULT = 20
"""How many entries a nested list has unless `first` says otherwise."""

_IN_VALUES_MAX = 100
_ID_MAX = 2**63 - 1


def given(source: object, columns: Iterable[str], *, null_is_default: bool = False) -> dict[str, Any]:
    """What the caller gave, by attribute name, without what was left out; nor null where null means the default."""
    values = {name: getattr(source, name) for name in columns}
    return {
        name: _plain(value)
        for name, value in values.items()
        if value is not strawberry.UNSET and not (null_is_default and value is None)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value


def decimal_key(text: str) -> int | None:
    """The number behind an id, or None for a text that is nobody's id."""
    if not (text.isascii() and text.isdigit()) or text.startswith("0") or len(text) > len(str(_ID_MAX)):
        return None
    return int(text) if int(text) <= _ID_MAX else None


def existing_key(text: str, what: str, field: str) -> int:
    """The number behind an id. Raises RequestRefused as if the object were absent: it is."""
    key = decimal_key(text)
    if key is None:
        raise RequestRefused(Code.NOT_FOUND, f"there is no {what} with this id", field)
    return key


def one_etag(etag: object, underscored: object) -> str:
    """The etag given as `etag` or `_etag`. Raises RequestRefused unless it is exactly one of the two."""
    present = [value for value in (etag, underscored) if isinstance(value, str)]
    if len(present) != 1:
        raise RequestRefused(
            Code.INVALID_INPUT,
            "send the object's `_etag`, as `etag` or as `_etag`",
            "input.etag",
        )
    return present[0]


def nested_first(first: int) -> int:
    """The size of a nested list. Raises RequestRefused outside 1 to 100."""
    if not 1 <= first <= SIZE_MAX:
        raise RequestRefused(Code.INVALID_INPUT, f"`first` must be from 1 to {SIZE_MAX}", "first")
    return first


@strawberry.input(description="Compares an id.")
class IDFilter:
    eq: strawberry.ID | None = strawberry.UNSET
    neq: strawberry.ID | None = strawberry.UNSET
    in_: list[strawberry.ID] | None = strawberry.field(name="in", default=strawberry.UNSET)


@strawberry.input(description="Compares a text, exactly.")
class StringFilter:
    eq: str | None = strawberry.UNSET
    neq: str | None = strawberry.UNSET
    in_: list[str] | None = strawberry.field(name="in", default=strawberry.UNSET)


@strawberry.input(description="Compares a truth value.")
class BooleanFilter:
    eq: bool | None = strawberry.UNSET
    neq: bool | None = strawberry.UNSET


@strawberry.input(description="Compares a resource.")
class ResourceEnumFilter:
    eq: ResourceName | None = strawberry.UNSET
    neq: ResourceName | None = strawberry.UNSET
    in_: list[ResourceName] | None = strawberry.field(name="in", default=strawberry.UNSET)


@strawberry.input(description="Compares a moment.")
class DateTimeFilter:
    gte: datetime | None = strawberry.field(default=strawberry.UNSET, description="At this moment or later.")
    lt: datetime | None = strawberry.field(default=strawberry.UNSET, description="Before this moment.")


@dataclass(frozen=True, slots=True)
class Filtered:
    """Where a filter's values go: which column, and how each is read. None from `read` is a value that no row has."""

    column: str
    read: Callable[[Any], Any]


def text(value: str) -> str | None:
    """The text, unless no row can hold it."""
    return None if "\x00" in value else value


def same(value: Any) -> Any:
    return _plain(value)


def conditions(filters: object | None, columns: Mapping[str, Filtered]) -> list[Condition]:
    """The conditions in a filters input whose attributes are the keys of `columns`. Null and left out are the same.

    Raises RequestRefused for a list of more than 100 values.
    """
    if filters is None:
        return []
    found: list[Condition] = []
    for name, filtered in columns.items():
        comparison = getattr(filters, name)
        if not comparison:
            continue
        for entry in dataclass_fields(comparison):
            value = getattr(comparison, entry.name)
            if value is None or value is strawberry.UNSET:
                continue
            values = value if isinstance(value, list) else [value]
            if len(values) > _IN_VALUES_MAX:
                field = f"filters.{to_camel_case(name)}.in"
                raise RequestRefused(Code.INVALID_INPUT, f"must have at most {_IN_VALUES_MAX} values", field)
            read = tuple(result for result in map(filtered.read, values) if result is not None)
            found.append(Condition(filtered.column, Operator(entry.name.rstrip("_")), read))
    return found
