"""The history as it is read: pages of what was done and refused, by time and id, each a range of an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.core.ids import OrganisationId
from clarion.database import tables
from clarion.database.filters import Condition, where
from clarion.database.page import Page, PageRequest, SortKey, limited, moment, number, page_of


@dataclass(frozen=True, slots=True)
class Recorded:
    """One entry of the history. `object_type` and `object_id` are empty where a refused request named no object."""

    id: int
    at: datetime
    client_id: int | None
    client_name: str
    api_key_id: int | None
    from_address: str | None
    request_id: str | None
    action: str
    object_type: str
    object_id: str
    before: Any
    after: Any
    refusal: str | None
    message: str | None


async def list_history(
    connection: AsyncConnection,
    organisation_id: OrganisationId,
    conditions: Sequence[Condition],
    request: PageRequest,
    *,
    refused: bool | None = None,
    newest_first: bool = True,
) -> Page[Recorded]:
    """One page of the organisation's history. With `refused` only what was refused, or only what was done.

    Conditions are on `client_id`, `object_type`, `object_id`, `action`, `refusal` and `at`.
    """
    history = tables.history.c
    sort = [SortKey("at", history.at, newest_first, moment), SortKey("id", history.id, newest_first, number)]
    statement = limited(_filtered(select(*_COLUMNS), organisation_id, conditions, refused), sort, request)
    found = await connection.execute(statement)
    return page_of([_recorded(row) for row in found], sort, request, lambda entry: [entry.at, entry.id])


async def count_history(
    connection: AsyncConnection,
    organisation_id: OrganisationId,
    conditions: Sequence[Condition],
    *,
    refused: bool | None = None,
) -> int:
    """How many entries the whole filtered history has. Reads them all: asked for only where a caller wants it."""
    statement = _filtered(select(func.count()).select_from(tables.history), organisation_id, conditions, refused)
    return int(await connection.scalar(statement) or 0)


async def find_entry(connection: AsyncConnection, organisation_id: OrganisationId, entry_id: int) -> Recorded | None:
    """The organisation's entry with this id."""
    history = tables.history.c
    statement = select(*_COLUMNS).where(history.organisation_id == organisation_id, history.id == entry_id)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else _recorded(row)


_COLUMNS: tuple[ColumnElement[Any], ...] = tuple(tables.history.c[field.name] for field in dataclass_fields(Recorded))


def _filtered(
    statement: Select[Any], organisation_id: OrganisationId, conditions: Sequence[Condition], refused: bool | None
) -> Select[Any]:
    history = tables.history.c
    statement = statement.where(history.organisation_id == organisation_id, *where(history, conditions))
    if refused is None:
        return statement
    return statement.where(history.refusal.is_not(None) if refused else history.refusal.is_(None))


def _recorded(row: Row[Any]) -> Recorded:
    return Recorded(*tuple(row))
