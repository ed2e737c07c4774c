"""Pages of a list by keyset: what comes after a row, not what comes after a number of rows.

A cursor holds the sort values of its row, so that rows which appear or vanish between two pages neither repeat nor
hide others. It names nothing secret and grants nothing: each query still looks at one organisation only.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

import orjson
from sqlalchemy import ColumnElement, Select, and_, false, literal, or_, tuple_

from clarion.core.errors import Code, RequestRefused

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class SortKey:
    """One column of a sort. `name` goes into cursors; `decode` makes a cursor's JSON value a column's value."""

    name: str
    column: ColumnElement[Any]
    descending: bool
    decode: Callable[[Any], Any]

    @property
    def signature(self) -> str:
        return f"{'-' if self.descending else ''}{self.name}"


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page: `first` or `last` rows (1 to 100) after or before a cursor."""

    first: int | None
    after: str | None
    last: int | None
    before: str | None

    @property
    def size(self) -> int:
        return self.last if self.last is not None else self.first or 0


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Rows in the list's order, each with its cursor, and whether there are more on either side.

    `start` and `end` are the cursors to go on from, where they are not those of the first and the last row: a list that is
    searched for its rows may end a page between two of them.
    """

    rows: tuple[tuple[str, Row], ...]
    has_next: bool
    has_previous: bool
    start: str | None = None
    end: str | None = None


SIZE_MAX = 100


def page_request(
    first: int | None, after: str | None, last: int | None, before: str | None, *, size_default: int = SIZE_MAX
) -> PageRequest:
    """The page asked for. Raises RequestRefused naming `first`, `last`, `after` or `before`."""
    if first is not None and last is not None:
        raise RequestRefused(Code.INVALID_INPUT, "give `first` or `last`, not both", "last")
    for name, size in (("first", first), ("last", last)):
        if size is not None and not 1 <= size <= SIZE_MAX:
            raise RequestRefused(Code.INVALID_INPUT, f"`{name}` must be from 1 to {SIZE_MAX}", name)
    if first is None and last is None:
        first = size_default
    return PageRequest(first, after, last, before)


def encode_cursor(sort: Sequence[SortKey], values: Sequence[Any]) -> str:
    """An opaque text for one row's place in this sort."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    content = orjson.dumps([",".join(key.signature for key in sort), *plain])
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def decode_cursor(sort: Sequence[SortKey], cursor: str, field: str) -> list[Any]:
    """The sort values in `cursor`. Raises RequestRefused if it is none of ours or of another sort."""
    refusal = RequestRefused(Code.INVALID_INPUT, "is no cursor of this list in this sort: begin without one", field)
    try:
        content = orjson.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error) as error:
        raise refusal from error
    if not isinstance(content, list) or len(content) != len(sort) + 1:
        raise refusal
    signature, *values = content
    if signature != ",".join(key.signature for key in sort):
        raise refusal
    try:
        return [key.decode(value) for key, value in zip(sort, values, strict=True)]
    except (TypeError, ValueError) as error:
        raise refusal from error


def beyond(sort: Sequence[SortKey], values: Sequence[Any], *, forwards: bool) -> ColumnElement[bool]:
    """Rows that come after (`forwards`) or before the row with these sort values."""
    if len({key.descending for key in sort}) == 1:
        # A row is compared as a whole, which is one range of an index on these columns.
        row = tuple_(*(key.column for key in sort))
        place = tuple_(*(literal(value, key.column.type) for key, value in zip(sort, values, strict=True)))
        return row < place if sort[0].descending == forwards else row > place
    alternatives: list[ColumnElement[bool]] = []
    equal_so_far: list[ColumnElement[bool]] = []
    for key, value in zip(sort, values, strict=True):
        bound = literal(value, key.column.type)
        further = key.column < bound if key.descending == forwards else key.column > bound
        alternatives.append(and_(*equal_so_far, further))
        equal_so_far.append(key.column == bound)
    return or_(false(), *alternatives)


def limited(statement: Select[Any], sort: Sequence[SortKey], request: PageRequest) -> Select[Any]:
    """`statement` cut to this page and one row more, which tells whether there is a next page.

    With `last` the rows come in reverse. Raises RequestRefused for a cursor that is none.
    """
    if request.after is not None:
        statement = statement.where(beyond(sort, decode_cursor(sort, request.after, "after"), forwards=True))
    if request.before is not None:
        statement = statement.where(beyond(sort, decode_cursor(sort, request.before, "before"), forwards=False))
    backwards = request.last is not None
    order = [key.column.asc() if key.descending == backwards else key.column.desc() for key in sort]
    return statement.order_by(*order).limit(request.size + 1)


def page_of(
    rows: Sequence[Row], sort: Sequence[SortKey], request: PageRequest, place: Callable[[Row], Sequence[Any]]
) -> Page[Row]:
    """The page made of the rows that `limited` found; `place` gives a row's sort values."""
    kept = list(rows[: request.size])
    more = len(rows) > request.size
    if request.last is not None:
        kept.reverse()
        return Page(_with_cursors(kept, sort, place), has_next=request.before is not None, has_previous=more)
    return Page(_with_cursors(kept, sort, place), has_next=more, has_previous=request.after is not None)


def _with_cursors(
    rows: Sequence[Row], sort: Sequence[SortKey], place: Callable[[Row], Sequence[Any]]
) -> tuple[tuple[str, Row], ...]:
    return tuple((encode_cursor(sort, place(row)), row) for row in rows)


def sort_keys(columns: Mapping[str, SortKey], names: Sequence[str]) -> list[SortKey]:
    """The sort that names as `CREATED_DESC` ask for, ended by the id, which tells equal rows apart.

    A column named twice counts the first time. `columns` has an entry `ID`.
    """
    keys: dict[str, SortKey] = {}
    for name in (*names, "ID_ASC"):
        column, _, direction = name.rpartition("_")
        keys.setdefault(column, replace(columns[column], descending=direction == "DESC"))
        if column == "ID":
            break
    return list(keys.values())


def number(value: Any) -> int:
    """A cursor's value for a bigint column. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise ValueError("not a bigint")
    return value


def text(value: Any) -> str:
    """A cursor's value for a text column. Raises ValueError for anything else."""
    if not isinstance(value, str) or "\x00" in value:
        raise ValueError("not a text")
    return value


def moment(value: Any) -> datetime:
    """A cursor's value for a timestamptz column. Raises ValueError for anything else."""
    parsed = datetime.fromisoformat(text(value))
    if parsed.tzinfo is None:
        raise ValueError("not a moment with its zone")
    return parsed
