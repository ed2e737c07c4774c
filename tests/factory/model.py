"""The rules of the roll-ups, written a second time in plain Python, to compare the database with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import psycopg

Connection = psycopg.Connection[dict[str, Any]]


def run_status(steps: Sequence[str], before: str) -> str:
    """The status of a run with these steps, `before` being what it was."""
    if not steps or before == "canceled":
        return before
    for decisive in ("failed", "redline", "hold"):
        if decisive in steps:
            return decisive
    kept = [step for step in steps if step != "canceled"]
    if not kept:
        return "canceled"
    if all(step == "complete" for step in kept):
        return "complete"
    return "todo" if all(step == "todo" for step in kept) else "in_progress"


def available_to_work(steps: Sequence[tuple[int, str]], run: str) -> list[bool]:
    """For each step (position, status): it is open and all of a lower position have ended."""
    return [
        run != "canceled"
        and status in ("todo", "in_progress")
        and all(other in ("complete", "canceled") for place, other in steps if place < position)
        for position, status in steps
    ]


def order_status(lines: Sequence[str], before: str) -> str:
    """The status of an order with these lines, `before` being what it was."""
    if not lines:
        return before
    if "draft" in lines:
        return before if before in ("in_review", "approved") else "draft"
    return next((status for status in ("ordered", "received") if status in lines), "canceled")


def inventory_status(row: Mapping[str, Any]) -> str:
    """The status of inventory with these quantities and marks."""
    left = row["quantity"] - row["quantity_scrapped"]
    rules = (
        (row["quantity"] == 0, "on_order" if row["on_order"] else "unavailable"),
        (left <= 0, "scrapped"),
        (row["quantity_installed"] >= left, "installed"),
        (row["work_in_progress"], "wip"),
        (row["quality_hold"], "unavailable"),
        (row["quantity_installed"] + row["quantity_kitted"] >= left, "kitted"),
        (row["on_order"], "on_order"),
    )
    return next((status for holds, status in rules if holds), "available")


def assert_consistent(connection: Connection) -> None:
    """Fails where a row that is rolled up differs from what the rules make of its children."""
    _assert_runs(connection)
    _assert_orders(connection)
    _assert_inventory(connection)


def _assert_runs(connection: Connection) -> None:
    steps: dict[int, list[dict[str, Any]]] = {}
    for step in connection.execute("SELECT * FROM factory.run_steps ORDER BY id"):
        steps.setdefault(step["run_id"], []).append(step)
        assert (step["status"] == "complete") == (step["completed_at"] is not None), step
    for run in connection.execute("SELECT * FROM factory.runs"):
        own = steps.get(run["id"], [])
        assert run["status"] == run_status([step["status"] for step in own], run["status"]), run
        assert (run["status"] == "complete") == (run["completed_at"] is not None), run
        wanted = available_to_work([(step["position"], step["status"]) for step in own], run["status"])
        assert [step["available_to_work"] for step in own] == wanted, run


def _assert_orders(connection: Connection) -> None:
    received = _sums(connection, "receipt_items", "purchase_order_line_id", "quantity")
    lines: dict[int, list[dict[str, Any]]] = {}
    for line in connection.execute("SELECT * FROM factory.purchase_order_lines"):
        lines.setdefault(line["purchase_order_id"], []).append(line)
        assert line["received_quantity"] == received.get(line["id"], 0), line
        assert (line["status"] == "received") == (line["received_quantity"] >= line["quantity"]), line
    for order in connection.execute("SELECT * FROM factory.purchase_orders"):
        own = lines.get(order["id"], [])
        assert order["status"] == order_status([line["status"] for line in own], order["status"]), order
        assert order["received_quantity"] == sum(line["received_quantity"] for line in own), order
        wanted = sum(line["quantity"] * line["cost"] for line in own if line["status"] != "canceled")
        assert order["estimated_total_cost"] == wanted, order


def _assert_inventory(connection: Connection) -> None:
    came = _sums(connection, "receipt_items", "parts_inventory_id", "quantity")
    installed = _sums(connection, "abom_installations", "parts_inventory_id", "quantity")
    kitted = _sums(
        connection,
        "part_kit_items JOIN factory.parts_kits AS kit"
        " ON kit.id = part_kit_id AND kit.status NOT IN ('completed', 'canceled')",
        "parts_inventory_id",
        "kitted_quantity",
    )
    held = {
        row["parts_inventory_id"]
        for row in connection.execute("SELECT parts_inventory_id FROM factory.issues WHERE status <> 'resolved'")
    }
    for row in connection.execute("SELECT * FROM factory.parts_inventory"):
        assert row["status"] == inventory_status(row), row
        assert row["quantity_installed"] == installed.get(row["id"], 0), row
        assert row["quantity_kitted"] == kitted.get(row["id"], 0), row
        assert row["quality_hold"] == (row["id"] in held), row
        assert row["quantity_installed"] + row["quantity_kitted"] <= row["quantity"], row
        if row["id"] in came:
            assert row["quantity"] == came[row["id"]], row
            assert not row["on_order"], row
            assert row["received_at"] is not None, row
    required = _sums(connection, "abom_installations", "build_requirement_id", "quantity")
    for row in connection.execute("SELECT * FROM factory.build_requirements"):
        assert row["installed_quantity"] == required.get(row["id"], 0) <= row["quantity"], row


def _sums(connection: Connection, table: str, by: str, what: str) -> dict[int, Decimal]:
    rows = connection.execute(f"SELECT {by} AS key, sum({what}) AS total FROM factory.{table} GROUP BY {by}")
    return {row["key"]: row["total"] for row in rows}
