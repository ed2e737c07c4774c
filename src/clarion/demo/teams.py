"""Microsoft Teams: an endpoint's view of the messages that it takes, and what their cards show.

Source of the format: Microsoft's schema of adaptive cards 1.4, and the message that an incoming webhook of Teams takes.
"""

from __future__ import annotations

import json
from typing import Any, Final

CONTENT_TYPE: Final = "application/vnd.microsoft.card.adaptive"
SCHEMA: Final = "http://adaptivecards.io/schemas/adaptive-card.json"
MESSAGE_BYTES_MAX: Final = 28 * 1024
"""Of the message as UTF-16, which is how Teams was seen to count."""
CARD_ACCEPTED: Final = 200
CARD_ACCEPTED_BODY: Final = "1"
"""Status and body of the answer to a card that was taken."""


def card_faults(message: object) -> list[str]:
    """What keeps Teams from showing this message; empty when nothing does."""
    if not isinstance(message, dict):
        return ["the message is no object"]
    faults = [] if message.get("type") == "message" else ["type is not message"]
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode("utf-16-le", "surrogatepass")) > MESSAGE_BYTES_MAX:
        faults.append(f"the message has more than {MESSAGE_BYTES_MAX} bytes")
    attachments = message.get("attachments")
    if not isinstance(attachments, list) or not attachments:
        return [*faults, "there are no attachments"]
    for attachment in attachments:
        if not isinstance(attachment, dict) or attachment.get("contentType") != CONTENT_TYPE:
            faults.append(f"an attachment is not {CONTENT_TYPE}")
            continue
        faults += _content_faults(attachment.get("content"))
    return faults


def card_lines(message: dict[str, Any]) -> tuple[str, ...]:
    """What the card of a message without faults shows, line by line."""
    lines: list[str] = []
    for element in message["attachments"][0]["content"]["body"]:
        match element["type"]:
            case "TextBlock":
                lines.append(element["text"])
            case "RichTextBlock":
                lines.append("".join(run["text"] for run in element["inlines"]))
            case _:
                lines += [f"{fact['title']}: {fact['value']}" for fact in element["facts"]]
    return tuple(lines)


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
            case {"type": "RichTextBlock", "inlines": [_, *_] as inlines} if all(_is_run(run) for run in inlines):
                pass
            case {"type": "FactSet", "facts": [_, *_] as facts} if all(_is_fact(fact) for fact in facts):
                pass
            case _:
                faults.append(f"unknown or empty element: {json.dumps(element)[:80]}")
    return faults


def _is_run(run: object) -> bool:
    return isinstance(run, dict) and run.get("type") == "TextRun" and isinstance(run.get("text"), str)


def _is_fact(fact: object) -> bool:
    return isinstance(fact, dict) and all(isinstance(fact.get(name), str) for name in ("title", "value"))
