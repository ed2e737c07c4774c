"""Queries and mutations of subscriptions."""

from __future__ import annotations

from enum import Enum

import strawberry
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.api import described
from clarion.api.connection import Connection, connection_of
from clarion.api.context import Info
from clarion.api.events import WebhookSubscriptionActionsFilter
from clarion.api.inputs import (
    BooleanFilter,
    Filtered,
    IDFilter,
    ResourceEnumFilter,
    conditions,
    decimal_key,
    existing_key,
    given,
    one_etag,
    same,
)
from clarion.api.receivers import InputWarning
from clarion.api.subscription_types import WebhookSubscription, subscription_of
from clarion.api.values import WebhookSubscriptionActions
from clarion.core.ids import ResourceName
from clarion.database import page as pages
from clarion.database import tables
from clarion.database.page import SortKey, page_request
from clarion.registry import subscriptions
from clarion.registry.rows import not_found

VALUES = tuple(field.column for field in subscriptions.FIELDS)


@strawberry.input
class CreateWebhookSubscriptionInput:
    receiver_id: strawberry.ID
    resource: ResourceName
    action: WebhookSubscriptionActions
    active: bool | None = True
    expires_after_seconds: int | None = strawberry.field(
        default=strawberry.UNSET, description="Age at which an undelivered event is given up; without it never."
    )
    condition: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Events only of changes for which this is true. CEL on `object`, `oldObject`, `changed`, `action`, `actor`, as "
        '`object.status == "closed" && oldObject.status != "closed"`. Checked against the columns of the resource.',
    )
    fields: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Names of the only columns that bodies show; without it all."
    )
    template: str | None = strawberry.field(
        default=strawberry.UNSET,
        description='A CEL map that is sent in place of the standard body, as `{"text": object.title}`; not together with '
        "`fields`.",
    )


@strawberry.input(description="What is left out stays as it is; null clears what may be empty.")
class UpdateWebhookSubscriptionInput:
    id: strawberry.ID
    etag: str | None = strawberry.UNSET
    underscored_etag: str | None = strawberry.field(name="_etag", default=strawberry.UNSET)
    resource: ResourceName | None = strawberry.UNSET
    action: WebhookSubscriptionActions | None = strawberry.UNSET
    active: bool | None = strawberry.UNSET
    expires_after_seconds: int | None = strawberry.UNSET
    condition: str | None = strawberry.UNSET
    fields: list[str] | None = strawberry.UNSET
    template: str | None = strawberry.UNSET


@strawberry.type
class WebhookSubscriptionPayload:
    webhook_subscription: WebhookSubscription
    warnings: list[InputWarning]


@strawberry.type
class DeletedWebhookSubscription:
    id: strawberry.ID


@strawberry.input(description="All that are given must hold.")
class WebhookSubscriptionsInputFilters:
    id: IDFilter | None = strawberry.UNSET
    receiver_id: IDFilter | None = strawberry.UNSET
    resource: ResourceEnumFilter | None = strawberry.UNSET
    action: WebhookSubscriptionActionsFilter | None = strawberry.UNSET
    active: BooleanFilter | None = strawberry.UNSET


_FILTERED = {
    "id": Filtered("id", decimal_key),
    "receiver_id": Filtered("receiver_id", decimal_key),
    "resource": Filtered("resource", same),
    "action": Filtered("action", same),
    "active": Filtered("active", same),
}

_SORTED = {
    "ID": SortKey("id", tables.subscriptions.c.id, False, pages.number),
    "RESOURCE": SortKey("resource", tables.subscriptions.c.resource, False, pages.text),
    "CREATED": SortKey("created", tables.subscriptions.c.created, False, pages.moment),
    "UPDATED": SortKey("updated", tables.subscriptions.c.updated, False, pages.moment),
}


@strawberry.enum(description="In which order subscriptions come; equal ones by id.")
class WebhookSubscriptionSortEnum(Enum):
    ID_ASC = described.enum_value("ID_ASC", "By id, oldest first.")
    ID_DESC = described.enum_value("ID_DESC", "By id, newest first.")
    RESOURCE_ASC = described.enum_value("RESOURCE_ASC", "By resource.")
    RESOURCE_DESC = described.enum_value("RESOURCE_DESC", "By resource, backwards.")
    CREATED_ASC = described.enum_value("CREATED_ASC", "By creation, oldest first.")
    CREATED_DESC = described.enum_value("CREATED_DESC", "By creation, newest first.")
    UPDATED_ASC = described.enum_value("UPDATED_ASC", "By last change, oldest first.")
    UPDATED_DESC = described.enum_value("UPDATED_DESC", "By last change, newest first.")


@strawberry.type
class SubscriptionQueries:
    @described.field("What receivers listen for.")
    async def webhook_subscriptions(
        self,
        info: Info,
        filters: WebhookSubscriptionsInputFilters | None = None,
        sort: list[WebhookSubscriptionSortEnum] | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[WebhookSubscription] | None:
        wanted = conditions(filters, _FILTERED)
        keys = pages.sort_keys(_SORTED, [one.value for one in sort or ()])
        request = page_request(first, after, last, before)
        organisation_id = info.context.principal.organisation_id
        async with info.context.session.reading() as connection:
            page = await subscriptions.list_subscriptions(connection, organisation_id, wanted, keys, request)

        async def counting(connection: AsyncConnection) -> int:
            return await subscriptions.count_subscriptions(connection, organisation_id, wanted)

        return connection_of(page, subscription_of, counting)

    @described.field("One subscription.")
    async def webhook_subscription(self, info: Info, id: strawberry.ID) -> WebhookSubscription | None:
        return await find_subscription(info, id)


@strawberry.type
class SubscriptionMutations:
    @described.mutation("Let a receiver listen for an action on a resource.")
    async def create_webhook_subscription(
        self, info: Info, input: CreateWebhookSubscriptionInput
    ) -> WebhookSubscriptionPayload | None:
        context = info.context
        receiver_id = existing_key(input.receiver_id, "webhook receiver", "input.receiverId")
        values = given(input, VALUES, null_is_default=True)
        async with context.changing() as connection:
            record = await subscriptions.create_subscription(connection, context.principal, receiver_id, values)
        return WebhookSubscriptionPayload(webhook_subscription=subscription_of(record), warnings=[])

    @described.mutation("Change a subscription.")
    async def update_webhook_subscription(
        self, info: Info, input: UpdateWebhookSubscriptionInput
    ) -> WebhookSubscriptionPayload | None:
        context = info.context
        etag = one_etag(input.etag, input.underscored_etag)
        key = existing_key(input.id, "webhook subscription", "input.id")
        async with context.changing() as connection:
            record = await subscriptions.update_subscription(
                connection, context.principal, key, etag, given(input, VALUES)
            )
        return WebhookSubscriptionPayload(webhook_subscription=subscription_of(record), warnings=[])

    @described.mutation("Delete a subscription; the audit trail stays.")
    async def delete_webhook_subscription(
        self, info: Info, id: strawberry.ID, etag: str
    ) -> DeletedWebhookSubscription | None:
        context = info.context
        key = existing_key(id, "webhook subscription", "id")
        async with context.changing() as connection:
            await subscriptions.delete_subscription(connection, context.principal, key, etag)
        return DeletedWebhookSubscription(id=strawberry.ID(str(key)))


async def find_subscription(info: Info, id: str) -> WebhookSubscription:
    """The subscription with this id. Raises RequestRefused (NOT_FOUND) on `id`, also for a deleted one."""
    found = await info.context.loaders.subscription.load(existing_key(id, "webhook subscription", "id"))
    if found is None or found.deleted is not None:
        raise not_found("webhook subscription", "id")
    return subscription_of(found)
