"""Conditions, fields and templates through the API: checked where they are registered, shown, previewed on real changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from clarion.access.principal import Role
from harness.api import Caller
from harness.audit_rows import add_change

CREATE = """
mutation($input: CreateWebhookSubscriptionInput!) { createWebhookSubscription(input: $input) { webhookSubscription {
    id _etag condition fields template evaluationErrors { conditionsCount } } } }
"""
UPDATE = """
mutation($input: UpdateWebhookSubscriptionInput!) { updateWebhookSubscription(input: $input) { webhookSubscription {
    id _etag action condition fields template } } }
"""
PREVIEW = """
query($input: CreateWebhookSubscriptionInput!, $since: DateTime, $first: Int) {
  previewWebhookSubscription(input: $input, since: $since, first: $first) {
    matchedCount failedCount isComplete changes { changeId objectId outcome error body } } }
"""
CONDITION = 'object.status == "in_progress" && oldObject.status != "in_progress"'


@pytest.fixture
def runs(administrator: Caller) -> None:
    """The table behind the resource RUNS."""
    with psycopg.connect(administrator.database.url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS runs (id bigint PRIMARY KEY, title text, status text, quantity integer, cost numeric,"
            " secret text, spec jsonb, done boolean, tags text[], started timestamptz)"
        )
        connection.execute("UPDATE clarion.resources SET excluded_columns = '{secret}' WHERE name = 'RUNS'")


@pytest.fixture
def create(runs: None, integrator: Caller, make_receiver: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """Registers a subscription for updates of runs, with what is given beside."""
    receiver = make_receiver()["id"]

    def make(**values: Any) -> Any:
        return integrator(CREATE, input={"receiverId": receiver, "resource": "RUNS", "action": "UPDATE"} | values)

    return make


def test_what_was_given_is_shown_and_can_be_edited_and_taken_away(
    create: Callable[..., Any], integrator: Caller
) -> None:
    made = create(condition=CONDITION, fields=["id", "status"]).data["createWebhookSubscription"]["webhookSubscription"]
    assert made | {"_etag": ""} == {
        "id": "1",
        "_etag": "",
        "condition": CONDITION,
        "fields": ["id", "status"],
        "template": None,
        "evaluationErrors": None,
    }
    edited = integrator(
        UPDATE,
        input={"id": "1", "etag": made["_etag"], "condition": None, "fields": None, "template": '{"n": object.id}'},
    ).data["updateWebhookSubscription"]["webhookSubscription"]
    assert (edited["condition"], edited["fields"], edited["template"]) == (None, None, '{"n": object.id}')
    with psycopg.connect(integrator.database.url) as connection:
        (before, after) = connection.execute(
            "SELECT before, after FROM clarion.history WHERE action = 'UPDATE' AND object_type = 'WebhookSubscription'"
        ).fetchall()[0]
    assert before == {"condition": CONDITION, "fields": ["id", "status"], "template": None}
    assert after == {"condition": None, "fields": None, "template": '{"n": object.id}'}


REFUSED = [
    ({"condition": 'object.statsu == "x"'}, "condition", (1, 8), "RUNS has no column statsu: did you mean status?"),
    (
        {"condition": 'true &&\n object.quantity == "3"'},
        "condition",
        (2, 18),
        "cannot compare a whole number with text",
    ),
    ({"condition": 'object.secret == "x"'}, "condition", (1, 8), "never leaves the database"),
    ({"condition": "object.quantity"}, "condition", None, "a condition is true or false"),
    ({"condition": ""}, "condition", None, "must not be empty"),
    ({"condition": "true\0"}, "condition", None, "NUL"),
    ({"condition": "oldObject.done", "action": "CREATE"}, "condition", (1, 1), "oldObject does not exist for CREATE"),
    ({"template": "object.title"}, "template", None, "a template is a map"),
    ({"template": '{"a": object.titel}'}, "template", (1, 14), "did you mean title?"),
    ({"template": "{}", "fields": ["id"]}, "fields", None, "a template decides the whole body"),
    ({"fields": []}, "fields", None, "must have 1 to"),
    ({"fields": ["id", "id"]}, "fields", None, "each name once"),
    ({"fields": ["id", "titel"]}, "fields", None, "RUNS has no column titel: did you mean title?"),
    ({"fields": ["secret"]}, "fields", None, "never leaves the database"),
]


@pytest.mark.parametrize(("values", "field", "place", "message"), REFUSED, ids=lambda value: ascii(value)[:50])
def test_what_does_not_go_with_the_rows_is_refused_with_its_place(
    create: Callable[..., Any], values: dict[str, Any], field: str, place: tuple[int, int] | None, message: str
) -> None:
    error = create(**values).error
    extensions = error["extensions"]
    assert message in error["message"]
    assert (extensions["code"], extensions["field"]) == ("INVALID_INPUT", f"input.{field}")
    assert (extensions.get("line"), extensions.get("column")) == (place or (None, None))


def test_an_edit_of_the_action_alone_is_checked_with_the_condition_that_stands(
    create: Callable[..., Any], integrator: Caller
) -> None:
    made = create(condition=CONDITION).data["createWebhookSubscription"]["webhookSubscription"]
    answer = integrator(UPDATE, input={"id": made["id"], "etag": made["_etag"], "action": "DELETE"})
    assert answer.refusal == ("INVALID_INPUT", "input.condition")
    assert "object does not exist for DELETE" in answer.error["message"]


def test_a_preview_answers_from_real_changes_and_makes_nothing(create: Callable[..., Any], integrator: Caller) -> None:
    rows = [
        ("todo", "in_progress", 1),
        ("todo", "done", 2),
        ("todo", "in_progress", None),
        ("in_progress", "in_progress", 4),
    ]
    with psycopg.connect(integrator.database.url, autocommit=True) as connection:
        ((owner,),) = connection.execute("SELECT id FROM clarion.organisations WHERE name = 'default'").fetchall()
        (other,) = (
            connection.execute("INSERT INTO clarion.organisations (name) VALUES ('other') RETURNING id").fetchone()
            or ()
        )
        for position, (before, after, quantity) in enumerate(rows, 1):
            add_change(connection, position, organisation_id=owner, action="u")
            old, new = (json.dumps({"id": 42, "status": s, "quantity": quantity, "cost": 2}) for s in (before, after))
            connection.execute("UPDATE clarion.ledger SET old = %s, new = %s WHERE position = %s", (old, new, position))
        add_change(connection, 5, organisation_id=owner, action="c")
        add_change(connection, 6, organisation_id=owner, action="u", resource="ISSUES")
        add_change(connection, 7, organisation_id=other, action="u")
        connection.execute(
            "UPDATE clarion.ledger SET old = '{}', new = '{\"status\":\"in_progress\"}' WHERE position > 4"
        )
    create()

    def previewed(**values: Any) -> Any:
        arguments = {name: values.pop(name) for name in ("since", "first") if name in values}
        given = {"receiverId": "1", "resource": "RUNS", "action": "UPDATE"} | values
        return integrator(PREVIEW, input=given, **arguments).data["previewWebhookSubscription"]

    found = previewed(condition=CONDITION, fields=["status"])
    assert [(c["changeId"], c["outcome"]) for c in found["changes"]] == [
        (4, "NOT_MATCHED"),
        (3, "MATCHED"),
        (2, "NOT_MATCHED"),
        (1, "MATCHED"),
    ]
    assert (found["matchedCount"], found["failedCount"], found["isComplete"]) == (2, 0, True)
    body = json.loads(found["changes"][1]["body"])
    assert (body["event_id"], body["data"], body["previous"]) == (0, {"status": "in_progress"}, {"status": "todo"})
    found = previewed(condition="object.quantity > 1 && object.cost / 2.0 == 1.0", first=3)
    assert [(c["changeId"], c["outcome"]) for c in found["changes"]] == [(4, "MATCHED"), (3, "FAILED"), (2, "MATCHED")]
    assert "cannot be used on (null_type, int64)" in found["changes"][1]["error"]
    found = previewed(template='{"text": object.status, "n": object.quantity + 1}', since="2026-11-24T01:02:06.456789Z")
    assert [(c["changeId"], c["outcome"], c["body"]) for c in found["changes"]] == [
        (4, "MATCHED", '{"n":5,"text":"in_progress"}'),
        (3, "FAILED", None),
    ]
    with psycopg.connect(integrator.database.url) as connection:
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM clarion.queue), (SELECT count(*) FROM clarion.subscriptions), "
            "(SELECT count(*) FROM clarion.evaluation_errors)"
        ).fetchone()
    assert counts == (0, 1, 0)


def test_a_preview_is_checked_like_a_subscription(
    create: Callable[..., Any], integrator: Caller, administrator: Caller
) -> None:
    create()
    given = {"receiverId": "1", "resource": "RUNS", "action": "UPDATE"}
    assert integrator(PREVIEW, input=given | {"condition": "object.x"}).refusal == ("INVALID_INPUT", "input.condition")
    assert integrator(PREVIEW, input=given | {"receiverId": "9"}).refusal == ("NOT_FOUND", "input.receiverId")
    assert integrator(PREVIEW, input=given, first=101).refusal == ("INVALID_INPUT", "first")
    stranger = administrator.of("somebody else", Role.INTEGRATOR)
    assert stranger(PREVIEW, input=given).refusal == ("NOT_FOUND", "input.receiverId")
