"""Transactions of the API's connections: their settings, whatever the values hold, and no connection left inside of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from clarion.api.server import api_engine
from clarion.core.errors import InvariantBroken
from clarion.database.address import DatabaseAddress
from clarion.database.transaction import begin, commit, roll_back, transaction


@pytest.fixture
async def engine(shared_database: DatabaseAddress) -> AsyncIterator[AsyncEngine]:
    engine = api_engine(shared_database)
    yield engine
    await engine.dispose()


async def setting(connection: AsyncConnection, name: str = "clarion.actor_name") -> str | None:
    found: str | None = await connection.scalar(text("SELECT current_setting(:name, true)"), {"name": name})
    return found


async def backend(connection: AsyncConnection) -> int:
    return int(await connection.scalar(text("SELECT pg_backend_pid()")) or 0)


HOSTILE = ["'); DROP TABLE clarion.receivers; --", "\\", "$$", "é'\"\n\r\t", "%s :name $1", "E'\\x00'", ""]


@given(value=st.sampled_from(HOSTILE) | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=200))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_setting_may_hold_anything(shared_database: DatabaseAddress, value: str) -> None:
    async def held() -> str | None:
        engine = api_engine(shared_database)
        try:
            async with engine.connect() as connection, transaction(connection, {"clarion.actor_name": value}):
                return await setting(connection)
        finally:
            await engine.dispose()

    assert asyncio.run(held()) == value


async def test_settings_end_with_the_transaction(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await begin(connection, {"clarion.actor_name": "ada"}, "SELECT set_config('clarion.correlation_id', 'c', true)")
        assert (await setting(connection), await setting(connection, "clarion.correlation_id")) == ("ada", "c")
        await commit(connection)
        assert not await setting(connection)


async def test_what_raises_leaves_nothing_and_the_connection_goes_on(engine: AsyncEngine) -> None:
    async def failing(connection: AsyncConnection, error: type[BaseException]) -> None:
        async with transaction(connection, {"clarion.actor_name": "x"}):
            await connection.execute(text("CREATE TABLE public.never (id int)"))
            raise error

    async with engine.connect() as connection:
        first = await backend(connection)
        for error in (ValueError, asyncio.CancelledError):
            with pytest.raises(error):
                await failing(connection, error)
        assert await connection.scalar(text("SELECT to_regclass('public.never')")) is None
        assert await backend(connection) == first


async def test_a_transaction_in_which_a_statement_failed_is_not_committed_silently(engine: AsyncEngine) -> None:
    async def failing(connection: AsyncConnection) -> None:
        async with transaction(connection, {"clarion.actor_name": "x"}):
            with pytest.raises(DBAPIError):
                await connection.execute(text("SELECT 1 / 0"))

    async with engine.connect() as connection:
        with pytest.raises(InvariantBroken):
            await failing(connection)
        assert await connection.scalar(text("SELECT 1")) == 1


async def test_a_beginning_that_fails_can_be_taken_back(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as refused:
            await begin(connection, {"role": "nobody has this name"})
        assert getattr(refused.value.orig, "sqlstate", None) == "22023"
        await roll_back(connection)
        assert await connection.scalar(text("SELECT 1")) == 1


async def test_a_connection_that_breaks_is_replaced(engine: AsyncEngine) -> None:
    with pytest.raises(DBAPIError):
        async with engine.connect() as connection, transaction(connection, {"clarion.actor_name": "x"}):
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    async with engine.connect() as connection:
        assert await connection.scalar(text("SELECT 1")) == 1


async def test_a_connection_given_back_inside_of_a_transaction_is_never_used_again(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        left = await backend(connection)
        await begin(connection, {"clarion.actor_name": "somebody"})
    async with engine.connect() as connection:
        assert await backend(connection) != left
        assert not await setting(connection)


async def test_one_that_is_cancelled_while_it_waits_holds_nothing(engine: AsyncEngine) -> None:
    lock = text("SELECT pg_advisory_xact_lock(4711)")
    async with engine.connect() as holder, transaction(holder, {"clarion.actor_name": "x"}):
        await holder.execute(lock)

        async def waits() -> None:
            async with engine.connect() as connection, transaction(connection, {"clarion.actor_name": "y"}):
                await connection.execute(lock)

        waiting = asyncio.create_task(waits())
        await asyncio.sleep(0.2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with engine.connect() as connection, transaction(connection, {"clarion.actor_name": "z"}):
        await connection.execute(text("SET LOCAL lock_timeout = '2s'"))
        await connection.execute(lock)
