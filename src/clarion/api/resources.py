"""Resources as the API shows and registers them, and the enum made of their names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

import strawberry
from graphql import GraphQLEnumType, GraphQLEnumValue
from strawberry.types.scalar import ScalarDefinition

from clarion.api import described
from clarion.api.clients import Client, client_by_id
from clarion.api.connection import Node
from clarion.api.context import Info
from clarion.api.inputs import existing_key, given, one_etag
from clarion.api.values import JSONValue
from clarion.core.ids import ResourceName
from clarion.registry import resources
from clarion.registry.rows import not_found

_NOBODY = (
    "null if that was done on the database, by `clarion attach`, which `history` tells of, and for clients of other "
    "organisations than the deployment's own."
)


@strawberry.type(description="A kind of object that can be subscribed to.")
class Resource(Node):
    name: ResourceName = strawberry.field(description="As `ResourceEnum` has it.")
    singular: str | None = strawberry.field(description="Another spelling of the name that is accepted.")
    description: str = strawberry.field(description="What its objects are.")
    published: bool = strawberry.field(
        description="Whether its changes are published, over HTTP or by an application; otherwise its objects are rows of a table."
    )
    excluded_columns: list[str] = strawberry.field(
        description="Columns of its table that are in no change: neither in the ledger nor in what receivers get."
    )
    json_schema: JSONValue | None = strawberry.field(
        description="JSON Schema (2020-12) that the data of changes over HTTP must satisfy; null: any object."
    )
    etag: str = strawberry.field(name="_etag", description="To be sent back with a change or a removal.")
    created: datetime = strawberry.field(description="When it was registered.")
    updated: datetime = strawberry.field(description="When it was last changed.")
    record: strawberry.Private[resources.Resource]

    @described.field(f"The client that registered it; {_NOBODY}")
    async def created_by(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self.record.created_by_id)

    @described.field(f"The client that changed it last; {_NOBODY}")
    async def updated_by(self, info: Info) -> Client | None:
        return await client_by_id(info.context, self.record.updated_by_id)


@strawberry.type
class ResourceQueries:
    @described.field("All resources, by name.")
    def resources(self, info: Info) -> list[Resource]:
        return [resource_of(one) for one in info.context.resources]

    @described.field("One resource.")
    async def resource(self, info: Info, id: strawberry.ID) -> Resource | None:
        return await find_resource(info, id)


@strawberry.input(description="A resource to be registered, whose changes are published with `POST /v1/changes`.")
class RegisterResourceInput:
    name: str = strawberry.field(
        description="Capitals, digits and _, a letter first, at most 63 characters; by custom a plural, as SHIPMENTS."
    )
    singular: str | None = strawberry.field(
        default=strawberry.UNSET, description="Another spelling of the name that is accepted, as SHIPMENT."
    )
    description: str | None = strawberry.field(default=strawberry.UNSET, description="What its objects are.")
    json_schema: JSONValue | None = strawberry.field(
        default=strawberry.UNSET,
        description="JSON Schema (2020-12), an object, that `data` of each change must satisfy. References lead to places in it alone.",
    )


@strawberry.input(description="A change of a resource without a table; what is left out stays.")
class UpdateResourceInput:
    id: strawberry.ID = strawberry.field(description="Which resource.")
    etag: str | None = strawberry.field(
        default=strawberry.UNSET, description="The resource's `_etag`; this or `_etag`."
    )
    underscored_etag: str | None = strawberry.field(
        name="_etag", default=strawberry.UNSET, description="The resource's `_etag`; this or `etag`."
    )
    singular: str | None = strawberry.field(
        default=strawberry.UNSET, description="Another spelling of the name that is accepted; null: none."
    )
    description: str | None = strawberry.field(default=strawberry.UNSET, description="What its objects are.")
    json_schema: JSONValue | None = strawberry.field(
        default=strawberry.UNSET,
        description="JSON Schema (2020-12), an object, that `data` of each change must satisfy from now on; null: any object.",
    )


@strawberry.type(description="The resource after the mutation.")
class ResourcePayload:
    resource: Resource = strawberry.field(description="The resource.")


@strawberry.type(description="What was removed.")
class UnregisteredResource:
    id: strawberry.ID = strawberry.field(description="Its id.")


@strawberry.type
class ResourceMutations:
    @described.mutation(
        "Register a kind of object whose changes are published with `POST /v1/changes`, for all organisations: each publishes "
        "its own. It appears in `ResourceEnum` within a second."
    )
    async def register_resource(self, info: Info, input: RegisterResourceInput) -> ResourcePayload | None:
        context = info.context
        values = given(input, ("name", "singular", "description", "json_schema"))
        async with context.changing() as connection:
            record = await resources.register_resource(connection, context.principal, values)
        return ResourcePayload(resource=resource_of(record))

    @described.mutation("Change a resource that has no table.")
    async def update_resource(self, info: Info, input: UpdateResourceInput) -> ResourcePayload | None:
        context = info.context
        key = existing_key(input.id, "resource", "input.id")
        etag = one_etag(input.etag, input.underscored_etag)
        values = given(input, ("singular", "description", "json_schema"))
        async with context.changing() as connection:
            record = await resources.update_resource(connection, context.principal, key, etag, values)
        return ResourcePayload(resource=resource_of(record))

    @described.mutation(
        "Remove a resource that has no table, that no subscription listens for and that no application publishes in its own "
        "transactions. Its changes and events stay."
    )
    async def unregister_resource(self, info: Info, id: strawberry.ID, etag: str) -> UnregisteredResource | None:
        context = info.context
        key = existing_key(id, "resource", "id")
        async with context.changing() as connection:
            await resources.unregister_resource(connection, context.principal, key, etag)
        return UnregisteredResource(id=strawberry.ID(str(key)))


async def find_resource(info: Info, id: str) -> Resource:
    """The resource with this id. Raises RequestRefused (NOT_FOUND) on `id`."""
    key = existing_key(id, "resource", "id")
    async with info.context.session.reading() as connection:
        found = {one.id: one for one in await resources.list_resources(connection)}
    if key not in found:
        raise not_found("resource", "id")
    return resource_of(found[key])


def resource_of(record: resources.Resource) -> Resource:
    """The resource's GraphQL object."""
    return Resource(
        id=strawberry.ID(str(record.id)),
        name=record.name,
        singular=record.singular,
        description=description_of(record),
        published=record.published,
        excluded_columns=list(record.excluded_columns),
        json_schema=None if record.json_schema is None else JSONValue(json.loads(record.json_schema)),
        etag=record.etag,
        created=record.created,
        updated=record.updated,
        record=record,
    )


def description_of(resource: resources.Resource) -> str:
    """The resource's description, which is never empty."""
    return resource.description or f"Objects of the kind {resource.name}."


class ResourceEnum(GraphQLEnumType):
    """The enum of one schema. Whatever the database holds may be answered: a resource may be newer than the schema."""

    def coerce_output_value(self, output_value: Any) -> str:
        return str(output_value)

    serialize = coerce_output_value


def resource_enum(registered: Sequence[resources.Resource]) -> ScalarDefinition:
    """`ResourceEnum` with these resources; singular spellings are accepted, deprecated, and mean the plural.

    Strawberry takes it for a scalar, so that Python's types stay as they are while the enum's values change.
    """
    values: dict[str, GraphQLEnumValue] = {}
    for one in registered:
        values[one.name] = GraphQLEnumValue(one.name, description=description_of(one))
    for one in registered:
        if one.singular is not None and one.singular not in values:
            values[one.singular] = GraphQLEnumValue(
                one.name, description=description_of(one), deprecation_reason=f"Use {one.name}."
            )
    enum = ResourceEnum("ResourceEnum", values, description="What can be subscribed to: kinds of objects, in plural.")
    return ScalarDefinition(
        name="ResourceEnum",
        description=enum.description,
        specified_by_url=None,
        serialize=None,
        parse_value=None,
        parse_literal=None,
        implementation=cast("Any", enum),
    )
