"""The JSON that a receiver gets: a pure function of the ledger row, the event's numbers and the render version."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from clarion.core.encoding import quote, quote_timestamp, split_object
from clarion.delivery.event import Event
from clarion.ledger.change import Action, Change

BODY_BYTES_MAX = 256 * 1024
RENDER_VERSION = 1
_KEPT_LENGTH_MAX = 16 * 1024
"""Characters of a change above which its parts are not kept for its other events."""
_ACTIONS = {Action.CREATE.value: '"create"', Action.UPDATE.value: '"update"', Action.DELETE.value: '"delete"'}


def render(event: Event) -> bytes:
    """The body, UTF-8 JSON of at most 256 KiB.

    `event_id`, `subscription_id` and `resource` come first, in this order. Row values keep the digits they were
    captured with. Data that would not fit is left out and `data_omitted` says so.
    """
    numbers = f'{{"event_id":{event.event_id},"subscription_id":{event.subscription_id}'
    change = event.change
    is_small = len(change.old or "") + len(change.new or "") <= _KEPT_LENGTH_MAX
    parts = _kept_parts(change) if is_small else _parts(change)
    head = f'{numbers}{parts.object},"sequence":{event.sequence}{parts.circumstances}'
    body = f'{head},"changed":{parts.changed}{parts.data}'.encode()
    if len(body) <= BODY_BYTES_MAX:
        return body
    body = f'{head},"changed":{parts.changed},"data":null,"previous":null,"data_omitted":true}}'.encode()
    if len(body) <= BODY_BYTES_MAX:
        return body
    return f'{head},"changed":null,"data":null,"previous":null,"data_omitted":true}}'.encode()


class _Parts(NamedTuple):
    """What the bodies of all events of one change have in common."""

    object: str
    circumstances: str
    changed: str
    data: str


def _parts(change: Change) -> _Parts:
    changed, previous = _difference(change)
    data = (change.new if change.new is not None else change.old) or "null"
    return _Parts(
        f',"resource":{_resource(change.resource)},"action":{_ACTIONS[change.action]}'
        f',"object_id":{quote(change.object_id)},"change_id":{change.change_id}',
        f',"occurred_at":{quote_timestamp(change.occurred_at)},"recorded_at":{quote_timestamp(change.recorded_at)}'
        f',"actor":{_actor(change.actor_id, change.actor_name)}'
        f',"correlation_id":{"null" if change.correlation_id is None else quote(change.correlation_id)}',
        changed,
        f',"data":{data},"previous":{previous}}}',
    )


_kept_parts = lru_cache(maxsize=1000)(_parts)


def _difference(change: Change) -> tuple[str, str]:
    """`changed` and `previous` as JSON: for an UPDATE the fields whose text differs and their old values, else empty."""
    if change.action != Action.UPDATE.value or change.old is None or change.new is None:
        return "[]", "{}"
    old, new = split_object(change.old), split_object(change.new)
    names = [name for name, value in new.items() if old.get(name) != value]
    if old.keys() != new.keys():
        names += [name for name in old if name not in new]
    changed = [_name(name) for name in names]
    previous = [f"{_name(name)}:{bytes(old[name]).decode()}" for name in names if name in old]
    return f"[{','.join(changed)}]", f"{{{','.join(previous)}}}"


@lru_cache(maxsize=1000)
def _resource(resource: str) -> str:
    return quote(resource.lower())


@lru_cache(maxsize=10_000)
def _name(name: str) -> str:
    return quote(name)


@lru_cache(maxsize=1000)
def _actor(actor_id: str | None, name: str | None) -> str:
    if actor_id is None and name is None:
        return "null"
    return (
        f'{{"id":{"null" if actor_id is None else quote(actor_id)},"name":{"null" if name is None else quote(name)}}}'
    )
