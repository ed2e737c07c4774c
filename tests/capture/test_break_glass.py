"""The recorded way past the guard, and what of Clarion's own has to pass it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from clarion.app import load_secret_key
from clarion.capture import guard
from clarion.capture.attach import Attachment, attach, detach
from clarion.capture.doctor import inspect
from clarion.core.errors import EnvironmentRefused, UsageInvalid
from clarion.core.settings import Settings
from clarion.core.system import SystemRandom
from clarion.database.address import DatabaseAddress
from clarion.database.roles import read_roles
from clarion.registry import encryption_key
from clarion.sender.seal import create_key, load_key
from harness.deployment import Deployment

pytestmark = pytest.mark.data_path

Connection = psycopg.Connection[Any]
DISABLE = 'ALTER TABLE parts DISABLE TRIGGER "!clarion_capture"'
REFUSED = psycopg.errors.InsufficientPrivilege


@pytest.fixture
def connection(shared_database: DatabaseAddress) -> Iterator[Connection]:
    """A superuser with the guard on and `parts` attached, inside a transaction that is rolled back."""
    with psycopg.connect(shared_database.url, autocommit=True) as opened, opened.transaction(force_rollback=True):
        guard.turn_on(opened)
        opened.execute("CREATE TABLE parts (id bigint PRIMARY KEY, name text, secret text)")
        attach(opened, [Attachment("PARTS", "parts")])
        yield opened


def refused(connection: Connection, statement: str) -> psycopg.Error:
    with pytest.raises(REFUSED) as raised, connection.transaction():
        connection.execute(statement.encode())
    return raised.value


def found(connection: Connection) -> set[tuple[str, str]]:
    return {(one.code, one.subject) for one in inspect(connection) if one.severity == "FAILURE"}


def test_a_refusal_says_what_would_happen_and_both_ways_on(connection: Connection) -> None:
    error = refused(connection, DISABLE)
    assert error.diag.message_primary == (
        "ALTER TABLE would bypass webhooks: public.parts (PARTS) would be left with TRIGGER_NOT_ALWAYS"
    )
    assert "clarion detach PARTS" in (error.diag.message_hint or "")
    assert "clarion break-glass --reason" in (error.diag.message_hint or "")


def test_a_window_lets_through_and_records_who_what_why_and_until_when(connection: Connection) -> None:
    window = guard.open_window(connection, "restore of parts", minutes=5)
    assert (window.until - window.opened_at).total_seconds() == pytest.approx(300, abs=1)
    connection.execute(DISABLE.encode())
    assert found(connection) == {("TRIGGER_NOT_ALWAYS", "public.parts"), ("BREAK_GLASS_OPEN", f"window {window.id}")}
    closed = guard.close_window(connection)
    assert closed is not None and closed.id == window.id
    history = connection.execute(
        "SELECT action, client_name, after FROM clarion.history WHERE object_type = 'BreakGlass' AND object_id = %s ORDER BY id",
        (str(window.id),),
    ).fetchall()
    assert [row[0] for row in history] == ["OPEN", "LET_THROUGH", "CLOSE"]
    assert all(row[1].startswith(connection.info.user) for row in history)
    assert history[0][2]["reason"] == "restore of parts"
    assert history[1][2] == {
        "command": "ALTER TABLE",
        "what": ["public.parts (PARTS) would be left with TRIGGER_NOT_ALWAYS"],
    }
    assert history[2][2]["closedAt"] is not None


def test_after_the_window_the_doctor_says_what_is_missing_and_attach_repairs(connection: Connection) -> None:
    guard.open_window(connection, "restore")
    connection.execute(DISABLE.encode())
    connection.execute('DROP TRIGGER "!clarion_truncate" ON parts')
    guard.close_window(connection)
    assert found(connection) == {("TRIGGER_NOT_ALWAYS", "public.parts"), ("TRUNCATE_MISSING", "public.parts")}
    # What is broken stands in nobody's way.
    connection.execute("ALTER TABLE parts ADD more text; CREATE TABLE other (id int)")
    attach(connection, [Attachment("PARTS", "parts")])
    assert found(connection) == set()
    refused(connection, DISABLE)


def test_a_window_ends_by_itself(connection: Connection) -> None:
    guard.open_window(connection, "restore", minutes=1)
    connection.execute(
        "UPDATE clarion.break_glass SET opened_at = opened_at - interval '61 s', until = until - interval '61 s'"
    )
    assert guard.current_window(connection) is None
    refused(connection, DISABLE)
    assert guard.close_window(connection) is None


@pytest.mark.parametrize(("reason", "minutes"), [("", 5), ("  ", 5), ("x" * 2001, 5), ("why", 0), ("why", 1441)])
def test_a_window_without_a_reason_or_an_end_is_refused(connection: Connection, reason: str, minutes: int) -> None:
    with pytest.raises(UsageInvalid):
        guard.open_window(connection, reason, minutes=minutes)
    assert guard.current_window(connection) is None


def test_a_second_window_beside_an_open_one_is_refused(connection: Connection) -> None:
    guard.open_window(connection, "first")
    with pytest.raises(UsageInvalid, match="a window is open until .* \\(first\\)"):
        guard.open_window(connection, "second")


def test_a_member_of_the_owner_role_needs_no_superuser_and_others_are_told_what_they_need(
    connection: Connection,
) -> None:
    connection.execute("CREATE ROLE operator; CREATE ROLE stranger; GRANT ALL ON parts TO operator")
    connection.execute(sql.SQL("GRANT {} TO operator").format(sql.Identifier(read_roles(connection).owner)))
    connection.execute("SET SESSION AUTHORIZATION operator")
    assert guard.open_window(connection, "restore").opened_by.startswith("operator")
    assert guard.close_window(connection) is not None
    with pytest.raises(EnvironmentRefused, match="operator.* is no superuser"):
        guard.turn_on(connection)
    with pytest.raises(EnvironmentRefused, match="operator.* is no superuser"):
        guard.turn_off(connection)
    connection.execute("SET SESSION AUTHORIZATION stranger")
    with pytest.raises(EnvironmentRefused) as raised:
        guard.open_window(connection, "restore")
    assert "owner role" in raised.value.hint
    connection.execute("RESET SESSION AUTHORIZATION")


def test_a_window_of_one_transaction_is_seen_by_no_other(database: DatabaseAddress) -> None:
    with psycopg.connect(database.url, autocommit=True) as one, psycopg.connect(database.url, autocommit=True) as other:
        guard.turn_on(one)
        one.execute("CREATE TABLE parts (id bigint PRIMARY KEY); CREATE TABLE orders (id bigint PRIMARY KEY)")
        attach(one, [Attachment("PARTS", "parts"), Attachment("ORDERS", "orders")])
        with one.transaction():
            with guard.window_of_transaction(one, "ours", by="clarion"):
                one.execute(DISABLE.encode())
                refused(other, "ALTER TABLE orders DISABLE TRIGGER USER")
            refused(one, "ALTER TABLE orders DISABLE TRIGGER USER")


def test_attach_and_detach_pass_the_guard_again_and_again(connection: Connection) -> None:
    attach(connection, [Attachment("PARTS", "parts")])
    attach(connection, [Attachment("PARTS", "parts", excluded_columns=("secret",))])
    connection.execute("INSERT INTO parts VALUES (1, 'bolt', 'canary')")
    assert connection.execute("SELECT new FROM clarion.outbox").fetchall() == [('{"id":1,"name":"bolt"}',)]
    refused(connection, DISABLE)
    detach(connection, "PARTS")
    connection.execute("ALTER TABLE parts ALTER name TYPE bigint USING 0; DROP TABLE parts")
    assert found(connection) == set()


def test_the_encryption_key_is_rotated_under_the_guard(deployment: Deployment, tmp_path: Path) -> None:
    """It writes sealed values without events, with the triggers of two tables switched off for one transaction."""
    guard.turn_on(deployment.connection)
    path = deployment.directory / "secret.key"
    deployment.register()
    new = create_key(tmp_path / "new.key", SystemRandom())
    settings = Settings(secret_key_file=path, database_url=deployment.database.url)
    with psycopg.connect(deployment.database.url) as connection:
        load_secret_key(settings, connection)
        deployment.connection.execute("DELETE FROM clarion.outbox")
        encryption_key.rotate(connection, path, load_key(path), new, SystemRandom(), progress=lambda _: None)
    assert deployment.rows("SELECT count(*) FROM clarion.outbox") == [(0,)]
    assert found(deployment.connection) == set()
    refused(deployment.connection, "ALTER TABLE clarion.receivers DISABLE TRIGGER USER")
    assert deployment.rows("SELECT reason, closed_by FROM clarion.break_glass WHERE closed_at IS NOT NULL") == [
        ("the encryption key is rotated", "clarion keys")
    ]
