"""The templates that ship, on the factory as it is: its real columns, and rows that its acts really write."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from clarion.expressions.columns import COLUMN_KINDS, Shape
from clarion.expressions.program import compile_template
from clarion.expressions.render import render_template
from clarion.expressions.row import Values
from clarion.factory.resources import RESOURCES
from clarion.factory.uses import play_six_uses
from clarion.ledger.change import ACTION_NAMES, Captured
from harness.chat import ISSUE, SERVICES, Service

Connection = psycopg.Connection[dict[str, Any]]


def _shape(connection: Connection, resource: str, action: str) -> Shape:
    found = connection.execute(
        """SELECT c.name, c.kind FROM clarion.resources AS r, clarion.columns_of(r.schema_name, r.table_name) AS c
           WHERE r.name = %s""",
        [resource],
    )
    return Shape(resource, action, {row["name"]: COLUMN_KINDS[row["kind"]] for row in found})


@pytest.mark.parametrize("service", [*SERVICES.values(), ISSUE], ids=[*SERVICES, "issue"])
def test_each_goes_with_what_its_first_line_says(service: Service, shared: Connection) -> None:
    source = service.template.read_text()
    actions, _, whose = source.partition("\n")[0].partition(": ")[2].partition(" of ")
    resources = [one.name for one in RESOURCES] if whose == "any resource." else [whose.partition(",")[0]]
    wanted = [action for action in ACTION_NAMES.values() if action in actions]
    assert wanted
    for resource in resources:
        for action in wanted:
            shape = _shape(shared, resource, action)
            assert shape.columns
            compile_template(source, shape)


def test_every_change_of_the_factory_makes_a_message(shared_engine: Engine, shared: Connection) -> None:
    play_six_uses(shared_engine)
    shared.execute("DELETE FROM factory.receipt_items")
    rows = shared.execute(
        """SELECT id, resource, action::text, object_id, actor_id, actor_name, correlation_id, old::text, new::text
           FROM clarion.outbox ORDER BY id"""
    ).fetchall()
    assert {row["action"] for row in rows} == {"c", "u", "d"}
    for row in rows:
        identity = row.pop("id")
        change = Captured(identity, 1, None, xid=1, depth=1, old_ctid=None, new_ctid=None, **row)
        action = ACTION_NAMES[change.action]
        shape = _shape(shared, change.resource, action)
        for service in SERVICES.values():
            template = compile_template(service.template.read_text(), shape)
            body = render_template(Values(change, shape.decimals), template)
            assert service.faults(json.loads(body)) == []
