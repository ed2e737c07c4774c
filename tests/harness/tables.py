"""Clarion's tables as the oracle wants them, and the ledger's chain computed once more."""

from __future__ import annotations

from typing import Any

import psycopg

from clarion.ledger.chain import GENESIS, link, payload_digest, since_1970_us
from harness.oracle import Attempt, Change, Event, Subscription, Tables

_EVENTS = """
    SELECT e.event_id, e.round, e.subscription_id, e.position, e.attempts_count, e.status,
           extract(epoch FROM e.settled_at)::float8, e.body_sha256
    FROM (SELECT event_id, round, subscription_id, position, attempts_count, status, settled_at, body_sha256 FROM clarion.events
          UNION ALL
          SELECT event_id, round, subscription_id, position, attempts_count, NULL, NULL, body_sha256 FROM clarion.queue) AS e
    JOIN clarion.ledger l USING (position) WHERE l.resource {sign} %s
"""


def read_tables(connection: psycopg.Connection[Any], resource: str, *, chained: bool = True) -> Tables:
    """All there is about a resource, of one moment. `chained`: whether the ledger was written by a router."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        subscriptions = connection.execute(
            "SELECT id, receiver_id, action FROM clarion.subscriptions WHERE resource = %s", (resource,)
        ).fetchall()
        changes = connection.execute(
            """SELECT position, change_id, object_id,
                      CASE action WHEN 'c' THEN 'CREATE' WHEN 'u' THEN 'UPDATE' ELSE 'DELETE' END,
                      (coalesce(new, old)::json ->> 'version')::integer, first_event_id, events_count
               FROM clarion.ledger WHERE resource = %s ORDER BY position""",
            (resource,),
        ).fetchall()
        events = connection.execute(_EVENTS.format(sign="="), (resource,)).fetchall()
        others = {row[0] for row in connection.execute(_EVENTS.format(sign="<>"), (resource,))}
        attempts = connection.execute(
            "SELECT event_id, round, number, outcome, status_code FROM clarion.attempts ORDER BY event_id, round, number"
        ).fetchall()
        broken_links = count_broken_links(connection) if chained else 0
    return Tables(
        {number: Subscription(receiver, action) for number, receiver, action in subscriptions},
        [Change(*row) for row in changes],
        [Event(*row) for row in events],
        [Attempt(*row) for row in attempts if row[0] not in others],
        broken_links,
    )


def count_broken_links(connection: psycopg.Connection[Any]) -> int:
    """Changes of all resources that miss in an organisation's numbers, or do not hash to their link, from the genesis on."""
    tails: dict[int, tuple[int, bytes]] = {}
    broken = 0
    for organisation_id, change_id, at, resource, action, object_id, made, *payload in connection.execute(
        "SELECT organisation_id, change_id, recorded_at, resource, action::text, object_id, link, salt, old, new, "
        "actor_id, actor_name, correlation_id FROM clarion.ledger ORDER BY organisation_id, change_id"
    ):
        before, tail = tails.get(organisation_id, (0, GENESIS))
        recorded_us, digest = since_1970_us(at), payload_digest(*payload)
        expected = link(tail, organisation_id, change_id, recorded_us, resource, action, object_id, digest)
        broken += change_id != before + 1 or made != expected
        tails[organisation_id] = (change_id, made)
    return broken
