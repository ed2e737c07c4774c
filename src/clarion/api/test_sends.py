"""The test of a receiver: one signed request by the way that all take."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import strawberry

from clarion.api import described
from clarion.api.context import Info
from clarion.api.events import WebhookAttempt, WebhookEvent, attempt_of, event_of
from clarion.api.inputs import existing_key
from clarion.core.errors import RequestRefused
from clarion.core.ids import NO_SUBSCRIPTION, TESTS, EventId, ReceiverId
from clarion.database.filters import Condition, Operator
from clarion.database.page import page_request
from clarion.records.event_list import list_events
from clarion.records.orders import order_cancel
from clarion.records.trail import SETTLED, Event
from clarion.registry.test_sends import ask_for_test

_LOOK_EVERY_S = 0.05
_MARGIN_S = 3.0
"""Beyond the receiver's own time: for routing, a turn, and the name of its host."""
_LOOKS_AT_THE_END = 20


@strawberry.type
class WebhookReceiverTestPayload:
    webhook_event: WebhookEvent | None = strawberry.field(
        description="The test as the audit trail has it; null if it was not yet routed when the time was over."
    )
    attempt: WebhookAttempt | None = strawberry.field(
        description="The request that was made; null if none was when the time was over: the receiver's breaker is open, or it is busy."
    )


@strawberry.type
class TestSendMutations:
    @described.mutation(
        "Send a signed test event to a receiver by the way that all events take, once, and answer with the attempt: after "
        "the receiver's timeout and four seconds at the latest; what was not sent by then is cancelled. A receiver is tested "
        "ten times an hour at most. Whatever keeps a connection from being made looks the same. "
        "With an idempotency key the answer does not wait: the test is found among the events."
    )
    async def test_webhook_receiver(self, info: Info, id: strawberry.ID) -> WebhookReceiverTestPayload | None:
        context = info.context
        key = ReceiverId(existing_key(id, "webhook receiver", "id"))
        async with context.changing() as connection:
            test_id, timeout_s = await ask_for_test(connection, context.principal, key)
        if not context.waiting(timeout_s + _MARGIN_S + _LOOKS_AT_THE_END * _LOOK_EVERY_S):
            return WebhookReceiverTestPayload(webhook_event=None, attempt=None)
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout_s + _MARGIN_S
        event = await _event_of(info, key, test_id)
        while (event is None or event.status not in SETTLED) and loop.time() < ends:
            # No connection is held meanwhile.
            await context.read_anew()
            await asyncio.sleep(_LOOK_EVERY_S)
            event = await (_event_of(info, key, test_id) if event is None else context.loaders.event.load(event.id))
        if event is not None and event.status not in SETTLED:
            event = await _cancelled(info, event)
        if event is None:
            return WebhookReceiverTestPayload(webhook_event=None, attempt=None)
        attempts = await context.loaders.attempts.load((EventId(event.id), 1))
        return WebhookReceiverTestPayload(
            webhook_event=event_of(event), attempt=attempt_of(attempts[0]) if attempts else None
        )


async def _cancelled(info: Info, event: Event) -> Event | None:
    """A test that was not sent in time is not sent at another time, when nobody looks."""
    with suppress(RequestRefused):  # settled just now
        async with info.context.changing() as connection:
            await order_cancel(connection, info.context.principal, event.id)
    for _ in range(_LOOKS_AT_THE_END):
        await info.context.read_anew()
        await asyncio.sleep(_LOOK_EVERY_S)
        found = await info.context.loaders.event.load(event.id)
        if found is not None and found.status in SETTLED:
            return found
    return event


async def _event_of(info: Info, receiver_id: ReceiverId, test_id: int) -> Event | None:
    wanted = [
        Condition("subscription_id", Operator.EQ, (NO_SUBSCRIPTION,)),
        Condition("receiver_id", Operator.EQ, (receiver_id,)),
        Condition("resource", Operator.EQ, (TESTS,)),
        Condition("object_id", Operator.EQ, (str(test_id),)),
    ]
    async with info.context.session.reading() as connection:
        page = await list_events(connection, info.context.principal, wanted, page_request(1, None, None, None))
    return page.rows[0][1] if page.rows else None
