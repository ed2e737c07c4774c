from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from clarion.factory.uses import SixUses, Use, play_six_uses

Connection = psycopg.Connection[dict[str, Any]]


@pytest.fixture(scope="module")
def played(shared_engine: Engine) -> SixUses:
    """The six uses, played once for all tests."""
    return play_six_uses(shared_engine)


def test_the_six_uses_make_the_changes_they_name(played: SixUses, shared: Connection) -> None:
    assert [use.number for use in played.uses] == [1, 2, 3, 4, 5, 6]
    assert [[(e.change.resource, e.change.action) for e in use.expected] for use in played.uses] == [
        [("ISSUES", "CREATE")],
        [("RUN_STEPS", "UPDATE")],
        [("PURCHASE_ORDERS", "UPDATE")],
        [("RECEIPTS", "CREATE")],
        [("RUN_STEPS_FIELDS", "UPDATE")] * 2,
        [("ISSUES", "CREATE")],
    ]
    for use in played.uses:
        for act, expected in zip(use.acts, use.expected, strict=True):
            rows = shared.execute(
                """SELECT new::text FROM clarion.outbox
                   WHERE correlation_id = %s AND resource = %s AND action = %s::"char" AND object_id = %s""",
                (
                    act.correlation_id,
                    expected.change.resource,
                    expected.change.action[0].lower(),
                    expected.change.object_id,
                ),
            ).fetchall()
            assert len(rows) == 1, expected
            after = json.loads(rows[0]["new"])
            assert {name: after[name] for name in expected.values} == expected.values


def test_everything_that_happens_belongs_to_an_act_that_is_told(shared_engine: Engine, shared: Connection) -> None:
    before = shared.execute("SELECT coalesce(max(id), 0) AS last FROM clarion.outbox").fetchone()
    assert before is not None
    played = play_six_uses(shared_engine)
    told = {act.correlation_id for act in (*played.preparation, *(act for use in played.uses for act in use.acts))}
    rows = shared.execute("SELECT DISTINCT correlation_id FROM clarion.outbox WHERE id > %s", (before["last"],))
    assert {row["correlation_id"] for row in rows} == told


def test_one_value_lies_within_the_limits_and_one_beyond(played: SixUses, shared: Connection) -> None:
    inside, outside = (Decimal(str(expected.values["value"])) for expected in played.uses[4].expected)
    limits = shared.execute("SELECT value_min, value_max FROM factory.run_steps_fields WHERE name = 'Bore'").fetchone()
    assert limits is not None
    assert limits["value_min"] <= inside <= limits["value_max"] < outside


def test_each_use_changes_what_hangs_on_it_too(played: SixUses, shared: Connection) -> None:
    problem, start, placed, received = played.uses[:4]
    assert _written(shared, problem) == [
        ("ISSUES", "c"),
        ("PARTS_INVENTORY", "u"),
        ("RUNS", "u"),
        ("RUN_STEPS", "u"),
    ]
    assert _written(shared, start) == [("RUNS", "u"), ("RUN_STEPS", "u")]
    assert _written(shared, placed) == [
        ("PARTS_INVENTORY", "c"),
        ("PURCHASE_ORDERS", "u"),
        ("PURCHASE_ORDER_LINES", "u"),
    ]
    assert _written(shared, received) == [
        ("PARTS_INVENTORY", "u"),
        ("PURCHASE_ORDERS", "u"),
        ("PURCHASE_ORDER_LINES", "u"),
        ("RECEIPTS", "c"),
        ("RECEIPT_ITEMS", "c"),
    ]


def _written(connection: Connection, use: Use) -> list[tuple[str, str]]:
    rows = connection.execute(
        "SELECT DISTINCT resource, action::text AS what FROM clarion.outbox"
        " WHERE correlation_id = %s ORDER BY resource",
        (use.acts[0].correlation_id,),
    )
    return [(row["resource"], row["what"]) for row in rows]


def test_they_can_be_played_again_and_are_the_same(played: SixUses, shared_engine: Engine) -> None:
    seen: list[int] = []
    again = play_six_uses(shared_engine, lambda use: seen.append(use.number))
    assert sorted(seen) == [1, 2, 3, 4, 5, 6]
    assert _shape(again) == _shape(played)
    assert again.uses[0].expected[0].change.object_id != played.uses[0].expected[0].change.object_id


def _shape(played: SixUses) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(use.name, [(e.change.resource, e.change.action) for e in use.expected]) for use in played.uses]
