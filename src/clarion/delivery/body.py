"""The JSON that a receiver gets: a pure function of the ledger row, the event's numbers and the render version."""

from __future__ import annotations

from functools import lru_cache

from clarion.core.encoding import quote, split_object, timestamp
from clarion.delivery.event import Event
from clarion.ledger.change import Action, Change

BODY_BYTES_MAX = 256 * 1024
RENDER_VERSION = 1
_ACTIONS = {Action.CREATE.value: b'"create"', Action.UPDATE.value: b'"update"', Action.DELETE.value: b'"delete"'}


def render(event: Event) -> bytes:
    """The body, UTF-8 JSON of at most 256 KiB.

    `event_id`, `subscription_id` and `resource` come first, in this order. Row values keep the digits they were
    captured with. Data that would not fit is left out and `data_omitted` says so.
    """
    change = event.change
    head = (
        b'{"event_id":%d,"subscription_id":%d,"resource":%s,"action":%s,"object_id":%s,"change_id":%d,"sequence":%d'
        % (
            event.event_id,
            event.subscription_id,
            _resource(change.resource),
            _ACTIONS[change.action],
            quote(change.object_id),
            change.change_id,
            event.sequence,
        )
    )
    head += b',"occurred_at":"%s","recorded_at":"%s","actor":%s,"correlation_id":%s' % (
        timestamp(change.occurred_at).encode(),
        timestamp(change.recorded_at).encode(),
        _actor(change),
        b"null" if change.correlation_id is None else quote(change.correlation_id),
    )
    changed, previous = _difference(change)
    data = (change.new if change.new is not None else change.old) or "null"
    body = b'%s,"changed":%s,"data":%s,"previous":%s}' % (head, changed, data.encode(), previous)
    if len(body) <= BODY_BYTES_MAX:
        return body
    body = b'%s,"changed":%s,"data":null,"previous":null,"data_omitted":true}' % (head, changed)
    return (
        body
        if len(body) <= BODY_BYTES_MAX
        else b'%s,"changed":null,"data":null,"previous":null,"data_omitted":true}' % head
    )


def _actor(change: Change) -> bytes:
    if change.actor_id is None and change.actor_name is None:
        return b"null"
    identity = b"null" if change.actor_id is None else quote(change.actor_id)
    name = b"null" if change.actor_name is None else quote(change.actor_name)
    return b'{"id":%s,"name":%s}' % (identity, name)


def _difference(change: Change) -> tuple[bytes, bytes]:
    """`changed` and `previous` as JSON: for an UPDATE the fields whose text differs and their old values, else empty."""
    if change.action != Action.UPDATE.value or change.old is None or change.new is None:
        return b"[]", b"{}"
    old, new = split_object(change.old), split_object(change.new)
    names = [name for name, value in new.items() if old.get(name) != value]
    names += [name for name in old if name not in new]
    quoted = {name: quote(name) for name in names}
    previous = b",".join(b"%s:%s" % (quoted[name], old[name]) for name in names if name in old)
    return b"[" + b",".join(quoted.values()) + b"]", b"{" + previous + b"}"


@lru_cache(maxsize=1000)
def _resource(resource: str) -> bytes:
    return quote(resource.lower())
