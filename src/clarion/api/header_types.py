"""Headers as the API shows them: never their values."""

from __future__ import annotations

from datetime import datetime

import strawberry

from clarion.api import described
from clarion.api.clients import Client, client_by_id
from clarion.api.connection import Node
from clarion.api.context import Info
from clarion.registry.headers import MASK, Header


@strawberry.type(description="A header that each request to its receiver carries.")
class WebhookHeader(Node):
    receiver_id: strawberry.ID
    key: str
    value: str = strawberry.field(description="Always masked: it is often a credential.")
    etag: str = strawberry.field(name="_etag", description="To be sent back with an update or a delete.")
    created: datetime
    updated: datetime
    record: strawberry.Private[Header]

    @described.field("The client that made it.")
    async def created_by(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self.record.created_by_id)

    @described.field("The client that last changed it.")
    async def updated_by(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self.record.updated_by_id)


def header_of(record: Header) -> WebhookHeader:
    """The header's GraphQL object."""
    return WebhookHeader(
        id=strawberry.ID(str(record.id)),
        receiver_id=strawberry.ID(str(record.receiver_id)),
        key=record.key,
        value=MASK,
        etag=record.etag,
        created=record.created,
        updated=record.updated,
        record=record,
    )
