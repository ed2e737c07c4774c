"""A receiver that sends a request back tells nobody the headers that were registered for it."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from clarion.sender.http1 import BODY_KEPT_BYTES_MAX
from clarion.sender.mirror import private_values, without_private
from sender.posting import Post, Receivers

HEADERS = (("authorization", 'Bearer to"ken-of-ours'), ("x-flag", "on"))


async def test_what_is_kept_of_an_answer_has_no_registered_value(post: Post, receivers: Receivers) -> None:
    attempt = await post(receivers.uri("/echo"), headers=HEADERS)
    kept = json.loads(attempt.response_body)
    assert "authorization: ********\r\n" in kept["head"]
    assert "x-flag: on\r\n" in kept["head"]
    attempt = await post(receivers.uri("/status?code=200&x-seen=to%22ken-of-ours"), headers=HEADERS)
    assert ("x-seen", "********") in attempt.response_headers


def test_a_value_that_the_end_of_the_kept_body_cuts_is_hidden_too() -> None:
    private = private_values((("x", "0123456789abcdef"),))
    whole = b"-" * (BODY_KEPT_BYTES_MAX - 10) + b"0123456789abcdef"
    _, body = without_private((), whole[:BODY_KEPT_BYTES_MAX], private, BODY_KEPT_BYTES_MAX)
    assert body == b"-" * (BODY_KEPT_BYTES_MAX - 10) + b"********"


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8), st.binary(), st.binary())
def test_a_value_is_hidden_wherever_it_stands(value: str, before: bytes, after: bytes) -> None:
    private = private_values((("x", value),))
    for written in (value, json.dumps(value)[1:-1]):
        if value in "********":
            continue
        _, body = without_private((), before + written.encode() + after, private, BODY_KEPT_BYTES_MAX)
        assert written.encode() not in body
