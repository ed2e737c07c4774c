"""What the receiver reports to the demo: requests that came, and what was done about them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Final

from clarion.factory.act import Act
from clarion_receive import VerifiedEvent

IGNORED: Final = "ignored: "
"""How the words begin where a receiver had nothing to do."""
READY: Final = b'{"report": "ready"}\n'


@dataclass(frozen=True, slots=True)
class OpenedIssue:
    """An act that an integrator made happen in the factory: its correlation id and its changes."""

    correlation_id: str
    changes: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request as it came to the receiver at `path`, and what that did about it.

    `received_at` is the receiver's clock (ISO 8601, UTC) when the body was there, `ms` the milliseconds from the
    trigger's clock in the application's transaction (`occurred_at`) until then; None when the request was not verified.
    `card` has the lines of a card that came in place of Clarion's own body: such a request says nothing else of its change.
    """

    path: str
    received_at: str
    is_verified: bool
    did: str
    ms: float | None = None
    webhook_id: str = ""
    event_id: int = 0
    subscription_id: int = 0
    resource: str = ""
    action: str = ""
    object_id: str = ""
    change_id: int = 0
    sequence: int = 0
    occurred_at: str = ""
    correlation_id: str = ""
    actor: dict[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    previous: dict[str, Any] = field(default_factory=dict)
    is_repeated: bool = False
    is_failed: bool = False
    opened: OpenedIssue | None = None
    card: tuple[str, ...] = ()

    @classmethod
    def unverified(cls, path: str, at: datetime, reason: str) -> Delivery:
        """A request that did not verify; nothing in it is believed."""
        return cls(path, _text(at), is_verified=False, did=f"refused: {reason}")

    @classmethod
    def verified(
        cls,
        path: str,
        at: datetime,
        event: VerifiedEvent,
        did: str,
        act: Act | None = None,
        *,
        repeated: bool = False,
        failed: bool = False,
        card: tuple[str, ...] = (),
    ) -> Delivery:
        """A request whose signature held."""
        changes = tuple((change.resource, change.action, change.object_id) for change in act.changes) if act else ()
        return cls(
            path=path,
            received_at=_text(at),
            is_verified=True,
            did=did,
            ms=milliseconds(event.occurred_at, at) if event.occurred_at else None,
            webhook_id=event.id,
            event_id=event.event_id or _event_id(event.id),
            subscription_id=event.subscription_id or 0,
            resource=event.resource.upper(),
            action=event.action.upper(),
            object_id=event.object_id,
            change_id=event.change_id or 0,
            sequence=event.sequence or 0,
            occurred_at=event.occurred_at,
            correlation_id=event.correlation_id,
            actor=event.actor,
            changed=event.changed,
            data=event.data,
            previous=event.previous,
            is_repeated=repeated,
            is_failed=failed,
            opened=OpenedIssue(act.correlation_id, changes) if act else None,
            card=card,
        )

    @property
    def change(self) -> tuple[str, str, str]:
        """Resource, action and object, as an act names its changes."""
        return self.resource, self.action, self.object_id

    def line(self) -> bytes:
        """As it goes through the pipe."""
        return json.dumps({"report": "delivery", **asdict(self)}).encode() + b"\n"


def milliseconds(occurred_at: str, at: datetime) -> float:
    """From the trigger's clock (ISO 8601) to a moment."""
    return round((at - datetime.fromisoformat(occurred_at)).total_seconds() * 1000, 1)


def _event_id(webhook_id: str) -> int:
    """The event's id, which a `webhook-id` ends with; 0 if it does not."""
    last = webhook_id.rpartition("_")[2]
    return int(last) if last.isdecimal() else 0


def _text(at: datetime) -> str:
    """All of one length, so that they sort as text."""
    return at.isoformat(timespec="microseconds")


def read_report(line: bytes) -> Delivery | None:
    """The report in a line; None says that the receiver is ready."""
    values: dict[str, Any] = json.loads(line)
    if values.pop("report") == "ready":
        return None
    opened = values.pop("opened")
    if opened is not None:
        changes = tuple((str(one[0]), str(one[1]), str(one[2])) for one in opened["changes"])
        values["opened"] = OpenedIssue(opened["correlation_id"], changes)
    known = {entry.name for entry in fields(Delivery)}
    values["changed"], values["card"] = tuple(values["changed"]), tuple(values["card"])
    return Delivery(**{name: value for name, value in values.items() if name in known})
