"""What every object that clients change shares: one answer for what is not there, an etag, who wrote it last."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar, cast

from sqlalchemy import BigInteger, ColumnElement, Row, Select, Table, Text, func, literal, select, true
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.principal import Principal
from clarion.core.errors import Code, RequestRefused
from clarion.core.ids import ClientId, OrganisationId

Record = TypeVar("Record")

_ROWS_OF_TURN = 300


def not_found(what: str, field: str) -> RequestRefused:
    """The one answer for an object that is absent, deleted, or another organisation's."""
    return RequestRefused(Code.NOT_FOUND, f"there is no {what} with this id", field)


def fresh_etag() -> ColumnElement[str]:
    """32 hexadecimal digits, drawn by the database."""
    return func.replace(sql_cast(func.gen_random_uuid(), Text), "-", "")


def compare_etag(current: str, given: str, what: str, field: str) -> None:
    """Raises RequestRefused (CONFLICT) when the object changed since the caller read it."""
    if current != given:
        raise RequestRefused(
            Code.CONFLICT, f"the {what} was changed since you read it: read it again and send its `_etag`", field
        )


def changed_by(principal: Principal) -> dict[str, Any]:
    """The columns that every change of an object writes."""
    return {"etag": fresh_etag(), "updated": func.now(), "updated_by_id": principal.client_id}


def first_of_each(
    table: Table,
    parent: ColumnElement[Any],
    parent_ids: Sequence[int],
    organisation_id: OrganisationId,
    first: int,
    *conditions: ColumnElement[bool],
) -> Select[Any]:
    """The first rows by id of each parent, in one statement."""
    parents = select(func.unnest(literal(list(parent_ids), ARRAY(BigInteger))).label("id")).subquery("parents")
    rows = (
        select(table)
        .where(table.c.organisation_id == organisation_id, parent == parents.c.id, *conditions)
        .order_by(table.c.id)
        .limit(first)
        .lateral("rows")
    )
    return select(rows).select_from(parents.join(rows, true())).order_by(rows.c.id)


async def by_parent(
    connection: AsyncConnection, statement: Select[Any], kind: Callable[..., Record], parent: Callable[[Record], int]
) -> dict[int, list[Record]]:
    """Records of rows whose columns are the fields of `kind`, by what is their parent.

    There may be ten thousand: between some of them the event loop has its turn.
    """
    found: dict[int, list[Record]] = {}
    for number, row in enumerate(await connection.execute(statement), 1):
        record = kind(*row)
        found.setdefault(parent(record), []).append(record)
        if number % _ROWS_OF_TURN == 0:
            await asyncio.sleep(0)
    return found


def reader_of(kind: type[Record]) -> Callable[[Row[Any]], Record]:
    """Makes records of a dataclass from rows that have all its fields as columns. A list has a hundred of them."""
    values = attrgetter(*(field.name for field in fields(cast(Any, kind))))
    return lambda row: kind(*values(row))


def optional_client(client_id: int | None) -> ClientId | None:
    return None if client_id is None else ClientId(client_id)
