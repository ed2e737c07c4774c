"""`ResourceEnum` follows what is attached, without a restart."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg

from harness.api import Caller
from harness.audit_rows import add_resources

VALUES = (
    '{ __type(name: "%s") { enumValues(includeDeprecated: true) { name description isDeprecated deprecationReason } } }'
)
SUBSCRIBE = (
    "mutation($input: CreateWebhookSubscriptionInput!) { createWebhookSubscription(input: $input) "
    "{ webhookSubscription { resource } } }"
)


def values(caller: Caller, enum: str = "ResourceEnum") -> dict[str, dict[str, Any]]:
    return {value["name"]: value for value in caller(VALUES % enum).data["__type"]["enumValues"]}


def test_every_value_of_the_enums_is_described(integrator: Caller) -> None:
    types = integrator(
        "{ __schema { types { name kind description enumValues(includeDeprecated: true) { description } } } }"
    )
    enums = [
        one for one in types.data["__schema"]["types"] if one["kind"] == "ENUM" and not one["name"].startswith("__")
    ]
    assert {"ResourceEnum", "WebhookSubscriptionActions"} <= {one["name"] for one in enums}
    for one in enums:
        assert one["description"], one
        assert all(value["description"] for value in one["enumValues"]), one
    assert set(values(integrator, "WebhookSubscriptionActions")) == {"CREATE", "UPDATE", "DELETE"}


def test_a_new_resource_can_be_subscribed_to_within_a_second(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    make_receiver()
    assert "PARTS" not in values(integrator)
    early = integrator(SUBSCRIBE, input={"receiverId": 1, "resource": "PARTS", "action": "CREATE"})
    assert early.refusal == ("INVALID_INPUT", "input.resource")
    with psycopg.connect(integrator.database.url) as connection:
        add_resources(connection, [("PARTS", None)])
    committed = time.monotonic()
    while "PARTS" not in values(integrator):
        assert time.monotonic() - committed < 1
    late = integrator(SUBSCRIBE, input={"receiverId": 1, "resource": "PARTS", "action": "CREATE"})
    assert late.data["createWebhookSubscription"]["webhookSubscription"] == {"resource": "PARTS"}


def test_singular_spellings_are_deprecated_and_answered_in_plural(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    make_receiver()
    found = values(integrator)
    assert (found["RUN"]["isDeprecated"], found["RUN"]["deprecationReason"]) == (True, "Use RUNS.")
    assert found["RUN"]["description"] == found["RUNS"]["description"] == "All runs."
    assert not found["RUNS"]["isDeprecated"]
    by_variable = integrator(SUBSCRIBE, input={"receiverId": 1, "resource": "RUN", "action": "CREATE"})
    assert by_variable.data["createWebhookSubscription"]["webhookSubscription"] == {"resource": "RUNS"}
    by_literal = integrator(
        "mutation { createWebhookSubscription(input: {receiverId: 1, resource: ISSUE, action: CREATE}) "
        "{ webhookSubscription { resource } } }"
    )
    assert by_literal.data["createWebhookSubscription"]["webhookSubscription"] == {"resource": "ISSUES"}
    listed = integrator("{ webhookSubscriptions(filters: {resource: {eq: RUN}}) { edges { node { resource } } } }")
    assert listed.data["webhookSubscriptions"]["edges"] == [{"node": {"resource": "RUNS"}}]


def test_our_own_objects_are_resources_too(integrator: Caller) -> None:
    listed = {
        one["name"]: one["description"] for one in integrator("{ resources { name description } }").data["resources"]
    }
    assert {"WEBHOOK_RECEIVERS", "WEBHOOK_SUBSCRIPTIONS", "WEBHOOK_HEADERS", "WEBHOOK_TESTS", "RUNS", "ISSUES"} == set(
        listed
    )
    assert all(listed.values())
