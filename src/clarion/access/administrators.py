"""An organisation keeps a way in: an active administrator with a usable key.

Whatever could take the last one away asks here, one at a time for each organisation, so that of two that are asked for
at once one is refused.
"""

from __future__ import annotations

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.principal import Principal, Role
from clarion.core.errors import Code, RequestRefused
from clarion.database import tables


async def require_other_administrator(
    connection: AsyncConnection, principal: Principal, field: str, *, than_client: int = 0, than_key: int = 0
) -> None:
    """Come back when an active administrator of the organisation keeps a usable key: of another client than
    `than_client`, and another key than `than_key`. None can be taken away until the transaction ends.

    Raises RequestRefused (CONFLICT) on `field`.
    """
    name = f"clarion.administrators {principal.organisation_id}"
    # A statement of its own: the next one must see what was committed while the lock was waited for.
    await connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(name))))
    clients, keys = tables.clients.c, tables.api_keys.c
    left = (
        select(keys.id)
        .join_from(tables.api_keys, tables.clients, clients.id == keys.client_id)
        .where(
            keys.organisation_id == principal.organisation_id,
            clients.organisation_id == principal.organisation_id,
            clients.role == Role.ADMINISTRATOR.value,
            clients.active,
            clients.id != than_client,
            keys.id != than_key,
            keys.revoked.is_(None),
            or_(keys.expires.is_(None), keys.expires > func.clock_timestamp()),
        )
        .limit(1)
    )
    if await connection.scalar(left) is None:
        raise RequestRefused(
            Code.CONFLICT,
            "nobody could look after the organisation's clients any more: make another active administrator with a key first",
            field,
        )
