"""Ownership of shards: a session lock and a heartbeat for each worker, and a row that fences out whoever was before."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import asyncpg
import orjson

from clarion.core.errors import Fenced, StoreUnavailable
from clarion.database.pool import store_errors
from clarion.delivery.queue import SQL

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """When a worker may send and when it is taken for dead. All in seconds."""

    beat_every_s: float = 1.0
    lease_s: float = 10.0
    """How long after its last heartbeat a worker may still send."""
    frozen_after_s: float = 15.0
    """By how much its last heartbeat is older than another's when that one fences a worker and ends its session; later than the
    lease's end."""
    share_every_s: float = 0.2
    """How often a worker looks for dead ones and for its share."""
    patience_s: float = 3.0
    """After it lost a session itself, or its heartbeat was held up, how long a worker leaves others the time to come back from what
    hit them all."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A worker as its row has it: its id, and how often it has released shards."""

    worker_id: int
    releases: int


@dataclass(frozen=True, slots=True)
class Shares:
    """The live workers, and each shard's owner (None: free)."""

    workers: list[int]
    owners: dict[int, int | None]


class Ownership:
    """The worker's statements on clarion.workers and clarion.shards. Raises StoreUnavailable when a session is lost.

    `owning` holds the lock and beats. `reading` moves shards, in turn with the reads of the queue, so that none is read
    while it changes hands. `login` may end another's session.
    """

    def __init__(
        self, owning: asyncpg.Connection, reading: asyncpg.Connection, login: asyncpg.Connection, policy: LeasePolicy
    ) -> None:
        self._owning = owning
        self._reading = reading
        self._login = login
        self.policy = policy

    async def join(self, name: str) -> Standing:
        """Become a new worker, without shards."""
        with store_errors("join the workers"):
            row = await self._owning.fetchrow(SQL["join"], name)
        if row is None:
            raise StoreUnavailable("the lock of a new worker is held by another session")
        return Standing(row["id"], row["releases"])

    async def rejoin(self, worker_id: int) -> Standing:
        """Go on as the worker of a session that was lost. Raises Fenced if another ended it meanwhile."""
        with store_errors("rejoin the workers"):
            if not await self._owning.fetchval(SQL["lock"], worker_id):
                # The server has not noticed yet that our own session is gone.
                await self._end_session_of(worker_id)
                raise StoreUnavailable("this worker's former session still holds its lock")
            row = await self._owning.fetchrow(SQL["rejoin"], worker_id)
        if row is None:
            raise Fenced("another worker took over the shards")
        return Standing(row["id"], row["releases"])

    async def beat(self, worker_id: int) -> datetime:
        """Still alive; the database's clock. Raises Fenced if another took over."""
        with store_errors("worker heartbeat"):
            moment: datetime | None = await self._owning.fetchval(SQL["beat"], worker_id)
        if moment is None:
            raise Fenced("another worker took over the shards")
        return moment

    async def look(self, worker_id: int, *, patient: bool) -> Shares:
        """Fence the dead, free their shards, and say who is there. Raises Fenced if this worker was taken for dead.

        `patient`: nobody is taken for dead yet.
        """
        asked = (worker_id, self.policy.frozen_after_s, not patient)
        with store_errors("look at the workers"):
            shares, any_dead = await self._shares(asked)
            if any_dead:
                for dead in await self._reading.fetch(SQL["fence_dead"], *asked):
                    _log.warning("worker %s is dead or frozen: its shards are free", dead["id"])
                    await self._end_session_of(dead["id"])
                shares, _ = await self._shares(asked)
            if ended := set(shares.owners.values()) - {None, *shares.workers}:
                await self._reading.execute(SQL["free"])
                owners = {shard: None if owner in ended else owner for shard, owner in shares.owners.items()}
                shares = Shares(shares.workers, owners)
        if worker_id not in shares.workers:
            raise Fenced("another worker took over the shards")
        return shares

    async def _shares(self, asked: tuple[int, float, bool]) -> tuple[Shares, bool]:
        """As the tables have it, and whether one of the workers is dead."""
        row = await self._reading.fetchrow(SQL["shares"], *asked)
        assert row is not None
        owners = {int(shard): owner for shard, owner in orjson.loads(row["owners"]).items()}
        return Shares(row["workers"], owners), row["any_dead"]

    async def claim(self, worker_id: int, shards: Collection[int]) -> list[int]:
        """Those of the shards that were still free, owned now."""
        with store_errors("claim shards"):
            return [row["shard"] for row in await self._reading.fetch(SQL["claim"], worker_id, list(shards))]

    async def release(self, worker_id: int, shards: Collection[int]) -> int:
        """Give shards up; the new count of releases. No settle of this worker may be under way."""
        with store_errors("release shards"):
            releases: int | None = await self._reading.fetchval(SQL["release"], worker_id, list(shards))
        if releases is None:
            raise Fenced("another worker took over the shards")
        return releases

    async def leave(self, worker_id: int) -> None:
        """Give everything up at once, rather than when the session ends."""
        with store_errors("leave the workers"):
            await self._owning.execute(SQL["leave"], worker_id)
            await self._owning.execute(SQL["free"])

    async def _end_session_of(self, worker_id: int) -> None:
        """End the session that holds the worker's lock, if there is one."""
        holder = await self._login.fetchval(SQL["holder"], worker_id)
        if holder is not None:
            await self._login.fetchval(SQL["end_session"], holder)
