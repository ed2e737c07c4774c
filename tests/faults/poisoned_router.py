"""The production router in a process of its own, with an evaluation that kills it at one object of the application.

python poisoned_router.py DATABASE_URL OBJECT_ID
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

import asyncpg

from clarion.core.system import SystemClock, SystemRandom
from clarion.database import pool
from clarion.database.address import DatabaseAddress
from clarion.database.check import connect
from clarion.database.roles import read_roles
from clarion.ledger.change import Captured
from clarion.routing.evaluation import Evaluator, Failure, Firing
from clarion.routing.match import Subscription
from clarion.routing.router import run_router
from clarion.telemetry.log import configure


async def main(url: str, object_id: str) -> None:
    configure("INFO", "router")
    address = DatabaseAddress(url)
    with connect(address) as connection:
        engine_role = read_roles(connection).engine
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)

    async def engine(name: str) -> asyncpg.Connection:
        return await pool.connect(address, role=engine_role, name=name)

    async def login(name: str) -> asyncpg.Connection:
        return await pool.connect(address, role=None, name=name)

    class Poisoned(Evaluator):
        def evaluate(
            self, row: Captured, subscriptions: Sequence[Subscription], *, alive: bool = True
        ) -> tuple[list[Firing], list[Failure]]:
            if alive and row.object_id == object_id:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().evaluate(row, subscriptions, alive=alive)

    def working(active: bool) -> None:
        if active:
            print("working", flush=True)

    clock = SystemClock()
    await run_router(
        engine, login, clock, SystemRandom(), stopping, working, evaluator=Poisoned(clock.monotonic_ns, clock.cpu_ns)
    )


asyncio.run(main(*sys.argv[1:]))
