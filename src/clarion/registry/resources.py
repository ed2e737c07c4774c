"""Resources: the kinds of objects that can be subscribed to. `attach` registers them; here they are read."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.core.ids import ResourceName
from clarion.database import tables


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource by its canonical name (`RUNS`), with the singular spelling that is accepted beside it, if any."""

    name: ResourceName
    singular: str | None
    description: str


async def configuration_version(connection: AsyncConnection) -> int:
    """A number that moves with every change of what is configured."""
    return int(await connection.scalar(select(tables.configuration.c.version)) or 0)


async def list_resources(connection: AsyncConnection) -> tuple[Resource, ...]:
    """All registered resources by name."""
    resources = tables.resources.c
    found = await connection.execute(
        select(resources.name, resources.singular, resources.description).order_by(resources.name)
    )
    return tuple(Resource(ResourceName(row.name), row.singular, row.description) for row in found)
