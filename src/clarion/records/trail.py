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
    FromClause,
    Row,
    Select,
    Text,
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
from clarion.ledger.change import ACTION_NAMES


class EventStatus(StrEnum):
    """Where an event is. HELD is derived: its receiver is inactive."""

    PENDING = "PENDING"
    HELD = "HELD"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"


OPEN = (EventStatus.PENDING, EventStatus.HELD)
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


async def events_by_ids(connection: AsyncConnection, principal: Principal, ids: Collection[int]) -> dict[int, Event]:
    """Those of the events that the client may see that have these ids."""
    found = await connection.execute(union_all(*(half.statement.where(half.id.in_(ids)) for half in halves(principal))))
    return {row.id: event_of(row) for row in found}


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
    for half in halves(principal):
        newest = (
            half.statement.where(
                half.table.c.subscription_id == parents.c.id, half.table.c.receiver_id == parents.c.receiver_id
            )
            .order_by(half.id.desc())
            .limit(first)
            .lateral()
        )
        branches.append(select(newest).select_from(parents.join(newest, true())))
    found: dict[int, list[Event]] = {}
    for row in await connection.execute(union_all(*branches)):
        found.setdefault(row.subscription_id, []).append(event_of(row))
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
    for half in halves(principal):
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
        found.setdefault(row.position, []).append(event_of(row))
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
class Half:
    """Open or settled events: a statement with the same columns for both, and the rows that it is of."""

    statement: Select[Any]
    table: FromClause

    @property
    def id(self) -> ColumnElement[Any]:
        return self.table.c.event_id


def halves(principal: Principal) -> tuple[Half, Half]:
    """All open and all settled events that the client may see."""
    return open_half(principal, tables.queue), settled_half(principal, tables.events)


# Whatever is shown of events is read through these two, so they are the one place that knows who may see what.


def open_half(principal: Principal, queue: FromClause) -> Half:
    """Those of the rows of the queue that the client may see."""
    ledger, receivers = tables.ledger, tables.receivers
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
        .where(*visible(queue, principal))
    )
    return Half(statement, queue)


def settled_half(principal: Principal, events: FromClause) -> Half:
    """Those of the rows of the settled events that the client may see, without rounds that another one followed."""
    ledger = tables.ledger
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
        .where(*visible(events, principal), *is_latest(events))
    )
    return Half(statement, events)


def is_latest(events: FromClause) -> list[ColumnElement[bool]]:
    """Of settled events: that they were not sent again since. Few are, and those that are have indexes of their own."""
    later = tables.events.alias("later")
    again = tables.queue.alias("again")
    return [
        ~select(later.c.event_id)
        .where(later.c.event_id == events.c.event_id, later.c.round > events.c.round, later.c.round > 0)
        .exists(),
        ~select(again.c.event_id).where(again.c.event_id == events.c.event_id, again.c.round > 0).exists(),
    ]


def visible(half: FromClause, principal: Principal) -> list[ColumnElement[bool]]:
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


_ATTEMPT_COLUMNS = tuple(tables.attempts.c[field.name] for field in dataclass_fields(Attempt))


def event_of(row: Row[Any]) -> Event:
    """The event in a row of `halves`."""
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
