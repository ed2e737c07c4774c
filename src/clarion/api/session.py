"""One operation's way to the database: at most one connection, acting as the API's role for one organisation.

Row-level security is the second wall: each transaction names its role and organisation in its first statement, so that
whatever a query forgets to ask for, it sees this organisation's rows only. Reads share one transaction; each mutation
has one of its own, and what is read after it sees it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from clarion.access.principal import Principal

STATEMENT_TIMEOUT_MS = 3_000


async def act_as(connection: AsyncConnection, role: str, settings: Mapping[str, str]) -> None:
    """Take on `role` and these settings until the transaction ends, in one statement."""
    local = {"role": role, "statement_timeout": str(STATEMENT_TIMEOUT_MS), **settings}
    await connection.execute(
        _setting(tuple(local)), {f"value_{number}": value for number, value in enumerate(local.values())}
    )


@cache
def _setting(names: tuple[str, ...]) -> Select[Any]:
    """The statement that sets these for a transaction, made once: building it costs more than running it."""
    return select(*(func.set_config(name, bindparam(f"value_{number}"), True) for number, name in enumerate(names)))


@asynccontextmanager
async def acting(engine: AsyncEngine, role: str) -> AsyncIterator[AsyncConnection]:
    """A transaction of the API's role outside of any organisation: it sees what all organisations share."""
    async with engine.connect() as connection, connection.begin():
        await act_as(connection, role, {"clarion.organisation_id": ""})
        yield connection


class Session:
    """The connection of one operation, taken from the pool when first needed. `finish` gives it back."""

    def __init__(self, engine: AsyncEngine, role: str, principal: Principal, correlation_id: str) -> None:
        self._engine = engine
        self._role = role
        self._settings = {
            "clarion.organisation_id": str(principal.organisation_id),
            "clarion.actor_id": str(principal.client_id),
            "clarion.actor_name": principal.name,
            "clarion.correlation_id": correlation_id,
        }
        # Resolvers of one operation run at the same time; a connection does one thing at a time.
        self._lock = asyncio.Lock()
        self._connection: AsyncConnection | None = None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """The operation's reading transaction; after an error the next read begins another."""
        async with self._lock:
            try:
                if self._connection is None:
                    self._connection = await self._begun()
                yield self._connection
            except BaseException:
                await self._end(commit=False)
                raise

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction for one mutation: committed when the block ends, rolled back when it raises."""
        async with self._lock:
            await self._end(commit=True)
            try:
                self._connection = await self._begun()
                yield self._connection
            except BaseException:
                await self._end(commit=False)
                raise
            await self._end(commit=True)

    async def finish(self) -> None:
        """End the reading transaction and give the connection back."""
        async with self._lock:
            await self._end(commit=True)

    async def _begun(self) -> AsyncConnection:
        connection = await self._engine.connect()
        try:
            await connection.begin()
            await act_as(connection, self._role, self._settings)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _end(self, *, commit: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if commit:
                await connection.commit()
        finally:
            await connection.close()
