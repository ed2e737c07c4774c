"""Organisations as the API shows them, and whoever asks: their client, organisation and permissions."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import strawberry
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access import organisations
from clarion.access.principal import PERMISSIONS
from clarion.access.principal import Permission as Granted
from clarion.api import described
from clarion.api.clients import ApiKey, Client, client_by_id, client_of, key_of
from clarion.api.connection import Connection, Node, connection_of
from clarion.api.context import Context, Info
from clarion.api.inputs import Filtered, IDFilter, StringFilter, conditions, decimal_key, existing_key, given, text
from clarion.core.errors import InvariantBroken
from clarion.database import page as pages
from clarion.database import tables
from clarion.database.page import SIZE_MAX, SortKey, page_request
from clarion.registry.rows import not_found


@strawberry.enum(description="One thing that a role may do.")
class Permission(Enum):
    WEBHOOKS_READ = described.enum_value(
        Granted.WEBHOOKS_READ.value, "`webhooks:read`: see receivers, headers, subscriptions, events and attempts."
    )
    WEBHOOKS_WRITE = described.enum_value(
        Granted.WEBHOOKS_WRITE.value,
        "`webhooks:write`: register, change and test receivers, headers and subscriptions.",
    )
    SECRETS_REVEAL = described.enum_value(
        Granted.SECRETS_REVEAL.value, "`secrets:reveal`: read the shared secrets of receivers again."
    )
    EVENTS_WRITE = described.enum_value(Granted.EVENTS_WRITE.value, "`events:write`: retry and cancel events.")
    CHANGES_READ = described.enum_value(
        Granted.CHANGES_READ.value, "`changes:read`: see recorded changes with their data."
    )
    CHANGES_PUBLISH = described.enum_value(
        Granted.CHANGES_PUBLISH.value, "`changes:publish`: publish changes of every resource that is not a table's."
    )
    RESOURCES_WRITE = described.enum_value(
        Granted.RESOURCES_WRITE.value, "`resources:write`: register, change and remove resources that are published."
    )
    EGRESS_WRITE = described.enum_value(
        Granted.EGRESS_WRITE.value, "`egress:write`: make and delete egress rules, in organisation `default`."
    )
    CLIENTS_READ = described.enum_value(Granted.CLIENTS_READ.value, "`clients:read`: see clients and API keys.")
    CLIENTS_WRITE = described.enum_value(
        Granted.CLIENTS_WRITE.value, "`clients:write`: make and change clients, make and revoke API keys."
    )
    ORGANISATIONS_WRITE = described.enum_value(
        Granted.ORGANISATIONS_WRITE.value,
        "`organisations:write`: see the names of all organisations and make new ones, in organisation `default`.",
    )
    HISTORY_READ = described.enum_value(
        Granted.HISTORY_READ.value, "`history:read`: see who changed what, and what was refused."
    )


@strawberry.type(description="A tenant: nothing crosses from one to another.")
class Organisation(Node):
    name: str = strawberry.field(description="Unique in the deployment. `default` is the deployment's own.")
    created: datetime = strawberry.field(description="When it was made.")


@strawberry.type(description="Whoever asks.")
class Viewer:
    permissions: list[Permission] = strawberry.field(description="What its role lets it do.")

    @described.field("The client whose key the request was made with.")
    async def client(self, info: Info) -> Client:
        found = await client_by_id(info.context, info.context.principal.client_id)
        if found is None:
            raise InvariantBroken(f"client {info.context.principal.client_id} is gone")
        return found

    @described.field("The organisation that it belongs to.")
    async def organisation(self, info: Info) -> Organisation:
        found = await info.context.loaders.organisation.load(info.context.principal.organisation_id)
        if found is None:
            raise InvariantBroken(f"organisation {info.context.principal.organisation_id} is gone")
        return organisation_of(found)


@strawberry.input(description="An organisation to be made, with its first administrator.")
class CreateOrganisationInput:
    name: str = strawberry.field(description="1 to 200 printable characters, unique in the deployment.")
    administrator_name: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Name of its first client, a machine; without it `administrator`.",
    )


@strawberry.type(description="A new organisation.")
class CreatedOrganisation:
    organisation: Organisation = strawberry.field(description="The organisation.")
    client: Client = strawberry.field(description="Its first client, an administrator.")
    api_key: ApiKey = strawberry.field(description="What is known of the client's key from now on.")
    key: str = strawberry.field(
        description="The key itself, this once: hand it to whoever looks after the organisation."
    )


@strawberry.input(description="All that are given must hold.")
class OrganisationsInputFilters:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="By id.")
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="By name.")


_FILTERED = {"id": Filtered("id", decimal_key), "name": Filtered("name", text)}

_SORTED = {
    "ID": SortKey("id", tables.organisations.c.id, False, pages.number),
    "NAME": SortKey("name", tables.organisations.c.name, False, pages.text),
}


@strawberry.enum(description="In which order organisations come.")
class OrganisationSortEnum(Enum):
    ID_ASC = described.enum_value("ID_ASC", "By id, oldest first.")
    ID_DESC = described.enum_value("ID_DESC", "By id, newest first.")
    NAME_ASC = described.enum_value("NAME_ASC", "By name.")
    NAME_DESC = described.enum_value("NAME_DESC", "By name, backwards.")


@strawberry.type
class OrganisationQueries:
    @described.field("Whoever asks: for every client.")
    def viewer(self, info: Info) -> Viewer:
        granted = PERMISSIONS[info.context.principal.role]
        return Viewer(permissions=[Permission(one.value) for one in Granted if one in granted])

    @described.field(
        "The organisations that one may see: one's own; for clients of organisation `default` with `organisations:write` "
        "the names of all."
    )
    async def organisations(
        self,
        info: Info,
        filters: OrganisationsInputFilters | None = None,
        sort: list[OrganisationSortEnum] | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Organisation] | None:
        principal = info.context.principal
        wanted = conditions(filters, _FILTERED)
        keys = pages.sort_keys(_SORTED, [one.value for one in sort or ()])
        request = page_request(first, after, last, before)
        async with info.context.session.reading() as connection:
            page = await organisations.list_organisations(connection, principal, wanted, keys, request)

        async def counting(connection: AsyncConnection) -> int:
            return await organisations.count_organisations(connection, principal, wanted)

        return connection_of(page, organisation_of, counting)

    @described.field("One of the organisations that one may see.")
    async def organisation(self, info: Info, id: strawberry.ID) -> Organisation | None:
        return await find_organisation(info, id)


@strawberry.type
class OrganisationMutations:
    @described.mutation(
        "Make an organisation with its first administrator and a key of it. For clients of organisation `default` with "
        "`organisations:write` that may read all resources."
    )
    async def create_organisation(self, info: Info, input: CreateOrganisationInput) -> CreatedOrganisation | None:
        context = info.context
        values = given(input, ("name", "administrator_name"), null_is_default=True)
        async with context.changing() as connection:
            made = await organisations.create_organisation(
                connection, context.principal, values, context.services.random
            )
        _show(context, made)
        return CreatedOrganisation(
            organisation=organisation_of(made.organisation),
            client=client_of(made.client),
            api_key=key_of(made.api_key),
            key=made.key,
        )


def _show(context: Context, made: organisations.Made) -> None:
    """Let this one answer show what its caller made, and cannot read from the other organisation."""
    loaders = context.loaders
    loaders.client.prime(made.client.id, made.client)
    for first in range(1, SIZE_MAX + 1):
        loaders.keys.prime((made.client.id, first), [made.api_key])


async def find_organisation(info: Info, id: str) -> Organisation:
    """The organisation with this id, if it may be seen. Raises RequestRefused (NOT_FOUND) on `id`."""
    found = await info.context.loaders.organisation.load(existing_key(id, "organisation", "id"))
    if found is None:
        raise not_found("organisation", "id")
    return organisation_of(found)


def organisation_of(record: organisations.Organisation) -> Organisation:
    """The organisation's GraphQL object."""
    return Organisation(id=strawberry.ID(str(record.id)), name=record.name, created=record.created)
