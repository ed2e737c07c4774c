"""Who may read what: a client's rights by resource, a receiver's own, and no way round them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from clarion.access.principal import Role
from harness.api import Answer, Caller
from harness.audit_rows import add_attempt, add_change, add_open, add_settled

URI = "https://93.184.216.34/elsewhere"
CREATE = (
    "mutation($input: CreateWebhookReceiverInput!) { createWebhookReceiver(input: $input) "
    "{ webhookReceiver { id _etag readableResources } } }"
)
UPDATE = (
    "mutation($input: UpdateWebhookReceiverInput!) { updateWebhookReceiver(input: $input) "
    "{ webhookReceiver { id _etag active readableResources } } }"
)
SUBSCRIBE = (
    "mutation($input: CreateWebhookSubscriptionInput!) { createWebhookSubscription(input: $input) "
    "{ webhookSubscription { id _etag inactiveReason } } }"
)
RESUBSCRIBE = (
    "mutation($input: UpdateWebhookSubscriptionInput!) { updateWebhookSubscription(input: $input) "
    "{ webhookSubscription { id _etag resource inactiveReason } } }"
)
PREVIEW = "query($input: CreateWebhookSubscriptionInput!) { previewWebhookSubscription(input: $input) { changes { changeId } } }"
CANCEL = "mutation($id: ID!) { cancelWebhookEvent(id: $id) { webhookEvent { id } } }"
RETRY = "mutation($id: ID!) { retryWebhookEvent(id: $id) { webhookEvent { id } } }"
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def limited(administrator: Caller) -> Callable[..., Caller]:
    """Makes a client of organisation `default` that may read these resources only."""

    def make(*resources: str, role: Role = Role.INTEGRATOR) -> Caller:
        name = f"{role} of {' '.join(resources) or 'nothing'}"
        caller = administrator.of("default", role, name)
        administrator.rows(
            "UPDATE clarion.clients SET readable_resources = %s WHERE name = %s", sorted(resources), name
        )
        return caller

    return make


def received(answer: Answer, mutation: str) -> dict[str, Any]:
    made: dict[str, Any] = answer.data[mutation]["webhookReceiver"]
    return made


def update(caller: Caller, receiver: dict[str, Any], **values: Any) -> Answer:
    return caller(UPDATE, input={"id": receiver["id"], "etag": receiver["_etag"], **values})


# ---------------------------------------------------------------- what a client sees


EVENTS = "{ webhookEvents { edges { node { id resource attempts { number } } } pageInfo { totalCount } } }"
NESTED = "{ webhookSubscriptions { edges { node { id events { id } evaluationErrors { lastMessage } } } } }"


@pytest.fixture
def filled(administrator: Caller, make_receiver: Make, make_subscription: Make) -> None:
    """Events 1 (settled) and 2 (open) of RUNS, 3 (settled) and 4 (open, waiting) of ISSUES, 5 a settled test; 1 and 3 tried."""
    make_receiver()
    make_subscription("1", "RUNS")
    make_subscription("1", "ISSUES")
    with psycopg.connect(administrator.database.url) as connection:
        ((organisation_id,),) = connection.execute("SELECT organisation_id FROM clarion.receivers").fetchall()
        for position, resource in ((1, "RUNS"), (2, "RUNS"), (3, "ISSUES"), (4, "ISSUES"), (5, "WEBHOOK_TESTS")):
            add_change(connection, position, organisation_id=organisation_id, resource=resource)
        of = {"organisation_id": organisation_id, "receiver_id": 1}
        add_settled(connection, 1, subscription_id=1, position=1, **of)
        add_open(connection, 2, subscription_id=1, position=2, **of)
        add_settled(connection, 3, subscription_id=2, position=3, **of)
        add_open(connection, 4, subscription_id=2, position=4, **of)
        add_settled(connection, 5, subscription_id=0, position=5, **of)
        for event_id in (1, 3):
            add_attempt(connection, event_id, 1, organisation_id=organisation_id)
        connection.execute("UPDATE clarion.queue SET due_at = now() + interval '1 day' WHERE event_id = 4")
        for subscription_id in (1, 2):
            connection.execute(
                "INSERT INTO clarion.evaluation_errors (subscription_id, organisation_id, conditions_count, "
                "templates_count, last_change_id, last_message) VALUES (%s, %s, 1, 0, 1, 'no such key: cost')",
                (subscription_id, organisation_id),
            )


def ids(nodes: list[dict[str, Any]]) -> list[str]:
    return [one["node"]["id"] for one in nodes]


@pytest.mark.usefixtures("filled")
def test_events_of_a_resource_that_a_client_may_not_read_are_not_there_for_it(
    administrator: Caller, limited: Callable[..., Caller]
) -> None:
    whole = administrator(EVENTS).data["webhookEvents"]
    assert (ids(whole["edges"]), whole["pageInfo"]) == (["5", "4", "3", "2", "1"], {"totalCount": 5})
    for readable, seen in (
        (("RUNS",), ["5", "2", "1"]),
        (("ISSUES",), ["5", "4", "3"]),
        (("RUNS", "ISSUES"), ["5", "4", "3", "2", "1"]),
        ((), ["5"]),
    ):
        client = limited(*readable)
        page = client(EVENTS).data["webhookEvents"]
        assert (ids(page["edges"]), page["pageInfo"]) == (seen, {"totalCount": len(seen)})
        for event_id in "12345":
            for query in ("{ webhookEvent(id: %s) { id } }", '{ node(id: "WebhookEvent:%s") { id } }'):
                answer = client(query % event_id)
                if event_id in seen:
                    assert "errors" not in answer.body
                else:
                    absent = client(query % 77)
                    assert answer.refusal == ("NOT_FOUND", "id")
                    assert answer.body == absent.body


@pytest.mark.usefixtures("filled")
def test_subscriptions_stay_visible_without_what_they_tell_of_changes(limited: Callable[..., Caller]) -> None:
    client = limited("RUNS")
    found = {one["node"]["id"]: one["node"] for one in client(NESTED).data["webhookSubscriptions"]["edges"]}
    assert found == {
        "1": {
            "id": "1",
            "events": [{"id": "2"}, {"id": "1"}],
            "evaluationErrors": {"lastMessage": "no such key: cost"},
        },
        "2": {"id": "2", "events": [], "evaluationErrors": None},
    }
    filtered = "{ webhookEvents(filters: {resource: {eq: ISSUES}}) { edges { node { id } } pageInfo { totalCount } } }"
    assert client(filtered).data["webhookEvents"] == {"edges": [], "pageInfo": {"totalCount": 0}}


@pytest.mark.usefixtures("filled")
def test_events_that_a_client_may_not_see_it_can_neither_cancel_nor_retry(
    administrator: Caller, limited: Callable[..., Caller]
) -> None:
    client = limited("RUNS")
    for mutation in (CANCEL, RETRY):
        for event_id in ("3", "4"):
            assert client(mutation, id=event_id).body == client(mutation, id="77").body
            assert client(mutation, id=event_id).refusal == ("NOT_FOUND", "id")
    assert administrator.rows("SELECT FROM clarion.commands UNION ALL SELECT FROM clarion.intake") == []


@pytest.mark.usefixtures("filled")
def test_events_of_a_resource_that_their_receiver_has_no_right_to_any_more_are_not_retried(
    administrator: Caller,
) -> None:
    administrator.rows("UPDATE clarion.receivers SET readable_resources = '{RUNS}'")
    for event_id in ("3", "4"):
        answer = administrator(RETRY, id=event_id)
        assert answer.refusal == ("CONFLICT", "id")
        assert answer.error["message"] == (
            "the webhook event's receiver has no right to ISSUES any more: give it one with updateWebhookReceiver"
        )
    assert administrator.rows("SELECT FROM clarion.commands UNION ALL SELECT FROM clarion.intake") == []


# ---------------------------------------------------------------- what a client subscribes to


def test_a_client_subscribes_to_and_previews_only_what_it_may_read(
    limited: Callable[..., Caller], make_receiver: Make
) -> None:
    receiver = make_receiver()
    client = limited("RUNS")
    for resource, refusal in (("RUNS", None), ("ISSUES", ("FORBIDDEN", "input.resource"))):
        wanted = {"receiverId": receiver["id"], "resource": resource, "action": "CREATE"}
        for document in (SUBSCRIBE, PREVIEW):
            answer = client(document, input=wanted)
            assert refusal == (None if "errors" not in answer.body else answer.refusal)


def test_a_client_neither_changes_nor_makes_a_subscription_on_what_it_may_not_read(
    administrator: Caller, limited: Callable[..., Caller], make_receiver: Make, make_subscription: Make
) -> None:
    receiver = make_receiver()
    runs, issues = make_subscription(receiver["id"], "RUNS"), make_subscription(receiver["id"], "ISSUES")
    client = limited("RUNS")

    def change(subscription: dict[str, Any], **values: Any) -> Answer:
        return client(RESUBSCRIBE, input={"id": subscription["id"], "etag": subscription["_etag"], **values})

    assert change(runs, resource="ISSUES").refusal == ("FORBIDDEN", "input.resource")
    for values in ({"resource": "RUNS"}, {"active": False}, {"template": '{"all": object.title}'}, {}):
        assert change(issues, **values).refusal == ("FORBIDDEN", "input.id")
    assert administrator.rows("SELECT resource, active FROM clarion.subscriptions ORDER BY id") == [
        ("RUNS", True),
        ("ISSUES", True),
    ]
    assert "errors" not in change(runs, active=False).body
    deleted = client(f'mutation {{ deleteWebhookSubscription(id: 2, etag: "{issues["_etag"]}") {{ id }} }}')
    assert deleted.data["deleteWebhookSubscription"] == {"id": "2"}


def test_a_subscription_needs_the_right_of_its_receiver_too_and_the_refusal_says_how_to_give_it(
    integrator: Caller, make_receiver: Make, make_subscription: Make
) -> None:
    receiver = make_receiver(readableResources=["RUNS"])
    wanted = {"receiverId": receiver["id"], "resource": "ISSUES", "action": "CREATE"}
    for document in (SUBSCRIBE, PREVIEW):
        answer = integrator(document, input=wanted)
        assert answer.refusal == ("FORBIDDEN", "input.resource")
        assert "updateWebhookReceiver, by adding ISSUES to readableResources" in answer.error["message"]
    runs = make_subscription(receiver["id"], "RUNS")
    moved = {"id": runs["id"], "etag": runs["_etag"], "resource": "ISSUES"}
    assert integrator(RESUBSCRIBE, input=moved).refusal == ("FORBIDDEN", "input.resource")
    received(update(integrator, receiver, readableResources=["RUNS", "ISSUE"]), "updateWebhookReceiver")
    assert integrator(SUBSCRIBE, input=wanted).data["createWebhookSubscription"]["webhookSubscription"]["id"] == "2"


def test_a_subscription_whose_receiver_lost_the_right_says_so(
    integrator: Caller, make_receiver: Make, make_subscription: Make
) -> None:
    receiver = make_receiver()
    make_subscription(receiver["id"], "RUNS")
    issues = make_subscription(receiver["id"], "ISSUES")
    shown = "{ webhookSubscriptions { edges { node { id active inactiveReason } } } }"

    def reasons() -> list[str | None]:
        edges = integrator(shown).data["webhookSubscriptions"]["edges"]
        return [edge["node"]["inactiveReason"] for edge in edges]

    assert reasons() == [None, None]
    receiver = received(update(integrator, receiver, readableResources=["RUNS"]), "updateWebhookReceiver")
    assert reasons() == [None, "RIGHT_REVOKED"]
    change = {"id": issues["id"], "etag": issues["_etag"], "active": False}
    assert (
        integrator(RESUBSCRIBE, input=change).data["updateWebhookSubscription"]["webhookSubscription"]["inactiveReason"]
        == "MANUAL"
    )
    update(integrator, receiver, readableResources=None)
    assert reasons() == [None, "MANUAL"]


# ---------------------------------------------------------------- what a receiver may be sent


def test_a_receiver_gets_exactly_the_rights_of_the_client_that_makes_it_or_fewer(
    integrator: Caller, limited: Callable[..., Caller]
) -> None:
    def make(caller: Caller, **values: Any) -> Answer:
        return caller(CREATE, input={"name": "a", "webhookUri": URI, **values})

    for caller, values, rights in (
        (integrator, {}, None),
        (integrator, {"readableResources": ["RUN", "RUNS", "ISSUES"]}, ["ISSUES", "RUNS"]),
        (limited("RUNS", "ISSUES"), {}, ["ISSUES", "RUNS"]),
        (limited("RUNS", "ISSUES"), {"readableResources": None}, ["ISSUES", "RUNS"]),
        (limited("RUNS", "ISSUES"), {"readableResources": ["RUNS"]}, ["RUNS"]),
        (limited("RUNS"), {"readableResources": []}, []),
    ):
        assert received(make(caller, **values), "createWebhookReceiver")["readableResources"] == rights
    refused = make(limited("RUNS"), readableResources=["RUNS", "ISSUES"])
    assert refused.refusal == ("FORBIDDEN", "input.readableResources")
    assert "ISSUES" in refused.error["message"]
    assert "RUNS," not in refused.error["message"]
    assert integrator.rows("SELECT count(*) FROM clarion.receivers") == [(6,)]


def test_a_receivers_rights_outlive_what_its_client_may_read(
    integrator: Caller, limited: Callable[..., Caller]
) -> None:
    receiver = received(limited("RUNS")(CREATE, input={"name": "a", "webhookUri": URI}), "createWebhookReceiver")
    integrator.rows("UPDATE clarion.clients SET readable_resources = '{}', active = false WHERE role = 'INTEGRATOR'")
    integrator.rows("UPDATE clarion.api_keys SET revoked = now() WHERE client_id > 1")
    assert integrator.rows("SELECT id::text, readable_resources, active FROM clarion.receivers") == [
        (receiver["id"], ["RUNS"], True)
    ]


def test_rights_are_widened_only_by_who_has_them_and_each_change_is_in_the_history(
    administrator: Caller, limited: Callable[..., Caller]
) -> None:
    both, runs = limited("ISSUES", "RUNS"), limited("RUNS")
    receiver = received(runs(CREATE, input={"name": "a", "webhookUri": URI}), "createWebhookReceiver")
    for rights in (["RUNS", "ISSUES"], ["ISSUES"], None):
        assert update(runs, receiver, readableResources=rights).refusal == ("FORBIDDEN", "input.readableResources")
    assert update(both, receiver, readableResources=None).refusal == ("FORBIDDEN", "input.readableResources")
    receiver = received(update(both, receiver, readableResources=["RUNS", "ISSUES"]), "updateWebhookReceiver")
    assert receiver["readableResources"] == ["ISSUES", "RUNS"]
    same = received(update(both, receiver, readableResources=["ISSUES", "RUNS"]), "updateWebhookReceiver")
    assert same["_etag"] == receiver["_etag"], "nothing differs"
    receiver = received(update(administrator, receiver, readableResources=None), "updateWebhookReceiver")
    assert receiver["readableResources"] is None
    received(update(runs, receiver, readableResources=["WEBHOOK_TESTS"]), "updateWebhookReceiver")
    changes = administrator.rows(
        "SELECT before -> 'readableResources', after -> 'readableResources' FROM clarion.history "
        "WHERE object_type = 'WebhookReceiver' AND refusal IS NULL ORDER BY id"
    )
    assert changes == [
        (None, ["RUNS"]),
        (["RUNS"], ["ISSUES", "RUNS"]),
        (["ISSUES", "RUNS"], None),
        (None, ["WEBHOOK_TESTS"]),
    ]


def test_a_captured_change_of_a_receiver_shows_its_rights(integrator: Caller, make_receiver: Make) -> None:
    receiver = received(update(integrator, make_receiver(), readableResources=["RUNS"]), "updateWebhookReceiver")
    update(integrator, receiver, readableResources=[])
    rights = [
        tuple(None if side is None else json.loads(side)["readable_resources"] for side in row)
        for row in integrator.rows(
            "SELECT old, new FROM clarion.outbox WHERE resource = 'WEBHOOK_RECEIVERS' ORDER BY id"
        )
    ]
    assert rights == [(None, None), (None, ["RUNS"]), (["RUNS"], [])]


def test_who_may_read_less_than_a_receiver_is_sent_changes_nothing_of_where_or_how_it_sends(
    administrator: Caller, limited: Callable[..., Caller], make_receiver: Make
) -> None:
    receiver = make_receiver(headers=[{"key": "x-a", "value": "1"}])
    (header,) = receiver["headers"]
    etag = receiver["_etag"]
    before = administrator.rows("SELECT r::text, h::text FROM clarion.receivers r, clarion.headers h")
    client = limited("RUNS")
    for values in (
        {"webhookUri": URI},
        {"sharedSecret": "a-secret-of-my-own-that-is-long-enough"},
        {"caCertificates": None, "name": "b"},
        {"ordering": "NONE"},
        {"active": False, "webhookUri": URI},
        {"readableResources": ["RUNS"], "webhookUri": URI},
    ):
        assert update(client, receiver, **values).refusal == ("FORBIDDEN", "input.id")
    for mutation, field in (
        (f'rotateWebhookReceiverSecret(input: {{id: 1, etag: "{etag}"}})', "input.id"),
        ('createWebhookHeader(input: {receiverId: 1, key: "x-b", value: "1"})', "input.receiverId"),
        (f'updateWebhookHeader(input: {{id: 1, etag: "{header["_etag"]}", value: "2"}})', "input.id"),
        (f'deleteWebhookHeader(id: 1, etag: "{header["_etag"]}")', "id"),
    ):
        answer = client(f"mutation {{ {mutation} {{ __typename }} }}")
        assert answer.refusal == ("FORBIDDEN", field), mutation
        assert "may read less than this receiver is sent" in answer.error["message"]
    assert administrator.rows("SELECT r::text, h::text FROM clarion.receivers r, clarion.headers h") == before


def test_who_may_read_less_may_take_rights_away_deactivate_and_delete(
    limited: Callable[..., Caller], make_receiver: Make
) -> None:
    receiver = make_receiver()
    client = limited("RUNS")
    receiver = received(update(client, receiver, active=False), "updateWebhookReceiver")
    assert update(client, receiver, active=True).refusal == ("FORBIDDEN", "input.id")
    receiver = received(update(client, receiver, readableResources=["RUNS", "ISSUES"]), "updateWebhookReceiver")
    assert update(client, receiver, active=True).refusal == ("FORBIDDEN", "input.id")
    receiver = received(update(client, receiver, readableResources=["RUNS"]), "updateWebhookReceiver")
    receiver = received(update(client, receiver, active=True, webhookUri=URI), "updateWebhookReceiver")
    assert receiver == {**receiver, "active": True, "readableResources": ["RUNS"]}
    wide = make_receiver()
    deleted = client(f'mutation {{ deleteWebhookReceiver(id: {wide["id"]}, etag: "{wide["_etag"]}") {{ id }} }}')
    assert deleted.data["deleteWebhookReceiver"] == {"id": wide["id"]}


def test_a_secret_is_shown_only_to_who_may_read_all_that_the_receiver_is_sent(
    administrator: Caller, limited: Callable[..., Caller], make_receiver: Make
) -> None:
    secret = make_receiver()["sharedSecret"]
    shown = "{ webhookReceiver(id: 1) { sharedSecret } }"
    assert administrator(shown).data["webhookReceiver"]["sharedSecret"] == secret
    for rights in (("RUNS",), ()):
        masked = limited(*rights, role=Role.ADMINISTRATOR)(shown).data["webhookReceiver"]["sharedSecret"]
        assert masked == f"********{secret[-4:]}"


def test_an_unknown_resource_is_no_right(integrator: Caller) -> None:
    answer = integrator(CREATE, input={"name": "a", "webhookUri": URI, "readableResources": ["NOTHINGS"]})
    assert answer.refusal == ("INVALID_INPUT", "input.readableResources.0")
