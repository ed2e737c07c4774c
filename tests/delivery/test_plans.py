"""Which index finds the rows of the queue, in the plans that the worker's sessions keep."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import asyncpg
import pytest

from clarion.database.address import DatabaseAddress
from clarion.database.pool import close, connect, join_by_hash, plan_once
from clarion.delivery.queue import SQL

pytestmark = pytest.mark.data_path

RECEIVERS = 20
ROWS = 20_000


@pytest.fixture
async def session(database: DatabaseAddress) -> AsyncIterator[asyncpg.Connection]:
    """A session as the worker's, on a queue of 20 receivers with 1,000 rows each, of which the planner knows."""
    connection = await connect(database, role=None, name="plans")
    try:
        await connection.execute(
            f"""
            INSERT INTO clarion.queue (queue_id, event_id, organisation_id, receiver_id, subscription_id, position, sequence,
                                       lane, shard)
            SELECT n, n, 1, n % {RECEIVERS}, n % {RECEIVERS}, n, n, n % 2000, n % {RECEIVERS} FROM generate_series(1, {ROWS}) AS n
            """
        )
        await connection.execute("ANALYZE clarion.queue")
        # As the planner sees a table of many more rows.
        for setting in (
            "parallel_setup_cost",
            "parallel_tuple_cost",
            "min_parallel_table_scan_size",
            "min_parallel_index_scan_size",
        ):
            await connection.execute(f"SET {setting} = 0")
        await plan_once(connection)
        yield connection
    finally:
        await close(connection)


async def _plan(session: asyncpg.Connection, name: str) -> list[str]:
    """The lines of the plan that the session keeps."""
    count = len(set(re.findall(r"\$\d+", SQL[name])))
    await session.execute(f"PREPARE kept AS {SQL[name]}")
    lines = await session.fetch(f"EXPLAIN EXECUTE kept ({', '.join(['NULL'] * count)})")
    return [line[0] for line in lines]


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("load_tail", "queue_pkey"),
        ("load_receiver", "queue_of_receiver"),
        ("load_lane", "queue_of_lane"),
        ("load_commands", "queue_of_organisation"),
    ],
)
async def test_a_read_of_the_queue_goes_by_its_own_index(
    session: asyncpg.Connection, statement: str, index: str
) -> None:
    """Planned for no receiver in particular, a read of one once went through the rows of all."""
    plan = await _plan(session, statement)
    (scan,) = (place for place, line in enumerate(plan) if re.search(r"Scan .*\bon queue\b", line))
    assert f"Index Scan using {index} on queue" in plan[scan]
    assert "Index Cond" in plan[scan + 1]
    assert not [line for line in plan if "Sort" in line or "Gather" in line]


@pytest.mark.parametrize(("statement", "count"), [("settle_ended", 1), ("settle", 2)])
async def test_a_settle_finds_its_rows_by_their_ids(session: asyncpg.Connection, statement: str, count: int) -> None:
    await join_by_hash(session)
    plan = await _plan(session, statement)
    scans = [place for place, line in enumerate(plan) if re.search(r"Scan .*\bon queue\b", line)]
    assert len(scans) == count
    for scan in scans:
        assert "Index Scan using queue_pkey on queue" in plan[scan]
        assert "Index Cond: (queue_id = ANY" in plan[scan + 1]


async def test_a_statement_is_planned_once_however_little_it_finds(session: asyncpg.Connection) -> None:
    for _ in range(7):
        await session.fetch(SQL["load_tail"], [1], ROWS, [], 10)
    planned = await session.fetchrow(
        "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1", SQL["load_tail"]
    )
    assert tuple(planned) == (7, 0)
