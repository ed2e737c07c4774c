"""Changes that come over HTTP, on their way into the outbox: one statement a batch, all or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.principal import Principal
from clarion.capture.batch import SentChange

_RESOURCE_CHANGED = "CL002"
_HELD_BY_OTHERS = frozenset({"55P03", "40P01"})
"""A lock was waited for too long, or in a circle."""

_PUBLISH = text(
    "SELECT clarion.publish_changes(CAST(:resources AS text[]), CAST(:etags AS text[]), CAST(:places AS integer[]), "
    "CAST(:actions AS text[]), CAST(:object_ids AS text[]), CAST(:olds AS text[]), CAST(:news AS text[]), "
    "CAST(:actor_ids AS text[]), CAST(:actor_names AS text[]), CAST(:correlation_ids AS text[]))"
)


class ResourceChanged(Exception):
    """A resource was changed or removed after the changes were checked against it: check again."""


class HeldByOthers(Exception):
    """An object of the batch is being published in another transaction, and was for half a second."""


async def publish(
    connection: AsyncConnection,
    principal: Principal,
    changes: Sequence[SentChange],
    etags: Mapping[str, str],
    correlation_id: str,
) -> None:
    """Put the changes into the outbox, of the organisation that the transaction named. Nothing of them is there before it commits.

    `etags` has each resource of the changes as it was when they were checked. A change that names no actor is the
    client's, one that names no correlation id part of `correlation_id`. After an error the transaction is of no use.
    Raises ResourceChanged, HeldByOthers.
    """
    places = {name: place for place, name in enumerate(etags, start=1)}
    client = (str(principal.client_id), principal.name)
    actors = [
        client if change.actor_id is None and change.actor_name is None else (change.actor_id, change.actor_name)
        for change in changes
    ]
    values: dict[str, Any] = {
        "resources": list(etags),
        "etags": list(etags.values()),
        "places": [places[change.resource] for change in changes],
        "actions": [change.action for change in changes],
        "object_ids": [change.object_id for change in changes],
        "olds": [change.old for change in changes],
        "news": [change.new for change in changes],
        "actor_ids": [actor_id for actor_id, _ in actors],
        "actor_names": [actor_name for _, actor_name in actors],
        "correlation_ids": [change.correlation_id or correlation_id for change in changes],
    }
    try:
        await connection.execute(_PUBLISH, values)
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        if state == _RESOURCE_CHANGED:
            raise ResourceChanged from None
        if state in _HELD_BY_OTHERS:
            raise HeldByOthers from None
        raise
