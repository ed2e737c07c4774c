"""What a subscription would have made of recent changes. Nothing is written and nothing is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Text, case, cast, func, literal_column, null, select
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.core.ids import STANDARD_BODY, TEMPLATE_BODY, OrganisationId
from clarion.database import tables
from clarion.delivery.body import body_of
from clarion.delivery.event import Event
from clarion.expressions.program import EvaluationFailed, Program
from clarion.expressions.render import render_template
from clarion.expressions.row import ROW_BYTES_MAX, Values
from clarion.ledger.change import Action, Change

SCANNED_MAX = 10_000
"""Changes of the organisation, of whatever resource, that are looked at from the newest one back."""

TIME_NS = 1_000_000_000
"""How long a preview may evaluate: it shares the API's process with everybody's requests."""


class Outcome(StrEnum):
    """What a change would have come to."""

    MATCHED = "MATCHED"
    NOT_MATCHED = "NOT_MATCHED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Asked:
    """A subscription that need not exist. `fields` is a JSON array; `decimals` names the resource's decimal columns."""

    resource: str
    action: str
    condition: Program | None
    fields: str | None
    template: Program | None
    decimals: Collection[str]


@dataclass(frozen=True, slots=True)
class Previewed:
    """One change and what would have become of it. `error` says why the condition or the template had no result."""

    change_id: int
    object_id: str
    recorded_at: datetime
    outcome: Outcome
    error: str | None
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Preview:
    """The changes, newest first. `is_complete` is false if time ran out before all that were asked for were looked at."""

    changes: tuple[Previewed, ...]
    is_complete: bool


async def preview(
    connection: AsyncConnection,
    organisation_id: OrganisationId,
    asked: Asked,
    since: datetime | None,
    first: int,
    clock_ns: Callable[[], int],
) -> Preview:
    """What would have become of the latest `first` changes of the resource and action, among the latest SCANNED_MAX of all."""
    ends_ns = clock_ns() + TIME_NS
    changes: list[Previewed] = []
    async for row in _recent(connection, organisation_id, asked, since, first):
        if clock_ns() > ends_ns:
            return Preview(tuple(changes), is_complete=False)
        changes.append(_previewed(row, asked))
        # Between two evaluations others have their turn.
        await asyncio.sleep(0)
    return Preview(tuple(changes), is_complete=True)


async def _recent(
    connection: AsyncConnection, organisation_id: OrganisationId, asked: Asked, since: datetime | None, first: int
) -> AsyncIterator[Any]:
    ledger = tables.ledger.c
    action = cast(ledger.action, Text).label("action")
    scanned = (
        select(ledger.position, ledger.change_id, ledger.resource, action, ledger.recorded_at)
        .where(ledger.organisation_id == organisation_id)
        .order_by(ledger.change_id.desc())
        .limit(SCANNED_MAX)
        .subquery("scanned")
    )
    wanted = [scanned.c.resource == asked.resource, scanned.c.action == Action[asked.action].value]
    if since is not None:
        wanted.append(scanned.c.recorded_at >= since)
    lowest = (
        select(scanned.c.position).where(*wanted).order_by(scanned.c.change_id.desc()).limit(first).subquery("lowest")
    )
    size = func.coalesce(func.octet_length(ledger.old), 0) + func.coalesce(func.octet_length(ledger.new), 0)
    whole = size <= ROW_BYTES_MAX
    statement = (
        select(
            ledger.position,
            ledger.change_id,
            ledger.resource,
            action,
            ledger.object_id,
            ledger.occurred_at,
            ledger.recorded_at,
            ledger.actor_id,
            ledger.actor_name,
            ledger.correlation_id,
            # What is too large for an expression is not even fetched.
            case((whole, ledger.old), else_=null()).label("old"),
            case((whole, ledger.new), else_=null()).label("new"),
            size.label("size"),
        )
        .join(lowest, literal_column("lowest.position") == ledger.position)
        .order_by(ledger.change_id.desc())
    )
    # One by one: a hundred rows of a megabyte are not held at once.
    async with connection.stream(statement) as found:
        async for row in found:
            yield row


def _previewed(row: Any, asked: Asked) -> Previewed:
    *columns, size = row
    change = Change(*columns)
    error: str | None = None
    body: bytes | None = None
    outcome = Outcome.NOT_MATCHED
    values = Values(change, asked.decimals)
    try:
        if size > ROW_BYTES_MAX:
            raise EvaluationFailed(f"the row has {size} bytes, expressions look into {ROW_BYTES_MAX} at most")
        if asked.condition is None or values.decide(asked.condition):
            outcome = Outcome.MATCHED
            body = _body(change, asked, values)
    except EvaluationFailed as failed:
        outcome, error = Outcome.FAILED, str(failed)
    return Previewed(change.change_id, change.object_id, change.recorded_at, outcome, error, body)


def _body(change: Change, asked: Asked, values: Values) -> bytes | None:
    made = None if asked.template is None else render_template(values, asked.template)
    event = Event(
        queue_id=0,
        event_id=0,
        round=0,
        organisation_id=0,
        receiver_id=0,
        subscription_id=0,
        sequence=0,
        lane=0,
        change=change,
        render_version=STANDARD_BODY if asked.template is None else TEMPLATE_BODY,
        fields=asked.fields,
        body=made,
    )
    return body_of(event)
