"""Partitioned tables and children that inherit: one resource, whichever table holds the row, and one change for a row that moves."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest

from clarion.capture.attach import Attachment, attach, detach
from clarion.core.errors import UsageInvalid
from clarion.database.address import DatabaseAddress
from harness.capturing import Connection, captured, refused, traces
from harness.deployment import Deployment

pytestmark = pytest.mark.data_path

TICKETS = """
    CREATE TABLE tickets (
        id bigint NOT NULL, state text NOT NULL, n int DEFAULT 0, owner text DEFAULT 'default', PRIMARY KEY (id, state)
    ) PARTITION BY LIST (state);
    CREATE TABLE tickets_open PARTITION OF tickets FOR VALUES IN ('open');
    CREATE TABLE tickets_done PARTITION OF tickets FOR VALUES IN ('done', 'gone') PARTITION BY LIST (state);
    CREATE TABLE tickets_done_done PARTITION OF tickets_done FOR VALUES IN ('done');
    CREATE TABLE tickets_done_gone PARTITION OF tickets_done FOR VALUES IN ('gone')
"""
BY_ID = Attachment(resource="TICKETS", table="tickets", key_columns=("id",))
BY_BOTH = Attachment(resource="TICKETS", table="tickets")


@pytest.fixture
def tickets(shared_database: DatabaseAddress) -> Iterator[Connection]:
    """A session that commits, with a partitioned table attached by its id and one open ticket, captured and routed."""
    with psycopg.connect(shared_database.url, autocommit=True) as connection:
        connection.execute(TICKETS)
        attach(connection, [BY_ID])
        connection.execute("INSERT INTO tickets VALUES (1, 'open'); DELETE FROM clarion.outbox")
        yield connection
        detach(connection, "TICKETS")
        left = connection.execute(
            "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE tgname LIKE '!clarion%' AND tgrelid::regclass::text LIKE 'tick%'"
        ).fetchall()
        connection.execute("DROP TABLE tickets; DROP TABLE IF EXISTS tickets_old; DELETE FROM clarion.outbox")
        assert left == []


def halves(connection: Connection) -> list[str]:
    """What waits: action and object of each row, and `+` if it names the row before it as its other half, `?` another one."""
    rows = captured(connection, "action::text", "object_id", "half_of", "id")
    return [
        action + object_id + ("" if half_of is None else "+" if half_of == rows[place - 1][3] else "?")
        for place, (action, object_id, half_of, _) in enumerate(rows)
    ]


MOVES = {
    "by UPDATE": ("UPDATE tickets SET state = 'done' WHERE id = 1", ["d1", "c1+"]),
    "on two levels": (
        "UPDATE tickets SET state = 'done'; UPDATE tickets_done SET state = 'gone'",
        ["d1", "c1+", "d1", "c1+"],
    ),
    "in a function among other statements": (
        (
            "DO $$ BEGIN UPDATE tickets SET n = 5; UPDATE tickets SET state = 'done', n = 6; UPDATE tickets SET n = 7;"
            " UPDATE tickets SET state = 'open'; END $$"
        ),
        ["u1", "d1", "c1+", "u1", "d1", "c1+"],
    ),
    "after it was made in the same transaction": (
        "BEGIN; INSERT INTO tickets VALUES (2, 'open'); UPDATE tickets SET state = 'done' WHERE id = 2; COMMIT",
        ["c2", "d2", "c2+"],
    ),
    "after a savepoint": (
        (
            "BEGIN; UPDATE tickets SET n = 1; SAVEPOINT s; UPDATE tickets SET state = 'gone'; ROLLBACK TO s;"
            " UPDATE tickets SET state = 'done'; COMMIT"
        ),
        ["u1", "d1", "c1+"],
    ),
    "by MERGE": (
        (
            "MERGE INTO tickets t USING (VALUES (1), (2)) v (id) ON t.id = v.id WHEN MATCHED THEN UPDATE SET state = 'done' "
            "WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'open')"
        ),
        ["d1", "c1+", "c2"],
    ),
    "by upsert": (
        "INSERT INTO tickets VALUES (1, 'open') ON CONFLICT (id, state) DO UPDATE SET n = 1",
        ["u1"],
    ),
    "by one statement that deletes and inserts": (
        "WITH gone AS (DELETE FROM tickets RETURNING *) INSERT INTO tickets SELECT id, 'done', n FROM gone",
        ["d1", "c1+"],
    ),
}
"""How a row gets to another partition, and what is captured of it."""


@pytest.mark.parametrize(("statements", "found"), MOVES.values(), ids=MOVES)
def test_a_row_that_moves_names_its_other_half(tickets: Connection, statements: str, found: list[str]) -> None:
    tickets.execute(statements.encode())
    assert halves(tickets) == found


NO_MOVES = {
    "two statements": (
        "BEGIN; DELETE FROM tickets; INSERT INTO tickets VALUES (1, 'done'); COMMIT",
        ["d1", "c1"],
    ),
    "two statements of one function": (
        "DO $$ BEGIN DELETE FROM tickets; INSERT INTO tickets VALUES (1, 'done'); END $$",
        ["d1", "c1"],
    ),
    "into the same partition": (
        "WITH gone AS (DELETE FROM tickets RETURNING *) INSERT INTO tickets SELECT id + 1, state, n FROM gone",
        ["d1", "c2"],
    ),
    "two objects of one MERGE": (
        (
            "MERGE INTO tickets t USING (VALUES (1), (2)) v (id) ON t.id = v.id WHEN MATCHED THEN DELETE "
            "WHEN NOT MATCHED THEN INSERT VALUES (v.id, 'done')"
        ),
        ["d1", "c2"],
    ),
    "a setting that somebody else wrote": (
        "SET clarion.deleted_1 = 'x'; INSERT INTO tickets VALUES (3, 'done'); RESET clarion.deleted_1",
        ["c3"],
    ),
}


@pytest.mark.parametrize(("statements", "found"), NO_MOVES.values(), ids=NO_MOVES)
def test_what_is_no_move_is_not_taken_for_one(tickets: Connection, statements: str, found: list[str]) -> None:
    tickets.execute(statements.encode())
    assert halves(tickets) == found


def test_a_move_undone_by_a_trigger_of_the_application_is_a_delete(tickets: Connection) -> None:
    """Its BEFORE INSERT trigger swallows the row: PostgreSQL has deleted it by then."""
    tickets.execute(
        """CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
           CREATE TRIGGER swallow BEFORE INSERT ON tickets_done_done FOR EACH ROW EXECUTE FUNCTION swallow();
           UPDATE tickets SET state = 'done';
           INSERT INTO tickets VALUES (1, 'open');
           DROP TRIGGER swallow ON tickets_done_done; DROP FUNCTION swallow"""
    )
    assert halves(tickets) == ["d1", "c1"]


def test_partitions_that_come_later_and_those_that_go_are_captured_as_long_as_they_belong(tickets: Connection) -> None:
    tickets.execute(
        """CREATE TABLE tickets_new PARTITION OF tickets FOR VALUES IN ('new');
           CREATE TABLE tickets_old (n int, owner text, gone int, state text NOT NULL, id bigint NOT NULL);
           ALTER TABLE tickets_old DROP COLUMN gone;
           INSERT INTO tickets_old VALUES (1, 'default', 'old', 7);
           ALTER TABLE tickets ATTACH PARTITION tickets_old FOR VALUES IN ('old');
           UPDATE tickets_old SET n = 2;
           INSERT INTO tickets_new VALUES (8, 'new');
           UPDATE tickets SET state = 'old' WHERE id = 8;
           ALTER TABLE tickets DETACH PARTITION tickets_old;
           UPDATE tickets_old SET n = 3;
           ALTER TABLE tickets ATTACH PARTITION tickets_old FOR VALUES IN ('old');
           UPDATE tickets_old SET n = 4 WHERE id = 7"""
    )
    assert halves(tickets) == ["u7", "c8", "d8", "c8+", "u7"]
    attach(tickets, [BY_ID])
    with refused(tickets, match="TRUNCATE of public.tickets_new"):
        tickets.execute("TRUNCATE tickets_new")
    # What went with its triggers is found when the resource goes.
    tickets.execute("ALTER TABLE tickets DETACH PARTITION tickets_old")


def test_a_key_without_the_partitions_column_needs_one_with_it(connection: Connection) -> None:
    connection.execute(TICKETS)
    connection.execute("CREATE TABLE pairs (id bigint NOT NULL, state text NOT NULL, PRIMARY KEY (id, state))")
    for attachment in (
        Attachment(resource="X", table="pairs", key_columns=("id",)),
        Attachment(resource="X", table="tickets", key_columns=("state",)),
        Attachment(resource="X", table="tickets", key_columns=("n",)),
    ):
        with pytest.raises(UsageInvalid, match="is no unique"):
            attach(connection, [attachment])


def test_a_move_is_one_update_in_the_ledger_and_one_event_whatever_the_batches_cut(deployment: Deployment) -> None:
    """An odd row before them, so that every batch would end between two halves."""
    connection = deployment.connection
    connection.execute(TICKETS)
    deployment.attach(BY_ID)
    deployment.subscribe(deployment.register(), "TICKETS")
    connection.execute("INSERT INTO tickets SELECT n, 'open' FROM generate_series(1, 700) n")
    with connection.transaction():
        connection.execute("INSERT INTO tickets VALUES (0, 'open')")
        connection.execute("UPDATE tickets SET state = 'done', n = 1")
    deployment.serve()
    deployment.wait_until_settled(timeout_s=60)
    deployment.assert_chained()
    ledger = deployment.rows(
        "SELECT object_id, string_agg(action::text || coalesce((old::json ->> 'state'), '-') || coalesce((new::json ->> 'state'), '-'), "
        "',' ORDER BY position), count(half_of) FROM clarion.ledger WHERE resource = 'TICKETS' GROUP BY object_id"
    )
    assert len(ledger) == 701
    assert {row[1:] for row in ledger} == {("c-open,uopendone", 0)}
    told = [
        body for body in (request.json() for request in deployment.receiver.received()) if body["action"] == "update"
    ]
    assert len(told) == 701
    assert {(tuple(body["changed"]), body["previous"]["state"], body["data"]["state"]) for body in told} == {
        (("state", "n"), "open", "done")
    }
    assert deployment.rows(
        "SELECT count(DISTINCT outbox_id) = count(*), max(change_id) = count(*) FROM clarion.ledger l "
        "WHERE organisation_id = (SELECT organisation_id FROM clarion.ledger WHERE resource = 'TICKETS' LIMIT 1)"
    ) == [(True, True)]


def test_a_move_that_changes_key_or_organisation_is_two_linked_halves(deployment: Deployment) -> None:
    connection = deployment.connection
    connection.execute(TICKETS)
    connection.execute("CREATE TABLE owned (LIKE tickets INCLUDING ALL) PARTITION BY LIST (state)")
    connection.execute("CREATE TABLE owned_open PARTITION OF owned FOR VALUES IN ('open')")
    connection.execute("CREATE TABLE owned_rest PARTITION OF owned DEFAULT")
    owned = Attachment(
        resource="OWNED", table="owned", key_columns=("id",), organisation=None, organisation_column="owner"
    )
    deployment.attach(BY_BOTH, owned)
    for table in ("tickets", "owned"):
        connection.execute(f"INSERT INTO {table} VALUES (1, 'open')".encode())
    connection.execute("UPDATE tickets SET state = 'done'")
    connection.execute("UPDATE owned SET state = 'done', owner = 'other'")
    connection.execute("UPDATE owned SET id = 2")
    deployment.serve("--role", "router")
    deployment.wait_until_settled()
    deployment.assert_chained()
    assert deployment.rows(
        """SELECT l.resource, l.action::text, l.object_id, d.object_id
           FROM clarion.ledger l LEFT JOIN clarion.ledger d ON d.outbox_id = l.half_of
           WHERE l.resource IN ('TICKETS', 'OWNED') ORDER BY l.position"""
    ) == [
        ("TICKETS", "c", '["1", "open"]', None),
        ("OWNED", "c", "1", None),
        ("TICKETS", "d", '["1", "open"]', None),
        ("TICKETS", "c", '["1", "done"]', '["1", "open"]'),
        ("OWNED", "d", "1", None),
        ("OWNED", "c", "1", "1"),
        ("OWNED", "d", "1", None),
        ("OWNED", "c", "2", "1"),
    ]


INHERITING = """
    CREATE TABLE parts (id bigint PRIMARY KEY, name text, secret text);
    CREATE TABLE bolts (length int, hidden text) INHERITS (parts);
    CREATE TABLE long_bolts (PRIMARY KEY (id)) INHERITS (bolts)
"""


def test_rows_of_children_are_those_of_the_parents_resource(connection: Connection) -> None:
    connection.execute(INHERITING)
    before = traces(connection)
    attach(connection, [Attachment(resource="PARTS", table="parts", excluded_columns=("secret", "hidden"))])
    connection.execute("INSERT INTO parts VALUES (1, 'nut', 'canary')")
    connection.execute("INSERT INTO bolts VALUES (2, 'bolt', 'canary', 8, 'canary')")
    connection.execute("INSERT INTO long_bolts VALUES (3, 'long', 'canary', 80, 'canary')")
    connection.execute("UPDATE parts SET name = upper(name)")
    connection.execute("DELETE FROM ONLY long_bolts")
    assert [
        (action, key, None if new is None else json.loads(new)) for action, key, _, new in captured(connection)
    ] == [
        ("c", "1", {"id": 1, "name": "nut"}),
        ("c", "2", {"id": 2, "name": "bolt", "length": 8}),
        ("c", "3", {"id": 3, "name": "long", "length": 80}),
        ("u", "1", {"id": 1, "name": "NUT"}),
        ("u", "2", {"id": 2, "name": "BOLT", "length": 8}),
        ("u", "3", {"id": 3, "name": "LONG", "length": 80}),
        ("d", "3", None),
    ]
    for statement in ("TRUNCATE parts", "TRUNCATE ONLY bolts", "TRUNCATE long_bolts"):
        with refused(connection, match="would bypass its webhooks"):
            connection.execute(statement.encode())
    detach(connection, "PARTS")
    assert traces(connection) == before


def test_a_child_belongs_to_one_resource(connection: Connection) -> None:
    connection.execute(INHERITING)
    attach(connection, [Attachment(resource="LONG", table="long_bolts")])
    with pytest.raises(UsageInvalid, match=r"public.long_bolts belongs to public.parts and is attached by itself"):
        attach(connection, [Attachment(resource="PARTS", table="parts")])
    detach(connection, "LONG")
    attach(connection, [Attachment(resource="PARTS", table="parts")])
    with pytest.raises(UsageInvalid, match="public.long_bolts is a partition of a table that is attached, or inherits"):
        attach(connection, [Attachment(resource="LONG", table="long_bolts")])
