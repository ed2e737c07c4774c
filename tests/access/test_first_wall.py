"""Each query asks for its own organisation's rows by itself: here as a superuser, whom row-level security does not bind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from clarion.access import clients, keys, organisations
from clarion.access.administrators import require_other_administrator
from clarion.access.bootstrap import create_key
from clarion.access.principal import Principal, Role
from clarion.core.errors import Code, RequestRefused
from clarion.core.ids import ClientId, OrganisationId
from clarion.core.system import SystemRandom
from clarion.database import page as pages
from clarion.database import tables
from clarion.database.address import DatabaseAddress
from clarion.database.page import SortKey, page_request


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A connection past row-level security, an administrator of one organisation, and what another one has."""

    connection: AsyncConnection
    principal: Principal
    client_id: int
    client_etag: str
    key_id: int
    key_etag: str
    organisation_id: int


@pytest.fixture
async def neighbours(database: DatabaseAddress) -> AsyncIterator[Neighbours]:
    setting_up = sqlalchemy.create_engine(database.sqlalchemy("psycopg"), poolclass=sqlalchemy.NullPool)
    with setting_up.begin() as made:
        for name in ("own", "theirs"):
            create_key(made, name, "admin", Role.ADMINISTRATOR, SystemRandom())
    found = sqlalchemy.text(
        "SELECT c.id, c.etag, k.id, k.etag, o.id FROM clarion.organisations o JOIN clarion.clients c ON c.organisation_id = o.id "
        "JOIN clarion.api_keys k ON k.client_id = c.id ORDER BY o.name"
    )
    engine = create_async_engine(database.sqlalchemy("asyncpg"))
    async with engine.connect() as connection:
        own, theirs = (await connection.execute(found)).all()
        principal = Principal(ClientId(own[0]), "admin", "MACHINE", Role.ADMINISTRATOR, OrganisationId(own[4]))
        yield Neighbours(connection, principal, *theirs)
    await engine.dispose()


async def test_reads_find_ones_own_alone(neighbours: Neighbours) -> None:
    connection, principal = neighbours.connection, neighbours.principal
    own = principal.organisation_id
    assert await clients.clients_by_ids(connection, own, [neighbours.client_id]) == {}
    assert await keys.keys_by_ids(connection, own, [neighbours.key_id]) == {}
    assert await keys.keys_of_clients(connection, own, [neighbours.client_id], 10) == {}
    assert await organisations.organisations_by_ids(connection, principal, [neighbours.organisation_id]) == {}
    request = page_request(None, None, None, None)
    counts = (
        (clients.list_clients, tables.clients, await clients.count_clients(connection, own, [])),
        (keys.list_keys, tables.api_keys, await keys.count_keys(connection, own, [])),
        (
            organisations.list_organisations,
            tables.organisations,
            await organisations.count_organisations(connection, principal, []),
        ),
    )
    for listed, table, count in counts:
        sort = [SortKey("id", table.c.id, False, pages.number)]
        list_rows: Callable[..., Awaitable[Any]] = listed
        assert len((await list_rows(connection, principal, [], sort, request)).rows) == count == 1, table.name


async def test_changes_find_ones_own_alone(neighbours: Neighbours) -> None:
    connection, principal, theirs = neighbours.connection, neighbours.principal, neighbours
    random = SystemRandom()
    for change in (
        clients.update_client(connection, principal, theirs.client_id, theirs.client_etag, {"name": "stolen"}),
        keys.create_key(connection, principal, theirs.client_id, None, random),
        keys.revoke_key(connection, principal, theirs.key_id, theirs.key_etag),
    ):
        with pytest.raises(RequestRefused) as refused:
            await change
        assert refused.value.code is Code.NOT_FOUND
    with pytest.raises(RequestRefused) as refused:
        await organisations.create_organisation(connection, principal, {"name": "more"}, random)
    assert refused.value.code is Code.FORBIDDEN


async def test_another_organisations_administrator_is_no_way_in(neighbours: Neighbours) -> None:
    connection, principal = neighbours.connection, neighbours.principal
    await require_other_administrator(connection, principal, "x", than_client=neighbours.client_id)
    with pytest.raises(RequestRefused) as refused:
        await require_other_administrator(connection, principal, "x", than_client=principal.client_id)
    assert refused.value.code is Code.CONFLICT
