"""The production router in a process of its own, with an evaluation that kills it at one object of the application.

python poisoned_router.py DATABASE_URL OBJECT_ID
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import asyncpg

from clarion.core.system import SystemClock, SystemRandom
from clarion.database import pool
from clarion.database.address import DatabaseAddress
from clarion.database.check import connect
from clarion.database.roles import read_roles
from clarion.ledger.change import Captured
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

    def evaluate(row: Captured) -> None:
        if row.object_id == object_id:
            os.kill(os.getpid(), signal.SIGKILL)

    def working(active: bool) -> None:
        if active:
            print("working", flush=True)

    await run_router(engine, login, SystemClock(), SystemRandom(), stopping, working, evaluate=evaluate)


asyncio.run(main(*sys.argv[1:]))
