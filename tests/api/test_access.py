"""Who is let in, and what they see of others: nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from clarion.access.principal import Role
from harness.api import Caller
from harness.audit_rows import add_attempt, add_change, add_open, add_settled

LIST = "{ webhookReceivers { edges { node { id } } } }"


def test_no_key_or_a_wrong_one_is_401_before_the_body_is_read(administrator: Caller) -> None:
    for caller in (administrator.with_key(None), administrator.with_key("clk_00000000_" + "x" * 43)):
        for body in (b'{"query": "{ __typename }"}', b"no json", b"x" * 100_000):
            answer = caller.send(body)
            assert answer.status == 401
            assert answer.error["extensions"]["code"] == "UNAUTHENTICATED"
            assert answer.headers["www-authenticate"] == "Bearer"


def test_the_key_may_come_in_each_usual_form(administrator: Caller) -> None:
    assert administrator.key is not None
    anonymous = administrator.with_key(None)
    for form in ("Bearer {}", "bearer {}", "Token {}", "{}", "  {}  "):
        answer = anonymous.send(b'{"query": "{ __typename }"}', authorization=form.format(administrator.key))
        assert answer.data == {"__typename": "Query"}, form


def test_a_revoked_or_expired_key_is_refused_within_a_second(administrator: Caller, integrator: Caller) -> None:
    operator = administrator.of("default", Role.OPERATOR)
    assert operator(LIST).status == integrator(LIST).status == 200
    administrator.rows("UPDATE clarion.api_keys SET revoked = now() WHERE client_id = 2")
    administrator.rows("UPDATE clarion.api_keys SET expires = now() WHERE client_id = 3")
    assert integrator.rows("SELECT pg_sleep(1.01)") == [("",)]
    assert operator(LIST).status == integrator(LIST).status == 401
    assert administrator(LIST).status == 200


def test_readers_may_not_write(administrator: Caller, make_receiver: Callable[..., dict[str, Any]]) -> None:
    etag = make_receiver(headers=[{"key": "x-a", "value": "1"}])["_etag"]
    for role in (Role.OPERATOR, Role.AUDITOR):
        reader = administrator.of("default", role)
        assert len(reader(LIST).data["webhookReceivers"]["edges"]) == 1
        for mutation in (
            'createWebhookReceiver(input: {name: "a", webhookUri: "https://93.184.216.34/"})',
            f'updateWebhookReceiver(input: {{id: 1, etag: "{etag}", name: "b"}})',
            f'deleteWebhookReceiver(id: 1, etag: "{etag}")',
            "createWebhookSubscription(input: {receiverId: 1, resource: RUNS, action: CREATE})",
            f'updateWebhookSubscription(input: {{id: 1, etag: "{etag}", active: false}})',
            f'deleteWebhookSubscription(id: 1, etag: "{etag}")',
            'createWebhookHeader(input: {receiverId: 1, key: "x-b", value: "1"})',
            f'updateWebhookHeader(input: {{id: 1, etag: "{etag}", value: "2"}})',
            f'deleteWebhookHeader(id: 1, etag: "{etag}")',
        ):
            answer = reader(f"mutation {{ {mutation} {{ __typename }} }}")
            assert answer.status == 200
            assert answer.refusal == ("FORBIDDEN", None)
    done = "SELECT refusal, count(*) FROM clarion.history WHERE client_name IN ('operator', 'auditor') GROUP BY 1"
    assert administrator.rows(done) == [("FORBIDDEN", 18)]


@pytest.fixture
def filled(
    integrator: Caller,
    make_receiver: Callable[..., dict[str, Any]],
    make_subscription: Callable[..., dict[str, Any]],
) -> dict[str, str]:
    """A receiver, header, subscription, event and attempt of organisation `default`; the etags."""
    receiver = make_receiver(headers=[{"key": "x-a", "value": "1"}])
    subscription = make_subscription(receiver["id"])
    with psycopg.connect(integrator.database.url) as connection:
        ((organisation_id,),) = connection.execute("SELECT organisation_id FROM clarion.receivers").fetchall()
        of = {"organisation_id": organisation_id, "receiver_id": 1, "subscription_id": 1}
        for position in (1, 2):
            add_change(connection, position, organisation_id=organisation_id)
        add_settled(connection, 1, position=1, **of)
        add_open(connection, 2, position=2, **of)
        add_attempt(connection, 1, 1, organisation_id=organisation_id)
        connection.execute("INSERT INTO clarion.activations VALUES (1, %s, 1, NULL)", (organisation_id,))
    etag = receiver["headers"][0]["_etag"]
    return {"receiver": receiver["_etag"], "subscription": subscription["_etag"], "header": etag}


def test_a_second_organisation_sees_nothing_of_the_first(administrator: Caller, filled: dict[str, str]) -> None:
    stranger = administrator.of("other", Role.ADMINISTRATOR)
    for name in ("webhookReceivers", "webhookSubscriptions", "webhookEvents"):
        listed = stranger(f"{{ {name} {{ edges {{ node {{ id }} }} pageInfo {{ totalCount }} }} }}").data[name]
        assert listed == {"edges": [], "pageInfo": {"totalCount": 0}}
        filters = stranger(f"{{ {name}(filters: {{receiverId: {{eq: 1}}}}) {{ edges {{ node {{ id }} }} }} }}")
        assert name == "webhookReceivers" or filters.data[name]["edges"] == []

    def same_as_absent(query: str, **etags: str) -> None:
        foreign, absent = (
            stranger(query.replace("$id", one).replace("$etag", etags.get("etag", ""))).body for one in ("1", "999")
        )
        assert str(foreign).replace("999", "1") == str(absent).replace("999", "1")
        assert foreign["errors"][0]["extensions"]["code"] == "NOT_FOUND"

    for name in ("webhookReceiver", "webhookSubscription", "webhookEvent"):
        same_as_absent(f"{{ {name}(id: $id) {{ id }} }}")
        same_as_absent(f'{{ node(id: "{name[0].upper()}{name[1:]}:$id") {{ id }} }}')
    same_as_absent(
        "mutation { createWebhookSubscription(input: {receiverId: $id, resource: RUNS, action: CREATE}) { __typename } }"
    )
    same_as_absent('mutation { createWebhookHeader(input: {receiverId: $id, key: "a", value: "b"}) { __typename } }')
    changes = {"receiver": 'name: "b"', "subscription": "active: false", "header": 'value: "c"'}
    for kind, change in changes.items():
        same_as_absent(
            f'mutation {{ updateWebhook{kind.title()}(input: {{id: $id, etag: "$etag", {change}}}) {{ __typename }} }}',
            etag=filled[kind],
        )
        same_as_absent(
            f'mutation {{ deleteWebhook{kind.title()}(id: $id, etag: "$etag") {{ id }} }}', etag=filled[kind]
        )


def test_row_level_security_alone_hides_the_first_organisation(administrator: Caller, filled: dict[str, str]) -> None:
    administrator.of("other", Role.INTEGRATOR)
    tables = ["receivers", "headers", "subscriptions", "activations", "ledger", "queue", "events", "attempts"]
    tables += ["history", "clients", "api_keys", "organisations"]
    organisations = dict(administrator.rows("SELECT name, id FROM clarion.organisations"))

    def seen(organisation_id: int | None) -> dict[str, int]:
        """Rows that a query without any condition finds as the API's role."""
        found = {}
        with psycopg.connect(administrator.database.url) as connection:
            connection.execute(
                "SELECT set_config('role', api_role, true), set_config('clarion.organisation_id', %s, true) "
                "FROM clarion.deployment",
                (str(organisation_id or ""),),
            )
            for table in tables:
                ((found[table],),) = connection.execute(f"SELECT count(*) FROM clarion.{table}").fetchall()
        return found

    own = seen(organisations["default"])
    assert all(own.values()), own
    other = seen(organisations["other"])
    assert other == dict.fromkeys(tables, 0) | {"clients": 1, "api_keys": 1, "organisations": 1, "history": 3}
    assert seen(None) == dict.fromkeys(tables, 0)


def test_a_forgotten_condition_cannot_write_into_another_organisation(
    administrator: Caller, filled: dict[str, str]
) -> None:
    administrator.of("other", Role.INTEGRATOR)
    ((other,),) = administrator.rows("SELECT id FROM clarion.organisations WHERE name = 'other'")
    with psycopg.connect(administrator.database.url) as connection:
        connection.execute(
            "SELECT set_config('role', api_role, true), set_config('clarion.organisation_id', %s, true) "
            "FROM clarion.deployment",
            (str(other),),
        )
        assert connection.execute("UPDATE clarion.receivers SET name = 'stolen'").rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "INSERT INTO clarion.history (organisation_id, client_name, action, object_type, object_id) "
                "SELECT 1, 'x', 'x', 'x', 'x'"
            )


def test_changes_carry_who_made_them(
    administrator: Caller, integrator: Caller, make_receiver: Callable[..., Any]
) -> None:
    receiver = make_receiver(description="old")
    administrator(
        "mutation($input: UpdateWebhookReceiverInput!) { updateWebhookReceiver(input: $input) { __typename } }",
        input={"id": 1, "etag": receiver["_etag"], "description": "new", "active": False},
    )
    assert administrator.rows(
        "SELECT client_name, action, before, after FROM clarion.history WHERE object_type = 'WebhookReceiver' "
        "AND action = 'UPDATE'"
    ) == [
        (
            "admin",
            "UPDATE",
            {"description": "old", "active": True, "disabledReason": None},
            {"description": "new", "active": False, "disabledReason": "MANUAL"},
        )
    ]
    shown = integrator("{ webhookReceiver(id: 1) { createdBy { id name kind } updatedBy { name } } }").data[
        "webhookReceiver"
    ]
    assert shown["createdBy"] == {"id": "2", "name": "integrator", "kind": "MACHINE"}
    assert shown["updatedBy"] == {"name": "admin"}
