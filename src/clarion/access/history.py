"""Who changed what, when, and what it was before: written in the transaction of the change itself.

Secrets never come here: callers hand over what they would show to every reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.principal import Principal
from clarion.database import tables


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing done to one object; `before` and `after` are JSON objects, absent for a side that there is none of.

    Or one that was refused: `refusal` is the error's code and `message` its text, the object what was asked for.
    """

    action: str
    object_type: str
    object_id: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    refusal: str | None = None
    message: str | None = None


async def record(connection: AsyncConnection, principal: Principal, entries: Sequence[Entry]) -> None:
    """Append the entries with the principal's name and the database's time."""
    if not entries:
        return
    written = [
        {
            "organisation_id": principal.organisation_id,
            "client_id": principal.client_id,
            "client_name": principal.name,
            "api_key_id": principal.origin.api_key_id,
            "from_address": principal.origin.address,
            "request_id": principal.origin.request_id,
            "action": entry.action,
            "object_type": entry.object_type,
            "object_id": entry.object_id,
            "before": None if entry.before is None else dict(entry.before),
            "after": None if entry.after is None else dict(entry.after),
            "refusal": entry.refusal,
            "message": entry.message,
        }
        for entry in entries
    ]
    # The driver's way for many rows costs a single one twice as much.
    await connection.execute(_INSERT, written if len(written) > 1 else written[0])


# Made once: to build a statement costs more than to run it.
_INSERT = insert(tables.history)


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sides, cut to the members that differ."""
    changed = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in changed}, {name: after[name] for name in changed}
