from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clarion.database.address import DatabaseAddress
from clarion.factory.states import OrderLineStatus, RunStatus
from factory.model import assert_consistent, available_to_work, inventory_status, order_status, run_status

Connection = psycopg.Connection[dict[str, Any]]

in_one_database = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
step_statuses = st.sampled_from([str(status) for status in RunStatus])
line_statuses = st.sampled_from([str(status) for status in OrderLineStatus])


def _one(connection: Connection, query: str, *parameters: object) -> dict[str, Any]:
    row = connection.execute(query, parameters or None).fetchone()
    assert row is not None
    return row


def _key(connection: Connection, query: str, *parameters: object) -> int:
    key = _one(connection, query, *parameters)["id"]
    assert isinstance(key, int)
    return key


def _captured(connection: Connection, resource: str) -> list[str]:
    rows = connection.execute(
        "SELECT action::text || object_id AS what FROM clarion.outbox WHERE resource = %s ORDER BY id", (resource,)
    )
    return [row["what"] for row in rows]


# ---------------------------------------------------------------- runs


@in_one_database
@given(
    steps=st.lists(st.tuples(st.integers(0, 3), step_statuses), max_size=5),
    changes=st.lists(st.tuples(st.integers(0, 4), step_statuses), max_size=6),
)
def test_a_runs_status_is_what_its_steps_make_it(
    connection: Connection, steps: list[tuple[int, str]], changes: list[tuple[int, str]]
) -> None:
    with connection.transaction(force_rollback=True):
        run_id = _key(connection, "INSERT INTO factory.runs (title) VALUES ('x') RETURNING id")
        wanted = "todo"
        kept: list[tuple[int, str]] = []
        keys: list[int] = []
        for position, status in steps:
            insert = (
                "INSERT INTO factory.run_steps (run_id, title, position, status) VALUES (%s, 'x', %s, %s) RETURNING id"
            )
            keys.append(_key(connection, insert, run_id, position, status))
            kept.append((position, status))
            wanted = run_status([status for _, status in kept], wanted)
            _assert_run(connection, run_id, wanted, kept)
        for index, status in changes:
            if index >= len(keys):
                continue
            connection.execute("UPDATE factory.run_steps SET status = %s WHERE id = %s", (status, keys[index]))
            kept[index] = (kept[index][0], status)
            wanted = run_status([status for _, status in kept], wanted)
            _assert_run(connection, run_id, wanted, kept)


def _assert_run(connection: Connection, run_id: int, status: str, steps: list[tuple[int, str]]) -> None:
    run = _one(connection, "SELECT * FROM factory.runs WHERE id = %s", run_id)
    assert run["status"] == status
    assert (run["completed_at"] is not None) == (status == "complete")
    rows = connection.execute("SELECT * FROM factory.run_steps WHERE run_id = %s ORDER BY id", (run_id,)).fetchall()
    assert [(row["position"], row["status"]) for row in rows] == steps
    assert [row["available_to_work"] for row in rows] == available_to_work(steps, status)


def _run_of(connection: Connection, *statuses: str) -> tuple[int, list[int]]:
    """A run with one step after the other, as plain SQL makes it; its key and theirs."""
    run_id = _key(connection, "INSERT INTO factory.runs (title) VALUES ('x') RETURNING id")
    rows = connection.execute(
        "INSERT INTO factory.run_steps (run_id, title, position, status)"
        " SELECT %s, 'x', place, status FROM unnest(%s::text[]) WITH ORDINALITY AS given (status, place) RETURNING id",
        (run_id, list(statuses)),
    ).fetchall()
    return run_id, [row["id"] for row in rows]


@pytest.mark.parametrize(
    ("steps", "run"),
    [
        (("redline", "hold", "in_progress"), "redline"),
        (("failed", "redline", "complete"), "failed"),
        (("complete", "complete"), "complete"),
        (("complete", "canceled"), "complete"),
        (("complete", "todo"), "in_progress"),
        (("canceled", "canceled"), "canceled"),
        (("todo", "todo"), "todo"),
    ],
)
def test_one_of_a_runs_steps_decides(connection: Connection, steps: tuple[str, ...], run: str) -> None:
    run_id, _ = _run_of(connection, *steps)
    assert _one(connection, "SELECT status FROM factory.runs WHERE id = %s", run_id) == {"status": run}


def test_a_run_starts_with_its_first_step_and_ends_with_its_last(connection: Connection) -> None:
    run_id, (first, second) = _run_of(connection, "todo", "todo")
    look = """SELECT status, started_at IS NOT NULL AS started, completed_at IS NOT NULL AS completed
              FROM factory.runs WHERE id = %s"""
    seen = [tuple(_one(connection, look, run_id).values())]
    for step_id, status in ((first, "in_progress"), (first, "complete"), (second, "complete"), (second, "in_progress")):
        connection.execute("UPDATE factory.run_steps SET status = %s WHERE id = %s", (status, step_id))
        seen.append(tuple(_one(connection, look, run_id).values()))
    assert seen == [
        ("todo", False, False),
        ("in_progress", True, False),
        ("in_progress", True, False),
        ("complete", True, True),
        ("in_progress", True, False),
    ]


def test_completing_a_step_frees_the_next_in_the_same_transaction(committing: Connection) -> None:
    run_id, steps = _run_of(committing, "in_progress", "todo", "todo")
    committing.execute("TRUNCATE clarion.outbox")
    committing.execute("UPDATE factory.run_steps SET status = 'complete' WHERE id = %s", (steps[0],))
    rows = committing.execute(
        "SELECT available_to_work FROM factory.run_steps WHERE run_id = %s ORDER BY position", (run_id,)
    ).fetchall()
    assert [row["available_to_work"] for row in rows] == [False, True, False]
    assert _captured(committing, "RUN_STEPS") == [f"u{steps[0]}", f"u{steps[1]}"]
    assert _one(committing, "SELECT count(DISTINCT xid) AS transactions FROM clarion.outbox") == {"transactions": 1}


def test_a_bulk_update_of_steps_changes_each_run_once(connection: Connection) -> None:
    runs = [_run_of(connection, "todo", "todo", "todo")[0] for _ in range(3)]
    connection.execute("TRUNCATE clarion.outbox")
    connection.execute("UPDATE factory.run_steps SET status = 'complete'")
    assert sorted(_captured(connection, "RUNS")) == sorted(f"u{run_id}" for run_id in runs)
    assert_consistent(connection)


def test_a_write_that_decides_nothing_leaves_the_run_alone(connection: Connection) -> None:
    _, steps = _run_of(connection, "todo", "todo")
    connection.execute("TRUNCATE clarion.outbox")
    connection.execute("UPDATE factory.run_steps SET content = 'see drawing' WHERE id = %s", (steps[0],))
    connection.execute("UPDATE factory.run_steps SET status = status")
    assert (_captured(connection, "RUNS"), _captured(connection, "RUN_STEPS")) == ([], [f"u{steps[0]}"])


def test_a_canceled_run_cancels_its_open_steps_and_scraps_its_product(connection: Connection) -> None:
    run_id, _ = _run_of(connection, "complete", "in_progress", "todo")
    product = _key(
        connection, "INSERT INTO factory.parts_inventory (part_id, work_in_progress) VALUES (1, true) RETURNING id"
    )
    connection.execute("UPDATE factory.runs SET parts_inventory_id = %s WHERE id = %s", (product, run_id))
    connection.execute("UPDATE factory.runs SET status = 'canceled' WHERE id = %s", (run_id,))
    rows = connection.execute(
        "SELECT status FROM factory.run_steps WHERE run_id = %s ORDER BY id", (run_id,)
    ).fetchall()
    assert [row["status"] for row in rows] == ["complete", "canceled", "canceled"]
    assert _one(connection, "SELECT status FROM factory.runs WHERE id = %s", run_id) == {"status": "canceled"}
    assert _one(connection, "SELECT status FROM factory.parts_inventory WHERE id = %s", product) == {
        "status": "scrapped"
    }


def test_a_step_that_moves_to_another_run_is_counted_there_and_no_longer_here(connection: Connection) -> None:
    here, (_, moving) = _run_of(connection, "complete", "todo")
    there, _ = _run_of(connection, "complete")
    connection.execute("UPDATE factory.run_steps SET run_id = %s WHERE id = %s", (there, moving))
    rows = connection.execute(
        "SELECT status FROM factory.runs WHERE id IN (%s, %s) ORDER BY id", (here, there)
    ).fetchall()
    assert [row["status"] for row in rows] == ["complete", "in_progress"]
    connection.execute("DELETE FROM factory.run_steps WHERE id = %s", (moving,))
    assert _one(connection, "SELECT status FROM factory.runs WHERE id = %s", there) == {"status": "complete"}


def test_two_writers_who_complete_the_last_two_steps_at_once_complete_the_run(
    factory: DatabaseAddress, committing: Connection
) -> None:
    run_id, steps = _run_of(committing, "in_progress", "in_progress")
    committing.execute("UPDATE factory.run_steps SET position = 1")
    with psycopg.connect(factory.url) as first, psycopg.connect(factory.url) as second:
        first.execute("UPDATE factory.run_steps SET status = 'complete' WHERE id = %s", (steps[0],))
        done = threading.Event()

        def complete_second() -> None:
            second.execute("UPDATE factory.run_steps SET status = 'complete' WHERE id = %s", (steps[1],))
            second.commit()
            done.set()

        writer = threading.Thread(target=complete_second)
        writer.start()
        waiting = "SELECT count(*) AS n FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        while _one(committing, waiting, second.info.backend_pid)["n"] == 0:
            assert not done.is_set(), "the second writer did not wait for the run"
        first.commit()
        writer.join(10)
    assert done.is_set()
    assert _one(committing, "SELECT status FROM factory.runs WHERE id = %s", run_id) == {"status": "complete"}


# ---------------------------------------------------------------- orders and receipts


@in_one_database
@given(
    before=st.sampled_from(["draft", "in_review", "approved"]),
    lines=st.lists(line_statuses, max_size=4),
    changes=st.lists(st.tuples(st.integers(0, 3), line_statuses), max_size=5),
)
def test_an_orders_status_is_what_its_lines_make_it(
    connection: Connection, before: str, lines: list[str], changes: list[tuple[int, str]]
) -> None:
    with connection.transaction(force_rollback=True):
        order_id = _key(connection, "INSERT INTO factory.purchase_orders (status) VALUES (%s) RETURNING id", before)
        wanted, keys = before, []
        for count in range(len(lines)):
            insert = "INSERT INTO factory.purchase_order_lines (purchase_order_id, status) VALUES (%s, %s) RETURNING id"
            keys.append(_key(connection, insert, order_id, lines[count]))
            wanted = order_status(lines[: count + 1], wanted)
        for index, status in changes:
            if index < len(keys):
                connection.execute(
                    "UPDATE factory.purchase_order_lines SET status = %s WHERE id = %s", (status, keys[index])
                )
                lines[index] = status
                wanted = order_status(lines, wanted)
        assert _one(connection, "SELECT status FROM factory.purchase_orders WHERE id = %s", order_id) == {
            "status": wanted
        }


def test_receipt_items_fill_line_order_and_inventory(connection: Connection) -> None:
    order_id = _key(connection, "INSERT INTO factory.purchase_orders DEFAULT VALUES RETURNING id")
    line_id = _key(
        connection,
        "INSERT INTO factory.purchase_order_lines (purchase_order_id, part_id, quantity, cost, status)"
        " VALUES (%s, 8, 10, 4.20, 'ordered') RETURNING id",
        order_id,
    )
    stock_id = _key(
        connection,
        "INSERT INTO factory.parts_inventory (part_id, quantity, on_order, purchase_order_line_id)"
        " VALUES (8, 10, true, %s) RETURNING id",
        line_id,
    )
    receipt_id = _key(connection, "INSERT INTO factory.receipts DEFAULT VALUES RETURNING id")
    look = """SELECT p.status, p.received_quantity::int AS received, p.estimated_total_cost::text AS cost,
                     l.status AS line, l.received_quantity::int AS of_line,
                     i.status AS stock, i.quantity_available::int AS available
              FROM factory.purchase_orders p, factory.purchase_order_lines l, factory.parts_inventory i
              WHERE p.id = %s AND l.id = %s AND i.id = %s"""
    seen = [tuple(_one(connection, look, order_id, line_id, stock_id).values())]
    insert = (
        "INSERT INTO factory.receipt_items (receipt_id, purchase_order_line_id, parts_inventory_id, quantity)"
        " VALUES (%s, %s, %s, %s)"
    )
    for statement, parameters in (
        (insert, (receipt_id, line_id, stock_id, 4)),
        (insert, (receipt_id, line_id, stock_id, 6)),
        ("DELETE FROM factory.receipt_items WHERE quantity = %s", (6,)),
    ):
        connection.execute(statement, parameters)
        seen.append(tuple(_one(connection, look, order_id, line_id, stock_id).values()))
    assert seen == [
        ("ordered", 0, "42.00", "ordered", 0, "on_order", 0),
        ("ordered", 4, "42.00", "ordered", 4, "available", 4),
        ("received", 10, "42.00", "received", 10, "available", 10),
        ("ordered", 4, "42.00", "ordered", 4, "available", 4),
    ]


# ---------------------------------------------------------------- inventory, kits, issues


@in_one_database
@given(
    quantity=st.integers(0, 3),
    scrapped=st.integers(0, 3),
    marks=st.fixed_dictionaries(
        {"on_order": st.booleans(), "work_in_progress": st.booleans(), "quality_hold": st.booleans()}
    ),
    installed=st.integers(0, 3),
    kitted=st.integers(0, 3),
)
def test_the_status_of_inventory_follows_from_its_quantities_and_marks(
    connection: Connection, quantity: int, scrapped: int, marks: dict[str, bool], installed: int, kitted: int
) -> None:
    values = {
        "quantity": quantity,
        "quantity_scrapped": min(scrapped, quantity),
        "quantity_installed": installed,
        "quantity_kitted": kitted,
        **marks,
    }
    columns, places = ", ".join(values), ", ".join(["%s"] * len(values))
    insert = f"INSERT INTO factory.parts_inventory (part_id, {columns}) VALUES (1, {places}) RETURNING *"
    row = _one(connection, insert, *values.values())
    assert row["status"] == inventory_status(row)
    left = row["quantity"] - row["quantity_scrapped"] - row["quantity_installed"] - row["quantity_kitted"]
    assert row["quantity_available"] == (left if row["status"] == "available" else 0)


def test_a_kit_sets_pieces_aside_brings_them_along_and_lets_them_go(connection: Connection) -> None:
    bench = _key(connection, "SELECT id FROM factory.locations WHERE name = 'Assembly bench'")
    stock_id = _key(connection, "INSERT INTO factory.parts_inventory (part_id, quantity) VALUES (1, 2) RETURNING id")
    kit_id = _key(
        connection,
        "INSERT INTO factory.parts_kits (status, delivery_location_id) VALUES ('requested', %s) RETURNING id",
        bench,
    )
    item_id = _key(
        connection,
        "INSERT INTO factory.part_kit_items (part_kit_id, part_id, quantity) VALUES (%s, 1, 2) RETURNING id",
        kit_id,
    )
    look = """SELECT kit.status AS kit, stock.status, stock.location_id
              FROM factory.parts_kits AS kit, factory.parts_inventory AS stock WHERE kit.id = %s AND stock.id = %s"""
    seen = [tuple(_one(connection, look, kit_id, stock_id).values())]
    for statement, parameters in (
        (
            "UPDATE factory.part_kit_items SET kitted_quantity = 2, parts_inventory_id = %s WHERE id = %s",
            (stock_id, item_id),
        ),
        ("UPDATE factory.parts_kits SET status = 'delivered' WHERE id = %s", (kit_id,)),
        ("UPDATE factory.parts_kits SET status = 'completed' WHERE id = %s", (kit_id,)),
    ):
        connection.execute(statement, parameters)
        seen.append(tuple(_one(connection, look, kit_id, stock_id).values()))
    assert seen == [
        ("requested", "available", None),
        ("in_progress", "kitted", None),
        ("delivered", "kitted", bench),
        ("completed", "available", bench),
    ]


def test_an_installation_counts_for_the_piece_and_for_the_requirement(connection: Connection) -> None:
    stock_id = _key(connection, "INSERT INTO factory.parts_inventory (part_id, quantity) VALUES (8, 5) RETURNING id")
    required = _key(connection, "INSERT INTO factory.build_requirements (part_id, quantity) VALUES (8, 5) RETURNING id")
    connection.execute(
        "INSERT INTO factory.abom_installations (build_requirement_id, parts_inventory_id, quantity)"
        " VALUES (%s, %s, 5)",
        (required, stock_id),
    )
    look = """SELECT s.status, r.installed_quantity::int AS done
              FROM factory.parts_inventory AS s, factory.build_requirements AS r WHERE s.id = %s AND r.id = %s"""
    assert _one(connection, look, stock_id, required) == {"status": "installed", "done": 5}
    connection.execute("DELETE FROM factory.abom_installations")
    assert _one(connection, look, stock_id, required) == {"status": "available", "done": 0}


def test_inventory_is_held_until_the_last_issue_on_it_is_resolved(connection: Connection) -> None:
    stock_id = _key(connection, "INSERT INTO factory.parts_inventory (part_id) VALUES (1) RETURNING id")
    insert = "INSERT INTO factory.issues (title, parts_inventory_id) VALUES ('x', %s) RETURNING id"
    first, second = _key(connection, insert, stock_id), _key(connection, insert, stock_id)
    seen = []
    for issue_id, status in ((first, "resolved"), (second, "resolved"), (first, "in_progress")):
        connection.execute("UPDATE factory.issues SET status = %s WHERE id = %s", (status, issue_id))
        seen.append(_one(connection, "SELECT status FROM factory.parts_inventory WHERE id = %s", stock_id)["status"])
    connection.execute("DELETE FROM factory.issues WHERE id = %s", (first,))
    seen.append(_one(connection, "SELECT status FROM factory.parts_inventory WHERE id = %s", stock_id)["status"])
    assert seen == ["unavailable", "available", "unavailable", "available"]


def test_another_disposition_sends_an_issue_back_to_pending(connection: Connection) -> None:
    issue_id = _key(connection, "INSERT INTO factory.issues (title, status) VALUES ('x', 'in_review') RETURNING id")
    connection.execute("UPDATE factory.issues SET disposition = 'rework' WHERE id = %s", (issue_id,))
    assert _one(connection, "SELECT status FROM factory.issues WHERE id = %s", issue_id) == {"status": "pending"}
    connection.execute(
        "UPDATE factory.issues SET disposition = 'scrap', status = 'resolved' WHERE id = %s", (issue_id,)
    )
    look = "SELECT status, resolved_at IS NOT NULL AS stamped FROM factory.issues WHERE id = %s"
    assert _one(connection, look, issue_id) == {"status": "resolved", "stamped": True}


def test_roll_ups_do_not_follow_the_callers_search_path(connection: Connection) -> None:
    connection.execute("CREATE SCHEMA trap")
    connection.execute(
        "CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$"
    )
    connection.execute("SET search_path = trap, pg_catalog")
    run_id, _ = _run_of(connection, "complete")
    assert _one(connection, "SELECT started_at > '2000-01-01' AS real FROM factory.runs WHERE id = %s", run_id) == {
        "real": True
    }
    functions = connection.execute(
        "SELECT proname, proconfig FROM pg_catalog.pg_proc WHERE pronamespace = 'factory'::pg_catalog.regnamespace"
    ).fetchall()
    assert functions
    assert all(row["proconfig"] == ["search_path=pg_catalog, pg_temp"] for row in functions)
