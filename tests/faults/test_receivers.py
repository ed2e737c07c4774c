"""What receivers do, on purpose or not, through the real command line, real TLS and real PostgreSQL."""

from __future__ import annotations

import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from clarion.capture.attach import Attachment
from clarion_receive import Webhook
from harness.api import Caller
from harness.deployment import Deployment
from harness.receiver import Received, ReceiverProcess
from tls import make_authority

pytestmark = pytest.mark.data_path

KEY = "a-bootstrap-key-of-more-than-32-characters"
ONCE_AND_MUCH_LATER = [0, 60, 60]
SOON_AGAIN = [0] + [1] * 19


@pytest.fixture(scope="module")
def api(shared_deployment: Deployment) -> Caller:
    """The API of a deployment that delivers to 127.0.0.0/8."""
    roles = ("--role", "api", "--role", "router", "--role", "delivery")
    serve = shared_deployment.serve(*roles, CLARION_LISTEN="127.0.0.1:0", CLARION_BOOTSTRAP_API_KEY=KEY)
    port = int(serve.wait_for_line(r"ready on http://127\.0\.0\.1:(\d+)")[1])
    return Caller(port, KEY, shared_deployment.database)


@pytest.fixture(scope="module")
def serving(shared_deployment: Deployment, api: Caller) -> Deployment:
    return shared_deployment


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the test's own, so that no other test's receivers hear of it."""

    deployment: Deployment
    name: str

    @property
    def resource(self) -> str:
        return self.name.upper()

    def register(self, uri: str | None = None, *, expires: int | None = None, **columns: object) -> int:
        """A receiver that is subscribed to all that happens to the table; its id."""
        receiver_id = self.deployment.register(uri, **columns)
        for subscription in self.deployment.subscribe(receiver_id, self.resource):
            self.deployment.connection.execute(
                "UPDATE clarion.subscriptions SET expires_after_seconds = %s WHERE id = %s", (expires, subscription)
            )
        return receiver_id

    def write(self, item: int, *versions: int) -> None:
        """The versions of one row, each a transaction of its own."""
        for version in versions:
            self.deployment.connection.execute(
                f"INSERT INTO {self.name} VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET version = excluded.version".encode(),
                (item, version),
            )

    def received(self, path: str) -> list[tuple[str, int]]:
        """Object and version of each of the table's requests to the path, in the order of arrival."""
        bodies = [r.json() for r in self.deployment.receiver.received() if r.path == path]
        return [(b["object_id"], b["data"]["version"]) for b in bodies if b["resource"] == self.name]

    def wait_until_settled(self, *receiver_ids: int) -> None:
        """Until nothing is left to be routed, and nothing to be delivered to these receivers."""
        self.deployment.wait_for_row(
            "SELECT WHERE NOT EXISTS (SELECT FROM clarion.outbox) "
            "AND NOT EXISTS (SELECT FROM clarion.queue WHERE receiver_id = ANY (%s))",
            list(receiver_ids),
        )

    def attempts(self, receiver_id: int) -> list[tuple[Any, ...]]:
        """Version, number, outcome, status and error of each attempt made for the receiver."""
        return self.deployment.rows(
            f"""SELECT (l.new::json ->> 'version')::int, a.number, a.outcome, a.status_code, a.error
                FROM {EVENTS} e JOIN clarion.attempts a USING (event_id, round) JOIN clarion.ledger l USING (position)
                WHERE e.receiver_id = %s ORDER BY event_id, number""",
            receiver_id,
        )

    def settled(self, receiver_id: int) -> list[tuple[Any, ...]]:
        """Status, reason and number of the receiver's settled events."""
        return self.deployment.rows(
            "SELECT status, reason, count(*) FROM clarion.events WHERE receiver_id = %s GROUP BY 1, 2 ORDER BY 1, 2",
            receiver_id,
        )


EVENTS = """(SELECT event_id, round, receiver_id, position FROM clarion.queue
             UNION ALL SELECT event_id, round, receiver_id, position FROM clarion.events)"""


_numbers = itertools.count(1)


@pytest.fixture
def table(serving: Deployment) -> Table:
    return _table(serving, f"table_{next(_numbers)}")


def _table(deployment: Deployment, name: str) -> Table:
    deployment.connection.execute(f"CREATE TABLE {name} (id bigint PRIMARY KEY, version integer)".encode())
    deployment.attach(Attachment(resource=name.upper(), table=name))
    return Table(deployment, name)


@contextmanager
def canary(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A listener that nobody may connect to: fails at the end if somebody did."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        yield listening
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


# ---------------------------------------------------------------- failing, in every way

HANGS = "hangs to the deadline"
FAILURES = {
    "answers 500": ("UNEXPECTED_STATUS", 500, "answered 500, expected any 2xx"),
    "redirects": ("UNEXPECTED_STATUS", 307, "answered 307, expected any 2xx; redirects are not followed"),
    HANGS: ("TIMED_OUT", None, "no answer within 1 s"),
    "closes the connection": ("CONNECTION_CLOSED", None, "the receiver (closed|reset) the connection"),
    "certificate of an unknown authority": ("TLS_FAILED", None, "unknown certificate authority"),
    "certificate for another address": ("TLS_FAILED", None, "address mismatch: the certificate is for another"),
    "certificate that expired": ("TLS_FAILED", None, "certificate has expired"),
    "refuses the connection": ("CONNECT_FAILED", None, "the connection was refused"),
    "private address": ("BLOCKED", None, "the destination is not allowed"),
    "http": ("BLOCKED", None, "the destination is not allowed"),
}
ITEMS = 20


@dataclass(frozen=True, slots=True)
class Failed:
    """What became of ITEMS changes at a healthy receiver and at one of each failing kind."""

    table: Table
    receivers: dict[str, int]
    healthy: int
    committed_at: float


@pytest.fixture(scope="module")
def failed(serving: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failed]:
    table = _table(serving, "failing")
    directory = tmp_path_factory.mktemp("receivers")
    authority = serving.authority
    with ExitStack() as ending:

        def receiver(name: str, certificate: tuple[Path, Path]) -> str:
            return ending.enter_context(ReceiverProcess(directory / name, certificate)).uri()

        closed = ending.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))
        listening = ending.enter_context(canary())
        uris = {
            "answers 500": serving.receiver.uri("/status/500"),
            "redirects": serving.receiver.uri("/status/307"),
            HANGS: serving.receiver.uri("/hang"),
            "closes the connection": serving.receiver.uri("/close"),
            "certificate of an unknown authority": receiver(
                "unknown", make_authority(directory).issue(addresses=["127.0.0.1"])
            ),
            "certificate for another address": receiver("other", authority.issue(addresses=["127.0.0.2"])),
            "certificate that expired": receiver("expired", authority.issue(addresses=["127.0.0.1"], expired=True)),
            "refuses the connection": f"https://127.0.0.1:{closed.getsockname()[1]}/",
            "private address": "https://10.0.0.1/",
            "http": f"http://127.0.0.1:{listening.getsockname()[1]}/",
        }
        assert uris.keys() == FAILURES.keys()
        settings: dict[str, Any] = {"timeout_seconds": 1, "retry_schedule": ONCE_AND_MUCH_LATER, "concurrency": ITEMS}
        receivers = {kind: table.register(uri, **settings) for kind, uri in uris.items()}
        healthy = table.register()
        committed_at = time.time()
        serving.connection.execute("INSERT INTO failing SELECT n, 1 FROM generate_series(1, %s) n", (ITEMS,))
        serving.wait_for_row(
            "SELECT FROM clarion.queue WHERE receiver_id = ANY (%s) HAVING count(due_at) = %s",
            list(receivers.values()),
            ITEMS * len(receivers),
        )
        yield Failed(table, receivers, healthy, committed_at)


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failing_receiver_gets_the_schedule_and_an_attempt_that_says_what_it_was(failed: Failed, kind: str) -> None:
    outcome, status_code, error = FAILURES[kind]
    attempts = failed.table.attempts(failed.receivers[kind])
    assert len(attempts) == ITEMS
    for _, number, *found, said in attempts:
        assert (number, found) == (1, [outcome, status_code])
        assert re.search(error, said), said
    again = failed.table.deployment.rows(
        """SELECT extract(epoch FROM q.due_at - a.started_at)::float8 - a.duration_ms / 1000.0, q.spent_count, a.duration_ms
           FROM clarion.queue q JOIN clarion.attempts a USING (event_id, round) WHERE receiver_id = %s""",
        failed.receivers[kind],
    )
    for waits_s, spent_count, duration_ms in again:
        # Both moments are the database's clock as the worker reckons it, which it learns anew while it waits.
        assert 29.5 <= waits_s <= 91.5
        assert spent_count == 1
        assert (1000 <= duration_ms < 2000) == (kind == HANGS)
    # Jitter: nobody comes back all at once.
    assert max(again)[0] - min(again)[0] > 10


def test_failing_receivers_do_not_delay_the_healthy_one_beside_them(failed: Failed) -> None:
    arrived = [
        request.at
        for request in failed.table.deployment.receiver.received()
        if request.path == "/ok" and request.json()["resource"] == "failing"
    ]
    assert len(arrived) == ITEMS
    slowest_s = max(arrived) - failed.committed_at
    print(f"slowest of {ITEMS} beside {len(FAILURES)} failing receivers: {slowest_s * 1000:.0f} ms")
    # Before the hanging ones even reached their deadline.
    assert slowest_s < 1


def test_no_address_is_reached_that_policy_forbids(deployment: Deployment) -> None:
    """Planted past the API, with loopback not allowed: neither by number, nor by name, nor in another spelling."""
    deployment.attach()
    with canary() as four, canary("::1") as six:
        port, port_six = four.getsockname()[1], six.getsockname()[1]
        hosts = ["127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0"]
        uris = [f"https://{host}:{port}/" for host in hosts]
        uris += [
            f"https://[::1]:{port_six}/",
            "https://169.254.169.254/",
            "https://10.0.0.1/",
            f"http://127.0.0.1:{port}/",
        ]
        receivers = [deployment.register(uri, retry_schedule=ONCE_AND_MUCH_LATER) for uri in uris]
        for receiver_id in receivers:
            deployment.subscribe(receiver_id)
        deployment.serve(CLARION_ALLOWED_NETWORKS="")
        deployment.connection.execute("INSERT INTO items SELECT")
        deployment.wait_for_row("SELECT FROM clarion.attempts HAVING count(*) = %s", len(uris))
        told = deployment.rows("SELECT DISTINCT outcome, error, status_code, peer_address FROM clarion.attempts")
    assert told == [("BLOCKED", "the destination is not allowed", None, None)]


# ---------------------------------------------------------------- recovering, pausing, leaving


def test_a_receiver_that_recovers_gets_everything_in_order(table: Table) -> None:
    receiver = table.deployment.receiver
    receiver.switch(500, "recovers")
    receiver_id = table.register(receiver.uri("/switch/recovers"), retry_schedule=SOON_AGAIN)
    for version in (1, 2, 3, 4):
        for item in (1, 2, 3):
            table.write(item, version)
    table.deployment.wait_for_row(
        "SELECT FROM clarion.queue WHERE receiver_id = %s HAVING count(due_at) = 3", receiver_id
    )
    assert set(table.received("/switch/recovers")) == {("1", 1), ("2", 1), ("3", 1)}, "only heads are tried"
    receiver.switch(200, "recovers")
    table.wait_until_settled(receiver_id)
    assert table.settled(receiver_id) == [("DELIVERED", "SUCCEEDED", 12)]
    for object_id in "123":
        seen = [version for seen_id, version in table.received("/switch/recovers") if seen_id == object_id]
        assert sorted(seen) == seen
        assert set(seen) == {1, 2, 3, 4}
    assert {number for _, number, outcome, *_ in table.attempts(receiver_id) if outcome == "SUCCEEDED"} >= {1, 2}


def test_without_order_an_objects_changes_do_not_wait_for_each_other(table: Table) -> None:
    uri = table.deployment.receiver.uri("/status/503")
    ordered = table.register(uri, retry_schedule=ONCE_AND_MUCH_LATER)
    unordered = table.register(uri, retry_schedule=ONCE_AND_MUCH_LATER, ordering="NONE")
    table.write(1, 1, 2, 3)
    table.deployment.wait_for_row(
        "SELECT FROM clarion.queue WHERE receiver_id = %s HAVING count(due_at) = 3", unordered
    )
    table.deployment.wait_for_row("SELECT FROM clarion.queue WHERE receiver_id = %s HAVING count(due_at) = 1", ordered)
    assert [version for version, *_ in table.attempts(unordered)] == [1, 2, 3]
    assert [version for version, *_ in table.attempts(ordered)] == [1]


def test_an_answer_of_410_disables_the_receiver_until_it_is_switched_on_again(table: Table) -> None:
    receiver = table.deployment.receiver
    receiver.switch(410, "gone")
    gone = table.register(receiver.uri("/switch/gone"), retry_schedule=ONCE_AND_MUCH_LATER)
    beside = table.register()
    table.write(1, 1)
    table.deployment.wait_for_row(
        "SELECT FROM clarion.receivers WHERE id = %s AND NOT active AND disabled_reason = 'GONE'", gone
    )
    table.write(2, 1)
    table.write(3, 1)
    # Whoever is beside it has everything: whatever was to be sent has been sent.
    table.wait_until_settled(beside)
    assert table.received("/switch/gone") == [("1", 1)]
    assert table.attempts(gone) == [(1, 1, "UNEXPECTED_STATUS", 410, "answered 410, expected any 2xx")]
    receiver.switch(200, "gone")
    table.deployment.connection.execute(
        "UPDATE clarion.receivers SET active = true, disabled_reason = NULL WHERE id = %s", (gone,)
    )
    table.deployment.wait_for_row("SELECT FROM clarion.events WHERE receiver_id = %s HAVING count(*) = 2", gone)
    assert sorted(table.received("/switch/gone")[1:]) == [("2", 1), ("3", 1)]


def test_what_an_inactive_receiver_would_get_is_held_and_drains_in_order(table: Table, api: Caller) -> None:
    receiver = table.deployment.receiver
    held = table.register(receiver.uri("/status/200"), active=False, disabled_reason="MANUAL")
    beside = table.register()
    table.write(1, *range(1, 11))
    table.write(2, *range(1, 11))
    table.wait_until_settled(beside)
    assert table.received("/status/200") == []
    query = """query($id: ID!) { webhookEvents(first: 100, filters: {receiverId: {eq: $id}}) {
        edges { node { status reason attempts { number } } } } }"""
    nodes = [edge["node"] for edge in api(query, id=str(held)).data["webhookEvents"]["edges"]]
    assert len(nodes) == 20
    assert {node["status"] for node in nodes} == {"HELD"}
    assert not any(node["attempts"] for node in nodes)
    since = "SELECT inactive_since > created - interval '1 s' FROM clarion.receivers WHERE id = %s"
    assert table.deployment.rows(since, held) == [(True,)]
    table.deployment.connection.execute("UPDATE clarion.receivers SET active = true WHERE id = %s", (held,))
    assert table.deployment.rows(since, held) == [(None,)]
    table.wait_until_settled(held)
    received = table.received("/status/200")
    for item in "12":
        assert [version for object_id, version in received if object_id == item] == list(range(1, 11))
    nodes = [edge["node"] for edge in api(query, id=str(held)).data["webhookEvents"]["edges"]]
    assert {(node["status"], node["reason"], len(node["attempts"])) for node in nodes} == {
        ("DELIVERED", "SUCCEEDED", 1)
    }


@pytest.mark.parametrize("deleted", ["subscription", "receiver"])
def test_what_is_open_when_its_receiver_or_subscription_is_deleted_is_cancelled_with_the_reason(
    table: Table, deleted: str
) -> None:
    uris = {path: table.deployment.receiver.uri(path) for path in ("/status/500", "/hang")}
    failing, hanging = (
        table.register(uri, retry_schedule=ONCE_AND_MUCH_LATER, timeout_seconds=1) for uri in uris.values()
    )
    inactive = table.register(active=False)
    table.write(1, 1, 2)
    table.deployment.wait_for_row("SELECT FROM clarion.queue WHERE receiver_id = %s AND due_at IS NOT NULL", failing)
    receivers = [failing, hanging, inactive]
    column = "id" if deleted == "receiver" else "receiver_id"
    table.deployment.connection.execute(
        f"UPDATE clarion.{deleted}s SET deleted = now() WHERE {column} = ANY (%s)".encode(), (receivers,)
    )
    table.wait_until_settled(*receivers)
    for receiver_id in receivers:
        assert table.settled(receiver_id) == [("CANCELLED", f"{deleted.upper()}_DELETED", 2)]
    # The request that was under way counts as what it was.
    assert [attempt[:3] for attempt in table.attempts(failing)] == [(1, 1, "UNEXPECTED_STATUS")]
    assert [attempt[:3] for attempt in table.attempts(hanging)] == [(1, 1, "TIMED_OUT")]
    assert table.attempts(inactive) == []


def test_events_of_a_receiver_registered_while_the_worker_is_held_up_are_not_those_of_a_deleted_one(
    table: Table,
) -> None:
    """The worker has looked, then waits for the database, and meanwhile there is somebody new with events of his own."""
    with psycopg.connect(table.deployment.database.url) as holding:
        holding.execute("LOCK TABLE clarion.commands IN ACCESS EXCLUSIVE MODE")
        table.deployment.connection.execute("NOTIFY clarion_commands")
        table.deployment.wait_for_row(
            "SELECT FROM pg_locks WHERE relation = 'clarion.commands'::regclass AND NOT granted"
        )
        receiver_id = table.register()
        table.write(1, 1, 2, 3)
        table.deployment.wait_for_row(
            "SELECT FROM clarion.queue WHERE receiver_id = %s HAVING count(*) = 3", receiver_id
        )
    table.wait_until_settled(receiver_id)
    assert table.settled(receiver_id) == [("DELIVERED", "SUCCEEDED", 3)]


def test_events_expire_while_they_fail_wait_or_are_held(table: Table) -> None:
    failing = table.register(
        table.deployment.receiver.uri("/status/500"), expires=1, retry_schedule=ONCE_AND_MUCH_LATER
    )
    inactive = table.register(expires=1, active=False)
    beside = table.register(expires=1)
    table.write(1, 1, 2, 3)
    table.wait_until_settled(failing, inactive, beside)
    assert table.settled(failing) == [("EXPIRED", "EXPIRED", 3)]
    assert [attempt[:3] for attempt in table.attempts(failing)] == [(1, 1, "UNEXPECTED_STATUS")]
    assert table.settled(inactive) == [("EXPIRED", "EXPIRED", 3)]
    assert table.attempts(inactive) == []
    assert table.settled(beside) == [("DELIVERED", "SUCCEEDED", 3)]


# ---------------------------------------------------------------- what is asked for and what counts


def test_custom_headers_arrive_as_they_were_sealed_and_signatures_hold(table: Table) -> None:
    path = "/status/204"
    receiver_id = table.register(table.deployment.receiver.uri(path), content_type="application/vnd.acme+json")
    headers = {"Authorization": "Bearer canary-42", "X-Plant": "4711 north; ~!"}
    for key, value in headers.items():
        table.deployment.add_header(receiver_id, key, value)
    table.write(1, 1)
    table.wait_until_settled(receiver_id)
    (request,) = [request for request in table.deployment.receiver.received() if request.path == path]
    assert {key: request.headers[key.lower()] for key in headers} == headers
    assert request.headers["content-type"] == "application/vnd.acme+json"
    Webhook(table.deployment.secrets[receiver_id]).verify(request.body, request.headers)
    sealed = table.deployment.rows("SELECT value_sealed FROM clarion.headers")
    assert not any(b"canary-42" in bytes(value) for (value,) in sealed)


def test_only_the_expected_response_code_counts_as_success(table: Table) -> None:
    receiver = table.deployment.receiver
    expected = table.register(receiver.uri("/status/302"), expected_response_code=302)
    other = table.register(receiver.uri("/status/201"), expected_response_code=202, retry_schedule=[0])
    table.write(1, 1)
    table.wait_until_settled(expected, other)
    assert table.attempts(expected) == [(1, 1, "SUCCEEDED", 302, None)]
    assert table.attempts(other) == [(1, 1, "UNEXPECTED_STATUS", 201, "answered 201, expected 202")]
    assert table.settled(other) == [("FAILED", "ATTEMPTS_EXHAUSTED", 1)]


def test_after_the_last_attempt_the_event_fails_and_its_lane_goes_on(table: Table) -> None:
    receiver = table.deployment.receiver
    receiver.switch(500, "exhausted")
    receiver_id = table.register(receiver.uri("/switch/exhausted"), retry_schedule=[0, 0, 0])
    table.write(1, 1)
    table.deployment.wait_for_row(
        "SELECT FROM clarion.events WHERE receiver_id = %s AND status = 'FAILED'", receiver_id
    )
    receiver.switch(200, "exhausted")
    table.write(1, 2)
    table.wait_until_settled(receiver_id)
    assert [attempt[:3] for attempt in table.attempts(receiver_id)] == [
        *((1, number, "UNEXPECTED_STATUS") for number in (1, 2, 3)),
        (2, 1, "SUCCEEDED"),
    ]


# ---------------------------------------------------------------- across a restart


def test_a_restart_resumes_a_retry_at_its_time_and_never_sends_a_body_that_changed(deployment: Deployment) -> None:
    """One event is due again at once and its ledger row was altered meanwhile; the other is due once all have started."""
    deployment.attach()
    deployment.receiver.switch(500)
    deployment.subscribe(deployment.register(deployment.receiver.uri("/switch"), retry_schedule=[0, 60, 60]))
    started_at = time.monotonic()
    serve = deployment.serve()
    # However slow the machine is, the second start is over by then.
    due_in_s = 1 + 3 * (time.monotonic() - started_at)
    deployment.connection.execute("INSERT INTO items (note) VALUES ('kept'), ('altered')")
    deployment.wait_for_row("SELECT FROM clarion.queue HAVING count(due_at) = 2")
    assert serve.stop().code == 0
    deployment.connection.execute(
        "UPDATE clarion.ledger SET new = replace(new, 'altered', 'forged') WHERE object_id = '2'"
    )
    deployment.connection.execute(
        """UPDATE clarion.queue q
           SET due_at = clock_timestamp() + CASE l.object_id WHEN '1' THEN make_interval(secs => %s) ELSE '0' END
           FROM clarion.ledger l WHERE l.position = q.position""",
        (due_in_s,),
    )
    ((due_at,),) = deployment.rows("SELECT extract(epoch FROM max(due_at))::float8 FROM clarion.queue")
    deployment.receiver.switch(200)
    deployment.serve()
    assert deployment.wait_for_row("SELECT status, reason, attempts_count, event_id FROM clarion.events")[:3] == (
        "FAILED",
        "BODY_CHANGED",
        1,
    )
    assert time.time() < due_at, "too slow a machine for this test"
    assert deployment.receiver.count() == 2
    deployment.wait_until_settled()
    first, again = [request for request in deployment.receiver.received() if request.json()["object_id"] == "1"]
    print(f"resumed {1000 * (again.at - due_at):.0f} ms after it was due")
    assert due_at <= again.at < due_at + 1
    assert first.message_id == again.message_id
    assert first.body == again.body
    assert _signed_at(first) < _signed_at(again)
    Webhook(list(deployment.secrets.values())).verify(again.body, again.headers)
    assert [json.loads(r.body)["data"]["note"] for r in deployment.receiver.received()].count("forged") == 0
    assert deployment.rows("SELECT status, reason, attempts_count FROM clarion.events ORDER BY 1") == [
        ("DELIVERED", "SUCCEEDED", 2),
        ("FAILED", "BODY_CHANGED", 1),
    ]


def _signed_at(request: Received) -> int:
    return int(request.headers["webhook-timestamp"])
