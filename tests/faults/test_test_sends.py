"""The test of a receiver through the real API, router, worker and receiver."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from clarion.access.principal import Role
from clarion_receive import Webhook
from harness.api import Caller
from harness.deployment import Deployment

pytestmark = pytest.mark.data_path

KEY = "a-bootstrap-key-of-more-than-32-characters"
TEST = (
    "mutation($id: ID!) { testWebhookReceiver(id: $id) { attempt { outcome statusCode error peerAddress durationMs } "
    "webhookEvent { id status reason resource sequence subscription { id } receiver { id } } } }"
)
CREATE = (
    'mutation($uri: String!, $timeout: Int!) { createWebhookReceiver(input: {name: "r", webhookUri: $uri, '
    "timeoutSeconds: $timeout}) { webhookReceiver { id _etag sharedSecret } } }"
)


@pytest.fixture(scope="module")
def deployment(shared_deployment: Deployment) -> Deployment:
    """One for all tests, which look at receivers of their own only."""
    return shared_deployment


@pytest.fixture(scope="module")
def api(deployment: Deployment) -> Caller:
    roles = ("--role", "api", "--role", "router", "--role", "delivery")
    serve = deployment.serve(*roles, CLARION_LISTEN="127.0.0.1:0", CLARION_BOOTSTRAP_API_KEY=KEY)
    port = int(serve.wait_for_line(r"ready on http://127\.0\.0\.1:(\d+)")[1])
    return Caller(port, KEY, deployment.database)


@pytest.fixture
def register(api: Caller) -> Callable[..., dict[str, Any]]:
    def make(uri: str, timeout: int = 15) -> dict[str, Any]:
        made: dict[str, Any] = api(CREATE, uri=uri, timeout=timeout).data["createWebhookReceiver"]["webhookReceiver"]
        return made

    return make


def test_a_test_is_sent_signed_once_and_answered_with_its_attempt(
    deployment: Deployment, api: Caller, register: Callable[..., dict[str, Any]]
) -> None:
    deployment.receiver.switch(200, "tested")
    receiver = register(deployment.receiver.uri("/switch/tested"))
    tested = api(TEST, id=receiver["id"]).data["testWebhookReceiver"]
    assert tested["webhookEvent"] == {
        "id": tested["webhookEvent"]["id"], "status": "DELIVERED", "reason": "SUCCEEDED", "resource": "WEBHOOK_TESTS",
        "sequence": 0, "subscription": None, "receiver": {"id": receiver["id"]},
    }  # fmt: skip
    assert (tested["attempt"]["outcome"], tested["attempt"]["statusCode"]) == ("SUCCEEDED", 200)
    (request,) = [request for request in deployment.receiver.received() if request.path == "/switch/tested"]
    event = Webhook(receiver["sharedSecret"]).verify(request.body, request.headers)
    assert request.json()["resource"] == "webhook_tests"
    assert request.json()["action"] == "create"
    assert request.json()["subscription_id"] == 0
    assert request.json()["actor"]["name"] == "bootstrap"
    assert event.body == request.body
    deployment.receiver.switch(503, "tested")
    failed = api(TEST, id=receiver["id"]).data["testWebhookReceiver"]
    assert (failed["webhookEvent"]["status"], failed["webhookEvent"]["reason"]) == ("FAILED", "TEST_FAILED")
    assert failed["attempt"]["statusCode"] == 503
    assert deployment.rows("SELECT FROM clarion.queue WHERE receiver_id = %s", receiver["id"]) == []
    recorded = "SELECT action FROM clarion.history WHERE action = 'TEST' AND object_id = %s"
    assert deployment.rows(recorded, receiver["id"]) == [("TEST",)] * 2
    changes = deployment.rows(
        "SELECT change_id FROM clarion.ledger WHERE organisation_id = "
        "(SELECT id FROM clarion.organisations WHERE name = 'default') ORDER BY change_id"
    )
    assert changes == [(number,) for number in range(1, len(changes) + 1)]


def test_ten_tests_an_hour_and_who_may_ask_for_one(
    deployment: Deployment, api: Caller, register: Callable[..., dict[str, Any]]
) -> None:
    receiver, other = (register(deployment.receiver.uri()) for _ in range(2))
    assert api.of("somebody else", Role.INTEGRATOR)(TEST, id=receiver["id"]).refusal == ("NOT_FOUND", "id")
    assert api.of("default", Role.AUDITOR)(TEST, id=receiver["id"]).refusal[0] == "FORBIDDEN"
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: api(TEST, id=receiver["id"]), range(12)))
    refused = [answer for answer in answers if "errors" in answer.body]
    assert [answer.refusal for answer in refused] == [("RATE_LIMITED", "id")] * 2
    assert "the next test is possible in 60 min" in refused[0].error["message"]
    assert api(TEST, id=other["id"]).data["testWebhookReceiver"]["attempt"]["outcome"] == "SUCCEEDED"
    deployment.connection.execute("UPDATE clarion.tests SET created = created - interval '61 minutes'")
    assert api(TEST, id=receiver["id"]).data["testWebhookReceiver"]["attempt"]["outcome"] == "SUCCEEDED"
    deployment.connection.execute("UPDATE clarion.receivers SET active = false WHERE id = %s", (receiver["id"],))
    assert api(TEST, id=receiver["id"]).refusal == ("CONFLICT", "id")


def test_refused_and_blocked_look_alike(
    deployment: Deployment, api: Caller, register: Callable[..., dict[str, Any]]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refusing = register(f"https://127.0.0.1:{closed.getsockname()[1]}/", timeout=1)
        blocked = register(deployment.receiver.uri(), timeout=1)
        deployment.connection.execute(
            "UPDATE clarion.receivers SET webhook_uri = 'https://169.254.169.254/' WHERE id = %s", (blocked["id"],)
        )
        with ThreadPoolExecutor(2) as pool:
            answers = list(
                pool.map(lambda one: api(TEST, id=one["id"]).data["testWebhookReceiver"], (refusing, blocked))
            )
    assert answers[0]["attempt"] == answers[1]["attempt"]
    assert answers[0]["attempt"] == {
        "outcome": "CONNECT_FAILED", "statusCode": None, "error": "no connection to the destination could be made",
        "peerAddress": None, "durationMs": 1150,
    }  # fmt: skip
    assert [answer["webhookEvent"]["status"] for answer in answers] == ["FAILED"] * 2


def test_a_test_that_the_breaker_holds_is_cancelled_when_its_time_is_over(
    deployment: Deployment, api: Caller, register: Callable[..., dict[str, Any]]
) -> None:
    deployment.attach()
    deployment.receiver.switch(500, "held")
    receiver = register(deployment.receiver.uri("/switch/held"), timeout=1)
    deployment.subscribe(int(receiver["id"]))
    deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, 12)")
    deployment.wait_for_row(
        "SELECT FROM clarion.queue WHERE receiver_id = %s HAVING sum(attempts_count) >= 10", receiver["id"]
    )
    held = api(TEST, id=receiver["id"]).data["testWebhookReceiver"]
    if held["attempt"] is None:  # or it was the probe
        assert (held["webhookEvent"]["status"], held["webhookEvent"]["reason"]) == ("CANCELLED", "CANCELLED_BY_REQUEST")
    assert deployment.rows("SELECT FROM clarion.queue WHERE subscription_id = 0") == []
