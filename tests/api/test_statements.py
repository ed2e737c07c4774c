"""How often typical requests ask the database: as often for fifty objects as for one, and never without end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event

from clarion.api.session import STATEMENTS_MAX
from harness.api import Caller
from harness.audit_rows import add_change, add_settled

FULL = """
query($first: Int!) { webhookReceivers(first: $first) { pageInfo { totalCount } edges { node {
    name createdBy { name } updatedBy { name } headers(first: 2) { key }
    subscriptions(first: 2) { resource createdBy { name } activeFromPosition evaluationErrors { since }
        receiver { name createdBy { name } }
        events(first: 2) { id subscription { id } attempts(first: 2) { number } } } } } } }
"""


@contextmanager
def statements() -> Iterator[list[str]]:
    """What the API, which is in this process, asks the database in the block, without what follows the schema."""
    asked: list[str] = []

    def listen(connection: Any, _cursor: Any, statement: str, *_: object) -> None:
        if connection.get_execution_options().get("clarion_statements") is not None:
            asked.append(statement)

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        yield asked
    finally:
        event.remove(Engine, "before_cursor_execute", listen)


@pytest.fixture
def fifty(integrator: Caller) -> Caller:
    """Fifty receivers, each with headers, subscriptions, events of a change each, and attempts."""
    with psycopg.connect(integrator.database.url, autocommit=True) as connection:
        ((organisation_id, client_id),) = connection.execute(
            "SELECT organisation_id, id FROM clarion.clients WHERE name = 'integrator'"
        ).fetchall()
        connection.execute(
            "INSERT INTO clarion.receivers (id, organisation_id, name, webhook_uri, shared_secret_sealed, "
            "shared_secret_hint, created_by_id, updated_by_id) "
            "SELECT nextval('clarion.receivers_id_seq'), %s, 'r' || n, 'https://93.184.216.34/', '\\x00', 'hint', %s, %s "
            "FROM generate_series(1, 50) n",
            (organisation_id, client_id, client_id),
        )
        connection.execute(
            "INSERT INTO clarion.headers (organisation_id, receiver_id, key, value_sealed) "
            "SELECT organisation_id, id, 'x-' || n, '\\x00' FROM clarion.receivers, generate_series(1, 2) n"
        )
        connection.execute(
            "INSERT INTO clarion.subscriptions (organisation_id, receiver_id, resource, action, created_by_id) "
            "SELECT organisation_id, id, 'RUNS', action, %s FROM clarion.receivers, "
            "unnest(ARRAY['CREATE', 'UPDATE']) action",
            (client_id,),
        )
        for number, receiver_id, subscription_id in connection.execute(
            "SELECT row_number() OVER (ORDER BY id), receiver_id, id FROM clarion.subscriptions"
        ).fetchall():
            add_change(connection, number, organisation_id=organisation_id)
            add_settled(
                connection,
                number,
                organisation_id=organisation_id,
                receiver_id=receiver_id,
                subscription_id=subscription_id,
                position=number,
            )
    return integrator


def test_fifty_receivers_with_all_that_hangs_on_them_take_no_more_statements_than_two(fifty: Caller) -> None:
    fifty(FULL, first=1)
    counts = {}
    for first in (2, 50):
        with statements() as asked:
            found = fifty(FULL, first=first).data["webhookReceivers"]
        assert len(found["edges"]) == first
        subscription = found["edges"][-1]["node"]["subscriptions"][1]
        assert subscription["receiver"]["createdBy"]["name"] == "integrator"
        assert len(subscription["events"]) == 1
        counts[first] = len(asked)
    # Role and settings; the page and its count; clients, headers, subscriptions; activations, errors, receivers and
    # events; attempts and subscriptions of these.
    assert counts[2] == counts[50] <= 14, asked


@pytest.mark.parametrize(
    ("query", "most"),
    [
        ("{ webhookReceivers { edges { node { id name } } } }", 1),
        ("{ webhookSubscriptions { edges { node { id receiver { name } createdBy { name } } } } }", 3),
        (
            "{ webhookEvents(first: 50) { edges { node { id receiver { name } subscription { id } attempts { number } } } } }",
            5,
        ),
        ("{ webhookReceiver(id: 1) { name subscriptions { id } } }", 2),
        ("{ changes { edges { node { events(first: 2) { id subscription { id } attempts { number } } } } } }", 5),
        ("{ resources { name } }", 0),
    ],
)
def test_a_typical_query_takes_few_statements(fifty: Caller, query: str, most: int) -> None:
    with statements() as asked:
        answer = fifty(query)
    assert "errors" not in answer.body
    assert len(asked) <= most, asked


def test_a_query_that_asks_the_database_too_often_is_refused(fifty: Caller) -> None:
    # Pages of different sizes are different questions.
    pages = " ".join(
        f"a{number}: webhookReceivers(first: {number}) {{ pageInfo {{ totalCount }} "
        f"edges {{ node {{ subscriptions(first: {number}) {{ id }} }} }} }}"
        for number in range(1, 20)
    )
    with statements() as asked:
        answer = fifty(f"{{ {pages} }}")
    assert {error["extensions"]["code"] for error in answer.body["errors"]} == {"QUERY_TOO_COMPLEX"}
    assert str(STATEMENTS_MAX) in answer.body["errors"][0]["message"]
    assert len(asked) <= STATEMENTS_MAX
    assert fifty("{ webhookReceivers(first: 1) { edges { cursor } } }").status == 200


@pytest.mark.parametrize("headers", [{}, {"idempotency_key": "one"}], ids=["each committed", "one transaction"])
def test_each_mutation_of_a_document_counts_for_itself(fifty: Caller, headers: dict[str, str]) -> None:
    document = " ".join(
        f"a{number}: createWebhookSubscription(input: {{receiverId: {number}, resource: RUNS, action: DELETE}}) "
        "{ webhookSubscription { receiver { name } createdBy { name } } }"
        for number in range(1, 21)
    )
    with statements() as asked:
        answer = fifty.send(b'{"query": "mutation { ' + document.encode() + b' }"}', **headers)
    assert "errors" not in answer.body
    assert STATEMENTS_MAX < len(asked) < 20 * 15
