from __future__ import annotations

import re
from typing import Any, get_type_hints

import psycopg
import pytest

from clarion.factory.resources import RESOURCES
from clarion.factory.tables import Base

Connection = psycopg.Connection[dict[str, Any]]


def _one(connection: Connection, query: str, *parameters: object) -> dict[str, Any]:
    row = connection.execute(query, parameters or None).fetchone()
    assert row is not None
    return row


def test_one_plain_insert_makes_a_run(connection: Connection) -> None:
    run = _one(connection, "INSERT INTO factory.runs (title) VALUES ('Build thruster') RETURNING *")
    assert (run["title"], run["status"]) == ("Build thruster", "todo")
    captured = _one(connection, "SELECT resource, action::text, object_id FROM clarion.outbox")
    assert captured == {"resource": "RUNS", "action": "c", "object_id": str(run["id"])}


def test_one_plain_insert_makes_an_issue(connection: Connection) -> None:
    issue = _one(connection, "INSERT INTO factory.issues (title) VALUES ('Scratch') RETURNING *")
    assert (issue["title"], issue["status"], issue["resolved_at"]) == ("Scratch", "pending", None)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO factory.parts (part_number) VALUES ('NEW-1') RETURNING id",
        "INSERT INTO factory.parts_inventory (part_id) VALUES (1) RETURNING id",
        "INSERT INTO factory.procedures (title) VALUES ('Test') RETURNING id",
        "INSERT INTO factory.steps (procedure_id, title) VALUES (1, 'Look') RETURNING id",
        "INSERT INTO factory.steps_fields (step_id, name) VALUES (1, 'Length') RETURNING id",
        "INSERT INTO factory.suppliers (name) VALUES ('Foundry') RETURNING id",
        "INSERT INTO factory.purchase_orders DEFAULT VALUES RETURNING id",
        "INSERT INTO factory.receipts DEFAULT VALUES RETURNING id",
        "INSERT INTO factory.locations (name) VALUES ('Shelf 9') RETURNING id",
        "INSERT INTO factory.mboms (part_id) VALUES (1) RETURNING id",
        "INSERT INTO factory.mbom_item (mbom_id, part_id) VALUES (1, 2) RETURNING id",
        "INSERT INTO factory.build_requirements (part_id) VALUES (1) RETURNING id",
        "INSERT INTO factory.parts_kits DEFAULT VALUES RETURNING id",
        "INSERT INTO factory.users (name) VALUES ('Ines') RETURNING id",
        "INSERT INTO factory.file_attachments (file_name) VALUES ('a.pdf') RETURNING id",
    ],
)
def test_a_row_needs_no_more_than_its_name_and_its_parent(connection: Connection, statement: str) -> None:
    assert _one(connection, statement)["id"] > 0


def test_a_status_that_is_none_is_refused(connection: Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="runs_status_check"):
        connection.execute("INSERT INTO factory.runs (title, status) VALUES ('x', 'TODO')")


def test_every_status_column_lists_its_states_in_lower_case(connection: Connection) -> None:
    found = connection.execute(
        """SELECT t.relname AS name, pg_get_constraintdef(c.oid) AS definition
           FROM pg_constraint AS c JOIN pg_class AS t ON t.oid = c.conrelid
           WHERE c.connamespace = 'factory'::regnamespace AND c.conname = t.relname || '_status_check'"""
    ).fetchall()
    definitions = {row["name"]: row["definition"] for row in found}
    assert set(definitions) == {table.name for table in Base.metadata.sorted_tables if "status" in table.columns}
    for table, definition in definitions.items():
        states = re.findall(r"'([^']*)'", definition)
        assert states == [state.lower() for state in states] != [], table


def test_every_table_is_a_resource_named_after_it_in_capitals(connection: Connection) -> None:
    rows = connection.execute("SELECT * FROM clarion.resources WHERE schema_name = 'factory'").fetchall()
    assert {row["name"] for row in rows} == {table.name.upper() for table in Base.metadata.sorted_tables}
    assert len(rows) == 23
    for row in rows:
        assert row["description"].endswith("."), row
        assert row["key_columns"] == ["id"], row
    names = [row["name"] for row in rows] + [row["singular"] for row in rows if row["singular"]]
    assert len(set(names)) == len(names)
    singular = {resource.name: resource.singular for resource in RESOURCES}
    assert singular["PARTS_INVENTORY"] == "PART_INVENTORY"
    for name in ("RUNS", "RUN_STEPS", "PARTS", "ISSUES", "PURCHASE_ORDERS", "FILE_ATTACHMENTS"):
        assert singular[name] == name.removesuffix("S")


def test_every_mapped_column_is_typed() -> None:
    for mapper in Base.registry.mappers:
        hints = get_type_hints(mapper.class_, include_extras=True)
        assert set(mapper.columns.keys()) <= set(hints), mapper


def test_a_run_is_deleted_with_its_steps_while_its_issues_stay(connection: Connection) -> None:
    run_id = _one(connection, "INSERT INTO factory.runs (title) VALUES ('x') RETURNING id")["id"]
    connection.execute("INSERT INTO factory.run_steps (run_id, title) VALUES (%s, 'a'), (%s, 'b')", (run_id, run_id))
    connection.execute("INSERT INTO factory.issues (title, run_id) VALUES ('Scratch', %s)", (run_id,))
    connection.execute("DELETE FROM factory.runs WHERE id = %s", (run_id,))
    assert connection.execute("SELECT FROM factory.run_steps").fetchall() == []
    assert _one(connection, "SELECT title, run_id FROM factory.issues") == {"title": "Scratch", "run_id": None}
    deleted = connection.execute("SELECT resource FROM clarion.outbox WHERE action = 'd' ORDER BY resource").fetchall()
    assert [row["resource"] for row in deleted] == ["RUNS", "RUN_STEPS", "RUN_STEPS"]
