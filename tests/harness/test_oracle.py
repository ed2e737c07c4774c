"""The oracle itself: it must be able to fail."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Sequence

from harness.oracle import Verdict, judge, percentile
from harness.receiver import Received

SECRETS = {1: "whsec_" + base64.b64encode(b"a" * 32).decode(), 2: "whsec_" + base64.b64encode(b"b" * 32).decode()}
RECEIVER_OF = {10: 1, 20: 2}


def _request(number: int, version: int, *, receiver: int = 1, item: str = "7", key: int | None = None) -> Received:
    body = json.dumps(
        {
            "event_id": number,
            "subscription_id": receiver * 10,
            "resource": "items",
            "action": "update",
            "object_id": item,
            "change_id": number,
            "sequence": number,
            "occurred_at": "2026-01-01T00:00:00.000000Z",
            "recorded_at": "2026-01-01T00:00:00.000000Z",
            "actor": None,
            "correlation_id": None,
            "changed": [],
            "data": {"version": version},
            "previous": {},
        }
    ).encode()
    at = int(time.time())
    secret = base64.b64decode(SECRETS[key or receiver].removeprefix("whsec_"))
    signed = hmac.digest(secret, f"evt_{number}.{at}.".encode() + body, hashlib.sha256)
    headers = {
        "webhook-id": f"evt_{number}",
        "webhook-timestamp": str(at),
        "webhook-signature": "v1," + base64.b64encode(signed).decode(),
    }
    return Received(float(at), "/ok", headers, body)


def _judged(log: Sequence[Received], last: int = 2) -> Verdict:
    return judge({1: {"7": last}, 2: {}}, RECEIVER_OF, SECRETS, log)


def test_all_there_and_in_order_is_flawless() -> None:
    assert _judged([_request(1, 1), _request(2, 2)]) == Verdict(2, 0, 0, 0, 0, 0, 0)


def test_what_never_came_is_lost() -> None:
    assert _judged([_request(1, 1)]).lost == 1


def test_what_nobody_committed_is_unexpected() -> None:
    assert _judged([_request(1, 1), _request(2, 2), _request(3, 3)]).unexpected == 1
    assert _judged([_request(1, 1), _request(2, 2), _request(3, 1, receiver=2)]).unexpected == 1


def test_an_earlier_change_after_a_later_one_is_an_inversion() -> None:
    assert _judged([_request(2, 2), _request(1, 1)]).inversions == 1


def test_the_same_id_again_is_a_duplicate_and_other_bytes_are_told() -> None:
    first, second = _request(1, 1), _request(2, 2)
    assert _judged([first, second, _request(1, 1)]).duplicates == 1
    altered = _judged([first, second, _request(1, 2)])
    assert (altered.duplicates, altered.altered) == (1, 1)


def test_another_receivers_secret_does_not_verify() -> None:
    verdict = _judged([_request(1, 1, key=2), _request(2, 2)])
    assert (verdict.unverified, verdict.lost) == (1, 1)


def test_a_percentile_is_a_value_that_was_there() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile(map(float, range(100)), 0.99) == 99.0
