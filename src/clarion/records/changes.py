"""The ledger as it is read: an organisation's changes by their number, and what each changed.

By organisation and number the ledger has an index of all changes; each further one would be paid for by every change that is
routed. By object, correlation and resource it has one of stretches of 64 pages, which costs next to nothing: a search looks only
into those where there may be something. So a list that is filtered by one of these looks through INDEXED_MAX changes, by anything
else through SEARCHED_MAX, and says where it stopped: a page then has fewer changes than asked for, or none, and says that there
are more. Moments need no search: they grow with the numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    DateTime,
    Row,
    Select,
    Text,
    case,
    cast,
    func,
    literal,
    null,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.principal import Principal
from clarion.core.ids import OrganisationId, ResourceName
from clarion.database import tables
from clarion.database.filters import Condition, Operator, where
from clarion.database.page import Page, PageRequest, SortKey, decode_cursor, encode_cursor, number, page_of
from clarion.database.plans import for_these_values
from clarion.ledger.change import ACTION_NAMES

SEARCHED_MAX = 20_000
"""How many changes a page of a filtered list looks through."""

INDEXED_MAX = 1_000_000
"""How many it looks through with the help of an index."""

_INDEXED = frozenset({"object_id", "correlation_id", "resource"})

CONTENT_BYTES_MAX = 256 * 1024
"""How long the old and the new row of a change may be together to be shown: as long as a receiver's body may be."""

_CLOCK_STEPS = timedelta(minutes=5)
"""By how much the database's clock may be set back without a change being missed by a filter on moments."""


@dataclass(frozen=True, slots=True)
class RecordedChange:
    """One row of the ledger without its contents. `link` is its hash in the organisation's chain."""

    position: int
    change_id: int
    resource: ResourceName
    action: str
    object_id: str
    occurred_at: datetime
    recorded_at: datetime
    actor_id: str | None
    actor_name: str | None
    correlation_id: str | None
    link: bytes


@dataclass(frozen=True, slots=True)
class Contents:
    """The row before and after, as JSON text. Both are None and `is_omitted` true if they are too long to be shown."""

    action: str  # as tables spell it
    old: str | None
    new: str | None
    is_omitted: bool


async def list_changes(
    connection: AsyncConnection,
    principal: Principal,
    conditions: Sequence[Condition],
    request: PageRequest,
    *,
    newest_first: bool = True,
) -> Page[RecordedChange]:
    """One page of the changes that the principal may read, by number.

    Conditions are on `change_id`, `recorded_at`, `resource`, `action`, `object_id` and `correlation_id`. Raises
    RequestRefused for a cursor that is none.
    """
    sort = [SortKey("id", tables.ledger.c.change_id, newest_first, number)]
    span = await _span(connection, principal, conditions)
    for cursor, field, is_upper in (
        (request.after, "after", newest_first),
        (request.before, "before", not newest_first),
    ):
        if cursor is not None:
            (change_id,) = decode_cursor(sort, cursor, field)
            span = span.below(change_id) if is_upper else span.above(change_id)
    backwards = request.last is not None
    downwards = newest_first != backwards
    searched = span
    within: list[ColumnElement[bool]] = []
    if _is_search(principal, conditions):
        is_indexed = _is_indexed(principal, conditions)
        searched = span.part(INDEXED_MAX if is_indexed else SEARCHED_MAX, downwards=downwards)
        if is_indexed and not searched.is_empty:
            within = [await _between_positions(connection, principal, searched)]
    if searched.is_empty:
        rows: Sequence[Row[Any]] = ()
    else:
        column = tables.ledger.c.change_id
        statement = (
            _select(principal, conditions)
            .where(column.between(searched.lowest, searched.highest), *within)
            .order_by(column.desc() if downwards else column.asc())
            .limit(request.size + 1)
        )
        rows = (await connection.execute(statement)).all()
    page = page_of([_change(row) for row in rows], sort, request, lambda change: [change.change_id])
    if len(rows) > request.size or searched == span:
        return page
    reached = encode_cursor(sort, [searched.lowest if downwards else searched.highest])
    if backwards:
        return Page(page.rows, has_next=page.has_next, has_previous=True, start=reached)
    return Page(page.rows, has_next=True, has_previous=page.has_previous, end=reached)


async def count_changes(connection: AsyncConnection, principal: Principal, conditions: Sequence[Condition]) -> int:
    """How many changes the whole filtered list has. Reads them all where it is a search or of moments."""
    span = await _span(connection, principal, conditions)
    is_search = _is_search(principal, conditions)
    if span.is_empty:
        return 0
    if not is_search and all(
        one.operator in {Operator.GTE, Operator.LT} and one.column == "change_id" for one in conditions
    ):
        return span.highest - span.lowest + 1  # numbers have no gaps
    column = tables.ledger.c.change_id
    # It is true of all, and has the planner use the index of stretches, whose rows lie in the order of positions.
    within = [tables.ledger.c.position > 0] if is_search and _is_indexed(principal, conditions) else []
    counted = (
        select(func.count())
        .select_from(tables.ledger)
        .where(*_wanted(principal, conditions), column.between(span.lowest, span.highest), *within)
    )
    return int(await connection.scalar(counted) or 0)


async def changes_by_positions(
    connection: AsyncConnection, principal: Principal, positions: Collection[int]
) -> dict[int, RecordedChange]:
    """Those changes at these positions that the principal may read."""
    found = await connection.execute(_select(principal, ()).where(tables.ledger.c.position.in_(positions)))
    return {row.position: _change(row) for row in found}


async def contents_of_changes(
    connection: AsyncConnection, organisation_id: OrganisationId, positions: Collection[int], bytes_max: int
) -> tuple[dict[int, Contents], int]:
    """The contents of the changes at these positions, and how many bytes they have together: `bytes_max` at most.

    Left out are those of more than CONTENT_BYTES_MAX, and from the newest on downwards those for which no room is left.
    """
    ledger = tables.ledger.c
    length = func.coalesce(func.octet_length(ledger.old), 0) + func.coalesce(func.octet_length(ledger.new), 0)
    measured = (
        select(
            ledger.position, case((length <= CONTENT_BYTES_MAX, length), else_=0).label("size"), length.label("length")
        )
        .where(ledger.organisation_id == organisation_id, ledger.position.in_(positions))
        .subquery("measured")
    )
    summed = select(
        measured.c.position,
        measured.c.size,
        (
            (measured.c.length <= CONTENT_BYTES_MAX)
            & (func.sum(measured.c.size).over(order_by=measured.c.position.desc()) <= bytes_max)
        ).label("whole"),
    ).subquery("summed")
    statement = select(
        ledger.position,
        cast(ledger.action, Text).label("action"),
        summed.c.size,
        summed.c.whole,
        # What is too long is not even fetched.
        case((summed.c.whole, ledger.old), else_=null()).label("old"),
        case((summed.c.whole, ledger.new), else_=null()).label("new"),
    ).join(summed, summed.c.position == ledger.position)
    found: dict[int, Contents] = {}
    size = 0
    for row in await connection.execute(statement.where(ledger.organisation_id == organisation_id)):
        found[row.position] = Contents(row.action, row.old, row.new, is_omitted=not row.whole)
        size += row.size if row.whole else 0
    return found, size


@dataclass(frozen=True, slots=True)
class _Span:
    """Changes from one number to another, both included."""

    lowest: int
    highest: int

    @property
    def is_empty(self) -> bool:
        return self.lowest > self.highest

    def below(self, change_id: int) -> _Span:
        return _Span(self.lowest, min(self.highest, change_id - 1))

    def above(self, change_id: int) -> _Span:
        return _Span(max(self.lowest, change_id + 1), self.highest)

    def part(self, count_max: int, *, downwards: bool) -> _Span:
        """So many of it at most, those that come first."""
        if downwards:
            return _Span(max(self.lowest, self.highest - count_max + 1), self.highest)
        return _Span(self.lowest, min(self.highest, self.lowest + count_max - 1))


async def _span(connection: AsyncConnection, principal: Principal, conditions: Sequence[Condition]) -> _Span:
    """Between which numbers all changes with these conditions are."""
    ledger = tables.ledger.c
    own = ledger.organisation_id == principal.organisation_id
    ends = [
        select(ledger.change_id).where(own).order_by(order).limit(1).scalar_subquery()
        for order in (ledger.change_id.asc(), ledger.change_id.desc())
    ]
    moments = [one for one in conditions if one.column == "recorded_at"]
    since = [one.values[0] - _CLOCK_STEPS for one in moments if one.operator is Operator.GTE]
    until = [one.values[0] + _CLOCK_STEPS for one in moments if one.operator is Operator.LT]
    columns: list[Any] = [ends[0].label("lowest"), ends[1].label("highest"), for_these_values()]
    if since:
        columns.append(_first_since(own, ends, max(since)).label("since"))
    if until:
        columns.append(_first_since(own, ends, min(until)).label("until"))
    row = (await connection.execute(select(*columns))).one()
    if row.lowest is None:
        return _Span(1, 0)
    span = _Span(row.lowest, row.highest)
    if since:
        span = span.above(row.since - 1)
    if until:
        span = span.below(row.until)
    for one in conditions:
        if one.column != "change_id":
            continue
        match one.operator:
            case Operator.EQ | Operator.IN:
                span = span.above(min(one.values) - 1).below(max(one.values) + 1) if one.values else _Span(1, 0)
            case Operator.GTE:
                span = span.above(one.values[0] - 1) if one.values else _Span(1, 0)
            case Operator.LT:
                span = span.below(one.values[0]) if one.values else _Span(1, 0)
            case Operator.NEQ:
                pass
    return span


def _first_since(own: ColumnElement[bool], ends: Sequence[Any], moment: datetime) -> Any:
    """The number of the first change that was recorded at this moment or later, by bisection; one above all if none was."""
    ledger = tables.ledger
    search = select(ends[0].label("low"), (ends[1] + 1).label("high")).cte(recursive=True)
    half = (search.c.low + search.c.high) // 2
    probe = (
        select(ledger.c.recorded_at, half.label("middle"))
        .where(own, ledger.c.change_id >= half)
        .order_by(ledger.c.change_id)
        .limit(1)
        .correlate(search)
        .lateral("probe")
    )
    is_later = probe.c.recorded_at >= literal(moment, DateTime(timezone=True))
    search = search.union_all(
        select(
            case((is_later, search.c.low), else_=probe.c.middle + 1),
            case((is_later, probe.c.middle), else_=search.c.high),
        )
        .select_from(search.join(probe, true()))
        .where(search.c.low < search.c.high)
    )
    return select(search.c.low).where(search.c.low >= search.c.high).limit(1).scalar_subquery()


def _is_search(principal: Principal, conditions: Sequence[Condition]) -> bool:
    """Whether a page has to look through changes that are not on it."""
    if any(one.column == "change_id" and one.operator in {Operator.EQ, Operator.IN} for one in conditions):
        return False
    others = [one for one in conditions if one.column not in {"change_id", "recorded_at"}]
    return bool(others) or principal.readable_resources is not None


def _is_indexed(principal: Principal, conditions: Sequence[Condition]) -> bool:
    """Whether the index of stretches can say where there is nothing to be found."""
    return principal.readable_resources is not None or any(
        one.column in _INDEXED and one.operator in {Operator.EQ, Operator.IN} for one in conditions
    )


async def _between_positions(connection: AsyncConnection, principal: Principal, span: _Span) -> ColumnElement[bool]:
    """That a change stands between the positions of the span's ends."""
    ledger = tables.ledger.c
    own = ledger.organisation_id == principal.organisation_id
    ends = [
        select(ledger.position).where(own, within).order_by(order).limit(1).scalar_subquery()
        for within, order in (
            (ledger.change_id >= span.lowest, ledger.change_id.asc()),
            (ledger.change_id <= span.highest, ledger.change_id.desc()),
        )
    ]
    lowest, highest = (await connection.execute(select(*ends))).one()
    return ledger.position.between(lowest, highest)


def _select(principal: Principal, conditions: Sequence[Condition]) -> Select[Any]:
    ledger = tables.ledger.c
    return select(
        ledger.position,
        ledger.change_id,
        ledger.resource,
        cast(ledger.action, Text).label("action"),
        ledger.object_id,
        ledger.occurred_at,
        ledger.recorded_at,
        ledger.actor_id,
        ledger.actor_name,
        ledger.correlation_id,
        ledger.link,
    ).where(*_wanted(principal, conditions))


def _wanted(principal: Principal, conditions: Sequence[Condition]) -> list[ColumnElement[bool]]:
    ledger = tables.ledger.c
    columns = {
        "change_id": ledger.change_id,
        "recorded_at": ledger.recorded_at,
        "resource": ledger.resource,
        "action": case(ACTION_NAMES, value=cast(ledger.action, Text)),
        "object_id": ledger.object_id,
        "correlation_id": ledger.correlation_id,
    }
    wanted = [ledger.organisation_id == principal.organisation_id, *where(columns, conditions)]
    if principal.readable_resources is not None:
        wanted.append(ledger.resource.in_(sorted(principal.readable_resources)))
    return wanted


def _change(row: Row[Any]) -> RecordedChange:
    return RecordedChange(
        row.position,
        row.change_id,
        ResourceName(row.resource),
        ACTION_NAMES[row.action],
        row.object_id,
        row.occurred_at,
        row.recorded_at,
        row.actor_id,
        row.actor_name,
        row.correlation_id,
        row.link,
    )
