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
    """The most rows that a node of the plans of `read`'s statements read, those it threw away included."""
    return max(
        int(node["Actual Loops"]) * int(node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
        for node in await _executed(connection, database, read)
    )


async def kinds_of_nodes(
    connection: AsyncConnection, database: DatabaseAddress, read: Callable[[], Awaitable[object]]
) -> set[str]:
    """The kinds of nodes of the plans of `read`'s statements that were executed, on tables that hold anything."""
    return {
        node["Node Type"]
        for node in await _executed(connection, database, read)
        if node["Actual Loops"] and (node["Actual Rows"] or node["Node Type"] != "Seq Scan")
    }


async def _executed(
    connection: AsyncConnection, database: DatabaseAddress, read: Callable[[], Awaitable[object]]
) -> list[dict[str, Any]]:
    """All nodes of the plans of `read`'s statements, executed once more."""
    executed: list[tuple[str, Any]] = []

    def keep(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        executed.append((statement, parameters))

    sync_engine = connection.engine.sync_engine
    sqlalchemy.event.listen(sync_engine, "before_cursor_execute", keep)
    try:
        await read()
    finally:
        sqlalchemy.event.remove(sync_engine, "before_cursor_execute", keep)
    explaining = await asyncpg.connect(database.url)
    try:
        texts = [
            await explaining.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *parameters)
            for statement, parameters in executed
        ]
    finally:
        await explaining.close()
    return [node for text in texts for node in nodes(json.loads(text)[0]["Plan"])]
