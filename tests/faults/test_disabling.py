"""A receiver without one success for days is disabled, through restarts and hand-overs of whoever serves it."""

from __future__ import annotations

import pytest

from harness.api import Caller
from harness.deployment import Deployment

pytestmark = pytest.mark.data_path

KEY = "a-bootstrap-key-of-more-than-32-characters"
ALL = ("--role", "api", "--role", "router", "--role", "delivery")
SOON_AGAIN = [0] + [1] * 19
MUCH_LATER = [0, 60, 60]


def plant(deployment: Deployment, receiver_id: int, days: str, failed_count: int) -> None:
    """What a worker would have stored that served the receiver for days."""
    deployment.connection.execute(
        """INSERT INTO clarion.receiver_health (receiver_id, organisation_id, failing_since, failed_count)
           SELECT id, organisation_id, clock_timestamp() - %s::interval, %s FROM clarion.receivers WHERE id = %s""",
        (days, failed_count, receiver_id),
    )


def health(deployment: Deployment, receiver_id: int) -> list[tuple[object, ...]]:
    return deployment.rows(
        "SELECT failing_since, failed_count FROM clarion.receiver_health WHERE receiver_id = %s", receiver_id
    )


def switch_on(deployment: Deployment, receiver_id: int) -> None:
    deployment.connection.execute(
        "UPDATE clarion.receivers SET active = true, disabled_reason = NULL WHERE id = %s", (receiver_id,)
    )


def statuses(api: Caller, receiver_id: int) -> list[str]:
    query = """query($id: ID!) { webhookEvents(first: 100, filters: {receiverId: {eq: $id}}) {
        edges { node { status } } } }"""
    edges = api(query, id=str(receiver_id)).data["webhookEvents"]["edges"]
    return [edge["node"]["status"] for edge in edges]


def test_after_five_days_of_failures_it_is_disabled_its_owner_hears_of_it_and_its_events_wait(
    deployment: Deployment,
) -> None:
    deployment.attach()
    receiver = deployment.receiver
    receiver.switch(500)
    dead = deployment.register(receiver.uri("/switch"), retry_schedule=SOON_AGAIN)
    recent = deployment.register(receiver.uri("/status/500"), retry_schedule=MUCH_LATER)
    beside = deployment.register()
    for receiver_id in (dead, recent, beside):
        deployment.subscribe(receiver_id, actions=["CREATE"])
    observer = deployment.register(receiver.uri("/status/200"))
    deployment.subscribe(observer, "WEBHOOK_RECEIVERS", ["UPDATE"])
    stranger = deployment.register(receiver.uri("/status/201"), organisation="another")
    deployment.subscribe(stranger, "WEBHOOK_RECEIVERS", ["UPDATE"])
    plant(deployment, dead, "5 days", 30)
    plant(deployment, recent, "4 days 23 hours", 3000)
    serve = deployment.serve(*ALL, CLARION_LISTEN="127.0.0.1:0", CLARION_BOOTSTRAP_API_KEY=KEY)
    api = Caller(int(serve.wait_for_line(r"ready on http://127\.0\.0\.1:(\d+)")[1]), KEY, deployment.database)

    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    deployment.wait_for_row(
        "SELECT FROM clarion.receivers WHERE id = %s AND NOT active AND disabled_reason = 'NO_SUCCESS'", dead
    )
    deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, 5)")
    deployment.wait_for_row("SELECT FROM clarion.events WHERE receiver_id = %s HAVING count(*) = 6", beside)
    assert deployment.rows("SELECT id FROM clarion.receivers WHERE NOT active") == [(dead,)]
    assert statuses(api, dead) == ["HELD"] * 6
    assert statuses(api, beside) == ["DELIVERED"] * 6

    deployment.wait_for_row("SELECT FROM clarion.events WHERE receiver_id = %s AND status = 'DELIVERED'", observer)
    # The health of the receivers fires nothing: this is all that the observer hears.
    (told,) = [request.json() for request in receiver.received() if request.path == "/status/200"]
    assert (told["action"], told["object_id"]) == ("update", str(dead))
    assert (told["data"]["active"], told["data"]["disabled_reason"]) == (False, "NO_SUCCESS")

    tried = len([request for request in receiver.received() if request.path == "/switch"])
    receiver.switch(200)
    switch_on(deployment, dead)
    deployment.wait_for_row(
        "SELECT FROM clarion.events WHERE receiver_id = %s AND status = 'DELIVERED' HAVING count(*) = 6", dead
    )
    assert tried == 1
    assert health(deployment, dead) == []
    deployment.wait_for_row("SELECT FROM clarion.events WHERE receiver_id = %s HAVING count(*) = 2", observer)
    assert not [request for request in receiver.received() if request.path == "/status/201"]


def test_since_when_it_fails_outlives_workers_and_one_success_ends_it(deployment: Deployment) -> None:
    deployment.attach()
    receiver = deployment.receiver
    receiver.switch(500)
    failing = deployment.register(receiver.uri("/switch"), retry_schedule=MUCH_LATER, concurrency=8)
    deployment.subscribe(failing, actions=["CREATE"])
    first = deployment.serve()
    ((version,),) = deployment.rows("SELECT version FROM clarion.configuration")
    deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, 3)")
    deployment.wait_for_row("SELECT FROM clarion.queue HAVING count(due_at) = 3")
    # It joins and takes half: either of the two may be the one to go on.
    second = deployment.serve("--role", "delivery", "--workers", "1")
    deployment.wait_for_row(
        "SELECT FROM clarion.shards WHERE worker_id = (SELECT max(id) FROM clarion.workers) HAVING count(*) = 32"
    )
    assert first.stop().code == 0
    ((since, count),) = health(deployment, failing)
    assert count == 3, "a worker that stops in order loses none"
    deployment.wait_for_row(
        "SELECT FROM clarion.shards WHERE worker_id = (SELECT max(id) FROM clarion.workers) HAVING count(*) = 64"
    )
    assert second.stop().code == 0
    assert health(deployment, failing) == [(since, 3)]
    deployment.serve()
    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    deployment.wait_for_row("SELECT FROM clarion.queue HAVING count(due_at) = 4")
    assert health(deployment, failing)[0][0] == since
    assert deployment.rows("SELECT version FROM clarion.configuration") == [(version,)], "no change of a receiver"
    receiver.switch(200)
    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    deployment.wait_for_row(
        "SELECT WHERE NOT EXISTS (SELECT FROM clarion.receiver_health WHERE receiver_id = %s)", failing
    )


def test_switched_off_and_on_while_nobody_serves_it_begins_anew(deployment: Deployment) -> None:
    deployment.attach()
    failing = deployment.register(deployment.receiver.uri("/status/500"), retry_schedule=MUCH_LATER)
    deployment.subscribe(failing, actions=["CREATE"])
    plant(deployment, failing, "50 days", 3000)
    deployment.connection.execute("UPDATE clarion.receivers SET active = false WHERE id = %s", (failing,))
    switch_on(deployment, failing)
    assert health(deployment, failing) == []
    deployment.serve()
    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    deployment.wait_for_row(
        "SELECT FROM clarion.receiver_health WHERE failing_since > now() - interval '1 h' AND failed_count = 1"
    )
    assert deployment.rows("SELECT active FROM clarion.receivers WHERE id = %s", failing) == [(True,)]
