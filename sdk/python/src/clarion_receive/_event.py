"""The event inside a verified request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class VerifiedEvent:
    """A request whose signature held.

    `id` is the `webhook-id`: equal for every repetition of one event, so remember it to act only once.
    `timestamp` is when it was sent (aware, UTC), `body` the signed bytes, `payload` their JSON (None if the body
    is no JSON, as a template may have made it).

    The other fields are those of Clarion's own body. Where a body lacks one, or has another type there, a number
    is None, a text is empty, `data`, `previous` and `actor` are empty dictionaries, `changed` is an empty tuple.
    `change_id` orders the changes of one object, `sequence` counts without gaps per subscription.
    """

    id: str
    timestamp: datetime
    body: bytes
    payload: Any
    event_id: int | None
    subscription_id: int | None
    resource: str
    action: str
    object_id: str
    change_id: int | None
    sequence: int | None
    occurred_at: str
    recorded_at: str
    actor: dict[str, Any]
    correlation_id: str
    changed: tuple[str, ...]
    data: dict[str, Any]
    previous: dict[str, Any]
    data_omitted: bool


def event_of(message_id: str, timestamp: datetime, body: bytes) -> VerifiedEvent:
    """The event in a body whose signature held; any body gives one."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):  # no JSON, not UTF-8, numbers or nesting beyond Python's limits
        payload = None
    fields: dict[str, Any] = payload if isinstance(payload, dict) else {}
    changed = fields.get("changed")
    return VerifiedEvent(
        id=message_id,
        timestamp=timestamp,
        body=body,
        payload=payload,
        event_id=_number(fields.get("event_id")),
        subscription_id=_number(fields.get("subscription_id")),
        resource=_text(fields.get("resource")),
        action=_text(fields.get("action")),
        object_id=_text(fields.get("object_id")),
        change_id=_number(fields.get("change_id")),
        sequence=_number(fields.get("sequence")),
        occurred_at=_text(fields.get("occurred_at")),
        recorded_at=_text(fields.get("recorded_at")),
        actor=_object(fields.get("actor")),
        correlation_id=_text(fields.get("correlation_id")),
        changed=tuple(name for name in changed if isinstance(name, str)) if isinstance(changed, list) else (),
        data=_object(fields.get("data")),
        previous=_object(fields.get("previous")),
        data_omitted=fields.get("data_omitted") is True,
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
