"""What others wrote against GraphQL works against this API: the client library `gql`, with the operations of ION as they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gql import Client, GraphQLRequest
from gql.client import SyncClientSession
from gql.transport.exceptions import TransportQueryError
from gql.transport.requests import RequestsHTTPTransport

from harness.api import Caller
from harness.ion import CREATE_RECEIVER, CREATE_SUBSCRIPTION, EXAMPLE, RECEIVERS, SUBSCRIPTIONS


@pytest.fixture
def session(administrator: Caller) -> Iterator[SyncClientSession]:
    """A client that has read the schema and checks each document against it before it sends it."""
    transport = RequestsHTTPTransport(
        f"http://127.0.0.1:{administrator.port}/graphql",
        headers={"Authorization": f"Bearer {administrator.key}"},
        timeout=10,
    )
    with Client(transport=transport, fetch_schema_from_transport=True) as opened:
        yield opened


def test_the_operations_of_ion_run_as_they_are(session: SyncClientSession) -> None:
    given = {"input": EXAMPLE}
    receiver = session.execute(GraphQLRequest(CREATE_RECEIVER, variable_values=given))["createWebhookReceiver"][
        "webhookReceiver"
    ]
    assert receiver["sharedSecret"].startswith("whsec_")
    assert (receiver["id"], receiver["active"], receiver["contentType"]) == ("1", True, "application/json")
    assert receiver["subscriptions"] == receiver["headers"] == []

    for receiver_id in (1, "1"):
        subscribing = {"input": {"receiverId": receiver_id, "resource": "RUNS", "action": "CREATE"}}
        made = session.execute(GraphQLRequest(CREATE_SUBSCRIPTION, variable_values=subscribing))
        assert made["createWebhookSubscription"]["webhookSubscription"] == {
            "resource": "RUNS",
            "action": "CREATE",
            "id": str(1 if receiver_id == 1 else 2),
            "active": True,
            "receiverId": "1",
            "events": [],
        }

    ((node,),) = [[edge["node"] for edge in session.execute(GraphQLRequest(RECEIVERS))["webhookReceivers"]["edges"]]]
    assert node["name"] == "Our example server"
    assert len(node["_etag"]) == 32
    listed = [edge["node"] for edge in session.execute(GraphQLRequest(SUBSCRIPTIONS))["webhookSubscriptions"]["edges"]]
    assert [one["id"] for one in listed] == ["1", "2"]
    assert listed[0]["createdBy"] == {"id": "1", "name": "admin"}
    assert listed[0]["receiver"]["webhookUri"] == "https://whoknows.where.this.leads"


def test_a_refusal_is_an_error_of_theirs_with_our_code(session: SyncClientSession) -> None:
    forbidden = {"input": {"name": "inside", "webhookUri": "https://169.254.169.254/latest"}}
    with pytest.raises(TransportQueryError) as refusal:
        session.execute(GraphQLRequest(CREATE_RECEIVER, variable_values=forbidden))
    assert refusal.value.errors is not None
    assert refusal.value.errors[0]["extensions"] == {"code": "ADDRESS_NOT_ALLOWED", "field": "input.webhookUri"}
