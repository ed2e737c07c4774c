"""Mutations of events: orders to the worker that owns them, answered when they are carried out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import strawberry

from clarion.api import described
from clarion.api.context import Info
from clarion.api.events import WebhookEvent, find_event
from clarion.api.inputs import existing_key
from clarion.records.orders import order_cancel, order_retry
from clarion.records.trail import SETTLED, Event

_LOOKS = 40
_LOOK_EVERY_S = 0.05


@strawberry.type
class WebhookEventPayload:
    webhook_event: WebhookEvent


@strawberry.type
class EventMutations:
    @described.mutation(
        "Cancel an event that is not settled. A request that is under way is not called back: if it succeeds, the event "
        "is DELIVERED, otherwise it is CANCELLED. The answer waits for the outcome, but no more than two seconds; "
        "with an idempotency key it does not wait."
    )
    async def cancel_webhook_event(self, info: Info, id: strawberry.ID) -> WebhookEventPayload | None:
        context = info.context
        key = existing_key(id, "webhook event", "id")
        async with context.changing() as connection:
            await order_cancel(connection, context.principal, key)
        return WebhookEventPayload(
            webhook_event=await _event_once(info, id, lambda event: event.status in SETTLED),
        )

    @described.mutation(
        "Try an open event that waits for its next attempt at once, or send a settled one once more, with the same id and "
        "the same bytes. A settled one does not wait for its object's order: the "
        "request carries the header clarion-retry with the number of its round. The answer waits until the event is open "
        "again, but no more than two seconds; "
        "with an idempotency key it does not wait."
    )
    async def retry_webhook_event(self, info: Info, id: strawberry.ID) -> WebhookEventPayload | None:
        context = info.context
        key = existing_key(id, "webhook event", "id")
        async with context.changing() as connection:
            round_ = await order_retry(connection, context.principal, key)
        return WebhookEventPayload(
            webhook_event=await _event_once(info, id, lambda event: event.round >= round_),
        )


async def _event_once(info: Info, id: str, holds: Callable[[Event], bool]) -> WebhookEvent:
    """The event as soon as this holds for it, or as it is when two seconds are over."""
    event = await find_event(info, id)
    if not info.context.waiting(_LOOKS * _LOOK_EVERY_S):
        return event
    for _ in range(_LOOKS):
        if holds(event.record):
            break
        # No connection is held meanwhile: whoever carries the order out may need a while.
        await info.context.read_anew()
        await asyncio.sleep(_LOOK_EVERY_S)
        event = await find_event(info, id)
    return event
