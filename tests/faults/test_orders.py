"""Orders about events through the real API, a real worker and a real receiver; and the worker killed in between."""

from __future__ import annotations

import os
import signal

import pytest

from clarion.access.principal import Role
from harness.api import Caller
from harness.deployment import Deployment
from harness.process import ClarionProcess, children_of

pytestmark = pytest.mark.data_path

KEY = "a-bootstrap-key-of-more-than-32-characters"
CANCEL = "mutation($id: ID!) { cancelWebhookEvent(id: $id) { webhookEvent { id status reason } } }"
RETRY = "mutation($id: ID!) { retryWebhookEvent(id: $id) { webhookEvent { id status attempts { round number statusCode } } } }"
CANCELLED = {"status": "CANCELLED", "reason": "CANCELLED_BY_REQUEST"}


def _serve(deployment: Deployment) -> tuple[ClarionProcess, Caller]:
    roles = ("--role", "api", "--role", "router", "--role", "delivery")
    serve = deployment.serve(*roles, CLARION_LISTEN="127.0.0.1:0", CLARION_BOOTSTRAP_API_KEY=KEY)
    port = int(serve.wait_for_line(r"ready on http://127\.0\.0\.1:(\d+)")[1])
    return serve, Caller(port, KEY, deployment.database)


def _event_ids(deployment: Deployment, count: int) -> list[int]:
    deployment.wait_for_row("SELECT WHERE (SELECT count(*) FROM clarion.queue) = %s", count)
    return [row[0] for row in deployment.rows("SELECT event_id FROM clarion.queue ORDER BY queue_id")]


def test_a_cancelled_event_never_arrives_and_those_behind_it_do(deployment: Deployment) -> None:
    deployment.attach()
    receiver = deployment.register(deployment.receiver.uri("/switch"), retry_schedule=[0] + [1] * 19)
    deployment.subscribe(receiver)
    deployment.receiver.switch(500)
    _, api = _serve(deployment)
    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    for _ in range(2):
        deployment.connection.execute("UPDATE items SET version = version + 1")
    first, second, third = _event_ids(deployment, 3)
    other = api.of("somebody else", Role.INTEGRATOR)
    assert other(CANCEL, id=str(second)).refusal == ("NOT_FOUND", "id")
    cancelled = api(CANCEL, id=str(second)).data["cancelWebhookEvent"]["webhookEvent"]
    assert cancelled == {"id": str(second), **CANCELLED}
    assert api(CANCEL, id=str(second)).refusal == ("CONFLICT", "id")
    deployment.receiver.switch(200)
    deployment.wait_until_settled()
    assert {r.json()["event_id"] for r in deployment.receiver.received()} == {first, third}
    assert deployment.rows("SELECT FROM clarion.commands") == []
    assert deployment.rows(
        "SELECT client_name, action FROM clarion.history WHERE object_type = 'WebhookEvent' AND refusal IS NULL"
    ) == [("bootstrap", "CANCEL")]


def test_held_events_are_cancelled_and_the_others_drain_in_order_after_a_restart(deployment: Deployment) -> None:
    deployment.attach()
    receiver = deployment.register(active=False, disabled_reason="MANUAL")
    deployment.subscribe(receiver)
    serve, api = _serve(deployment)
    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    for _ in range(20):
        deployment.connection.execute("UPDATE items SET version = version + 1")
    ids = _event_ids(deployment, 21)
    cancelled = api(CANCEL, id=str(ids[10])).data["cancelWebhookEvent"]["webhookEvent"]
    assert cancelled == {"id": str(ids[10]), **CANCELLED}
    os.killpg(serve.pid, signal.SIGKILL)
    serve.wait()
    _, api = _serve(deployment)
    assert deployment.receiver.count() == 0
    found = api("query($id: ID!) { webhookReceiver(id: $id) { _etag } }", id=str(receiver)).data["webhookReceiver"]
    api(
        "mutation($input: UpdateWebhookReceiverInput!) { updateWebhookReceiver(input: $input) { webhookReceiver { id } } }",
        input={"id": str(receiver), "etag": found["_etag"], "active": True},
    )
    deployment.wait_until_settled()
    arrived = [r.json()["data"]["version"] for r in deployment.receiver.received()]
    assert arrived == [version for version in range(1, 22) if version != 11]


def test_an_order_outlives_the_worker_that_is_killed_before_it_is_carried_out(deployment: Deployment) -> None:
    deployment.attach()
    deployment.subscribe(deployment.register(deployment.receiver.uri("/hang")))
    serve = deployment.serve()
    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    (event_id,) = _event_ids(deployment, 1)
    deployment.receiver.wait_for(1)
    # Under way: the order waits in memory for the outcome, and the memory goes.
    deployment.connection.execute(
        "INSERT INTO clarion.commands (organisation_id, shard, kind, event_id) "
        "SELECT organisation_id, shard, 'CANCEL', event_id FROM clarion.queue"
    )
    deployment.connection.execute("NOTIFY clarion_commands")
    os.kill(children_of(serve.pid)[0], signal.SIGKILL)
    deployment.wait_until_settled(timeout_s=40)
    assert deployment.rows("SELECT event_id, status, reason FROM clarion.events") == [
        (event_id, "CANCELLED", "CANCELLED_BY_REQUEST")
    ]
    deployment.wait_for_row("SELECT WHERE NOT EXISTS (SELECT FROM clarion.commands)")


def test_a_failed_event_is_sent_again_with_the_same_id_and_bytes_outside_its_lane(deployment: Deployment) -> None:
    deployment.attach()
    receiver = deployment.register(deployment.receiver.uri("/switch"), retry_schedule=[0])
    deployment.subscribe(receiver)
    deployment.receiver.switch(500)
    _, api = _serve(deployment)
    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    deployment.receiver.wait_for(1)
    deployment.wait_until_settled()
    ((event_id, digest),) = deployment.rows("SELECT event_id, body_sha256 FROM clarion.events WHERE status = 'FAILED'")
    # The object's next event waits for its own second attempt: a retry that stood in the lane would wait behind it.
    deployment.connection.execute("UPDATE clarion.receivers SET retry_schedule = '{0,3600}'")
    deployment.connection.execute("UPDATE items SET version = version + 1")
    deployment.receiver.wait_for(2)
    deployment.wait_for_row("SELECT FROM clarion.queue WHERE attempts_count = 1")
    assert api.of("somebody else", Role.INTEGRATOR)(RETRY, id=str(event_id)).refusal == ("NOT_FOUND", "id")
    deployment.receiver.switch(200)
    assert api(RETRY, id=str(event_id)).data["retryWebhookEvent"]["webhookEvent"]["id"] == str(event_id)
    first, _, again = deployment.receiver.wait_for(3)
    assert (again.message_id, again.body) == (first.message_id, first.body)
    assert again.headers["clarion-retry"] == "1"
    assert "clarion-retry" not in first.headers
    deployment.wait_for_row("SELECT FROM clarion.events WHERE event_id = %s AND round = 1", event_id)
    assert deployment.rows(
        "SELECT round, status, body_sha256 FROM clarion.events WHERE event_id = %s ORDER BY round", event_id
    ) == [(0, "FAILED", digest), (1, "DELIVERED", digest)]
    shown = api(
        "query($id: ID!) { webhookEvent(id: $id) { status attempts { round number statusCode } } }", id=str(event_id)
    ).data["webhookEvent"]
    assert shown == {
        "status": "DELIVERED",
        "attempts": [
            {"round": 0, "number": 1, "statusCode": 500},
            {"round": 1, "number": 1, "statusCode": 200},
        ],
    }


def test_two_requests_for_one_retry_make_one_round(deployment: Deployment) -> None:
    deployment.attach()
    deployment.subscribe(deployment.register())
    serve, api = _serve(deployment)
    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    deployment.receiver.wait_for(1)
    deployment.wait_until_settled()
    serve.stop()
    # Both are there before the router looks, so that they fall into one statement; a third comes when it is too late.
    request = (
        "INSERT INTO clarion.intake (organisation_id, kind, request) SELECT organisation_id, 'RETRY', "
        "jsonb_build_object('event_id', event_id, 'round', 0) FROM clarion.events WHERE round = 0"
    )
    for _ in range(2):
        deployment.connection.execute(request)
    _, api = _serve(deployment)
    deployment.receiver.wait_for(2)
    deployment.wait_for_row("SELECT FROM clarion.events WHERE round = 1")
    deployment.connection.execute(request)
    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    deployment.wait_for_row("SELECT WHERE NOT EXISTS (SELECT FROM clarion.intake)")
    deployment.receiver.wait_for(3)
    deployment.wait_until_settled()
    assert deployment.rows("SELECT event_id, round FROM clarion.events ORDER BY 1, 2") == [(1, 0), (1, 1), (2, 0)]
    subscription = "(SELECT subscription_id FROM clarion.events WHERE event_id = 1 LIMIT 1)"
    deployment.connection.execute(
        f"UPDATE clarion.subscriptions SET deleted = now() WHERE id = {subscription}".encode()
    )
    assert api(RETRY, id="1").refusal == ("CONFLICT", "id")


def test_an_event_that_waits_for_its_next_attempt_is_tried_at_once(deployment: Deployment) -> None:
    deployment.attach()
    deployment.subscribe(deployment.register(deployment.receiver.uri("/switch"), retry_schedule=[0, 86400]))
    deployment.receiver.switch(500)
    _, api = _serve(deployment)
    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    deployment.wait_for_row("SELECT FROM clarion.queue WHERE attempts_count = 1")
    deployment.receiver.switch(200)
    assert api(RETRY, id="1").data["retryWebhookEvent"]["webhookEvent"]["id"] == "1"
    deployment.wait_until_settled()
    first, again = deployment.receiver.received()
    assert (again.message_id, again.body) == (first.message_id, first.body)
    assert "clarion-retry" not in again.headers, "the same round"
    deployment.wait_for_row("SELECT WHERE NOT EXISTS (SELECT FROM clarion.commands)")
