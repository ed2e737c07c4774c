"""Pages of a long trail come from indexes: what is read does not grow with what there is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.principal import Principal, Role
from clarion.core.ids import ClientId, OrganisationId
from clarion.database.address import DatabaseAddress
from clarion.database.filters import Condition, Operator
from clarion.database.page import page_request
from clarion.records.changes import list_changes
from clarion.records.event_list import list_events
from clarion.records.trail import attempts_of_events, events_by_ids, events_of_subscriptions
from harness.audit_rows import add_receiver, add_resources, add_subscription
from harness.plans import kinds_of_nodes, most_read

SETTLED, OPEN = 50_000, 20_000
READ_MAX = 2_000
"""Rows that any node of a plan may read for one page: of each of ten subscriptions the newest hundred ids."""


@pytest.fixture(scope="module")
def organisation_id(shared_database: DatabaseAddress) -> OrganisationId:
    """An organisation with 50,000 settled events and 20,000 open ones of ten subscriptions of ten receivers. Only read."""
    with psycopg.connect(shared_database.url, autocommit=True) as connection:
        ((organisation_id,),) = connection.execute(
            "INSERT INTO clarion.organisations (name) VALUES ('long') RETURNING id"
        ).fetchall()
        add_resources(connection, [("RUNS", None)])
        for number in range(10):
            add_subscription(connection, organisation_id, add_receiver(connection, organisation_id, f"r{number}"))
        connection.execute(
            "INSERT INTO clarion.ledger (position, organisation_id, change_id, outbox_id, recorded_at, occurred_at, "
            "captured_at, xid, action, resource, object_id, link) SELECT n, %s, n, n, now(), now(), now(), '1', 'c', "
            "'RUNS', n::text, decode(repeat('00', 32), 'hex') FROM generate_series(1, %s) n",
            (organisation_id, SETTLED + OPEN),
        )
        connection.execute(
            "INSERT INTO clarion.events (event_id, round, organisation_id, receiver_id, subscription_id, position, sequence, "
            "settled_at, status, reason, attempts_count, render_version) SELECT n, 0, %s, n %% 10 + 1, n %% 10 + 1, n, n, "
            "now(), 'DELIVERED', 'SUCCEEDED', 1, 1 FROM generate_series(1, %s) n",
            (organisation_id, SETTLED),
        )
        connection.execute(
            "INSERT INTO clarion.queue (queue_id, event_id, organisation_id, receiver_id, subscription_id, position, sequence, "
            "lane, shard) SELECT n, n, %s, n %% 10 + 1, n %% 10 + 1, n, n, 1, 1 FROM generate_series(%s::int, %s::int) n",
            (organisation_id, SETTLED + 1, SETTLED + OPEN),
        )
        connection.execute(
            "INSERT INTO clarion.attempts (event_id, round, number, organisation_id, started_at, duration_ms, outcome) "
            "SELECT n, 0, 1, %s, now(), 1, 'SUCCEEDED' FROM generate_series(1, %s) n",
            (organisation_id, SETTLED),
        )
        connection.execute("VACUUM ANALYZE clarion.ledger, clarion.events, clarion.queue, clarion.attempts")
    return OrganisationId(organisation_id)


@pytest.fixture(params=[None, frozenset({"RUNS"})], ids=["may read all", "may read RUNS"])
def principal(organisation_id: OrganisationId, request: pytest.FixtureRequest) -> Principal:
    return Principal(ClientId(1), "reader", "MACHINE", Role.AUDITOR, organisation_id, request.param)


async def test_pages_of_a_long_trail_come_from_indexes(
    connection: AsyncConnection, principal: Principal, shared_database: DatabaseAddress
) -> None:
    newest = await list_events(connection, principal, (), page_request(50, None, None, None))
    assert [event.id for _cursor, event in newest.rows] == list(range(SETTLED + OPEN, SETTLED + OPEN - 50, -1))
    middle = (await list_events(connection, principal, (), page_request(50, newest.rows[-1][0], None, None))).rows[0]
    of_receiver = [Condition("receiver_id", Operator.EQ, (3,))]
    reads: dict[str, Callable[[], Awaitable[object]]] = {
        "newest": lambda: list_events(connection, principal, (), page_request(50, None, None, None)),
        "after a cursor": lambda: list_events(connection, principal, (), page_request(50, middle[0], None, None)),
        "oldest": lambda: list_events(
            connection, principal, (), page_request(50, None, None, None), newest_first=False
        ),
        "of a receiver": lambda: list_events(connection, principal, of_receiver, page_request(50, None, None, None)),
        "by id": lambda: events_by_ids(connection, principal, [1, SETTLED + 1]),
        "attempts": lambda: attempts_of_events(connection, principal.organisation_id, list(range(1, 101)), 20),
    }
    counted = {name: await most_read(connection, shared_database, read) for name, read in reads.items()}
    assert {name: rows for name, rows in counted.items() if rows > READ_MAX} == {}, counted


async def test_events_of_subscriptions_read_no_other_receivers_open_events(
    connection: AsyncConnection, principal: Principal, shared_database: DatabaseAddress
) -> None:
    found = await events_of_subscriptions(connection, principal, [1, 2], 20)
    assert {key: len(events) for key, events in found.items()} == {1: 20, 2: 20}
    assert all(event.subscription_id == key for key, events in found.items() for event in events)
    rows = await most_read(
        connection, shared_database, lambda: events_of_subscriptions(connection, principal, [1, 2], 20)
    )
    assert rows <= 2 * OPEN / 10


async def test_an_organisation_with_few_events_does_not_read_through_those_of_the_others(
    connection: AsyncConnection, organisation_id: OrganisationId, shared_database: DatabaseAddress
) -> None:
    other = Principal(ClientId(1), "reader", "MACHINE", Role.AUDITOR, OrganisationId(organisation_id + 1_000))
    for wanted in ([], [Condition("status", Operator.EQ, ("DELIVERED",))]):
        rows = await most_read(
            connection,
            shared_database,
            partial(list_events, connection, other, wanted, page_request(50, None, None, None)),
        )
        assert rows <= READ_MAX


async def test_an_objects_changes_are_found_by_the_index_of_stretches(
    connection: AsyncConnection, principal: Principal, shared_database: DatabaseAddress
) -> None:
    wanted = [Condition("object_id", Operator.EQ, ("4711",))]
    request = page_request(50, None, None, None)
    page = await list_changes(connection, principal, wanted, request)
    assert [change.change_id for _, change in page.rows] == [4711]
    kinds = await kinds_of_nodes(
        connection, shared_database, lambda: list_changes(connection, principal, wanted, request)
    )
    assert "Bitmap Index Scan" in kinds
    assert "Seq Scan" not in kinds
