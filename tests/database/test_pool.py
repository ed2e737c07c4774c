from __future__ import annotations

import asyncio

import asyncpg
import psycopg
import pytest

from clarion.core.errors import StoreUnavailable
from clarion.database.address import DatabaseAddress
from clarion.database.pool import close, connect, connect_all


def _sessions(database: DatabaseAddress) -> int:
    with psycopg.connect(database.url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'clarion part%'"
        ).fetchone()
    assert row is not None
    return int(row[0])


async def _never(opened: asyncio.Event) -> asyncpg.Connection:
    await opened.wait()
    raise StoreUnavailable("this one cannot be opened")


async def test_sessions_opened_at_once_come_in_their_order(database: DatabaseAddress) -> None:
    opened = await connect_all([connect(database, role=None, name=f"part {number}") for number in range(3)])
    names = [await connection.fetchval("SHOW application_name") for connection in opened]
    assert names == ["clarion part 0", "clarion part 1", "clarion part 2"]
    for connection in opened:
        await close(connection)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_of_sessions_that_are_not_all_opened_none_stays(database: DatabaseAddress, cancelled: bool) -> None:
    go_on = asyncio.Event()
    opening = asyncio.create_task(connect_all([connect(database, role=None, name="part 1"), _never(go_on)]))
    async with asyncio.timeout(20):
        while _sessions(database) == 0:
            await asyncio.sleep(0.01)
    if cancelled:
        opening.cancel()
    else:
        go_on.set()
    with pytest.raises(asyncio.CancelledError if cancelled else StoreUnavailable):
        await opening
    async with asyncio.timeout(20):
        while _sessions(database) > 0:
            await asyncio.sleep(0.01)
