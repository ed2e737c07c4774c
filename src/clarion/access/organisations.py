"""Organisations. Each sees itself; the deployment's own, `default`, sees the names of all and makes new ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access import fields, grants, history
from clarion.access.clients import Client
from clarion.access.fields import Field
from clarion.access.keys import PREFIX_LENGTH, ApiKey, KeyStatus, key_hash, new_key
from clarion.access.principal import Permission, Principal, Role
from clarion.core.clock import Random
from clarion.core.errors import Code, RequestRefused
from clarion.core.ids import ClientId, OrganisationId
from clarion.database import tables
from clarion.database.filters import Condition, where
from clarion.database.page import Page, PageRequest, SortKey, limited, page_of

OBJECT_TYPE = "Organisation"
OWN_ORGANISATION = "default"
"""The name of the deployment's own organisation: what holds for all organisations is in its clients' hands."""

ADMINISTRATOR_NAME = "administrator"
FIELDS = (
    Field("name", "name", fields.name),
    Field("administrator_name", "administratorName", fields.name),
)


@dataclass(frozen=True, slots=True)
class Organisation:
    """An organisation as stored."""

    id: OrganisationId
    name: str
    created: datetime


@dataclass(frozen=True, slots=True)
class Made:
    """A new organisation with its first administrator and the administrator's key, in clear this once."""

    organisation: Organisation
    client: Client
    api_key: ApiKey
    key: str


async def of_the_deployment(connection: AsyncConnection, principal: Principal) -> bool:
    """Whether the principal belongs to the deployment's own organisation."""
    organisations = tables.organisations.c
    name = await connection.scalar(select(organisations.name).where(organisations.id == principal.organisation_id))
    return name == OWN_ORGANISATION


async def create_organisation(
    connection: AsyncConnection, principal: Principal, given: Mapping[str, Any], random: Random
) -> Made:
    """The new organisation. `given` has `name` and perhaps `administrator_name`. Both organisations' histories tell of it.

    Raises RequestRefused: FORBIDDEN, INVALID_INPUT, CONFLICT on `input.name` for a name that is taken.
    """
    principal.require(Permission.ORGANISATIONS_WRITE)
    if not await of_the_deployment(connection, principal):
        raise RequestRefused(
            Code.FORBIDDEN, f"only clients of organisation {OWN_ORGANISATION!r} may make organisations"
        )
    # The administrator reads all of its organisation, and whoever makes it has its key in hand.
    grants.require_grantable_reading(principal, None, "input")
    values = fields.checked(FIELDS, {"administrator_name": ADMINISTRATOR_NAME} | dict(given))
    key = new_key(random)
    made = func.clarion.create_organisation(
        values["name"],
        values["administrator_name"],
        key[:PREFIX_LENGTH],
        key_hash(key),
        f"{principal.name} of organisation {OWN_ORGANISATION}",
    ).table_valued(*_MADE)
    row = (await connection.execute(select(made).where(true()))).one_or_none()
    if row is None:
        raise RequestRefused(Code.CONFLICT, "another organisation has this name: choose another", "input.name")
    found = _made(row, values, key)
    after = {"name": found.organisation.name, "administratorName": found.client.name, "prefix": found.api_key.prefix}
    entry = history.Entry("CREATE", OBJECT_TYPE, str(found.organisation.id), after=after)
    await history.record(connection, principal, [entry])
    return found


async def list_organisations(
    connection: AsyncConnection,
    principal: Principal,
    conditions: Sequence[Condition],
    sort: Sequence[SortKey],
    request: PageRequest,
) -> Page[Organisation]:
    """One page of the organisations that the principal may see: its own, or all."""
    organisations = tables.organisations.c
    statement = select(*_COLUMNS).where(await _visible(connection, principal), *where(organisations, conditions))
    found = [_organisation(row) for row in await connection.execute(limited(statement, sort, request))]
    return page_of(found, sort, request, lambda one: [getattr(one, key.name) for key in sort])


async def count_organisations(
    connection: AsyncConnection, principal: Principal, conditions: Sequence[Condition]
) -> int:
    """How many organisations the whole filtered list has."""
    counted = await connection.execute(
        select(func.count())
        .select_from(tables.organisations)
        .where(await _visible(connection, principal), *where(tables.organisations.c, conditions))
    )
    return int(counted.scalar_one())


async def organisations_by_ids(
    connection: AsyncConnection, principal: Principal, ids: Collection[int]
) -> dict[int, Organisation]:
    """Those of the organisations that the principal may see that have these ids."""
    found = await connection.execute(
        select(*_COLUMNS).where(await _visible(connection, principal), tables.organisations.c.id.in_(ids))
    )
    return {row.id: _organisation(row) for row in found}


async def _visible(connection: AsyncConnection, principal: Principal) -> ColumnElement[bool]:
    if principal.may(Permission.ORGANISATIONS_WRITE) and await of_the_deployment(connection, principal):
        return true()
    return tables.organisations.c.id == principal.organisation_id


_COLUMNS = (tables.organisations.c.id, tables.organisations.c.name, tables.organisations.c.created)
_MADE = (
    "made_organisation_id",
    "made_client_id",
    "made_client_etag",
    "made_key_id",
    "made_key_etag",
    "made_at",
)


def _organisation(row: Any) -> Organisation:
    return Organisation(OrganisationId(row.id), row.name, row.created)


def _made(row: Any, values: Mapping[str, str], key: str) -> Made:
    """What the database made. It cannot be read again: row-level security shows another organisation's clients to nobody."""
    organisation = Organisation(OrganisationId(row.made_organisation_id), values["name"], row.made_at)
    client = Client(
        id=ClientId(row.made_client_id),
        organisation_id=organisation.id,
        name=values["administrator_name"],
        kind="MACHINE",
        role=Role.ADMINISTRATOR.value,
        active=True,
        readable_resources=None,
        publishable_resources=[],
        etag=row.made_client_etag,
        created=row.made_at,
        updated=row.made_at,
        created_by_id=None,
        updated_by_id=None,
    )
    api_key = ApiKey(
        id=row.made_key_id,
        organisation_id=organisation.id,
        client_id=client.id,
        prefix=key[:PREFIX_LENGTH],
        etag=row.made_key_etag,
        created=row.made_at,
        created_by_id=None,
        expires=None,
        last_used=None,
        revoked=None,
        revoked_by_id=None,
        status=KeyStatus.ACTIVE,
    )
    return Made(organisation, client, api_key, key)
