"""Relay connections: edges with cursors, and page information that counts only when asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import strawberry
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.api import described
from clarion.api.context import Info
from clarion.database.page import Page

NodeType = TypeVar("NodeType")
Record = TypeVar("Record")


@strawberry.interface(description="An object that `node` finds by its type and id, as `WebhookReceiver:1`.")
class Node:
    id: strawberry.ID = strawberry.field(description="Decimal key, unique among objects of the same type.")


@strawberry.type(description="One object of a page and its place in the list.")
class Edge(Generic[NodeType]):
    node: NodeType
    cursor: str = strawberry.field(description="To be sent as `after` or `before`, in the same sort.")


@strawberry.type(description="Where a page stands in its list.")
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None
    count: int = strawberry.field(description="How many objects this page has.")
    counting: strawberry.Private[Callable[[AsyncConnection], Awaitable[int]]]

    @described.field(
        "How many objects the whole filtered list has. They are counted one by one: for some millions it is refused as "
        "`QUERY_TOO_COMPLEX`, since the count takes more than 3 seconds. The number of all changes is known without counting."
    )
    async def total_count(self, info: Info) -> int:
        async with info.context.session.reading() as connection:
            return await self.counting(connection)


@strawberry.type(description="One page of a list.")
class Connection(Generic[NodeType]):
    edges: list[Edge[NodeType]]
    page_info: PageInfo


def connection_of(
    page: Page[Record],
    to_node: Callable[[Record], NodeType],
    counting: Callable[[AsyncConnection], Awaitable[int]],
) -> Connection[NodeType]:
    """The page as a connection."""
    edges = [Edge(node=to_node(record), cursor=cursor) for cursor, record in page.rows]
    return Connection(
        edges=edges,
        page_info=PageInfo(
            has_next_page=page.has_next,
            has_previous_page=page.has_previous,
            start_cursor=page.start or (edges[0].cursor if edges else None),
            end_cursor=page.end or (edges[-1].cursor if edges else None),
            count=len(edges),
            counting=counting,
        ),
    )
