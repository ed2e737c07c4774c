"""The JSON that a receiver gets: a pure function of the ledger row, the event's numbers and the render version."""

from __future__ import annotations

from functools import lru_cache

import msgspec
import orjson

from clarion.core.encoding import join_object, quote, quote_name, quote_timestamp, split_object
from clarion.core.ids import TEMPLATE_BODY
from clarion.delivery.event import Event
from clarion.ledger.change import Action, Change
from clarion.ledger.difference import difference

BODY_BYTES_MAX = 256 * 1024
_KEPT_LENGTH_MAX = 16 * 1024
"""Characters of a change above which its parts are not kept for its other events."""
_KEPT_MAX = 1000
_ACTIONS = {Action.CREATE.value: '"create"', Action.UPDATE.value: '"update"', Action.DELETE.value: '"delete"'}


def body_of(event: Event) -> bytes | None:
    """What is sent: the body that a template made when the event was routed, or the standard one; None if it had none."""
    return event.body if event.render_version == TEMPLATE_BODY else render(event)


def render(event: Event) -> bytes:
    """The standard body, UTF-8 JSON of at most 256 KiB.

    `event_id`, `subscription_id` and `resource` come first, in this order. Row values keep the digits they were
    captured with. Only the event's `fields` are shown, if it has any chosen. Data that would not fit is left out and
    `data_omitted` says so.
    """
    numbers = f'{{"event_id":{event.event_id},"subscription_id":{event.subscription_id}'
    change = event.change
    is_kept = event.shares_change and len(change.old or "") + len(change.new or "") <= _KEPT_LENGTH_MAX
    parts = _kept_parts(change, event.fields) if is_kept else _parts(change, event.fields)
    head = f'{numbers}{parts.object},"sequence":{event.sequence}{parts.circumstances}'
    body = f'{head},"changed":{parts.changed}{parts.data}'.encode()
    if len(body) <= BODY_BYTES_MAX:
        return body
    body = f'{head},"changed":{parts.changed},"data":null,"previous":null,"data_omitted":true}}'.encode()
    if len(body) <= BODY_BYTES_MAX:
        return body
    return f'{head},"changed":null,"data":null,"previous":null,"data_omitted":true}}'.encode()


class _Parts(msgspec.Struct, frozen=True, gc=False):
    """What the bodies of all events of one change have in common."""

    object: str
    circumstances: str
    changed: str
    data: str


def _parts(change: Change, fields: str | None) -> _Parts:
    chosen = None if fields is None else frozenset(orjson.loads(fields))
    changed, previous = _difference(change, chosen)
    data = (change.new if change.new is not None else change.old) or "null"
    if chosen is not None and data != "null":
        data = join_object((name, value) for name, value in split_object(data).items() if name in chosen)
    return _Parts(
        f',"resource":{_resource(change.resource)},"action":{_ACTIONS[change.action]}'
        f',"object_id":{quote(change.object_id)},"change_id":{change.change_id}',
        f',"occurred_at":{quote_timestamp(change.occurred_at)},"recorded_at":{_recorded_at(change.recorded_at)}'
        f',"actor":{_actor(change.actor_id, change.actor_name)}'
        f',"correlation_id":{"null" if change.correlation_id is None else quote(change.correlation_id)}',
        changed,
        f',"data":{data},"previous":{previous}}}',
    )


_kept: dict[tuple[int, str | None], tuple[Change, _Parts]] = {}


def _kept_parts(change: Change, fields: str | None) -> _Parts:
    """As `_parts`, for the other events of a change, which mostly come soon.

    Found by the position: to hash a change, rows and all, takes half as long as to make its parts.
    """
    key = (change.position, fields)
    kept = _kept.get(key)
    if kept is not None and (kept[0] is change or kept[0] == change):
        return kept[1]
    if len(_kept) >= _KEPT_MAX:
        _kept.clear()
    parts = _parts(change, fields)
    _kept[key] = (change, parts)
    return parts


def _difference(change: Change, chosen: frozenset[str] | None) -> tuple[str, str]:
    """`changed` and `previous` as JSON: for an UPDATE the fields whose text differs and their old values, else empty."""
    names, old = difference(change.action, change.old, change.new)
    if chosen is not None:
        names = [name for name in names if name in chosen]
    return f"[{','.join(map(quote_name, names))}]", join_object([(name, old[name]) for name in names if name in old])


_recorded_at = lru_cache(maxsize=64)(quote_timestamp)
"""All changes of one batch of the router are recorded at once."""


@lru_cache(maxsize=1000)
def _resource(resource: str) -> str:
    return quote(resource.lower())


@lru_cache(maxsize=1000)
def _actor(actor_id: str | None, name: str | None) -> str:
    if actor_id is None and name is None:
        return "null"
    return (
        f'{{"id":{"null" if actor_id is None else quote(actor_id)},"name":{"null" if name is None else quote(name)}}}'
    )
