"""Conditions and templates as they are registered: checked against the columns of their resource, refused with the place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.core.errors import Code, RequestRefused
from clarion.database import tables
from clarion.expressions.columns import COLUMN_KINDS, Shape, ValueKind
from clarion.expressions.program import ExpressionRefused, Program, compile_condition, compile_template
from clarion.registry.fields import refused
from clarion.registry.json_schema import members_of

FIELDS_MAX = 1_600
"""PostgreSQL's own limit of columns."""


async def shape_of(connection: AsyncConnection, resource: str, action: str) -> Shape:
    """What rows of the resource look like to an expression for this action. Raises RequestRefused without such a resource."""
    resources = tables.resources.c
    row = (
        await connection.execute(
            select(
                resources.schema_name, resources.table_name, resources.excluded_columns, resources.json_schema
            ).where(resources.name == resource)
        )
    ).one_or_none()
    if row is None:
        raise refused("there is no such resource any more: choose another", "input.resource")
    if row.table_name is None:
        members = None if row.json_schema is None else members_of(row.json_schema)
        return Shape(resource, action, None if members is None else dict.fromkeys(members, ValueKind.ANY))
    found = func.clarion.columns_of(row.schema_name, row.table_name).table_valued("name", "kind")
    excluded = frozenset(row.excluded_columns)
    columns = {
        column.name: COLUMN_KINDS[column.kind]
        for column in await connection.execute(select(found.c.name, found.c.kind))
        if column.name not in excluded
    }
    return Shape(resource, action, columns, excluded)


@dataclass(frozen=True, slots=True)
class Expressions:
    """What a subscription asks and shows, compiled for rows of this shape."""

    shape: Shape
    condition: Program | None
    fields: list[str] | None
    template: Program | None


def check_expressions(values: Mapping[str, Any], shape: Shape) -> Expressions:
    """The `condition`, `fields` and `template` of the values. Raises RequestRefused for the first that does not go with the rows."""
    condition, fields, template = (values.get(name) for name in ("condition", "fields", "template"))
    if fields is not None and template is not None:
        raise refused("a template decides the whole body: leave `fields` out, or the template", "input.fields")
    compiled = Expressions(
        shape,
        _compiled(compile_condition, condition, shape, "input.condition"),
        fields,
        _compiled(compile_template, template, shape, "input.template"),
    )
    if fields is not None and shape.columns is not None:
        for name in fields:
            if name not in shape.columns:
                raise refused(shape.unknown_column(name), "input.fields", recorded="names a column that there is not")
    return compiled


def _compiled(
    compile_: Callable[[str, Shape], Program], source: str | None, shape: Shape, field: str
) -> Program | None:
    if source is None:
        return None
    try:
        return compile_(source, shape)
    except ExpressionRefused as error:
        place = None if error.line is None or error.column is None else (error.line, error.column)
        raise RequestRefused(
            Code.INVALID_INPUT, str(error), field, place, recorded="is no expression that can be used"
        ) from None


def expression(value: str, field: str) -> str:
    """A check for text that PostgreSQL can hold and that is not empty; what it says is checked with its resource."""
    if not value.strip():
        raise refused("must not be empty; null takes it away", field)
    if "\0" in value:
        raise refused("must not have a NUL character", field)
    return value


def chosen_fields(value: Sequence[str], field: str) -> list[str]:
    """A check for names of columns, each at most once."""
    if not value or len(value) > FIELDS_MAX:
        raise refused(f"must have 1 to {FIELDS_MAX} names; null shows all fields", field)
    if len(set(value)) != len(value):
        raise refused("must have each name once", field)
    if any("\0" in name or not name for name in value):
        raise refused("must have names of columns only", field)
    return list(value)
