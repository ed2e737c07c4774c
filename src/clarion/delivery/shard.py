"""Ownership of the shards: a session lock, a heartbeat, and a row that fences out whoever was before.

For now one worker owns all shards and others stand by.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime

import asyncpg

from clarion.core.errors import Fenced
from clarion.database.pool import store_errors
from clarion.delivery.queue import SQL

_log = logging.getLogger(__name__)

BEAT_EVERY_S = 1.0
LEASE_S = 10.0
"""How long after its last heartbeat a worker may still send."""
FROZEN_AFTER_S = 15.0
"""How long after its last heartbeat a worker's session is ended by a standby; later than the lease's end."""
STANDBY_EVERY_S = 0.25


class Ownership:
    """The session that holds the lock. Raises StoreUnavailable when it is lost."""

    def __init__(self, owning: asyncpg.Connection, login: asyncpg.Connection, name: str) -> None:
        self._owning = owning
        self._login = login
        self._name = name

    async def acquire(self, stopping: asyncio.Event) -> bool:
        """Wait for the lock, ending the session of a frozen owner; False if told to stop first."""
        while not stopping.is_set():
            with store_errors("worker lock"):
                if await self._owning.fetchval(SQL["lock"]):
                    return True
                frozen = await self._login.fetchval(SQL["frozen"], FROZEN_AFTER_S)
                if frozen is not None:
                    _log.warning("ending the session %s of a worker that stopped beating", frozen)
                    await self._login.fetchval(SQL["end_session"], frozen)
            await asyncio.sleep(STANDBY_EVERY_S)
        return False

    async def take_over(self) -> int:
        """End whoever was, own all shards; this worker's id."""
        with store_errors("take over the shards"):
            return int(await self._owning.fetchval(SQL["take_over"], self._name, self._owning.get_server_pid()))

    async def beat(self, worker_id: int) -> datetime:
        """Still alive; the database's clock. Raises Fenced if another took over."""
        with store_errors("worker heartbeat"):
            moment: datetime | None = await self._owning.fetchval(SQL["beat"], worker_id)
        if moment is None:
            raise Fenced("another worker took over the shards")
        return moment

    async def release(self, worker_id: int) -> None:
        """Give the shards up at once, rather than when the session ends."""
        with store_errors("release the shards"):
            await self._owning.execute(SQL["release"], worker_id)
