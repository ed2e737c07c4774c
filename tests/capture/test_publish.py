"""Changes that an application publishes itself: by every kind of connection, by whom it was granted to, in order, exact."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import subprocess
import sys
import threading
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import clarion
from clarion.capture import context
from clarion.capture.acting import acting
from clarion.capture.attach import Attachment, attach, detach
from clarion.capture.json_text import DATA_BYTES_MAX, object_text
from clarion.capture.publish import PublishRefused, publish, publishing_function
from clarion.capture.published import OBJECTS_LOCKED_MAX, Published, attach_published
from clarion.cli.main import run
from clarion.core.errors import UsageInvalid
from clarion.database.address import DatabaseAddress
from clarion.database.roles import read_roles
from harness.deployment import Deployment

pytestmark = pytest.mark.data_path

Connection = psycopg.Connection[Any]
PARCELS = Published("PARCELS", ("application",), "PARCEL", "What is under way.")


@pytest.fixture
def connection(shared_database: DatabaseAddress) -> Iterator[Connection]:
    """The database's superuser, inside a transaction that is rolled back at the end; a role `application` is there."""
    with psycopg.connect(shared_database.url, autocommit=True) as opened, opened.transaction(force_rollback=True):
        opened.execute("CREATE ROLE application; CREATE ROLE another")
        yield opened


@pytest.fixture
def parcels(connection: Connection) -> Connection:
    attach_published(connection, PARCELS)
    return connection


@contextmanager
def acting_as(connection: Connection, role: str) -> Iterator[None]:
    connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))
    yield
    connection.execute("RESET SESSION AUTHORIZATION")


@contextmanager
def refused(connection: Connection, by: type[Exception], match: str | None = None) -> Iterator[None]:
    with pytest.raises(by, match=match), connection.transaction():
        yield


def captured(connection: Connection, *columns: str) -> list[tuple[Any, ...]]:
    chosen = columns or ("resource", "action::text", "object_id", "old", "new")
    return connection.execute(f"SELECT {', '.join(chosen)} FROM clarion.outbox ORDER BY id".encode()).fetchall()


def test_a_granted_role_publishes_and_each_action_has_its_sides(parcels: Connection) -> None:
    with acting_as(parcels, "application"):
        assert clarion.publish(parcels, "PARCELS", "CREATE", 7, {"weight": Decimal("1.50")}) is None
        publish(parcels, "PARCELS", "UPDATE", 7, '{"weight": 2.50}', previous={"weight": Decimal("1.50")})
        publish(parcels, "PARCELS", "UPDATE", 7, {"weight": 3})
        publish(parcels, "PARCELS", "DELETE", 7, {"weight": 3})
        publish(parcels, "PARCELS", "DELETE", 8)
    assert captured(parcels) == [
        ("PARCELS", "c", "7", None, '{"weight":1.50}'),
        ("PARCELS", "u", "7", '{"weight":1.50}', '{"weight": 2.50}'),
        ("PARCELS", "u", "7", None, '{"weight":3}'),
        ("PARCELS", "d", "7", '{"weight":3}', None),
        ("PARCELS", "d", "8", None, None),
    ]


def test_who_acts_is_said_by_the_call_or_the_block_or_the_transaction(parcels: Connection) -> None:
    parcels.execute("SELECT set_config('clarion.actor_id', 'transaction', true), set_config('clarion.hops', '3', true)")
    parcels.execute("SELECT set_config('clarion.published', 'no number', true)")
    publish(parcels, "PARCELS", "DELETE", 1)
    with acting(actor_id="block", actor_name="a block", correlation_id="c", hops=4):
        publish(parcels, "PARCELS", "DELETE", 2)
        publish(parcels, "PARCELS", "DELETE", 3, actor_id=17, correlation_id="mine")
    columns = ("actor_id", "actor_name", "correlation_id", "hops")
    assert captured(parcels, *columns) == [
        ("transaction", None, None, 3),
        ("block", "a block", "c", 4),
        ("17", "a block", "mine", 4),
    ]


# ---------------------------------------------------------------- by every kind of connection


def _psycopg(address: DatabaseAddress, *, keep: bool) -> None:
    with psycopg.connect(address.url) as opened:
        publish(opened, "PARCELS", "DELETE", "psycopg")
        (opened.commit if keep else opened.rollback)()


def _engine(address: DatabaseAddress) -> sqlalchemy.Engine:
    engine = sqlalchemy.create_engine(address.sqlalchemy("psycopg"), poolclass=sqlalchemy.NullPool)
    context.install(engine)
    return engine


def _sqlalchemy(address: DatabaseAddress, *, keep: bool) -> None:
    with _engine(address).connect() as opened:
        publish(opened, "PARCELS", "DELETE", "connection")
        (opened.commit if keep else opened.rollback)()


def _session(address: DatabaseAddress, *, keep: bool) -> None:
    with Session(_engine(address)) as session:
        publish(session, "PARCELS", "DELETE", "session")
        (session.commit if keep else session.rollback)()


async def _psycopg_async(address: DatabaseAddress, *, keep: bool) -> None:
    async with await psycopg.AsyncConnection.connect(address.url) as opened:
        await publish(opened, "PARCELS", "DELETE", "psycopg async")
        await (opened.commit if keep else opened.rollback)()


async def _asyncpg(address: DatabaseAddress, *, keep: bool) -> None:
    async with asyncpg.create_pool(address.url, min_size=1, max_size=1) as pool, pool.acquire() as opened:
        ending = opened.transaction()
        await ending.start()
        await publish(opened, "PARCELS", "DELETE", "asyncpg")
        await (ending.commit if keep else ending.rollback)()


def _async_sqlalchemy(driver: str, *, session: bool) -> Callable[..., Awaitable[None]]:
    async def run(address: DatabaseAddress, *, keep: bool) -> None:
        engine = create_async_engine(address.sqlalchemy(driver), poolclass=sqlalchemy.NullPool)
        async with AsyncSession(engine) if session else engine.connect() as opened:
            await publish(opened, "PARCELS", "DELETE", f"{driver} async")
            await (opened.commit if keep else opened.rollback)()

    return run


@pytest.mark.parametrize(
    ("use", "object_id"),
    [
        pytest.param(_psycopg, "psycopg", id="psycopg"),
        pytest.param(_sqlalchemy, "connection", id="sqlalchemy connection"),
        pytest.param(_session, "session", id="sqlalchemy session"),
        pytest.param(_psycopg_async, "psycopg async", id="psycopg async"),
        pytest.param(_asyncpg, "asyncpg", id="asyncpg"),
        pytest.param(_async_sqlalchemy("asyncpg", session=False), "asyncpg async", id="sqlalchemy asyncpg"),
        pytest.param(_async_sqlalchemy("asyncpg", session=True), "asyncpg async", id="sqlalchemy asyncpg session"),
        pytest.param(_async_sqlalchemy("psycopg", session=True), "psycopg async", id="sqlalchemy psycopg session"),
    ],
)
def test_each_kind_of_connection_publishes_what_it_commits_and_nothing_else(
    published: DatabaseAddress, use: Callable[..., Any], object_id: str
) -> None:
    with acting(actor_id="17"):
        for keep in (True, False):
            result = use(published, keep=keep)
            if result is not None:
                asyncio.run(result)
    with psycopg.connect(published.url) as opened:
        assert captured(opened, "object_id", "actor_id") == [(object_id, "17")]
        opened.execute("DELETE FROM clarion.outbox")


@pytest.fixture(scope="module")
def published(shared_database: DatabaseAddress) -> Iterator[DatabaseAddress]:
    """The database with a published resource that is there for good."""
    with psycopg.connect(shared_database.url) as opened:
        attach_published(opened, Published("PARCELS"))
    yield shared_database
    with psycopg.connect(shared_database.url) as opened:
        detach(opened, "PARCELS")


def test_without_a_transaction_nothing_is_published(published: DatabaseAddress) -> None:
    def refuses() -> Any:
        return pytest.raises(PublishRefused, match="no transaction is open")

    with psycopg.connect(published.url, autocommit=True) as opened:
        with refuses():
            publish(opened, "PARCELS", "DELETE", 1)
        with opened.transaction(force_rollback=True):
            publish(opened, "PARCELS", "DELETE", 1)
    automatic = {"isolation_level": "AUTOCOMMIT"}
    with _engine(published).connect().execution_options(**automatic) as connection, refuses():
        publish(connection, "PARCELS", "DELETE", 1)

    async def by_asyncpg() -> None:
        opened = await asyncpg.connect(published.url)
        with refuses():
            await publish(opened, "PARCELS", "DELETE", 1)
        await opened.close()
        engine = create_async_engine(published.sqlalchemy("asyncpg"), poolclass=sqlalchemy.NullPool)
        async with engine.connect() as connection:
            with refuses():
                await publish(await connection.execution_options(**automatic), "PARCELS", "DELETE", 1)

    asyncio.run(by_asyncpg())
    with psycopg.connect(published.url) as opened:
        assert captured(opened) == []


def test_it_is_importable_alone_and_brings_no_driver_with_it() -> None:
    code = """
import sys, clarion
clarion.publish, clarion.acting
print(sorted({"psycopg", "asyncpg", "sqlalchemy", "django", "orjson", "msgspec"} & set(sys.modules)))
try: clarion.nothing
except AttributeError as error: print(error)
try: clarion.publish(object(), "PARCELS", "DELETE", 1)
except ValueError as error: print(error)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown[:2] == ["[]", "module 'clarion' has no attribute 'nothing'"]
    assert shown[2].startswith("publish: a object is no connection that it knows (give a connection of psycopg,")


# ---------------------------------------------------------------- who may


def test_nobody_publishes_but_who_was_granted_and_only_under_the_granted_name(parcels: Connection) -> None:
    attach_published(parcels, Published("PALLETS", ("another",)))
    denied = psycopg.errors.InsufficientPrivilege
    with acting_as(parcels, "application"):
        publish(parcels, "PARCELS", "DELETE", 1, organisation="default")
        with refused(parcels, denied, "of organisation 'acme' may not be published here"):
            publish(parcels, "PARCELS", "DELETE", 1, organisation="acme")
        with refused(parcels, denied, "publish_pallets"):
            publish(parcels, "PALLETS", "DELETE", 1)
        with refused(parcels, psycopg.errors.UndefinedFunction):
            publish(parcels, "RUNS", "DELETE", 1)
        for statement in (
            "SELECT * FROM clarion.outbox",
            "INSERT INTO clarion.outbox (resource, action, object_id) VALUES ('PALLETS', 'd', '1')",
            "DROP FUNCTION clarion_triggers.publish_parcels",
            "CREATE FUNCTION clarion_triggers.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "ALTER FUNCTION clarion_triggers.publish_parcels SECURITY INVOKER",
        ):
            with refused(parcels, denied):
                parcels.execute(statement.encode())
        # To grant what one does not own is a warning, and no grant.
        parcels.execute("GRANT EXECUTE ON FUNCTION clarion_triggers.publish_parcels TO another")
    with acting_as(parcels, "another"), refused(parcels, denied, "publish_parcels"):
        publish(parcels, "PARCELS", "DELETE", 1)
    assert captured(parcels, "resource", "object_id") == [("PARCELS", "1")]


def test_the_publishers_are_those_named_last_and_others_keep_no_right(parcels: Connection) -> None:
    attach_published(parcels, Published("PALLETS", ("application",)))

    def may_look(role: str) -> bool:
        row = parcels.execute("SELECT has_schema_privilege(%s, 'clarion_triggers', 'USAGE')", (role,)).fetchone()
        assert row is not None
        return bool(row[0])

    attach_published(parcels, Published("PARCELS", ("another",)))
    with acting_as(parcels, "application"):
        publish(parcels, "PALLETS", "DELETE", 1)
        with refused(parcels, psycopg.errors.InsufficientPrivilege):
            publish(parcels, "PARCELS", "DELETE", 1)
    assert may_look("application")
    assert may_look("another")
    detach(parcels, "PALLETS")
    assert not may_look("application")
    detach(parcels, "PARCELS")
    assert not may_look("another")
    assert parcels.execute("SELECT count(*) FROM clarion.resources WHERE name LIKE 'PA%'").fetchone() == (0,)
    left = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'clarion_triggers'::regnamespace AND proname LIKE 'publish\\_%'"
    assert parcels.execute(left).fetchone() == (0,)
    parcels.execute("DROP ROLE application; DROP ROLE another")


def test_each_call_names_the_organisation_where_any_is_allowed(connection: Connection) -> None:
    attach_published(connection, Published("PARCELS", ("application",), organisation=None))
    with acting_as(connection, "application"):
        publish(connection, "PARCELS", "DELETE", 1, organisation="acme's; DROP")
        for nobody in (None, "", "x" * 201):
            with refused(connection, psycopg.errors.InvalidParameterValue, "name the organisation"):
                publish(connection, "PARCELS", "DELETE", 1, organisation=nobody)
    assert captured(connection, "organisation_id", "organisation") == [(None, "acme's; DROP")]


@pytest.mark.parametrize("name", ["o'clock", "$capture$; $$", "{braces} %s", "\\"])
def test_an_organisations_name_is_only_a_name(connection: Connection, name: str) -> None:
    attach_published(connection, Published("PARCELS", ("application",), organisation=name))
    with acting_as(connection, "application"):
        publish(connection, "PARCELS", "DELETE", 1, organisation=name)
        with refused(connection, psycopg.errors.InsufficientPrivilege):
            publish(connection, "PARCELS", "DELETE", 1, organisation=f"{name} ")
    assert captured(connection, "organisation") == [(None,)]


def test_a_cast_that_runs_as_the_capture_role_may_not_publish(parcels: Connection) -> None:
    """It runs inside a trigger, with the rights of the role that owns the functions."""
    parcels.execute("GRANT ALL ON SCHEMA public TO application")
    with acting_as(parcels, "application"):
        parcels.execute("CREATE TYPE colour AS ENUM ('red'); CREATE TABLE parts (id bigint PRIMARY KEY, shade colour)")
        parcels.execute(
            """CREATE FUNCTION as_json(colour) RETURNS json LANGUAGE plpgsql AS $$ BEGIN
               PERFORM clarion_triggers.publish_parcels('DELETE', '9', null, null, null, null, null, null, null); RETURN '1'; END $$"""
        )
        parcels.execute("CREATE CAST (colour AS json) WITH FUNCTION as_json(colour)")
    attach(parcels, [Attachment(resource="PARTS", table="parts")])
    with acting_as(parcels, "application"):
        parcels.execute("INSERT INTO parts VALUES (1)")
        # Which is not the application's to feel: its write goes on, and the change says that the cast failed.
        parcels.execute("UPDATE parts SET shade = 'red'")
    assert captured(parcels, "resource", "problem IS NULL") == [("PARTS", True), ("PARTS", False)]


def test_what_cannot_be_a_published_resource_is_refused(connection: Connection) -> None:
    connection.execute("CREATE TABLE parts (id bigint PRIMARY KEY); CREATE TABLE others (id bigint PRIMARY KEY)")
    attach(connection, [Attachment(resource="PARTS", table="parts")])
    attach_published(connection, Published("PARCELS"))
    roles = read_roles(connection)
    connection.execute(sql.SQL("GRANT another TO {}").format(sql.Identifier(roles.capture)))
    for published, why in (
        (Published("PARTS"), "PARTS is the table public.parts"),
        (Published("parcels"), "'parcels' cannot name a resource"),
        (Published("X", singular="x"), "'x' cannot name"),
        (Published("X", organisation=""), "1 to 200"),
        (Published("X", ("nobody",)), "no role 'nobody'"),
        (Published("X", ("public",)), "no role 'public'"),
        (Published("X", (roles.capture,)), "capture role belongs to"),
        (Published("X", ("another",)), "capture role belongs to"),
    ):
        with refused(connection, UsageInvalid, why):
            attach_published(connection, published)
    with refused(connection, UsageInvalid, "PARCELS is published by the application"):
        attach(connection, [Attachment(resource="PARCELS", table="others")])


def test_two_resources_with_the_longest_names_stay_apart(connection: Connection) -> None:
    names = ["A" * 63, "A" * 62 + "B"]
    for name in names:
        attach_published(connection, Published(name, ("application",)))
    with acting_as(connection, "application"):
        for name in names:
            publish(connection, name, "DELETE", 1)
    assert captured(connection, "resource") == [(name,) for name in names]
    assert len({publishing_function(name) for name in names}) == 2


# ---------------------------------------------------------------- order


def test_of_one_object_ids_follow_the_order_of_commits(published: DatabaseAddress) -> None:
    """The second waits for the first to end, even where the application holds no lock of its own; others do not wait."""
    with psycopg.connect(published.url) as first, psycopg.connect(published.url) as looking:
        publish(first, "PARCELS", "CREATE", 1, {"version": 1})

        def second() -> None:
            with psycopg.connect(published.url) as opened:
                publish(opened, "PARCELS", "CREATE", 2, {"version": 0})
                publish(opened, "PARCELS", "UPDATE", 1, {"version": 2})

        thread = threading.Thread(target=second)
        thread.start()
        while (
            looking.execute(
                "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = "
                "(SELECT oid FROM pg_database WHERE datname = current_database())"
            ).fetchone()
            is None
        ):
            assert thread.is_alive()
        # A change of the first that comes after the second began still has the lower id.
        publish(first, "PARCELS", "UPDATE", 1, {"version": 1.5})
        first.commit()
        thread.join(20)
        assert [json.loads(new)["version"] for (new,) in captured(looking, "new") if json.loads(new)["version"]] == [
            1,
            1.5,
            2,
        ]
        looking.execute("DELETE FROM clarion.outbox")


def test_a_transaction_that_publishes_many_objects_takes_their_resource_and_not_all_locks(
    published: DatabaseAddress,
) -> None:
    """The server's table of locks is everybody's: 15,000 in one transaction would fill it."""
    count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    many = (
        "SELECT count(clarion_triggers.publish_parcels('DELETE', n::text, null, null, null, null, null, null, null)) "
        "FROM generate_series(1, %s) n"
    )
    with psycopg.connect(published.url) as bulk, psycopg.connect(published.url) as other:
        bulk.execute(many, (OBJECTS_LOCKED_MAX,))
        publish(other, "PARCELS", "DELETE", "another")
        other.commit()
        bulk.execute(many, (20_000,))
        # Each object, and the resource in two modes.
        assert bulk.execute(count).fetchone() == (OBJECTS_LOCKED_MAX + 2,)
        other.execute("SET LOCAL lock_timeout = '1ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            publish(other, "PARCELS", "DELETE", "another")
        other.rollback()
        bulk.rollback()
        assert bulk.execute(count).fetchone() == (0,)
        publish(bulk, "PARCELS", "DELETE", 1)
        publish(other, "PARCELS", "DELETE", 2)
        bulk.rollback()
        other.rollback()
        other.execute("DELETE FROM clarion.outbox")


def test_a_change_that_fails_fails_the_transaction_as_any_statement_does(parcels: Connection) -> None:
    def publish_and_go_on() -> None:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            publish(parcels, "PARCELS", "DELETE", 1)
        parcels.execute("SELECT 1")

    with acting_as(parcels, "another"), refused(parcels, psycopg.errors.InFailedSqlTransaction):
        publish_and_go_on()


# ---------------------------------------------------------------- data


class _Colour(StrEnum):
    RED = "red"


class _Number(int, Enum):
    ONE = 1


_CET = dt.timezone(dt.timedelta(hours=1))
_ROW = {
    "a": None,
    "b": True,
    "c": 2**70,
    "d": Decimal("1.100"),
    "e": Decimal("1E+3"),
    "f": dt.datetime(2026, 11, 24, 1, 2, 3, 450000, _CET),
    "g": dt.datetime(2026, 11, 24, 1, 2, 0),  # noqa: DTZ001 - a timestamp without time zone
    "h": dt.date(2026, 11, 24),
    "i": dt.time(1, 2, 3, 4),
    "j": uuid.UUID(int=7),
    "k": b"\x00\xff",
    "l": "\u202e'; \x01 \U0001f469 \" \\ \n",
    "m": [1, 2],
    "n": 0.1,
    "o": 1e300,
}
_TYPES = ["text", "boolean", "numeric", "numeric", "numeric", "timestamptz", "timestamp", "date", "time", "uuid", "bytea",
          "text", "integer[]", "float8", "float8"]  # fmt: skip


def test_values_are_spelled_as_row_to_json_spells_them(connection: Connection) -> None:
    connection.execute("SET timezone = 'UTC'; SET bytea_output = 'hex'")
    columns = ", ".join(f"%s::{kind} AS {name}" for name, kind in zip(_ROW, _TYPES, strict=True))
    row = connection.execute(
        f"SELECT row_to_json(r)::text FROM (SELECT {columns}) r".encode(), list(_ROW.values())
    ).fetchone()
    assert row == (object_text("data", _ROW),)
    assert object_text("data", {"a": _Colour.RED, "b": _Number.ONE, "c": ()}) == '{"a":"red","b":1,"c":[]}'


@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=6)
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
)
def test_values_come_back_as_they_were(value: object) -> None:
    read = json.loads(object_text("data", {"x": value}), parse_float=Decimal if isinstance(value, Decimal) else float)
    assert read["x"] == value
    # And the text is one that is taken, and left as it is.
    text = object_text("data", {"x": value})
    assert object_text("data", text) is text


_RING: list[Any] = []
_RING.append(_RING)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"a": {"b": [1, float("nan")]}}, "data.a.b[1]: nan is not JSON"),
        ({"a": Decimal("Infinity")}, "data.a: Infinity is not JSON"),
        ({"a": Decimal("1E+200000")}, "data.a: has more digits than a numeric"),
        ('{"a": NaN}', "data: holds NaN, which is not JSON"),
        ('{"a": 1', "data: is no JSON text: "),
        ("[1]", "data: must be an object"),
        ("", "data: is no JSON text"),
        ({"a": "\ud800"}, "data.a: is not Unicode text"),
        ({"\ud800": 1}, "data: is not Unicode text"),
        ('{"a": "\ud800"}', "data: is not Unicode text"),
        ({1: 2}, "data: has the key 1, which is no text"),
        ({"a": {1, 2}}, "data.a: a set has no spelling"),
        ({"a": dt.timedelta(1)}, "data.a: a timedelta has no spelling"),
        ({"a": _RING}, "is nested more than 100 deep"),
        ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "data: is nested too deep"),
        ({"a": "x" * DATA_BYTES_MAX}, f"bytes of JSON, {DATA_BYTES_MAX} are allowed"),
        (None, "CREATE needs data"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused_before_anything_is_sent(parcels: Connection, data: Any, says: str) -> None:
    with pytest.raises(PublishRefused) as raised:
        publish(parcels, "PARCELS", "CREATE", 1, data)
    assert says in str(raised.value)
    assert captured(parcels) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"resource": "parcels"}, "'parcels' names no resource"),
        ({"resource": 'X"; DROP'}, "names no resource"),
        ({"action": "create"}, "'create' is none of CREATE, UPDATE, DELETE"),
        ({"previous": {}}, "CREATE has no previous"),
        ({"object_id": ""}, "object_id: has 0 characters"),
        ({"object_id": "x" * 1001}, "object_id: has 1001 characters"),
        ({"object_id": "a\x00"}, "object_id: holds a NUL"),
        ({"object_id": "\ud800"}, "object_id: is not Unicode"),
        ({"actor_name": "\x00"}, "actor_name: holds a NUL"),
        ({"organisation": "\ud800"}, "organisation: is not Unicode"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_before_anything_is_sent(
    parcels: Connection, arguments: dict[str, Any], says: str
) -> None:
    with pytest.raises(PublishRefused, match=says):
        publish(parcels, **({"resource": "PARCELS", "action": "CREATE", "object_id": 1, "data": {}} | arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ("RENAME", "1", "{}", None),
        (None, "1", "{}", None),
        ("CREATE", "", "{}", None),
        ("CREATE", None, "{}", None),
        ("CREATE", "x" * 1001, "{}", None),
        ("CREATE", "1", None, None),
        ("CREATE", "1", "{}", "{}"),
        ("CREATE", "1", "[]", None),
        ("CREATE", "1", "{", None),
        ("UPDATE", "1", "{}", "1"),
        ("UPDATE", "1", "{}", '{"a": "' + "x" * DATA_BYTES_MAX + '"}'),
    ],
)
def test_the_function_itself_refuses_what_the_router_could_not_take(
    parcels: Connection, arguments: tuple[str | None, ...]
) -> None:
    with refused(parcels, psycopg.DatabaseError):
        parcels.execute(
            "SELECT clarion_triggers.publish_parcels(%s, %s, %s, %s, null, null, null, null, null)", arguments
        )
    assert captured(parcels) == []


def test_what_is_published_is_delivered_exactly_and_in_order(deployment: Deployment) -> None:
    attach_published(deployment.connection, Published("PARCELS"))
    receiver = deployment.register()
    deployment.subscribe(receiver, "PARCELS")
    serving = deployment.serve()
    odd = '{"nul": "\\u0000", "half": "\\ud800", "number": 1.10, "big": 123456789012345678901234567890}'
    with deployment.connection.transaction(), acting(actor_id="17", actor_name="nightly"):
        publish(deployment.connection, "PARCELS", "CREATE", "a/1", odd)
        publish(deployment.connection, "PARCELS", "UPDATE", "a/1", {"n": "a\x00b", "x": 1}, previous={"n": "a", "x": 1})
        publish(deployment.connection, "PARCELS", "DELETE", "a/1")
    created, updated, deleted = deployment.receiver.wait_for(3)
    deployment.wait_until_settled()
    serving.stop()
    assert odd.encode() in created.body
    assert {request.json()["actor"]["name"] for request in (updated, deleted)} == {"nightly"}
    assert len({request.json()["correlation_id"] for request in (updated, deleted)}) == 1
    body = updated.json()
    assert (body["action"], body["changed"], body["data"], body["previous"]) == (
        "update",
        ["n"],
        {"n": "a\x00b", "x": 1},
        {"n": "a"},
    )
    assert (deleted.json()["action"], deleted.json()["data"]) == ("delete", None)


def test_many_that_publish_the_same_objects_are_delivered_in_the_order_of_their_commits(deployment: Deployment) -> None:
    """Each notes its turn after it published and before it commits: so the notes of an object have its commits' order."""
    deployment.connection.execute(
        "CREATE TABLE turns (turn bigint GENERATED ALWAYS AS IDENTITY, object_id text, token text)"
    )
    attach_published(deployment.connection, Published("PARCELS"))
    deployment.subscribe(deployment.register(), "PARCELS", ["UPDATE"])
    serving = deployment.serve()

    def write(writer: int) -> None:
        with psycopg.connect(deployment.database.url) as opened:
            for number in range(40):
                object_id, token = str(number % 3), f"{writer}.{number}"
                publish(opened, "PARCELS", "UPDATE", object_id, {"token": token})
                opened.execute("INSERT INTO turns (object_id, token) VALUES (%s, %s)", (object_id, token))
                if number % 5 == 4:
                    opened.rollback()
                opened.commit()

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, range(4)))
    deployment.wait_until_settled()
    serving.stop()
    turns: defaultdict[str, list[str]] = defaultdict(list)
    for object_id, token in deployment.rows("SELECT object_id, token FROM turns ORDER BY turn"):
        turns[object_id].append(token)
    arrived: defaultdict[str, list[str]] = defaultdict(list)
    for request in deployment.receiver.received():
        arrived[request.json()["object_id"]].append(request.json()["data"]["token"])
    assert sum(map(len, turns.values())) == 4 * 32
    assert arrived == turns


def test_the_command_line_attaches_lists_and_detaches_what_has_no_table(deployment: Deployment) -> None:
    connection = deployment.connection
    command = ("attach", "--resource", "PARCELS", "--published", "--organisation", "acme")
    first = deployment.command(*command)
    assert (first.code, first.stdout) == (0, "")
    assert "PARCELS is attached; it may be published by nobody yet: name a role by --publisher" in first.stderr
    assert "published by nobody" in deployment.command("attach").stdout
    connection.execute("CREATE ROLE purchasing_of_this_test")
    try:
        named = deployment.command(*command, "--publisher", "purchasing_of_this_test", "--json")
        listed = {row["resource"]: row for row in json.loads(named.stdout)}
        assert listed["PARCELS"] == {
            "resource": "PARCELS",
            "table": None,
            "key": [],
            "label": None,
            "excluded": [],
            "truncate": "refuse",
            "description": "Published by the application.",
            "publishers": ["purchasing_of_this_test"],
        }
        assert listed["WEBHOOK_RECEIVERS"]["publishers"] is None
        with connection.transaction():
            connection.execute("SET LOCAL ROLE purchasing_of_this_test")
            # As the reference has it.
            connection.execute(
                "SELECT clarion_triggers.publish_parcels"
                """('UPDATE', '7', '{"weight": 2}', '{"weight": 1}', NULL, '17', 'nora', 'request-7', NULL)"""
            )
        assert captured(connection, "object_id", "old", "new", "actor_id", "actor_name", "correlation_id") == [
            ("7", '{"weight": 1}', '{"weight": 2}', "17", "nora", "request-7")
        ]
        assert deployment.command("detach", "PARCELS").code == 0
    finally:
        # Fails while it has a right anywhere.
        connection.execute("DROP ROLE purchasing_of_this_test")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--resource", "X", "--published", "--table", "items"], "--published has no table"),
        (["--resource", "X", "--published", "--key", "id"], "--published has no table"),
        (["--resource", "X", "--table", "items", "--publisher", "x"], "go with --published"),
        (["--resource", "X", "--table", "items", "--any-organisation"], "go with --published"),
        (["--published"], "--resource goes with --table or --published"),
        (["--resource", "X"], "--resource goes with --table or --published"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["attach", *options]) == 2
    assert says in capsys.readouterr().err
