"""Transactions of a SQLAlchemy connection that begin with a role and settings, in one message to the server.

For engines in autocommit mode: SQLAlchemy would send BEGIN by itself and the rest in a statement of its own, which costs
more than most statements that follow. Whoever begins a transaction here ends it here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import asyncpg
from sqlalchemy.exc import DBAPIError

from clarion.core.errors import InvariantBroken

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


async def begin(connection: AsyncConnection, settings: Mapping[str, str], then: str = "") -> None:
    """Begin a transaction with these settings (`role` is one) until it ends; `then` is SQL that runs in it.

    The settings' names and `then` are the program's own, their values may be anybody's. Raises DBAPIError.
    """
    local = ", ".join(f"set_config('{name}', {_text(value)}, true)" for name, value in settings.items())
    await _send(connection, f"BEGIN; SELECT {local}; {then}")


async def commit(connection: AsyncConnection) -> None:
    """Raises DBAPIError, or InvariantBroken for a transaction in which something failed: then nothing of it stays."""
    if await _send(connection, "COMMIT") != "COMMIT":
        raise InvariantBroken("a transaction in which a statement had failed was to be committed")


async def roll_back(connection: AsyncConnection) -> None:
    """Take the transaction back. Never raises for a connection that is gone, or broken: it is not used again."""
    try:
        driver = await _driver(connection)
        if driver.is_in_transaction():
            await driver.execute("ROLLBACK")
    except BaseException as error:
        await connection.invalidate()
        if not isinstance(error, Exception):
            raise


@asynccontextmanager
async def transaction(connection: AsyncConnection, settings: Mapping[str, str]) -> AsyncIterator[None]:
    """One transaction with these settings, committed when the block ends, rolled back when it raises."""
    try:
        await begin(connection, settings)
        yield
        await commit(connection)
    except BaseException:
        await roll_back(connection)
        raise


def refuse_open(connection: Any, *_: object) -> None:
    """For the pool's `reset`: a connection inside of a transaction has somebody's role and is not used again."""
    if connection.driver_connection.is_in_transaction():
        raise RuntimeError("a connection was given back inside of a transaction")


def _text(value: str) -> str:
    """SQL for a text that may hold anything: what stands in the statement is hexadecimal digits."""
    return f"convert_from(decode('{value.encode().hex()}', 'hex'), 'UTF8')"


async def _send(connection: AsyncConnection, sql: str) -> str:
    """The server's word for the last statement done."""
    driver = await _driver(connection)
    try:
        return str(await driver.execute(sql))
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # As users of a SQLAlchemy connection know it; SQLSTATE is `orig.sqlstate`.
        raise DBAPIError(None, None, error) from error


async def _driver(connection: AsyncConnection) -> asyncpg.Connection:
    return cast(asyncpg.Connection, (await connection.get_raw_connection()).driver_connection)
