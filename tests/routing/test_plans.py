"""By which indexes the router's statements find their rows, in the plans that its session keeps."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from itertools import pairwise

import asyncpg
import pytest

from clarion.database.address import DatabaseAddress
from clarion.database.pool import close, connect, join_by_hash, plan_once
from clarion.routing.store import SQL

pytestmark = pytest.mark.data_path

PARTITIONS = 3
"""Of events, in a new database."""
ROWS = 20_000
FILL = f"""
    INSERT INTO clarion.outbox (organisation_id, resource, action, object_id, half_of)
    SELECT 1, 'ITEMS', 'u', n, CASE WHEN n % 100 = 0 THEN n END FROM generate_series(1, {ROWS}) AS n;
    INSERT INTO clarion.queue (queue_id, event_id, organisation_id, receiver_id, subscription_id, position, sequence, lane, shard)
    SELECT n, n, 1, 1, 1, n, n, n, 1 FROM generate_series(1, {ROWS}) AS n;
    INSERT INTO clarion.events (event_id, round, organisation_id, receiver_id, subscription_id, position, sequence, settled_at,
                                status, reason, attempts_count, render_version)
    SELECT n, 0, 1, 1, 1, n, n, now(), 'FAILED', 'ATTEMPTS_EXHAUSTED', 10, 1 FROM generate_series(1, {ROWS}) AS n;
"""


@pytest.fixture(params=["empty", "full"])
async def session(database: DatabaseAddress, request: pytest.FixtureRequest) -> AsyncIterator[asyncpg.Connection]:
    """A session as the router's, on tables that the planner believes to be empty, or full."""
    connection = await connect(database, role=None, name="plans")
    try:
        if request.param == "full":
            await connection.execute(FILL)
        await connection.execute("ANALYZE clarion.outbox, clarion.queue, clarion.events")
        await join_by_hash(connection)
        await plan_once(connection)
        yield connection
    finally:
        await close(connection)


@pytest.mark.parametrize(
    ("statement", "indexes"),
    [
        ("waiting", ["outbox_pkey"]),
        ("waiting_by_id", ["outbox_pkey"]),
        ("waiting_of_others", ["outbox_pkey"]),
        ("predecessors", ["outbox_pkey"]),
        ("other_halves", ["outbox_halves"]),
        ("batch", ["outbox_pkey"]),
        ("batch_with_more", ["outbox_pkey", "outbox_pkey"]),
        ("take_requests", ["intake_pkey", "queue_of_organisation", *["events"] * 2 * PARTITIONS]),
    ],
)
async def test_no_statement_reads_the_whole_of_a_table(
    session: asyncpg.Connection, statement: str, indexes: list[str]
) -> None:
    count = len(set(re.findall(r"\$\d+", SQL[statement])))
    await session.execute(f"PREPARE kept AS {SQL[statement]}")
    lines = [line[0] for line in await session.fetch(f"EXPLAIN EXECUTE kept ({', '.join(['NULL'] * count)})")]
    scans = [
        (line, condition)
        for line, condition in pairwise([*lines, ""])
        if re.search(r"Scan .*\bon (outbox|intake i|queue|events_\d+)( |$)", line)
    ]
    for scan, condition in scans:
        assert "Index Cond: " in condition, f"{scan} reads all of it"
    # Of events, by key or by organisation: both have the event's id.
    found = [re.sub(r"^events_\d+_\w+", "events", re.findall(r"using (\w+)", scan)[0]) for scan, _ in scans]
    assert sorted(found) == sorted(indexes)
