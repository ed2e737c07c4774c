"""A search that finds nothing proves nothing: it has to find what is there."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from harness.secret_search import forms, search

SECRETS = {
    "signing": "whsec_" + base64.b64encode(bytes(range(200, 232))).decode(),
    "header": 'Bearer "canary"/+ header value',
}


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("before", [b"", b"x", b"xy", b"xyz"])
@pytest.mark.parametrize("after", [b"", b"z", b"zz"])
def test_a_secret_is_found_in_every_form_and_alignment(name: str, before: bytes, after: bytes) -> None:
    secret = SECRETS[name]
    around = before + secret.encode() + after
    for content in (
        around,
        around.hex().encode(),
        base64.b64encode(around),
        base64.urlsafe_b64encode(around),
        quote(around, safe="").encode(),
    ):
        assert {hit.secret for hit in search([("there", b"..." + content + b"...")], SECRETS)} == {name}


def test_the_bytes_of_a_signing_secret_are_found_by_themselves() -> None:
    raw = bytes(range(200, 232))
    for content in (raw, raw.hex().encode(), base64.b64encode(b"ab" + raw + b"c")):
        assert search([("there", content)], SECRETS)


def test_nothing_is_found_where_nothing_is() -> None:
    assert search([("there", b"a signing secret, a header value, whsec_, Bearer")], SECRETS) == []
    assert all(len(form) >= 12 for secret in SECRETS.values() for form in forms(secret).values())
