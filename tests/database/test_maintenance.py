"""What runs beside the product's work goes on, whatever fails once or again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import asyncpg
import psycopg
import pytest

from clarion.core.errors import InvariantBroken
from clarion.database.address import DatabaseAddress
from clarion.database.maintenance import maintain
from clarion.database.pool import connect, keep_running

MAKE = "SELECT clarion.ensure_partitions(ahead => 5)"


async def test_two_processes_that_make_the_same_partitions_at_once_both_succeed(database: DatabaseAddress) -> None:
    first, second, watching = [
        await connect(database, role=None, name=name) for name in ("first", "second", "watching")
    ]
    transaction = first.transaction()
    await transaction.start()
    made = await first.fetchval(MAKE)
    other = asyncio.create_task(second.fetchval(MAKE))
    await _until(partial(_waits, watching, second.get_server_pid()))
    await transaction.commit()
    assert (made, await other) == (9, 0)
    for connection in (first, second, watching):
        await connection.close()


async def test_what_fails_in_maintenance_keeps_nothing_else_of_it_from_being_done(
    database: DatabaseAddress, caplog: pytest.LogCaptureFixture
) -> None:
    with psycopg.connect(database.url, autocommit=True) as administrator:
        administrator.execute("ALTER FUNCTION clarion.ensure_partitions RENAME TO broken")
        administrator.execute(
            "INSERT INTO clarion.outbox (resource, action, object_id) SELECT 'RUNS', 'd', n::text FROM generate_series(1, 1000) n"
        )
        administrator.execute("DELETE FROM clarion.outbox")

        async def counted(what: str, at_least: int) -> bool:
            query = f"SELECT {what} FROM pg_stat_user_tables WHERE schemaname = 'clarion' AND relname = 'outbox'"
            row = administrator.execute(query.encode()).fetchone()
            return row is not None and row[0] >= at_least

        await _until(partial(counted, "n_dead_tup", 1000))
        connection = await connect(database, role=None, name="maintenance")
        maintaining = asyncio.create_task(maintain(connection))
        try:
            await _until(partial(counted, "vacuum_count", 1), maintaining)
        finally:
            maintaining.cancel()
            await asyncio.gather(maintaining, return_exceptions=True)
            await connection.close()
    assert "ensure_partitions" in caplog.text


async def test_a_task_that_raises_anything_is_begun_again_on_a_new_session(
    database: DatabaseAddress, caplog: pytest.LogCaptureFixture
) -> None:
    """Only lost sessions were: after any other error nobody made partitions or looked for gaps, and nothing said so."""
    raised: list[Exception] = [InvariantBroken("a duplicate partition"), KeyError("a bug")]
    pids: list[int] = []
    went_on = asyncio.Event()

    async def job(connection: asyncpg.Connection) -> None:
        pids.append(connection.get_server_pid())
        if raised:
            raise raised.pop(0)
        went_on.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(keep_running(database, None, "inspection", job, failed_wait_s=0.01))
    try:
        await asyncio.wait_for(went_on.wait(), 20)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len(set(pids)) == 3
    assert "inspection failed and begins again in 0.01 s: a duplicate partition" in caplog.text
    assert "KeyError: 'a bug'" in caplog.text


async def _waits(watching: asyncpg.Connection, pid: int) -> bool:
    query = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
    return bool(await watching.fetchval(query, pid))


async def _until(holds: Callable[[], Awaitable[bool]], meanwhile: asyncio.Task[None] | None = None) -> None:
    async with asyncio.timeout(20):
        while not await holds():
            if meanwhile is not None and meanwhile.done():
                meanwhile.result()
            await asyncio.sleep(0.01)
