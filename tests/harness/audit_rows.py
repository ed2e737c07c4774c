"""Rows of ledger, queue, events and attempts as the router and the workers leave them, written straight to the tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

BEGAN = datetime(2026, 11, 24, 1, 2, 3, 456789, tzinfo=UTC)
"""When position 0 was recorded; each further one came a second later."""

NOBODY = b"\x00" * 32


def add_change(
    connection: psycopg.Connection[Any],
    position: int,
    *,
    organisation_id: int,
    resource: str = "RUNS",
    action: str = "c",
    object_id: str = "42",
    change_id: int | None = None,
    old: str | None = None,
    new: str | None = None,
) -> None:
    moment = BEGAN + timedelta(seconds=position)
    number = position if change_id is None else change_id
    connection.execute(
        "INSERT INTO clarion.ledger (position, organisation_id, change_id, outbox_id, recorded_at, occurred_at, captured_at, xid, "
        "action, resource, object_id, link, old, new) VALUES (%s, %s, %s, %s, %s, %s, %s, '1', %s, %s, %s, %s, %s, %s)",
        (
            *(position, organisation_id, number, position, moment, moment, moment),
            *(action, resource, object_id, NOBODY, old, new),
        ),
    )


def add_open(
    connection: psycopg.Connection[Any],
    event_id: int,
    *,
    organisation_id: int,
    receiver_id: int,
    subscription_id: int,
    position: int,
    sent_again: int = 0,
    due_at: datetime | None = None,
) -> None:
    connection.execute(
        "INSERT INTO clarion.queue (queue_id, event_id, organisation_id, receiver_id, subscription_id, position, sequence, "
        "lane, shard, round, due_at) VALUES (%s, %s, %s, %s, %s, %s, %s, 1, 1, %s, %s)",
        (
            event_id * 10 + sent_again,
            event_id,
            organisation_id,
            receiver_id,
            subscription_id,
            position,
            event_id,
            sent_again,
            due_at,
        ),
    )
    _note_event(connection, position, event_id)


def add_settled(
    connection: psycopg.Connection[Any],
    event_id: int,
    *,
    organisation_id: int,
    receiver_id: int,
    subscription_id: int,
    position: int,
    sent_again: int = 0,
    status: str = "DELIVERED",
    reason: str = "SUCCEEDED",
) -> None:
    connection.execute(
        "INSERT INTO clarion.events (event_id, round, organisation_id, receiver_id, subscription_id, position, sequence, "
        "settled_at, status, reason, attempts_count, render_version) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 1, 1)",
        (
            event_id,
            sent_again,
            organisation_id,
            receiver_id,
            subscription_id,
            position,
            event_id,
            BEGAN + timedelta(hours=1 + sent_again),
            status,
            reason,
        ),
    )
    _note_event(connection, position, event_id)


def _note_event(connection: psycopg.Connection[Any], position: int, event_id: int) -> None:
    """Have the change know of the event: ids from its first event's to this one's are its own."""
    connection.execute(
        "UPDATE clarion.ledger SET first_event_id = least(first_event_id, %(id)s), events_count = "
        "greatest(first_event_id + events_count - 1, %(id)s) - least(first_event_id, %(id)s) + 1 WHERE position = %(position)s",
        {"id": event_id, "position": position},
    )


def add_attempt(
    connection: psycopg.Connection[Any],
    event_id: int,
    number: int,
    *,
    organisation_id: int,
    sent_again: int = 0,
    outcome: str = "SUCCEEDED",
    status_code: int | None = 200,
    headers: str | None = '[["content-type","text/plain"]]',
    body: bytes | None = b"ok",
) -> None:
    connection.execute(
        "INSERT INTO clarion.attempts (event_id, round, number, organisation_id, started_at, duration_ms, status_code, "
        "outcome, response_headers, response_body, source_address, peer_address) "
        "VALUES (%s, %s, %s, %s, %s, 12, %s, %s, %s, %s, '10.0.0.1', '192.0.2.1')",
        (event_id, sent_again, number, organisation_id, BEGAN, status_code, outcome, headers, body),
    )


def add_receiver(connection: psycopg.Connection[Any], organisation_id: int, name: str = "receiver") -> int:
    row = connection.execute(
        "INSERT INTO clarion.receivers (organisation_id, name, webhook_uri, shared_secret_sealed, shared_secret_hint) "
        "VALUES (%s, %s, 'https://example.com/', %s, 'abcd') RETURNING id",
        (organisation_id, name, b"sealed"),
    ).fetchone()
    assert row is not None
    return int(row[0])


def add_subscription(
    connection: psycopg.Connection[Any], organisation_id: int, receiver_id: int, resource: str = "RUNS"
) -> int:
    row = connection.execute(
        "INSERT INTO clarion.subscriptions (organisation_id, receiver_id, resource, action) "
        "VALUES (%s, %s, %s, 'CREATE') RETURNING id",
        (organisation_id, receiver_id, resource),
    ).fetchone()
    assert row is not None
    return int(row[0])


def add_resources(connection: psycopg.Connection[Any], names: Sequence[tuple[str, str | None]]) -> None:
    for name, singular in names:
        connection.execute(
            "INSERT INTO clarion.resources (name, singular, description, schema_name, table_name, key_columns) "
            "VALUES (%s, %s, %s, 'public', %s, '{id}')",
            (name, singular, f"All {name.lower()}.", name.lower()),
        )


AS_MADE: dict[str, list[str]] = {}
"""Etags of the resources that `keep_resources` made, by the address of their database."""


def keep_resources(
    connection: psycopg.Connection[Any], address: str, names: Sequence[str], make: Callable[[], object]
) -> None:
    """Make these resources unless they are there as an earlier test of the file made them; later ones find them."""
    etags = "SELECT coalesce(array_agg(etag), '{}') FROM clarion.resources WHERE name = ANY (%s)"
    ((found,),) = connection.execute(etags, (list(names),)).fetchall()
    kept = AS_MADE.setdefault(address, [])
    if len(found) == len(names) and set(found) <= set(kept):
        return
    connection.execute("DELETE FROM clarion.resources WHERE name = ANY (%s)", (list(names),))
    make()
    ((made,),) = connection.execute(etags, (list(names),)).fetchall()
    kept += made
