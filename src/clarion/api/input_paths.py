"""Which input an error of the GraphQL library is about, as a path from its argument: `input.retrySchedule.2`.

The library says where in the document, or at which variable. Callers know their inputs by name, so both are traced
back to the argument. Done for refused requests only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import (
    ArgumentNode,
    DocumentNode,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLSchema,
    ListValueNode,
    Node,
    ObjectValueNode,
    TypeInfo,
    TypeInfoVisitor,
    VariableDefinitionNode,
    VariableNode,
    Visitor,
    get_nullable_type,
    is_required_input_field,
    type_from_ast,
    visit,
)
from graphql.utilities import validate_input_value


@dataclass(frozen=True, slots=True)
class _Input:
    path: str
    node: Node
    type: GraphQLInputType | None


def fields_of(
    errors: Sequence[GraphQLError], schema: GraphQLSchema, document: DocumentNode, variables: Mapping[str, Any]
) -> list[str | None]:
    """For each error the path of the input that it is about, or None where it is about no input."""
    inputs = list(_inputs(schema, document))
    seen: Counter[str] = Counter()
    found: list[str | None] = []
    for error in errors:
        node = error.nodes[0] if error.nodes else None
        if isinstance(node, VariableDefinitionNode):
            name = node.variable.name.value
            found.append(_in_variable(inputs, schema, node, variables, seen[name]))
            seen[name] += 1
        else:
            found.append(None if node is None else _in_document(inputs, node))
    return found


def _inputs(schema: GraphQLSchema, document: DocumentNode) -> Iterator[_Input]:
    """Every argument of the document with all that is in it."""
    type_info = TypeInfo(schema)
    arguments: list[tuple[ArgumentNode, GraphQLInputType | None]] = []

    class Arguments(Visitor):
        def enter_argument(self, node: ArgumentNode, *_rest: object) -> None:
            definition = type_info.get_argument()
            arguments.append((node, None if definition is None else definition.type))

    visit(document, TypeInfoVisitor(type_info, Arguments()))
    for node, type_ in arguments:
        yield _Input(node.name.value, node, type_)
        yield from _within(node.name.value, node.value, type_)


def _within(path: str, node: Node, type_: GraphQLInputType | None) -> Iterator[_Input]:
    yield _Input(path, node, type_)
    nullable = None if type_ is None else get_nullable_type(type_)
    if isinstance(node, ListValueNode):
        entry_type = nullable.of_type if isinstance(nullable, GraphQLList) else None
        for index, value in enumerate(node.values):
            yield from _within(f"{path}.{index}", value, entry_type)
    elif isinstance(node, ObjectValueNode):
        for field in node.fields:
            known = nullable.fields.get(field.name.value) if isinstance(nullable, GraphQLInputObjectType) else None
            inner = f"{path}.{field.name.value}"
            yield _Input(inner, field, None)
            yield from _within(inner, field.value, None if known is None else known.type)


def _in_document(inputs: Sequence[_Input], node: Node) -> str | None:
    for one in inputs:
        if one.node.kind == node.kind and one.node.loc == node.loc:
            if isinstance(node, ObjectValueNode):
                return _with_missing(one.path, one.type, {field.name.value for field in node.fields})
            return one.path
    return None


def _in_variable(
    inputs: Sequence[_Input],
    schema: GraphQLSchema,
    definition: VariableDefinitionNode,
    variables: Mapping[str, Any],
    index: int,
) -> str:
    """The path of a variable's `index`-th error."""
    name = definition.variable.name.value
    used = (one.path for one in inputs if isinstance(one.node, VariableNode) and one.node.name.value == name)
    prefix = next(used, name)
    type_: Any = type_from_ast(schema, definition.type)
    if type_ is None or name not in variables:
        return prefix
    place = _place(variables[name], type_, index)
    value: Any = variables[name]
    for step in place:
        nullable = get_nullable_type(type_)
        if isinstance(nullable, GraphQLList) and isinstance(step, int):
            type_, value = nullable.of_type, value[step]
        elif isinstance(nullable, GraphQLInputObjectType) and isinstance(value, dict) and step in nullable.fields:
            type_, value = nullable.fields[str(step)].type, value.get(step)
        else:
            break
    path = ".".join([prefix, *map(str, place)])
    return _with_missing(path, type_, set(value)) if isinstance(value, dict) else path


class _Found(Exception):
    """The place that was looked for."""

    def __init__(self, place: list[str | int]) -> None:
        super().__init__()
        self.place = place


def _place(value: Any, type_: GraphQLInputType, index: int) -> list[str | int]:
    """Where the `index`-th error in a value is. Those after it, which may be thousands, are not looked for."""
    seen = 0

    def count(_error: object, path: list[str | int]) -> None:
        nonlocal seen
        if seen == index:
            raise _Found(path)
        seen += 1

    try:
        validate_input_value(value, type_, count, hide_suggestions=True)
    except _Found as found:
        return found.place
    return []


def _with_missing(path: str, type_: GraphQLInputType | None, present: set[str]) -> str:
    """The path of the first required field that an input object lacks, or the object's own."""
    nullable = None if type_ is None else get_nullable_type(type_)
    if isinstance(nullable, GraphQLInputObjectType):
        for name, field in nullable.fields.items():
            if name not in present and is_required_input_field(field):
                return f"{path}.{name}"
    return path
