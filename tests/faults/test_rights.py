"""A receiver's rights through the real API, router, worker and a real receiver: what stops, what goes on, what comes back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from clarion.access.principal import Role
from clarion.capture.attachment import Attachment
from harness.api import Caller
from harness.deployment import Deployment

pytestmark = pytest.mark.data_path

KEY = "a-bootstrap-key-of-more-than-32-characters"
CREATE = "mutation($input: CreateWebhookReceiverInput!) { createWebhookReceiver(input: $input) { webhookReceiver { id _etag } } }"
UPDATE = "mutation($input: UpdateWebhookReceiverInput!) { updateWebhookReceiver(input: $input) { webhookReceiver { id _etag } } }"
SUBSCRIBE = (
    "mutation($input: CreateWebhookSubscriptionInput!) { createWebhookSubscription(input: $input) "
    "{ webhookSubscription { id } } }"
)
SHOWN = "query($id: ID!) { webhookSubscription(id: $id) { inactiveReason activeFromPosition activeUntilPosition } }"
TEST = "mutation($id: ID!) { testWebhookReceiver(id: $id) { webhookEvent { status } } }"
EVENTS = (
    "query($id: ID!) { webhookEvents(filters: {receiverId: {eq: $id}}, sort: [ID_ASC]) "
    "{ edges { node { resource status reason } } } }"
)


@pytest.fixture
def api(deployment: Deployment) -> Caller:
    deployment.connection.execute("CREATE TABLE issues (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text)")
    deployment.attach(
        Attachment(resource="ITEMS", table="items"),
        Attachment(resource="ISSUES", singular="ISSUE", table="issues"),
    )
    roles = ("--role", "api", "--role", "router", "--role", "delivery")
    serve = deployment.serve(*roles, CLARION_LISTEN="127.0.0.1:0", CLARION_BOOTSTRAP_API_KEY=KEY)
    port = int(serve.wait_for_line(r"ready on http://127\.0\.0\.1:(\d+)")[1])
    return Caller(port, KEY, deployment.database)


def register(api: Caller, uri: str, **values: Any) -> tuple[dict[str, Any], list[str]]:
    """A receiver, and its subscriptions to new items and issues."""
    given = {"name": "r", "webhookUri": uri} | values
    receiver = api(CREATE, input=given).data["createWebhookReceiver"]["webhookReceiver"]
    subscriptions = []
    for resource in ("ITEMS", "ISSUES"):
        wanted = {"receiverId": receiver["id"], "resource": resource, "action": "CREATE"}
        made = api(SUBSCRIBE, input=wanted).data["createWebhookSubscription"]["webhookSubscription"]
        subscriptions.append(made["id"])
    return receiver, subscriptions


def allow(api: Caller, receiver: dict[str, Any], rights: list[str] | None) -> dict[str, Any]:
    """The receiver once the API has answered that these are its rights."""
    given = {"id": receiver["id"], "etag": receiver["_etag"], "readableResources": rights}
    updated: dict[str, Any] = api(UPDATE, input=given).data["updateWebhookReceiver"]["webhookReceiver"]
    return updated


@contextmanager
def writing(deployment: Deployment) -> Iterator[None]:
    """An application that makes an item and an issue every few milliseconds."""
    ending = threading.Event()

    def write() -> None:
        with psycopg.connect(deployment.database.url, autocommit=True) as connection:
            while not ending.wait(0.005):
                connection.execute("INSERT INTO items DEFAULT VALUES")
                connection.execute("INSERT INTO issues DEFAULT VALUES")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        ending.set()
        writer.join(10)


def arrived(deployment: Deployment, resource: str) -> list[int]:
    """Ids of the objects of the resource as they came."""
    bodies = (request.json() for request in deployment.receiver.received())
    return [int(body["object_id"]) for body in bodies if body["resource"] == resource]


def newest(deployment: Deployment, table: str) -> int:
    ((last,),) = deployment.rows(f"SELECT max(id) FROM {table}")
    return int(last or 0)


def grown(deployment: Deployment, seconds: float = 20) -> None:
    """Until an item that is made from now on has arrived."""
    wanted = newest(deployment, "items") + 1
    deadline = time.monotonic() + seconds
    while max(arrived(deployment, "items"), default=0) < wanted:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_events_stop_with_the_right_and_go_on_with_it_without_those_that_were_missed(
    deployment: Deployment, api: Caller
) -> None:
    receiver, (_, issues) = register(api, deployment.receiver.uri())
    with writing(deployment):
        grown(deployment)
        deployment.wait_for_row(
            "SELECT FROM clarion.events WHERE subscription_id = %s AND status = 'DELIVERED'", int(issues)
        )
        assert arrived(deployment, "issues")
        receiver = allow(api, receiver, ["ITEMS"])
        time.sleep(1)  # what the answer promises
        before = arrived(deployment, "issues")
        missed_from = newest(deployment, "issues")
        for _ in range(5):
            grown(deployment)
        assert arrived(deployment, "issues") == before, "one came more than a second after the answer"
        shown = api(SHOWN, id=issues).data["webhookSubscription"]
        assert shown["inactiveReason"] == "RIGHT_REVOKED"
        assert shown["activeUntilPosition"] is not None
        missed_to = newest(deployment, "issues")
        grown(deployment)  # so that the router has passed it
        allow(api, receiver, ["ITEMS", "ISSUES"])
        deployment.wait_for_row(
            "SELECT FROM clarion.activations WHERE subscription_id = %s AND until_position IS NULL", int(issues)
        )
        for _ in range(2):
            grown(deployment)
    deployment.wait_until_settled()
    came = arrived(deployment, "issues")
    assert missed_to - missed_from >= 5, "enough was missed to show something"
    assert not set(came) & set(range(missed_from, missed_to + 1))
    assert max(came) == newest(deployment, "issues")
    assert len(came) == len(set(came))
    assert sorted(arrived(deployment, "items")) == list(range(1, newest(deployment, "items") + 1)), (
        "of others none is missing"
    )
    shown = api(SHOWN, id=issues).data["webhookSubscription"]
    assert shown == {
        "inactiveReason": None,
        "activeFromPosition": shown["activeFromPosition"],
        "activeUntilPosition": None,
    }
    ended = deployment.rows("SELECT DISTINCT status, reason FROM clarion.events ORDER BY status DESC")
    assert ended[0] == ("DELIVERED", "SUCCEEDED")
    assert ended[1:] in ([], [("CANCELLED", "RIGHT_REVOKED")])


def test_what_waits_is_cancelled_with_the_reason_and_tests_are_sent_still(deployment: Deployment, api: Caller) -> None:
    deployment.receiver.switch(500)
    receiver, _ = register(api, deployment.receiver.uri("/switch"), retrySchedule=[0, 3600])
    for table in ("items", "issues"):
        deployment.connection.execute(f"INSERT INTO {table} DEFAULT VALUES")
    deployment.wait_for_row("SELECT WHERE (SELECT count(*) FROM clarion.queue WHERE attempts_count = 1) = 2")
    receiver = allow(api, receiver, ["ITEMS"])
    deployment.wait_for_row("SELECT WHERE (SELECT count(*) FROM clarion.queue) = 1", timeout_s=1)
    events = [edge["node"] for edge in api(EVENTS, id=receiver["id"]).data["webhookEvents"]["edges"]]
    assert events == [
        {"resource": "ITEMS", "status": "PENDING", "reason": None},
        {"resource": "ISSUES", "status": "CANCELLED", "reason": "RIGHT_REVOKED"},
    ]
    assert deployment.receiver.count() == 2
    allow(api, receiver, [])
    deployment.wait_until_settled(1)
    deployment.receiver.switch(200)
    assert api(TEST, id=receiver["id"]).data["testWebhookReceiver"]["webhookEvent"] == {"status": "DELIVERED"}


def test_deliveries_go_on_when_the_client_that_granted_them_is_gone(deployment: Deployment, api: Caller) -> None:
    integrator = api.of("default", Role.INTEGRATOR, "leaving")
    deployment.rows(
        "UPDATE clarion.clients SET readable_resources = '{ITEMS,ISSUES}' WHERE name = 'leaving' RETURNING id"
    )
    register(integrator, deployment.receiver.uri())
    assert deployment.rows("SELECT readable_resources FROM clarion.receivers") == [(["ISSUES", "ITEMS"],)]
    with writing(deployment):
        grown(deployment)
        deployment.rows(
            "WITH gone AS (UPDATE clarion.clients SET active = false, readable_resources = '{}' WHERE name = 'leaving' "
            "RETURNING id) UPDATE clarion.api_keys SET revoked = now() FROM gone WHERE client_id = gone.id RETURNING 1"
        )
        deadline = time.monotonic() + 2
        while integrator("{ webhookReceivers { edges { node { id } } } }").status != 401:
            assert time.monotonic() < deadline
        for _ in range(3):
            grown(deployment)
    deployment.wait_until_settled()
    for table in ("items", "issues"):
        assert sorted(arrived(deployment, table)) == list(range(1, newest(deployment, table) + 1))
