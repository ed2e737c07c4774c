"""The API's process: engine, schema and HTTP server, until it is cancelled."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from sqlalchemy import event, select
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from clarion.access.authentication import KeyCache
from clarion.access.last_used import KeyUses, write_uses
from clarion.api.connections import BoundedProtocol
from clarion.api.context import Services
from clarion.api.gate import Api
from clarion.api.http import build_app
from clarion.api.idempotency import Idempotency
from clarion.api.rate import Quota, RateLimiter, Strangers
from clarion.api.refusals import Refusals
from clarion.api.schema_source import SchemaSource
from clarion.api.session import acting, count_statements
from clarion.core.clock import Clock, Random
from clarion.core.environments import Environments
from clarion.core.errors import StoreUnavailable
from clarion.core.settings import Settings
from clarion.database import tables
from clarion.database.address import DatabaseAddress
from clarion.database.transaction import refuse_open
from clarion.sender.policy import Policy
from clarion.sender.seal import Sealer

CONNECTIONS_KEPT = 5
CONNECTIONS_MAX = 10
_CONNECTION_WAIT_S = 5
_SHUTDOWN_S = 2
_UNKNOWN_KEYS = Quota(10, 100)
"""Unknown keys that are looked up for one address: each costs a question to the database."""


class _Server(uvicorn.Server):
    """Tells when it accepts connections. Signals belong to the process's composition root."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._started()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def no_other_roles() -> Mapping[str, bool]:
    """What `/readyz` adds where the API runs alone."""
    return {}


async def serve_api(
    settings: Settings,
    address: DatabaseAddress,
    listening: socket.socket,
    clock: Clock,
    random: Random,
    sealer: Sealer,
    stopping: asyncio.Event,
    started: Callable[[], None],
    ready: Callable[[], Mapping[str, bool]] = no_other_roles,
    policy: Policy | None = None,
    environments: Environments = Environments(),
    pages: Sequence[BaseRoute] = (),
) -> None:
    """Answer on `listening`, a bound socket, until `stopping` or cancelled; then open requests get two seconds.

    `started` is called once, when connections are accepted. `ready` tells for each other role whether it is ready,
    for `/readyz`; it must answer at once. `pages` are further routes, for browsers. Raises StoreUnavailable when the
    database cannot be reached at the start.
    """
    engine = api_engine(address)
    try:
        role = await _api_role(engine)
        source = SchemaSource(engine, role, clock)
        await source.refresh()
        services = Services(
            sealer,
            random,
            clock,
            policy or Policy(settings.allowed_networks),
            environments,
            settings.environment_name,
        )
        uses = KeyUses(clock)
        refusals = Refusals(engine, role, clock)
        api = Api(
            engine,
            role,
            KeyCache(clock, uses),
            source,
            services,
            ready,
            RateLimiter(Quota(settings.api_points_per_second, settings.api_points_burst)),
            Strangers(_UNKNOWN_KEYS),
            Idempotency(engine, role, sealer),
            refusals,
        )
        app = build_app(api, pages)

        async def write(ages_ms: Mapping[int, int]) -> None:
            async with acting(engine, role) as connection:
                await write_uses(connection, ages_ms)

        following = [
            asyncio.create_task(source.follow(), name="clarion schema"),
            asyncio.create_task(uses.follow(write), name="clarion keys used"),
            asyncio.create_task(refusals.follow(), name="clarion refusals"),
        ]
        try:
            await _serve(_Server(_config(app), started), listening, stopping)
        finally:
            for task in following:
                task.cancel()
            await asyncio.wait(following)
    finally:
        await engine.dispose()


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )


async def _serve(server: uvicorn.Server, listening: socket.socket, stopping: asyncio.Event) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="clarion http")
    told = asyncio.create_task(stopping.wait(), name="clarion stop")
    try:
        await asyncio.wait([serving, told], return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
        server.should_exit = True
        await asyncio.wait([serving])
    serving.result()


def api_engine(address: DatabaseAddress) -> AsyncEngine:
    """A modest pool of connections for the API, which counts what sessions ask. Parameters never reach its error messages."""
    engine = create_async_engine(
        address.sqlalchemy("asyncpg"),
        pool_size=CONNECTIONS_KEPT,
        max_overflow=CONNECTIONS_MAX - CONNECTIONS_KEPT,
        pool_timeout=_CONNECTION_WAIT_S,
        hide_parameters=True,
        # Transactions are begun and ended by clarion.database.transaction.
        isolation_level="AUTOCOMMIT",
        connect_args={
            "timeout": 5,
            "server_settings": {"application_name": "clarion api", "timezone": "UTC", "jit": "off"},
        },
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    event.listen(engine.sync_engine, "reset", refuse_open)
    count_statements(engine)
    return engine


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """Lets the pool take another connection for one that ended while it lay there. The driver has seen it: no ping."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


async def _api_role(engine: AsyncEngine) -> str:
    try:
        async with engine.connect() as connection:
            return str((await connection.execute(select(tables.deployment.c.api_role))).scalar_one())
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"the API cannot read the database: {error}") from error
