"""The Change value: what the trigger captured, before and after it has its numbers."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

import msgspec


class Action(StrEnum):
    """What happened to the object; the value is how tables spell it."""

    CREATE = "c"
    UPDATE = "u"
    DELETE = "d"


ACTION_NAMES = {action.value: action.name for action in Action}
"""What people and expressions call an action, by what tables spell."""


class Captured(NamedTuple):
    """One row of the outbox, not yet numbered.

    The organisation is known by id or by name, never both. `old_ctid` and `new_ctid` are the row's places before and
    after, as text that begins with its table's oid; `xid` the transaction; `depth` the nesting of triggers that it was
    captured at. `half_of`: on the CREATE half of a change, the DELETE half's id; on an UPDATE that was captured as two
    halves, the CREATE half's.
    """

    outbox_id: int
    organisation_id: int | None
    organisation: str | None
    resource: str
    action: str
    object_id: str
    xid: int
    depth: int
    old_ctid: str | None
    new_ctid: str | None
    actor_id: str | None
    actor_name: str | None
    correlation_id: str | None
    old: str | None
    new: str | None
    half_of: int | None = None


class Change(msgspec.Struct, frozen=True, gc=False):
    """One row of the ledger, as a webhook's body needs it."""

    position: int
    change_id: int
    resource: str
    action: str
    object_id: str
    occurred_at: datetime
    recorded_at: datetime
    actor_id: str | None
    actor_name: str | None
    correlation_id: str | None
    old: str | None
    new: str | None
