"""The guard lets alone what silences nothing, lends nobody rights, and is found out when it is taken apart."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from clarion.capture import guard
from clarion.capture.attach import Attachment, attach, detach
from clarion.capture.doctor import inspect
from clarion.database.address import DatabaseAddress
from clarion.database.embedded import _programs
from clarion.database.migrate import adopt
from clarion.database.roles import read_roles

pytestmark = pytest.mark.data_path

Connection = psycopg.Connection[Any]
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture
def connection(shared_database: DatabaseAddress) -> Iterator[Connection]:
    """A superuser with the guard on, inside a transaction that is rolled back."""
    with psycopg.connect(shared_database.url, autocommit=True) as opened, opened.transaction(force_rollback=True):
        guard.turn_on(opened)
        yield opened


UNRELATED = (
    "CREATE TEMP TABLE passing (id int PRIMARY KEY); ALTER TABLE passing ADD x int; DROP TABLE passing",
    (
        "CREATE SCHEMA other CREATE TABLE t (id int PRIMARY KEY, n text); ALTER TABLE other.t ALTER n TYPE int USING 0; "
        "DROP SCHEMA other CASCADE"
    ),
    "CREATE TABLE t AS SELECT 1 AS id; CREATE VIEW v AS SELECT * FROM t; ALTER VIEW v RENAME TO w; DROP TABLE t CASCADE",
    (
        "CREATE TABLE t (id int) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t DEFAULT; INSERT INTO t VALUES (1); "
        "ALTER TABLE t DETACH PARTITION t1; DROP TABLE t, t1"
    ),
    "CREATE TABLE t (id int); CREATE TABLE c () INHERITS (t); INSERT INTO c VALUES (1); TRUNCATE t; DROP TABLE t CASCADE",
    (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TABLE t (id int); "
        "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f(); ALTER TABLE t DISABLE TRIGGER ALL; "
        "DROP FUNCTION f() CASCADE; DROP TABLE t"
    ),
    "CREATE TYPE kind AS ENUM ('a'); ALTER TYPE kind ADD VALUE 'b'; DROP TYPE kind",
    "CREATE ROLE somebody; CREATE TABLE t (id int); ALTER TABLE t OWNER TO somebody; DROP OWNED BY somebody CASCADE",
    "CREATE MATERIALIZED VIEW m AS SELECT 1; REFRESH MATERIALIZED VIEW m; DROP MATERIALIZED VIEW m",
    "SELECT clarion.ensure_partitions(100, 2)",
)


@pytest.mark.parametrize("statements", UNRELATED)
def test_what_concerns_no_attached_table_is_let_alone(connection: Connection, statements: str) -> None:
    connection.execute(statements.encode())


def test_an_application_without_any_right_on_clarion_makes_its_tables(connection: Connection) -> None:
    connection.execute("CREATE ROLE poor; CREATE SCHEMA poor AUTHORIZATION poor; SET SESSION AUTHORIZATION poor")
    connection.execute("CREATE TABLE poor.t (id int); ALTER TABLE poor.t ADD n text; DROP TABLE poor.t")
    connection.execute("RESET SESSION AUTHORIZATION")


def test_an_extension_and_a_concurrent_index_are_let_alone(database: DatabaseAddress) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        guard.turn_on(connection)
        available = connection.execute(
            "SELECT name FROM pg_available_extensions WHERE installed_version IS NULL ORDER BY name LIMIT 1"
        ).fetchone()
        assert available is not None
        name = sql.Identifier(available[0])
        connection.execute(sql.SQL("CREATE EXTENSION {} CASCADE").format(name))
        connection.execute(sql.SQL("DROP EXTENSION {} CASCADE").format(name))
        connection.execute("CREATE TABLE indexed (id int)")
        for statement in (
            "CREATE INDEX CONCURRENTLY i ON indexed (id)",
            "REINDEX TABLE CONCURRENTLY indexed",
            "DROP INDEX CONCURRENTLY i",
            "DROP TABLE indexed",
        ):
            connection.execute(statement.encode())


ORDINARY = (
    "ALTER TABLE parts ADD more text DEFAULT 'x'",
    "ALTER TABLE parts ADD token uuid DEFAULT gen_random_uuid()",
    "ALTER TABLE parts RENAME name TO title",
    "ALTER TABLE parts DROP name",
    "ALTER TABLE parts ALTER name TYPE varchar(100)",
    "CREATE INDEX ON parts (name)",
    "ALTER TABLE parts ADD CHECK (id > 0)",
    "ALTER TABLE parts OWNER TO CURRENT_USER",
    "CREATE VIEW seen AS SELECT * FROM parts",
    "COMMENT ON TABLE parts IS 'x'; GRANT SELECT ON parts TO PUBLIC",
    (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
        "CREATE TRIGGER own BEFORE INSERT ON parts FOR EACH ROW EXECUTE FUNCTION f(); "
        "ALTER TABLE parts DISABLE TRIGGER own; ALTER TABLE parts ENABLE TRIGGER own; DROP TRIGGER own ON parts"
    ),
    "ALTER TABLE parts ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE parts SET (fillfactor = 50)",
    "CREATE TABLE later (id int PRIMARY KEY REFERENCES parts); DROP TABLE later",
)


@pytest.mark.parametrize("statements", ORDINARY)
def test_what_silences_nothing_is_let_alone_on_an_attached_table_too(connection: Connection, statements: str) -> None:
    connection.execute(
        "CREATE TABLE parts (id bigint PRIMARY KEY, name varchar(20)); INSERT INTO parts VALUES (1, 'x')"
    )
    attach(connection, [Attachment("PARTS", "parts")])
    connection.execute(statements.encode())
    connection.execute("INSERT INTO parts (id) VALUES (2)")
    assert connection.execute("SELECT object_id FROM clarion.outbox").fetchall() == [("2",)]


def test_an_empty_partition_is_detached_and_dropped(connection: Connection) -> None:
    """The way to take a partition away: its rows go first, each as an event."""
    connection.execute(
        "CREATE TABLE split (id int PRIMARY KEY) PARTITION BY RANGE (id); "
        "CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (0) TO (100); INSERT INTO split VALUES (1)"
    )
    attach(connection, [Attachment("SPLIT", "split")])
    connection.execute("DELETE FROM split_1; ALTER TABLE split DETACH PARTITION split_1; DROP TABLE split_1")
    assert connection.execute("SELECT action::text || object_id FROM clarion.outbox").fetchall() == [("d1",)]
    assert [one.code for one in inspect(connection) if one.severity == "FAILURE"] == []


def test_the_registry_follows_a_renamed_table_and_detach_finds_it(connection: Connection) -> None:
    connection.execute("CREATE TABLE parts (id bigint PRIMARY KEY)")
    attach(connection, [Attachment("PARTS", "parts")])
    connection.execute("CREATE SCHEMA shop; ALTER TABLE parts RENAME TO pieces; ALTER TABLE pieces SET SCHEMA shop")
    registered = "SELECT schema_name::text, table_name::text FROM clarion.resources WHERE name = 'PARTS'"
    assert connection.execute(registered.encode()).fetchall() == [("shop", "pieces")]
    detach(connection, "PARTS")
    connection.execute("DROP TABLE shop.pieces")


def test_the_guard_outlives_clarion_without_harm_and_keeps_its_schema_till_it_is_off(connection: Connection) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as raised, connection.transaction():
        connection.execute("DROP SCHEMA clarion CASCADE")
    assert "clarion guard off" in (raised.value.diag.message_hint or "")
    connection.execute("ALTER EVENT TRIGGER clarion_guard_dropped DISABLE; DROP SCHEMA clarion CASCADE")
    connection.execute("ALTER EVENT TRIGGER clarion_guard_dropped ENABLE ALWAYS")
    connection.execute("CREATE TABLE t (id int); ALTER TABLE t ALTER id TYPE text USING 'x'; DROP TABLE t")


def test_switched_off_nothing_of_the_guard_is_left(connection: Connection) -> None:
    guard.turn_off(connection)
    assert connection.execute("SELECT count(*) FROM pg_event_trigger").fetchone() == (0,)
    assert connection.execute("SELECT to_regnamespace('clarion_guard')").fetchone() == (None,)
    assert not guard.is_on(connection)
    assert [one.code for one in inspect(connection) if one.code.startswith("GUARD")] == ["GUARD_OFF"]


def test_the_embedded_server_gets_it_once_and_what_was_decided_stays(connection: Connection) -> None:
    guard.turn_off(connection)
    assert not guard.ensure(connection)
    connection.execute("DELETE FROM clarion.guard")
    assert guard.ensure(connection)
    connection.execute("DROP EVENT TRIGGER clarion_guard_ended")
    assert not guard.ensure(connection)
    assert "GUARD_MISSING" in {one.code for one in inspect(connection)}


TAMPERING = {
    "DROP EVENT TRIGGER clarion_guard_rewriting": "GUARD_MISSING",
    "ALTER EVENT TRIGGER clarion_guard_ended DISABLE": "GUARD_DISABLED",
    "ALTER EVENT TRIGGER clarion_guard_ended ENABLE": "GUARD_DISABLED",
    "CREATE OR REPLACE FUNCTION clarion_guard.ended() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'": "GUARD_CHANGED",
    "ALTER FUNCTION clarion_guard.dropped() OWNER TO poor": "GUARD_CHANGED",
    "DROP SCHEMA clarion_guard CASCADE": "GUARD_MISSING",
}


@pytest.mark.parametrize(("statement", "code"), TAMPERING.items())
def test_a_superuser_who_takes_it_apart_is_found_out(connection: Connection, statement: str, code: str) -> None:
    connection.execute("CREATE ROLE poor")
    connection.execute(statement.encode())
    assert [one.code for one in inspect(connection) if one.code.startswith("GUARD")] == [code]


def test_it_lends_a_superusers_rights_to_nobody(connection: Connection) -> None:
    """Clarion's owner, to whom the tables belong that it reads, can neither replace its functions nor have code run in them."""
    owner = read_roles(connection).owner
    connection.execute(
        "CREATE TABLE parts (id bigint PRIMARY KEY); CREATE TABLE seen (who text); GRANT ALL ON seen TO PUBLIC"
    )
    attach(connection, [Attachment("PARTS", "parts")])
    connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(owner)))
    for statement in (
        "CREATE OR REPLACE FUNCTION clarion_guard.forget(tables oid[]) RETURNS void LANGUAGE sql AS ''",
        "ALTER FUNCTION clarion_guard.forget(oid[]) SECURITY INVOKER",
        "DROP FUNCTION clarion_guard.ended() CASCADE",
        "SELECT clarion_guard.forget('{}')",
        "CREATE FUNCTION clarion_guard.more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(statement.encode())
    # Code of the owner's where the guard reads and writes runs as the owner, whoever runs the command.
    connection.execute(
        """CREATE FUNCTION clarion.spy() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN INSERT INTO public.seen VALUES (current_user); RETURN NULL; END $$;
           CREATE TRIGGER spy AFTER INSERT OR UPDATE OR DELETE ON clarion.captured_tables EXECUTE FUNCTION clarion.spy();
           CREATE TRIGGER spy AFTER INSERT OR UPDATE ON clarion.resources EXECUTE FUNCTION clarion.spy()"""
    )
    connection.execute("RESET SESSION AUTHORIZATION")
    connection.execute("ALTER TABLE parts RENAME TO pieces; ALTER TABLE pieces ADD more text")
    found = connection.execute("SELECT DISTINCT who FROM seen").fetchall()
    assert found == [(owner,)]


def test_a_dump_is_restored_with_its_guard(
    database: DatabaseAddress, server: DatabaseAddress, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    programs = DEBIAN_15 if pytestconfig.getoption("--postgres") == "debian15" else _programs()
    dump = str(tmp_path / "dump")
    with psycopg.connect(database.url, autocommit=True) as connection:
        guard.turn_on(connection)
        connection.execute("CREATE TABLE dumped (id bigint PRIMARY KEY); INSERT INTO dumped VALUES (1)")
        attach(connection, [Attachment("DUMPED", "dumped")])
        subprocess.run([programs / "pg_dump", "-Fc", "-f", dump, "-d", database.url], check=True)
    target = server.with_database("restored")
    with psycopg.connect(server.url, autocommit=True) as administrator:
        administrator.execute("CREATE DATABASE restored TEMPLATE template0")
        try:
            subprocess.run([programs / "pg_restore", "--exit-on-error", "-d", target.url, dump], check=True)
            with psycopg.connect(target.url, autocommit=True) as connection:
                # Another life: what was remembered of the tables over there says nothing here.
                connection.execute("ALTER TABLE dumped ADD more text")
                adopt(connection)
                assert [one.code for one in inspect(connection) if one.severity == "FAILURE"] == []
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute("ALTER TABLE dumped DISABLE TRIGGER USER")
        finally:
            administrator.execute("DROP DATABASE restored WITH (FORCE)")
