"""Resources as the API shows them, and the enum made of their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import strawberry
from graphql import GraphQLEnumType, GraphQLEnumValue
from strawberry.types.scalar import ScalarDefinition

from clarion.api import described
from clarion.api.context import Info
from clarion.core.ids import ResourceName
from clarion.registry import resources


@strawberry.type(description="A kind of object that can be subscribed to.")
class Resource:
    name: ResourceName
    description: str


@strawberry.type
class ResourceQueries:
    @described.field("All resources, by name.")
    def resources(self, info: Info) -> list[Resource]:
        return [Resource(name=one.name, description=description_of(one)) for one in info.context.resources]


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
