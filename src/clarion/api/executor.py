"""Runs operations as the GraphQL library does, with a short way for fields that only show a value of their object.

A list of fifty objects has hundreds of those, and almost none of what the library prepares for a resolver (its path, its
arguments, who asks) concerns them. Whatever is not plain, and whatever goes wrong, takes the library's own way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from graphql import GraphQLObjectType, GraphQLSchema, get_nullable_type, is_leaf_type, is_non_null_type
from graphql.execution.collect_fields import GroupedFieldSet
from graphql.pyutils import AwaitableOrValue, Path, Undefined
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.field import StrawberryField


class Plain(NamedTuple):
    """A field that shows the attribute of its object. `as_is`: values of this type are shown as they are."""

    attribute: str
    coerce: Callable[[Any], Any]
    as_is: type | None
    nullable: bool


PlainFields = dict[str, dict[str, Plain]]
"""Plain fields by the name of their type and their own."""

_AS_IS = {"String": str, "ID": str, "Boolean": bool}


def plain_fields(schema: GraphQLSchema) -> PlainFields:
    """The plain fields of a schema that Strawberry made: without resolver, arguments and selection."""
    found: PlainFields = {}
    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLObjectType) and not type_.name.startswith("__"):
            fields = found[type_.name] = {}
            for name, field in type_.fields.items():
                definition = field.extensions.get("strawberry-definition")
                leaf = get_nullable_type(field.type)
                if (
                    isinstance(definition, StrawberryField)
                    and definition.is_basic_field
                    and not field.args
                    and is_leaf_type(leaf)
                ):
                    fields[name] = Plain(
                        definition.python_name,
                        leaf.coerce_output_value,
                        _AS_IS.get(leaf.name),
                        not is_non_null_type(field.type),
                    )
    return found


def executor_of(schema: GraphQLSchema) -> type[StrawberryGraphQLCoreExecutionContext]:
    """The class that executes operations of this schema."""
    plain_of_types = plain_fields(schema)

    class Executor(StrawberryGraphQLCoreExecutionContext):
        def execute_fields(
            self,
            parent_type: GraphQLObjectType,
            source_value: Any,
            path: Path | None,
            grouped_field_set: GroupedFieldSet,
            position_context: Any,
        ) -> AwaitableOrValue[dict[str, Any]]:
            """The object's values: of plain fields at once, of the others by the library."""
            plain = plain_of_types.get(parent_type.name)
            if not plain:
                return super().execute_fields(parent_type, source_value, path, grouped_field_set, position_context)
            results: dict[str, Any] = {}
            others = {}
            for response_name, details in grouped_field_set.items():
                field = plain.get(details[0].node.name.value)
                value = Undefined if field is None else _shown(field, source_value)
                if value is Undefined:
                    others[response_name] = details
                # The place of another is kept: an answer has its fields in the order that they were asked for.
                results[response_name] = value
            if not others:
                return results
            rest = super().execute_fields(parent_type, source_value, path, others, position_context)
            # The document is valid: the library has an answer for each field.
            if isinstance(rest, dict):
                return results | rest

            async def joined() -> dict[str, Any]:
                return results | await rest

            return joined()

    return Executor


def _shown(field: Plain, source: Any) -> Any:
    """The field's value as it is shown, or Undefined for what the library must see to."""
    try:
        value = getattr(source, field.attribute)
        if type(value) is field.as_is:
            return value
        if value is None:
            return None if field.nullable else Undefined
        shown = field.coerce(value)
    except Exception:  # which the library meets again, and says where
        return Undefined
    return Undefined if shown is None else shown
