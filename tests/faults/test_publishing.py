"""Changes over HTTP against a whole deployment: ordered with each other and with applications' own, kept, delivered exactly."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psycopg
import pytest

from clarion.app import prepare_database
from clarion.capture.doctor import Severity, inspect
from clarion.capture.publish import publish
from clarion.capture.published import Published, attach_published
from clarion.database.embedded import EmbeddedServer
from harness.api import Answer, Caller
from harness.deployment import Deployment
from harness.process import ClarionProcess

pytestmark = pytest.mark.data_path

KEY = "a-bootstrap-key-of-more-than-32-characters"
ALL = ("--role", "api", "--role", "router", "--role", "delivery")
OBJECTS = 30
RESOURCES = ("SHIPMENTS", "PALLETS")


def _serve(deployment: Deployment) -> tuple[ClarionProcess, Caller]:
    serve = deployment.serve(*ALL, CLARION_LISTEN="127.0.0.1:0", CLARION_BOOTSTRAP_API_KEY=KEY)
    port = int(serve.wait_for_line(r"ready on http://127\.0\.0\.1:(\d+)")[1])
    return serve, Caller(port, KEY, deployment.database)


def _register(api: Caller, *names: str) -> None:
    for name in names:
        answer = api(
            "mutation($input: RegisterResourceInput!) { registerResource(input: $input) { resource { id } } }",
            input={"name": name},
        )
        assert answer.data["registerResource"]["resource"]["id"]


def _send(api: Caller, changes: list[dict[str, Any]], **headers: str) -> Answer:
    return api.send(json.dumps({"changes": changes}).encode(), path="/v1/changes", **headers)


def _until_accepted(api: Caller, changes: list[dict[str, Any]], key: str) -> int:
    """How often it had to be sent, as docs/reference/publish-over-http.md says to."""
    for tried in range(1, 30):
        answer = _send(api, changes, idempotency_key=key)
        if answer.status == 200:
            return tried
        assert answer.status == 503, answer.body
    raise AssertionError("never accepted")


@dataclass
class Transaction:
    """What was committed as one: when it began and was known to be committed, by one clock."""

    began: float
    ended: float


class History:
    """Which transaction came when, as far as it can be known from outside."""

    def __init__(self) -> None:
        self.known: dict[str, Transaction] = {}

    def assert_kept_by(self, sequences: dict[tuple[str, str], list[str]]) -> None:
        """Of each object one ended before another began: so in the ledger. Two that share objects: in one order for all of them."""
        order: dict[tuple[str, str], tuple[str, str]] = {}
        for place, sequence in sequences.items():
            assert len(set(sequence)) == len(sequence), place
            for later, name in enumerate(sequence):
                for before in sequence[:later]:
                    assert self.known[before].began < self.known[name].ended, (place, before, name)
                    assert order.setdefault((before, name), place)
                    assert (name, before) not in order, (place, order[(name, before)], before, name)


def _sequences(deployment: Deployment) -> dict[tuple[str, str], list[str]]:
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for resource, object_id, by in deployment.rows(
        "SELECT resource, object_id, coalesce(new, old)::json ->> 'by' FROM clarion.ledger "
        "WHERE resource IN ('SHIPMENTS', 'PALLETS') ORDER BY position"
    ):
        found[(resource, object_id)].append(by)
    return dict(found)


def _chosen(chance: random.Random, by: str, count: int) -> list[dict[str, Any]]:
    places = [(resource, number) for resource in RESOURCES for number in range(OBJECTS)]
    chance.shuffle(places)
    return [
        {"resource": resource, "action": "UPDATE", "object_id": number, "data": {"by": by}}
        for resource, number in places[:count]
    ]


def test_batches_that_share_objects_follow_each_other_in_the_same_order_for_all_of_them(deployment: Deployment) -> None:
    _, api = _serve(deployment)
    _register(api, *RESOURCES)
    history = History()

    def work(worker: int) -> None:
        chance = random.Random(worker)
        for number in range(20):
            by = f"{worker}.{number}"
            began = time.monotonic()
            answer = _send(api, _chosen(chance, by, chance.choice([1, 5, 40])))
            assert answer.status == 200, answer.body
            history.known[by] = Transaction(began, time.monotonic())

    with ThreadPoolExecutor(8) as workers:
        list(workers.map(work, range(8)))
    deployment.wait_until_settled()
    sequences = _sequences(deployment)
    assert len(sequences) == 2 * OBJECTS
    assert {by for sequence in sequences.values() for by in sequence} == history.known.keys()
    history.assert_kept_by(sequences)
    deployment.assert_chained()


def test_batches_and_what_applications_publish_in_their_transactions_are_one_order(deployment: Deployment) -> None:
    """An application locks its objects in any order, so circles come about: it is never the one that has to give in."""
    _, api = _serve(deployment)
    for name in RESOURCES:
        attach_published(deployment.connection, Published(name, organisation=None))
    history = History()
    sent = 0

    def over_http(worker: int) -> None:
        nonlocal sent
        chance = random.Random(worker)
        for number in range(12):
            by = f"http.{worker}.{number}"
            began = time.monotonic()
            sent += _until_accepted(api, _chosen(chance, by, 10), by)
            history.known[by] = Transaction(began, time.monotonic())

    def application() -> None:
        chance = random.Random("application")
        with psycopg.connect(deployment.database.url) as connection:
            for number in range(40):
                by = f"application.{number}"
                began = time.monotonic()
                for change in _chosen(chance, by, 8):
                    publish(
                        connection,
                        change["resource"],
                        "UPDATE",
                        change["object_id"],
                        change["data"],
                        organisation="default",
                    )
                    time.sleep(0.001)
                connection.commit()
                history.known[by] = Transaction(began, time.monotonic())

    with ThreadPoolExecutor(5) as workers:
        for done in [workers.submit(application), *(workers.submit(over_http, worker) for worker in range(4))]:
            done.result()
    deployment.wait_until_settled()
    sequences = _sequences(deployment)
    assert {by for sequence in sequences.values() for by in sequence} == history.known.keys()
    history.assert_kept_by(sequences)


def test_a_batch_that_waits_for_one_object_after_the_other_gives_in_before_a_circle_ends_an_application(
    deployment: Deployment,
) -> None:
    """Each wait alone is shorter than what a batch waits for; together they would outlast the application's patience."""
    _, api = _serve(deployment)
    attach_published(deployment.connection, Published("SHIPMENTS", organisation=None))
    first, *passing, last = (
        object_id
        for (object_id,) in deployment.rows(
            "SELECT id::text FROM generate_series(1, 5) AS id ORDER BY "
            "hashtextextended(concat_ws(E'\\n', 'clarion.publish', 'SHIPMENTS', 'default', id::text), 0)"
        )
    )
    objects = [first, *passing, last]
    batch = [{"resource": "SHIPMENTS", "action": "DELETE", "object_id": object_id} for object_id in objects]

    def hold(connection: psycopg.Connection[Any], object_id: str) -> None:
        publish(connection, "SHIPMENTS", "DELETE", object_id, {}, organisation="default")

    with ExitStack() as open_ones, ThreadPoolExecutor(2) as at_once:
        connections = [open_ones.enter_context(psycopg.connect(deployment.database.url)) for _ in range(4)]
        *others, application = connections
        for connection, object_id in zip(connections, [*passing, last], strict=True):
            hold(connection, object_id)
        sending = at_once.submit(_until_accepted, api, batch, "k")
        deployment.wait_for_row(
            "SELECT FROM pg_stat_activity WHERE application_name = 'clarion api' AND wait_event = 'advisory'"
        )
        wanting = at_once.submit(hold, application, first)
        for other in others:
            time.sleep(0.3)
            other.commit()
        wanting.result()
        application.commit()
        sending.result()
    deployment.wait_until_settled()
    recorded = Counter(object_id for (object_id,) in deployment.rows("SELECT object_id FROM clarion.ledger"))
    assert recorded == dict.fromkeys(objects, 2)


def test_a_batch_waits_for_a_transaction_that_publishes_its_object_and_is_refused_when_that_stays_open(
    deployment: Deployment,
) -> None:
    _, api = _serve(deployment)
    attach_published(deployment.connection, Published("SHIPMENTS", organisation=None))
    change = {"resource": "SHIPMENTS", "action": "DELETE", "object_id": 1}
    other = change | {"object_id": 2}
    with psycopg.connect(deployment.database.url) as connection:
        publish(connection, "SHIPMENTS", "CREATE", 1, {}, organisation="default")
        assert _send(api, [other]).status == 200
        refused = _send(api, [other, change], idempotency_key="k")
        assert (refused.status, refused.refusal) == (503, ("BUSY", None))
        with ThreadPoolExecutor(1) as sending:
            answer = sending.submit(_send, api, [other, change], idempotency_key="k")
            deployment.wait_for_row(
                "SELECT FROM pg_stat_activity WHERE application_name = 'clarion api' AND wait_event = 'advisory'"
            )
            connection.commit()
            assert answer.result().status == 200
    deployment.wait_until_settled()
    ledger = deployment.rows("SELECT object_id, action::text FROM clarion.ledger ORDER BY position")
    assert [action for object_id, action in ledger if object_id == "1"] == ["c", "d"]
    assert len([object_id for object_id, _ in ledger if object_id == "2"]) == 2


def test_what_was_answered_is_there_although_everything_is_killed_right_after(deployment: Deployment) -> None:
    accepted: list[str] = []
    for _ in range(3):
        serve, api = _serve(deployment)
        if not accepted:
            _register(api, "SHIPMENTS")

        def work(worker: int, api: Caller = api) -> None:
            for number in range(1_000):
                key = f"{len(accepted)}.{worker}.{number}"
                try:
                    answer = _send(api, [{"resource": "SHIPMENTS", "action": "DELETE", "object_id": key}])
                except (OSError, HTTPException):
                    # It was killed before it answered.
                    return
                if answer.status != 200:
                    return
                accepted.append(key)

        before = len(accepted)
        with ThreadPoolExecutor(4) as workers:
            for worker in range(4):
                workers.submit(work, worker)
            deadline = time.monotonic() + 20
            while len(accepted) < before + 40:
                assert time.monotonic() < deadline
            serve.kill()
    deployment.serve()
    deployment.wait_until_settled()
    recorded = [row[0] for row in deployment.rows("SELECT object_id FROM clarion.ledger WHERE resource = 'SHIPMENTS'")]
    assert set(accepted) <= set(recorded)
    assert len(set(recorded)) == len(recorded)


def test_an_answer_waits_for_the_disk_although_the_database_does_not_by_default(
    clarion_process: Callable[..., ClarionProcess], tmp_path: Path
) -> None:
    data_dir = tmp_path / ".clarion"
    with EmbeddedServer(data_dir) as database:
        prepare_database(database)
        with psycopg.connect(database.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_commit = off")
            connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
            connection.execute("SELECT pg_reload_conf()")
        with Deployment(database, tmp_path, clarion_process) as deployment:
            serve = deployment.serve("--role", "api", CLARION_LISTEN="127.0.0.1:0", CLARION_BOOTSTRAP_API_KEY=KEY)
            api = Caller(int(serve.wait_for_line(r"ready on http://127\.0\.0\.1:(\d+)")[1]), KEY, database)
            _register(api, "SHIPMENTS")
            postmaster = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
            assert _send(api, [{"resource": "SHIPMENTS", "action": "DELETE", "object_id": 1}]).status == 200
            # What is not waited for is lost, so that this test would see it.
            deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
            os.kill(postmaster, signal.SIGKILL)
            serve.kill()
    with EmbeddedServer(data_dir) as database, psycopg.connect(database.url) as connection:
        assert connection.execute("SELECT object_id FROM clarion.outbox WHERE resource = 'SHIPMENTS'").fetchall() == [
            ("1",)
        ]
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (0,)


def test_a_published_object_reaches_the_receiver_to_the_digit(deployment: Deployment) -> None:
    _, api = _serve(deployment)
    _register(api, "SHIPMENTS")
    deployment.subscribe(deployment.register(), "SHIPMENTS", condition="object.weight > 1.0 && oldObject.weight == 1.1")
    body = (
        b'{"changes":[{"resource":"shipments","action":"update","object_id":90071992547409931,'
        b'"data":{"weight": 1.10000000000000000000000000000000000001, "serial":123456789012345678901234567890, "n":1E+2},'
        b'"previous":{"weight": 1.1},"actor":{"id":7,"name":"nora"},"correlation_id":"order-9"}]}'
    )
    assert api.send(body, path="/v1/changes").status == 200
    deployment.wait_until_settled()
    (received,) = deployment.receiver.received()
    for exact in (b"1.10000000000000000000000000000000000001", b"123456789012345678901234567890", b"1E+2"):
        assert exact in received.body
    shown = received.json()
    assert (shown["resource"], shown["action"], shown["object_id"]) == ("shipments", "update", "90071992547409931")
    assert (shown["actor"], shown["correlation_id"]) == ({"id": "7", "name": "nora"}, "order-9")


def test_nothing_is_wrong_with_a_resource_without_a_table(deployment: Deployment) -> None:
    deployment.attach()
    _, api = _serve(deployment)
    _register(api, "SHIPMENTS")
    attach_published(deployment.connection, Published("PARCELS"))
    deployment.attach()
    failures = [one for one in inspect(deployment.connection) if one.severity is Severity.FAILURE]
    assert failures == []
    guarded = deployment.command("guard", "on")
    assert guarded.code == 0, guarded
    assert [one for one in inspect(deployment.connection) if one.severity is Severity.FAILURE] == []
    assert _send(api, [{"resource": "SHIPMENTS", "action": "DELETE", "object_id": 1}]).status == 200
    listed = deployment.command("attach")
    assert "SHIPMENTS" in listed.stdout
    detached = deployment.command("detach", "SHIPMENTS")
    assert detached.code == 0, detached
    assert _send(api, [{"resource": "SHIPMENTS", "action": "DELETE", "object_id": 1}]).status == 404
