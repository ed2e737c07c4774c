"""When keys were last used: noted in memory, written rarely, never at the cost of a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping

import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from clarion.access.bootstrap import create_key
from clarion.access.last_used import KeyUses, write_uses
from clarion.access.principal import Role
from clarion.core.system import SystemRandom
from clarion.database.address import DatabaseAddress


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.ms = 0

    def monotonic_ns(self) -> int:
        return self.ms * 1_000_000


def uses_at(clock: Hand) -> KeyUses:
    return KeyUses(clock)  # type: ignore[arg-type]  # a clock that the test turns


async def test_of_each_key_its_latest_use_is_written_once() -> None:
    clock = Hand()
    uses = uses_at(clock)
    written: list[Mapping[int, int]] = []

    async def write(ages_ms: Mapping[int, int]) -> None:
        written.append(ages_ms)

    await uses.write(write)
    for key, ms in ((1, 0), (2, 10), (1, 500)):
        clock.ms = ms
        uses.note(key)
    clock.ms = 1_000
    await uses.write(write)
    await uses.write(write)
    assert written == [{1: 500, 2: 990}]


async def test_what_could_not_be_written_is_written_later(caplog: pytest.LogCaptureFixture) -> None:
    clock = Hand()
    uses = uses_at(clock)
    written: asyncio.Queue[Mapping[int, int]] = asyncio.Queue()
    failures = [OSError("gone"), RuntimeError("a fault of our own")]

    async def write(ages_ms: Mapping[int, int]) -> None:
        if failures:
            # A use while the writing fails is the later one.
            clock.ms += 100
            uses.note(2)
            raise failures.pop(0)
        written.put_nowait(ages_ms)

    uses.note(1)
    uses.note(2)
    with caplog.at_level(logging.WARNING):
        following = asyncio.create_task(uses.follow(write, every_s=0.001))
        assert await asyncio.wait_for(written.get(), 5) == {1: 200, 2: 0}
        # What is noted before the end is written at the end.
        uses.note(3)
        following.cancel()
        await asyncio.wait([following])
    assert following.cancelled()
    assert written.get_nowait() == {3: 0}
    assert ["could not be written" in record.message for record in caplog.records] == [True, True]


async def test_what_is_kept_in_memory_is_bounded() -> None:
    uses = uses_at(Hand())
    for key in range(10_010):
        uses.note(key)
    uses.note(5)

    async def write(ages_ms: Mapping[int, int]) -> None:
        assert len(ages_ms) == 10_000

    await uses.write(write)


@pytest.fixture
async def connection(database: DatabaseAddress) -> AsyncIterator[AsyncConnection]:
    """As the API's role outside of any organisation, with keys 1 and 2 of one organisation and 3 of another."""
    setting_up = sqlalchemy.create_engine(database.sqlalchemy("psycopg"), poolclass=sqlalchemy.NullPool)
    with setting_up.begin() as made:
        for organisation in ("one", "one", "two"):
            create_key(made, organisation, "erp", Role.AUDITOR, SystemRandom())
    engine = create_async_engine(database.sqlalchemy("asyncpg"))
    async with engine.connect() as opened, opened.begin():
        await opened.execute(sqlalchemy.text("SELECT set_config('role', api_role, true) FROM clarion.deployment"))
        yield opened
    await engine.dispose()


async def test_uses_of_all_organisations_are_written_in_one_statement_and_only_forward(
    connection: AsyncConnection,
) -> None:
    ids = [1, 2, 3]

    async def ages() -> list[int | None]:
        await connection.execute(sqlalchemy.text("RESET ROLE"))
        found = await connection.execute(
            sqlalchemy.text(
                "SELECT round(extract(epoch FROM now() - last_used) / 100)::int FROM clarion.api_keys ORDER BY id"
            )
        )
        stored = list(found.scalars())
        await connection.execute(sqlalchemy.text("SELECT set_config('role', api_role, true) FROM clarion.deployment"))
        return stored

    assert await ages() == [None, None, None]
    await write_uses(connection, {ids[0]: 200_000, ids[2]: 300_000, 999: 0})
    assert await ages() == [2, None, 3]
    await write_uses(connection, {ids[0]: 900_000, ids[1]: 100_000, ids[2]: 100_000})
    assert await ages() == [2, 1, 1]
    # The API's role sees no key of any organisation while it names none.
    seen = await connection.execute(sqlalchemy.text("SELECT count(*) FROM clarion.api_keys"))
    assert seen.scalar_one() == 0
