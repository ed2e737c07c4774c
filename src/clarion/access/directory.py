"""Clients as others see them: who created or changed something."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.core.ids import OrganisationId
from clarion.database import tables


@dataclass(frozen=True, slots=True)
class ClientSummary:
    """A client's name and kind (PERSON or MACHINE)."""

    id: int
    name: str
    kind: str


async def clients_by_ids(
    connection: AsyncConnection, organisation_id: OrganisationId, ids: Collection[int]
) -> dict[int, ClientSummary]:
    """Those of the organisation's clients that have these ids."""
    clients = tables.clients.c
    rows = await connection.execute(
        select(clients.id, clients.name, clients.kind).where(
            clients.organisation_id == organisation_id, clients.id.in_(ids)
        )
    )
    return {row.id: ClientSummary(row.id, row.name, row.kind) for row in rows}
