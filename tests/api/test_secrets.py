"""Secrets: sealed at rest, shown once to who made them, later only to administrators, and each reveal is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from clarion.access.principal import Role
from clarion.sender.endpoint import SealedEndpoint, open_endpoint
from clarion.sender.seal import Sealer
from clarion.sender.sign import secret_bytes
from harness.api import Caller

UPDATE = (
    "mutation($input: UpdateWebhookReceiverInput!) { updateWebhookReceiver(input: $input) "
    "{ webhookReceiver { _etag sharedSecret } } }"
)
SECRETS = "{ webhookReceivers { edges { node { id sharedSecret } } } }"
HEADER = "mutation($input: %sWebhookHeaderInput!) { %sWebhookHeader(input: $input) { webhookHeader { id key value _etag } } }"


def secrets(caller: Caller) -> list[str]:
    return [edge["node"]["sharedSecret"] for edge in caller(SECRETS).data["webhookReceivers"]["edges"]]


def test_the_secret_is_in_clear_from_create_and_masked_afterwards(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    secret = make_receiver()["sharedSecret"]
    assert len(secret) == len("whsec_") + 44
    for reader in (integrator, integrator.of("default", Role.AUDITOR), integrator.of("default", Role.OPERATOR)):
        assert secrets(reader) == ["********" + secret[-4:]]
    assert integrator.rows("SELECT 1 FROM clarion.history WHERE action = 'REVEAL'") == []


def test_a_reveal_is_shown_to_administrators_and_recorded_once_a_request(
    administrator: Caller, integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    made = [make_receiver(name=name)["sharedSecret"] for name in ("a", "b")]
    twice = administrator("{ a: webhookReceiver(id: 1) { sharedSecret } b: webhookReceiver(id: 1) { sharedSecret } }")
    assert twice.data["a"]["sharedSecret"] == twice.data["b"]["sharedSecret"] == made[0]
    revealed = "SELECT client_name, object_type, object_id FROM clarion.history WHERE action = 'REVEAL' ORDER BY id"
    assert administrator.rows(revealed) == [("admin", "WebhookReceiver", "1")]
    assert secrets(administrator) == made
    assert len(administrator.rows(revealed)) == 3


def test_an_own_secret_is_kept_and_a_new_one_is_shown_to_who_set_it(
    administrator: Caller, integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    receiver = make_receiver(sharedSecret="an own secret of 24 chars")
    assert receiver["sharedSecret"] == "an own secret of 24 chars"
    changed = integrator(
        UPDATE, input={"id": 1, "etag": receiver["_etag"], "sharedSecret": "another secret, long enough"}
    ).data["updateWebhookReceiver"]["webhookReceiver"]
    assert changed["sharedSecret"] == "another secret, long enough"
    assert secrets(administrator) == ["another secret, long enough"]
    renamed = integrator(
        "mutation($input: UpdateWebhookReceiverInput!) { updateWebhookReceiver(input: $input) "
        "{ webhookReceiver { name sharedSecret } } }",
        input={"id": 1, "etag": changed["_etag"], "name": "renamed"},
    )
    assert renamed.data["updateWebhookReceiver"]["webhookReceiver"]["sharedSecret"] == "********ough"


def test_a_refusal_does_not_repeat_the_input(integrator: Caller) -> None:
    create = (
        "mutation($input: CreateWebhookReceiverInput!) { createWebhookReceiver(input: $input) { warnings { code } } }"
    )
    for values, reason in (
        ({"sharedSecret": "canary", "unknown": 1}, "unknown field 'unknown'"),
        ({"sharedSecret": ["canary"]}, "String cannot represent a non string value"),
        ({"headers": [{"key": "x", "value": {"a": "canary"}}]}, "at .headers[0].value"),
    ):
        error = integrator(create, input={"name": "a", "webhookUri": "https://a.example/"} | values).error
        assert reason in error["message"]
        assert "canary" not in str(error)
    literal = 'mutation { createWebhookReceiver(input: {name: "a", webhookUri: "", sharedSecret: ["canary"]}) { warnings { code } } }'
    assert "canary" not in str(integrator(literal).error)


def test_header_values_are_never_shown(administrator: Caller, make_receiver: Callable[..., dict[str, Any]]) -> None:
    receiver = make_receiver(headers=[{"key": "X-Token", "value": "canary-token"}])
    listed = administrator("{ webhookReceiver(id: 1) { headers { id key value } } }")
    assert listed.data["webhookReceiver"]["headers"] == [
        {"id": receiver["headers"][0]["id"], "key": "X-Token", "value": "********"}
    ]


def test_headers_are_sealed_for_their_receiver_and_name(
    integrator: Caller, sealer: Sealer, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    make_receiver()
    create, update = HEADER % ("Create", "create"), HEADER % ("Update", "update")
    made = integrator(create, input={"receiverId": 1, "key": "X-Token", "value": "canary-token"})
    header = made.data["createWebhookHeader"]["webhookHeader"]
    assert header["value"] == "********"
    ((organisation_id,),) = integrator.rows("SELECT organisation_id FROM clarion.receivers")

    def stored() -> str:
        ((key, sealed),) = integrator.rows("SELECT key, value_sealed FROM clarion.headers")
        assert b"canary" not in sealed
        return sealer.unseal(sealed, f"header:{organisation_id}:1:{key.lower()}").decode()

    assert stored() == "canary-token"
    twin = integrator(create, input={"receiverId": 1, "key": "x-token", "value": "other"})
    assert twin.refusal == ("INVALID_INPUT", "input.key")
    changes: tuple[dict[str, str], ...] = (
        {"key": "X-Renamed"},
        {"value": "canary-two"},
        {"key": "X-Both", "value": "canary-token"},
    )
    for values in changes:
        answer = integrator(update, input={"id": header["id"], "etag": header["_etag"]} | values)
        header = answer.data["updateWebhookHeader"]["webhookHeader"]
    assert (header["key"], stored()) == ("X-Both", "canary-token")
    for field, value in (("key", "host"), ("value", "a\nb"), ("key", None)):
        answer = integrator(update, input={"id": header["id"], "etag": header["_etag"], field: value})
        assert answer.refusal == ("INVALID_INPUT", f"input.{field}")
    delete = f'mutation {{ deleteWebhookHeader(id: {header["id"]}, etag: "{header["_etag"]}") {{ id }} }}'
    assert integrator(delete).data["deleteWebhookHeader"] == {"id": header["id"]}
    assert integrator.rows("SELECT 1 FROM clarion.headers") == []


def test_a_receiver_has_room_for_32_headers(integrator: Caller, make_receiver: Callable[..., dict[str, Any]]) -> None:
    make_receiver(headers=[{"key": f"x-{number}", "value": "v"} for number in range(32)])
    one_more = integrator(HEADER % ("Create", "create"), input={"receiverId": 1, "key": "x-more", "value": "v"})
    assert one_more.refusal[0] == "INVALID_INPUT"


def test_secrets_are_nowhere_in_the_database(
    administrator: Caller, sealer: Sealer, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    receiver = make_receiver(
        sharedSecret="canary-shared-secret-in-full", headers=[{"key": "x-token", "value": "canary-header-value"}]
    )
    administrator(UPDATE, input={"id": 1, "etag": receiver["_etag"], "sharedSecret": "canary-second-secret-in-full"})
    secrets(administrator)
    ((organisation_id, sealed),) = administrator.rows(
        "SELECT organisation_id, shared_secret_sealed FROM clarion.receivers"
    )
    assert sealer.unseal(sealed, f"secret:{organisation_id}:1") == b"canary-second-secret-in-full"
    for table in ("receivers", "headers", "history", "outbox", "api_keys", "clients", "ledger"):
        for (row,) in administrator.rows(f"SELECT t::text FROM clarion.{table} t"):
            assert "canary" not in row
            assert b"canary".hex() not in row
            assert administrator.key is not None
            assert administrator.key not in row


def test_a_secret_that_does_not_open_is_shown_masked(
    administrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    made = [make_receiver(name=name)["sharedSecret"] for name in ("a", "b")]
    administrator.rows(
        "UPDATE clarion.receivers SET shared_secret_sealed = other.shared_secret_sealed FROM clarion.receivers other "
        "WHERE receivers.id = 1 AND other.id = 2"
    )
    assert secrets(administrator) == ["********" + made[0][-4:], made[1]]


def test_what_the_api_seals_the_sender_opens(
    integrator: Caller, sealer: Sealer, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    made = make_receiver(headers=[{"key": "X-Token", "value": "token"}])
    ((organisation_id, uri, secret),) = integrator.rows(
        "SELECT organisation_id, webhook_uri, shared_secret_sealed FROM clarion.receivers"
    )
    ((key, value),) = integrator.rows("SELECT key, value_sealed FROM clarion.headers")
    sealed = SealedEndpoint(1, organisation_id, uri, "application/json", (key,), (value,), secret, ("V1",), 15, 4, None)
    endpoint = open_endpoint(sealed, sealer)
    assert endpoint.secrets == (secret_bytes(made["sharedSecret"]),)
    assert endpoint.headers == (("X-Token", "token"),)
