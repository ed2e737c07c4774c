"""Microsoft Teams: the card that an integrator posts, and an endpoint's view of what it takes.

Source of the format: Microsoft's schema of adaptive cards 1.4, and the message that an incoming webhook of Teams takes.
"""

from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from clarion_receive import VerifiedEvent

CONTENT_TYPE: Final = "application/vnd.microsoft.card.adaptive"
SCHEMA: Final = "http://adaptivecards.io/schemas/adaptive-card.json"
ACCEPTED: Final = "1"
"""The body of the answer to a card that was taken."""

_TIMEOUT_SECONDS: Final = 5


class CardRefused(Exception):
    """Teams did not take the card; the message says why."""


def issue_card(event: VerifiedEvent) -> dict[str, Any]:
    """The message with one adaptive card that shows a new issue."""
    issue = event.data
    facts = {
        "Issue": event.object_id,
        "Status": issue.get("status"),
        "Run": issue.get("run_id"),
        "Cause": issue.get("cause_condition"),
        "Expected": issue.get("expected_condition"),
        "Reported by": event.actor.get("name"),
    }
    shown = [{"title": name, "value": str(value)} for name, value in facts.items() if value not in (None, "")]
    card = {
        "$schema": SCHEMA,
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            {"type": "TextBlock", "text": "New issue", "weight": "Bolder", "color": "Attention"},
            {"type": "TextBlock", "text": str(issue.get("title", "")), "size": "Large", "wrap": True},
            {"type": "FactSet", "facts": shown},
        ],
    }
    return {"type": "message", "attachments": [{"contentType": CONTENT_TYPE, "contentUrl": None, "content": card}]}


def post_card(uri: str, card: dict[str, Any], authority: Path) -> None:
    """Posts a message to an incoming webhook over HTTPS. Raises CardRefused for any answer but its acceptance."""
    target = urlsplit(uri)
    connection = http.client.HTTPSConnection(
        target.hostname or "",
        target.port,
        timeout=_TIMEOUT_SECONDS,
        context=ssl.create_default_context(cafile=str(authority)),
    )
    try:
        connection.request("POST", target.path, json.dumps(card), {"content-type": "application/json"})
        answer = connection.getresponse()
        body = answer.read(4096).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise CardRefused(str(error) or type(error).__name__) from error
    finally:
        connection.close()
    if answer.status != http.client.OK or body != ACCEPTED:
        raise CardRefused(f"{answer.status} {body[:200]}")


def card_faults(message: object) -> list[str]:
    """What keeps Teams from showing this message; empty when nothing does."""
    if not isinstance(message, dict):
        return ["the message is no object"]
    faults = [] if message.get("type") == "message" else ["type is not message"]
    attachments = message.get("attachments")
    if not isinstance(attachments, list) or not attachments:
        return [*faults, "there are no attachments"]
    for attachment in attachments:
        if not isinstance(attachment, dict) or attachment.get("contentType") != CONTENT_TYPE:
            faults.append(f"an attachment is not {CONTENT_TYPE}")
            continue
        faults += _content_faults(attachment.get("content"))
    return faults


def _content_faults(card: object) -> list[str]:
    if not isinstance(card, dict):
        return ["the card is no object"]
    faults = [
        f"{name} is not {wanted}"
        for name, wanted in (("$schema", SCHEMA), ("type", "AdaptiveCard"), ("version", "1.4"))
        if card.get(name) != wanted
    ]
    body = card.get("body")
    if not isinstance(body, list) or not body:
        return [*faults, "the card has no body"]
    for element in body:
        match element:
            case {"type": "TextBlock", "text": str(text)} if text:
                pass
            case {"type": "FactSet", "facts": [_, *_] as facts} if all(_is_fact(fact) for fact in facts):
                pass
            case _:
                faults.append(f"unknown or empty element: {json.dumps(element)[:80]}")
    return faults


def _is_fact(fact: object) -> bool:
    return isinstance(fact, dict) and all(isinstance(fact.get(name), str) for name in ("title", "value"))
