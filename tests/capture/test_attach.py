"""Tables attached and detached: what is refused, what is captured, and what an application can do to it."""

from __future__ import annotations

import json

import psycopg
import pytest
from psycopg import sql

from clarion.capture.attach import Attachment, attach, detach
from clarion.core.errors import EnvironmentRefused, UsageInvalid
from clarion.database.address import DatabaseAddress
from clarion.database.roles import read_roles
from harness.capturing import Connection, acting_as, captured, refused, traces
from harness.deployment import Deployment
from harness.receiver import Received

pytestmark = pytest.mark.data_path


PARTS = "CREATE TABLE parts (id bigint PRIMARY KEY, name text, price numeric)"


def test_changes_are_captured_with_their_rows_and_the_moment(connection: Connection) -> None:
    connection.execute(PARTS)
    attach(connection, [Attachment(resource="PARTS", table="parts")])
    with connection.transaction():
        connection.execute("INSERT INTO parts VALUES (1, 'bolt', 1.10)")
        connection.execute("UPDATE parts SET price = 1.2")
        connection.execute("DELETE FROM parts")
        xid = connection.execute("SELECT pg_current_xact_id()").fetchone()
    first, second = '{"id":1,"name":"bolt","price":1.10}', '{"id":1,"name":"bolt","price":1.2}'
    assert captured(connection) == [("c", "1", None, first), ("u", "1", first, second), ("d", "1", second, None)]
    assert {(row[0],) for row in captured(connection, "xid")} == {xid}
    assert connection.execute(
        "SELECT count(*) FROM clarion.outbox WHERE captured_at BETWEEN occurred_at AND clock_timestamp() AND depth = 1"
    ).fetchone() == (3,)


def test_attaching_again_changes_nothing(connection: Connection) -> None:
    connection.execute(PARTS)
    attachment = Attachment(resource="PARTS", table="parts", description="Parts.", organisation="acme")
    attach(connection, [attachment])
    before = traces(connection)
    attach(connection, [attachment])
    assert traces(connection) == before
    connection.execute("INSERT INTO parts (id) VALUES (1)")
    assert len(captured(connection)) == 1


def test_attaching_again_takes_on_what_is_named_otherwise(connection: Connection) -> None:
    connection.execute(PARTS)
    attach(connection, [Attachment(resource="PARTS", table="parts")])
    attach(connection, [Attachment(resource="PARTS", table="parts", excluded_columns=("price",), description="Bolts.")])
    connection.execute("INSERT INTO parts VALUES (1, 'bolt', 1.10)")
    assert captured(connection, "new") == [('{"id":1,"name":"bolt"}',)]
    assert connection.execute("SELECT description FROM clarion.resources WHERE name = 'PARTS'").fetchone() == (
        "Bolts.",
    )


REFUSED = {
    "an unknown table": (Attachment(resource="X", table="nowhere"), "no table public.nowhere"),
    "an unknown schema": (Attachment(resource="X", table="parts", schema="nowhere"), "no table nowhere.parts"),
    "a view": (Attachment(resource="X", table="shown"), "no table public.shown"),
    "no key": (Attachment(resource="X", table="heap"), "public.heap has no primary key"),
    "an unknown key column": (Attachment(resource="X", table="parts", key_columns=("nr",)), "no column nr"),
    "an unknown excluded column": (Attachment(resource="X", table="parts", excluded_columns=("nr",)), "no column nr"),
    "an unknown organisation column": (
        Attachment(resource="X", table="parts", organisation_column="nr"),
        "no column nr",
    ),
    "an excluded key": (Attachment(resource="X", table="parts", excluded_columns=("id",)), "key column"),
    "a key that is not unique": (Attachment(resource="X", table="parts", key_columns=("name",)), r"\(name\) is no"),
    "a nullable key": (Attachment(resource="X", table="keys", key_columns=("nullable",)), r"\(nullable\) is no"),
    "a deferrable key": (Attachment(resource="X", table="keys", key_columns=("deferred",)), r"\(deferred\) is no"),
    "a deferrable primary key": (Attachment(resource="X", table="later"), r"\(id\) is no"),
    "a partial key": (Attachment(resource="X", table="keys", key_columns=("partly",)), r"\(partly\) is no"),
    "an expression as key": (Attachment(resource="X", table="keys", key_columns=("spelled",)), r"\(spelled\) is no"),
    "half of a key": (Attachment(resource="X", table="pairs", key_columns=("a",)), r"\(a\) is no"),
    "more than a key": (Attachment(resource="X", table="parts", key_columns=("id", "name")), r"\(id, name\) is no"),
    "no organisation": (Attachment(resource="X", table="parts", organisation=None), "name an organisation"),
    "an organisation without a name": (Attachment(resource="X", table="parts", organisation=""), "1 to 200"),
    "too long an organisation": (Attachment(resource="X", table="parts", organisation="x" * 201), "1 to 200"),
    "a resource in small letters": (Attachment(resource="parts", table="parts"), "'parts' cannot name"),
    "an alias in small letters": (Attachment(resource="X", singular="part", table="parts"), "'part' cannot name"),
    "another name for the same table": (Attachment(resource="X", table="taken"), "public.taken is attached as TAKEN"),
    "the same name for another table": (Attachment(resource="TAKEN", table="parts"), "is attached as TAKEN"),
    "one of Clarion's tables": (Attachment(resource="X", schema="clarion", table="outbox"), "Clarion's own"),
    "one of Clarion's resources": (Attachment(resource="WEBHOOK_HEADERS", table="parts"), "as WEBHOOK_HEADERS"),
    "a partition of an attached table": (Attachment(resource="X", table="split_1"), "a partition of"),
    "a column that ends the function": (Attachment(resource="X", table="evil"), "has a column with"),
}


@pytest.fixture
def awkward(connection: Connection) -> Connection:
    """A database with everything that REFUSED asks for."""
    connection.execute(PARTS)
    connection.execute(
        """
        CREATE TABLE fine (id bigint PRIMARY KEY);
        CREATE TABLE heap (id bigint NOT NULL);
        CREATE VIEW shown AS SELECT * FROM parts;
        CREATE TABLE pairs (a bigint, b bigint, PRIMARY KEY (a, b));
        CREATE TABLE keys (
            id bigint PRIMARY KEY, nullable bigint UNIQUE, deferred bigint NOT NULL UNIQUE DEFERRABLE,
            partly bigint NOT NULL, spelled text NOT NULL
        );
        CREATE UNIQUE INDEX ON keys (partly) WHERE partly > 0;
        CREATE UNIQUE INDEX ON keys (lower(spelled));
        CREATE TABLE later (id bigint PRIMARY KEY DEFERRABLE);
        CREATE TABLE taken (id bigint PRIMARY KEY);
        CREATE TABLE split (id bigint PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (0) TO (100);
        CREATE TABLE evil (id bigint PRIMARY KEY, "x$capture$; DROP TABLE parts; --" text);
        """
    )
    attach(connection, [Attachment(resource="TAKEN", table="taken"), Attachment(resource="SPLIT", table="split")])
    return connection


def test_what_cannot_be_attached_is_refused_by_name_and_changes_nothing(awkward: Connection) -> None:
    before = traces(awkward)
    fine = Attachment(resource="FINE", table="fine", organisation="made on the way")
    for attachment, reason in REFUSED.values():
        with pytest.raises(UsageInvalid, match=reason):
            # Whole or not at all: the one before it in the same call stays off too.
            attach(awkward, [fine, attachment])
        assert traces(awkward) == before, reason
    assert awkward.execute("SELECT name FROM clarion.organisations WHERE name LIKE 'made%'").fetchall() == []


def test_a_table_that_stays_locked_is_left_alone_after_the_timeout(database: DatabaseAddress) -> None:
    attachment = Attachment(resource="PARTS", table="parts")
    with psycopg.connect(database.url, autocommit=True) as connection, psycopg.connect(database.url) as other:
        connection.execute(PARTS)
        for attached in (False, True):
            before = traces(connection)
            other.execute("INSERT INTO parts VALUES (1)")
            with refused(connection, EnvironmentRefused, "locked by another transaction for 0.1 s") as raised:
                if attached:
                    detach(connection, "PARTS", lock_timeout_s=0.1)
                else:
                    attach(connection, [attachment], lock_timeout_s=0.1)
            assert "end that transaction" in raised.value.hint
            assert traces(connection) == before
            other.rollback()
            attach(connection, [attachment])


def test_a_login_without_the_rights_is_told_what_it_needs(connection: Connection, application: str) -> None:
    connection.execute(PARTS)
    roles = read_roles(connection)
    attachment = Attachment(resource="PARTS", table="parts", organisation="acme")
    with acting_as(connection, application), refused(connection, EnvironmentRefused, "for schema clarion"):
        attach(connection, [attachment])
    connection.execute(
        sql.SQL("GRANT {}, {} TO {}").format(*map(sql.Identifier, (roles.owner, roles.capture, application)))
    )
    with acting_as(connection, application), refused(connection, EnvironmentRefused, "parts") as raised:
        attach(connection, [attachment])
    assert "owner of the table" in raised.value.hint
    connection.execute(sql.SQL("ALTER TABLE parts OWNER TO {}").format(sql.Identifier(application)))
    with acting_as(connection, application):
        attach(connection, [attachment])
        connection.execute("INSERT INTO parts VALUES (1)")
        detach(connection, "PARTS")
        connection.execute("INSERT INTO parts VALUES (2)")
    assert captured(connection, "object_id") == [("1",)]


def test_an_application_without_rights_writes_its_table_and_sees_nothing_of_ours(
    connection: Connection, application: str
) -> None:
    with acting_as(connection, application):
        connection.execute(PARTS)
    attach(connection, [Attachment(resource="PARTS", table="parts")])
    with acting_as(connection, application):
        connection.execute("INSERT INTO parts VALUES (1, 'bolt', 1)")
        for statement in (
            "SELECT * FROM clarion.outbox",
            "DELETE FROM clarion.outbox",
            "UPDATE clarion.outbox SET new = '{}'",
            "INSERT INTO clarion.outbox (organisation_id, resource, action, object_id) VALUES (1, 'PARTS', 'c', '9')",
            "SELECT nextval('clarion.outbox_id')",
            "SELECT clarion_triggers.capture_parts()",
            "SELECT * FROM clarion.ledger",
            "TRUNCATE clarion.outbox",
        ):
            with refused(connection):
                connection.execute(statement.encode())
        # The function is of no use on a table of one's own either: it cannot be put there.
        connection.execute("CREATE TABLE own (id bigint PRIMARY KEY, name text, price numeric)")
        with refused(connection):
            connection.execute(
                "CREATE TRIGGER t AFTER INSERT ON own FOR EACH ROW EXECUTE FUNCTION clarion_triggers.capture_parts()"
            )
    assert captured(connection, "action::text", "object_id") == [("c", "1")]


THEFTS = {
    "DELETE FROM clarion.outbox": "42501",
    "UPDATE clarion.outbox SET new = NULL": "42501",
    "TRUNCATE clarion.outbox": "42501",
    "PERFORM FROM clarion.outbox": "42501",
    "INSERT INTO clarion.ledger SELECT * FROM clarion.ledger": "42501",
    "UPDATE clarion.counters SET position = 0": "42501",
    "ALTER TABLE public.parts DISABLE TRIGGER ALL": "42501",
    "RESET ROLE": "42501",
    "SET SESSION AUTHORIZATION postgres": "42501",
}
"""What a cast may try, and with which code PostgreSQL refuses it."""


def test_a_cast_that_the_application_defined_cannot_touch_what_is_ours(
    connection: Connection, application: str
) -> None:
    """row_to_json runs it inside our trigger, with our trigger's rights."""
    with acting_as(connection, application):
        connection.execute("CREATE TYPE colour AS ENUM ('red')")
        connection.execute("CREATE TABLE parts (id bigint PRIMARY KEY, shade colour)")
        connection.execute("CREATE FUNCTION as_json(colour) RETURNS json LANGUAGE sql AS 'SELECT to_json(700)'")
        connection.execute("CREATE CAST (colour AS json) WITH FUNCTION as_json(colour)")
    attach(connection, [Attachment(resource="PARTS", table="parts")])
    with acting_as(connection, application):
        connection.execute("INSERT INTO parts VALUES (1, 'red')")
        for number, theft in enumerate(THEFTS, start=2):
            connection.execute(
                f"""CREATE OR REPLACE FUNCTION as_json(colour) RETURNS json LANGUAGE plpgsql AS $$
                    BEGIN {theft}; RETURN 'null'; END $$""".encode()
            )
            connection.execute("INSERT INTO parts VALUES (%s, 'red')", (number,))
    # The first shows that it is this cast that runs; each other one failed, and the row is told as it is spelled.
    assert captured(connection) == [
        ("c", "1", None, '{"id":1,"shade":700}'),
        *(("c", f"{number}", None, f'{{"id":{number},"shade":"red"}}') for number in range(2, len(THEFTS) + 2)),
    ]
    assert [problem for (problem,) in captured(connection, "problem")] == [
        None,
        *(f"shade: not convertible to JSON ({state}), its spelling is kept" for state in THEFTS.values()),
    ]
    assert connection.execute("SELECT position FROM clarion.counters").fetchone() == (0,)


@pytest.mark.parametrize(
    "theft",
    [
        "DROP FUNCTION clarion_triggers.capture_orders() CASCADE",
        "DROP FUNCTION capture_orders() CASCADE",
        "ALTER FUNCTION clarion_triggers.capture_orders() SECURITY INVOKER",
        "DROP OWNED BY CURRENT_ROLE CASCADE",
        "CREATE FUNCTION clarion_triggers.more() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "GRANT ALL ON ALL FUNCTIONS IN SCHEMA clarion_triggers TO PUBLIC",
    ],
)
def test_a_cast_cannot_use_that_our_trigger_functions_belong_to_the_role_it_runs_as(
    connection: Connection, application: str, theft: str
) -> None:
    """Owning a function is enough to drop it, and every trigger with it: the schema must not let its owner in."""
    with acting_as(connection, application):
        connection.execute("CREATE TYPE colour AS ENUM ('red')")
        connection.execute("CREATE TABLE parts (id bigint PRIMARY KEY, shade colour)")
        connection.execute("CREATE TABLE orders (id bigint PRIMARY KEY)")
        connection.execute(
            f"""CREATE FUNCTION as_json(colour) RETURNS json LANGUAGE plpgsql AS $$
                BEGIN EXECUTE {psycopg.sql.quote(theft)}; RETURN 'null'; END $$""".encode()
        )
        connection.execute("CREATE CAST (colour AS json) WITH FUNCTION as_json(colour)")
    attach(connection, [Attachment(resource="PARTS", table="parts"), Attachment(resource="ORDERS", table="orders")])
    with acting_as(connection, application):
        connection.execute("INSERT INTO parts VALUES (1, 'red')")
        connection.execute("INSERT INTO orders VALUES (7)")
    (part, order) = captured(connection, "resource", "object_id", "new", "problem")
    assert part[:3] == ("PARTS", "1", '{"id":1,"shade":"red"}')
    assert part[3].startswith("shade: not convertible to JSON")
    assert order == ("ORDERS", "7", '{"id":7}', None)


def test_a_composite_key_is_a_json_array_as_text(connection: Connection) -> None:
    connection.execute("CREATE TABLE stock (place text, part bigint, amount int, PRIMARY KEY (place, part))")
    attach(connection, [Attachment(resource="STOCK", table="stock")])
    connection.execute("""INSERT INTO stock VALUES ('shelf "A"', 7, 1)""")
    connection.execute("UPDATE stock SET amount = 2")
    object_ids = captured(connection, "object_id")
    assert object_ids == [(r'["shelf \"A\"", "7"]',)] * 2
    assert json.loads(object_ids[0][0]) == ['shelf "A"', "7"]


def test_a_key_other_than_the_primary_one_is_taken_by_name(connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE orders (id bigint PRIMARY KEY, number text NOT NULL, UNIQUE (number) INCLUDE (id))"
    )
    attach(connection, [Attachment(resource="ORDERS", table="orders", key_columns=("number",))])
    connection.execute("INSERT INTO orders VALUES (1, 'PO-1')")
    assert captured(connection, "object_id") == [("PO-1",)]


def test_a_change_of_the_key_is_a_delete_and_a_create_linked(connection: Connection) -> None:
    connection.execute(PARTS)
    attach(connection, [Attachment(resource="PARTS", table="parts")])
    connection.execute("INSERT INTO parts VALUES (1, 'bolt')")
    connection.execute("UPDATE parts SET id = 2, name = 'nut'")
    first, delete, create = captured(connection, "action::text", "object_id", "old", "new", "half_of", "id")
    assert first[:2] == ("c", "1")
    assert delete[:5] == ("d", "1", '{"id":1,"name":"bolt","price":null}', None, None)
    assert create[:5] == ("c", "2", None, '{"id":2,"name":"nut","price":null}', delete[5])


def test_rows_belong_to_whom_their_column_names(deployment: Deployment) -> None:
    """Unknown organisations are made; what cannot be a name is kept with `unassigned`, and nobody else sees it."""
    connection = deployment.connection
    connection.execute("CREATE TABLE notes (id bigint PRIMARY KEY, owner text)")
    deployment.attach(
        Attachment(resource="NOTES", table="notes", organisation=None, organisation_column="owner"),
        Attachment(resource="ITEMS", table="items", organisation="acme"),
    )
    longest, too_long = "\u00fc" * 200, "\u00fc" * 201
    connection.execute("INSERT INTO notes VALUES (1, 'acme'), (2, 'new'), (3, NULL), (4, '')")
    connection.execute("INSERT INTO notes VALUES (5, %s), (6, %s), (7, 'unassigned')", (longest, too_long))
    connection.execute("INSERT INTO items VALUES (DEFAULT)")
    connection.execute("UPDATE notes SET owner = 'new' WHERE id = 1")
    deployment.serve("--role", "router")
    deployment.wait_until_settled()
    found = deployment.rows(
        """SELECT o.name, l.change_id, l.resource, l.action::text, l.object_id, l.half_of = d.outbox_id
           FROM clarion.ledger l JOIN clarion.organisations o ON o.id = l.organisation_id
           LEFT JOIN clarion.ledger d ON d.outbox_id = l.half_of AND d.action = 'd' AND d.object_id = l.object_id
           ORDER BY l.position"""
    )
    assert found == [
        ("acme", 1, "NOTES", "c", "1", None),
        ("new", 1, "NOTES", "c", "2", None),
        ("unassigned", 1, "NOTES", "c", "3", None),
        ("unassigned", 2, "NOTES", "c", "4", None),
        (longest, 1, "NOTES", "c", "5", None),
        ("unassigned", 3, "NOTES", "c", "6", None),
        ("unassigned", 4, "NOTES", "c", "7", None),
        ("acme", 2, "ITEMS", "c", "1", None),
        ("acme", 3, "NOTES", "d", "1", None),
        ("new", 2, "NOTES", "c", "1", True),
    ]


def test_an_excluded_column_never_leaves_its_table(deployment: Deployment) -> None:
    connection = deployment.connection
    connection.execute(
        'CREATE TABLE people (id bigint PRIMARY KEY, password text, kept int, "Höhe ""cm""" int, pin text)'
    )
    deployment.attach(Attachment(resource="PEOPLE", table="people", excluded_columns=("password", "pin")))
    deployment.subscribe(deployment.register(), "PEOPLE")
    deployment.serve()
    connection.execute("INSERT INTO people VALUES (1, 'canary one', 1, 180, 'canary')")
    connection.execute("UPDATE people SET password = 'canary two', kept = 2")
    connection.execute("UPDATE people SET password = 'canary three'")
    connection.execute("UPDATE people SET id = 2")
    connection.execute("DELETE FROM people")
    received = deployment.receiver.wait_for(6)
    deployment.wait_until_settled()
    for request in received:
        assert b"canary" not in request.body
        assert b"password" not in request.body
    told = [(body["object_id"], body["action"], body["changed"], body["data"]) for body in map(Received.json, received)]
    first, later = {"id": 1, "kept": 1, 'Höhe "cm"': 180}, {"id": 1, "kept": 2, 'Höhe "cm"': 180}
    assert [told_of for told_of in told if told_of[0] == "1"] == [
        ("1", "create", [], first),
        ("1", "update", ["kept"], later),
        ("1", "update", [], later),
        ("1", "delete", [], later),
    ]
    assert [told_of for told_of in told if told_of[0] == "2"] == [
        ("2", "create", [], later | {"id": 2}),
        ("2", "delete", [], later | {"id": 2}),
    ]
    stored = deployment.rows("SELECT l::text FROM clarion.ledger l")
    assert not [row for (row,) in stored if "canary" in row]


def test_a_generated_column_is_captured_unless_it_is_computed_when_read(connection: Connection) -> None:
    """A trigger sees no value of a virtual one: it is left out, rather than told as null."""
    connection.execute("CREATE TABLE lines (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED)")
    if connection.info.server_version >= 180000:
        connection.execute("ALTER TABLE lines ADD thrice int GENERATED ALWAYS AS (n * 3) VIRTUAL")
        with pytest.raises(UsageInvalid, match="thrice is computed when it is read"):
            attach(connection, [Attachment(resource="LINES", table="lines", organisation_column="thrice")])
    attach(connection, [Attachment(resource="LINES", table="lines")])
    connection.execute("INSERT INTO lines VALUES (1, 2)")
    assert captured(connection, "new") == [('{"id":1,"n":2,"twice":4}',)]


def test_truncate_is_refused_in_words_that_help(connection: Connection) -> None:
    connection.execute(PARTS)
    connection.execute("CREATE TABLE children (id bigint PRIMARY KEY REFERENCES parts)")
    attach(connection, [Attachment(resource="CHILDREN", table="children")])
    connection.execute("INSERT INTO parts VALUES (1)")
    connection.execute("INSERT INTO children VALUES (1)")
    for statement in ("TRUNCATE children", "TRUNCATE parts CASCADE", "TRUNCATE children RESTART IDENTITY"):
        with refused(connection) as raised:
            connection.execute(statement.encode())
        assert raised.value.diag.message_primary == "TRUNCATE of public.children would bypass its webhooks"
        assert raised.value.diag.message_hint == "Use DELETE, or detach the table from Clarion first."
    assert connection.execute("SELECT count(*) FROM parts, children").fetchone() == (1,)


def test_an_update_that_changes_nothing_is_no_change_and_one_of_the_spelling_is(connection: Connection) -> None:
    connection.execute("CREATE TABLE prices (id int PRIMARY KEY, price numeric, document json, name text)")
    attach(connection, [Attachment(resource="PRICES", table="prices")])
    connection.execute("""INSERT INTO prices VALUES (1, 1.0, '{"a": 1}', 'x')""")
    for nothing in ("price = price", "id = 1", "price = 1.0, name = 'x'", """document = '{"a": 1}'"""):
        connection.execute(f"UPDATE prices SET {nothing}".encode())
    assert len(captured(connection)) == 1
    connection.execute("UPDATE prices SET price = 1.00")
    connection.execute("""UPDATE prices SET document = '{"a":1}'""")
    connection.execute("UPDATE prices SET name = NULL")
    assert captured(connection, "action::text", "new")[1:] == [
        ("u", '{"id":1,"price":1.00,"document":{"a": 1},"name":"x"}'),
        ("u", '{"id":1,"price":1.00,"document":{"a":1},"name":"x"}'),
        ("u", '{"id":1,"price":1.00,"document":{"a":1},"name":null}'),
    ]


def test_every_way_to_write_a_row_is_captured(connection: Connection) -> None:
    connection.execute(
        """CREATE TABLE parents (id int PRIMARY KEY);
           CREATE TABLE rows (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE, n int DEFAULT 0)"""
    )
    attach(connection, [Attachment(resource="ROWS", table="rows")])
    connection.execute("INSERT INTO parents VALUES (1)")
    with connection.cursor().copy("COPY rows (id, parent) FROM STDIN") as copy:
        copy.write_row((1, 1))
    connection.execute("INSERT INTO rows VALUES (1) ON CONFLICT (id) DO UPDATE SET n = 1")
    connection.execute(
        "MERGE INTO rows USING (VALUES (1), (2)) v (id) ON rows.id = v.id "
        "WHEN MATCHED THEN UPDATE SET n = 2 WHEN NOT MATCHED THEN INSERT VALUES (v.id)"
    )
    connection.execute("WITH gone AS (DELETE FROM rows WHERE id = 2 RETURNING id) SELECT * FROM gone")
    connection.execute("DELETE FROM parents")
    with connection.transaction():
        connection.execute("SET CONSTRAINTS ALL DEFERRED")
        connection.execute("INSERT INTO rows VALUES (3)")
    # As a superuser does who loads a dump, to keep triggers quiet: ours is not.
    connection.execute(
        "SET session_replication_role = replica; INSERT INTO rows VALUES (4); RESET session_replication_role"
    )
    assert [action + key for action, key in captured(connection, "action::text", "object_id")] == [
        *("c1", "u1", "u1", "c2", "d2", "d1", "c3", "c4")
    ]


def test_writes_to_a_partition_and_moves_between_them_are_captured(connection: Connection) -> None:
    connection.execute(
        """CREATE TABLE events (id int, kind text, n int, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
           CREATE TABLE events_a PARTITION OF events FOR VALUES IN ('a')"""
    )
    attach(connection, [Attachment(resource="EVENTS", table="events")])
    connection.execute("CREATE TABLE events_b PARTITION OF events FOR VALUES IN ('b')")
    connection.execute("INSERT INTO events VALUES (1, 'a', 0)")
    connection.execute("INSERT INTO events_a VALUES (2, 'a', 0)")
    connection.execute("UPDATE events_a SET n = 1 WHERE id = 2")
    connection.execute("UPDATE events SET kind = 'b' WHERE id = 1")
    connection.execute("SET session_replication_role = replica; DELETE FROM events_b; RESET session_replication_role")
    assert captured(connection, "action::text", "object_id") == [
        ("c", '["1", "a"]'),
        ("c", '["2", "a"]'),
        ("u", '["2", "a"]'),
        ("d", '["1", "a"]'),
        ("c", '["1", "b"]'),
        ("d", '["1", "b"]'),
    ]


@pytest.mark.parametrize(
    "name", ["Upper Case", 'with "quotes"', "it's; -- %s %% {x}", "select", "späte Größe 部品", "$$", "\\", "a.b"]
)
def test_names_that_need_quoting_are_only_names(connection: Connection, name: str) -> None:
    table, column = sql.Identifier(name, name), sql.Identifier(f"{name} 2")
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    connection.execute(
        sql.SQL("CREATE TABLE {} (id bigint, {} text NOT NULL, secret text, PRIMARY KEY (id, {}))").format(
            table, column, column
        )
    )
    attachment = Attachment(resource="ODD", table=name, schema=name, excluded_columns=("secret",))
    attach(connection, [attachment])
    attach(connection, [attachment])
    connection.execute(sql.SQL("INSERT INTO {} VALUES (1, {})").format(table, sql.Literal(name)))
    ((object_id, new),) = captured(connection, "object_id", "new")
    assert json.loads(object_id) == ["1", name]
    assert json.loads(new) == {"id": 1, f"{name} 2": name}
    with refused(connection, match="TRUNCATE of"):
        connection.execute(sql.SQL("TRUNCATE {}").format(table))
    detach(connection, "ODD")
    connection.execute(sql.SQL("TRUNCATE {}").format(table))


def test_two_resources_with_the_longest_names_stay_apart(connection: Connection) -> None:
    """PostgreSQL cuts identifiers at 63 bytes without an error."""
    names = ["R" * 62 + last for last in "AB"]
    for name in names:
        connection.execute(f"CREATE TABLE {name[-1]} (id bigint PRIMARY KEY)".encode())
    attach(connection, [Attachment(resource=name, table=name[-1].lower()) for name in names])
    connection.execute("INSERT INTO a VALUES (1); INSERT INTO b VALUES (2)")
    assert captured(connection, "resource", "object_id") == [(names[0], "1"), (names[1], "2")]
    detach(connection, names[0])
    connection.execute("INSERT INTO a VALUES (3); INSERT INTO b VALUES (4)")
    assert captured(connection, "object_id") == [("1",), ("2",), ("4",)]


def test_detaching_leaves_no_trace_but_what_was_captured(connection: Connection) -> None:
    connection.execute(PARTS)
    connection.execute("CREATE TABLE split (id bigint PRIMARY KEY) PARTITION BY RANGE (id)")
    connection.execute("CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (0) TO (100)")
    connection.execute("CREATE TABLE dropped (id bigint PRIMARY KEY)")
    before = traces(connection)
    attach(connection, [Attachment(resource=name.upper(), table=name) for name in ("parts", "split", "dropped")])
    connection.execute("INSERT INTO parts VALUES (1); INSERT INTO split VALUES (1)")
    connection.execute("DROP TABLE dropped")
    for resource in ("PARTS", "SPLIT", "DROPPED"):
        detach(connection, resource)
    assert traces(connection) == before
    connection.execute("TRUNCATE parts, split; INSERT INTO parts VALUES (2); INSERT INTO split VALUES (2)")
    assert captured(connection, "resource", "object_id") == [("PARTS", "1"), ("SPLIT", "1")]


def test_detaching_is_refused_while_a_subscription_listens(deployment: Deployment) -> None:
    connection = deployment.connection
    deployment.attach()
    (subscription,) = deployment.subscribe(deployment.register(), actions=["CREATE"])
    before = traces(connection)
    with pytest.raises(UsageInvalid, match="1 subscriptions listen for ITEMS"):
        detach(connection, "ITEMS")
    assert traces(connection) == before
    connection.execute("UPDATE clarion.subscriptions SET deleted = now() WHERE id = %s", (subscription,))
    detach(connection, "ITEMS")


@pytest.mark.parametrize(
    ("resource", "reason"), [("ITEMS", "no resource ITEMS"), ("WEBHOOK_RECEIVERS", "Clarion's own")]
)
def test_detaching_what_is_not_the_applications_is_refused(connection: Connection, resource: str, reason: str) -> None:
    before = traces(connection)
    with pytest.raises(UsageInvalid, match=reason):
        detach(connection, resource)
    assert traces(connection) == before


@pytest.mark.parametrize(
    ("hops", "kept"),
    [("0", 0), ("9999", 9999), ("10000", None), ("-1", None), ("1e3", None), ("", None), ("'; DROP TABLE x", None),
     ("\u0661", None), ("1\n", None), (" 1", None), ("9" * 100_000, None)],
)  # fmt: skip
def test_whatever_the_sessions_settings_say_the_write_succeeds(
    connection: Connection, hops: str, kept: int | None
) -> None:
    connection.execute(PARTS)
    attach(connection, [Attachment(resource="PARTS", table="parts")])
    odd = "\u202e'; \x01 \U0001f469 %s \\" + "x" * 10_000
    for name, value in {"actor_id": odd, "actor_name": odd, "correlation_id": odd, "hops": hops}.items():
        connection.execute("SELECT set_config('clarion.' || %s, %s, false)", (name, value))
    connection.execute("INSERT INTO parts VALUES (1)")
    assert captured(connection, "actor_id", "actor_name", "correlation_id", "hops") == [(odd, odd, odd, kept)]
    connection.execute("RESET ALL")
    connection.execute("DELETE FROM parts")
    assert captured(connection, "actor_id", "actor_name", "hops")[1] == (None,) * 3


def test_where_no_correlation_id_was_given_the_transaction_is_one(deployment: Deployment) -> None:
    connection = deployment.connection
    deployment.attach()
    with connection.transaction():
        connection.execute("INSERT INTO items VALUES (DEFAULT), (DEFAULT)")
        connection.execute("UPDATE items SET version = 2")
        ((named,),) = connection.execute(
            "SELECT 'tx-' || incarnation || '-' || pg_current_xact_id() FROM clarion.deployment"
        ).fetchall()
    connection.execute("DELETE FROM items WHERE id = 1")
    deployment.subscribe(deployment.register())
    deployment.serve()
    deployment.wait_until_settled()
    *together, last = deployment.rows(
        "SELECT correlation_id FROM clarion.ledger WHERE resource = 'ITEMS' ORDER BY position"
    )
    assert together == [(named,)] * 4
    assert last != (named,)
    deployment.assert_chained()
    assert {request.json()["correlation_id"] for request in deployment.receiver.received()} == {named, last[0]}


def test_a_search_path_and_objects_of_the_applications_own_do_not_mislead_the_trigger(
    connection: Connection, application: str
) -> None:
    """A function of one's own named like one that the trigger calls, found first on the path."""
    connection.execute(PARTS)
    connection.execute(f"GRANT ALL ON parts TO {application}".encode())
    attach(connection, [Attachment(resource="PARTS", table="parts")])
    with acting_as(connection, application):
        connection.execute(
            """CREATE FUNCTION row_to_json(parts) RETURNS json LANGUAGE sql AS $$ SELECT '"mine"'::json $$;
               CREATE FUNCTION current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$ SELECT 'mine'::text $$;
               CREATE TEMP TABLE outbox (id int);
               SET search_path = public, pg_temp, pg_catalog"""
        )
        connection.execute("INSERT INTO parts VALUES (1)")
    assert captured(connection, "new", "actor_id") == [('{"id":1,"name":null,"price":null}', None)]
