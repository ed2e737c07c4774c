"""What is done on the database itself, past the API, stands in the history: who, from where, before and after."""

from __future__ import annotations

import os
import pwd
from typing import Any

import pytest
import sqlalchemy

from clarion.access.bootstrap import create_key, ensure_bootstrap
from clarion.access.principal import Role
from clarion.capture import guard
from clarion.capture.attach import Attachment, OnTruncate, attach, attach_statements, detach, detach_statements
from clarion.capture.published import Published, attach_published
from clarion.core.system import SystemRandom
from clarion.database.address import DatabaseAddress
from clarion.database.migrate import adopt
from harness.capturing import Connection

pytestmark = pytest.mark.data_path

WHO = f"postgres ({pwd.getpwuid(os.getuid()).pw_name})"
PARTS = {
    "name": "PARTS",
    "singular": None,
    "description": "Rows of public.parts.",
    "organisation": "default",
    "table": "public.parts",
    "keyColumns": ["id"],
    "excludedColumns": [],
    "organisationColumn": None,
    "labelColumn": None,
    "onTruncate": "REFUSE",
    "captured": ["public.parts"],
}


@pytest.fixture
def parts(connection: Connection) -> Connection:
    """A superuser's connection to a database with the table `parts`, which nobody has attached."""
    connection.execute("CREATE TABLE parts (id bigint PRIMARY KEY, name text, secret text)")
    connection.execute("DELETE FROM clarion.history")
    return connection


def news(connection: Connection, kind: str = "Resource") -> list[tuple[Any, ...]]:
    """The entries since this was last asked, of the deployment's own organisation: (who, action, before, after)."""
    return connection.execute(
        "WITH gone AS (DELETE FROM clarion.history RETURNING *) SELECT g.client_name, g.action, g.before, g.after FROM gone g "
        "JOIN clarion.organisations o ON o.id = g.organisation_id WHERE o.name = 'default' AND g.object_type = %s "
        "AND g.from_address = '[local]' AND g.client_id IS NULL AND g.request_id IS NULL ORDER BY g.id",
        (kind,),
    ).fetchall()


def test_attach_and_detach_tell_what_was_captured_and_what_is(
    parts: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "somebody else")
    attach(parts, [Attachment("PARTS", "parts")])
    assert news(parts) == [(WHO, "CREATE", None, PARTS)]
    attach(parts, [Attachment("PARTS", "parts")])
    assert news(parts) == []
    ((before,),) = parts.execute("SELECT etag FROM clarion.resources WHERE name = 'PARTS'").fetchall()
    attach(parts, [Attachment("PARTS", "parts", excluded_columns=("secret",), on_truncate=OnTruncate.DELETE)])
    excluded = {"excludedColumns": ["secret"], "onTruncate": "DELETE"}
    assert news(parts) == [(WHO, "UPDATE", {"excludedColumns": [], "onTruncate": "REFUSE"}, excluded)]
    ((after,),) = parts.execute("SELECT etag FROM clarion.resources WHERE name = 'PARTS'").fetchall()
    assert after != before
    detach(parts, "PARTS")
    assert news(parts) == [(WHO, "DELETE", PARTS | excluded, None)]


def test_the_sql_that_a_dba_runs_from_a_plan_writes_the_same_entries_with_the_login_alone(parts: Connection) -> None:
    parts.execute("CREATE ROLE dba LOGIN SUPERUSER; SET SESSION AUTHORIZATION dba")
    for statements, entry in (
        (lambda: attach_statements(parts, [Attachment("PARTS", "parts")]), ("dba", "CREATE", None, PARTS)),
        (lambda: detach_statements(parts, "PARTS"), ("dba", "DELETE", PARTS, None)),
    ):
        for statement in statements()[1:-1]:
            parts.execute(statement.encode())
        assert news(parts) == [entry]


def test_an_attach_that_restores_capture_says_so(parts: Connection) -> None:
    attach(parts, [Attachment("PARTS", "parts")])
    parts.execute('ALTER TABLE parts DISABLE TRIGGER "!clarion_capture"')
    news(parts)
    attach(parts, [Attachment("PARTS", "parts")])
    assert news(parts) == [(WHO, "UPDATE", {"captured": []}, {"captured": ["public.parts"]})]


def test_who_may_publish_stands_there_before_and_after(parts: Connection) -> None:
    parts.execute("CREATE ROLE shop; CREATE ROLE depot")
    attach_published(parts, Published("SHIPMENTS", ("shop",)))
    made = {"name": "SHIPMENTS", "singular": None, "description": "Published by the application.", "jsonSchema": None}
    made |= {"organisation": "default", "publishers": ["shop"]}
    assert news(parts) == [(WHO, "CREATE", None, made)]
    attach_published(parts, Published("SHIPMENTS", ("shop",)))
    assert news(parts) == []
    attach_published(parts, Published("SHIPMENTS", ("depot",)))
    assert news(parts) == [(WHO, "UPDATE", {"publishers": ["shop"]}, {"publishers": ["depot"]})]
    detach(parts, "SHIPMENTS")
    assert news(parts) == [(WHO, "DELETE", made | {"publishers": ["depot"]}, None)]


def test_an_organisation_that_attach_makes_reads_of_its_making_and_not_of_the_table(parts: Connection) -> None:
    attach(parts, [Attachment("PARTS", "parts", organisation="plant 2")])
    told = parts.execute(
        "SELECT o.name, h.action, h.object_type, h.after->>'name' FROM clarion.history h "
        "JOIN clarion.organisations o ON o.id = h.organisation_id ORDER BY 1, 3"
    ).fetchall()
    assert told == [
        ("default", "CREATE", "Organisation", "plant 2"),
        ("default", "CREATE", "Resource", "PARTS"),
        ("plant 2", "CREATE", "Organisation", "plant 2"),
    ]


def test_the_guard_tells_of_being_switched_and_of_renamed_tables(parts: Connection) -> None:
    guard.turn_on(parts)
    guard.turn_on(parts)
    assert news(parts, "Guard") == [(WHO, "UPDATE", {"on": False}, {"on": True})]
    attach(parts, [Attachment("PARTS", "parts")])
    news(parts)
    parts.execute("ALTER TABLE parts RENAME TO components")
    assert news(parts) == [("postgres", "UPDATE", {"table": "public.parts"}, {"table": "public.components"})]
    parts.execute("DROP EVENT TRIGGER clarion_guard_dropped")
    guard.turn_on(parts)
    guard.turn_off(parts)
    off, on = {"on": False}, {"on": True}
    assert news(parts, "Guard") == [(WHO, "UPDATE", off, on), (WHO, "UPDATE", on, off)]


def test_a_window_is_opened_and_closed_by_whom_and_from_where(parts: Connection) -> None:
    guard.open_window(parts, "restore")
    guard.close_window(parts)
    opened, closed = news(parts, "BreakGlass")
    assert (opened[:3], closed[:3]) == ((WHO, "OPEN", None), (WHO, "CLOSE", {"closedAt": None}))


def test_an_adopted_database_tells_which_incarnation_it_was(parts: Connection) -> None:
    attach(parts, [Attachment("PARTS", "parts")])
    ((former,),) = parts.execute("SELECT incarnation FROM clarion.deployment").fetchall()
    news(parts)
    incarnation = adopt(parts)
    assert news(parts, "Deployment") == [(WHO, "UPDATE", {"incarnation": former}, {"incarnation": incarnation})]


def test_keys_made_on_the_database_and_all_that_comes_with_them_stand_in_their_organisation(
    shared_database: DatabaseAddress,
) -> None:
    engine = sqlalchemy.create_engine(shared_database.sqlalchemy("psycopg"), poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection, connection.begin() as transaction:

        def told() -> list[tuple[Any, ...]]:
            found = connection.exec_driver_sql(
                "WITH gone AS (DELETE FROM clarion.history RETURNING *) SELECT o.name, g.client_name, g.action, g.object_type, "
                "g.before, g.after FROM gone g JOIN clarion.organisations o ON o.id = g.organisation_id ORDER BY g.id"
            )
            return [tuple(row) for row in found]

        told()
        key = create_key(connection, "plant 3", "erp", Role.INTEGRATOR, SystemRandom())
        ((client_id,),) = connection.exec_driver_sql("SELECT id FROM clarion.clients WHERE name = 'erp'")
        client = {"name": "erp", "kind": "MACHINE", "role": "INTEGRATOR", "active": True}
        api_key = {"clientId": client_id, "prefix": key[:12], "expires": None, "revoked": None}
        expected = [
            ("default", "Organisation", {"name": "plant 3"}),
            ("plant 3", "Organisation", {"name": "plant 3"}),
            ("plant 3", "Client", client | {"readableResources": None, "publishableResources": []}),
            ("plant 3", "ApiKey", api_key),
        ]
        assert told() == [(whose, WHO, "CREATE", kind, None, after) for whose, kind, after in expected]
        create_key(connection, "plant 3", "erp", Role.INTEGRATOR, SystemRandom())
        assert [row[2:4] for row in told()] == [("CREATE", "ApiKey")]
        for number in (1, 2, 1, 1):
            ensure_bootstrap(connection, f"{number}" * 32)
        entries = told()
        assert [row[2:4] for row in entries] == [
            *(("CREATE", "Client"), ("CREATE", "ApiKey"), ("REVOKE", "ApiKey"), ("CREATE", "ApiKey")),
            *(("REVOKE", "ApiKey"), ("UPDATE", "ApiKey")),
        ]
        assert all(row[:2] == ("default", WHO) for row in entries)
        assert [row[4:] for row in entries[-1:]] == [({"revoked": entries[2][5]["revoked"]}, {"revoked": None})]
        transaction.rollback()
