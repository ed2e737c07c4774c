"""Subscriptions as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from clarion.api import described
from clarion.api.clients import Client, client_by_id
from clarion.api.connection import Node
from clarion.api.context import Info
from clarion.api.inputs import NESTED_DEFAULT, nested_first
from clarion.api.receiver_types import WebhookReceiver, receiver_of
from clarion.api.values import BigInt, WebhookSubscriptionActions, WebhookSubscriptionInactiveReason
from clarion.core.errors import InvariantBroken
from clarion.core.ids import ResourceName
from clarion.registry.rights import has_right
from clarion.registry.subscriptions import Subscription

if TYPE_CHECKING:
    from clarion.api.events import WebhookEvent


@strawberry.type(description="Changes on which a subscription's expressions had no result.")
class WebhookEvaluationErrors:
    conditions_count: BigInt = strawberry.field(description="Of the condition: the change made no event.")
    templates_count: BigInt = strawberry.field(description="Of the template: the event failed with TEMPLATE_FAILED.")
    since: datetime = strawberry.field(description="When the first of them was.")
    last_at: datetime
    last_change_id: BigInt = strawberry.field(description="The latest of these changes.")
    last_message: str = strawberry.field(description="Why it had no result.")


@strawberry.type(description="Resource and action that a receiver listens for.")
class WebhookSubscription(Node):
    resource: ResourceName
    action: WebhookSubscriptionActions
    active: bool = strawberry.field(
        description="While false no events are made. True does not say that they are: see `inactiveReason`."
    )
    receiver_id: strawberry.ID
    expires_after_seconds: int | None = strawberry.field(description="Age at which an undelivered event is given up.")
    condition: str | None = strawberry.field(
        description="Events are made only of changes for which this expression (CEL) is true; null: of all."
    )
    fields: list[str] | None = strawberry.field(
        description="The only fields that `data`, `previous` and `changed` of the body show; null: all."
    )
    template: str | None = strawberry.field(
        description="An expression (CEL) whose map is sent in place of the standard body."
    )
    etag: str = strawberry.field(name="_etag", description="To be sent back with an update or a delete.")
    created: datetime
    updated: datetime
    deleted: datetime | None = strawberry.field(
        description="Set on subscriptions that only the audit record still shows."
    )
    record: strawberry.Private[Subscription]

    @strawberry.field
    async def receiver(self, info: Info) -> WebhookReceiver:
        found = await info.context.loaders.receiver.load(self.record.receiver_id)
        if found is None:
            raise InvariantBroken(f"subscription {self.record.id} has no receiver")
        return receiver_of(found)

    @described.field("Why no events are made although the subscription is there; null: they are made.")
    async def inactive_reason(self, info: Info) -> WebhookSubscriptionInactiveReason | None:
        if self.record.deleted is not None:
            return WebhookSubscriptionInactiveReason.DELETED
        if not self.record.active:
            return WebhookSubscriptionInactiveReason.MANUAL
        receiver = await info.context.loaders.receiver.load(self.record.receiver_id)
        if receiver is not None and not has_right(receiver.readable_resources, self.record.resource):
            return WebhookSubscriptionInactiveReason.RIGHT_REVOKED
        return None

    @described.field("The subscription's events, newest first.")
    async def events(
        self, info: Info, first: int = NESTED_DEFAULT
    ) -> list[Annotated[WebhookEvent, strawberry.lazy("clarion.api.events")]]:
        from clarion.api.events import event_of

        found = await info.context.loaders.events.load((self.record.id, nested_first(first)))
        return [event_of(one) for one in found]

    @described.field(
        "Changes on which the condition or the template had no result since the subscription holds as it stands; "
        "null if there was none. They made no event, or one that failed."
    )
    async def evaluation_errors(self, info: Info) -> WebhookEvaluationErrors | None:
        # The message may tell of the change.
        if not info.context.principal.may_read(self.record.resource):
            return None
        found = await info.context.loaders.evaluation_errors.load(self.record.id)
        if found is None:
            return None
        return WebhookEvaluationErrors(
            conditions_count=BigInt(found.conditions_count),
            templates_count=BigInt(found.templates_count),
            since=found.since,
            last_at=found.last_at,
            last_change_id=BigInt(found.last_change_id),
            last_message=found.last_message,
        )

    @described.field(
        "Position in the ledger from which on changes are matched as the subscription stands, since it was last activated "
        "or its condition, fields or template were edited; null until the router has taken it up."
    )
    async def active_from_position(self, info: Info) -> BigInt | None:
        found = await info.context.loaders.activation.load(self.record.id)
        return None if found is None else BigInt(found.from_position)

    @described.field("Position in the ledger before which changes were matched; null while they are.")
    async def active_until_position(self, info: Info) -> BigInt | None:
        found = await info.context.loaders.activation.load(self.record.id)
        return None if found is None or found.until_position is None else BigInt(found.until_position)

    @strawberry.field
    async def created_by(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self.record.created_by_id)

    @strawberry.field
    async def updated_by(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self.record.updated_by_id)


def subscription_of(record: Subscription) -> WebhookSubscription:
    """The subscription's GraphQL object."""
    return WebhookSubscription(
        id=strawberry.ID(str(record.id)),
        resource=record.resource,
        action=WebhookSubscriptionActions(record.action),
        active=record.active,
        receiver_id=strawberry.ID(str(record.receiver_id)),
        expires_after_seconds=record.expires_after_seconds,
        condition=record.condition,
        fields=record.fields,
        template=record.template,
        etag=record.etag,
        created=record.created,
        updated=record.updated,
        deleted=record.deleted,
        record=record,
    )
