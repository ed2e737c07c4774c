"""What happens to an attached table afterwards must not fail the application's writes, lose a change, or show what is excluded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from clarion.capture.attach import Attachment, attach, detach
from clarion.database.address import DatabaseAddress
from harness.capturing import Connection, captured

pytestmark = pytest.mark.data_path

PEOPLE = "CREATE TABLE people (id bigint PRIMARY KEY, name text, secret text, owner text DEFAULT 'acme')"
PLAIN = Attachment(resource="PEOPLE", table="people", organisation=None, organisation_column="owner")
EXCLUDING = Attachment(
    resource="PEOPLE", table="people", organisation=None, organisation_column="owner", excluded_columns=("secret",)
)


def writes(connection: Connection, key: str = "id") -> None:
    """One of each, in a session that has cached its plans."""
    connection.execute(f"INSERT INTO people ({key}) VALUES (2)".encode())
    connection.execute(f"UPDATE people SET {key} = {key} + 1 WHERE {key} = 1".encode())
    connection.execute("DELETE FROM people")


CHANGES: dict[str, tuple[str, str, list[tuple[str, str, str | None, str | None]]]] = {
    "the key is renamed": (
        "ALTER TABLE people RENAME id TO nr",
        "nr",
        [("c", "2", "acme", None), ("d", "1", "acme", None), ("c", "2", "acme", None)],
    ),
    "the key's type changes": (
        "ALTER TABLE people ALTER id TYPE numeric",
        "id",
        [("c", "2", "acme", None), ("d", "1", "acme", None), ("c", "2", "acme", None)],
    ),
    "another column takes the key's name": (
        "ALTER TABLE people RENAME id TO old; ALTER TABLE people ADD id int; UPDATE people SET id = 1",
        "id",
        [("c", "2", "acme", None), ("d", "1", "acme", None), ("c", "2", "acme", None)],
    ),
    "the organisation's column is renamed": (
        "ALTER TABLE people RENAME owner TO tenant",
        "id",
        [("c", "2", "acme", None), ("d", "1", "acme", None), ("c", "2", "acme", None)],
    ),
    "the organisation's column is dropped": (
        "ALTER TABLE people DROP owner",
        "id",
        [
            ("c", "2", None, "owner: no such column"),
            ("d", "1", None, "owner: no such column; owner: no such column"),
            ("c", "2", None, "owner: no such column; owner: no such column"),
        ],
    ),
    "the key is dropped": (
        "ALTER TABLE people DROP id; ALTER TABLE people ADD nr int; UPDATE people SET nr = 1",
        "nr",
        [
            ("c", "", "acme", "id: no such column"),
            ("u", "", "acme", "id: no such column; id: no such column"),
        ],
    ),
    "the excluded column is dropped": (
        "ALTER TABLE people DROP secret",
        "id",
        [("c", "2", "acme", None), ("d", "1", "acme", None), ("c", "2", "acme", None)],
    ),
}


@pytest.mark.parametrize(("change", "key", "found"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("attachment", [PLAIN, EXCLUDING], ids=["plain", "excluding"])
def test_columns_that_are_named_may_change_afterwards(
    connection: Connection,
    attachment: Attachment,
    change: str,
    key: str,
    found: list[tuple[str, str, str | None, str | None]],
) -> None:
    connection.execute(PEOPLE.replace("PRIMARY KEY", "NOT NULL UNIQUE"))
    attach(connection, [Attachment(**{**as_fields(attachment), "key_columns": ("id",)})])
    connection.execute("INSERT INTO people VALUES (0, 'n', 'canary'); DELETE FROM people")
    connection.execute("INSERT INTO people VALUES (1, 'n', 'canary')")
    connection.execute("ALTER TABLE people ALTER id DROP NOT NULL")
    connection.execute(change.encode())
    connection.execute("DELETE FROM clarion.outbox")
    connection.execute("ALTER TABLE people DROP CONSTRAINT IF EXISTS people_id_key")
    writes(connection, key)
    rows = captured(connection, "action::text", "object_id", "organisation", "problem")
    # What is deleted at last is the row of 2 that was made, and the one that was 1 before.
    assert rows[: len(found)] == found
    assert {row[0] for row in rows[len(found) :]} == {"d"}
    if attachment is EXCLUDING:
        assert "canary" not in str(captured(connection, "outbox::text"))
    else:
        assert "DROP secret" in change or "canary" in str(captured(connection, "outbox::text"))


def as_fields(attachment: Attachment) -> dict[str, Any]:
    return {name: getattr(attachment, name) for name in Attachment.__slots__}


def test_a_key_that_lost_its_not_null_is_told_as_empty(connection: Connection) -> None:
    connection.execute("CREATE TABLE loose (id bigint NOT NULL UNIQUE, n int)")
    attach(connection, [Attachment(resource="LOOSE", table="loose", key_columns=("id",))])
    connection.execute("ALTER TABLE loose ALTER id DROP NOT NULL; INSERT INTO loose VALUES (NULL, 1)")
    assert captured(connection, "object_id", "new") == [("", '{"id":null,"n":1}')]


CASTS = """
    CREATE TYPE shade AS ENUM ('red');
    CREATE TABLE shades (id bigint PRIMARY KEY, a shade, b text);
    CREATE FUNCTION fails(shade) RETURNS {} LANGUAGE plpgsql AS $$ BEGIN {} END $$;
    CREATE CAST (shade AS {}) WITH FUNCTION fails(shade)
"""
FAILURES = {
    "raises": "RAISE 'no';",
    "asserts": "ASSERT false;",
    "divides by zero": "RETURN to_json(1 / (length($1::text) - 3));",
    "does not return": "",
    "recurses": "RETURN fails($1);",
    "writes": "CREATE TABLE public.loot (); RETURN 'null';",
}


@pytest.mark.parametrize("body", FAILURES.values(), ids=FAILURES)
def test_a_cast_of_the_applications_that_fails_is_left_out(connection: Connection, body: str) -> None:
    connection.execute(CASTS.format("json", body, "json").encode())
    attach(connection, [Attachment(resource="SHADES", table="shades")])
    connection.execute(
        """INSERT INTO shades VALUES (1, 'red', '"b"'); UPDATE shades SET b = NULL; DELETE FROM shades"""
    )
    first, second = '{"id":1,"a":"red","b":"\\"b\\""}', '{"id":1,"a":"red","b":null}'
    assert captured(connection) == [("c", "1", None, first), ("u", "1", first, second), ("d", "1", second, None)]
    assert all(problem.startswith("a: not convertible to JSON") for (problem,) in captured(connection, "problem"))


def test_a_key_whose_cast_to_text_fails_is_told_as_it_is_spelled(connection: Connection) -> None:
    connection.execute("CREATE TYPE nr AS ENUM ('x', 'y'); CREATE TABLE odd (id nr PRIMARY KEY, n int)")
    connection.execute("CREATE FUNCTION spell(nr) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$")
    connection.execute("CREATE CAST (nr AS text) WITH FUNCTION spell(nr)")
    attach(connection, [Attachment(resource="ODD", table="odd")])
    connection.execute("INSERT INTO odd VALUES ('x', 1); UPDATE odd SET id = 'y'; DELETE FROM odd")
    assert captured(connection, "action::text", "object_id", "half_of IS NOT NULL") == [
        ("c", "x", False),
        ("d", "x", False),
        ("c", "y", True),
        ("d", "y", False),
    ]
    assert captured(connection, "problem")[0] == ("id: no cast to text (P0001), its spelling is kept",)


def test_a_write_that_cannot_be_captured_at_all_fails_whole(connection: Connection) -> None:
    connection.execute("CREATE TABLE parts (id bigint PRIMARY KEY)")
    attach(connection, [Attachment(resource="PARTS", table="parts")])
    connection.execute("ALTER TABLE clarion.outbox ADD CONSTRAINT full_disk CHECK (object_id <> '7')")
    with pytest.raises(psycopg.errors.CheckViolation), connection.transaction():
        connection.execute("INSERT INTO parts VALUES (6), (7)")
    assert connection.execute("SELECT FROM parts").fetchall() == captured(connection) == []


def test_a_statement_that_is_cancelled_is_cancelled(connection: Connection) -> None:
    """What catches everything else must let this through."""
    connection.execute(CASTS.format("json", "PERFORM pg_sleep(60); RETURN 'null';", "json").encode())
    attach(connection, [Attachment(resource="SHADES", table="shades")])
    with pytest.raises(psycopg.errors.QueryCanceled), connection.transaction():
        connection.execute("SET LOCAL statement_timeout = '50ms'; INSERT INTO shades VALUES (1, 'red')")


def test_a_bulk_write_takes_no_transaction_numbers_besides_its_own(connection: Connection) -> None:
    connection.execute("CREATE TABLE parts (id bigint PRIMARY KEY)")
    attach(connection, [Attachment(resource="PARTS", table="parts")])

    def next_xid() -> int:
        row = connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
        assert row is not None
        return int(row[0])

    connection.execute("INSERT INTO parts VALUES (0)")
    before = next_xid()
    connection.execute("INSERT INTO parts SELECT generate_series(1, 1000)")
    assert next_xid() - before < 100


def test_keys_and_rows_of_many_megabytes_are_captured_whole(connection: Connection) -> None:
    connection.execute("CREATE TABLE long (id text, n int, document text, spare text, PRIMARY KEY (id, n))")
    connection.execute("ALTER TABLE long ALTER document SET STORAGE EXTERNAL")
    attach(connection, [Attachment(resource="LONG", table="long")])
    connection.execute("INSERT INTO long VALUES (repeat('k', 200000), 1, repeat(E'ä\\n\"', 2000000))")
    # What is stored outside of the row and does not change is told as everything else.
    connection.execute("UPDATE long SET spare = 'x'")
    key = json.dumps(["k" * 200_000, "1"])
    assert captured(connection, "object_id") == [(key,), (key,)]
    lengths = captured(connection, "octet_length(new)", "(new::json ->> 'document') = repeat(E'ä\\n\"', 2000000)")
    assert [same for _, same in lengths] == [True, True]
    assert lengths[0][0] > 10_000_000


@pytest.fixture(scope="module")
def sessions(shared_database: DatabaseAddress) -> Iterator[tuple[Connection, Connection]]:
    """One that changes the table and one that writes it, as a pool's sessions that live long."""
    with (
        psycopg.connect(shared_database.url, autocommit=True) as changing,
        psycopg.connect(shared_database.url, autocommit=True) as writing,
    ):
        yield changing, writing


FREE = ["id", "name", "secret", "owner", "extra", 'odd "name"', "row_new", "tg_op"]
KINDS = ["rename", "rename", "rename", "add", "drop", "retype"]
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 7), st.sampled_from(FREE)), max_size=6)
"""What is done, to which of the columns that there are, and a name for it."""


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, partitioned=st.booleans())
@example(steps=[("rename", 2, "extra")], partitioned=False)
@example(steps=[("rename", 1, "extra"), ("rename", 1, "name")], partitioned=False)
@example(steps=[("rename", 0, "extra"), ("rename", 1, "id")], partitioned=True)
@example(steps=[("drop", 2, ""), ("add", 0, "secret"), ("rename", 0, "extra")], partitioned=False)
def test_whatever_becomes_of_the_columns_nothing_excluded_leaves_and_all_else_does(
    sessions: tuple[Connection, Connection], steps: list[tuple[str, int, str]], *, partitioned: bool
) -> None:
    """Excluded is what was named so when the table was attached, under any name; and whatever is named so now."""
    changing, writing = sessions
    changing.execute("DELETE FROM clarion.outbox")
    split = " PARTITION BY RANGE (id)" if partitioned else ""
    changing.execute(f"CREATE TABLE changing (id text PRIMARY KEY, name text, secret text, owner text){split}".encode())
    if partitioned:
        changing.execute("CREATE TABLE changing_all (gone int, owner text, secret text, name text, id text NOT NULL)")
        changing.execute(
            "ALTER TABLE changing_all DROP gone; ALTER TABLE changing ATTACH PARTITION changing_all DEFAULT"
        )
    attach(
        changing,
        [
            Attachment(
                resource="CHANGING",
                table="changing",
                excluded_columns=("secret",),
                organisation=None,
                organisation_column="owner",
            )
        ],
    )
    # By its name now, what each column was called when the table was attached.
    columns: dict[str, str | None] = {name: name for name in ("id", "name", "secret", "owner")}
    try:
        _write_and_compare(changing, writing, columns)
        for step in steps:
            _change(changing, columns, *step)
            _write_and_compare(changing, writing, columns)
    finally:
        detach(changing, "CHANGING")
        changing.execute("DROP TABLE changing")


def _change(connection: Connection, columns: dict[str, str | None], kind: str, place: int, other: str) -> None:
    name = list(columns)[place % len(columns)]
    table, column, new = sql.Identifier("changing"), sql.Identifier(name), sql.Identifier(other)
    try:
        if kind == "rename" and other not in columns:
            connection.execute(sql.SQL("ALTER TABLE {} RENAME {} TO {}").format(table, column, new))
            # In its place, as the table has it.
            renamed = {other if known == name else known: was for known, was in columns.items()}
            columns.clear()
            columns.update(renamed)
        elif kind == "add" and other not in columns:
            connection.execute(sql.SQL("ALTER TABLE {} ADD {} text").format(table, new))
            columns[other] = None
        elif kind == "drop" and len(columns) > 1:
            connection.execute(sql.SQL("ALTER TABLE {} DROP {} CASCADE").format(table, column))
            del columns[name]
        elif kind == "retype":
            connection.execute(sql.SQL("ALTER TABLE {} ALTER {} TYPE varchar").format(table, column))
    except (psycopg.errors.InvalidObjectDefinition, psycopg.errors.InvalidTableDefinition):
        # The column that says which partition a row is in stays as it is.
        pass


def _write_and_compare(changing: Connection, writing: Connection, columns: dict[str, str | None]) -> None:
    hidden = {name for name, was in columns.items() if "secret" in {name, was}}
    # The key and the organisation are told beside the row, whatever they are called.
    values = {
        name: "canary" if name in hidden and was not in {"id", "owner"} else f"value of {name}"
        for name, was in columns.items()
    }
    table = sql.Identifier("changing")
    writing.execute(
        sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
            table,
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(map(sql.Literal, values.values())),
        )
    )
    changed = [name for name, was in columns.items() if not {name, was} & {"id", "owner"}]
    assignments = sql.SQL(", ").join(sql.SQL("{0} = {0} || '!'").format(sql.Identifier(name)) for name in changed)
    if changed:
        writing.execute(sql.SQL("UPDATE {} SET {}").format(table, assignments))
    writing.execute(sql.SQL("DELETE FROM {}").format(table))
    rows = captured(changing, "action::text", "old", "new", "outbox::text")
    changing.execute("DELETE FROM clarion.outbox")
    shown = {name: value for name, value in values.items() if name not in hidden}
    assert "canary" not in str(rows)
    assert [row[0] for row in rows] == ["c", *["u"] * bool(changed), "d"]
    assert json.loads(rows[0][2]) == shown
    assert rows[-1][0] == "d"
    assert json.loads(rows[-1][1]).keys() == shown.keys()
