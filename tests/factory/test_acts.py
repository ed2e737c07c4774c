from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from clarion.factory.act import ActRefused, Person, perform
from clarion.factory.quality import (
    add_redline,
    propose_disposition,
    release_redline,
    report_issue,
    resolve_issue,
    work_on_issue,
)
from clarion.factory.shop_floor import cancel_run, complete_run, create_run, install_child, start_step
from clarion.factory.states import Disposition
from clarion.factory.supply import (
    Wanted,
    complete_kit,
    deliver_kit,
    draft_order,
    pick_item,
    place_order,
    receive,
    request_kit,
)
from factory.model import assert_consistent

Connection = psycopg.Connection[dict[str, Any]]
ADA = Person(1, "Ada Okafor")


def _part(connection: Connection, number: str) -> int:
    row = connection.execute("SELECT id FROM factory.parts WHERE part_number = %s", (number,)).fetchone()
    assert row is not None
    return int(row["id"])


def _placed(engine: Engine, *lines: Wanted) -> tuple[int, list[int]]:
    """Order and lines of an order that was placed."""
    drafted = perform(engine, ADA, lambda session: draft_order(session, 1, lines, ADA))
    perform(engine, ADA, lambda session: place_order(session, drafted.object_id))
    return drafted.object_id, [int(change.object_id) for change in drafted.changes[1:]]


def _stock(connection: Connection, line_id: int) -> list[tuple[str, int]]:
    rows = connection.execute(
        "SELECT status, quantity::int AS quantity FROM factory.parts_inventory"
        " WHERE purchase_order_line_id = %s ORDER BY id",
        (line_id,),
    )
    return [(row["status"], row["quantity"]) for row in rows]


def test_an_order_is_received_in_two_deliveries(shared_engine: Engine, shared: Connection) -> None:
    seals = Wanted(_part(shared, "SEA-220"), Decimal(100))
    order_id, (line_id,) = _placed(shared_engine, seals)
    seen = [_stock(shared, line_id)]
    for quantity in (Decimal(40), None):
        perform(shared_engine, ADA, partial(receive, order_line_id=line_id, by=ADA, quantity=quantity))
        seen.append(_stock(shared, line_id))
    assert seen == [[("on_order", 100)], [("on_order", 60), ("available", 40)], [("available", 60), ("available", 40)]]
    order = shared.execute("SELECT status FROM factory.purchase_orders WHERE id = %s", (order_id,)).fetchone()
    assert order == {"status": "received"}
    assert_consistent(shared)


def test_pieces_with_serial_numbers_are_inventory_each(shared_engine: Engine, shared: Connection) -> None:
    _, (line_id,) = _placed(shared_engine, Wanted(_part(shared, "INJ-120"), Decimal(3)))
    assert _stock(shared, line_id) == [("on_order", 1)] * 3
    perform(shared_engine, ADA, lambda session: receive(session, line_id, ADA, quantity=Decimal(2)))
    assert _stock(shared, line_id) == [("available", 1)] * 2 + [("on_order", 1)]
    rows = shared.execute(
        "SELECT count(DISTINCT serial_number) AS n FROM factory.parts_inventory WHERE purchase_order_line_id = %s",
        (line_id,),
    ).fetchall()
    assert rows == [{"n": 2}]


def test_no_more_is_received_than_is_missing(shared_engine: Engine, shared: Connection) -> None:
    _, (line_id,) = _placed(shared_engine, Wanted(_part(shared, "SPR-230"), Decimal(5)))
    for quantity in (Decimal(6), Decimal(0), Decimal(-1)):
        with pytest.raises(ActRefused, match="cannot be received"):
            perform(shared_engine, ADA, partial(receive, order_line_id=line_id, by=ADA, quantity=quantity))
    assert _stock(shared, line_id) == [("on_order", 5)]


def test_a_kit_is_picked_delivered_handed_over_and_installed(shared_engine: Engine, shared: Connection) -> None:
    run = perform(shared_engine, ADA, lambda session: create_run(session, 2, ADA))
    kit = perform(shared_engine, ADA, lambda session: request_kit(session, run.object_id, ADA))
    with pytest.raises(ActRefused, match="open kit"):
        perform(shared_engine, ADA, lambda session: request_kit(session, run.object_id, ADA))
    for change in kit.changes[1:]:
        perform(shared_engine, ADA, partial(pick_item, kit_item_id=int(change.object_id)))
    perform(shared_engine, ADA, lambda session: deliver_kit(session, kit.object_id))
    perform(shared_engine, ADA, lambda session: complete_kit(session, kit.object_id))
    required = shared.execute(
        "SELECT id FROM factory.build_requirements WHERE run_id = %s", (run.object_id,)
    ).fetchall()
    for row in required:
        perform(shared_engine, ADA, partial(install_child, build_requirement_id=row["id"], by=ADA))
    done = shared.execute(
        "SELECT bool_and(installed_quantity = quantity) AS done FROM factory.build_requirements WHERE run_id = %s",
        (run.object_id,),
    ).fetchone()
    assert done == {"done": True}
    with pytest.raises(ActRefused, match="nothing more"):
        perform(shared_engine, ADA, lambda session: install_child(session, required[0]["id"], ADA))
    assert_consistent(shared)


def _issue(engine: Engine, disposition: Disposition) -> tuple[int, int, int]:
    """Run, step and issue of a problem that waits for review."""
    run = perform(engine, ADA, lambda session: create_run(session, 1, ADA))
    step_id = next(int(change.object_id) for change in run.changes if change.resource == "RUN_STEPS")
    perform(engine, ADA, lambda session: start_step(session, step_id))
    issue = perform(engine, ADA, lambda session: report_issue(session, step_id, "Scratch", ADA))
    perform(engine, ADA, lambda session: work_on_issue(session, issue.object_id, ADA))
    perform(engine, ADA, lambda session: propose_disposition(session, issue.object_id, disposition))
    return run.object_id, step_id, issue.object_id


def _run(connection: Connection, run_id: int) -> tuple[str, str]:
    """Status of the run and of its product."""
    row = connection.execute(
        """SELECT r.status, i.status AS product FROM factory.runs AS r
           JOIN factory.parts_inventory AS i ON i.id = r.parts_inventory_id WHERE r.id = %s""",
        (run_id,),
    ).fetchone()
    assert row is not None
    return row["status"], row["product"]


def test_a_problem_holds_the_run_until_its_rework_is_released_and_it_is_resolved(
    shared_engine: Engine, shared: Connection
) -> None:
    run_id, _, issue_id = _issue(shared_engine, Disposition.REWORK)
    seen = [_run(shared, run_id)[0]]
    redline = perform(shared_engine, ADA, lambda session: add_redline(session, issue_id))
    seen.append(_run(shared, run_id)[0])
    perform(shared_engine, ADA, lambda session: release_redline(session, redline.object_id))
    seen.append(_run(shared, run_id)[0])
    perform(shared_engine, ADA, lambda session: resolve_issue(session, issue_id))
    seen.append(_run(shared, run_id)[0])
    assert seen == ["hold", "redline", "hold", "in_progress"]
    perform(shared_engine, ADA, lambda session: complete_run(session, run_id))
    assert _run(shared, run_id) == ("complete", "available")


def test_scrap_fails_the_run_and_ends_its_open_steps(shared_engine: Engine, shared: Connection) -> None:
    run_id, _, issue_id = _issue(shared_engine, Disposition.SCRAP)
    perform(shared_engine, ADA, lambda session: resolve_issue(session, issue_id))
    assert _run(shared, run_id) == ("failed", "scrapped")
    steps = shared.execute("SELECT DISTINCT status FROM factory.run_steps WHERE run_id = %s ORDER BY status", (run_id,))
    assert [row["status"] for row in steps] == ["canceled", "failed"]


def test_a_run_is_canceled_once(shared_engine: Engine, shared: Connection) -> None:
    run = perform(shared_engine, ADA, lambda session: create_run(session, 3, ADA))
    perform(shared_engine, ADA, lambda session: cancel_run(session, run.object_id))
    assert _run(shared, run.object_id) == ("canceled", "scrapped")
    with pytest.raises(ActRefused, match="canceled already"):
        perform(shared_engine, ADA, lambda session: cancel_run(session, run.object_id))
