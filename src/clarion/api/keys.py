"""Queries and mutations of API keys."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import strawberry
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access import keys
from clarion.api import described
from clarion.api.clients import ApiKey, ApiKeyStatus, find_key, key_of
from clarion.api.connection import Connection, connection_of
from clarion.api.context import Info
from clarion.api.inputs import Filtered, IDFilter, StringFilter, conditions, decimal_key, existing_key, same, text
from clarion.database import page as pages
from clarion.database import tables
from clarion.database.page import SortKey, page_request


@strawberry.input(description="A key to be made.")
class CreateApiKeyInput:
    client_id: strawberry.ID = strawberry.field(
        description="Whose key it is: an active client that may do nothing that you may not do yourself."
    )
    expires: datetime | None = strawberry.field(
        default=strawberry.UNSET,
        description="From when on it opens nothing, five years from now at most. Null or left out: it does not expire.",
    )


@strawberry.type(description="A new key.")
class CreatedApiKey:
    api_key: ApiKey = strawberry.field(description="What is known of it from now on.")
    key: str = strawberry.field(
        description="The key itself, this once: only its hash is stored. Sent as `Authorization: Bearer <key>`."
    )


@strawberry.type(description="A key that was revoked.")
class RevokedApiKey:
    api_key: ApiKey = strawberry.field(description="As it is now.")


@strawberry.input(description="Compares a key's status.")
class ApiKeyStatusFilter:
    eq: ApiKeyStatus | None = strawberry.field(default=strawberry.UNSET, description="Is this one.")
    neq: ApiKeyStatus | None = strawberry.field(default=strawberry.UNSET, description="Is another one.")
    in_: list[ApiKeyStatus] | None = strawberry.field(
        name="in", default=strawberry.UNSET, description="Is one of these, 100 at most."
    )


@strawberry.input(description="All that are given must hold.")
class ApiKeysInputFilters:
    id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="By id.")
    client_id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Whose keys they are.")
    prefix: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="By how they begin.")
    status: ApiKeyStatusFilter | None = strawberry.field(default=strawberry.UNSET, description="By status.")


_FILTERED = {
    "id": Filtered("id", decimal_key),
    "client_id": Filtered("client_id", decimal_key),
    "prefix": Filtered("prefix", text),
    "status": Filtered("status", same),
}

_SORTED = {"ID": SortKey("id", tables.api_keys.c.id, False, pages.number)}


@strawberry.enum(description="In which order API keys come.")
class ApiKeySortEnum(Enum):
    ID_ASC = described.enum_value("ID_ASC", "By id, oldest first.")
    ID_DESC = described.enum_value("ID_DESC", "By id, newest first.")


@strawberry.type
class ApiKeyQueries:
    @described.field("The API keys of the organisation's clients, revoked ones included; needs `clients:read`.")
    async def api_keys(
        self,
        info: Info,
        filters: ApiKeysInputFilters | None = None,
        sort: list[ApiKeySortEnum] | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[ApiKey] | None:
        principal = info.context.principal
        wanted = conditions(filters, _FILTERED)
        sorted_by = pages.sort_keys(_SORTED, [one.value for one in sort or ()])
        request = page_request(first, after, last, before)
        async with info.context.session.reading() as connection:
            page = await keys.list_keys(connection, principal, wanted, sorted_by, request)

        async def counting(connection: AsyncConnection) -> int:
            return await keys.count_keys(connection, principal.organisation_id, wanted)

        return connection_of(page, key_of, counting)

    @described.field("One API key; needs `clients:read`.")
    async def api_key(self, info: Info, id: strawberry.ID) -> ApiKey | None:
        return await find_key(info, id)


@strawberry.type
class ApiKeyMutations:
    @described.mutation("Make a key for a client. Needs `clients:write`, and every right that the client has.")
    async def create_api_key(self, info: Info, input: CreateApiKeyInput) -> CreatedApiKey | None:
        context = info.context
        client_id = existing_key(input.client_id, "client", "input.clientId")
        expires = input.expires or None
        async with context.changing() as connection:
            record, key = await keys.create_key(
                connection, context.principal, client_id, expires, context.services.random
            )
        return CreatedApiKey(api_key=key_of(record), key=key)

    @described.mutation(
        "Take a key back, for good: within a second it opens nothing any more. Needs `clients:write`. The last usable key of "
        "the organisation's administrators cannot be revoked: make another first."
    )
    async def revoke_api_key(self, info: Info, id: strawberry.ID, etag: str) -> RevokedApiKey | None:
        context = info.context
        key_id = existing_key(id, "API key", "id")
        async with context.changing() as connection:
            record = await keys.revoke_key(connection, context.principal, key_id, etag)
        return RevokedApiKey(api_key=key_of(record))
