"""Queries and mutations of headers."""

from __future__ import annotations

import strawberry

from clarion.api import described
from clarion.api.context import Info
from clarion.api.header_types import WebhookHeader, header_of
from clarion.api.inputs import existing_key, given, one_etag
from clarion.core.ids import ReceiverId
from clarion.registry import headers
from clarion.registry.headers import HeaderDraft
from clarion.registry.rows import not_found


@strawberry.input(description="A header of a receiver that is being made.")
class CreateWebhookHeaderOnReceiverInput:
    key: str
    value: str


@strawberry.input
class CreateWebhookHeaderInput:
    receiver_id: strawberry.ID
    key: str
    value: str


@strawberry.input(description="What is left out stays as it is.")
class UpdateWebhookHeaderInput:
    id: strawberry.ID
    etag: str | None = strawberry.UNSET
    underscored_etag: str | None = strawberry.field(name="_etag", default=strawberry.UNSET)
    key: str | None = strawberry.UNSET
    value: str | None = strawberry.UNSET


@strawberry.type
class WebhookHeaderPayload:
    webhook_header: WebhookHeader


@strawberry.type
class DeletedWebhookHeader:
    id: strawberry.ID


@strawberry.type
class HeaderQueries:
    @described.field("One header of a receiver, without its value.")
    async def webhook_header(self, info: Info, id: strawberry.ID) -> WebhookHeader | None:
        return await find_header(info, id)


@strawberry.type
class HeaderMutations:
    @described.mutation("Give a receiver one more header.")
    async def create_webhook_header(self, info: Info, input: CreateWebhookHeaderInput) -> WebhookHeaderPayload | None:
        context = info.context
        receiver_id = ReceiverId(existing_key(input.receiver_id, "webhook receiver", "input.receiverId"))
        draft = HeaderDraft(input.key, input.value)
        async with context.changing() as connection:
            record = await headers.create_header(
                connection, context.principal, receiver_id, draft, context.services.sealer
            )
        return WebhookHeaderPayload(webhook_header=header_of(record))

    @described.mutation("Change a header's name, its value, or both.")
    async def update_webhook_header(self, info: Info, input: UpdateWebhookHeaderInput) -> WebhookHeaderPayload | None:
        context = info.context
        etag = one_etag(input.etag, input.underscored_etag)
        key = existing_key(input.id, "webhook header", "input.id")
        async with context.changing() as connection:
            record = await headers.update_header(
                connection, context.principal, key, etag, given(input, ("key", "value")), context.services.sealer
            )
        return WebhookHeaderPayload(webhook_header=header_of(record))

    @described.mutation("Take a header away from its receiver.")
    async def delete_webhook_header(self, info: Info, id: strawberry.ID, etag: str) -> DeletedWebhookHeader | None:
        context = info.context
        key = existing_key(id, "webhook header", "id")
        async with context.changing() as connection:
            await headers.delete_header(connection, context.principal, key, etag)
        return DeletedWebhookHeader(id=strawberry.ID(str(key)))


async def find_header(info: Info, id: str) -> WebhookHeader:
    """The header with this id. Raises RequestRefused (NOT_FOUND) on `id`."""
    found = await info.context.loaders.header.load(existing_key(id, "webhook header", "id"))
    if found is None:
        raise not_found("webhook header", "id")
    return header_of(found)
