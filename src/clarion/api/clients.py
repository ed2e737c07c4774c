"""Clients as others see them."""

from __future__ import annotations

import strawberry

from clarion.access.directory import ClientSummary
from clarion.api.context import Context
from clarion.api.values import ClientKind


@strawberry.type(description="Who created or changed something.")
class Client:
    id: strawberry.ID
    name: str
    kind: ClientKind


async def client_by_id(context: Context, client_id: int | None) -> Client | None:
    """The client behind a `createdBy` or `updatedBy`; None if there is none."""
    found: ClientSummary | None = None if client_id is None else await context.loaders.client.load(client_id)
    return (
        None if found is None else Client(id=strawberry.ID(str(found.id)), name=found.name, kind=ClientKind(found.kind))
    )
