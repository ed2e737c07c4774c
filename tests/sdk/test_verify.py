from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion_receive import VerificationError, VerifiedEvent, Webhook

VECTORS = json.loads(
    Path(__file__).parents[2].joinpath("sdk/vectors/standard-webhooks.json").read_text(encoding="utf-8")
)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_795_478_699


class Headers(dict[str, str]):
    """Headers that may hold a name twice, as a web framework's multi-dictionary does."""

    def __init__(self, pairs: list[list[str]]) -> None:
        super().__init__((name, value) for name, value in pairs)
        self.pairs = [(name, value) for name, value in pairs]

    def items(self) -> Any:
        return self.pairs


def _sign(body: bytes, message_id: str = "evt_1_2", timestamp: int = NOW) -> dict[str, str]:
    key = base64.b64decode(SECRET[6:])
    digest = hmac.new(key, b"%b.%d.%b" % (message_id.encode(), timestamp, body), hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_the_shared_vectors_hold(case: dict[str, Any]) -> None:
    body = base64.b64decode(case["body_base64"]) if "body_base64" in case else case["body"].encode()
    webhook = Webhook(case["secrets"], VECTORS["tolerance_s"])
    headers = Headers(case["headers"])
    if case["valid"]:
        assert webhook.verify(body, headers, now=case["now"]).body == body
    else:
        with pytest.raises(VerificationError):
            webhook.verify(body, headers, now=case["now"])


def test_a_verified_event_has_the_fields_of_the_body() -> None:
    body = (
        b'{"event_id": 123456, "subscription_id": 7, "resource": "runs", "action": "update", "object_id": "42",'
        b' "change_id": 48211, "sequence": 311, "occurred_at": "2026-11-24T01:02:03.456789Z",'
        b' "recorded_at": "2026-11-24T01:02:03.469012Z", "actor": {"id": "17", "name": "operator 17"},'
        b' "correlation_id": "c", "changed": ["status"], "data": {"id": 42, "status": "in_progress"},'
        b' "previous": {"status": "todo"}}'
    )
    event = Webhook(SECRET).verify(body, _sign(body), now=NOW)
    assert event == VerifiedEvent(
        id="evt_1_2",
        timestamp=datetime.fromtimestamp(NOW, UTC),
        body=body,
        payload=json.loads(body),
        event_id=123456,
        subscription_id=7,
        resource="runs",
        action="update",
        object_id="42",
        change_id=48211,
        sequence=311,
        occurred_at="2026-11-24T01:02:03.456789Z",
        recorded_at="2026-11-24T01:02:03.469012Z",
        actor={"id": "17", "name": "operator 17"},
        correlation_id="c",
        changed=("status",),
        data={"id": 42, "status": "in_progress"},
        previous={"status": "todo"},
        data_omitted=False,
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[1]", b'"text"', b"{", b"[" * 100_000, b"1" * 10_000, b"\xff", b'{"event_id": "x", "data": 1}',
     b'{"event_id": true, "changed": {"a": 1}, "actor": null}', b'{"changed": [1, "a"]}'],
)  # fmt: skip
def test_a_signed_body_of_any_other_shape_is_still_an_event(body: bytes) -> None:
    event = Webhook(SECRET).verify(body, _sign(body), now=NOW)
    assert (event.event_id, event.resource, event.data) == (None, "", {})
    assert event.body == body


def test_the_system_clock_is_used_where_no_time_is_given() -> None:
    webhook = Webhook(SECRET)
    webhook.verify(b"{}", _sign(b"{}", timestamp=int(time.time())))
    with pytest.raises(VerificationError, match="too old"):
        webhook.verify(b"{}", _sign(b"{}", timestamp=int(time.time()) - 302))
    with pytest.raises(VerificationError, match="future"):
        webhook.verify(b"{}", _sign(b"{}", timestamp=int(time.time()) + 302))


_ANY_TEXT = st.text(max_size=40)
_NAMES = st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature", "Webhook-Id", "x"])
_VALUES = st.one_of(
    _ANY_TEXT,
    st.binary(max_size=40).map(lambda data: data.decode("latin-1")),
    st.binary(max_size=40).map(lambda data: data.decode("utf-8", "surrogateescape")),
    st.text("v1a,=+/ AZaz09\t\n", max_size=60),
    st.sampled_from([str(NOW), "evt_1_2", "v1", "v1,a,b", "  v1,", "v1," + "A" * 43 + "=", "9" * 5000, "1e9"]),
)


@settings(max_examples=1000)
@given(st.binary(max_size=60), st.lists(st.tuples(_NAMES, _VALUES), max_size=6))
def test_any_bytes_are_valid_or_a_verification_error_and_nothing_else(
    body: bytes, pairs: list[tuple[str, str]]
) -> None:
    headers = Headers([list(pair) for pair in pairs])
    with pytest.raises(VerificationError):
        Webhook(SECRET).verify(body, headers, now=NOW)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.data())
def test_a_good_request_with_one_header_changed_is_refused(body: bytes, name: str, data: st.DataObject) -> None:
    headers = _sign(body)
    Webhook(SECRET).verify(body, headers, now=NOW)
    value = data.draw(_VALUES.filter(lambda value: value != headers[name]))
    with pytest.raises(VerificationError):
        Webhook(SECRET).verify(body, {**headers, name: value}, now=NOW)


@pytest.mark.parametrize("value", [None, 1, b"evt_1_2", ["evt_1_2"]])
def test_header_values_that_are_no_text_are_a_verification_error(value: Any) -> None:
    with pytest.raises(VerificationError):
        Webhook(SECRET).verify(b"{}", {**_sign(b"{}"), "webhook-id": value}, now=NOW)


@pytest.mark.parametrize("secret", ["", [], "whsec_", "whsec_!", ["", SECRET], "whsec_ümlaut"])
def test_a_malformed_secret_is_refused_when_the_verifier_is_made(secret: Any) -> None:
    with pytest.raises(ValueError):
        Webhook(secret)


def test_secrets_are_not_shown() -> None:
    assert "MfKQ" not in repr(Webhook(SECRET))
