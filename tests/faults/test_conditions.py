"""Only when: conditions, fields and templates on the whole path, and rows that nobody foresaw."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from clarion.capture.attach import Attachment, attach
from harness.deployment import Deployment
from harness.receiver import Received

pytestmark = pytest.mark.data_path

ORDERS = """
    CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, status text NOT NULL DEFAULT 'todo', quantity integer,
                         cost numeric, ratio double precision, secret text DEFAULT 'hidden', spec json, note text)
"""
BECOMES = 'object.status == "approved" && oldObject.status != "approved"'


@pytest.fixture
def orders(deployment: Deployment) -> Deployment:
    """The table `orders`, attached as ORDERS without its column `secret`; nothing runs yet."""
    deployment.connection.execute(ORDERS)
    attach(deployment.connection, [Attachment(resource="ORDERS", table="orders", excluded_columns=("secret",))])
    return deployment


def _received(deployment: Deployment) -> list[Received]:
    deployment.wait_until_settled()
    deployment.assert_chained()
    return deployment.receiver.received()


def _errors(deployment: Deployment, subscription: int) -> tuple[int, int, str] | None:
    found = deployment.rows(
        "SELECT conditions_count, templates_count, last_message FROM clarion.evaluation_errors WHERE subscription_id = %s",
        subscription,
    )
    return found[0] if found else None


def test_only_the_changes_for_which_the_condition_holds_are_sent_and_sequences_have_no_gaps(orders: Deployment) -> None:
    receiver = orders.register()
    (asking,) = orders.subscribe(receiver, "ORDERS", ["UPDATE"], condition=BECOMES)
    (every,) = orders.subscribe(receiver, "ORDERS", ["UPDATE"])
    orders.serve()
    run = orders.connection.execute
    run("INSERT INTO orders SELECT FROM generate_series(1, 4)")
    run("UPDATE orders SET status = 'approved' WHERE id < 4")
    run("UPDATE orders SET status = 'approved', quantity = 1")
    bodies = [request.json() for request in _received(orders)]
    chosen = [b for b in bodies if b["subscription_id"] == asking]
    assert sorted((b["object_id"], b["previous"]["status"]) for b in chosen) == [(n, "todo") for n in "1234"]
    assert sorted(b["sequence"] for b in chosen) == [1, 2, 3, 4]
    assert len([b for b in bodies if b["subscription_id"] == every]) == 7
    assert orders.rows("SELECT * FROM clarion.evaluation_errors") == []


def test_an_edited_condition_holds_from_a_position_that_the_activation_names(orders: Deployment) -> None:
    (subscription,) = orders.subscribe(orders.register(), "ORDERS", ["CREATE"], condition="object.quantity > 0")
    orders.serve()
    for edit, (condition, count) in enumerate([("object.quantity > 5", 10), ("object.quantity > 8", 10)]):
        orders.connection.execute("INSERT INTO orders (quantity) SELECT generate_series(1, %s)", (count,))
        orders.wait_until_settled()
        orders.connection.execute(
            "UPDATE clarion.subscriptions SET condition = %s WHERE id = %s", (condition, subscription)
        )
        orders.wait_for_row("SELECT WHERE (SELECT count(*) FROM clarion.activations) = %s", edit + 2)
    orders.connection.execute("INSERT INTO orders (quantity) SELECT generate_series(1, 10)")
    orders.wait_until_settled()
    activations = orders.rows(
        "SELECT from_position, until_position, condition FROM clarion.activations WHERE subscription_id = %s "
        "ORDER BY from_position",
        subscription,
    )
    assert [a[2] for a in activations] == ["object.quantity > 0", "object.quantity > 5", "object.quantity > 8"]
    for (_, until, _), (begins, _, _) in itertools.pairwise(activations):
        assert until == begins, "no position is without a condition that holds"
    # The recorded activations explain every event, and every change that made none.
    ledger = orders.rows(
        "SELECT position, (new::json ->> 'quantity')::int FROM clarion.ledger WHERE resource = 'ORDERS' ORDER BY position"
    )
    explained = [
        position
        for position, quantity in ledger
        for begins, until, condition in activations
        if begins <= position and (until is None or position < until) and quantity > int(condition.split()[-1])
    ]
    assert explained == [row[0] for row in orders.rows("SELECT position FROM clarion.events ORDER BY event_id")]
    assert len(explained) == 10 + 5 + 2


def test_a_condition_without_a_result_makes_no_event_and_is_counted_where_one_looks(orders: Deployment) -> None:
    receiver = orders.register()
    (subscription,) = orders.subscribe(
        receiver, "ORDERS", ["CREATE"], condition="object.quantity / object.quantity == 1"
    )
    orders.serve()
    orders.connection.execute("INSERT INTO orders (quantity) VALUES (1), (0), (NULL), (7), (0)")
    assert sorted(request.json()["data"]["quantity"] for request in _received(orders)) == [1, 7]
    assert _errors(orders, subscription) == (3, 0, "division by zero")
    ((change_id,),) = orders.rows("SELECT last_change_id FROM clarion.evaluation_errors")
    assert orders.rows("SELECT object_id FROM clarion.ledger WHERE change_id = %s", change_id) == [("5",)]
    # What is edited begins to count anew.
    orders.connection.execute("UPDATE clarion.subscriptions SET condition = 'object.quantity > 0'")
    orders.wait_for_row("SELECT WHERE NOT EXISTS (SELECT FROM clarion.evaluation_errors)")


def test_a_column_that_is_dropped_while_changes_wait_is_an_error_of_those_that_ask_for_it(orders: Deployment) -> None:
    receiver = orders.register()
    (asking,) = orders.subscribe(receiver, "ORDERS", ["CREATE"], condition='object.note == "x"', fields=["id", "note"])
    (other,) = orders.subscribe(receiver, "ORDERS", ["CREATE"])
    run = orders.connection.execute
    run("INSERT INTO orders (note) VALUES ('x')")
    run("ALTER TABLE orders DROP COLUMN note")
    run("INSERT INTO orders DEFAULT VALUES")
    orders.serve()
    bodies = [request.json() for request in _received(orders)]
    assert [(b["object_id"], b["data"]) for b in bodies if b["subscription_id"] == asking] == [
        ("1", {"id": 1, "note": "x"})
    ]
    assert len([b for b in bodies if b["subscription_id"] == other]) == 2
    assert _errors(orders, asking) == (1, 0, "there is no key note")


def test_values_that_nobody_foresaw_stop_nothing_and_are_not_lost(orders: Deployment) -> None:
    receiver = orders.register()
    (asking,) = orders.subscribe(receiver, "ORDERS", ["CREATE"], condition='object.cost > 1.0 || object.note == "x"')
    (shown,) = orders.subscribe(receiver, "ORDERS", ["CREATE"], template='{"cost": object.cost, "note": object.note}')
    orders.serve()
    rows: list[tuple[Any, ...]] = [
        ("NaN", "NaN", None, "a"),
        (None, "Infinity", None, "x"),
        ("1e300", "-Infinity", '{"a": "\\u0000", "b": "\\ud800"}', "b"),
        ("1" + "0" * 400, "1e308", "[" * 2000 + "]" * 2000, "c"),
        ("2", None, json.dumps(["x" * 100] * 100_000), "d"),
        ("3", None, None, "\U0001f4a9" * 1000),
    ]
    for row in rows:
        orders.connection.execute("INSERT INTO orders (cost, ratio, spec, note) VALUES (%s, %s, %s, %s)", row)
    received = _received(orders)
    ledger = orders.rows("SELECT object_id FROM clarion.ledger WHERE resource = 'ORDERS' ORDER BY position")
    assert ledger == [(str(n),) for n in range(1, len(rows) + 1)]
    conditions, _, message = _errors(orders, asking) or (0, 0, "")
    matched = [json.loads(r.body)["object_id"] for r in received if b'"event_id"' in r.body]
    # A row of ten megabytes is too large to be looked into, the one that is nested 2,000 deep cannot be read.
    assert sorted(matched) == ["2", "3", "6"]
    assert conditions == 2, message
    ended = orders.rows(
        "SELECT l.object_id, e.status, e.reason FROM clarion.events e JOIN clarion.ledger l USING (position) "
        "WHERE e.subscription_id = %s ORDER BY position",
        shown,
    )
    failed, sent = ("FAILED", "TEMPLATE_FAILED"), ("DELIVERED", "SUCCEEDED")
    assert [row[1:] for row in ended] == [failed, sent, sent, failed, failed, sent]
    assert (_errors(orders, shown) or (0, 0))[1] == 3


def test_a_templates_body_is_made_once_and_sent_again_byte_for_byte(orders: Deployment) -> None:
    receiver = orders.register(orders.receiver.uri("/switch"), retry_schedule=[0, 1, 1, 1, 1])
    (subscription,) = orders.subscribe(
        receiver, "ORDERS", ["CREATE"], template='{"z": object.status, "a": {"id": object.id, "who": actor.name}}'
    )
    orders.receiver.switch(500)
    orders.serve()
    with orders.connection.transaction():
        orders.connection.execute("SELECT set_config('clarion.actor_name', 'operator 17', true)")
        orders.connection.execute("INSERT INTO orders DEFAULT VALUES")
    orders.wait_for_row("SELECT FROM clarion.queue WHERE attempts_count > 0")
    # Neither an edit nor a restart changes what an event has to say.
    orders.connection.execute("UPDATE clarion.subscriptions SET template = '{}' WHERE id = %s", (subscription,))
    orders.receiver.switch(200)
    orders.wait_until_settled()
    orders.connection.execute("INSERT INTO orders DEFAULT VALUES")
    orders.wait_until_settled()
    first, again, other = orders.receiver.received()
    assert first.body == again.body == b'{"a":{"id":1,"who":"operator 17"},"z":"todo"}'
    assert first.message_id == again.message_id
    assert other.body == b"{}"
    stored = orders.rows("SELECT body, render_version FROM clarion.events ORDER BY event_id")
    assert stored == [(first.body, 2), (b"{}", 2)]


def test_fields_choose_what_a_body_shows_and_an_event_keeps_the_choice_that_held(orders: Deployment) -> None:
    receiver = orders.register(orders.receiver.uri("/switch"), retry_schedule=[0, 1, 1, 1, 1])
    orders.subscribe(receiver, "ORDERS", ["UPDATE"], fields=["id", "cost"])
    orders.receiver.switch(500)
    orders.serve()
    run = orders.connection.execute
    run("INSERT INTO orders (cost, note) VALUES (1.10, 'a')")
    run("UPDATE orders SET cost = 2.50, note = 'b'")
    orders.wait_for_row("SELECT FROM clarion.queue WHERE attempts_count > 0")
    run("UPDATE clarion.subscriptions SET fields = '{note}'")
    orders.receiver.switch(200)
    orders.wait_until_settled()
    run("UPDATE orders SET note = 'c'")
    orders.wait_until_settled()
    first, again, other = orders.receiver.received()
    assert first.body == again.body
    assert b'"changed":["cost"],"data":{"id":1,"cost":2.50},"previous":{"cost":1.10}}' in first.body
    assert b'"changed":["note"],"data":{"note":"c"},"previous":{"note":"b"}}' in other.body


DEAR = "object.spec.all(x, object.spec.exists(y, y == x))"
"""On a list of 130 numbers, thousands of steps a row: under what an evaluation may take, and far above what is cheap."""


def test_a_condition_that_is_dear_on_every_row_delays_nobody_and_says_so(
    orders: Deployment, record_property: Callable[[str, object], None]
) -> None:
    (dear,) = orders.subscribe(orders.register(), "ORDERS", ["CREATE"], condition=DEAR)
    orders.connection.execute("CREATE TABLE others (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY)")
    attach(orders.connection, [Attachment(resource="OTHERS", table="others", organisation="quiet")])
    quiet = orders.register(organisation="quiet")
    orders.subscribe(quiet, "OTHERS", ["CREATE"])
    orders.serve()
    spec = json.dumps(list(range(130)))
    orders.connection.execute("INSERT INTO orders (spec) SELECT %s::json FROM generate_series(1, 3000)", (spec,))
    begun = time.monotonic()
    orders.connection.execute("INSERT INTO others DEFAULT VALUES")
    orders.wait_for_row("SELECT FROM clarion.events WHERE receiver_id = %s", quiet)
    record_property("others_waited_s", round(time.monotonic() - begun, 2))
    orders.wait_until_settled()
    conditions, _, message = _errors(orders, dear) or (0, 0, "")
    assert conditions > 0
    assert message == "not evaluated: this subscription's expressions have taken more time than they may"
    ((evaluated,),) = orders.rows("SELECT count(*) FROM clarion.events WHERE subscription_id IN (SELECT %s)", dear)
    assert 0 < evaluated == 3000 - conditions
