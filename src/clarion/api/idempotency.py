"""A request that may be sent twice: what it does and its answer are committed together, and it is told again.

A crash before the commit leaves nothing; after it, whoever asks again with the same key gets the stored answer, byte
for byte. An answer may hold a secret that is told this once: it is sealed, bound to client and key.

Two requests with one key: the second waits. In the same process it holds no connection meanwhile, and the rest of the
time it waits for a lock in the database, in which the first may be at work from another process.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha256

from sqlalchemy import func, insert, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from clarion.access.principal import Principal
from clarion.api.answers import Answer, Refused
from clarion.api.session import Whole, settings_of
from clarion.core.errors import BeforeGraphQL
from clarion.database import tables
from clarion.database.transaction import transaction
from clarion.registry.encryption_key import hold_key
from clarion.sender.endpoint import idempotency_binding
from clarion.sender.seal import Sealer

WAIT_S = 3.0
"""How long a request waits for another one with its key."""

KEY_LENGTH_MAX = 255
ANSWER_BYTES_MAX = 256 * 1024

_LOCK_NOT_AVAILABLE = "55P03"
_Act = Callable[[Whole], Awaitable[Answer]]


class NotKept(Exception):
    """What was done is taken back, and this is the answer: told now, but not stored."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


def checked_key(header: str) -> str:
    """The key in the header. Raises Refused (400) unless it is 1 to 255 printable ASCII characters."""
    if not (1 <= len(header) <= KEY_LENGTH_MAX and header.isascii() and header.isprintable()):
        raise Refused(
            400,
            BeforeGraphQL.MALFORMED,
            f"`idempotency-key` must have 1 to {KEY_LENGTH_MAX} printable ASCII characters",
        )
    return header


def too_large(answer: Answer) -> str:
    """Why an answer is not kept."""
    return (
        f"with an idempotency key the answer may have {ANSWER_BYTES_MAX} bytes, this one would have "
        f"{len(answer.content)}: ask for less in it; nothing was done"
    )


class Idempotency:
    """Carries requests out once for each key of a client."""

    def __init__(self, engine: AsyncEngine, role: str, sealer: Sealer) -> None:
        self._engine = engine
        self._role = role
        self._sealer = sealer
        self._running: dict[tuple[int, str], asyncio.Event] = {}

    async def once(self, principal: Principal, request_id: str, key: str, request: bytes, act: _Act) -> Answer:
        """What `act` answers in a transaction that is committed with its answer, or what it answered before.

        `request` is what must be the same when it comes again: the path and the body. `act` may raise NotKept.
        Raises Refused: 422 if the key came with another request, 409 if one with the key still runs after 3 s, 413 if
        the answer is too large to keep.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + WAIT_S
        async with self._turn((principal.client_id, key), until_s):
            try:
                async with self._transaction(principal, request_id) as connection:
                    await _lock(connection, principal, key, until_s - loop.time())
                    before = await self._answered(connection, principal, key, request)
                    if before is not None:
                        return before
                    whole = Whole(connection)
                    answer = await act(whole)
                    await self._keep(connection, principal, key, request, answer)
                    return answer
            except NotKept as instead:
                return instead.answer

    @asynccontextmanager
    async def _turn(self, name: tuple[int, str], until_s: float) -> AsyncIterator[None]:
        """One at a time in this process. Raises Refused (409)."""
        while (running := self._running.get(name)) is not None:
            try:
                async with asyncio.timeout_at(until_s):
                    await running.wait()
            except TimeoutError:
                raise _in_use() from None
        ended = self._running[name] = asyncio.Event()
        try:
            yield
        finally:
            del self._running[name]
            ended.set()

    @asynccontextmanager
    async def _transaction(self, principal: Principal, request_id: str) -> AsyncIterator[AsyncConnection]:
        """Committed when the block ends, rolled back when it raises."""
        settings = settings_of(self._role, principal, request_id)
        async with self._engine.connect() as connection, transaction(connection, settings):
            yield connection

    async def _answered(
        self, connection: AsyncConnection, principal: Principal, key: str, request: bytes
    ) -> Answer | None:
        """The stored answer. Raises Refused (422) if it is another request's."""
        kept = tables.idempotency_keys.c
        row = (
            await connection.execute(
                select(kept.request_sha256, kept.status, kept.answer_sealed).where(
                    kept.organisation_id == principal.organisation_id,
                    kept.client_id == principal.client_id,
                    kept.key == key,
                )
            )
        ).one_or_none()
        if row is None:
            return None
        if row.request_sha256 != sha256(request).digest():
            raise Refused(
                422,
                BeforeGraphQL.IDEMPOTENCY_KEY_REUSED,
                "this idempotency key came with another request before: take a new one",
            )
        content = self._sealer.unseal(row.answer_sealed, idempotency_binding(principal.client_id, key))
        return Answer(row.status, content, replayed=True)

    async def _keep(
        self, connection: AsyncConnection, principal: Principal, key: str, request: bytes, answer: Answer
    ) -> None:
        if len(answer.content) > ANSWER_BYTES_MAX:
            raise Refused(413, BeforeGraphQL.TOO_LARGE, too_large(answer))
        await hold_key(connection, self._sealer)
        await connection.execute(
            insert(tables.idempotency_keys).values(
                organisation_id=principal.organisation_id,
                client_id=principal.client_id,
                key=key,
                request_sha256=sha256(request).digest(),
                status=answer.status,
                answer_sealed=self._sealer.seal(answer.content, idempotency_binding(principal.client_id, key)),
            )
        )


async def _lock(connection: AsyncConnection, principal: Principal, key: str, wait_s: float) -> None:
    """The key, for this transaction alone. Raises Refused (409)."""
    await connection.execute(select(func.set_config("lock_timeout", str(max(int(wait_s * 1000) - 50, 1)), True)))
    try:
        await connection.execute(select(func.pg_advisory_xact_lock(_lock_number(principal, key))))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            raise _in_use() from None
        raise
    # What mutations wait for has the statement's time. A statement of its own in any case: what comes next must see
    # what was committed while the lock was waited for.
    await connection.execute(select(func.set_config("lock_timeout", "0", True)))


def _lock_number(principal: Principal, key: str) -> int:
    """64 bits of a hash: two keys that share them only wait for each other."""
    (number,) = struct.unpack(">q", sha256(f"clarion idempotency {principal.client_id} {key}".encode()).digest()[:8])
    return int(number)


def _in_use() -> Refused:
    return Refused(
        409,
        BeforeGraphQL.IDEMPOTENCY_KEY_IN_USE,
        "a request with this idempotency key is still being carried out: try again",
    )
