"""Every refused input is an error with code and field, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.api import Caller

CREATE = (
    "mutation($input: CreateWebhookReceiverInput!) "
    "{ createWebhookReceiver(input: $input) { webhookReceiver { id } warnings { code } } }"
)
UPDATE = (
    "mutation($input: UpdateWebhookReceiverInput!) { updateWebhookReceiver(input: $input) "
    "{ webhookReceiver { _etag name description active disabledReason expectedResponseCode retrySchedule signatures "
    "ordering updated } } }"
)
URI = "https://93.184.216.34/hook"
INVALID, FORBIDDEN_ADDRESS = "INVALID_INPUT", "ADDRESS_NOT_ALLOWED"

REFUSED_RECEIVERS: list[tuple[dict[str, Any], str, str]] = [
    ({"name": ""}, INVALID, "input.name"),
    ({"name": "  "}, INVALID, "input.name"),
    ({"name": "x" * 201}, INVALID, "input.name"),
    ({"name": "line\nend"}, INVALID, "input.name"),
    ({"name": "nul\x00"}, INVALID, "input.name"),
    ({"name": 5}, INVALID, "input.name"),
    ({"name": None}, INVALID, "input.name"),
    ({"description": "x" * 2001}, INVALID, "input.description"),
    ({"description": "nul\x00"}, INVALID, "input.description"),
    ({"webhookUri": ""}, INVALID, "input.webhookUri"),
    ({"webhookUri": "http://example.com/"}, INVALID, "input.webhookUri"),
    ({"webhookUri": "ftp://example.com/"}, INVALID, "input.webhookUri"),
    ({"webhookUri": "example.com"}, INVALID, "input.webhookUri"),
    ({"webhookUri": "https://"}, INVALID, "input.webhookUri"),
    ({"webhookUri": "https://user:pass@example.com/"}, INVALID, "input.webhookUri"),
    ({"webhookUri": "https://93.184.216.34:9000/"}, INVALID, "input.webhookUri"),
    ({"webhookUri": "https://93.184.216.34/" + "x" * 2048}, INVALID, "input.webhookUri"),
    ({"webhookUri": "https://93.184.216.34/\x00"}, INVALID, "input.webhookUri"),
    ({"webhookUri": "https://127.0.0.1/"}, FORBIDDEN_ADDRESS, "input.webhookUri"),
    ({"webhookUri": "https://169.254.169.254/latest"}, FORBIDDEN_ADDRESS, "input.webhookUri"),
    ({"webhookUri": "https://10.1.2.3/"}, FORBIDDEN_ADDRESS, "input.webhookUri"),
    ({"webhookUri": "https://2130706433/"}, FORBIDDEN_ADDRESS, "input.webhookUri"),
    ({"webhookUri": "https://[::1]/"}, FORBIDDEN_ADDRESS, "input.webhookUri"),
    ({"webhookUri": "https://localhost/"}, FORBIDDEN_ADDRESS, "input.webhookUri"),
    ({"contentType": "json"}, INVALID, "input.contentType"),
    ({"contentType": "application/json\r\nx: y"}, INVALID, "input.contentType"),
    ({"expectedResponseCode": 199}, INVALID, "input.expectedResponseCode"),
    ({"expectedResponseCode": 600}, INVALID, "input.expectedResponseCode"),
    ({"expectedResponseCode": "200"}, INVALID, "input.expectedResponseCode"),
    ({"active": "yes"}, INVALID, "input.active"),
    ({"retrySchedule": []}, INVALID, "input.retrySchedule"),
    ({"retrySchedule": [5]}, INVALID, "input.retrySchedule"),
    ({"retrySchedule": [0, -1]}, INVALID, "input.retrySchedule"),
    ({"retrySchedule": [0, 86_401]}, INVALID, "input.retrySchedule"),
    ({"retrySchedule": [0] * 21}, INVALID, "input.retrySchedule"),
    ({"retrySchedule": [0, None]}, INVALID, "input.retrySchedule.1"),
    ({"timeoutSeconds": 0}, INVALID, "input.timeoutSeconds"),
    ({"timeoutSeconds": 31}, INVALID, "input.timeoutSeconds"),
    ({"timeoutSeconds": 2**31}, INVALID, "input.timeoutSeconds"),
    ({"timeoutSeconds": 1.5}, INVALID, "input.timeoutSeconds"),
    ({"concurrency": 0}, INVALID, "input.concurrency"),
    ({"concurrency": 65}, INVALID, "input.concurrency"),
    ({"rateLimitPerSecond": 0}, INVALID, "input.rateLimitPerSecond"),
    ({"rateLimitPerSecond": 100_001}, INVALID, "input.rateLimitPerSecond"),
    ({"ordering": "SOME"}, INVALID, "input.ordering"),
    ({"laneBlockMaxSeconds": 0}, INVALID, "input.laneBlockMaxSeconds"),
    ({"laneBlockMaxSeconds": 2_592_001}, INVALID, "input.laneBlockMaxSeconds"),
    ({"signatures": []}, INVALID, "input.signatures"),
    ({"signatures": ["V1", "V1"]}, INVALID, "input.signatures"),
    ({"signatures": ["MD5"]}, INVALID, "input.signatures.0"),
    ({"sharedSecret": "short"}, INVALID, "input.sharedSecret"),
    ({"sharedSecret": "x" * 23}, INVALID, "input.sharedSecret"),
    ({"sharedSecret": "whsec_not base64"}, INVALID, "input.sharedSecret"),
    ({"sharedSecret": "whsec_c2hvcnQ="}, INVALID, "input.sharedSecret"),
    ({"sharedSecret": "ü" * 24}, INVALID, "input.sharedSecret"),
    ({"headers": [{"key": "host", "value": "x"}]}, INVALID, "input.headers.0.key"),
    ({"headers": [{"key": "webhook-id", "value": "x"}]}, INVALID, "input.headers.0.key"),
    ({"headers": [{"key": "a b", "value": "x"}]}, INVALID, "input.headers.0.key"),
    ({"headers": [{"key": "", "value": "x"}]}, INVALID, "input.headers.0.key"),
    ({"headers": [{"key": "x-a", "value": "1"}, {"key": "X-A", "value": "2"}]}, INVALID, "input.headers.1.key"),
    ({"headers": [{"key": "x-a", "value": "a\r\nb: c"}]}, INVALID, "input.headers.0.value"),
    ({"headers": [{"key": "x-a", "value": "é"}]}, INVALID, "input.headers.0.value"),
    ({"headers": [{"key": "x-a"}]}, INVALID, "input.headers.0.value"),
    ({"headers": [{"key": f"x-{n}", "value": "v"} for n in range(33)]}, INVALID, "input.headers"),
    ({"headers": [{"key": "x-a", "value": "v" * 5000}, {"key": "x-b", "value": "v" * 5000}]}, INVALID, "input.headers"),
    ({"webhookUrl": "https://example.com"}, INVALID, "input"),
]

EVERYTHING = "SELECT 'r', id::text FROM clarion.receivers UNION ALL SELECT 'h', id::text FROM clarion.headers"


def test_each_bad_value_of_a_new_receiver_is_named_and_nothing_is_made(integrator: Caller) -> None:
    wrong = []
    for values, code, field in REFUSED_RECEIVERS:
        answer = integrator(CREATE, input={"name": "receiver", "webhookUri": URI} | values)
        if answer.status != 200 or "errors" not in answer.body or answer.refusal != (code, field):
            wrong.append((values, answer.body))
    assert wrong == []
    assert integrator.rows(EVERYTHING) == []
    assert (
        integrator.rows("SELECT 1 FROM clarion.history WHERE object_type = 'WebhookReceiver' AND refusal IS NULL") == []
    )


def test_a_missing_required_value_is_named(integrator: Caller) -> None:
    assert integrator(CREATE, input={"webhookUri": URI}).refusal == ("INVALID_INPUT", "input.name")
    assert integrator(CREATE).refusal == ("INVALID_INPUT", "input")
    literal = 'mutation { createWebhookReceiver(input: {name: "a"}) { warnings { code } } }'
    assert integrator(literal).refusal == ("QUERY_INVALID", "input.webhookUri")
    literal = "mutation { createWebhookSubscription(input: {receiverId: 1, resource: NOPE, action: CREATE}) { warnings { code } } }"
    assert integrator(literal).refusal == ("QUERY_INVALID", "input.resource")


def test_address_refusals_share_one_text(integrator: Caller) -> None:
    uris = ["https://127.0.0.1/", "https://localhost/", "https://10.0.0.1/", "https://0x7f.1/", "https://[fe80::1]/"]
    texts = {integrator(CREATE, input={"name": "a", "webhookUri": uri}).error["message"] for uri in uris}
    assert len(texts) == 1


def test_each_bad_value_of_an_update_is_named_and_nothing_changes(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    receiver = make_receiver()
    before = integrator.rows("SELECT * FROM clarion.receivers")
    wrong = []
    for values, code, field in REFUSED_RECEIVERS:
        if "headers" in values or "webhookUrl" in values:
            continue
        answer = integrator(UPDATE, input={"id": receiver["id"], "etag": receiver["_etag"]} | values)
        if "errors" not in answer.body or answer.refusal != (code, field):
            wrong.append((values, answer.body))
    assert wrong == []
    assert integrator.rows("SELECT * FROM clarion.receivers") == before


def test_null_clears_what_may_be_empty_and_is_refused_elsewhere(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    receiver = make_receiver(description="Ours", expectedResponseCode=204, rateLimitPerSecond=5)
    keys = {"id": receiver["id"], "etag": receiver["_etag"]}
    for name in ("name", "webhookUri", "active", "retrySchedule", "sharedSecret", "signatures", "concurrency"):
        assert integrator(UPDATE, input=keys | {name: None}).refusal == ("INVALID_INPUT", f"input.{name}")
    changed = integrator(UPDATE, input=keys | {"description": None, "expectedResponseCode": None})
    found = changed.data["updateWebhookReceiver"]["webhookReceiver"]
    assert (found["description"], found["expectedResponseCode"], found["name"]) == (None, None, "receiver")


def test_null_in_a_new_receiver_means_the_default(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    make_receiver(contentType=None, active=None, timeoutSeconds=None, signatures=None, headers=None, sharedSecret=None)
    assert integrator.rows("SELECT content_type, active, timeout_seconds, signatures FROM clarion.receivers") == [
        ("application/json", True, 15, ["V1"])
    ]


def test_an_update_takes_exactly_one_etag(integrator: Caller, make_receiver: Callable[..., dict[str, Any]]) -> None:
    receiver = make_receiver()
    etag = receiver["_etag"]
    for etags in ({}, {"etag": etag, "_etag": etag}, {"etag": None}):
        refusal = integrator(UPDATE, input={"id": receiver["id"], "name": "new"} | etags).refusal
        assert refusal == ("INVALID_INPUT", "input.etag")
    for name in ("etag", "_etag"):
        answer = integrator(UPDATE, input={"id": receiver["id"], "name": f"by {name}", name: etag})
        etag = answer.data["updateWebhookReceiver"]["webhookReceiver"]["_etag"]
    assert integrator.rows("SELECT name, etag FROM clarion.receivers") == [("by _etag", etag)]


def test_an_old_etag_is_a_conflict_everywhere(
    integrator: Caller,
    make_receiver: Callable[..., dict[str, Any]],
    make_subscription: Callable[..., dict[str, Any]],
) -> None:
    receiver = make_receiver(headers=[{"key": "x-a", "value": "1"}])
    make_subscription(receiver["id"])
    old = "0" * 32
    for type_name, change in (("Receiver", 'name: "n"'), ("Subscription", "active: false"), ("Header", 'value: "2"')):
        update = f'mutation {{ updateWebhook{type_name}(input: {{id: 1, etag: "{old}", {change}}}) {{ __typename }} }}'
        assert integrator(update).refusal == ("CONFLICT", "input.etag")
        delete = f'mutation {{ deleteWebhook{type_name}(id: 1, etag: "{old}") {{ id }} }}'
        assert integrator(delete).refusal == ("CONFLICT", "etag")
        absent = f'mutation {{ deleteWebhook{type_name}(id: 99, etag: "{old}") {{ id }} }}'
        assert integrator(absent).refusal == ("NOT_FOUND", "id")
    assert integrator.rows("SELECT 1 FROM clarion.history WHERE action <> 'CREATE'") == []


def test_an_update_that_changes_nothing_leaves_the_etag(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    receiver = make_receiver(name="same")
    answer = integrator(UPDATE, input={"id": receiver["id"], "etag": receiver["_etag"], "name": "same", "active": True})
    assert answer.data["updateWebhookReceiver"]["webhookReceiver"]["_etag"] == receiver["_etag"]


def test_active_and_its_reason_go_together(integrator: Caller, make_receiver: Callable[..., dict[str, Any]]) -> None:
    receiver = make_receiver()
    keys = {"id": receiver["id"], "etag": receiver["_etag"]}
    off = integrator(UPDATE, input=keys | {"active": False}).data["updateWebhookReceiver"]["webhookReceiver"]
    assert (off["active"], off["disabledReason"]) == (False, "MANUAL")
    integrator.rows("UPDATE clarion.receivers SET disabled_reason = 'GONE'")
    keys["etag"] = off["_etag"]
    on = integrator(UPDATE, input=keys | {"active": True}).data["updateWebhookReceiver"]["webhookReceiver"]
    assert (on["active"], on["disabledReason"]) == (True, None)


def test_subscriptions_are_changed_and_deleted(
    integrator: Caller,
    make_receiver: Callable[..., dict[str, Any]],
    make_subscription: Callable[..., dict[str, Any]],
) -> None:
    subscription = make_subscription(make_receiver()["id"])
    update = (
        "mutation($input: UpdateWebhookSubscriptionInput!) { updateWebhookSubscription(input: $input) "
        "{ webhookSubscription { _etag active resource action expiresAfterSeconds updatedBy { name kind } } } }"
    )
    keys = {"id": subscription["id"], "etag": subscription["_etag"]}
    assert integrator(update, input=keys | {"expiresAfterSeconds": 0}).refusal == (INVALID, "input.expiresAfterSeconds")
    assert integrator(update, input=keys | {"resource": "NOPE"}).refusal == (INVALID, "input.resource")
    assert integrator(update, input=keys | {"active": None}).refusal == (INVALID, "input.active")
    changed = integrator(update, input=keys | {"active": False, "expiresAfterSeconds": 60, "action": "UPDATE"})
    found = changed.data["updateWebhookSubscription"]["webhookSubscription"]
    etag = found.pop("_etag")
    assert found == {
        "active": False,
        "resource": "RUNS",
        "action": "UPDATE",
        "expiresAfterSeconds": 60,
        "updatedBy": {"name": "integrator", "kind": "MACHINE"},
    }
    delete = f'mutation {{ deleteWebhookSubscription(id: {subscription["id"]}, etag: "{etag}") {{ id }} }}'
    assert integrator(delete).data["deleteWebhookSubscription"] == {"id": subscription["id"]}
    assert integrator("{ webhookSubscription(id: 1) { id } }").refusal == ("NOT_FOUND", "id")
    assert integrator(delete).refusal == ("NOT_FOUND", "id")
    assert integrator.rows("SELECT deleted IS NOT NULL FROM clarion.subscriptions") == [(True,)]


def test_deleting_a_receiver_deletes_its_subscriptions(
    integrator: Caller,
    make_receiver: Callable[..., dict[str, Any]],
    make_subscription: Callable[..., dict[str, Any]],
) -> None:
    receiver, other = make_receiver(), make_receiver(name="other")
    make_subscription(receiver["id"])
    make_subscription(receiver["id"])
    make_subscription(other["id"])
    delete = f'mutation {{ deleteWebhookReceiver(id: {receiver["id"]}, etag: "{receiver["_etag"]}") {{ id }} }}'
    assert integrator(delete).data["deleteWebhookReceiver"] == {"id": receiver["id"]}
    left = integrator(
        "{ webhookSubscriptions { edges { node { receiverId } } } webhookReceivers { edges { node { id } } } }"
    )
    assert left.data["webhookSubscriptions"]["edges"] == [{"node": {"receiverId": other["id"]}}]
    assert left.data["webhookReceivers"]["edges"] == [{"node": {"id": other["id"]}}]
    assert integrator.rows(
        "SELECT object_type, object_id FROM clarion.history WHERE action = 'DELETE' ORDER BY object_type, object_id"
    ) == [("WebhookReceiver", "1"), ("WebhookSubscription", "1"), ("WebhookSubscription", "2")]
    created = integrator(
        "mutation { createWebhookSubscription(input: {receiverId: 1, resource: RUNS, action: CREATE}) { warnings { code } } }"
    )
    assert created.refusal == ("NOT_FOUND", "input.receiverId")


def test_two_equal_subscriptions_are_allowed(
    make_receiver: Callable[..., dict[str, Any]], make_subscription: Callable[..., dict[str, Any]]
) -> None:
    receiver = make_receiver()
    assert make_subscription(receiver["id"])["id"] != make_subscription(receiver["id"])["id"]
