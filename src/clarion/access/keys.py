"""API keys of clients. A key is shown once, when it is made; only its SHA-256 is stored."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, case, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access import fields, grants, history, objects
from clarion.access.administrators import require_other_administrator
from clarion.access.clients import locked_client
from clarion.access.principal import Permission, Principal
from clarion.core.clock import Random
from clarion.core.encoding import timestamp
from clarion.core.errors import Code, RequestRefused
from clarion.core.ids import ClientId, OrganisationId
from clarion.database import tables
from clarion.database.filters import Columns, Condition, where
from clarion.database.page import Page, PageRequest, SortKey, limited, page_of

OBJECT_TYPE = "ApiKey"
YEARS_MAX = 5
PREFIX_LENGTH = 12
"""`clk_` and the eight digits after it: what of a key is stored and shown."""


class KeyStatus(StrEnum):
    """Whether a key opens the API, as far as it is up to the key: its client must be active as well."""

    ACTIVE = "ACTIVE"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as stored, without its hash. `last_used` is written about once a minute."""

    id: int
    organisation_id: OrganisationId
    client_id: ClientId
    prefix: str
    etag: str
    created: datetime
    created_by_id: ClientId | None
    expires: datetime | None
    last_used: datetime | None
    revoked: datetime | None
    revoked_by_id: ClientId | None
    status: KeyStatus


def new_key(random: Random) -> str:
    """A key `clk_<8>_<43>`: eight hex digits to tell keys apart, then 32 random bytes in URL-safe base64."""
    tail = base64.urlsafe_b64encode(random.token(32)).rstrip(b"=").decode()
    return f"clk_{random.token(4).hex()}_{tail}"


def key_hash(key: str | bytes) -> bytes:
    """SHA-256 of the key's UTF-8 bytes, 32 bytes: what is stored and looked up."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


async def create_key(
    connection: AsyncConnection, principal: Principal, client_id: int, expires: datetime | None, random: Random
) -> tuple[ApiKey, str]:
    """A new key of the client, and the key itself in clear, which is kept nowhere.

    Raises RequestRefused: FORBIDDEN, on `input.clientId` for a client that may do more than the principal; NOT_FOUND on
    `input.clientId`, CONFLICT on it for an inactive client, INVALID_INPUT on `input.expires`.
    """
    principal.require(Permission.CLIENTS_WRITE)
    client = await locked_client(connection, principal, client_id, "input.clientId", shared=True)
    grants.require_grantable(principal, client.rights, "input.clientId")
    if not client.active:
        raise RequestRefused(
            Code.CONFLICT, "the client is inactive: update it with `active: true` first", "input.clientId"
        )
    await _check_expires(connection, expires)
    key = new_key(random)
    made = await connection.execute(
        insert(tables.api_keys)
        .values(
            organisation_id=principal.organisation_id,
            client_id=client_id,
            prefix=key[:PREFIX_LENGTH],
            hash=key_hash(key),
            expires=expires,
            created_by_id=principal.client_id,
        )
        .returning(*_COLUMNS)
    )
    record = _api_key(made.one())
    await history.record(
        connection, principal, [history.Entry("CREATE", OBJECT_TYPE, str(record.id), after=shown(record))]
    )
    return record, key


async def revoke_key(connection: AsyncConnection, principal: Principal, key_id: int, etag: str) -> ApiKey:
    """The key, which opens nothing any more: within a second for every process of the API. Revoked twice it stays as it is.

    Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`, CONFLICT on `etag`, and on `id` for the last usable key of the
    organisation's administrators.
    """
    principal.require(Permission.CLIENTS_WRITE)
    keys = tables.api_keys
    own = (keys.c.organisation_id == principal.organisation_id, keys.c.id == key_id)
    client_id = await connection.scalar(select(keys.c.client_id).where(*own))
    if client_id is None:
        raise objects.not_found("API key", "id")
    # The client first, so that it does not become an administrator meanwhile.
    client = await locked_client(connection, principal, client_id, "id", shared=True)
    found = await connection.execute(select(*_COLUMNS).where(*own).with_for_update(key_share=True))
    before = _api_key(found.one())
    objects.compare_etag(before.etag, etag, "API key", "etag")
    if before.revoked is not None:
        return before
    if client.administers and before.status is KeyStatus.ACTIVE:
        await require_other_administrator(connection, principal, "id", than_key=key_id)
    written = await connection.execute(
        update(keys)
        .where(*own)
        .values(revoked=func.now(), revoked_by_id=principal.client_id, etag=objects.fresh_etag())
        .returning(*_COLUMNS)
    )
    after = _api_key(written.one())
    await history.record(
        connection, principal, [history.Entry("REVOKE", OBJECT_TYPE, str(key_id), shown(before), shown(after))]
    )
    return after


async def list_keys(
    connection: AsyncConnection,
    principal: Principal,
    conditions: Sequence[Condition],
    sort: Sequence[SortKey],
    request: PageRequest,
) -> Page[ApiKey]:
    """One page of the organisation's keys, revoked ones included. Raises RequestRefused (FORBIDDEN)."""
    principal.require(Permission.CLIENTS_READ)
    statement = select(*_COLUMNS).where(
        tables.api_keys.c.organisation_id == principal.organisation_id, *where(_FILTERED, conditions)
    )
    found = [_api_key(row) for row in await connection.execute(limited(statement, sort, request))]
    return page_of(found, sort, request, lambda key: [getattr(key, one.name) for one in sort])


async def count_keys(
    connection: AsyncConnection, organisation_id: OrganisationId, conditions: Sequence[Condition]
) -> int:
    """How many keys the whole filtered list has."""
    counted = await connection.execute(
        select(func.count()).where(tables.api_keys.c.organisation_id == organisation_id, *where(_FILTERED, conditions))
    )
    return int(counted.scalar_one())


async def keys_by_ids(
    connection: AsyncConnection, organisation_id: OrganisationId, ids: Collection[int]
) -> dict[int, ApiKey]:
    """Those of the organisation's keys that have these ids."""
    keys = tables.api_keys.c
    found = await connection.execute(select(*_COLUMNS).where(keys.organisation_id == organisation_id, keys.id.in_(ids)))
    return {row.id: _api_key(row) for row in found}


async def keys_of_clients(
    connection: AsyncConnection, organisation_id: OrganisationId, client_ids: Sequence[int], first: int
) -> dict[int, list[ApiKey]]:
    """The first keys of each client, by client id."""
    table = tables.api_keys
    keys = objects.first_of_each(table, table.c.client_id, client_ids, organisation_id, first).subquery("keys").c
    statement = select(*(keys[column.name] for column in _STORED), _status(keys).label("status")).order_by(keys.id)
    found: dict[int, list[ApiKey]] = {}
    for row in await connection.execute(statement):
        found.setdefault(row.client_id, []).append(_api_key(row))
    return found


def shown(key: ApiKey) -> dict[str, Any]:
    """What the history keeps of a key."""
    return {
        "clientId": key.client_id,
        "prefix": key.prefix,
        "expires": None if key.expires is None else timestamp(key.expires),
        "revoked": None if key.revoked is None else timestamp(key.revoked),
    }


async def _check_expires(connection: AsyncConnection, expires: datetime | None) -> None:
    """Raises RequestRefused (INVALID_INPUT) on `input.expires` unless it lies in the next five years, by the database's clock."""
    if expires is None:
        return
    now = await connection.scalar(select(func.clock_timestamp()))
    assert now is not None
    if not now < expires <= now + timedelta(days=366 * YEARS_MAX):
        raise fields.refused(f"must lie in the future, {YEARS_MAX} years from now at most", "input.expires")


def _status(keys: Columns) -> ColumnElement[str]:
    return case(
        (keys["revoked"].is_not(None), KeyStatus.REVOKED.value),
        (keys["expires"] <= func.clock_timestamp(), KeyStatus.EXPIRED.value),
        else_=KeyStatus.ACTIVE.value,
    )


_STATUS = _status(tables.api_keys.c)
_STORED = tuple(tables.api_keys.c[field.name] for field in dataclass_fields(ApiKey) if field.name != "status")
_COLUMNS = (*_STORED, _STATUS.label("status"))
_FILTERED = {column.name: column for column in _STORED} | {"status": _STATUS}


def _api_key(row: Any) -> ApiKey:
    values = {column.name: getattr(row, column.name) for column in _COLUMNS}
    return ApiKey(**values | {"status": KeyStatus(row.status)})
