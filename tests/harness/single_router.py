"""The production router in a process of its own, with an evaluation that kills it at one object of the application, or with
less patience for a router that does not beat.

python -m harness.single_router DATABASE_URL [--killed-by OBJECT_ID] [--frozen-after SECONDS]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
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
from clarion.routing.pace import RouterPolicy
from clarion.routing.router import run_router
from clarion.telemetry.log import configure


async def main(url: str, killed_by: str | None, frozen_after_s: float) -> None:
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
            if alive and row.object_id == killed_by:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().evaluate(row, subscriptions, alive=alive)

    def working(active: bool) -> None:
        if active:
            print("working", flush=True)

    clock = SystemClock()
    policy = RouterPolicy(frozen_after_s=frozen_after_s)
    evaluator = Poisoned(clock.monotonic_ns, clock.cpu_ns)
    await run_router(engine, login, clock, SystemRandom(), stopping, working, policy, evaluator)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--killed-by", metavar="OBJECT_ID")
    parser.add_argument("--frozen-after", type=float, default=RouterPolicy().frozen_after_s, metavar="SECONDS")
    options = parser.parse_args()
    asyncio.run(main(options.url, options.killed_by, options.frozen_after))
