"""The router's wait in the database ends with what there is to take, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from clarion.core.errors import StoreUnavailable
from clarion.database.address import DatabaseAddress
from clarion.database.pool import close, connect, plan_once
from clarion.routing.scan import HiddenRows
from clarion.routing.store import Look, RouterStore, RouterWatch

pytestmark = pytest.mark.data_path

LONG_S, SHORT_S = 20.0, 0.3
"""Longer than any test may take; long enough for some looks."""
EVERY_S = 0.01
CHANGE = "INSERT INTO clarion.outbox (organisation_id, resource, action, object_id) VALUES (1, 'ITEMS', 'u', '1')"
RETRY = """
    WITH organisation AS (INSERT INTO clarion.organisations (name) VALUES ('one') RETURNING id)
    INSERT INTO clarion.intake (organisation_id, kind, request) SELECT id, 'RETRY', '{}' FROM organisation
"""


@pytest.fixture
async def sessions(database: DatabaseAddress) -> AsyncIterator[list[asyncpg.Connection]]:
    """The router's, and two of others."""
    opened = [await connect(database, role=None, name=f"waiting {number}") for number in range(3)]
    await plan_once(opened[0])
    yield opened
    for connection in opened:
        await close(connection)


def waiting(router: asyncpg.Connection, hidden: HiddenRows | None = None) -> asyncio.Task[Look]:
    """The first look that finds something, if no wait before it lasts its whole time."""

    async def found() -> Look:
        store, passed = RouterStore(router), hidden or HiddenRows()
        while True:
            look = await store.waiting(0, 10, passed)
            if look.rows or look.asked:
                return look
            # It may end early.
            await store.wait(0, passed, EVERY_S, LONG_S)

    return asyncio.create_task(asyncio.wait_for(found(), LONG_S / 2))


async def learned(router: asyncpg.Connection) -> HiddenRows:
    """What a router knows after some looks that found nothing."""
    hidden, store = HiddenRows(), RouterStore(router)
    for _ in range(10):
        look = await store.waiting(0, 10, hidden)
        hidden.looked(
            look.running, look.snapshot_xmax, look.sequence_last, began_above=look.began_above, complete=not look.rows
        )
        hidden.reading.wrote(await store.transaction_number())
    return hidden


@pytest.mark.parametrize("statement", [CHANGE, RETRY])
async def test_it_ends_with_a_change_or_a_request(sessions: list[asyncpg.Connection], statement: str) -> None:
    router, other, _ = sessions
    found = waiting(router)
    await asyncio.sleep(SHORT_S)
    assert not found.done()
    await other.execute(statement)
    assert (await found).asked == (statement == RETRY)


async def test_it_ends_when_a_transaction_commits_that_wrote_long_before(sessions: list[asyncpg.Connection]) -> None:
    router, other, third = sessions
    transaction = other.transaction()
    await transaction.start()
    await other.execute(CHANGE)
    found = waiting(router)
    # Others come and go meanwhile.
    for _ in range(20):
        await third.execute("SELECT pg_current_xact_id()")
    await asyncio.sleep(SHORT_S)
    assert not found.done()
    await transaction.commit()
    assert (await found).rows


async def test_it_ends_when_what_hid_the_rows_that_it_passes_over_is_over(sessions: list[asyncpg.Connection]) -> None:
    router, other, _ = sessions
    transaction = other.transaction()
    await transaction.start()
    await other.execute(CHANGE)
    hidden = await learned(router)
    assert hidden.owners
    found = waiting(router, hidden)
    await asyncio.sleep(SHORT_S)
    assert not found.done()
    await transaction.commit()
    assert (await found).rows


async def test_who_began_last_is_seen_as_soon_as_it_commits_although_another_transaction_runs_on(
    sessions: list[asyncpg.Connection],
) -> None:
    router, large, late = sessions
    first, last = large.transaction(), late.transaction()
    await first.start()
    await large.execute(CHANGE)
    hidden = await learned(router)
    await last.start()
    await late.execute(CHANGE)
    for _ in range(10):
        look = await RouterStore(router).waiting(0, 10, hidden)
        hidden.looked(
            look.running, look.snapshot_xmax, look.sequence_last, began_above=look.began_above, complete=not look.rows
        )
    await last.commit()
    assert len((await RouterStore(router).waiting(0, 10, hidden)).rows) == 1


async def test_nothing_is_drawn_of_a_new_sequence(sessions: list[asyncpg.Connection]) -> None:
    router, other, _ = sessions
    look = await RouterStore(router).waiting(0, 10, HiddenRows())
    assert look.sequence_last == 0
    await other.execute(CHANGE)
    look = await RouterStore(router).waiting(0, 10, HiddenRows())
    assert look.sequence_last == look.rows[0].outbox_id == 1


async def test_it_ends_with_its_time(sessions: list[asyncpg.Connection]) -> None:
    await asyncio.wait_for(RouterStore(sessions[0]).wait(0, HiddenRows(), EVERY_S, 0.1), LONG_S / 2)


async def test_whoever_has_drawn_an_id_is_among_the_running(sessions: list[asyncpg.Connection]) -> None:
    """What is known of ids that were drawn rests on it: the number of the transaction is had before the id."""
    router, other, _ = sessions
    await router.execute(
        "ALTER TABLE clarion.outbox ALTER id SET DEFAULT CASE WHEN pg_current_xact_id_if_assigned() IS NULL THEN NULL "
        "ELSE nextval('clarion.outbox_id') END"
    )
    await other.execute(CHANGE)


async def test_only_the_session_with_the_lock_beats(sessions: list[asyncpg.Connection]) -> None:
    """A router that wakes after another took over must not pass for it."""
    router, other, watching = sessions
    watch = RouterWatch(watching)
    assert await RouterStore(router).lock()
    await watch.beat(router.get_server_pid())
    with pytest.raises(StoreUnavailable):
        await watch.beat(other.get_server_pid())
    assert await watching.fetchval("SELECT backend_pid FROM clarion.router") == router.get_server_pid()
