"""Queries and mutations of receivers."""

from __future__ import annotations

from enum import Enum
from typing import Any

import strawberry
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.api import described
from clarion.api.connection import Connection, connection_of
from clarion.api.context import Info
from clarion.api.headers import CreateWebhookHeaderOnReceiverInput
from clarion.api.inputs import (
    BooleanFilter,
    Filtered,
    IDFilter,
    StringFilter,
    conditions,
    decimal_key,
    existing_key,
    given,
    one_etag,
    same,
    text,
)
from clarion.api.receiver_types import WebhookReceiver, receiver_of
from clarion.api.values import WebhookOrdering, WebhookSignature
from clarion.core.ids import ReceiverId, ResourceName
from clarion.database import page as pages
from clarion.database import tables
from clarion.database.page import SortKey, page_request
from clarion.registry import receivers
from clarion.registry.fields import Notice
from clarion.registry.headers import HeaderDraft
from clarion.registry.rows import not_found

_VALUES = (*(field.column for field in receivers.FIELDS), "shared_secret", "client_key")


_AUTHORITIES = "PEM, 1 to 20 certificates: the only authorities that the receiver's certificate may come from."
_CLIENT_CERTIFICATE = "PEM, leaf first: shown to the receiver when it asks for one. Goes with `clientPrivateKey`."
_CLIENT_KEY = "PEM, not encrypted. Never shown again."


@strawberry.input
class CreateWebhookReceiverInput:
    name: str
    webhook_uri: str = strawberry.field(description="HTTPS, port 443 or 8443. Never contacted when it is registered.")
    description: str | None = strawberry.UNSET
    content_type: str | None = "application/json"
    expected_response_code: int | None = strawberry.field(
        default=strawberry.UNSET, description="The one status that counts as success; without it any from 200 to 299."
    )
    active: bool | None = True
    headers: list[CreateWebhookHeaderOnReceiverInput] | None = strawberry.UNSET
    shared_secret: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Your own: `whsec_` and base64, or a text of at least 24 characters. Without it one is made.",
    )
    retry_schedule: list[int] | None = strawberry.field(
        default=strawberry.UNSET,
        description="Seconds before each attempt: 1 to 20 entries, the first 0, none over a day.",
    )
    timeout_seconds: int | None = strawberry.field(default=15, description="1 to 30.")
    concurrency: int | None = strawberry.field(default=4, description="1 to 64.")
    rate_limit_per_second: int | None = strawberry.UNSET
    ordering: WebhookOrdering | None = WebhookOrdering.PER_OBJECT
    lane_block_max_seconds: int | None = strawberry.UNSET
    signatures: list[WebhookSignature] | None = strawberry.field(default_factory=lambda: [WebhookSignature.V1])
    ca_certificates: str | None = strawberry.field(default=strawberry.UNSET, description=_AUTHORITIES)
    client_certificate: str | None = strawberry.field(default=strawberry.UNSET, description=_CLIENT_CERTIFICATE)
    client_key: str | None = strawberry.field(
        name="clientPrivateKey", default=strawberry.UNSET, description=_CLIENT_KEY
    )
    readable_resources: list[ResourceName] | None = strawberry.field(
        default=strawberry.UNSET,
        description="The only resources whose events it may be sent, none that the client may not read itself. Left out or null: "
        "exactly what the client may read now; of one that may read all, all, later ones too.",
    )


@strawberry.input(description="What is left out stays as it is; null clears what may be empty.")
class UpdateWebhookReceiverInput:
    id: strawberry.ID
    etag: str | None = strawberry.UNSET
    underscored_etag: str | None = strawberry.field(name="_etag", default=strawberry.UNSET)
    name: str | None = strawberry.UNSET
    webhook_uri: str | None = strawberry.UNSET
    description: str | None = strawberry.UNSET
    content_type: str | None = strawberry.UNSET
    expected_response_code: int | None = strawberry.UNSET
    active: bool | None = strawberry.field(
        default=strawberry.UNSET, description="True also clears `disabledReason`; false sets it to MANUAL."
    )
    shared_secret: str | None = strawberry.UNSET
    retry_schedule: list[int] | None = strawberry.UNSET
    timeout_seconds: int | None = strawberry.UNSET
    concurrency: int | None = strawberry.UNSET
    rate_limit_per_second: int | None = strawberry.UNSET
    ordering: WebhookOrdering | None = strawberry.UNSET
    lane_block_max_seconds: int | None = strawberry.UNSET
    signatures: list[WebhookSignature] | None = strawberry.UNSET
    ca_certificates: str | None = strawberry.field(default=strawberry.UNSET, description=_AUTHORITIES)
    client_certificate: str | None = strawberry.field(default=strawberry.UNSET, description=_CLIENT_CERTIFICATE)
    client_key: str | None = strawberry.field(
        name="clientPrivateKey", default=strawberry.UNSET, description=_CLIENT_KEY
    )
    readable_resources: list[ResourceName] | None = strawberry.field(
        default=strawberry.UNSET,
        description="Taking a right away cancels the resource's open events; giving one takes a client that has it. Null: all, later "
        "ones too.",
    )


@strawberry.input
class RotateWebhookReceiverSecretInput:
    id: strawberry.ID
    etag: str | None = strawberry.UNSET
    underscored_etag: str | None = strawberry.field(name="_etag", default=strawberry.UNSET)
    shared_secret: str | None = strawberry.field(
        default=strawberry.UNSET, description="Your own, as when a receiver is created. Without it one is made."
    )
    overlap_seconds: int | None = strawberry.field(
        default=86_400, description="For how long the former secret signs beside the new one: 0 to 604800."
    )


@strawberry.type(description="Something about an accepted input that its sender should know.")
class InputWarning:
    code: str
    field: str
    message: str


@strawberry.type
class WebhookReceiverPayload:
    webhook_receiver: WebhookReceiver
    warnings: list[InputWarning]


@strawberry.type
class DeletedWebhookReceiver:
    id: strawberry.ID


@strawberry.input(description="All that are given must hold.")
class WebhookReceiversInputFilters:
    id: IDFilter | None = strawberry.UNSET
    name: StringFilter | None = strawberry.UNSET
    webhook_uri: StringFilter | None = strawberry.UNSET
    active: BooleanFilter | None = strawberry.UNSET


_FILTERED = {
    "id": Filtered("id", decimal_key),
    "name": Filtered("name", text),
    "webhook_uri": Filtered("webhook_uri", text),
    "active": Filtered("active", same),
}

_SORTED = {
    "ID": SortKey("id", tables.receivers.c.id, False, pages.number),
    "NAME": SortKey("name", tables.receivers.c.name, False, pages.text),
    "CREATED": SortKey("created", tables.receivers.c.created, False, pages.moment),
    "UPDATED": SortKey("updated", tables.receivers.c.updated, False, pages.moment),
}


@strawberry.enum(description="In which order receivers come; equal ones by id.")
class WebhookReceiverSortEnum(Enum):
    ID_ASC = described.enum_value("ID_ASC", "By id, oldest first.")
    ID_DESC = described.enum_value("ID_DESC", "By id, newest first.")
    NAME_ASC = described.enum_value("NAME_ASC", "By name.")
    NAME_DESC = described.enum_value("NAME_DESC", "By name, backwards.")
    CREATED_ASC = described.enum_value("CREATED_ASC", "By creation, oldest first.")
    CREATED_DESC = described.enum_value("CREATED_DESC", "By creation, newest first.")
    UPDATED_ASC = described.enum_value("UPDATED_ASC", "By last change, oldest first.")
    UPDATED_DESC = described.enum_value("UPDATED_DESC", "By last change, newest first.")


@strawberry.type
class ReceiverQueries:
    @described.field("Registered endpoints.")
    async def webhook_receivers(
        self,
        info: Info,
        filters: WebhookReceiversInputFilters | None = None,
        sort: list[WebhookReceiverSortEnum] | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[WebhookReceiver] | None:
        wanted = conditions(filters, _FILTERED)
        keys = pages.sort_keys(_SORTED, [one.value for one in sort or ()])
        request = page_request(first, after, last, before)
        organisation_id = info.context.principal.organisation_id
        async with info.context.session.reading() as connection:
            page = await receivers.list_receivers(connection, organisation_id, wanted, keys, request)

        async def counting(connection: AsyncConnection) -> int:
            return await receivers.count_receivers(connection, organisation_id, wanted)

        return connection_of(page, receiver_of, counting)

    @described.field("One registered endpoint.")
    async def webhook_receiver(self, info: Info, id: strawberry.ID) -> WebhookReceiver | None:
        return await find_receiver(info, id)


@strawberry.type
class ReceiverMutations:
    @described.mutation("Register an endpoint. Its secret is shown in clear in this answer.")
    async def create_webhook_receiver(
        self, info: Info, input: CreateWebhookReceiverInput
    ) -> WebhookReceiverPayload | None:
        context = info.context
        values = given(input, _VALUES, null_is_default=True)
        drafts = [HeaderDraft(header.key, header.value) for header in input.headers or []]
        services = context.services
        change = await receivers.check_receiver(values, drafts, services.policy, services.clock.wall(), context.rules)
        async with context.changing() as connection:
            record, secret = await receivers.create_receiver(
                connection, context.principal, change, services.sealer, services.random
            )
        return _payload(receiver_of(record, own_secret=secret), change.warnings)

    @described.mutation("Change an endpoint's settings.")
    async def update_webhook_receiver(
        self, info: Info, input: UpdateWebhookReceiverInput
    ) -> WebhookReceiverPayload | None:
        context = info.context
        etag = one_etag(input.etag, input.underscored_etag)
        key = ReceiverId(existing_key(input.id, "webhook receiver", "input.id"))
        values: dict[str, Any] = given(input, _VALUES)
        services = context.services
        change = await receivers.check_receiver(values, (), services.policy, services.clock.wall(), context.rules)
        async with context.changing() as connection:
            record = await receivers.update_receiver(connection, context.principal, key, etag, change, services.sealer)
        return _payload(receiver_of(record, own_secret=change.shared_secret), change.warnings)

    @described.mutation(
        "Give an endpoint a new secret, shown in clear in this answer. The former one signs beside it until "
        "`previousSecretUntil`; one that still signed from an earlier rotation ends at once."
    )
    async def rotate_webhook_receiver_secret(
        self, info: Info, input: RotateWebhookReceiverSecretInput
    ) -> WebhookReceiverPayload | None:
        context = info.context
        etag = one_etag(input.etag, input.underscored_etag)
        key = ReceiverId(existing_key(input.id, "webhook receiver", "input.id"))
        values = given(input, ("shared_secret", "overlap_seconds"), null_is_default=True)
        own, overlap_seconds = values.get("shared_secret"), values.get("overlap_seconds", 86_400)
        receivers.check_rotation(own, overlap_seconds)
        services = context.services
        async with context.changing() as connection:
            record, secret = await receivers.rotate_secret(
                connection, context.principal, key, etag, own, overlap_seconds, services.sealer, services.random
            )
        return _payload(receiver_of(record, own_secret=secret), ())

    @described.mutation("Delete an endpoint and its subscriptions; the audit trail stays.")
    async def delete_webhook_receiver(self, info: Info, id: strawberry.ID, etag: str) -> DeletedWebhookReceiver | None:
        context = info.context
        key = ReceiverId(existing_key(id, "webhook receiver", "id"))
        async with context.changing() as connection:
            await receivers.delete_receiver(connection, context.principal, key, etag)
        return DeletedWebhookReceiver(id=strawberry.ID(str(key)))


async def find_receiver(info: Info, id: str) -> WebhookReceiver:
    """The receiver with this id. Raises RequestRefused (NOT_FOUND) on `id`, also for a deleted one."""
    found = await info.context.loaders.receiver.load(existing_key(id, "webhook receiver", "id"))
    if found is None or found.deleted is not None:
        raise not_found("webhook receiver", "id")
    return receiver_of(found)


def _payload(receiver: WebhookReceiver, warnings: tuple[Notice, ...]) -> WebhookReceiverPayload:
    return WebhookReceiverPayload(
        webhook_receiver=receiver,
        warnings=[InputWarning(code=one.code, field=one.field, message=one.message) for one in warnings],
    )
