"""The batch statement on a real database: whole, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from clarion.database import pool
from clarion.database.address import DatabaseAddress
from clarion.database.check import connect
from clarion.database.roles import read_roles
from clarion.ledger.chain import SALT_BYTES
from clarion.routing.evaluation import Evaluator
from clarion.routing.match import Index
from clarion.routing.order import in_order, moved
from clarion.routing.scan import HiddenRows
from clarion.routing.stamp import Batch, Numbers, stamp
from clarion.routing.store import Configuration, Look, RouterStore

CONFIGURE = """
    WITH organisation AS (INSERT INTO clarion.organisations (name) VALUES ('one') RETURNING id),
    receiver AS (
        INSERT INTO clarion.receivers (organisation_id, name, webhook_uri, shared_secret_sealed, shared_secret_hint)
        SELECT id, 'receiver', 'https://127.0.1.1/ok', 'sealed', 'none' FROM organisation RETURNING id, organisation_id
    )
    INSERT INTO clarion.subscriptions (organisation_id, receiver_id, resource, action)
    SELECT organisation_id, id, 'ITEMS', 'UPDATE' FROM receiver
"""
# An update, one that moved to another partition, and a row that nobody listens to.
CAPTURE = """
    TRUNCATE clarion.outbox;
    INSERT INTO clarion.outbox (id, organisation, resource, action, object_id, old, new, half_of) VALUES
        (11, 'one', 'ITEMS', 'u', '1', '{"n": 1}', '{"n": 2}', NULL),
        (12, 'one', 'ITEMS', 'd', '2', '{"n": 1}', NULL, NULL),
        (13, 'one', 'ITEMS', 'c', '2', NULL, '{"n": 2}', 12),
        (14, 'two', 'ITEMS', 'u', '3', '{"n": 1}', '{"n": 2}', NULL)
"""
LEFT = """
    SELECT (SELECT count(*) FROM clarion.outbox), (SELECT count(*) FROM clarion.ledger), (SELECT count(*) FROM clarion.queue),
           (SELECT position FROM clarion.counters), (SELECT sum(sequence)::bigint FROM clarion.subscription_counters)
"""


@pytest.fixture
async def store(database: DatabaseAddress) -> AsyncIterator[RouterStore]:
    """The router's, on a database with one subscription and four rows in the outbox."""
    with connect(database) as connection:
        connection.execute(CONFIGURE)
        connection.execute(CAPTURE)
        engine = read_roles(connection).engine
    session = await pool.connect(database, role=engine, name="router")
    await pool.join_by_hash(session)
    await pool.plan_once(session)
    yield RouterStore(session)
    await pool.close(session)


async def look(store: RouterStore) -> Look:
    return await store.waiting(0, 10, HiddenRows())


async def stamped(
    store: RouterStore, *, without_halves: bool = False
) -> tuple[Batch, Configuration, list[tuple[int, int]]]:
    """What waits as a batch, the configuration it was matched with, and its moves."""
    found = await look(store)
    rows = in_order(row for row in found.rows if not (without_halves and row.object_id == "2"))
    configuration = await store.configuration(1)
    organisations = await store.add_organisations(["one", "two"])
    configuration = await store.configuration(1)
    numbers = Numbers(*await store.counters(), await store.tails(list(organisations.values())), configuration.sequences)
    batch = stamp(
        [(row, organisations[row.organisation or ""]) for row in rows],
        numbers,
        Index(configuration.subscriptions),
        found.now,
        bytes(SALT_BYTES * len(rows)),
        Evaluator(lambda: 0, lambda: 0),
    )
    return batch, configuration, moved(rows)


async def test_a_look_finds_the_lowest_rows_in_their_order_and_says_when_nothing_waits(
    store: RouterStore, database: DatabaseAddress
) -> None:
    found = await look(store)
    assert [row.outbox_id for row in found.rows] == [11, 12, 13, 14]
    assert [row.outbox_id for row in (await store.waiting(11, 2, HiddenRows())).rows] == [12, 13]
    with psycopg.connect(database.url) as writing, psycopg.connect(database.url, autocommit=True) as other:
        xid = writing.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        other.execute("DELETE FROM clarion.outbox")
        nothing = await look(store)
        assert (nothing.rows, {nothing.snapshot_xmin}, nothing.running) == ([], set(xid or ()), frozenset(xid or ()))
    assert (await look(store)).running == frozenset()


@pytest.mark.parametrize("without_halves", [False, True])
async def test_a_batch_is_written_whole(store: RouterStore, database: DatabaseAddress, without_halves: bool) -> None:
    batch, configuration, moves = await stamped(store, without_halves=without_halves)
    await store.write(batch, configuration.version, moves)
    with psycopg.connect(database.url) as connection:
        ledgered = connection.execute(
            "SELECT outbox_id, position, change_id, action::text, new, first_event_id, events_count, link "
            "FROM clarion.ledger ORDER BY position"
        ).fetchall()
        queued = connection.execute(
            "SELECT event_id, position, sequence FROM clarion.queue ORDER BY event_id"
        ).fetchall()
        tails = connection.execute("SELECT link FROM clarion.organisation_counters ORDER BY organisation_id").fetchall()
    places = [11, 14] if without_halves else [11, 12, 14]
    events = {11: 1} if without_halves else {11: 1, 12: 2}
    change_ids = {11: 1, 12: 2, 14: 1}
    assert [row[:-1] for row in ledgered] == [
        (outbox_id, place, change_ids[outbox_id], "u", '{"n": 2}', events.get(outbox_id), int(outbox_id in events))
        for place, outbox_id in enumerate(places, start=1)
    ]
    assert queued == [(event_id, event_id, event_id) for event_id in events.values()]
    # The last row is the other organisation's.
    assert [link for (link,) in tails] == [ledgered[-2][-1], ledgered[-1][-1]]


MOVES = [
    "UPDATE clarion.counters SET position = position + 1",
    "UPDATE clarion.counters SET event_id = event_id + 1",
    "UPDATE clarion.counters SET queue_id = queue_id + 1",
    "UPDATE clarion.configuration SET version = version + 1",
    "UPDATE clarion.organisation_counters SET change_id = 1 WHERE organisation_id = (SELECT max(id) FROM clarion.organisations)",
    "UPDATE clarion.subscription_counters SET sequence = sequence + 1",
    "DELETE FROM clarion.outbox WHERE id = 14",
]
MOVES_OF_HALVES = [*MOVES, "DELETE FROM clarion.outbox WHERE id = 13"]


@pytest.mark.parametrize(
    ("moving", "without_halves"), [*((move, True) for move in MOVES), *((move, False) for move in MOVES_OF_HALVES)]
)
async def test_a_batch_of_which_any_part_moved_leaves_nothing(
    store: RouterStore, database: DatabaseAddress, moving: str, without_halves: bool
) -> None:
    batch, configuration, moves = await stamped(store, without_halves=without_halves)
    with psycopg.connect(database.url, autocommit=True) as connection:
        assert connection.execute(moving).rowcount == 1
        before = connection.execute(LEFT).fetchall()
        with pytest.raises(pool.BatchAborted):
            await store.write(batch, configuration.version, moves)
        assert connection.execute(LEFT).fetchall() == before
