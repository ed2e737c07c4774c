"""The operations that integrators of ION know run exactly as they are written."""

from __future__ import annotations

import psycopg
import pytest

from harness.api import Caller
from harness.audit_rows import add_change, add_settled
from harness.ion import CREATE_RECEIVER, CREATE_SUBSCRIPTION, EXAMPLE, RECEIVERS, SUBSCRIPTIONS


@pytest.mark.parametrize("as_written", [int, str])
def test_the_four_operations_run_as_written(integrator: Caller, as_written: type[int | str]) -> None:
    created = integrator(CREATE_RECEIVER, input=EXAMPLE).data["createWebhookReceiver"]["webhookReceiver"]
    assert created["sharedSecret"].startswith("whsec_")
    assert created | {"sharedSecret": ""} == {
        "id": "1",
        "name": "Our example server",
        "description": None,
        "webhookUri": "https://whoknows.where.this.leads",
        "sharedSecret": "",
        "contentType": "application/json",
        "expectedResponseCode": None,
        "active": True,
        "subscriptions": [],
        "headers": [],
    }

    subscription = integrator(
        CREATE_SUBSCRIPTION, input={"receiverId": as_written(created["id"]), "resource": "RUNS", "action": "CREATE"}
    )
    assert subscription.data["createWebhookSubscription"]["webhookSubscription"] == {
        "resource": "RUNS",
        "action": "CREATE",
        "id": "1",
        "active": True,
        "receiverId": "1",
        "events": [],
    }

    (receiver,) = integrator(RECEIVERS).data["webhookReceivers"]["edges"]
    assert receiver["node"]["webhookUri"] == EXAMPLE["webhookUri"]
    assert len(receiver["node"]["_etag"]) == 32
    (listed,) = integrator(SUBSCRIPTIONS).data["webhookSubscriptions"]["edges"]
    assert listed["node"]["createdBy"]["name"] == "integrator"
    assert listed["node"]["receiver"] == {
        "id": "1",
        "description": None,
        "name": "Our example server",
        "webhookUri": "https://whoknows.where.this.leads",
    }


def test_ids_in_the_document_may_be_integers_or_texts(integrator: Caller) -> None:
    integrator(CREATE_RECEIVER, input=EXAMPLE)
    for literal in ("1", '"1"'):
        created = integrator(
            f"mutation {{ createWebhookSubscription(input: {{receiverId: {literal}, resource: RUNS, action: UPDATE}}) "
            "{ webhookSubscription { receiverId } } }"
        )
        assert created.data["createWebhookSubscription"]["webhookSubscription"] == {"receiverId": "1"}
        assert integrator(f"{{ webhookReceiver(id: {literal}) {{ name }} }}").data["webhookReceiver"] is not None


def test_a_host_that_does_not_resolve_is_accepted_with_a_warning(integrator: Caller) -> None:
    answer = integrator(
        "mutation($input: CreateWebhookReceiverInput!) { createWebhookReceiver(input: $input) "
        "{ webhookReceiver { id } warnings { code field message } } }",
        input={"name": "nowhere", "webhookUri": "https://nowhere.example/"},
    )
    (warning,) = answer.data["createWebhookReceiver"]["warnings"]
    assert (warning["code"], warning["field"]) == ("NAME_NOT_RESOLVED", "input.webhookUri")
    assert "nowhere.example" in warning["message"]


def test_a_subscription_lists_its_events(integrator: Caller) -> None:
    integrator(CREATE_RECEIVER, input=EXAMPLE)
    integrator(CREATE_SUBSCRIPTION, input={"receiverId": 1, "resource": "RUNS", "action": "CREATE"})
    with psycopg.connect(integrator.database.url) as connection:
        ((organisation_id,),) = connection.execute("SELECT organisation_id FROM clarion.receivers").fetchall()
        add_change(connection, 1, organisation_id=organisation_id)
        add_settled(connection, 7, organisation_id=organisation_id, receiver_id=1, subscription_id=1, position=1)
    found = integrator("{ webhookSubscription(id: 1) { events { id status } } }")
    assert found.data["webhookSubscription"]["events"] == [{"id": "7", "status": "DELIVERED"}]


def test_several_mutations_of_one_document_see_each_other(integrator: Caller) -> None:
    answer = integrator(
        """mutation($input: CreateWebhookReceiverInput!) {
          createWebhookReceiver(input: $input) { webhookReceiver { id subscriptions { id } } }
          first: createWebhookSubscription(input: {receiverId: 1, resource: RUNS, action: CREATE}) {
            webhookSubscription { receiver { subscriptions { id } } } }
          absent: createWebhookSubscription(input: {receiverId: 99, resource: RUNS, action: CREATE}) {
            webhookSubscription { id } }
          second: createWebhookSubscription(input: {receiverId: 1, resource: ISSUES, action: CREATE}) {
            webhookSubscription { receiver { subscriptions { id } } } }
        }""",
        input=EXAMPLE,
    )
    assert answer.refusal == ("NOT_FOUND", "input.receiverId")
    assert answer.error["path"] == ["absent"]
    assert answer.body["data"]["absent"] is None
    assert [
        len(answer.body["data"][name]["webhookSubscription"]["receiver"]["subscriptions"])
        for name in ("first", "second")
    ] == [1, 2]
