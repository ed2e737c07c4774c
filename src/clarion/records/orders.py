"""Orders about events: written here, carried out by the worker that owns the receiver's shard or by the router."""

from __future__ import annotations

from sqlalchemy import func, insert, null, select
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access import history
from clarion.access.principal import Permission, Principal
from clarion.core.errors import Code, RequestRefused
from clarion.core.ids import NO_SUBSCRIPTION, shard_of
from clarion.database import tables
from clarion.records.trail import SETTLED, Event, events_by_ids
from clarion.registry.rights import has_right
from clarion.registry.rows import not_found

OBJECT_TYPE = "WebhookEvent"


async def order_cancel(connection: AsyncConnection, principal: Principal, event_id: int) -> None:
    """Order that the event be cancelled, and wake its worker at commit.

    Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`, CONFLICT on `id` for an event that is settled.
    """
    principal.require(Permission.EVENTS_WRITE)
    event = await _found(connection, principal, event_id)
    if event.status in SETTLED:
        raise RequestRefused(
            Code.CONFLICT, f"the webhook event is settled, as {event.status}: only open ones can be cancelled", "id"
        )
    await _command(connection, principal, event, "CANCEL")
    await history.record(connection, principal, [history.Entry("CANCEL", OBJECT_TYPE, str(event_id))])


async def order_retry(connection: AsyncConnection, principal: Principal, event_id: int) -> int:
    """Order that a settled event be sent once more, or that an open one be tried at once; the round that it is sent in.

    Of two orders at once one has an effect. Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`, CONFLICT on `id` for an
    open event that does not wait for its next attempt, or whose receiver or subscription was deleted, or whose receiver has no
    right to its resource any more.
    """
    principal.require(Permission.EVENTS_WRITE)
    event = await _found(connection, principal, event_id)
    if event.subscription_id == NO_SUBSCRIPTION:
        raise RequestRefused(Code.CONFLICT, "a test is not sent again: ask for another with testWebhookReceiver", "id")
    if event.status not in SETTLED and event.due_at is None:
        raise RequestRefused(
            Code.CONFLICT,
            "the webhook event is open and does not wait for a further attempt: it will be sent by itself",
            "id",
        )
    await _check_may_be_sent(connection, principal, event)
    if event.status not in SETTLED:
        await _command(connection, principal, event, "RETRY_NOW")
        await history.record(connection, principal, [history.Entry("RETRY_NOW", OBJECT_TYPE, str(event_id))])
        return event.round
    await connection.execute(
        insert(tables.intake)
        .inline()
        .values(
            organisation_id=principal.organisation_id,
            kind="RETRY",
            request={"event_id": event_id, "round": event.round},
        )
    )
    after = {"round": event.round + 1}
    await history.record(connection, principal, [history.Entry("RETRY", OBJECT_TYPE, str(event_id), after=after)])
    return event.round + 1


async def _found(connection: AsyncConnection, principal: Principal, event_id: int) -> Event:
    event = (await events_by_ids(connection, principal, [event_id])).get(event_id)
    if event is None:
        raise not_found("webhook event", "id")
    return event


async def _check_may_be_sent(connection: AsyncConnection, principal: Principal, event: Event) -> None:
    """Raises RequestRefused (CONFLICT) on `id` for an event that nobody is to be sent any more."""
    receivers, subscriptions = tables.receivers.c, tables.subscriptions.c
    for id_column, deleted, readable, key, what in (
        (receivers.id, receivers.deleted, receivers.readable_resources, event.receiver_id, "receiver"),
        (subscriptions.id, subscriptions.deleted, null(), event.subscription_id, "subscription"),
    ):
        live = (
            await connection.execute(
                select(readable.label("rights")).where(
                    id_column.table.c.organisation_id == principal.organisation_id, id_column == key, deleted.is_(None)
                )
            )
        ).one_or_none()
        if live is None:
            raise RequestRefused(Code.CONFLICT, f"the webhook event's {what} was deleted", "id")
        if not has_right(live.rights, event.resource):
            raise RequestRefused(
                Code.CONFLICT,
                f"the webhook event's receiver has no right to {event.resource} any more: give it one with updateWebhookReceiver",
                "id",
            )


async def _command(connection: AsyncConnection, principal: Principal, event: Event, kind: str) -> None:
    await connection.execute(
        insert(tables.commands)
        .inline()
        .values(
            organisation_id=principal.organisation_id, shard=shard_of(event.receiver_id), kind=kind, event_id=event.id
        )
    )
    await connection.execute(select(func.pg_notify("clarion_commands", "")))
