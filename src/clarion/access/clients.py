"""Clients: the people and machines of an organisation, and what each may do."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access import fields, grants, history, objects
from clarion.access.administrators import require_other_administrator
from clarion.access.fields import Field
from clarion.access.grants import Rights
from clarion.access.principal import Permission, Principal, Role
from clarion.core.errors import Code, RequestRefused
from clarion.core.ids import ClientId, OrganisationId
from clarion.database import tables
from clarion.database.filters import Condition, where
from clarion.database.page import Page, PageRequest, SortKey, limited, page_of

OBJECT_TYPE = "Client"
KINDS = ("MACHINE", "PERSON")
RESOURCES_MAX = 1_000
"""How many resources a client's rights may name."""


def _resources(value: Sequence[str], field: str) -> list[str]:
    if len(value) > RESOURCES_MAX:
        raise fields.refused(f"must have at most {RESOURCES_MAX} entries", field)
    return sorted(set(value))


FIELDS: tuple[Field, ...] = (
    Field("name", "name", fields.name),
    Field("role", "role", fields.one_of(*Role)),
    Field("active", "active", fields.flag),
    Field("readable_resources", "readableResources", _resources, nullable=True),
    Field("publishable_resources", "publishableResources", _resources),
)
KIND = Field("kind", "kind", fields.one_of(*KINDS))
"""Said once: a person does not become a machine."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client as stored. `kind` is PERSON or MACHINE; of `readable_resources` None means all."""

    id: ClientId
    organisation_id: OrganisationId
    name: str
    kind: str
    role: str
    active: bool
    readable_resources: Sequence[str] | None
    publishable_resources: Sequence[str]
    etag: str
    created: datetime
    updated: datetime
    created_by_id: ClientId | None
    updated_by_id: ClientId | None

    @property
    def rights(self) -> Rights:
        return Rights(Role(self.role), self.readable_resources, self.publishable_resources)

    @property
    def administers(self) -> bool:
        return self.active and self.role == Role.ADMINISTRATOR


async def create_client(connection: AsyncConnection, principal: Principal, given: Mapping[str, Any]) -> Client:
    """The new client, which has no key yet. `given` has values by column.

    Raises RequestRefused: FORBIDDEN, on an input for a right that the principal has not itself; INVALID_INPUT; CONFLICT on
    `input.name` for a name that another client of the organisation has.
    """
    principal.require(Permission.CLIENTS_WRITE)
    values: dict[str, Any] = {"kind": "MACHINE", "readable_resources": None, "publishable_resources": []}
    values |= fields.checked((*FIELDS, KIND), given)
    _require_grantable(principal, values)
    made = await connection.execute(
        insert(tables.clients)
        .values(
            organisation_id=principal.organisation_id,
            created_by_id=principal.client_id,
            updated_by_id=principal.client_id,
            **values,
        )
        .on_conflict_do_nothing(index_elements=["organisation_id", "name"])
        .returning(*_COLUMNS)
    )
    row = made.one_or_none()
    if row is None:
        raise _name_taken()
    client = _client(row)
    await history.record(
        connection, principal, [history.Entry("CREATE", OBJECT_TYPE, str(client.id), after=shown(client))]
    )
    return client


async def update_client(
    connection: AsyncConnection, principal: Principal, client_id: int, etag: str, given: Mapping[str, Any]
) -> Client:
    """The client after the change; what it does not name stays. Nothing is written if nothing differs.

    Raises RequestRefused: FORBIDDEN, NOT_FOUND on `input.id`, INVALID_INPUT, CONFLICT on `input.etag`, on `input.name` for
    a name that another client has, on `input.active` or `input.role` for the last administrator with a usable key.
    """
    principal.require(Permission.CLIENTS_WRITE)
    values = fields.checked(FIELDS, given)
    before = await locked_client(connection, principal, client_id, "input.id")
    objects.compare_etag(before.etag, etag, "client", "input.etag")
    values = {column: value for column, value in values.items() if getattr(before, column) != value}
    if not values:
        return before
    _require_grantable(principal, values)
    if before.administers and ("role" in values or "active" in values):
        field = "input.active" if "active" in values else "input.role"
        await require_other_administrator(connection, principal, field, than_client=client_id)
    after = await _write(connection, principal, client_id, values)
    old, new = history.difference(shown(before), shown(after))
    await history.record(connection, principal, [history.Entry("UPDATE", OBJECT_TYPE, str(client_id), old, new)])
    return after


async def list_clients(
    connection: AsyncConnection,
    principal: Principal,
    conditions: Sequence[Condition],
    sort: Sequence[SortKey],
    request: PageRequest,
) -> Page[Client]:
    """One page of the organisation's clients. Raises RequestRefused (FORBIDDEN)."""
    principal.require(Permission.CLIENTS_READ)
    clients = tables.clients.c
    statement = select(*_COLUMNS).where(
        clients.organisation_id == principal.organisation_id, *where(clients, conditions)
    )
    found = [_client(row) for row in await connection.execute(limited(statement, sort, request))]
    return page_of(found, sort, request, lambda client: [getattr(client, key.name) for key in sort])


async def count_clients(
    connection: AsyncConnection, organisation_id: OrganisationId, conditions: Sequence[Condition]
) -> int:
    """How many clients the whole filtered list has."""
    clients = tables.clients.c
    counted = await connection.execute(
        select(func.count()).where(clients.organisation_id == organisation_id, *where(clients, conditions))
    )
    return int(counted.scalar_one())


async def clients_by_ids(
    connection: AsyncConnection, organisation_id: OrganisationId, ids: Collection[int]
) -> dict[int, Client]:
    """Those of the organisation's clients that have these ids."""
    clients = tables.clients.c
    found = await connection.execute(
        select(*_COLUMNS).where(clients.organisation_id == organisation_id, clients.id.in_(ids))
    )
    return {row.id: _client(row) for row in found}


async def locked_client(
    connection: AsyncConnection, principal: Principal, client_id: int, field: str, *, shared: bool = False
) -> Client:
    """The client, which stays as it is until the transaction ends. Raises RequestRefused (NOT_FOUND) on `field`."""
    clients = tables.clients.c
    row = (
        await connection.execute(
            select(*_COLUMNS)
            .where(clients.organisation_id == principal.organisation_id, clients.id == client_id)
            .with_for_update(read=shared, key_share=not shared)
        )
    ).one_or_none()
    if row is None:
        raise objects.not_found("client", field)
    return _client(row)


def shown(client: Client) -> dict[str, Any]:
    """What the history keeps of a client."""
    return {"kind": client.kind} | {field.api_name: getattr(client, field.column) for field in FIELDS}


def _require_grantable(principal: Principal, values: Mapping[str, Any]) -> None:
    """Raises RequestRefused (FORBIDDEN) on the input that would give a right that the principal has not."""
    if "role" in values:
        grants.require_grantable_role(principal, Role(values["role"]), "input.role")
    if "readable_resources" in values:
        grants.require_grantable_reading(principal, values["readable_resources"], "input.readableResources")
    if "publishable_resources" in values:
        grants.require_grantable_publishing(principal, values["publishable_resources"], "input.publishableResources")


async def _write(
    connection: AsyncConnection, principal: Principal, client_id: int, values: Mapping[str, Any]
) -> Client:
    """The client with these values. Raises RequestRefused (CONFLICT) on `input.name`."""
    clients = tables.clients
    statement = (
        update(clients)
        .where(clients.c.organisation_id == principal.organisation_id, clients.c.id == client_id)
        .values(**values, **objects.changed_by(principal))
        .returning(*_COLUMNS)
    )
    try:
        async with connection.begin_nested():
            return _client((await connection.execute(statement)).one())
    except IntegrityError as error:
        if "name" in values and getattr(error.orig, "sqlstate", None) == _UNIQUE_VIOLATION:
            raise _name_taken() from None
        raise


def _name_taken() -> RequestRefused:
    return RequestRefused(
        Code.CONFLICT, "another client of the organisation has this name: choose another", "input.name"
    )


_UNIQUE_VIOLATION = "23505"
_COLUMNS = tuple(tables.clients.c[field.name] for field in dataclass_fields(Client))


def _client(row: Any) -> Client:
    return Client(**{column.name: getattr(row, column.name) for column in _COLUMNS})
