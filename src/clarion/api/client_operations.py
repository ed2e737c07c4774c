"""Queries and mutations of clients."""

from __future__ import annotations

from enum import Enum

import strawberry
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access import clients
from clarion.api import described
from clarion.api.clients import Client, ClientRole, client_of, find_client
from clarion.api.connection import Connection, connection_of
from clarion.api.context import Info
from clarion.api.inputs import (
    BooleanFilter,
    Filtered,
    IDFilter,
    StringFilter,
    conditions,
    decimal_key,
    existing_key,
    given,
    one_etag,
    same,
    text,
)
from clarion.api.receivers import InputWarning
from clarion.api.values import ClientKind
from clarion.core.ids import ResourceName
from clarion.database import page as pages
from clarion.database import tables
from clarion.database.page import SortKey, page_request

_VALUES = tuple(field.column for field in clients.FIELDS)
_CREATED_VALUES = ("name", "kind", "role", "readable_resources", "publishable_resources")

_READABLE = "The only resources whose changes and events it may see and subscribe to. You may name those that you may read yourself."
_PUBLISHABLE = (
    "Resources that it may publish changes of although its role alone does not let it. You may name those that you may "
    "publish yourself."
)


@strawberry.input(description="A client to be made. It has no key yet: `createApiKey` makes one.")
class CreateClientInput:
    name: str = strawberry.field(description="1 to 200 printable characters, unique in the organisation.")
    role: ClientRole = strawberry.field(description="What it may do: nothing that you may not do yourself.")
    kind: ClientKind | None = strawberry.field(
        default=strawberry.UNSET, description="Whether it is a person or a machine; without it a machine."
    )
    readable_resources: list[ResourceName] | None = strawberry.field(
        default=strawberry.UNSET, description=f"{_READABLE} Null or left out: all, later ones too."
    )
    publishable_resources: list[ResourceName] | None = strawberry.field(
        default=strawberry.UNSET, description=f"{_PUBLISHABLE} Null or left out: none."
    )


@strawberry.input(description="What is left out stays as it is.")
class UpdateClientInput:
    id: strawberry.ID = strawberry.field(description="Which client.")
    etag: str | None = strawberry.field(default=strawberry.UNSET, description="The `_etag` that was read.")
    underscored_etag: str | None = strawberry.field(
        name="_etag", default=strawberry.UNSET, description="The same under its other name: give one of the two."
    )
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description="1 to 200 printable characters, unique in the organisation."
    )
    role: ClientRole | None = strawberry.field(
        default=strawberry.UNSET,
        description="What it may do. The last active administrator with a usable key keeps its role.",
    )
    active: bool | None = strawberry.field(
        default=strawberry.UNSET,
        description="False: its keys open nothing from within a second on, until it is active again. "
        "The last active administrator with a usable key stays active.",
    )
    readable_resources: list[ResourceName] | None = strawberry.field(
        default=strawberry.UNSET, description=f"{_READABLE} Null: all, later ones too."
    )
    publishable_resources: list[ResourceName] | None = strawberry.field(
        default=strawberry.UNSET, description=_PUBLISHABLE
    )


@strawberry.type(description="A client that was made or changed.")
class ClientPayload:
    client: Client = strawberry.field(description="As it is now.")
    warnings: list[InputWarning] = strawberry.field(description="What its sender should know. None so far.")


@strawberry.input(description="Compares a role.")
class ClientRoleFilter:
    eq: ClientRole | None = strawberry.field(default=strawberry.UNSET, description="Is this one.")
    neq: ClientRole | None = strawberry.field(default=strawberry.UNSET, description="Is another one.")
    in_: list[ClientRole] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="Is one of these, 100 at most."
    )


@strawberry.input(description="Compares a client's kind.")
class ClientKindFilter:
    eq: ClientKind | None = strawberry.field(default=strawberry.UNSET, description="Is this one.")
    neq: ClientKind | None = strawberry.field(default=strawberry.UNSET, description="Is another one.")


@strawberry.input(description="All that are given must hold.")
class ClientsInputFilters:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="By id.")
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="By name.")
    kind: ClientKindFilter | None = strawberry.field(default=strawberry.UNSET, description="People or machines.")
    role: ClientRoleFilter | None = strawberry.field(default=strawberry.UNSET, description="By role.")
    active: BooleanFilter | None = strawberry.field(default=strawberry.UNSET, description="Active or not.")


_FILTERED = {
    "id": Filtered("id", decimal_key),
    "name": Filtered("name", text),
    "kind": Filtered("kind", same),
    "role": Filtered("role", same),
    "active": Filtered("active", same),
}

_SORTED = {
    "ID": SortKey("id", tables.clients.c.id, False, pages.number),
    "NAME": SortKey("name", tables.clients.c.name, False, pages.text),
}


@strawberry.enum(description="In which order clients come.")
class ClientSortEnum(Enum):
    ID_ASC = described.enum_value("ID_ASC", "By id, oldest first.")
    ID_DESC = described.enum_value("ID_DESC", "By id, newest first.")
    NAME_ASC = described.enum_value("NAME_ASC", "By name.")
    NAME_DESC = described.enum_value("NAME_DESC", "By name, backwards.")


@strawberry.type
class ClientQueries:
    @described.field("The organisation's people and machines; needs `clients:read`. Oneself is in `viewer`.")
    async def clients(
        self,
        info: Info,
        filters: ClientsInputFilters | None = None,
        sort: list[ClientSortEnum] | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Client] | None:
        principal = info.context.principal
        wanted = conditions(filters, _FILTERED)
        keys = pages.sort_keys(_SORTED, [one.value for one in sort or ()])
        request = page_request(first, after, last, before)
        async with info.context.session.reading() as connection:
            page = await clients.list_clients(connection, principal, wanted, keys, request)

        async def counting(connection: AsyncConnection) -> int:
            return await clients.count_clients(connection, principal.organisation_id, wanted)

        return connection_of(page, client_of, counting)

    @described.field("One client; needs `clients:read`.")
    async def client(self, info: Info, id: strawberry.ID) -> Client | None:
        return await find_client(info, id)


@strawberry.type
class ClientMutations:
    @described.mutation("Make a client. Needs `clients:write`; nobody can give a right that they have not themselves.")
    async def create_client(self, info: Info, input: CreateClientInput) -> ClientPayload | None:
        context = info.context
        values = given(input, _CREATED_VALUES, null_is_default=True)
        async with context.changing() as connection:
            record = await clients.create_client(connection, context.principal, values)
        return ClientPayload(client=client_of(record), warnings=[])

    @described.mutation(
        "Change a client. Needs `clients:write`; nobody can give a right that they have not themselves. "
        "It holds within a second for requests made with the client's keys."
    )
    async def update_client(self, info: Info, input: UpdateClientInput) -> ClientPayload | None:
        context = info.context
        etag = one_etag(input.etag, input.underscored_etag)
        key = existing_key(input.id, "client", "input.id")
        async with context.changing() as connection:
            record = await clients.update_client(connection, context.principal, key, etag, given(input, _VALUES))
        return ClientPayload(client=client_of(record), warnings=[])
