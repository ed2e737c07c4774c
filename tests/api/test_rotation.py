"""Rotation of a receiver's secret through the API, and the published signing keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from clarion.access.principal import Role
from clarion.core.system import SystemRandom
from clarion.registry import signing_keys
from clarion.sender.endpoint import previous_secret_binding, secret_binding
from clarion.sender.seal import Sealer, SecretUnreadable
from clarion_receive import public_keys
from harness.api import Answer, Caller

ROTATE = (
    "mutation($input: RotateWebhookReceiverSecretInput!) { rotateWebhookReceiverSecret(input: $input) "
    "{ webhookReceiver { _etag sharedSecret previousSecretUntil } warnings { code } } }"
)
STORED = (
    "SELECT organisation_id, shared_secret_sealed, previous_secret_sealed, "
    "extract(epoch FROM previous_secret_until - now())::float8, previous_secret_until FROM clarion.receivers"
)


def rotate(caller: Caller, etag: str, **values: Any) -> Answer:
    return caller(ROTATE, input={"id": "1", "etag": etag} | values)


def rotated(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = answer.data["rotateWebhookReceiverSecret"]["webhookReceiver"]
    return found


def test_a_rotation_shows_the_new_secret_and_keeps_the_former_one_for_a_day(
    integrator: Caller, sealer: Sealer, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    made = make_receiver()
    first = rotated(rotate(integrator, made["_etag"]))
    assert first["sharedSecret"].startswith("whsec_")
    assert first["sharedSecret"] != made["sharedSecret"]
    assert first["previousSecretUntil"].endswith(".000000Z")
    ((organisation, sealed, previous, left_s, _),) = integrator.rows(STORED)
    assert 86_390 < left_s <= 86_401
    assert sealer.unseal(sealed, secret_binding(organisation, 1)).decode() == first["sharedSecret"]
    assert sealer.unseal(previous, previous_secret_binding(organisation, 1)).decode() == made["sharedSecret"]
    # Neither opens where the other stands, so that an ended secret cannot be put back.
    for value, binding in (
        (previous, secret_binding(organisation, 1)),
        (sealed, previous_secret_binding(organisation, 1)),
    ):
        with pytest.raises(SecretUnreadable):
            sealer.unseal(value, binding)
    # A second rotation during the overlap: the first secret ends, the second one takes its place.
    second = rotated(
        rotate(integrator, first["_etag"], overlapSeconds=604_800, sharedSecret="an own secret of 24 chars")
    )
    assert second["sharedSecret"] == "an own secret of 24 chars"
    ((_, _, previous, left_s, _),) = integrator.rows(STORED)
    assert left_s > 604_700
    assert sealer.unseal(previous, previous_secret_binding(organisation, 1)).decode() == first["sharedSecret"]
    history = integrator.rows("SELECT action, after::text FROM clarion.history WHERE after ? 'sharedSecretRotated'")
    assert [action for action, _ in history] == ["UPDATE", "UPDATE"]
    assert not any("whsec_" in after or "own secret" in after for _, after in history)


@pytest.mark.parametrize("replace_by", ["rotation without overlap", "update"])
def test_a_secret_that_is_replaced_at_once_signs_no_more(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]], replace_by: str
) -> None:
    etag = rotated(rotate(integrator, make_receiver()["_etag"]))["_etag"]
    if replace_by == "update":
        integrator(
            "mutation($input: UpdateWebhookReceiverInput!) { updateWebhookReceiver(input: $input) { warnings { code } } }",
            input={"id": 1, "etag": etag, "sharedSecret": "another secret, long enough"},
        )
    else:
        assert rotated(rotate(integrator, etag, overlapSeconds=0))["previousSecretUntil"] is None
    ((_, _, previous, _, until),) = integrator.rows(STORED)
    assert (previous, until) == (None, None)


def test_a_rotation_is_refused_like_every_other_change(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    made = make_receiver()
    etag = made["_etag"]
    assert rotate(integrator, "0" * 32).refusal == ("CONFLICT", "input.etag")
    assert integrator(ROTATE, input={"id": "1"}).refusal == ("INVALID_INPUT", "input.etag")
    assert integrator(ROTATE, input={"id": "9", "etag": etag}).refusal == ("NOT_FOUND", "input.id")
    other = integrator.of("other", Role.INTEGRATOR)
    assert rotate(other, etag).refusal == ("NOT_FOUND", "input.id")
    assert rotate(integrator.of("default", Role.AUDITOR), etag).refusal[0] == "FORBIDDEN"
    for overlap in (-1, 604_801):
        assert rotate(integrator, etag, overlapSeconds=overlap).refusal == ("INVALID_INPUT", "input.overlapSeconds")
    for secret in ("too short", made["sharedSecret"], "whsec_AAAA", "whpk_" + "A" * 43 + "="):
        assert rotate(integrator, etag, sharedSecret=secret).refusal == ("INVALID_INPUT", "input.sharedSecret")
    assert integrator.rows(STORED)[0][2:] == (None, None, None)


def test_v1a_is_a_signature_that_a_receiver_may_ask_for(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    make_receiver(signatures=["V1A", "ION"])
    assert integrator("{ webhookReceiver(id: 1) { signatures } }").data["webhookReceiver"]["signatures"] == [
        "V1A",
        "ION",
    ]


def test_keys_are_published_until_a_day_after_they_signed_last(integrator: Caller, sealer: Sealer) -> None:
    random = SystemRandom()
    with psycopg.connect(integrator.database.url) as connection:
        connection.execute("DELETE FROM clarion.signing_keys")
        signing_keys.ensure_signing_key(connection, sealer, random)
        made = [signing_keys.rotate(connection, sealer, random, overlap_s=0, announce_s=0) for _ in range(2)]
        connection.execute(
            "UPDATE clarion.signing_keys SET signs_until = now() - interval '25 hours' "
            "WHERE id = (SELECT min(id) FROM clarion.signing_keys)"
        )
        connection.commit()
    answer = integrator.with_key(None).send(b"", "GET", "/.well-known/jwks.json")
    assert answer.status == 200
    body = answer.body if isinstance(answer.body, str) else ""
    assert public_keys(body) == [made[1].public_key, made[0].public_key]
    assert made[0].kid in body
    assert '"d"' not in body, "no private half"
    assert answer.headers["cache-control"] == "public, max-age=300"
