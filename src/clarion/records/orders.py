"""Orders about events: written here, carried out by the worker that owns the receiver's shard."""

from __future__ import annotations

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access import history
from clarion.access.principal import Permission, Principal
from clarion.core.errors import Code, RequestRefused
from clarion.core.ids import shard_of
from clarion.database import tables
from clarion.records.trail import SETTLED, events_by_ids
from clarion.registry.rows import not_found

OBJECT_TYPE = "WebhookEvent"


async def order_cancel(connection: AsyncConnection, principal: Principal, event_id: int) -> None:
    """Order that the event be cancelled, and wake its worker at commit.

    Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`, CONFLICT on `id` for an event that is settled.
    """
    principal.require(Permission.WEBHOOKS_WRITE)
    event = (await events_by_ids(connection, principal.organisation_id, [event_id])).get(event_id)
    if event is None:
        raise not_found("webhook event", "id")
    if event.status in SETTLED:
        raise RequestRefused(Code.CONFLICT, f"the webhook event is settled already: {event.status}", "id")
    await connection.execute(
        insert(tables.commands)
        .inline()
        .values(
            organisation_id=principal.organisation_id,
            shard=shard_of(event.receiver_id),
            kind="CANCEL",
            event_id=event_id,
        )
    )
    await connection.execute(select(func.pg_notify("clarion_commands", "")))
    await history.record(connection, principal, [history.Entry("CANCEL", OBJECT_TYPE, str(event_id))])
