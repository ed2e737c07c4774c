"""The list of events: pages and counts of what may be millions of them.

Each settle pays for each index of settled events. So there are three: by organisation, by subscription and, of those that were
not delivered, by status. A receiver's, a resource's or an action's events are those of its subscriptions; an object's are found
by its changes, which know the events that they made. What else is asked is looked for among SEARCHED_MAX events of the index that
serves best: a page then ends where the search did, with fewer events than asked for, and says that there are more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Row,
    Select,
    Table,
    Text,
    any_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.principal import Principal
from clarion.core.ids import NO_SUBSCRIPTION, TESTS
from clarion.database import tables
from clarion.database.filters import Condition, Operator, matches, where
from clarion.database.page import Page, PageRequest, SortKey, decode_cursor, encode_cursor, number, page_of
from clarion.database.plans import for_these_values
from clarion.ledger.change import ACTION_NAMES
from clarion.records.trail import (
    OPEN,
    SETTLED,
    Event,
    EventStatus,
    Half,
    event_of,
    is_latest,
    open_half,
    settled_half,
    visible,
)

SEARCHED_MAX = 50_000
"""How many settled events a page looks through."""
OPEN_SEARCHED_MAX = 200_000
"""How many open ones: they are fewer, and a look at one costs less."""
CHANGES_SEARCHED_MAX = 1_000_000
"""Among how many changes the events of an object are looked for, with the help of an index."""
CHANGES_OF_OBJECTS_MAX = 300
"""Of how many of an object's changes a page takes the events."""
SUBSCRIPTIONS_MAX = 300
"""Of how many subscriptions at most the events are merged; those of more are looked for among the organisation's."""


_UNDELIVERED = frozenset(SETTLED) - {EventStatus.DELIVERED}


async def list_events(
    connection: AsyncConnection,
    principal: Principal,
    conditions: Sequence[Condition],
    request: PageRequest,
    *,
    newest_first: bool = True,
) -> Page[Event]:
    """One page of the events that the client may see, by event id.

    Conditions are on `status`, `receiver_id`, `subscription_id`, `resource`, `action` and `object_id`. Raises RequestRefused
    for a cursor that is none.
    """
    sort = [SortKey("id", tables.events.c.event_id, newest_first, number)]
    span = _span_of(sort, request, newest_first=newest_first)
    asked = await _asked(connection, principal, conditions)
    reached: int | None = None
    changes: Sequence[Row[Any]] | None = None
    if asked.of_objects:
        changes, reached = await _changes_of_objects(connection, asked, span)
        span = span.until(reached)
    parts = _parts(asked, span, request.size + 1, changes)
    found: Sequence[Row[Any]] = ()
    if parts:
        found = (await connection.execute(union_all(*(part.statement.subquery().select() for part in parts)))).all()
    for part in parts:
        # A half that has enough may have been looked through further than the other.
        if part.end is not None and sum(row.status in part.statuses for row in found) <= request.size:
            end = await connection.scalar(part.end)
            span = span.until(end)
            reached = reached if end is None else span.end
    rows = sorted((row for row in found if span.has(row.id)), key=lambda row: row.id, reverse=span.downwards)
    page = page_of([event_of(row) for row in rows], sort, request, lambda event: [event.id])
    if reached is None or len(rows) > request.size:
        return page
    cursor = encode_cursor(sort, [reached])
    if request.last is not None:
        return Page(page.rows, has_next=page.has_next, has_previous=True, start=cursor)
    return Page(page.rows, has_next=True, has_previous=page.has_previous, end=cursor)


async def count_events(connection: AsyncConnection, principal: Principal, conditions: Sequence[Condition]) -> int:
    """How many events the whole filtered list has. Reads them all: asked for only where a caller wants it."""
    asked = await _asked(connection, principal, conditions)
    total = 0
    for table, statuses in ((tables.queue, asked.opened), (tables.events, asked.settled)):
        if statuses and asked.subscription_ids != []:
            total += int(await connection.scalar(_counting(asked, table, statuses)) or 0)
    return total


@dataclass(frozen=True, slots=True)
class _Span:
    """Ids of events from one to another, both included, in the direction in which they are read."""

    lowest: int | None
    highest: int | None
    downwards: bool

    @property
    def end(self) -> int | None:
        return self.lowest if self.downwards else self.highest

    def until(self, end: int | None) -> _Span:
        """Cut behind this id, if it is in the span."""
        if end is None or not self.has(end):
            return self
        return _Span(end, self.highest, True) if self.downwards else _Span(self.lowest, end, False)

    def has(self, event_id: int) -> bool:
        return (self.lowest is None or event_id >= self.lowest) and (self.highest is None or event_id <= self.highest)

    def on(self, column: ColumnElement[Any]) -> list[ColumnElement[bool]]:
        conditions = []
        if self.lowest is not None:
            conditions.append(column >= self.lowest)
        if self.highest is not None:
            conditions.append(column <= self.highest)
        return conditions

    def order(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return column.desc() if self.downwards else column.asc()


def _span_of(sort: Sequence[SortKey], request: PageRequest, *, newest_first: bool) -> _Span:
    ends: list[int | None] = []
    for cursor, field in ((request.after, "after"), (request.before, "before")):
        ends.append(None if cursor is None else decode_cursor(sort, cursor, field)[0])
    higher, lower = ends if newest_first else reversed(ends)
    return _Span(
        None if lower is None else lower + 1,
        None if higher is None else higher - 1,
        newest_first != (request.last is not None),
    )


# ---------------------------------------------------------------- what is asked


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a list is of.

    `subscription_ids` are those that its events can be of, with NO_SUBSCRIPTION for tests; None where any will do or where they
    are too many: then `subscriptions` finds them. `is_certain`: resource, action and rights let all their events through.
    """

    principal: Principal
    opened: tuple[EventStatus, ...]
    settled: tuple[EventStatus, ...]
    on_row: tuple[Condition, ...]
    on_change: tuple[Condition, ...]
    subscription_ids: list[int] | None
    subscriptions: Select[Any] | None
    has_tests: bool
    is_certain: bool

    @property
    def is_all(self) -> bool:
        """Whether nothing but a status is asked for, by somebody who may see everything."""
        return not (self.on_row or self.on_change or self.subscriptions is not None)

    @property
    def of_objects(self) -> bool:
        return any(one.column == "object_id" and one.operator is not Operator.NEQ for one in self.on_change)

    @property
    def looks_at_changes(self) -> bool:
        """Whether an event's change has to be seen before it is known to be meant."""
        return not self.is_certain or any(one.column == "object_id" for one in self.on_change)


async def _asked(connection: AsyncConnection, principal: Principal, conditions: Sequence[Condition]) -> _Asked:
    def on(*columns: str) -> tuple[Condition, ...]:
        return tuple(one for one in conditions if one.column in columns)

    def wanted(statuses: Iterable[EventStatus]) -> tuple[EventStatus, ...]:
        return tuple(status for status in statuses if all(matches(one, status) for one in on("status")))

    test = {"resource": TESTS, "action": "CREATE", "subscription_id": NO_SUBSCRIPTION}
    has_tests = all(matches(one, test[one.column]) for one in on(*test))
    ids: list[int] | None = None
    subscriptions: Select[Any] | None = None
    is_certain = True
    is_by_change = bool(on("resource", "action")) or principal.readable_resources is not None
    if is_by_change or on("receiver_id", "subscription_id"):
        subscriptions = _subscriptions(principal, on("resource", "action", "receiver_id", "subscription_id"))
        found = (await connection.execute(_with_edits(principal, subscriptions).add_columns(for_these_values()))).all()
        if len(found) <= SUBSCRIPTIONS_MAX:
            ids = [row.id for row in found] + [NO_SUBSCRIPTION] * has_tests
        is_certain = not is_by_change or (ids is not None and all(row.listened_for == 1 for row in found))
    else:
        await connection.execute(select(for_these_values()))
    return _Asked(
        principal,
        wanted(OPEN),
        wanted(SETTLED),
        on("receiver_id", "subscription_id"),
        on("resource", "action", "object_id"),
        ids,
        subscriptions,
        has_tests,
        is_certain,
    )


def _subscriptions(principal: Principal, conditions: Sequence[Condition]) -> Select[Any]:
    """The ids of subscriptions, deleted ones too, that have ever been such that these conditions can hold of their events."""
    listened, subscriptions = tables.subscription_resources, tables.subscriptions
    columns = {
        "resource": listened.c.resource,
        "action": listened.c.action,
        "receiver_id": subscriptions.c.receiver_id,
        "subscription_id": listened.c.subscription_id,
    }
    statement = (
        select(listened.c.subscription_id.label("id"))
        .distinct()
        .join(subscriptions, subscriptions.c.id == listened.c.subscription_id)
        .where(listened.c.organisation_id == principal.organisation_id, *where(columns, conditions))
    )
    if principal.readable_resources is not None:
        statement = statement.where(listened.c.resource.in_(sorted(principal.readable_resources)))
    return statement


def _with_edits(principal: Principal, subscriptions: Select[Any]) -> Select[Any]:
    """The first of these, each with how many pairs of resource and action it has ever listened for."""
    some = subscriptions.limit(SUBSCRIPTIONS_MAX + 1).subquery("some")
    listened = tables.subscription_resources.alias("each")
    pairs = (
        select(func.count())
        .where(listened.c.organisation_id == principal.organisation_id, listened.c.subscription_id == some.c.id)
        .scalar_subquery()
    )
    return select(some.c.id, pairs.label("listened_for"))


def _on_row(asked: _Asked, rows: FromClause) -> list[ColumnElement[bool]]:
    """What can be said of an event without its change."""
    conditions = where({name: rows.c[name] for name in ("receiver_id", "subscription_id")}, asked.on_row)
    if asked.subscription_ids is not None:
        conditions.append(rows.c.subscription_id == any_(literal(asked.subscription_ids, ARRAY(BigInteger))))
    elif asked.subscriptions is not None:
        among = rows.c.subscription_id.in_(asked.subscriptions)
        conditions.append(or_(among, rows.c.subscription_id == NO_SUBSCRIPTION) if asked.has_tests else among)
    return conditions


def _on_change(asked: _Asked) -> list[ColumnElement[bool]]:
    """What is to be said of an event's change."""
    ledger = tables.ledger.c
    columns = {
        "resource": ledger.resource,
        "action": case(ACTION_NAMES, value=cast(ledger.action, Text)),
        "object_id": ledger.object_id,
    }
    return where(columns, asked.on_change)


# ---------------------------------------------------------------- how it is read


@dataclass(frozen=True, slots=True)
class _Part:
    """Open or settled events of a page. `end` finds the id at which the search ends, None if it looks through all."""

    statement: Select[Any]
    statuses: tuple[EventStatus, ...]
    end: Select[Any] | None


def _parts(asked: _Asked, span: _Span, size: int, changes: Sequence[Row[Any]] | None) -> list[_Part]:
    """What is read of open and of settled events for `size` rows; of these changes alone, if any are given."""
    if asked.subscription_ids == [] or changes == []:
        return []
    parts = []
    if asked.opened:
        is_active = EventStatus.PENDING in asked.opened
        active = [] if asked.opened == OPEN else [tables.receivers.c.active == is_active]
        if changes is None:
            parts.append(_open_part(asked, span, size, active))
        else:
            parts.append(
                _of_changes(asked, span, size, changes, open_half(asked.principal, tables.queue), OPEN, active)
            )
    if asked.settled:
        if changes is None:
            parts.append(_settled_part(asked, span, size))
        else:
            half = settled_half(asked.principal, tables.events)
            parts.append(_of_changes(asked, span, size, changes, half, SETTLED, _of_statuses(asked)))
    return parts


def _of_statuses(asked: _Asked) -> list[ColumnElement[bool]]:
    if asked.settled == SETTLED:
        return []
    return [tables.events.c.status.in_([status.value for status in asked.settled])]


def _open_part(asked: _Asked, span: _Span, size: int, active: Sequence[ColumnElement[bool]]) -> _Part:
    """By the index of the organisation's open events."""
    queue = tables.queue
    own = [queue.c.organisation_id == asked.principal.organisation_id, *span.on(queue.c.event_id)]
    walked = select(queue).where(*own).order_by(span.order(queue.c.event_id))
    is_search = not asked.is_all or bool(active)
    # Cut before it is put together with changes and receivers, or the database may do that for all and sort them.
    rows = walked.limit(OPEN_SEARCHED_MAX if is_search else size).subquery("rows")
    half = open_half(asked.principal, rows)
    statement = half.statement.where(*_on_row(asked, rows), *_on_change(asked), *active)
    statement = statement.order_by(span.order(half.id)).limit(size)
    if not is_search:
        return _Part(statement, OPEN, None)
    end = walked.with_only_columns(queue.c.event_id).offset(OPEN_SEARCHED_MAX - 1).limit(1)
    return _Part(statement, OPEN, end)


def _settled_part(asked: _Asked, span: _Span, size: int) -> _Part:
    """By the index of status or of subscription, each with a range for each of them, otherwise by that of the organisation.

    First ids, of which the indexes have all that is needed; then as many of their rows, in order, as are needed for the page.
    """
    events = tables.events
    own = [events.c.organisation_id == asked.principal.organisation_id, *span.on(events.c.event_id)]
    keys: FromClause | None = None
    keys_count = 1
    on_row = _on_row(asked, events)
    if _UNDELIVERED.issuperset(asked.settled):
        keys, keys_count = _keys(list(asked.settled), Text), len(asked.settled)
        own += [events.c.status == keys.c.key, events.c.status != EventStatus.DELIVERED.value]
        is_search = not asked.is_all
    elif asked.subscription_ids is not None:
        keys, keys_count = _keys(asked.subscription_ids, BigInteger), len(asked.subscription_ids)
        own.append(events.c.subscription_id == keys.c.key)
        on_row = where({name: events.c[name] for name in ("receiver_id", "subscription_id")}, asked.on_row)
        is_search = asked.looks_at_changes or asked.settled != SETTLED
    else:
        is_search = not asked.is_all or asked.settled != SETTLED
    # Some are not shown, as they were sent again.
    walked_max = max(SEARCHED_MAX // keys_count if is_search else 0, 2 * size)
    walked = select(events.c.event_id).distinct().where(*own).order_by(span.order(events.c.event_id))
    each = walked.limit(walked_max).lateral("each")
    last = walked.offset(walked_max - 1).limit(1).lateral("last")
    if keys is None:
        ids, end = select(each), select(last)
    else:
        ids = (
            select(each.c.event_id)
            .distinct()
            .select_from(keys.join(each, true()))
            .order_by(span.order(each.c.event_id))
        )
        nearest = func.max(last.c.event_id) if span.downwards else func.min(last.c.event_id)
        end = select(nearest).select_from(keys.join(last, true()))
    found = ids.subquery("found")
    half = settled_half(asked.principal, events)
    statement = (
        half.statement.where(half.id == found.c.event_id, *on_row, *_on_change(asked), *_of_statuses(asked))
        .order_by(span.order(found.c.event_id))
        .limit(size)
    )
    return _Part(statement, SETTLED, end)


def _of_changes(
    asked: _Asked,
    span: _Span,
    size: int,
    changes: Sequence[Row[Any]],
    half: Half,
    statuses: tuple[EventStatus, ...],
    conditions: Sequence[ColumnElement[bool]],
) -> _Part:
    """Events of these changes, each of which knows the ids of its own."""
    columns = [
        literal([getattr(row, name) for row in changes], ARRAY(BigInteger))
        for name in ("position", "first_event_id", "last_event_id")
    ]
    made_by = (
        func.unnest(*columns).table_valued("position", "first_event_id", "last_event_id").render_derived("made_by")
    )
    each = (
        half.statement.where(
            half.id.between(made_by.c.first_event_id, made_by.c.last_event_id),
            half.table.c.position == made_by.c.position,
            *span.on(half.id),
            *_on_row(asked, half.table),
            *_on_change(asked),
            *conditions,
        )
        .order_by(span.order(half.id))
        .limit(size)
        .lateral("each")
    )
    statement = select(each).select_from(made_by.join(each, true())).order_by(span.order(each.c.id)).limit(size)
    return _Part(statement, statuses, None)


def _keys(values: Sequence[Any], kind: type[Any]) -> FromClause:
    return select(func.unnest(literal(list(values), ARRAY(kind))).label("key")).subquery("keys")


async def _changes_of_objects(
    connection: AsyncConnection, asked: _Asked, span: _Span
) -> tuple[list[Row[Any]], int | None]:
    """The changes whose events may be on the page, in order, and the id at which the search ended; None: at the last of all.

    The search begins with the change of the span's first event.
    """
    ledger = tables.ledger.c
    own = ledger.organisation_id == asked.principal.organisation_id
    last_event_id = (ledger.first_event_id + ledger.events_count - 1).label("last_event_id")
    row = (await connection.execute(_stretch(asked.principal, span))).one_or_none()
    if row is None:
        return [], None
    ends = (row.position, row.first) if span.downwards else (row.first, row.position)
    readable = asked.principal.readable_resources
    statement = (
        select(ledger.position, ledger.first_event_id, last_event_id)
        .where(own, ledger.position.between(*ends), ledger.first_event_id.is_not(None), *_on_change(asked))
        .order_by(span.order(ledger.position))
        .limit(CHANGES_OF_OBJECTS_MAX)
    )
    if readable is not None:
        statement = statement.where(ledger.resource.in_([*sorted(readable), TESTS]))
    changes: list[Row[Any]] = [*await connection.execute(statement)]
    if len(changes) == CHANGES_OF_OBJECTS_MAX:
        return changes, changes[-1].first_event_id if span.downwards else changes[-1].last_event_id
    if row.beyond is None:
        return changes, None
    return changes, row.first_event_id if span.downwards else row.last_event_id


def _stretch(principal: Principal, span: _Span) -> Select[Any]:
    """The last change with events of the CHANGES_SEARCHED_MAX that begin with the change of the span's first event.

    `first` is the position of that one, `beyond` null if no change of the organisation lies further on.
    """
    ledger = tables.ledger.c
    own = ledger.organisation_id == principal.organisation_id
    firsts = [
        select(table.c.position)
        .where(table.c.organisation_id == principal.organisation_id, *span.on(table.c.event_id))
        .order_by(span.order(table.c.event_id))
        .limit(1)
        .scalar_subquery()
        for table in (tables.queue, tables.events)
    ]
    first = func.greatest(*firsts) if span.downwards else func.least(*firsts)
    begin = select(ledger.change_id).where(own, ledger.position == first).scalar_subquery()
    if span.downwards:
        farthest = begin - CHANGES_SEARCHED_MAX
        within, further = ledger.change_id > farthest, ledger.change_id <= farthest
        order, back = ledger.change_id.asc(), ledger.change_id.desc()
    else:
        farthest = begin + CHANGES_SEARCHED_MAX
        within, further = ledger.change_id < farthest, ledger.change_id >= farthest
        order, back = ledger.change_id.desc(), ledger.change_id.asc()
    beyond = select(ledger.change_id).where(own, further).order_by(back).limit(1).scalar_subquery()
    return (
        select(
            ledger.position,
            ledger.first_event_id,
            (ledger.first_event_id + ledger.events_count - 1).label("last_event_id"),
            first.label("first"),
            beyond.label("beyond"),
        )
        .where(own, within, ledger.first_event_id.is_not(None))
        .order_by(order)
        .limit(1)
    )


def _counting(asked: _Asked, table: Table, statuses: tuple[EventStatus, ...]) -> Select[Any]:
    """Counts open or settled events, with a look at their changes only where that tells more."""
    ledger, receivers = tables.ledger, tables.receivers
    statement = (
        select(func.count())
        .select_from(table)
        .where(table.c.organisation_id == asked.principal.organisation_id, *_on_row(asked, table))
    )
    if asked.looks_at_changes:
        statement = statement.join(ledger, ledger.c.position == table.c.position).where(
            *visible(table, asked.principal), *_on_change(asked)
        )
        if asked.of_objects:
            # From the change to its events, not the other way round; see the index ledger_search.
            statement = statement.where(
                ledger.c.organisation_id == asked.principal.organisation_id,
                ledger.c.position > 0,
                table.c.event_id >= ledger.c.first_event_id,
                table.c.event_id < ledger.c.first_event_id + ledger.c.events_count,
            )
    if table is tables.events:
        statement = statement.where(*is_latest(table))
        if statuses != SETTLED:
            statement = statement.where(table.c.status.in_([status.value for status in statuses]))
    elif statuses != OPEN:
        statement = statement.join(receivers, receivers.c.id == table.c.receiver_id).where(
            receivers.c.active if EventStatus.PENDING in statuses else ~receivers.c.active
        )
    return statement
