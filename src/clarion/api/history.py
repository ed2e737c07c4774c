"""The history as the API shows it: who did what, and what was refused."""

from __future__ import annotations

from datetime import datetime
from enum import Enum

import strawberry
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.history_list import Recorded, count_history, find_entry, list_history
from clarion.access.principal import Permission
from clarion.api import described
from clarion.api.clients import Client, client_by_id
from clarion.api.connection import Connection, Node, connection_of
from clarion.api.context import Info
from clarion.api.inputs import (
    DateTimeFilter,
    Filtered,
    IDFilter,
    StringFilter,
    conditions,
    decimal_key,
    existing_key,
    same,
    text,
)
from clarion.api.values import JSONValue
from clarion.database.page import page_request
from clarion.registry.rows import not_found


@strawberry.type(
    description="One thing that was done to an object, or that was refused. It is never changed or deleted."
)
class HistoryEntry(Node):
    at: datetime = strawberry.field(description="When it was done or refused.")
    client_name: str = strawberry.field(
        description="Who it was, as they were called then; for what was done on the database itself, the login and in brackets the "
        "user at the machine, as far as it is known."
    )
    api_key_id: strawberry.ID | None = strawberry.field(description="The API key that the request was made with.")
    from_address: str | None = strawberry.field(
        description="The address that the request came from, or the database's session; `[local]`: a socket on the database's machine."
    )
    request_id: str | None = strawberry.field(description="The header `x-request-id` of the answer.")
    action: str = strawberry.field(
        description="What was done, as `UPDATE`, `REVEAL` or `CANCEL`; of what was refused, the mutation or query, as "
        "`updateWebhookReceiver`, and `authenticate` for a key that is revoked, expired or of a client that is not active."
    )
    object_type: str | None = strawberry.field(description="As `WebhookReceiver`; null if no object is known.")
    object_id: str | None = strawberry.field(description="Null if no object is known.")
    before: JSONValue | None = strawberry.field(description="What it was, of what differs; null if there was nothing.")
    after: JSONValue | None = strawberry.field(
        description="What it became. Of what was refused, `given` has the names of the inputs, without their values, and `field` "
        "the one that was refused."
    )
    refusal: str | None = strawberry.field(description="The error's code with which it was refused; null: it was done.")
    message: str | None = strawberry.field(
        description="Why, in Clarion's own words, without what the error repeated of the request; null: it was done."
    )
    record: strawberry.Private[Recorded]

    @described.field("Who it was; null for what was done on the database itself, past the API.")
    async def client(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self.record.client_id)


@strawberry.input(description="All that are given must hold.")
class HistoryInputFilters:
    client_id: IDFilter | None = strawberry.field(default=strawberry.UNSET, description="Who it was.")
    object_type: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="As `WebhookReceiver`.")
    object_id: StringFilter | None = strawberry.field(
        default=strawberry.UNSET, description="To be given with `objectType`, whose objects it is unique among."
    )
    action: StringFilter | None = strawberry.field(
        default=strawberry.UNSET, description="As `UPDATE`, or `updateWebhookReceiver` of what was refused."
    )
    refusal: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="The code, as `FORBIDDEN`.")
    refused: bool | None = strawberry.field(
        default=strawberry.UNSET, description="True: only what was refused. False: only what was done."
    )
    at: DateTimeFilter | None = strawberry.field(default=strawberry.UNSET, description="When.")


_FILTERED = {
    "client_id": Filtered("client_id", decimal_key),
    "object_type": Filtered("object_type", text),
    "object_id": Filtered("object_id", text),
    "action": Filtered("action", text),
    "refusal": Filtered("refusal", text),
    "at": Filtered("at", same),
}


@strawberry.enum(description="In which order the history comes.")
class HistorySortEnum(Enum):
    AT_DESC = described.enum_value("AT_DESC", "Newest first.")
    AT_ASC = described.enum_value("AT_ASC", "Oldest first.")


@strawberry.type
class HistoryQueries:
    @described.field(
        "Who did what, from where, and what it was before; also what was refused. Newest first unless `sort` says otherwise. "
        "Needs the permission `history:read`."
    )
    async def history(
        self,
        info: Info,
        filters: HistoryInputFilters | None = None,
        sort: list[HistorySortEnum] | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[HistoryEntry] | None:
        principal = info.context.principal
        principal.require(Permission.HISTORY_READ)
        wanted = conditions(filters, _FILTERED)
        refused = filters.refused if filters is not None and isinstance(filters.refused, bool) else None
        request = page_request(first, after, last, before)
        newest_first = not sort or sort[0] is HistorySortEnum.AT_DESC
        organisation_id = principal.organisation_id
        async with info.context.session.reading() as connection:
            page = await list_history(
                connection, organisation_id, wanted, request, refused=refused, newest_first=newest_first
            )

        async def counting(connection: AsyncConnection) -> int:
            return await count_history(connection, organisation_id, wanted, refused=refused)

        return connection_of(page, entry_of, counting)


async def find_history_entry(info: Info, id: str) -> HistoryEntry:
    """The entry with this id. Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`."""
    principal = info.context.principal
    principal.require(Permission.HISTORY_READ)
    key = existing_key(id, "history entry", "id")
    async with info.context.session.reading() as connection:
        found = await find_entry(connection, principal.organisation_id, key)
    if found is None:
        raise not_found("history entry", "id")
    return entry_of(found)


def entry_of(record: Recorded) -> HistoryEntry:
    """The entry's GraphQL object."""
    return HistoryEntry(
        id=strawberry.ID(str(record.id)),
        at=record.at,
        client_name=record.client_name,
        api_key_id=None if record.api_key_id is None else strawberry.ID(str(record.api_key_id)),
        from_address=record.from_address,
        request_id=record.request_id,
        action=record.action,
        object_type=record.object_type or None,
        object_id=record.object_id or None,
        before=None if record.before is None else JSONValue(record.before),
        after=None if record.after is None else JSONValue(record.after),
        refusal=record.refusal,
        message=record.message,
        record=record,
    )
