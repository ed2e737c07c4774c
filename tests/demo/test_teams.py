"""The Teams-shaped endpoint: it takes the card that the demo's template makes, and refuses what Teams would."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.demo.integration import INTEGRATIONS
from clarion.demo.teams import card_faults, card_lines
from clarion.expressions.program import load_program
from clarion.expressions.render import render_template
from clarion.expressions.row import Values
from clarion.ledger.change import Captured
from harness.chat import teams_faults

TEMPLATE = INTEGRATIONS[-1].template or ""


def _message(**issue: Any) -> Any:
    row = dict.fromkeys(("title", "status", "run_id", "cause_condition", "expected_condition")) | {"title": ""} | issue
    change = Captured(
        1, 1, None, "ISSUES", "c", "7", 1, 1, None, None, "1", "Ada", None, None, json.dumps(row, ensure_ascii=False)
    )
    return json.loads(render_template(Values(change), load_program(TEMPLATE)))


ISSUE = {"title": "Torque above limit", "status": "pending", "run_id": 3, "cause_condition": "worn tool"}


def test_the_card_shows_the_issue() -> None:
    message = _message(**ISSUE)
    assert card_faults(message) == []
    assert card_lines(message) == (
        "New issue",
        "Torque above limit",
        "Issue: 7",
        "Status: pending",
        "Run: 3",
        "Cause: worn tool",
        "Reported by: Ada",
    )


_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(_texts, _texts, st.none() | st.integers(1, 2**40))
def test_every_issue_makes_a_card_that_is_taken(title: str, cause: str, run_id: int | None) -> None:
    message = _message(title=title, cause_condition=cause, run_id=run_id, status="pending")
    assert card_faults(message) == []
    shown = card_lines(message)[1]
    assert shown == title or (shown == "(no title)" and not title.strip())


def _block(message: Any, number: int) -> Any:
    return message["attachments"][0]["content"]["body"][number]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda message: message.pop("type"),
        lambda message: message.pop("attachments"),
        lambda message: message["attachments"].clear(),
        lambda message: message["attachments"][0].update(contentType="text/plain"),
        lambda message: message["attachments"][0].pop("content"),
        lambda message: message["attachments"][0]["content"].update(type="Card"),
        lambda message: message["attachments"][0]["content"].update(version="9"),
        lambda message: message["attachments"][0]["content"].pop("$schema"),
        lambda message: message["attachments"][0]["content"]["body"].clear(),
        lambda message: message["attachments"][0]["content"]["body"].append({"type": "Unknown"}),
        lambda message: message["attachments"][0]["content"]["body"].append(
            {"type": "FactSet", "facts": [{"title": "no value"}]}
        ),
        lambda message: _block(message, 0).update(text=""),
        lambda message: _block(message, 1)["inlines"].clear(),
        lambda message: _block(message, 1)["inlines"][0].pop("type"),
        lambda message: _block(message, 1)["inlines"][0].update(text=3),
        lambda message: _block(message, 1)["inlines"][0].update(text="x" * 28 * 1024),
    ],
)
def test_a_malformed_card_is_refused(spoil: Callable[[dict[str, Any]], object]) -> None:
    message = copy.deepcopy(_message(**ISSUE))
    spoil(message)
    assert card_faults(message)
    assert teams_faults(message)


@pytest.mark.parametrize("message", [None, [], "text", 1])
def test_what_is_no_object_is_refused(message: object) -> None:
    assert card_faults(message) == ["the message is no object"]
