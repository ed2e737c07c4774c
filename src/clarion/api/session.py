"""One operation's way to the database: at most one connection, acting as the API's role for one organisation.

Row-level security is the second wall: each transaction names its role and organisation in its first statement, so that
whatever a query forgets to ask for, it sees this organisation's rows only. Reads share one transaction; each mutation
has one of its own, and what is read after it sees it. A request with an idempotency key is one transaction as a whole
(`Whole`): its mutations are savepoints in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from clarion.access.principal import Principal
from clarion.core.errors import Code, InvariantBroken, RequestRefused
from clarion.database.transaction import begin, commit, roll_back, transaction

STATEMENT_TIMEOUT_MS = 3_000
STATEMENTS_MAX = 50
"""Statements of one query, or of one mutation with what is read after it."""

_COUNTED = "clarion_statements"


@dataclass(slots=True)
class Statements:
    """How many statements were run since the count began."""

    count: int = 0

    def one_more(self) -> None:
        """Raises RequestRefused if that is too much."""
        self.count += 1
        if self.count > STATEMENTS_MAX:
            raise RequestRefused(
                Code.QUERY_TOO_COMPLEX,
                f"this takes more than the {STATEMENTS_MAX} statements that the database may be asked: ask for less at once",
            )


def count_statements(engine: AsyncEngine) -> None:
    """Make connections of `engine` count what sessions run, and refuse what is too much before it runs."""

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def counted(connection: Any, *_: object) -> None:
        statements = connection.get_execution_options().get(_COUNTED)
        if statements is not None:
            statements.one_more()


def settings_of(role: str, principal: Principal, correlation_id: str) -> dict[str, str]:
    """What a transaction of the API's role is told about who works in it, and why."""
    return {
        **_settings(role, str(principal.organisation_id)),
        "clarion.actor_id": str(principal.client_id),
        "clarion.actor_name": principal.name,
        "clarion.correlation_id": correlation_id,
    }


@asynccontextmanager
async def acting(engine: AsyncEngine, role: str) -> AsyncIterator[AsyncConnection]:
    """A transaction of the API's role outside of any organisation: it sees what all organisations share."""
    async with engine.connect() as connection, transaction(connection, _settings(role, "")):
        yield connection


def _settings(role: str, organisation_id: str) -> dict[str, str]:
    return {
        "role": role,
        "statement_timeout": str(STATEMENT_TIMEOUT_MS),
        "clarion.organisation_id": organisation_id,
    }


@dataclass(slots=True)
class Whole:
    """The one transaction of a whole request, which acts as the API's role for its client.

    `broken`: a statement failed that nobody answers for; nothing may be committed then.
    """

    connection: AsyncConnection
    broken: bool = False


class Session:
    """The connection of one operation, taken from the pool when first needed. `close` gives it back for good."""

    def __init__(
        self, engine: AsyncEngine, role: str, principal: Principal, correlation_id: str, whole: Whole | None = None
    ) -> None:
        self._engine = engine
        self._settings = settings_of(role, principal, correlation_id)
        # Resolvers of one operation run at the same time; a connection does one thing at a time.
        self._lock = asyncio.Lock()
        self._connection: AsyncConnection | None = None
        self._whole = whole
        self._closed = False
        self._statements = Statements()

    @property
    def is_whole(self) -> bool:
        """Whether nothing is committed before the request ends: no outcome can be waited for."""
        return self._whole is not None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """The operation's reading transaction; after an error the next read begins another."""
        async with self._lock:
            if self._whole is not None:
                async with self._part_of(self._whole) as connection:
                    yield connection
                return
            try:
                if self._connection is None:
                    self._connection = await self._begun()
                yield self._connection
            except BaseException:
                await self._end(keep=False)
                raise

    @asynccontextmanager
    async def writing(self, first: str = "") -> AsyncIterator[AsyncConnection]:
        """A transaction for one mutation: committed when the block ends, rolled back when it raises.

        `first` is SQL that the transaction begins with.
        """
        async with self._lock:
            self._statements.count = 0
            if self._whole is not None:
                async with self._part_of(self._whole) as connection, connection.begin_nested():
                    if first:
                        await connection.execute(text(first))
                    yield connection
                return
            await self._end(keep=True)
            try:
                self._connection = await self._begun(first)
                yield self._connection
            except BaseException:
                await self._end(keep=False)
                raise
            await self._end(keep=True)

    async def finish(self) -> None:
        """End the reading transaction and give the connection back; what is read next begins another."""
        async with self._lock:
            self._statements.count = 0
            await self._end(keep=True)

    async def close(self) -> None:
        """Give the connection back; there is no other after it."""
        async with self._lock:
            self._closed = True
            await self._end(keep=True)

    @asynccontextmanager
    async def _part_of(self, whole: Whole) -> AsyncIterator[AsyncConnection]:
        self._require_open()
        if whole.broken:
            # The database would refuse each statement now, and what is taken back need not be reckoned to its end.
            raise RequestRefused(Code.QUERY_TOO_COMPLEX, "this request was given up before: ask for less at once")
        await whole.connection.execution_options(**{_COUNTED: self._statements})
        try:
            yield whole.connection
        except SQLAlchemyError:
            whole.broken = True
            raise

    def _require_open(self) -> None:
        if self._closed:
            raise InvariantBroken("a session was used after its operation was answered")

    async def _begun(self, first: str = "") -> AsyncConnection:
        self._require_open()
        self._statements.one_more()
        connection = await self._engine.connect()
        try:
            await connection.execution_options(**{_COUNTED: self._statements})
            await begin(connection, self._settings, first)
        except BaseException:
            await roll_back(connection)
            await connection.close()
            raise
        return connection

    async def _end(self, *, keep: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if keep:
                await commit(connection)
        finally:
            await roll_back(connection)
            await connection.close()
