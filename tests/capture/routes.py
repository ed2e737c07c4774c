"""Every known way around capture, and how it ends: captured, refused or detected, with the guard and without.

A table in plain form: `ROUTES` is read by the tests and by the programme that prints it. `take` goes one of them on a
database whose superuser `connection` is, inside a transaction that `prepare` began and that the caller rolls back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg

from clarion.capture.attach import Attachment, attach
from clarion.capture.doctor import Severity, inspect

Connection = psycopg.Connection[Any]


class Fate(StrEnum):
    """How a way around capture ends."""

    CAPTURED = "captured"
    REFUSED = "refused"
    DETECTED = "detected"
    INFORMATION = "information"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a route ended: its fate, what was captured (`c1` for a created object 1), refusal or new findings."""

    fate: Fate
    captured: tuple[str, ...] = ()
    message: str = ""
    hint: str = ""
    codes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """`statements` are run by the application that owns the tables, or by a superuser.

    `captured` is what must be in the outbox when the fate is CAPTURED, `code` the finding when it is DETECTED or INFORMATION.
    """

    name: str
    statements: str
    guarded: Fate
    unguarded: Fate
    captured: tuple[str, ...] = ()
    code: str = ""
    superuser: bool = False
    version_min: int = 15

    def run(self, connection: Connection) -> None:
        """Go it. Raises what the database refuses it with."""
        if not self.superuser:
            connection.execute("SET SESSION AUTHORIZATION application")
        connection.execute(self.statements.encode())
        if not self.superuser:
            connection.execute("RESET SESSION AUTHORIZATION")


TABLES = """
    CREATE TABLE makers (id bigint PRIMARY KEY);
    CREATE TABLE parts (id bigint PRIMARY KEY, maker bigint REFERENCES makers ON DELETE CASCADE, name text, price numeric,
        weight numeric, twice numeric GENERATED ALWAYS AS (weight * 2) STORED);
    CREATE TABLE split (id bigint PRIMARY KEY, name text) PARTITION BY RANGE (id);
    CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (0) TO (100);
    CREATE TABLE split_2 PARTITION OF split FOR VALUES FROM (100) TO (200);
    CREATE TABLE aside (id bigint PRIMARY KEY, name text);
    INSERT INTO makers VALUES (1);
    INSERT INTO parts VALUES (1, 1, 'bolt', 1.5), (2, 1, 'nut', 2.5);
    INSERT INTO split VALUES (1, 'one');
    INSERT INTO aside VALUES (300, 'aside');
"""

_CAPTURED, _REFUSED, _DETECTED, _INFORMATION = Fate.CAPTURED, Fate.REFUSED, Fate.DETECTED, Fate.INFORMATION


def _captured(name: str, statements: str, *captured: str, superuser: bool = False) -> Route:
    return Route(name, statements, _CAPTURED, _CAPTURED, captured, superuser=superuser)


def _guarded(name: str, statements: str, code: str, *, superuser: bool = False, version_min: int = 15) -> Route:
    """Refused by the guard; without it, found."""
    return Route(name, statements, _REFUSED, _DETECTED, code=code, superuser=superuser, version_min=version_min)


_REPLACED = (
    "CREATE OR REPLACE FUNCTION clarion_triggers.capture_parts() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
    "AS 'BEGIN RETURN NULL; END'"
)

ROUTES = (
    _captured("INSERT", "INSERT INTO parts VALUES (3)", "c3"),
    _captured("UPDATE", "UPDATE parts SET name = 'x' WHERE id = 1", "u1"),
    _captured("UPDATE of the key", "UPDATE parts SET id = 9 WHERE id = 1", "d1", "c9"),
    _captured("DELETE", "DELETE FROM parts WHERE id = 1", "d1"),
    _captured("COPY", "COPY parts (id) FROM PROGRAM 'echo 3'", "c3", superuser=True),
    _captured("upsert", "INSERT INTO parts VALUES (1), (3) ON CONFLICT (id) DO UPDATE SET name = 'x'", "u1", "c3"),
    _captured(
        "MERGE",
        "MERGE INTO parts USING (VALUES (1), (3)) v (id) ON parts.id = v.id "
        "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (v.id)",
        "d1",
        "c3",
    ),
    _captured("writable CTE", "WITH gone AS (DELETE FROM parts WHERE id = 1 RETURNING *) SELECT * FROM gone", "d1"),
    _captured("foreign key cascade", "DELETE FROM makers", "d1", "d2"),
    _captured("write to a partition", "INSERT INTO split_2 VALUES (101, 'x')", "c101"),
    _captured("move between partitions", "UPDATE split SET id = 101 WHERE id = 1", "d1", "c101"),
    _captured(
        "an updatable view", "CREATE VIEW seen AS SELECT * FROM parts; UPDATE seen SET name = 'x' WHERE id = 1", "u1"
    ),
    _captured("a prepared statement", "PREPARE w AS INSERT INTO parts VALUES (3); EXECUTE w; DEALLOCATE w", "c3"),
    _captured(
        "a function of the application's",
        "CREATE FUNCTION w() RETURNS void LANGUAGE sql AS 'DELETE FROM parts WHERE id = 1'; SELECT w()",
        "d1",
    ),
    _captured(
        "session_replication_role = replica",
        "SET LOCAL session_replication_role = replica; INSERT INTO parts VALUES (3); RESET session_replication_role",
        "c3",
        superuser=True,
    ),
    _captured("SET CONSTRAINTS ALL DEFERRED", "SET CONSTRAINTS ALL DEFERRED; INSERT INTO parts VALUES (3)", "c3"),
    _captured("SET UNLOGGED", "ALTER TABLE parts SET UNLOGGED; INSERT INTO parts VALUES (3)", "c3"),
    Route(
        "a partition made later",
        "CREATE TABLE split_3 PARTITION OF split FOR VALUES FROM (200) TO (300); INSERT INTO split_3 VALUES (201)",
        _CAPTURED,
        _DETECTED,
        ("c201",),
        "TRUNCATE_MISSING",
    ),
    Route("TRUNCATE", "TRUNCATE parts", _REFUSED, _REFUSED),
    Route("TRUNCATE, cascaded", "TRUNCATE makers CASCADE", _REFUSED, _REFUSED),
    Route("TRUNCATE of a partitioned table", "TRUNCATE split", _REFUSED, _REFUSED),
    Route(
        "TRUNCATE in replica mode",
        "SET LOCAL session_replication_role = replica; TRUNCATE parts",
        _REFUSED,
        _REFUSED,
        superuser=True,
    ),
    _guarded(
        "TRUNCATE of a partition made later",
        "CREATE TABLE split_3 PARTITION OF split FOR VALUES FROM (200) TO (300); INSERT INTO split_3 VALUES (201); "
        "TRUNCATE split_3",
        "TRUNCATE_MISSING",
    ),
    Route("the application edits the outbox", "DELETE FROM clarion.outbox", _REFUSED, _REFUSED),
    Route(
        "the application writes the outbox", "INSERT INTO clarion.outbox (resource) VALUES ('X')", _REFUSED, _REFUSED
    ),
    Route("the application unregisters its table", "DELETE FROM clarion.resources", _REFUSED, _REFUSED),
    Route(
        "the application drops the function",
        "DROP FUNCTION clarion_triggers.capture_parts() CASCADE",
        _REFUSED,
        _REFUSED,
    ),
    Route("the application drops the schema", "DROP SCHEMA clarion CASCADE", _REFUSED, _REFUSED),
    _guarded("DISABLE TRIGGER", 'ALTER TABLE parts DISABLE TRIGGER "!clarion_capture"', "TRIGGER_NOT_ALWAYS"),
    _guarded(
        "DISABLE TRIGGER of TRUNCATE", 'ALTER TABLE parts DISABLE TRIGGER "!clarion_truncate"', "TRUNCATE_NOT_ALWAYS"
    ),
    _guarded("DISABLE TRIGGER USER", "ALTER TABLE parts DISABLE TRIGGER USER", "TRIGGER_NOT_ALWAYS"),
    _guarded("DISABLE TRIGGER ALL", "ALTER TABLE parts DISABLE TRIGGER ALL", "TRIGGER_NOT_ALWAYS", superuser=True),
    _guarded("DISABLE TRIGGER of a partition", "ALTER TABLE split_1 DISABLE TRIGGER USER", "TRIGGER_NOT_ALWAYS"),
    _guarded("ENABLE TRIGGER, not always", 'ALTER TABLE parts ENABLE TRIGGER "!clarion_capture"', "TRIGGER_NOT_ALWAYS"),
    _guarded(
        "ENABLE REPLICA TRIGGER", 'ALTER TABLE parts ENABLE REPLICA TRIGGER "!clarion_capture"', "TRIGGER_NOT_ALWAYS"
    ),
    _guarded("DROP TRIGGER", 'DROP TRIGGER "!clarion_capture" ON parts', "TRIGGER_MISSING"),
    _guarded("DROP TRIGGER of TRUNCATE", 'DROP TRIGGER "!clarion_truncate" ON parts', "TRUNCATE_MISSING"),
    _guarded("DROP TRIGGER of a partitioned table", 'DROP TRIGGER "!clarion_capture" ON split', "TRIGGER_MISSING"),
    _guarded("rename the trigger", 'ALTER TRIGGER "!clarion_capture" ON parts RENAME TO other', "TRIGGER_MISSING"),
    _guarded(
        "put another trigger in its place",
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
        'CREATE OR REPLACE TRIGGER "!clarion_capture" AFTER INSERT OR UPDATE OR DELETE ON parts '
        "FOR EACH ROW EXECUTE FUNCTION nothing()",
        "TRIGGER_CHANGED",
    ),
    _guarded(
        "narrow the trigger",
        'CREATE OR REPLACE TRIGGER "!clarion_capture" AFTER INSERT ON parts FOR EACH ROW WHEN (false) '
        "EXECUTE FUNCTION clarion_triggers.capture_parts()",
        "TRIGGER_CHANGED",
        superuser=True,
    ),
    _guarded(
        "disable in replica mode",
        "SET LOCAL session_replication_role = replica; ALTER TABLE parts DISABLE TRIGGER ALL",
        "TRIGGER_NOT_ALWAYS",
        superuser=True,
    ),
    _guarded(
        "disable inside a function",
        "DO 'BEGIN EXECUTE ''ALTER TABLE parts DISABLE TRIGGER USER''; END'",
        "TRIGGER_NOT_ALWAYS",
    ),
    _guarded("ALTER COLUMN TYPE … USING", "ALTER TABLE parts ALTER price TYPE bigint USING 0", "ROWS_REWRITTEN"),
    _guarded("ALTER COLUMN TYPE of partitions", "ALTER TABLE split ALTER name TYPE bigint USING 0", "ROWS_REWRITTEN"),
    _guarded(
        "another expression of a generated column",
        "ALTER TABLE parts ALTER twice SET EXPRESSION AS (weight * 3)",
        "ROWS_REWRITTEN",
        version_min=17,
    ),
    _guarded("DETACH PARTITION with rows", "ALTER TABLE split DETACH PARTITION split_1", "PARTITION_GONE"),
    Route(
        "ATTACH PARTITION with rows",
        "ALTER TABLE split ATTACH PARTITION aside FOR VALUES FROM (300) TO (400)",
        _REFUSED,
        _DETECTED,
        code="TRUNCATE_MISSING",
    ),
    _guarded("DROP TABLE", "DROP TABLE parts", "TABLE_MISSING"),
    _guarded("DROP TABLE of a partition", "DROP TABLE split_1", "PARTITION_GONE"),
    _guarded("DROP TABLE of a partitioned table", "DROP TABLE split", "TABLE_MISSING"),
    _guarded("DROP SCHEMA CASCADE", "DROP SCHEMA shop CASCADE", "TABLE_MISSING"),
    _guarded("DROP OWNED", "DROP OWNED BY application CASCADE", "TABLE_MISSING", superuser=True),
    _guarded(
        "DROP of the trigger's function",
        "DROP FUNCTION clarion_triggers.capture_parts() CASCADE",
        "FUNCTION_MISSING",
        superuser=True,
    ),
    _guarded(
        "DROP of the function that refuses TRUNCATE",
        "DROP FUNCTION clarion.refuse_truncate() CASCADE",
        "TRUNCATE_MISSING",
        superuser=True,
    ),
    _guarded(
        "DROP of the triggers' schema", "DROP SCHEMA clarion_triggers CASCADE", "FUNCTION_MISSING", superuser=True
    ),
    Route(
        "rename the table",
        "ALTER TABLE parts RENAME TO pieces; INSERT INTO pieces VALUES (3)",
        _CAPTURED,
        _DETECTED,
        ("c3",),
        "TABLE_MISSING",
    ),
    Route(
        "rename the table as an index",
        "ALTER INDEX parts RENAME TO pieces; INSERT INTO pieces VALUES (3)",
        _CAPTURED,
        _DETECTED,
        ("c3",),
        "TABLE_MISSING",
    ),
    Route(
        "move the table to another schema",
        "ALTER TABLE parts SET SCHEMA public; INSERT INTO public.parts VALUES (3)",
        _CAPTURED,
        _DETECTED,
        ("c3",),
        "TABLE_MISSING",
    ),
    Route(
        "rename the schema",
        "ALTER SCHEMA shop RENAME TO store; INSERT INTO store.parts VALUES (3)",
        _CAPTURED,
        _DETECTED,
        ("c3",),
        "TABLE_MISSING",
        superuser=True,
    ),
    Route(
        "put another table in its place",
        "ALTER TABLE parts RENAME TO old; CREATE TABLE parts (LIKE old); INSERT INTO parts VALUES (3)",
        _INFORMATION,
        _DETECTED,
        code="TABLE_NOT_ENROLLED",
    ),
    _guarded("rename the key column", "ALTER TABLE parts RENAME id TO number", "COLUMN_MISSING"),
    _guarded("DROP of the key column", "ALTER TABLE parts DROP id CASCADE", "COLUMN_MISSING"),
    Route("DROP of the key", "ALTER TABLE parts DROP CONSTRAINT parts_pkey", _DETECTED, _DETECTED, code="KEY_LOST"),
    Route(
        "an INHERITS child made later",
        "CREATE TABLE special (more text) INHERITS (parts); INSERT INTO special (id) VALUES (3); "
        "UPDATE parts SET name = 'x' WHERE id = 3; DELETE FROM special",
        _CAPTURED,
        _DETECTED,
        ("c3", "u3", "d3"),
        "TRIGGER_MISSING",
    ),
    Route(
        "a table that is made a child",
        "CREATE TABLE special (LIKE parts INCLUDING GENERATED); ALTER TABLE special INHERIT parts; INSERT INTO special (id) VALUES (3)",
        _CAPTURED,
        _DETECTED,
        ("c3",),
        "TRIGGER_MISSING",
    ),
    _guarded("a temporary child", "CREATE TEMP TABLE passing () INHERITS (parts)", "TRIGGER_MISSING"),
    Route(
        "a new table that nobody enrolled",
        "CREATE TABLE fresh (id bigint)",
        _INFORMATION,
        _INFORMATION,
        code="TABLE_NOT_ENROLLED",
    ),
    Route("the function is replaced", _REPLACED, _DETECTED, _DETECTED, code="FUNCTION_CHANGED", superuser=True),
    Route(
        "the function's rights are taken",
        "ALTER FUNCTION clarion_triggers.capture_parts() SECURITY INVOKER",
        _DETECTED,
        _DETECTED,
        code="FUNCTION_CHANGED",
        superuser=True,
    ),
    Route(
        "a superuser drops the guard",
        "DROP EVENT TRIGGER IF EXISTS clarion_guard_ended; ALTER TABLE parts DISABLE TRIGGER USER",
        _DETECTED,
        _DETECTED,
        code="TRIGGER_NOT_ALWAYS",
        superuser=True,
    ),
    Route(
        "a superuser switches event triggers off",
        "SET LOCAL event_triggers = off; ALTER TABLE parts DISABLE TRIGGER USER",
        _DETECTED,
        _DETECTED,
        code="TRIGGER_NOT_ALWAYS",
        superuser=True,
        version_min=17,
    ),
)


ALWAYS = {
    *(("ROUTER_SILENT", "router"), ("DELIVERY_SILENT", "delivery"), ("GUARD_OFF", "guard")),
    *(("TABLE_NOT_ENROLLED", f"shop.{name}") for name in ("makers", "aside")),
}
"""What is found after `prepare` before anything was tried: nothing runs, and two tables are not attached."""


def prepare(connection: Connection) -> None:
    """The application `application` with tables in schema `shop`, two of them attached. For a transaction that is rolled back."""
    connection.execute("CREATE ROLE application; CREATE SCHEMA shop AUTHORIZATION application")
    connection.execute("GRANT USAGE ON SCHEMA clarion TO application; GRANT CREATE ON SCHEMA public TO application")
    connection.execute("SET LOCAL search_path = shop")
    with _acting(connection):
        connection.execute(TABLES.encode())
    attach(
        connection,
        [Attachment("PARTS", "parts", schema="shop"), Attachment("SPLIT", "split", schema="shop")],
    )
    connection.execute("DELETE FROM clarion.outbox")


def take(connection: Connection, route: Route) -> Ended:
    """Go the route after `prepare`, and tell how it ended. Nothing of it stays."""
    with connection.transaction(force_rollback=True):
        return _ended(connection, route)


def _ended(connection: Connection, route: Route) -> Ended:
    try:
        with connection.transaction():
            route.run(connection)
            connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except psycopg.errors.InsufficientPrivilege as error:
        return Ended(Fate.REFUSED, message=error.diag.message_primary or "", hint=error.diag.message_hint or "")
    rows = connection.execute("SELECT action::text || object_id FROM clarion.outbox ORDER BY id").fetchall()
    captured = tuple(row[0] for row in rows)
    new = [one for one in inspect(connection) if (one.code, one.subject) not in ALWAYS]
    codes = tuple(dict.fromkeys(one.code for one in new))
    if any(one.severity is Severity.FAILURE for one in new):
        fate = Fate.DETECTED
    elif captured:
        fate = Fate.CAPTURED
    else:
        fate = Fate.INFORMATION if new else Fate.MISSED
    return Ended(fate, captured, codes=codes)


@contextmanager
def _acting(connection: Connection) -> Iterator[None]:
    connection.execute("SET SESSION AUTHORIZATION application")
    yield
    connection.execute("RESET SESSION AUTHORIZATION")
