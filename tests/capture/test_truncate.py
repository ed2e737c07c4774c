"""TRUNCATE of a table that is attached with it: each row is a DELETE; what cannot be captured is refused."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql

from clarion.capture.attach import Attachment, OnTruncate, attach, detach
from harness.capturing import Connection, acting_as, captured, refused, traces

pytestmark = pytest.mark.data_path

PARENTS = """
    CREATE TABLE parents (id bigint PRIMARY KEY, name text, secret text, owner text DEFAULT 'acme');
    CREATE TABLE children (id bigint PRIMARY KEY REFERENCES parents, n int);
    INSERT INTO parents VALUES (1, 'one', 'canary'), (2, 'two', 'canary');
    INSERT INTO children VALUES (1, 1), (2, 2)
"""


def deleting(name: str, **more: object) -> Attachment:
    return Attachment(resource=name.upper(), table=name, on_truncate=OnTruncate.DELETE, **more)


def test_each_row_is_captured_as_a_delete_also_of_tables_that_go_along(connection: Connection) -> None:
    connection.execute(PARENTS)
    before = traces(connection)
    excluding = deleting("parents", excluded_columns=("secret",), organisation=None, organisation_column="owner")
    attach(connection, [excluding, deleting("children")])
    connection.execute("SET clarion.actor_id = 'dba'; TRUNCATE parents CASCADE; RESET clarion.actor_id")
    assert sorted(captured(connection, "resource", "action::text", "object_id", "old", "organisation", "actor_id")) == [
        ("CHILDREN", "d", "1", '{"id":1,"n":1}', None, "dba"),
        ("CHILDREN", "d", "2", '{"id":2,"n":2}', None, "dba"),
        ("PARENTS", "d", "1", '{"id":1,"name":"one","owner":"acme"}', "acme", "dba"),
        ("PARENTS", "d", "2", '{"id":2,"name":"two","owner":"acme"}', "acme", "dba"),
    ]
    assert connection.execute("SELECT count(*) FROM parents FULL JOIN children USING (id)").fetchone() == (0,)
    with connection.transaction(force_rollback=True):
        connection.execute(
            "INSERT INTO parents VALUES (3); ALTER TABLE parents RENAME name TO title; TRUNCATE parents, children"
        )
        assert captured(connection, "old")[-1] == ('{"id":3,"title":null,"owner":"acme"}',)
    detach(connection, "PARENTS")
    detach(connection, "CHILDREN")
    assert traces(connection) == before


def test_a_truncate_that_is_rolled_back_tells_nothing(connection: Connection) -> None:
    connection.execute(PARENTS)
    attach(connection, [deleting("children")])
    with connection.transaction(force_rollback=True):
        connection.execute("TRUNCATE children")
        assert len(captured(connection)) == 2
    assert captured(connection) == []
    # The cursor that it reads by is closed each time.
    connection.execute("TRUNCATE children; INSERT INTO children VALUES (1); TRUNCATE children")
    assert captured(connection, "action::text", "object_id") == [("d", "1"), ("d", "2"), ("c", "1"), ("d", "1")]


def test_one_resource_may_refuse_what_another_captures(connection: Connection) -> None:
    connection.execute(PARENTS)
    attach(connection, [deleting("parents"), Attachment(resource="CHILDREN", table="children")])
    with refused(connection, match="TRUNCATE of public.children"):
        connection.execute("TRUNCATE parents CASCADE")
    assert captured(connection) == []
    attach(connection, [Attachment(resource="PARENTS", table="parents"), deleting("children")])
    with refused(connection, match="TRUNCATE of public.parents"):
        connection.execute("TRUNCATE parents, children")
    connection.execute("TRUNCATE children")
    assert len(captured(connection)) == 2


def test_partitions_and_children_are_truncated_under_their_tables_resource(connection: Connection) -> None:
    connection.execute(
        """CREATE TABLE split (id bigint PRIMARY KEY, n int) PARTITION BY RANGE (id);
           CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (0) TO (10);
           CREATE TABLE split_2 PARTITION OF split FOR VALUES FROM (10) TO (20);
           CREATE TABLE base (id bigint PRIMARY KEY);
           CREATE TABLE derived (more int) INHERITS (base);
           INSERT INTO split VALUES (1, 1), (11, 1);
           INSERT INTO base VALUES (1);
           INSERT INTO derived VALUES (2, 3)"""
    )
    attach(connection, [deleting("split"), deleting("base", excluded_columns=("more",))])
    connection.execute("TRUNCATE split_2; TRUNCATE base; TRUNCATE split")
    assert captured(connection, "resource", "object_id", "old") == [
        ("SPLIT", "11", '{"id":11,"n":1}'),
        ("BASE", "1", '{"id":1}'),
        ("BASE", "2", '{"id":2}'),
        ("SPLIT", "1", '{"id":1,"n":1}'),
    ]
    connection.execute("CREATE TABLE split_3 PARTITION OF split FOR VALUES FROM (20) TO (30)")
    with refused(connection, match="TRUNCATE of public.split_3"):
        connection.execute("TRUNCATE split")


def test_whoever_may_truncate_but_not_read_all_rows_is_refused(connection: Connection, application: str) -> None:
    connection.execute(PARENTS)
    attach(connection, [deleting("children")])
    connection.execute(sql.SQL("GRANT TRUNCATE ON children TO {}").format(sql.Identifier(application)))
    with acting_as(connection, application), refused(connection, match="permission denied for table children"):
        connection.execute("TRUNCATE children")
    connection.execute(sql.SQL("GRANT SELECT ON children TO {}").format(sql.Identifier(application)))
    with connection.transaction(force_rollback=True), acting_as(connection, application):
        connection.execute("TRUNCATE children")
    connection.execute("ALTER TABLE children ENABLE ROW LEVEL SECURITY")
    with acting_as(connection, application), refused(connection, match="row-level security"):
        connection.execute("TRUNCATE children")


def test_what_is_missing_is_found_and_attaching_again_puts_it_on(connection: Connection) -> None:
    connection.execute(
        """CREATE TABLE split (id bigint PRIMARY KEY, n int) PARTITION BY RANGE (id);
           CREATE TABLE split_1 PARTITION OF split FOR VALUES FROM (0) TO (10);
           CREATE TABLE base (id bigint PRIMARY KEY);
           CREATE TABLE derived (more int) INHERITS (base)"""
    )
    attachments = [deleting("split"), Attachment(resource="BASE", table="base")]
    attach(connection, attachments)

    def faults() -> dict[str, list[str]]:
        return dict(
            connection.execute("SELECT table_name, faults FROM clarion.capture_state() WHERE faults <> '{}'").fetchall()
        )

    assert faults() == {}
    connection.execute(
        """CREATE TABLE split_2 PARTITION OF split FOR VALUES FROM (10) TO (20);
           CREATE TABLE derived_more () INHERITS (derived);
           ALTER TABLE base DISABLE TRIGGER "!clarion_capture";
           DROP TRIGGER "!clarion_truncate" ON split_1"""
    )
    assert faults() == {
        "split_2": ["TRUNCATE_MISSING"],
        "derived_more": ["TRIGGER_MISSING", "TRUNCATE_MISSING"],
        "base": ["TRIGGER_NOT_ALWAYS"],
        "split_1": ["TRUNCATE_MISSING"],
    }
    attach(connection, attachments)
    assert faults() == {}
    connection.execute(
        "INSERT INTO derived_more VALUES (1, 2); INSERT INTO base VALUES (2); INSERT INTO split VALUES (12)"
    )
    connection.execute("TRUNCATE split")
    assert captured(connection, "resource", "action::text", "object_id") == [
        ("BASE", "c", "1"),
        ("BASE", "c", "2"),
        ("SPLIT", "c", "12"),
        ("SPLIT", "d", "12"),
    ]


def test_a_cursor_of_the_applications_own_of_that_name_only_refuses_its_truncate(connection: Connection) -> None:
    connection.execute(PARENTS)
    attach(connection, [deleting("children")])
    with connection.transaction(force_rollback=True):
        connection.execute("DECLARE clarion_truncated CURSOR FOR SELECT 1")
        with refused(connection, psycopg.errors.DuplicateCursor):
            connection.execute("TRUNCATE children")
