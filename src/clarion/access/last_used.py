"""When each key was last used: noted in memory, written about once a minute, in one statement.

No request waits for it and none fails because of it. What cannot be written is kept for the next time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy import ARRAY, BigInteger, func, literal, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.core.clock import Clock

WRITE_EVERY_S = 60

_KEYS_MAX = 10_000
"""Keys that are noted between two writes; of further ones the first use goes unnoted."""

_WAIT_S = 2
"""For how long the database may take; the API's end waits for it once."""

_log = logging.getLogger(__name__)

Write = Callable[[Mapping[int, int]], Awaitable[None]]


class KeyUses:
    """The keys that were used since they were last written, each with the time of its latest use."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._used_ns: dict[int, int] = {}

    def note(self, api_key_id: int) -> None:
        """The key is being used now."""
        if api_key_id in self._used_ns or len(self._used_ns) < _KEYS_MAX:
            self._used_ns[api_key_id] = self._clock.monotonic_ns()

    async def write(self, write: Write) -> None:
        """Hand the noted keys to `write`, each with how long ago it was used, in milliseconds. Raises what it raises."""
        used_ns, self._used_ns = self._used_ns, {}
        if not used_ns:
            return
        now_ns = self._clock.monotonic_ns()
        try:
            await write({key: (now_ns - at_ns) // 1_000_000 for key, at_ns in used_ns.items()})
        except BaseException:
            self._used_ns = used_ns | self._used_ns
            raise

    async def follow(self, write: Write, every_s: float = WRITE_EVERY_S) -> None:
        """Write until cancelled, through any outage of the database, and a last time then."""
        try:
            while True:
                await asyncio.sleep(every_s)
                await self._try(write)
        finally:
            await self._try(write)

    async def _try(self, write: Write) -> None:
        try:
            async with asyncio.timeout(_WAIT_S):
                await self.write(write)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            _log.warning("when keys were last used could not be written: %s", type(error).__name__)
        except Exception:
            _log.exception("when keys were last used could not be written")


async def write_uses(connection: AsyncConnection, ages_ms: Mapping[int, int]) -> None:
    """Move `last_used` of these keys, of whatever organisation, forward to that long ago; never back."""
    await connection.execute(
        select(
            func.clarion.note_keys_used(
                literal(list(ages_ms), ARRAY(BigInteger)), literal(list(ages_ms.values()), ARRAY(BigInteger))
            )
        )
    )
