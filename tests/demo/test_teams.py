"""The adaptive card: what we send passes the endpoint's check, and the check refuses what Teams would."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.demo.teams import card_faults, issue_card
from clarion_receive import VerifiedEvent
from clarion_receive._event import event_of


def _event(**issue: Any) -> VerifiedEvent:
    body = {
        "resource": "issues",
        "action": "create",
        "object_id": "7",
        "actor": {"id": "1", "name": "Ada"},
        "data": issue,
    }
    return event_of("evt_x_1", datetime(2026, 11, 24, tzinfo=UTC), json.dumps(body).encode())


ISSUE = {"id": 7, "title": "Torque above limit", "status": "pending", "run_id": 3, "cause_condition": "worn tool"}


def test_the_card_is_a_message_with_one_adaptive_card() -> None:
    message = issue_card(_event(**ISSUE))
    assert message["type"] == "message"
    (attachment,) = message["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert card["body"][1]["text"] == "Torque above limit"
    assert {"title": "Run", "value": "3"} in card["body"][2]["facts"]
    assert card_faults(message) == []


@given(st.text(min_size=1), st.text(), st.none() | st.integers())
def test_every_issue_makes_a_card_that_is_taken(title: str, cause: str, run_id: int | None) -> None:
    card = issue_card(_event(title=title, cause_condition=cause, run_id=run_id, status="pending"))
    assert card_faults(json.loads(json.dumps(card))) == []


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
        lambda message: message["attachments"][0]["content"]["body"][0].update(text=""),
        lambda message: message["attachments"][0]["content"]["body"][2]["facts"].append({"title": "no value"}),
        lambda message: message["attachments"][0]["content"]["body"].append({"type": "Unknown"}),
    ],
)
def test_a_malformed_card_is_refused(spoil: Callable[[dict[str, Any]], object]) -> None:
    message = copy.deepcopy(issue_card(_event(**ISSUE)))
    spoil(message)
    assert card_faults(message)


@pytest.mark.parametrize("message", [None, [], "text", 1])
def test_what_is_no_object_is_refused(message: object) -> None:
    assert card_faults(message) == ["the message is no object"]
