"""What `bench/api.py` compares with: the same two operations in a bare Strawberry application, nothing cached, nothing kept.

A mutation appends to a list in memory, a query shows fifty entries. No database, no key, no limits, no record: what is left
is the price of parsing, checking and executing GraphQL as the library does out of the box.
"""

from __future__ import annotations

import strawberry
import uvicorn
from strawberry.asgi import GraphQL

NAMES = ("id", "name", "webhook_uri", "content_type", "active", "etag", "description")


@strawberry.type
class Receiver:
    id: strawberry.ID
    name: str
    webhook_uri: str
    content_type: str
    active: bool
    etag: str
    description: str


@strawberry.type
class Edge:
    node: Receiver
    cursor: str


@strawberry.type
class Connection:
    edges: list[Edge]


@strawberry.type
class Payload:
    webhook_receiver: Receiver


@strawberry.input
class CreateWebhookReceiverInput:
    name: str
    webhook_uri: str


def receiver(number: int, name: str, uri: str) -> Receiver:
    return Receiver(
        id=strawberry.ID(str(number)),
        name=name,
        webhook_uri=uri,
        content_type="application/json",
        active=True,
        etag="0" * 32,
        description="",
    )


KEPT = [receiver(number, f"receiver {number}", "https://93.184.216.34/hook") for number in range(50)]


@strawberry.type
class Query:
    @strawberry.field
    async def webhook_receivers(self, first: int = 100) -> Connection:
        return Connection(edges=[Edge(node=one, cursor=one.id) for one in KEPT[:first]])


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def create_webhook_receiver(self, input: CreateWebhookReceiverInput) -> Payload:  # noqa: A002 - GraphQL's name
        return Payload(webhook_receiver=receiver(len(KEPT), input.name, input.webhook_uri))


if __name__ == "__main__":
    import sys

    app = GraphQL(strawberry.Schema(Query, Mutation))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), http="httptools", loop="uvloop", log_level="warning")
