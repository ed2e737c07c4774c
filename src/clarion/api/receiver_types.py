"""Receivers as the API shows them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

from clarion.access.principal import Permission
from clarion.api import described
from clarion.api.clients import Client, client_by_id
from clarion.api.connection import Node
from clarion.api.context import Info
from clarion.api.header_types import WebhookHeader, header_of
from clarion.api.inputs import NESTED_DEFAULT, nested_first
from clarion.api.values import WebhookDisabledReason, WebhookOrdering, WebhookSignature
from clarion.core.ids import ResourceName
from clarion.registry.receivers import Receiver, masked
from clarion.registry.rights import covers
from clarion.sender.certificates import CertificateRefused, describe

if TYPE_CHECKING:
    from clarion.api.subscription_types import WebhookSubscription


@strawberry.type(description="A client certificate; names after RFC 4514. Its private key is never shown.")
class WebhookClientCertificate:
    subject: str
    issuer: str
    not_after: datetime
    fingerprint_sha256: str
    pem: str


@strawberry.type(description="A registered HTTPS endpoint of an integrator.")
class WebhookReceiver(Node):
    name: str
    description: str | None
    webhook_uri: str
    content_type: str
    expected_response_code: int | None = strawberry.field(
        description="The one status that counts as success; without it any from 200 to 299."
    )
    active: bool = strawberry.field(description="While false its events are HELD.")
    disabled_reason: WebhookDisabledReason | None
    retry_schedule: list[int] = strawberry.field(description="Seconds to wait before each attempt, give or take half.")
    timeout_seconds: int
    concurrency: int = strawberry.field(description="How many requests may be under way at once.")
    rate_limit_per_second: int | None
    ordering: WebhookOrdering
    lane_block_max_seconds: int | None = strawberry.field(
        description="After this time a failing event no longer holds up its object's next ones."
    )
    signatures: list[WebhookSignature]
    ca_certificates: str | None = strawberry.field(
        description="PEM: the only authorities that the receiver's certificate may come from; null: those of the system."
    )
    readable_resources: list[ResourceName] | None = strawberry.field(
        description="The only resources whose events it may be sent, whatever becomes of the client that gave it the right; null: "
        "all, later ones too."
    )
    previous_secret_until: datetime | None = strawberry.field(
        description="After a rotation: requests before this moment are signed with the former secret, too."
    )
    etag: str = strawberry.field(name="_etag", description="To be sent back with an update or a delete.")
    created: datetime
    updated: datetime
    deleted: datetime | None = strawberry.field(description="Set on receivers that only the audit record still shows.")
    record: strawberry.Private[Receiver]
    own_secret: strawberry.Private[str | None]

    @described.field(
        "In clear from the mutation that set it, and for holders of `secrets:reveal` who may read all that the receiver is sent, "
        "which is recorded; "
        "otherwise its last four characters."
    )
    async def shared_secret(self, info: Info) -> str:
        if self.own_secret is not None:
            return self.own_secret
        principal = info.context.principal
        # Who may not change where it sends may not sign in its name either.
        controls = covers(principal.readable_resources, self.record.readable_resources)
        if controls and principal.may(Permission.SECRETS_REVEAL):
            revealed = await info.context.loaders.secret.load(self.record.id)
            if revealed is not None:
                return revealed
        return masked(self.record.shared_secret_hint)

    @described.field("What is shown to the receiver when it asks for a certificate.")
    async def client_certificate(self) -> WebhookClientCertificate | None:
        pem = self.record.client_certificate
        if pem is None:
            return None
        try:
            return WebhookClientCertificate(**asdict(describe(pem)))
        except CertificateRefused:  # not put there by the API
            return None

    @described.field("The receiver's subscriptions, oldest first.")
    async def subscriptions(
        self, info: Info, first: int = NESTED_DEFAULT
    ) -> list[Annotated[WebhookSubscription, strawberry.lazy("clarion.api.subscription_types")]]:
        from clarion.api.subscription_types import subscription_of

        found = await info.context.loaders.subscriptions.load((self.record.id, nested_first(first)))
        return [subscription_of(one) for one in found]

    @described.field("Headers that each request to the receiver carries, oldest first.")
    async def headers(self, info: Info, first: int = NESTED_DEFAULT) -> list[WebhookHeader]:
        found = await info.context.loaders.headers.load((self.record.id, nested_first(first)))
        return [header_of(one) for one in found]

    @strawberry.field
    async def created_by(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self.record.created_by_id)

    @strawberry.field
    async def updated_by(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self.record.updated_by_id)


def receiver_of(record: Receiver, own_secret: str | None = None) -> WebhookReceiver:
    """The receiver's GraphQL object; `own_secret` is shown in clear to the caller who has just set it."""
    return WebhookReceiver(
        id=strawberry.ID(str(record.id)),
        name=record.name,
        description=record.description,
        webhook_uri=record.webhook_uri,
        content_type=record.content_type,
        expected_response_code=record.expected_response_code,
        active=record.active,
        disabled_reason=None if record.disabled_reason is None else WebhookDisabledReason(record.disabled_reason),
        retry_schedule=list(record.retry_schedule),
        timeout_seconds=record.timeout_seconds,
        concurrency=record.concurrency,
        rate_limit_per_second=record.rate_limit_per_second,
        ordering=WebhookOrdering(record.ordering),
        lane_block_max_seconds=record.lane_block_max_seconds,
        signatures=[WebhookSignature(one) for one in record.signatures],
        ca_certificates=record.ca_certificates,
        readable_resources=None
        if record.readable_resources is None
        else [ResourceName(one) for one in record.readable_resources],
        previous_secret_until=record.previous_secret_until,
        etag=record.etag,
        created=record.created,
        updated=record.updated,
        deleted=record.deleted,
        record=record,
        own_secret=own_secret,
    )
