"""How much a statement reads, from the plan that the database carries out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.database.address import DatabaseAddress


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(inner for child in plan.get("Plans", []) for inner in nodes(child))]


async def most_read(
    connection: AsyncConnection, database: DatabaseAddress, read: Callable[[], Awaitable[object]]
) -> int:
    """The most rows that a node of the plan of `read`'s one statement read, those it threw away included."""
    executed: list[tuple[str, Any]] = []

    def keep(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        executed.append((statement, parameters))

    sync_engine = connection.engine.sync_engine
    sqlalchemy.event.listen(sync_engine, "before_cursor_execute", keep)
    try:
        await read()
    finally:
        sqlalchemy.event.remove(sync_engine, "before_cursor_execute", keep)
    ((statement, parameters),) = executed
    explaining = await asyncpg.connect(database.url)
    try:
        text = await explaining.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *parameters)
    finally:
        await explaining.close()
    (explained,) = json.loads(text)
    return max(
        int(node["Actual Loops"]) * int(node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
        for node in nodes(explained["Plan"])
    )
