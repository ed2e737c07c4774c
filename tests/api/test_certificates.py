"""Authorities and client certificates of receivers, through the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.api import Answer, Caller
from tls import make_authority

CREATE = (
    "mutation($input: CreateWebhookReceiverInput!) { createWebhookReceiver(input: $input) { warnings { code field } "
    "webhookReceiver { id _etag caCertificates clientCertificate { subject fingerprintSha256 pem } } } }"
)
UPDATE = CREATE.replace("CreateWebhookReceiverInput", "UpdateWebhookReceiverInput").replace("create", "update")
GIVEN = {"name": "mTLS", "webhookUri": "https://93.184.216.34/"}


def create(caller: Caller, **given: Any) -> Answer:
    return caller(CREATE, input=GIVEN | given)


def test_a_client_certificate_is_kept_its_key_sealed_and_never_shown(integrator: Caller, tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    certificate, key = (file.read_text() for file in authority.issue(common_name="clarion", client=True))
    pem = authority.ca_file.read_text()
    answer = create(integrator, caCertificates=pem, clientCertificate=certificate, clientPrivateKey=key)
    made = answer.data["createWebhookReceiver"]
    assert made["warnings"] == [{"code": "CLIENT_CERTIFICATE_EXPIRES", "field": "input.clientCertificate"}]
    receiver = made["webhookReceiver"]
    assert receiver["caCertificates"] == pem
    assert receiver["clientCertificate"]["subject"] == "CN=clarion"
    assert receiver["clientCertificate"]["pem"] == certificate
    half = key.splitlines()[1]
    everything = integrator.rows(
        "SELECT r::text FROM clarion.receivers r UNION ALL SELECT h::text FROM clarion.history h"
    )
    assert not any(half in text or half.encode().hex() in text for (text,) in everything)
    captured = integrator.rows("SELECT new FROM clarion.outbox WHERE resource = 'WEBHOOK_RECEIVERS'")
    assert captured
    assert not any("sealed" in text for (text,) in captured)
    cleared = integrator(
        UPDATE,
        input={"id": "1", "etag": receiver["_etag"], "clientCertificate": None, "clientPrivateKey": None},
    )
    assert cleared.data["updateWebhookReceiver"]["webhookReceiver"]["clientCertificate"] is None
    assert integrator.rows("SELECT client_certificate, client_key_sealed FROM clarion.receivers") == [(None, None)]


def test_what_cannot_be_used_is_refused_naming_the_input(integrator: Caller, tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    certificate, key = (file.read_text() for file in authority.issue(client=True))
    for given, field, reason in (
        ({"caCertificates": "x"}, "caCertificates", "is not in PEM"),
        ({"caCertificates": certificate}, "caCertificates", "is no authority"),
        ({"clientCertificate": certificate}, "clientCertificate", "go together"),
        ({"clientPrivateKey": key}, "clientCertificate", "go together"),
        ({"clientCertificate": None, "clientPrivateKey": key}, "clientCertificate", "go together"),
        ({"clientCertificate": certificate, "clientPrivateKey": "x"}, "clientPrivateKey", "is not in PEM"),
    ):
        answer = create(integrator, **given)
        assert answer.refusal == ("INVALID_INPUT", f"input.{field}"), given
        assert reason in answer.error["message"]
        assert key.splitlines()[1] not in str(answer.body)
