"""Events and attempts: the audit trail as the API shows it."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import orjson
import strawberry
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.api import described
from clarion.api.change_types import Change, change_at
from clarion.api.connection import Connection, Node, connection_of
from clarion.api.context import Info
from clarion.api.inputs import (
    NESTED_DEFAULT,
    Filtered,
    IDFilter,
    ResourceEnumFilter,
    StringFilter,
    conditions,
    decimal_key,
    existing_key,
    nested_first,
    same,
    text,
)
from clarion.api.receiver_types import WebhookReceiver, receiver_of
from clarion.api.subscription_types import WebhookSubscription, subscription_of
from clarion.api.values import (
    BigInt,
    JSONValue,
    WebhookAttemptOutcome,
    WebhookEventStatus,
    WebhookSubscriptionActions,
)
from clarion.core.errors import InvariantBroken
from clarion.core.ids import NO_SUBSCRIPTION, ResourceName
from clarion.database.page import page_request
from clarion.records.event_list import count_events, list_events
from clarion.records.trail import Attempt, Event
from clarion.registry.rows import not_found


@strawberry.type(description="One HTTP request made for an event, with its answer.")
class WebhookAttempt:
    number: int
    round: int = strawberry.field(description="0, and one more each time a settled event is sent again.")
    started_at: datetime
    duration_ms: int
    outcome: WebhookAttemptOutcome
    status_code: int | None
    response_headers: JSONValue | None = strawberry.field(description="Array of [name, value] in the answer's order.")
    response_body: str | None = strawberry.field(description="At most 4 KiB; what is no UTF-8 is replaced.")
    error: str | None
    source_address: str | None
    peer_address: str | None


@strawberry.type(description="One change for one subscription: what is sent, and its outcome.")
class WebhookEvent(Node):
    status: WebhookEventStatus
    reason: str | None = strawberry.field(description="Why it is held, or how it was settled.")
    resource: ResourceName
    action: WebhookSubscriptionActions
    object_id: str
    change_id: BigInt = strawberry.field(description="The change's number in the organisation's ledger, without gaps.")
    sequence: BigInt = strawberry.field(
        description="The event's number in its subscription, without gaps; 0 for a test send."
    )
    created: datetime = strawberry.field(description="When the change was recorded.")
    settled: datetime | None
    due_at: datetime | None = strawberry.field(description="When it is next tried; null: at once, or settled.")
    record: strawberry.Private[Event]

    @described.field("Null for a test send.")
    async def subscription(self, info: Info) -> WebhookSubscription | None:
        if self.record.subscription_id == NO_SUBSCRIPTION:
            return None
        found = await info.context.loaders.subscription.load(self.record.subscription_id)
        if found is None:
            raise InvariantBroken(f"event {self.record.id} has no subscription")
        return subscription_of(found)

    @strawberry.field
    async def receiver(self, info: Info) -> WebhookReceiver:
        found = await info.context.loaders.receiver.load(self.record.receiver_id)
        if found is None:
            raise InvariantBroken(f"event {self.record.id} has no receiver")
        return receiver_of(found)

    @described.field("The change that it tells of. Needs `changes:read`; null for a test send.")
    async def change(self, info: Info) -> Change | None:
        return await change_at(info, self.record.position)

    @described.field("Requests made for the event, oldest first.")
    async def attempts(self, info: Info, first: int = NESTED_DEFAULT) -> list[WebhookAttempt]:
        found = await info.context.loaders.attempts.load((self.record.id, nested_first(first)))
        return [attempt_of(one) for one in found]


@strawberry.input(description="Compares an event's status.")
class WebhookEventStatusFilter:
    eq: WebhookEventStatus | None = strawberry.UNSET
    neq: WebhookEventStatus | None = strawberry.UNSET
    in_: list[WebhookEventStatus] | None = strawberry.field(name="in", default=strawberry.UNSET)


@strawberry.input(description="Compares an action.")
class WebhookSubscriptionActionsFilter:
    eq: WebhookSubscriptionActions | None = strawberry.UNSET
    neq: WebhookSubscriptionActions | None = strawberry.UNSET
    in_: list[WebhookSubscriptionActions] | None = strawberry.field(name="in", default=strawberry.UNSET)


@strawberry.input(
    description="All that are given must hold. By subscription, and by receiver, resource or action as far as 300 subscriptions have "
    "these, settled events are found at once; so are those that were not delivered, and those of an object by `eq` or `in` among a "
    "million changes. Whatever else is asked, a page looks through 50,000 settled and 200,000 open events and may have fewer than "
    "`first`, or none: go on from `pageInfo.endCursor` as long as `hasNextPage` is true."
)
class WebhookEventsInputFilters:
    status: WebhookEventStatusFilter | None = strawberry.field(default=strawberry.UNSET, description="By status.")
    receiver_id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Whom they are for.")
    subscription_id: IDFilter | None = strawberry.field(
        default=strawberry.UNSET, description="What they were made for."
    )
    resource: ResourceEnumFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By the kind of object."
    )
    action: WebhookSubscriptionActionsFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By what happened to the object."
    )
    object_id: StringFilter | None = strawberry.field(
        default=strawberry.UNSET,
        description="By the object's key in the application. Give `resource`, too: keys repeat.",
    )


_FILTERED = {
    "status": Filtered("status", same),
    "receiver_id": Filtered("receiver_id", decimal_key),
    "subscription_id": Filtered("subscription_id", decimal_key),
    "resource": Filtered("resource", same),
    "action": Filtered("action", same),
    "object_id": Filtered("object_id", text),
}


@strawberry.enum(description="In which order events come.")
class WebhookEventSortEnum(Enum):
    ID_DESC = described.enum_value("ID_DESC", "Newest first.")
    ID_ASC = described.enum_value("ID_ASC", "Oldest first.")


@strawberry.type
class EventQueries:
    @described.field("The audit trail: every event, newest first unless `sort` says otherwise.")
    async def webhook_events(
        self,
        info: Info,
        filters: WebhookEventsInputFilters | None = None,
        sort: list[WebhookEventSortEnum] | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[WebhookEvent] | None:
        wanted = conditions(filters, _FILTERED)
        request = page_request(first, after, last, before)
        newest_first = not sort or sort[0] is WebhookEventSortEnum.ID_DESC
        principal = info.context.principal
        async with info.context.session.reading() as connection:
            page = await list_events(connection, principal, wanted, request, newest_first=newest_first)

        async def counting(connection: AsyncConnection) -> int:
            return await count_events(connection, principal, wanted)

        return connection_of(page, event_of, counting)

    @described.field("One event.")
    async def webhook_event(self, info: Info, id: strawberry.ID) -> WebhookEvent | None:
        return await find_event(info, id)


async def find_event(info: Info, id: str) -> WebhookEvent:
    """The event with this id. Raises RequestRefused (NOT_FOUND) on `id`."""
    found = await info.context.loaders.event.load(existing_key(id, "webhook event", "id"))
    if found is None:
        raise not_found("webhook event", "id")
    return event_of(found)


def event_of(record: Event) -> WebhookEvent:
    """The event's GraphQL object."""
    return WebhookEvent(
        id=strawberry.ID(str(record.id)),
        status=WebhookEventStatus(record.status.value),
        reason=record.reason,
        resource=record.resource,
        action=WebhookSubscriptionActions(record.action),
        object_id=record.object_id,
        change_id=BigInt(record.change_id),
        sequence=BigInt(record.sequence),
        created=record.created,
        settled=record.settled_at,
        due_at=record.due_at,
        record=record,
    )


def attempt_of(record: Attempt) -> WebhookAttempt:
    headers = None if record.response_headers is None else orjson.loads(record.response_headers)
    body = None if record.response_body is None else record.response_body.decode("utf-8", "replace")
    return WebhookAttempt(
        number=record.number,
        round=record.round,
        started_at=record.started_at,
        duration_ms=record.duration_ms,
        outcome=WebhookAttemptOutcome(record.outcome),
        status_code=record.status_code,
        response_headers=None if headers is None else JSONValue(headers),
        response_body=body,
        error=record.error,
        source_address=record.source_address,
        peer_address=record.peer_address,
    )
