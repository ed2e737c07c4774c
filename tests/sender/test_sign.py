from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from clarion.core.system import SystemRandom
from clarion.sender import sign
from clarion_receive import Webhook

VECTORS = json.loads(
    Path(__file__).parents[2].joinpath("sdk/vectors/standard-webhooks.json").read_text(encoding="utf-8")
)["cases"]


def _body(case: dict[str, Any]) -> bytes:
    return base64.b64decode(case["body_base64"]) if "body_base64" in case else case["body"].encode()


@pytest.mark.parametrize("case", [case for case in VECTORS if case["valid"]], ids=lambda case: case["name"])
def test_our_signature_is_among_those_of_each_valid_vector(case: dict[str, Any]) -> None:
    headers = {name.lower(): value for name, value in case["headers"]}
    ours = {
        sign.v1(sign.secret_bytes(secret), headers["webhook-id"], int(headers["webhook-timestamp"]), _body(case))
        for secret in case["secrets"]
    }
    assert ours & set(headers["webhook-signature"].split(" "))


def test_the_official_vector_is_reproduced() -> None:
    key = sign.secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signature = sign.v1(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(body=st.text().map(str.encode))
def test_the_reference_library_and_our_verifier_accept_what_we_sign(body: bytes) -> None:
    secret = sign.new_secret(SystemRandom())
    now = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "evt_1_2",
        "webhook-timestamp": str(now),
        "webhook-signature": sign.v1(sign.secret_bytes(secret), "evt_1_2", now, body),
    }
    body_is_json = True
    try:
        json.loads(body)
    except ValueError:
        body_is_json = False
    if body_is_json:
        standardwebhooks.Webhook(secret).verify(body, headers)
    assert Webhook(secret).verify(body, headers).body == body


def test_our_verifier_accepts_what_the_reference_library_signs() -> None:
    secret = sign.new_secret(SystemRandom())
    now = datetime.now(UTC)
    signature = standardwebhooks.Webhook(secret).sign("msg_1", now, '{"a": 1}')
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    assert Webhook(secret).verify(b'{"a": 1}', headers).payload == {"a": 1}


def test_the_ion_signature_is_the_hexadecimal_hmac_of_the_body() -> None:
    # GitHub publishes this example of the same construction.
    key = sign.secret_bytes("It's a Secret to Everybody")
    assert sign.ion(key, b"Hello, World!") == "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert sign.ion(b"k", b"b") == hmac.new(b"k", b"b", hashlib.sha256).hexdigest()


def test_a_new_secret_stands_for_32_bytes_and_is_never_the_same() -> None:
    secrets = {sign.new_secret(SystemRandom()) for _ in range(100)}
    assert len(secrets) == 100
    assert all(len(sign.secret_bytes(secret)) == 32 and sign.secret_refusal(secret) is None for secret in secrets)


@pytest.mark.parametrize(
    ("secret", "refused"),
    [
        ("whsec_" + base64.b64encode(bytes(24)).decode(), False),
        ("whsec_" + base64.b64encode(bytes(64)).decode(), False),
        ("whsec_" + base64.b64encode(bytes(23)).decode(), True),
        ("whsec_" + base64.b64encode(bytes(65)).decode(), True),
        ("whsec_not base64", True),
        ("whsec_", True),
        ("a secret of our own", False),
        ("too short", True),
        ("x" * 129, True),
        ("Schlüssel mit Umlaut", True),
        ("line\nend in the middle", True),
        ("", True),
    ],
)
def test_secrets_that_are_weak_or_malformed_are_refused(secret: str, refused: bool) -> None:
    assert (sign.secret_refusal(secret) is not None) == refused
