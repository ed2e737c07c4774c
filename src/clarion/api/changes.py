"""Queries of the ledger."""

from __future__ import annotations

from enum import Enum

import strawberry
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.principal import Permission
from clarion.api import described
from clarion.api.change_types import Change, change_at, change_of
from clarion.api.connection import Connection, connection_of
from clarion.api.context import Info
from clarion.api.events import WebhookSubscriptionActionsFilter
from clarion.api.inputs import (
    DateTimeFilter,
    Filtered,
    ResourceEnumFilter,
    StringFilter,
    conditions,
    existing_key,
    same,
    text,
)
from clarion.api.values import BigInt
from clarion.database.page import page_request
from clarion.records.changes import count_changes, list_changes
from clarion.registry.rows import not_found


@strawberry.input(description="Compares a number.")
class BigIntFilter:
    eq: BigInt | None = strawberry.UNSET
    in_: list[BigInt] | None = strawberry.field(name="in", default=strawberry.UNSET)
    gte: BigInt | None = strawberry.field(default=strawberry.UNSET, description="This number or a higher one.")
    lt: BigInt | None = strawberry.field(default=strawberry.UNSET, description="A lower number than this.")


@strawberry.input(
    description="All that are given must hold. By `changeId` and `recordedAt` changes are found at once. By `objectId`, "
    "`correlationId` or `resource`, with `eq` or `in`, a page looks through 1,000,000 changes, by anything else through 20,000, and "
    "may have fewer than `first`, or none: go on from `pageInfo.endCursor` as long as `hasNextPage` is true."
)
class ChangesInputFilters:
    change_id: BigIntFilter | None = strawberry.field(
        default=strawberry.UNSET,
        description="By number in the organisation, as `{gte: 1000}` for all from the thousandth on.",
    )
    recorded_at: DateTimeFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By the moment at which the change was entered into the ledger."
    )
    resource: ResourceEnumFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By the kind of object."
    )
    action: WebhookSubscriptionActionsFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By what happened to the object."
    )
    object_id: StringFilter | None = strawberry.field(
        default=strawberry.UNSET,
        description="By the object's key in the application. Give `resource`, too: keys repeat.",
    )
    correlation_id: StringFilter | None = strawberry.field(
        default=strawberry.UNSET, description="By what groups the changes of one request, job or transaction."
    )


def _number(value: int) -> int | None:
    return value if -(2**63) <= value < 2**63 - 1 else None


_FILTERED = {
    "change_id": Filtered("change_id", _number),
    "recorded_at": Filtered("recorded_at", same),
    "resource": Filtered("resource", same),
    "action": Filtered("action", same),
    "object_id": Filtered("object_id", text),
    "correlation_id": Filtered("correlation_id", text),
}


@strawberry.enum(description="In which order changes come.")
class ChangeSortEnum(Enum):
    CHANGE_ID_DESC = described.enum_value("CHANGE_ID_DESC", "By number, newest first.")
    CHANGE_ID_ASC = described.enum_value("CHANGE_ID_ASC", "By number, oldest first.")


@strawberry.type
class ChangeQueries:
    @described.field(
        "The ledger: every change of the organisation's objects that the client may read, newest first unless `sort` says otherwise. "
        "Needs `changes:read`."
    )
    async def changes(
        self,
        info: Info,
        filters: ChangesInputFilters | None = None,
        sort: list[ChangeSortEnum] | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Change] | None:
        principal = info.context.principal
        principal.require(Permission.CHANGES_READ)
        wanted = conditions(filters, _FILTERED)
        request = page_request(first, after, last, before)
        newest_first = not sort or sort[0] is ChangeSortEnum.CHANGE_ID_DESC
        async with info.context.session.reading() as connection:
            page = await list_changes(connection, principal, wanted, request, newest_first=newest_first)

        async def counting(connection: AsyncConnection) -> int:
            return await count_changes(connection, principal, wanted)

        return connection_of(page, change_of, counting)

    @described.field("One change by its position in the ledger. Needs `changes:read`.")
    async def change(self, info: Info, id: strawberry.ID) -> Change | None:
        return await find_change(info, id)


async def find_change(info: Info, id: str) -> Change:
    """The change at this position. Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`, also for a resource not to be read."""
    info.context.principal.require(Permission.CHANGES_READ)
    found = await change_at(info, existing_key(id, "change", "id"))
    if found is None:
        raise not_found("change", "id")
    return found
