"""The audit trail: every event, open or settled, with what changed and each attempt.

An event is open while it stands in `queue`, and settled with a row in `events` for each of its rounds; shown is the
latest round. Both halves are cut to the page before they are put together, so that each walks its own index.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Row,
    Select,
    Table,
    Text,
    and_,
    any_,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    true,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.objects import by_parent
from clarion.access.principal import Principal
from clarion.core.ids import NO_SUBSCRIPTION, EventId, OrganisationId, ReceiverId, ResourceName, SubscriptionId
from clarion.database import tables
from clarion.database.filters import Condition, matches, where
from clarion.database.page import Page, PageRequest, SortKey, limited, number, page_of
from clarion.ledger.change import ACTION_NAMES


class EventStatus(StrEnum):
    """Where an event is. HELD is derived: its receiver is inactive."""

    PENDING = "PENDING"
    HELD = "HELD"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"


_OPEN = (EventStatus.PENDING, EventStatus.HELD)
SETTLED = (EventStatus.DELIVERED, EventStatus.FAILED, EventStatus.EXPIRED, EventStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class Event:
    """One change for one subscription. `reason` says why it is held or how it was settled; `due_at` when it is next
    tried, None meaning at once or already settled; `created` is when the change was recorded.
    """

    id: EventId
    round: int
    receiver_id: ReceiverId
    subscription_id: SubscriptionId
    sequence: int
    status: EventStatus
    reason: str | None
    due_at: datetime | None
    settled_at: datetime | None
    resource: ResourceName
    action: str
    object_id: str
    change_id: int
    created: datetime
    position: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTTP request made for an event. `response_headers` is a JSON array of [name, value]."""

    event_id: EventId
    round: int
    number: int
    started_at: datetime
    duration_ms: int
    outcome: str
    status_code: int | None
    response_headers: str | None
    response_body: bytes | None
    error: str | None
    source_address: str | None
    peer_address: str | None


async def list_events(
    connection: AsyncConnection,
    principal: Principal,
    conditions: Sequence[Condition],
    request: PageRequest,
    *,
    newest_first: bool = True,
) -> Page[Event]:
    """One page of the events that the client may see, by event id.

    Conditions are on `status`, `receiver_id`, `subscription_id`, `resource`, `action` and `object_id`.
    """
    halves = [
        limited(half.statement, _by_id(half.id, newest_first=newest_first), request)
        for half in _halves(principal, conditions)
    ]
    if not halves:
        return Page((), has_next=False, has_previous=False)
    both = union_all(*(half.subquery().select() for half in halves)).subquery("both")
    sort = _by_id(both.c.id, newest_first=newest_first)
    backwards = request.last is not None
    order = both.c.id.asc() if newest_first == backwards else both.c.id.desc()
    found = await connection.execute(select(both).order_by(order).limit(request.size + 1))
    return page_of([_event(row) for row in found], sort, request, lambda event: [event.id])


async def count_events(connection: AsyncConnection, principal: Principal, conditions: Sequence[Condition]) -> int:
    """How many events the whole filtered list has. Reads them all: asked for only where a caller wants it."""
    total = 0
    for half in _halves(principal, conditions):
        total += int(await connection.scalar(select(func.count()).select_from(half.statement.subquery())) or 0)
    return total


async def events_by_ids(connection: AsyncConnection, principal: Principal, ids: Collection[int]) -> dict[int, Event]:
    """Those of the events that the client may see that have these ids."""
    halves = [half.statement.where(half.id.in_(ids)) for half in _halves(principal, ())]
    found = await connection.execute(union_all(*halves))
    return {row.id: _event(row) for row in found}


async def events_of_subscriptions(
    connection: AsyncConnection, principal: Principal, subscription_ids: Sequence[int], first: int
) -> dict[int, list[Event]]:
    """The newest events of each subscription that the client may see, newest first, by subscription id."""
    subscriptions = tables.subscriptions
    parents = (
        select(subscriptions.c.id, subscriptions.c.receiver_id)
        .where(subscriptions.c.organisation_id == principal.organisation_id, subscriptions.c.id.in_(subscription_ids))
        .subquery("parents")
    )
    branches = []
    for half in _halves(principal, ()):
        newest = (
            half.statement.where(half.subscription_id == parents.c.id, half.receiver_id == parents.c.receiver_id)
            .order_by(half.id.desc())
            .limit(first)
            .lateral()
        )
        branches.append(select(newest).select_from(parents.join(newest, true())))
    found: dict[int, list[Event]] = {}
    for row in await connection.execute(union_all(*branches)):
        found.setdefault(row.subscription_id, []).append(_event(row))
    return {
        subscription_id: sorted(events, key=lambda event: event.id, reverse=True)[:first]
        for subscription_id, events in found.items()
    }


async def events_of_changes(
    connection: AsyncConnection, principal: Principal, positions: Sequence[int], first: int
) -> dict[int, list[Event]]:
    """The first events that each change made, of those that the client may see, by the change's position.

    The change has the range of their ids: no index of events by change is needed, which each settle would pay for.
    """
    ledger = tables.ledger
    parents = (
        select(ledger.c.position, ledger.c.first_event_id, ledger.c.events_count)
        .where(
            ledger.c.organisation_id == principal.organisation_id,
            ledger.c.position.in_(positions),
            ledger.c.first_event_id.is_not(None),
        )
        .subquery("parents")
    )
    branches = []
    for half in _halves(principal, ()):
        made = (
            half.statement.where(
                half.id >= parents.c.first_event_id,
                half.id < parents.c.first_event_id + parents.c.events_count,
                tables.ledger.c.position == parents.c.position,
            )
            .order_by(half.id)
            .limit(first)
            .lateral()
        )
        branches.append(select(made).select_from(parents.join(made, true())))
    found: dict[int, list[Event]] = {}
    for row in await connection.execute(union_all(*branches)):
        found.setdefault(row.position, []).append(_event(row))
    return {position: sorted(events, key=lambda event: event.id)[:first] for position, events in found.items()}


async def attempts_of_events(
    connection: AsyncConnection, organisation_id: OrganisationId, event_ids: Sequence[int], first: int
) -> dict[int, list[Attempt]]:
    """The first attempts of each event through all its rounds, by event id; of events that the client was found to see."""
    attempts = tables.attempts
    parents = select(func.unnest(literal(list(event_ids), ARRAY(BigInteger))).label("id")).subquery("parents")
    made = (
        select(*_ATTEMPT_COLUMNS)
        .where(attempts.c.organisation_id == organisation_id, attempts.c.event_id == parents.c.id)
        .order_by(attempts.c.round, attempts.c.number)
        .limit(first)
        .lateral("made")
    )
    statement = (
        select(made).select_from(parents.join(made, true())).order_by(made.c.event_id, made.c.round, made.c.number)
    )
    return await by_parent(connection, statement, Attempt, attrgetter("event_id"))


@dataclass(frozen=True, slots=True)
class _Half:
    """Open or settled events: a statement with the same columns for both, and the columns to look rows up by."""

    statement: Select[Any]
    id: ColumnElement[Any]
    subscription_id: ColumnElement[Any]
    receiver_id: ColumnElement[Any]


def _halves(principal: Principal, conditions: Sequence[Condition]) -> list[_Half]:
    """The halves in which events with these conditions can be, without what the client may not see.

    Whatever is read of events is read from here, so this is the one place that knows.
    """
    on_status = [condition for condition in conditions if condition.column == "status"]
    others = [condition for condition in conditions if condition.column != "status"]

    def wanted(statuses: Sequence[EventStatus]) -> list[EventStatus]:
        return [status for status in statuses if all(matches(condition, status) for condition in on_status)]

    halves = []
    if statuses := wanted(_OPEN):
        halves.append(_open_half(principal, others, statuses))
    if statuses := wanted(SETTLED):
        halves.append(_settled_half(principal, others, statuses))
    return halves


def _open_half(principal: Principal, conditions: Sequence[Condition], statuses: Sequence[EventStatus]) -> _Half:
    queue, ledger, receivers = tables.queue, tables.ledger, tables.receivers
    statement = (
        select(
            queue.c.event_id.label("id"),
            queue.c.round,
            queue.c.receiver_id,
            queue.c.subscription_id,
            queue.c.sequence,
            case((receivers.c.active, EventStatus.PENDING.value), else_=EventStatus.HELD.value).label("status"),
            case((receivers.c.active, null()), else_=receivers.c.disabled_reason).label("reason"),
            queue.c.due_at,
            cast(null(), DateTime(timezone=True)).label("settled_at"),
            *_change_columns(),
        )
        .join(ledger, ledger.c.position == queue.c.position)
        .join(receivers, receivers.c.id == queue.c.receiver_id)
        .where(*_visible(queue, principal), *where(_condition_columns(queue), conditions))
    )
    if len(statuses) == 1:
        statement = statement.where(receivers.c.active if statuses[0] is EventStatus.PENDING else ~receivers.c.active)
    return _Half(statement, queue.c.event_id, queue.c.subscription_id, queue.c.receiver_id)


def _settled_half(principal: Principal, conditions: Sequence[Condition], statuses: Sequence[EventStatus]) -> _Half:
    events, ledger = tables.events, tables.ledger
    later = tables.events.alias("later")
    again = tables.queue.alias("again")
    statement = (
        select(
            events.c.event_id.label("id"),
            events.c.round,
            events.c.receiver_id,
            events.c.subscription_id,
            events.c.sequence,
            events.c.status,
            events.c.reason,
            cast(null(), DateTime(timezone=True)).label("due_at"),
            events.c.settled_at,
            *_change_columns(),
        )
        .join(ledger, ledger.c.position == events.c.position)
        .where(
            *_visible(events, principal),
            *where(_condition_columns(events), conditions),
            ~select(later.c.event_id)
            .where(and_(later.c.event_id == events.c.event_id, later.c.round > events.c.round))
            .exists(),
            ~select(again.c.event_id).where(again.c.event_id == events.c.event_id).exists(),
        )
    )
    if len(statuses) < len(SETTLED):
        statement = statement.where(events.c.status.in_([status.value for status in statuses]))
    return _Half(statement, events.c.event_id, events.c.subscription_id, events.c.receiver_id)


def _visible(half: Table, principal: Principal) -> list[ColumnElement[bool]]:
    """The organisation's rows, of resources that the client may read; and tests, which are of no resource of the application."""
    own = half.c.organisation_id == principal.organisation_id
    if principal.readable_resources is None:
        return [own]
    readable = literal(sorted(principal.readable_resources), ARRAY(Text))
    return [own, or_(tables.ledger.c.resource == any_(readable), half.c.subscription_id == NO_SUBSCRIPTION)]


def _change_columns() -> list[ColumnElement[Any]]:
    ledger = tables.ledger.c
    return [
        ledger.resource,
        cast(ledger.action, Text).label("action"),
        ledger.object_id,
        ledger.change_id,
        ledger.recorded_at.label("created"),
        ledger.position,
    ]


def _condition_columns(half: Any) -> dict[str, ColumnElement[Any]]:
    ledger = tables.ledger.c
    return {
        "receiver_id": half.c.receiver_id,
        "subscription_id": half.c.subscription_id,
        "resource": ledger.resource,
        "action": case(ACTION_NAMES, value=cast(ledger.action, Text)),
        "object_id": ledger.object_id,
    }


def _by_id(column: ColumnElement[Any], *, newest_first: bool) -> list[SortKey]:
    return [SortKey("id", column, newest_first, number)]


_ATTEMPT_COLUMNS = tuple(tables.attempts.c[field.name] for field in dataclass_fields(Attempt))


def _event(row: Row[Any]) -> Event:
    return Event(
        EventId(row.id),
        row.round,
        ReceiverId(row.receiver_id),
        SubscriptionId(row.subscription_id),
        row.sequence,
        EventStatus(row.status),
        row.reason,
        row.due_at,
        row.settled_at,
        ResourceName(row.resource),
        ACTION_NAMES[row.action],
        row.object_id,
        row.change_id,
        row.created,
        row.position,
    )
