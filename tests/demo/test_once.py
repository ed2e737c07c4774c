"""The proof of `clarion demo --once`: what must arrive by the ledger's rows, and what it does with anything else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.core.errors import CheckFailed
from clarion.demo.changes import LedgerChange
from clarion.demo.delivery import Delivery
from clarion.demo.integration import INTEGRATIONS, Integration
from clarion.demo.once import Inbox, _check_cards, _check_exactly, _deliveries_due
from clarion.expressions.program import load_program
from clarion.expressions.row import Values
from clarion.factory.states import FieldType, IssueStatus, OrderStatus, RunStatus
from clarion.ledger.change import Captured

_rows = st.fixed_dictionaries(
    {
        "status": st.sampled_from([*RunStatus, *OrderStatus, *IssueStatus]).map(str),
        "run_id": st.none() | st.integers(1, 3),
        "type": st.sampled_from(FieldType).map(str),
        "value": st.none() | st.sampled_from(["", "1", "2.5"]),
    }
)


def _change(integration: Integration, old: dict[str, Any], new: dict[str, Any], change_id: int = 1) -> LedgerChange:
    old = old if integration.action == "UPDATE" else {}
    return LedgerChange(change_id, integration.resource, integration.action, "7", "c", "", {}, old, new)


@pytest.mark.parametrize("integration", INTEGRATIONS, ids=lambda integration: integration.path)
@given(_rows, _rows)
def test_it_decides_each_condition_as_clarion_does(
    integration: Integration, old: dict[str, Any], new: dict[str, Any]
) -> None:
    before = json.dumps(old) if integration.action == "UPDATE" else None
    row = Captured(
        1, 1, None, integration.resource, integration.action[0].lower(), "7", 1, 1, None, None, None, None, None,
        before, json.dumps(new),
    )  # fmt: skip
    holds = integration.condition is None or Values(row).decide(load_program(integration.condition))
    due = _deliveries_due([_change(integration, old, new)])
    assert ((integration.path, 1) in due) is holds


ERP = next(one for one in INTEGRATIONS if one.path == "erp")
PLACED = _change(ERP, {"status": "approved"}, {"status": "ordered"}, 5)
RECEIVED = _change(ERP, {"status": "ordered"}, {"status": "received"}, 6)
ARRIVED = Delivery(
    "erp",
    "2026-11-24T01:02:03.000000+00:00",
    is_verified=True,
    did="booked",
    resource=ERP.resource,
    action=ERP.action,
    object_id="7",
    change_id=5,
    sequence=1,
)


def test_what_must_arrive_and_nothing_else_is_right() -> None:
    _check_exactly(Inbox([ARRIVED]), [PLACED, RECEIVED])


@pytest.mark.parametrize(
    ("deliveries", "words"),
    [
        ([ARRIVED, replace(ARRIVED, change_id=6, sequence=2)], "which it did not subscribe to"),
        ([replace(ARRIVED, path="qa")], "which it did not subscribe to"),
        ([replace(ARRIVED, object_id="8")], "got PURCHASE_ORDERS UPDATE 8 as change 5"),
        ([replace(ARRIVED, sequence=2)], "one is missing"),
    ],
)
def test_anything_else_is_the_reason_that_is_given(deliveries: list[Delivery], words: str) -> None:
    with pytest.raises(CheckFailed, match=words):
        _check_exactly(Inbox(deliveries), [PLACED, RECEIVED])


def test_changes_in_the_wrong_order_are_noticed() -> None:
    again = replace(PLACED, change_id=9)
    late = replace(ARRIVED, change_id=9, received_at="2026-11-24T01:02:02.000000+00:00", sequence=2)
    with pytest.raises(CheckFailed, match="in the wrong order"):
        _check_exactly(Inbox([ARRIVED, late]), [PLACED, again])


def test_a_card_shows_the_issue_that_the_record_names() -> None:
    card = replace(ARRIVED, path="teams", resource="ISSUES", action="CREATE", data={"title": "Bent pin"})
    _check_cards(Inbox([replace(card, card=("New issue", "Bent pin", "Issue: 7"))]))
    for lines in (("New issue", "Bent pin", "Issue: 8"), ("New issue", "Scratch", "Issue: 7")):
        with pytest.raises(CheckFailed, match="does not show ISSUES CREATE 7"):
            _check_cards(Inbox([replace(card, card=lines)]))
