"""The composition root: what is needed to run, made once and handed down."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg

from clarion.core.clock import Clock
from clarion.core.environments import Environment, load_environments
from clarion.core.errors import EnvironmentRefused
from clarion.core.settings import Settings
from clarion.core.system import SystemClock, SystemRandom
from clarion.database import pool
from clarion.database.address import DatabaseAddress
from clarion.database.check import check_server, connect
from clarion.database.embedded import EmbeddedServer
from clarion.database.migrate import adopt, assert_migrated, identity_mismatch, migrate
from clarion.database.roles import Roles, read_roles

if TYPE_CHECKING:
    from clarion.sender.policy import Policy
    from clarion.sender.route import Route
    from clarion.sender.seal import Sealer

_log = logging.getLogger(__name__)

WATCH_ROLES_EVERY_S = 0.5
ROLE_SILENT_AFTER_S = 5.0
_BEATING = """
    SELECT coalesce((SELECT beat_at > clock_timestamp() - make_interval(secs => $1) FROM clarion.router), false) AS router,
           EXISTS (SELECT FROM clarion.workers
                   WHERE ended_at IS NULL AND beat_at > clock_timestamp() - make_interval(secs => $1)) AS delivery
"""


@contextmanager
def open_database(settings: Settings, *, progress: Callable[[str], None] = lambda _: None) -> Iterator[DatabaseAddress]:
    """The database of these settings, ready to be worked with.

    The embedded server is started or joined, and migrated; a database of the user's own must have been migrated.
    Raises EnvironmentRefused.
    """
    with open_server(settings, progress=progress) as (address, _):
        yield address


@contextmanager
def open_server(
    settings: Settings, *, progress: Callable[[str], None] = lambda _: None
) -> Iterator[tuple[DatabaseAddress, EmbeddedServer | None]]:
    """As `open_database`, with the embedded server for whoever has to keep it alive; None if it is not ours."""
    if settings.database_url is None:
        from clarion.capture.guard import ensure as ensure_guard

        server = EmbeddedServer(settings.data_dir)
        with server as address:
            prepare_database(address, progress=progress)
            with connect(address) as connection:
                ensure_guard(connection)
            yield address, server
        return
    address = DatabaseAddress(settings.database_url.get_secret_value())
    with connect(address, autocommit=True) as connection:
        check_server(connection)
    assert_migrated(address)
    yield address, None


def prepare_database(address: DatabaseAddress, *, progress: Callable[[str], None] = lambda _: None) -> None:
    """Bring the schema up to date and register Clarion's own resources. Raises EnvironmentRefused."""
    from clarion.capture.attach import OWN_RESOURCES, attach

    migrate(address, progress=progress)
    with connect(address) as connection:
        present = {row[0] for row in connection.execute("SELECT name FROM clarion.resources").fetchall()}
        missing = [own for own in OWN_RESOURCES if own.resource not in present]
        if missing:
            attach(connection, missing)


def load_secret_key(settings: Settings, connection: psycopg.Connection[Any]) -> bytes:
    """The key-encryption key: the one with the database's fingerprint, of those at its path and beside it.

    A rotation that was cut short is completed. A key is made here only at the first start on an embedded server.
    Raises EnvironmentRefused for a missing or other key.
    """
    from clarion.registry.encryption_key import finish_rotation, stored_fingerprint
    from clarion.sender.seal import create_key, find_keys, fingerprint, load_key

    path = settings.secret_key_path
    stored = stored_fingerprint(connection)
    if stored is None and settings.database_url is None and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        create_key(path, SystemRandom())
    if stored is None:
        key = load_key(path)
        connection.execute("UPDATE clarion.deployment SET secret_key_fingerprint = %s", (fingerprint(key),))
        connection.commit()
        return key
    for key in find_keys(path):
        if fingerprint(key) == stored:
            finish_rotation(connection, path, stored)
            return key
    load_key(path)
    raise EnvironmentRefused(
        f"{path} is not the key that this database's secrets are sealed with",
        "point CLARION_SECRET_KEY_FILE at the key that was in use; nothing was changed",
    )


def make_sealer(settings: Settings, key: bytes) -> Sealer:
    """A sealer that finds the keys of a rotation by itself."""
    from clarion.sender.seal import Sealer, find_keys

    return Sealer(key, SystemRandom(), partial(find_keys, settings.secret_key_path))


def settle_identity(connection: psycopg.Connection[Any], *, adopting: bool) -> str | None:
    """Why nothing may be delivered from this database, or None. `adopting` makes it a new incarnation instead."""
    mismatch = identity_mismatch(connection)
    if mismatch is not None and adopting:
        _log.warning("adopted as incarnation %s: %s", adopt(connection), mismatch)
        return None
    return mismatch


def bootstrap(settings: Settings, address: DatabaseAddress) -> None:
    """Make organisation `default` and client `bootstrap` for CLARION_BOOTSTRAP_API_KEY, if it is set."""
    if settings.bootstrap_api_key is None:
        return
    import sqlalchemy

    from clarion.access.bootstrap import ensure_bootstrap

    engine = sqlalchemy.create_engine(address.sqlalchemy("psycopg"), poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        ensure_bootstrap(connection, settings.bootstrap_api_key.get_secret_value())


def listen(settings: Settings) -> socket.socket:
    """The API's listening socket. Raises EnvironmentRefused if the address cannot be had."""
    try:
        found = socket.getaddrinfo(
            settings.listen_host, settings.listen_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.create_server(found[0][4][:2], family=found[0][0], backlog=2048)
    except (OSError, UnicodeError) as error:
        # asyncio and socket write the address into the text; the system's own word for the number is enough.
        number = error.errno if isinstance(error, OSError) else None
        reason = os.strerror(number) if number is not None and number > 0 else str(error)
        raise EnvironmentRefused(
            f"cannot listen on {settings.listen}: {reason}",
            "end the program that uses the port, or set CLARION_LISTEN to another host:port",
        ) from error
    listening.set_inheritable(True)
    return listening


def source_addresses(settings: Settings, own: Environment | None) -> tuple[IPv4Address | IPv6Address, ...]:
    """The local addresses that requests are bound to, in turn; none: the system chooses. Raises UsageInvalid."""
    if settings.source_addresses or own is None or settings.source_addresses_translated:
        return settings.source_addresses
    return own.sources(SystemClock().wall())


def address_missing(source: IPv4Address | IPv6Address) -> EnvironmentRefused:
    """The refusal of a source address that this host has not got, with both ways out."""
    return EnvironmentRefused(
        f"the egress address {source} is on no interface of this host",
        "add it to one; or, if a NAT behind this host puts it on, set CLARION_SOURCE_ADDRESSES_TRANSLATED=true"
        " (and CLARION_SOURCE_ADDRESSES to the local addresses that it translates, if not all)",
    )


def egress_route(settings: Settings, own: Environment | None) -> Route:
    """How connections to receivers leave.

    Raises UsageInvalid for settings that cannot be used, EnvironmentRefused for an address that this host has not got.
    """
    from clarion.sender.policy import is_own
    from clarion.sender.route import Route, parse_proxy

    sources = source_addresses(settings, own)
    for source in sources:
        if not is_own(source):
            raise address_missing(source)
    proxy = settings.egress_proxy
    return Route(sources, None if proxy is None else parse_proxy(proxy.get_secret_value()))


def egress_policy(settings: Settings, own: Environment | None, connection: psycopg.Connection[Any]) -> Policy:
    """Where requests may go, without the rules that operators make. `connection` tells the database's address."""
    from clarion.sender.policy import Policy

    database = connection.info.hostaddr
    # A name only: addresses of this host are known, and `localhost` is open where the process allows loopback.
    listening = (
        frozenset({settings.listen_host.lower()} - {"localhost"}) if _is_name(settings.listen_host) else frozenset()
    )
    return Policy(
        settings.allowed_networks,
        own_hosts=listening if own is None else listening | own.hosts,
        own_addresses=frozenset({ip_address(database)}) if database else frozenset(),
    )


def _is_name(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


# ---------------------------------------------------------------- the roles of one process


def _connecting(address: DatabaseAddress, role: str | None) -> Callable[[str], Any]:
    async def open_session(name: str) -> asyncpg.Connection:
        return await pool.connect(address, role=role, name=name)

    return open_session


@asynccontextmanager
async def _maintained(address: DatabaseAddress, roles: Roles, clock: Clock) -> AsyncIterator[None]:
    """Maintenance and the look at capture beside whatever runs inside; their sessions are opened again when lost."""
    from clarion.capture.watch import watch
    from clarion.database.maintenance import maintain

    tasks = [
        asyncio.create_task(pool.keep_running(address, roles.owner, "maintenance", maintain), name="maintenance"),
        asyncio.create_task(
            pool.keep_running(address, None, "inspection", partial(watch, clock=clock)), name="inspection"
        ),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def import_engine() -> None:
    """Import all that `run_engine` needs, so that it begins at once when it is called."""
    import clarion.capture.watch
    import clarion.database.maintenance
    import clarion.delivery.run
    import clarion.registry.encryption_key
    import clarion.routing.router
    import clarion.sender.send  # noqa: F401 - to have been imported is what it is for


async def run_engine(
    settings: Settings,
    address: DatabaseAddress,
    roles_wanted: frozenset[str],
    stopping: asyncio.Event,
    working: Callable[[str, bool], None],
) -> None:
    """Router and delivery (those of `roles_wanted`) in this event loop, until `stopping`."""
    from clarion.delivery.run import run_delivery
    from clarion.routing.router import run_router
    from clarion.sender.send import Sender

    clock, random = SystemClock(), SystemRandom()
    own = load_environments(settings.environments_file, settings.environment).own
    with connect(address) as connection:
        roles = read_roles(connection)
        policy = egress_policy(settings, own, connection)
        sealer = make_sealer(settings, load_secret_key(settings, connection)) if "delivery" in roles_wanted else None
    engine, login = _connecting(address, roles.engine), _connecting(address, None)
    jobs = []
    sender: Sender | None = None
    if "router" in roles_wanted:
        jobs.append(
            run_router(engine, login, clock, random, stopping, working=lambda active: working("router", active))
        )
    if sealer is not None:
        sender = Sender(
            clock,
            policy=policy,
            ca_file=settings.ca_file,
            route=egress_route(settings, own),
            connections_per_host=settings.connections_per_host,
        )
        jobs.append(
            run_delivery(
                engine,
                login,
                socket.gethostname(),
                sender,
                sealer,
                clock,
                random,
                stopping,
                environment=settings.environment_name,
                working=lambda active: working("delivery", active),
            )
        )
    try:
        async with _maintained(address, roles, clock):
            tasks = [asyncio.ensure_future(job) for job in jobs]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        if sender is not None:
            await sender.close()


async def run_api(
    settings: Settings,
    address: DatabaseAddress,
    listening: socket.socket,
    stopping: asyncio.Event,
    started: Callable[[], None],
) -> None:
    """The API in this event loop, until `stopping`."""
    from clarion.api.server import serve_api
    from clarion.console.serve import explorer_routes

    clock, random = SystemClock(), SystemRandom()
    environments = load_environments(settings.environments_file, settings.environment)
    with connect(address) as connection:
        policy = egress_policy(settings, environments.own, connection)
        sealer = make_sealer(settings, load_secret_key(settings, connection))
    beating: dict[str, bool] = {"router": False, "delivery": False}
    watch = asyncio.create_task(
        pool.keep_running(
            address, None, "watch roles", partial(_watch_roles, beating=beating), lost_wait_s=WATCH_ROLES_EVERY_S
        ),
        name="watch roles",
    )
    try:
        await serve_api(
            settings,
            address,
            listening,
            clock,
            random,
            sealer,
            stopping,
            started,
            lambda: beating,
            policy,
            environments,
            explorer_routes(),
        )
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def _watch_roles(connection: asyncpg.Connection, beating: dict[str, bool]) -> None:
    """Keep `beating` true for each role that has a live owner, on whichever host."""
    try:
        while True:
            with pool.store_errors("watch roles"):
                row = await connection.fetchrow(_BEATING, ROLE_SILENT_AFTER_S)
            assert row is not None
            beating.update(router=row["router"], delivery=row["delivery"])
            await asyncio.sleep(WATCH_ROLES_EVERY_S)
    finally:
        beating.update(router=False, delivery=False)
