"""Be a worker: open sessions, own a share of the shards, deliver, and begin again when a session is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import asyncpg

from clarion.core.clock import Clock, Random
from clarion.core.errors import Fenced, StoreUnavailable
from clarion.core.settings import DEFAULT_ENVIRONMENT
from clarion.database.pool import close, connect_all, join_by_hash, plan_once
from clarion.delivery.shard import LeasePolicy, Ownership
from clarion.delivery.worker import Session, Worker, incarnation_of
from clarion.sender.seal import Sealer
from clarion.sender.send import Sender

_log = logging.getLogger(__name__)

Connect = Callable[[str], Awaitable[asyncpg.Connection]]


async def run_delivery(
    connect_engine: Connect,
    connect_login: Connect,
    name: str,
    sender: Sender,
    sealer: Sealer,
    clock: Clock,
    random: Random,
    stopping: asyncio.Event,
    environment: str = DEFAULT_ENVIRONMENT,
    working: Callable[[bool], None] = lambda _: None,
    policy: LeasePolicy = LeasePolicy(),
) -> None:
    """Deliver until `stopping`, then finish the requests under way and release the shards.

    `connect_engine` opens sessions with the engine's role, `connect_login` with the login's own (only that one may end
    another's session). `environment` is the one whose egress rules hold. `working(True)` is called when this process
    delivers, `working(False)` when it ends.
    """
    worker: Worker | None = None
    wait_s = 0.05
    while not stopping.is_set():
        opened: list[asyncpg.Connection] = []
        try:
            opened = await connect_all(
                [
                    connect_engine("delivery"),
                    connect_engine("delivery load"),
                    connect_engine("delivery settle"),
                    connect_login("delivery watch"),
                ]
            )
            owning, reading, writing, login = opened
            await join_by_hash(writing)
            await asyncio.gather(plan_once(reading), plan_once(writing))
            ownership = Ownership(owning, reading, login, policy)
            if worker is None:
                standing = await ownership.join(name)
                worker = Worker(
                    standing.worker_id, await incarnation_of(owning), sender, sealer, clock, random, environment
                )
                _log.info("delivering, as worker %s", worker.worker_id)
            else:
                standing = await ownership.rejoin(worker.worker_id)
            session = Session(owning, reading, writing, ownership, standing.releases)

            def started() -> None:
                nonlocal wait_s
                wait_s = 0.05
                working(True)

            await worker.run(session, stopping, started)
            await ownership.leave(worker.worker_id)
        except StoreUnavailable as error:
            _log.warning("delivery starts again in %.2f s: %s", wait_s, error)
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, 2.0)
        except Fenced as error:
            _log.warning("delivery begins anew: %s", error)
            if worker is not None:
                worker.discard()
            worker = None
        finally:
            working(False)
            for connection in opened:
                await close(connection)
