"""Endpoints opened: the one place where a receiver's sealed secrets become usable for sending."""

from __future__ import annotations

from dataclasses import dataclass

from clarion.sender.seal import Sealer
from clarion.sender.send import Endpoint
from clarion.sender.sign import secret_bytes
from clarion.sender.signing_key import SigningKey
from clarion.sender.tls import Identity

__all__ = [
    "Endpoint",
    "SealedEndpoint",
    "client_key_binding",
    "header_binding",
    "idempotency_binding",
    "open_endpoint",
    "previous_secret_binding",
    "secret_binding",
    "signing_key_binding",
]


@dataclass(frozen=True, slots=True)
class SealedEndpoint:
    """A receiver as the tables have it: secret and header values sealed. Fields as in Endpoint."""

    receiver_id: int
    organisation_id: int
    uri: str
    content_type: str
    header_names: tuple[str, ...]
    header_values_sealed: tuple[bytes, ...]
    secret_sealed: bytes
    signatures: tuple[str, ...]
    timeout_s: int
    concurrency: int
    expected_response_code: int | None
    ca_certificates: str | None = None
    client_certificate: str | None = None
    client_key_sealed: bytes | None = None
    previous_secret_sealed: bytes | None = None
    previous_until_s: int = 0
    signing_keys: tuple[SigningKey, ...] = ()


def secret_binding(organisation_id: int, receiver_id: int) -> str:
    """What a receiver's sealed secret is bound to."""
    return f"secret:{organisation_id}:{receiver_id}"


def previous_secret_binding(organisation_id: int, receiver_id: int) -> str:
    """What a receiver's former secret is bound to while it still signs."""
    return f"previous-secret:{organisation_id}:{receiver_id}"


def client_key_binding(organisation_id: int, receiver_id: int) -> str:
    """What the private key of a receiver's client certificate is bound to."""
    return f"client-key:{organisation_id}:{receiver_id}"


def signing_key_binding(public_key: bytes) -> str:
    """What the private half of one of the deployment's signing keys is bound to."""
    return f"signing-key:{public_key.hex()}"


def header_binding(organisation_id: int, receiver_id: int, name: str) -> str:
    """What a header's sealed value is bound to."""
    return f"header:{organisation_id}:{receiver_id}:{name.lower()}"


def idempotency_binding(client_id: int, key: str) -> str:
    """What the stored answer to a client's request with an idempotency key is bound to."""
    return f"idempotency:{client_id}:{key}"


def open_endpoint(sealed: SealedEndpoint, sealer: Sealer) -> Endpoint:
    """The endpoint with its secrets in clear. Raises SecretUnreadable."""
    secret = sealer.unseal(sealed.secret_sealed, secret_binding(sealed.organisation_id, sealed.receiver_id))
    headers = tuple(
        (name, sealer.unseal(value, header_binding(sealed.organisation_id, sealed.receiver_id, name)).decode())
        for name, value in zip(sealed.header_names, sealed.header_values_sealed, strict=True)
    )
    client_key = None
    if sealed.client_key_sealed is not None:
        binding = client_key_binding(sealed.organisation_id, sealed.receiver_id)
        client_key = sealer.unseal(sealed.client_key_sealed, binding)
    previous = None
    if sealed.previous_secret_sealed is not None:
        binding = previous_secret_binding(sealed.organisation_id, sealed.receiver_id)
        former = sealer.unseal(sealed.previous_secret_sealed, binding).decode()
        previous = (secret_bytes(former), sealed.previous_until_s)
    return Endpoint(
        receiver_id=sealed.receiver_id,
        uri=sealed.uri,
        content_type=sealed.content_type,
        headers=headers,
        secrets=(secret_bytes(secret.decode()),),
        signatures=sealed.signatures,
        timeout_s=sealed.timeout_s,
        concurrency=sealed.concurrency,
        expected_response_code=sealed.expected_response_code,
        identity=Identity(sealed.ca_certificates, sealed.client_certificate, client_key),
        previous_secret=previous,
        signing_keys=sealed.signing_keys if "V1A" in sealed.signatures else (),
    )
