"""What the doctor finds beside capture itself, its page, and the command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from clarion.capture.attach import Attachment, attach
from clarion.capture.doctor import CODES, STATEMENTS, inspect
from clarion.database.address import DatabaseAddress
from harness.process import ClarionProcess

pytestmark = pytest.mark.data_path

Connection = psycopg.Connection[Any]
PAGE = (Path(__file__).parents[2] / "docs/reference/doctor.md").read_text()


@pytest.fixture
def connection(shared_database: DatabaseAddress) -> Iterator[Connection]:
    """A superuser inside a transaction that is rolled back."""
    with psycopg.connect(shared_database.url, autocommit=True) as opened, opened.transaction(force_rollback=True):
        yield opened


def test_every_code_is_documented_with_its_severity_and_no_other() -> None:
    documented = re.findall(r"^\| `([A-Z_]+)` \| (\w+) \|", PAGE, re.MULTILINE)
    assert documented == [(code, severity.value) for code, (severity, _, _) in CODES.items()]


def test_every_code_comes_from_a_statement_or_from_the_command_itself() -> None:
    in_statements = set(re.findall(r"'([A-Z]+(?:_[A-Z]+)+)'", "".join(STATEMENTS.values())))
    migration = Path(__file__).parents[2] / "src/clarion/database/migrations/versions/0001_initial.sql"
    state = migration.read_text().split("CREATE FUNCTION clarion.capture_state(")[1].split("$$;")[0]
    in_statements |= set(re.findall(r"'([A-Z]+(?:_[A-Z]+)+)'", state))
    assert in_statements == set(CODES) - {"NOT_COMPARED", "SERVER_UNSUITABLE"}


SITUATIONS = {
    "PARTITION_NOT_AHEAD": "DROP TABLE clarion.ledger_1",
    "TABLE_NOT_LOGGED": "ALTER TABLE parts SET UNLOGGED",
    "ROW_NOT_READ": """
        INSERT INTO clarion.ledger (position, organisation_id, change_id, outbox_id, recorded_at, occurred_at, captured_at, xid,
                                    action, resource, object_id, link, problem)
        SELECT 1, id, 1, 1, now(), now(), now(), '1', 'c', 'PARTS', '1', '', 'a cast failed'
        FROM clarion.organisations WHERE name = 'default'""",
    "OUTBOX_BEHIND": "INSERT INTO parts VALUES (1); UPDATE clarion.outbox SET captured_at = captured_at - interval '61 s'",
    "ROUTER_SILENT": "UPDATE clarion.router SET beat_at = clock_timestamp() - interval '16 s'",
    "DELIVERY_SILENT": "INSERT INTO clarion.workers (name, backend_pid, beat_at) VALUES ('x', 1, now() - interval '21 s')",
    "HOLD_ENDS_SOON": """
        WITH receiver AS (
            INSERT INTO clarion.receivers (organisation_id, name, webhook_uri, shared_secret_sealed, shared_secret_hint, active)
            SELECT id, 'receiver', 'https://127.0.1.1/ok', 'sealed', 'none', false FROM clarion.organisations WHERE name = 'default'
            RETURNING id, organisation_id
        )
        INSERT INTO clarion.queue (queue_id, event_id, organisation_id, receiver_id, subscription_id, position, sequence, lane, shard)
        SELECT 1, 1, organisation_id, id, 1, 1, 1, 1, 1 FROM receiver;
        ALTER TABLE clarion.receivers DISABLE TRIGGER note_inactive;
        UPDATE clarion.receivers SET inactive_since = inactive_since - interval '24 days'""",
    "FUNCTION_CHANGED": (
        "CREATE OR REPLACE FUNCTION clarion.refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    ),
    "CAPTURED_TWICE": (
        "CREATE SUBSCRIPTION feed CONNECTION 'dbname=none' PUBLICATION p WITH (connect = false); "
        "SET LOCAL allow_system_table_mods = on; INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate) "
        "SELECT oid, 'parts'::regclass, 'r' FROM pg_subscription WHERE subname = 'feed'"
    ),
    "NOT_COMPARED": "ALTER TABLE clarion.workers RENAME TO elsewhere",
}


@pytest.mark.parametrize("code", SITUATIONS)
def test_what_operators_must_know_is_found(connection: Connection, code: str) -> None:
    connection.execute("CREATE TABLE parts (id bigint PRIMARY KEY, secret text)")
    attach(connection, [Attachment("PARTS", "parts", excluded_columns=("secret",))])
    # A router and a worker that live.
    connection.execute("UPDATE clarion.router SET beat_at = clock_timestamp()")
    if code != "DELIVERY_SILENT":
        connection.execute("INSERT INTO clarion.workers (name, backend_pid) VALUES ('w', 1)")
    before = {one.code for one in inspect(connection)}
    connection.execute(SITUATIONS[code].encode())
    assert {one.code for one in inspect(connection)} == before | {code}


def test_a_prepared_transaction_and_an_old_one_hold_vacuum_back(connection: Connection) -> None:
    """Ten minutes cannot be waited for: the statement itself is asked with another age."""
    statement = STATEMENTS["transactions"].replace("'10 minutes'", "'0 minutes'")
    with psycopg.connect(connection.info.dsn) as other:
        other.execute("SELECT pg_current_xact_id(), pg_sleep(0)")
        other.execute("DECLARE held CURSOR FOR SELECT 1")
        found = connection.execute(statement.encode()).fetchall()
        assert ("TRANSACTION_OLD", f"process {other.info.backend_pid}") in [row[:2] for row in found]


def test_the_command_exits_with_1_for_a_failure_and_lists_it(
    database: DatabaseAddress, clarion_process: Callable[..., ClarionProcess]
) -> None:
    def doctor(*arguments: str) -> Any:
        return clarion_process("doctor", *arguments, CLARION_DATABASE_URL=database.url).wait()

    sound = doctor()
    assert (sound.code, "\x1b" in sound.stdout) == (0, False)
    assert "0 failures" in sound.stdout
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE parts (id bigint PRIMARY KEY)")
        attach(connection, [Attachment("PARTS", "parts")])
        connection.execute("ALTER TABLE parts DISABLE TRIGGER USER")
    ill = doctor("--json")
    assert ill.code == 1
    found = json.loads(ill.stdout)
    assert found["ok"] is False
    assert {"TRIGGER_NOT_ALWAYS", "TRUNCATE_NOT_ALWAYS"} <= {one["code"] for one in found["findings"]}
    assert [one["subject"] for one in found["findings"] if one["code"] == "TRIGGER_NOT_ALWAYS"] == ["public.parts"]
