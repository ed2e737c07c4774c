from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.sender.signing_key import SigningKey, jwk, public_key, whpk
from clarion_receive import VerificationError, Webhook, public_keys
from clarion_receive._ed25519 import PublicKey

VECTORS = json.loads(
    Path(__file__).parents[2].joinpath("sdk/vectors/standard-webhooks-v1a.json").read_text(encoding="utf-8")
)
PAIR = base64.b64decode(VECTORS["key_pair_base64"])
SEED, PUBLIC = PAIR[:32], PAIR[32:]
NOW = 1_795_478_699


def _signed(body: bytes, seed: bytes = SEED) -> dict[str, str]:
    key = SigningKey(seed, public_key(seed), 0, 1e18)
    return {
        "webhook-id": "evt_1_2",
        "webhook-timestamp": str(NOW),
        "webhook-signature": key.v1a(b"evt_1_2", b"%d" % NOW, body).decode(),
    }


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_the_shared_vectors_hold(case: dict[str, Any]) -> None:
    webhook = Webhook(case["secrets"], VECTORS["tolerance_s"])
    body = case["body"].encode()
    if case["valid"]:
        assert webhook.verify(body, dict(case["headers"]), now=case["now"]).body == body
    else:
        with pytest.raises(VerificationError):
            webhook.verify(body, dict(case["headers"]), now=case["now"])


def test_our_signature_is_that_of_the_vector() -> None:
    case = VECTORS["cases"][0]
    headers = dict(case["headers"])
    identity, stamp = headers["webhook-id"].encode(), headers["webhook-timestamp"].encode()
    assert SigningKey(SEED, PUBLIC, 0, 1).v1a(identity, stamp, case["body"].encode()).decode() == (
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
    )


@settings(max_examples=60)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=80), st.integers(0, 511))
def test_our_verifier_and_openssl_agree(seed: bytes, message: bytes, bit: int) -> None:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    public = private.public_key().public_bytes_raw()
    signature = private.sign(message)
    assert PublicKey(public).verifies(signature, message)
    assert not PublicKey(public).verifies(signature, message + b"x")
    changed = bytearray(signature)
    changed[bit // 8] ^= 1 << bit % 8
    assert not PublicKey(public).verifies(bytes(changed), message)
    with pytest.raises(InvalidSignature):
        Ed25519PublicKey.from_public_bytes(public).verify(bytes(changed), message)


_VALUES = st.one_of(
    st.text(max_size=40),
    st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape")),
    st.text("v1a,=+/ AZaz09\t\n", max_size=60),
    st.binary(min_size=64, max_size=64).map(lambda data: "v1a," + base64.b64encode(data).decode()),
    st.sampled_from([str(NOW), "evt_1_2", "v1a", "v1a,a,b", "  v1a,", "v1a," + "A" * 86 + "==", "9" * 5000]),
)


@settings(max_examples=300)
@given(st.binary(max_size=60), st.fixed_dictionaries({}, optional=dict.fromkeys(_signed(b""), _VALUES)))
def test_any_bytes_in_any_header_are_valid_or_a_verification_error(body: bytes, changed: dict[str, str]) -> None:
    good = _signed(body)
    webhook = Webhook(whpk(PUBLIC))
    if {**good, **changed} == good:
        assert webhook.verify(body, good, now=NOW).body == body
        return
    with pytest.raises(VerificationError):
        webhook.verify(body, {**good, **changed}, now=NOW)


def test_a_jwk_set_gives_the_keys() -> None:
    document = {"keys": [{"kty": "RSA", "n": "x"}, dict(jwk(PUBLIC)), "no key"]}
    assert public_keys(document) == public_keys(json.dumps(document)) == [whpk(PUBLIC)]
    Webhook(public_keys(json.dumps(document).encode())).verify(b"{}", _signed(b"{}"), now=NOW)


def test_the_thumbprint_is_that_of_rfc_8037() -> None:
    # Appendix A.3.
    public = base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    assert jwk(public)["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize(
    "document",
    ["", b"\xff", "[" * 100_000, "[]", "null", {}, {"keys": {}}, {"keys": []}, {"keys": [{"kty": "OKP", "crv": "Ed25519"}]},
     {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "A" * 42}]}, {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "_" * 43}]}],
    ids=repr,
)  # fmt: skip
def test_what_is_no_jwk_set_is_a_value_error(document: Any) -> None:
    with pytest.raises(ValueError):
        public_keys(document)


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        bytes(31),
        bytes(32),
        (1).to_bytes(32, "little"),
        b"\xff" * 32,
        (2**255 - 20).to_bytes(32, "little"),
        (2).to_bytes(32, "little"),
    ],
)
def test_bytes_that_are_no_key_or_one_that_anybody_signs_for_are_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError):
        Webhook(whpk(encoded))


def test_a_private_key_of_another_public_key_does_not_sign() -> None:
    with pytest.raises(ValueError, match="another public key"):
        SigningKey(bytes(32), PUBLIC, 0, 1)
    assert SEED.hex() not in repr(SigningKey(SEED, PUBLIC, 0, 1))
