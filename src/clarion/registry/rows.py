"""What every configured object shares: found in its organisation, locked, compared by etag, stamped when written."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, Select, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.objects import (
    by_parent,
    changed_by,
    compare_etag,
    first_of_each,
    fresh_etag,
    not_found,
    optional_client,
    reader_of,
)
from clarion.access.principal import Principal
from clarion.database import tables

__all__ = [
    "by_parent",
    "changed_by",
    "compare_etag",
    "existing_receiver",
    "first_of_each",
    "fresh_etag",
    "locked_receiver",
    "not_found",
    "optional_client",
    "reader_of",
    "receiver_of",
]


async def locked_receiver(
    connection: AsyncConnection, principal: Principal, receiver_id: int, field: str, *, shared: bool = False
) -> Row[Any]:
    """The receiver's row, held until the transaction ends. Raises RequestRefused (NOT_FOUND).

    Whatever hangs on a receiver is changed under this lock, taken first: two changes then never wait for each other.
    """
    receivers = tables.receivers
    statement = (
        select(receivers)
        .where(
            receivers.c.organisation_id == principal.organisation_id,
            receivers.c.id == receiver_id,
            receivers.c.deleted.is_(None),
        )
        .with_for_update(read=shared, key_share=not shared)
    )
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise not_found("webhook receiver", field)
    return row


async def existing_receiver(
    connection: AsyncConnection, principal: Principal, receiver_id: int, field: str
) -> Row[Any]:
    """The receiver's id and rights. Nothing is locked. Raises RequestRefused (NOT_FOUND)."""
    receivers = tables.receivers.c
    found: Select[Any] = select(receivers.id, receivers.readable_resources).where(
        receivers.organisation_id == principal.organisation_id,
        receivers.id == receiver_id,
        receivers.deleted.is_(None),
    )
    row: Row[Any] | None = (await connection.execute(found)).one_or_none()
    if row is None:
        raise not_found("webhook receiver", field)
    return row


async def receiver_of(connection: AsyncConnection, table: Table, principal: Principal, object_id: int) -> int | None:
    """The receiver that an object of `table` belongs to, or None: which lock to take before looking at the object."""
    found: int | None = await connection.scalar(
        select(table.c.receiver_id).where(table.c.organisation_id == principal.organisation_id, table.c.id == object_id)
    )
    return found
