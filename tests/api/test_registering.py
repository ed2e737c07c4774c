"""Resources that are registered through the API: their names, their JSON Schemas, who may, and when they go."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from clarion.access.principal import Role
from clarion.capture.attach import detach
from clarion.capture.publish import publish
from clarion.capture.published import Published, attach_published
from harness.api import Answer, Caller

FIELDS = "{ id name singular description published jsonSchema _etag }"
REGISTER = f"mutation($input: RegisterResourceInput!) {{ registerResource(input: $input) {{ resource {FIELDS} }} }}"
UPDATE = f"mutation($input: UpdateResourceInput!) {{ updateResource(input: $input) {{ resource {FIELDS} }} }}"
UNREGISTER = "mutation($id: ID!, $etag: String!) { unregisterResource(id: $id, etag: $etag) { id } }"
SCHEMA = {
    "type": "object",
    "properties": {"quantity": {"type": "number", "minimum": 0, "multipleOf": 0.01}, "lines": {"type": "array"}},
    "required": ["quantity"],
}


@pytest.fixture
def operator(administrator: Caller) -> Caller:
    return administrator.of("default", Role.OPERATOR)


def register(caller: Caller, name: str = "SHIPMENTS", **given: Any) -> dict[str, Any]:
    made: dict[str, Any] = caller(REGISTER, input={"name": name} | given).data["registerResource"]["resource"]
    return made


def send(caller: Caller, *data: Any, action: str = "CREATE", resource: str = "SHIPMENTS") -> Answer:
    changes = [{"resource": resource, "action": action, "object_id": 1, "data": one} for one in data]
    return caller.send(json.dumps({"changes": changes}).encode(), path="/v1/changes")


def refusals(answer: Answer) -> list[tuple[str, str | None]]:
    return [(one["extensions"]["code"], one["extensions"].get("field")) for one in answer.body["errors"]]


# ---------------------------------------------------------------- registering


def test_a_registered_resource_can_be_published_at_once_and_subscribed_to_within_a_second(
    operator: Caller, integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    made = register(operator, singular="SHIPMENT", description="What leaves the plant.", jsonSchema=SCHEMA)
    assert send(operator, {"quantity": 1}).status == 200
    assert send(operator, {"quantity": 1}, resource="shipment").status == 200
    registered = time.monotonic()
    assert made | {"_etag": "", "id": ""} == {
        "id": "",
        "name": "SHIPMENTS",
        "singular": "SHIPMENT",
        "description": "What leaves the plant.",
        "published": True,
        "jsonSchema": SCHEMA,
        "_etag": "",
    }
    receiver = make_receiver()
    subscribe = (
        "mutation($input: CreateWebhookSubscriptionInput!) { createWebhookSubscription(input: $input) "
        "{ webhookSubscription { resource } } }"
    )
    wanted = {"receiverId": receiver["id"], "resource": "SHIPMENT", "action": "CREATE"}
    while "errors" in (answer := integrator(subscribe, input=wanted)).body:
        assert time.monotonic() - registered < 1
    assert answer.data["createWebhookSubscription"]["webhookSubscription"] == {"resource": "SHIPMENTS"}
    listed = operator(f"{{ resources {FIELDS} }}").data["resources"]
    assert made in listed
    assert {one["name"]: one["published"] for one in listed}["RUNS"] is False
    (recorded,) = operator.rows(
        "SELECT action, object_id, client_name, before, after FROM clarion.history WHERE object_type = 'Resource'"
    )
    shown = {name: made[name] for name in ("name", "singular", "description", "jsonSchema")}
    assert recorded == ("CREATE", made["id"], "operator", None, shown)


def test_a_name_is_enough(operator: Caller) -> None:
    made = register(operator)
    assert (made["singular"], made["description"], made["jsonSchema"]) == (None, "Published over HTTP.", None)


def test_it_says_who_registered_and_who_changed_it_and_to_no_other_organisation(
    operator: Caller, administrator: Caller
) -> None:
    made = register(operator)

    def by(caller: Caller) -> tuple[str | None, str | None]:
        found = caller("query($id: ID!) { resource(id: $id) { createdBy { name } updatedBy { name } } }", id=made["id"])
        created, updated = ((found.data["resource"][side] or {}).get("name") for side in ("createdBy", "updatedBy"))
        return created, updated

    assert by(administrator) == ("operator", "operator")
    assert "errors" not in administrator(UPDATE, input={"id": made["id"], "etag": made["_etag"], "singular": "A"}).body
    assert by(administrator) == ("operator", "admin")
    assert by(administrator.of("other", Role.ADMINISTRATOR)) == (None, None)
    with psycopg.connect(administrator.database.url) as connection:
        attach_published(connection, Published("SHIPMENTS", organisation=None))
        connection.commit()
        assert by(administrator) == ("operator", None)
        detach(connection, "SHIPMENTS")


def test_names_that_are_taken_or_none_are_refused(operator: Caller) -> None:
    register(operator, singular="SHIPMENT")
    for given, refusal in (
        ({"name": "SHIPMENTS"}, ("CONFLICT", "input.name")),
        ({"name": "SHIPMENT"}, ("CONFLICT", "input.name")),
        ({"name": "RUN"}, ("CONFLICT", "input.name")),
        ({"name": "WEBHOOK_RECEIVERS"}, ("CONFLICT", "input.name")),
        ({"name": "CRATES", "singular": "SHIPMENTS"}, ("CONFLICT", "input.singular")),
        ({"name": "CRATES", "singular": "WEBHOOK_TEST"}, ("CONFLICT", "input.singular")),
        ({"name": "CRATES", "singular": "CRATES"}, ("INVALID_INPUT", "input.singular")),
        ({"name": "crates"}, ("INVALID_INPUT", "input.name")),
        ({"name": "_CRATES"}, ("INVALID_INPUT", "input.name")),
        ({"name": "CRATES\n"}, ("INVALID_INPUT", "input.name")),
        ({"name": "C" * 64}, ("INVALID_INPUT", "input.name")),
        ({"name": "CRATES", "singular": "a crate"}, ("INVALID_INPUT", "input.singular")),
        ({"name": "CRATES", "description": "\x00"}, ("INVALID_INPUT", "input.description")),
        ({"name": "CRATES", "jsonSchema": {"type": "objekt"}}, ("INVALID_INPUT", "input.jsonSchema")),
        ({"name": "CRATES", "jsonSchema": {"$ref": "http://127.0.0.1/"}}, ("INVALID_INPUT", "input.jsonSchema")),
        ({"name": "CRATES", "jsonSchema": '{"type": "object"}'}, ("INVALID_INPUT", "input.jsonSchema")),
    ):
        assert operator(REGISTER, input=given).refusal == refusal, given
    assert operator.rows("SELECT count(*) FROM clarion.resources WHERE table_name IS NULL") == [(1,)]


def test_only_operators_and_administrators_of_the_deployments_own_organisation_register(
    operator: Caller, administrator: Caller
) -> None:
    made = register(administrator)
    strangers = [administrator.of("default", Role.INTEGRATOR), administrator.of("default", Role.AUDITOR)]
    strangers += [administrator.of("acme", Role.ADMINISTRATOR), administrator.of("acme", Role.OPERATOR)]
    for caller in strangers:
        for answer in (
            caller(REGISTER, input={"name": "CRATES"}),
            caller(UPDATE, input={"id": made["id"], "etag": made["_etag"], "description": "mine"}),
            caller(UNREGISTER, id=made["id"], etag=made["_etag"]),
        ):
            assert answer.refusal[0] == "FORBIDDEN"
    assert register(operator, "CRATES")["name"] == "CRATES"


# ---------------------------------------------------------------- what the database enforces


@contextmanager
def as_api(caller: Caller, organisation: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction of the API's role for an organisation, past the API."""
    ((role, organisation_id),) = caller.rows(
        "SELECT d.api_role, o.id FROM clarion.deployment d, clarion.organisations o WHERE o.name = %s", organisation
    )
    with psycopg.connect(caller.database.url) as connection:
        connection.execute("SELECT set_config('clarion.organisation_id', %s, true)", (str(organisation_id),))
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        yield connection
        connection.rollback()


def test_the_apis_role_writes_no_resource_of_a_table_and_none_for_another_organisation(operator: Caller) -> None:
    register(operator)
    operator.of("acme", Role.OPERATOR)
    made = "INSERT INTO clarion.resources (name, description, key_columns{}) VALUES ('X', 'x', '{{}}'{})"
    denied = psycopg.errors.InsufficientPrivilege
    with as_api(operator, "acme") as connection:
        assert connection.execute("SELECT count(*) FROM clarion.resources WHERE name = 'SHIPMENTS'").fetchone() == (1,)
        with pytest.raises(denied), connection.transaction():
            connection.execute(made.format("", "").encode())
        for statement in (
            "UPDATE clarion.resources SET description = 'mine'",
            "DELETE FROM clarion.resources",
        ):
            assert connection.execute(statement.encode()).rowcount == 0
    with as_api(operator, "default") as connection:
        for columns, values in ((", organisation_id", ", 1"), (", schema_name, table_name", ", 'public', 'runs'")):
            with pytest.raises(denied), connection.transaction():
                connection.execute(made.format(columns, values).encode())
        with pytest.raises(denied), connection.transaction():
            connection.execute("UPDATE clarion.resources SET name = 'Y' WHERE name = 'SHIPMENTS'")
        assert connection.execute("UPDATE clarion.resources SET description = 'x' RETURNING name").fetchall() == [
            ("SHIPMENTS",)
        ]
        assert connection.execute("DELETE FROM clarion.resources RETURNING name").fetchall() == [("SHIPMENTS",)]


# ---------------------------------------------------------------- JSON Schema


def test_data_must_satisfy_the_schema_and_is_kept_as_it_was_sent(operator: Caller) -> None:
    register(operator, jsonSchema=SCHEMA)
    answer = send(
        operator, {"quantity": 1}, {"quantity": -1}, {"quantity": "secret"}, {"lines": {}}, {"quantity": 0.005}
    )
    assert (answer.status, refusals(answer)) == (
        422,
        [
            ("INVALID_INPUT", "changes.1.data.quantity"),
            ("INVALID_INPUT", "changes.2.data.quantity"),
            ("INVALID_INPUT", "changes.3.data"),
            ("INVALID_INPUT", "changes.4.data.quantity"),
        ],
    )
    assert "secret" not in json.dumps(answer.body)
    exact = b'{"changes":[{"resource":"SHIPMENTS","action":"CREATE","object_id":1,"data":{"quantity": 1.230000000000000000000}}]}'
    assert operator.send(exact, path="/v1/changes").status == 200
    assert operator.rows("SELECT new FROM clarion.outbox WHERE resource = 'SHIPMENTS'") == [
        ('{"quantity": 1.230000000000000000000}',)
    ]


def test_a_delete_needs_no_data_but_what_it_has_must_satisfy_the_schema(operator: Caller) -> None:
    register(operator, jsonSchema=SCHEMA)
    assert send(operator, None, action="DELETE").status == 200
    assert send(operator, {"quantity": 1}, action="DELETE").status == 200
    assert send(operator, {}, action="DELETE").refusal == ("INVALID_INPUT", "changes.0.data")


def test_previous_was_accepted_once_and_is_not_checked_again(operator: Caller) -> None:
    register(operator, jsonSchema=SCHEMA)
    change = {
        "resource": "SHIPMENTS",
        "action": "UPDATE",
        "object_id": 1,
        "data": {"quantity": 1},
        "previous": {"old": 1},
    }
    assert operator.send(json.dumps({"changes": [change]}).encode(), path="/v1/changes").status == 200


def test_after_an_update_nothing_is_accepted_by_the_schema_before(operator: Caller) -> None:
    made = register(operator)
    assert send(operator, {"anything": 1}).status == 200
    changed = operator(UPDATE, input={"id": made["id"], "_etag": made["_etag"], "jsonSchema": SCHEMA})
    after = changed.data["updateResource"]["resource"]
    # At once: not when the API next looks what is configured.
    assert send(operator, {"anything": 1}).refusal == ("INVALID_INPUT", "changes.0.data")
    assert after | {"_etag": ""} == made | {"_etag": "", "jsonSchema": SCHEMA}
    opened = operator(UPDATE, input={"id": made["id"], "etag": after["_etag"], "jsonSchema": None, "description": None})
    assert opened.data["updateResource"]["resource"]["jsonSchema"] is None
    assert send(operator, {"anything": 1}).status == 200
    recorded = operator.rows("SELECT before, after FROM clarion.history WHERE action = 'UPDATE' ORDER BY id")
    assert recorded == [
        ({"jsonSchema": None}, {"jsonSchema": SCHEMA}),
        ({"jsonSchema": SCHEMA}, {"jsonSchema": None}),
    ]


def test_changes_are_compared_by_etag(operator: Caller) -> None:
    made = register(operator)
    assert operator(UPDATE, input={"id": made["id"], "etag": "x", "singular": "A"}).refusal == (
        "CONFLICT",
        "input.etag",
    )
    assert operator(UPDATE, input={"id": made["id"]}).refusal == ("INVALID_INPUT", "input.etag")
    assert operator(UPDATE, input={"id": "999", "etag": "x"}).refusal == ("NOT_FOUND", "input.id")
    same = operator(UPDATE, input={"id": made["id"], "etag": made["_etag"], "singular": None})
    assert same.data["updateResource"]["resource"] == made
    ((runs, etag),) = operator.rows("SELECT id::text, etag FROM clarion.resources WHERE name = 'RUNS'")
    assert operator(UPDATE, input={"id": runs, "etag": etag, "singular": None}).refusal == ("CONFLICT", "input.id")
    assert operator(UNREGISTER, id=runs, etag=etag).refusal == ("CONFLICT", "id")
    taken = operator(UPDATE, input={"id": made["id"], "etag": made["_etag"], "singular": "RUN"})
    assert taken.refusal == ("CONFLICT", "input.singular")


def test_conditions_and_fields_know_the_members_of_a_closed_schema(
    operator: Caller, integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    made = register(operator, jsonSchema=SCHEMA | {"additionalProperties": False})
    receiver = make_receiver()
    subscribe = (
        "mutation($input: CreateWebhookSubscriptionInput!) { createWebhookSubscription(input: $input) "
        "{ webhookSubscription { condition fields } } }"
    )

    def asked(**given: Any) -> Answer:
        return integrator(
            subscribe, input={"receiverId": receiver["id"], "resource": "SHIPMENTS", "action": "CREATE"} | given
        )

    deadline = time.monotonic() + 2
    while "errors" in asked(condition="object.quantity > 5 && object.lines[0].part == 'BOLT'").body:
        assert time.monotonic() < deadline
    mistyped = asked(condition="object.quantty > 5")
    assert mistyped.refusal == ("INVALID_INPUT", "input.condition")
    assert "did you mean quantity?" in mistyped.error["message"]
    assert asked(fields=["quantity", "line"]).refusal == ("INVALID_INPUT", "input.fields")
    opened = operator(UPDATE, input={"id": made["id"], "etag": made["_etag"], "jsonSchema": SCHEMA})
    assert opened.data["updateResource"]["resource"]["jsonSchema"] == SCHEMA
    assert asked(condition="object.quantty > 5").data["createWebhookSubscription"]
    assert asked(fields=["quantity", "line"]).data["createWebhookSubscription"]


# ---------------------------------------------------------------- the end of one


def test_a_resource_goes_when_nobody_listens_for_it(
    operator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    made = register(operator)
    organisation = operator.of("acme", Role.INTEGRATOR)
    receiver = make_receiver(organisation)
    subscribed = organisation.rows(
        "INSERT INTO clarion.subscriptions (organisation_id, receiver_id, resource, action) "
        "SELECT organisation_id, id, 'SHIPMENTS', 'CREATE' FROM clarion.receivers WHERE id = %s RETURNING id",
        int(receiver["id"]),
    )
    assert operator(UNREGISTER, id=made["id"], etag=made["_etag"]).refusal == ("CONFLICT", "id")
    operator.rows("UPDATE clarion.subscriptions SET deleted = now() WHERE id = %s", subscribed[0][0])
    assert operator(UNREGISTER, id=made["id"], etag="x").refusal == ("CONFLICT", "etag")
    assert operator(UNREGISTER, id=made["id"], etag=made["_etag"]).data["unregisterResource"] == {"id": made["id"]}
    assert send(operator, {}).refusal == ("NOT_FOUND", "changes.0.resource")
    assert operator(UNREGISTER, id=made["id"], etag=made["_etag"]).refusal == ("NOT_FOUND", "id")
    assert register(operator)["id"] != made["id"]


def test_attach_makes_publishers_of_a_registered_resource_and_only_detach_takes_it_away_then(operator: Caller) -> None:
    made = register(operator, jsonSchema=SCHEMA)
    with psycopg.connect(operator.database.url, autocommit=True) as connection:
        attach_published(connection, Published("SHIPMENTS", description="Both ways.", organisation=None))
        with connection.transaction():
            publish(connection, "SHIPMENTS", "DELETE", 1, organisation="default")
        assert send(operator, {"quantity": 1}).status == 200
        assert send(operator, {}).status == 422
        ((etag,),) = operator.rows("SELECT etag FROM clarion.resources WHERE name = 'SHIPMENTS'")
        assert etag != made["_etag"]
        refused = operator(UNREGISTER, id=made["id"], etag=etag)
        assert refused.refusal == ("CONFLICT", "id")
        assert "clarion detach SHIPMENTS" in refused.error["message"]
        detach(connection, "SHIPMENTS")
    assert send(operator, {"quantity": 1}).refusal == ("NOT_FOUND", "changes.0.resource")


def test_a_resource_is_not_changed_while_a_transaction_that_publishes_it_is_open(operator: Caller) -> None:
    made = register(operator)
    with psycopg.connect(operator.database.url) as connection:
        key = "clarion.publish\nSHIPMENTS"
        connection.execute("SELECT pg_advisory_xact_lock_shared(hashtextextended(%s, 0))", (key,))
        held = operator(UPDATE, input={"id": made["id"], "etag": made["_etag"], "jsonSchema": SCHEMA})
        assert held.refusal == ("CONFLICT", None)
        connection.rollback()
    changed = operator(UPDATE, input={"id": made["id"], "etag": made["_etag"], "jsonSchema": SCHEMA})
    assert changed.data["updateResource"]["resource"]["jsonSchema"] == SCHEMA
