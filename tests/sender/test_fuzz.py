"""Whatever a receiver answers: one attempt, the right one, and nothing of it left for the next exchange."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from random import Random
from typing import cast
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.sender.http1 import ANSWER_BYTES_MAX, HEADERS_BYTES_MAX, Http1Connection, Shared
from clarion.sender.outcome import Attempt, Outcome
from sender import fuzzing
from sender.posting import Post, Receivers

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = OK + b"content-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "end", "kind", "body", "reusable"),
    [
        # An interim answer with a body: its statuses are framed differently by different parsers.
        (b"HTTP/1.1 150 X\r\ncontent-length: 4\r\n\r\nevil" + EMPTY, "open", "PROTOCOL_ERROR", b"", False),
        (b"HTTP/1.1 104 X\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + EMPTY, "open", "PROTOCOL_ERROR", b"", False),
        (b"HTTP/1.1 100 Go on\r\ncontent-length: 0\r\n\r\n" + EMPTY, "open", "answered", b"", True),
        (b"HTTP/1.1 103 X\r\nconnection: close\r\n\r\n" + EMPTY, "open", "PROTOCOL_ERROR", b"", False),
        # Chunks frame an answer only as the last coding; others end with the connection.
        (OK + b"transfer-encoding: identity\r\n\r\nall", "close", "answered", b"all", False),
        (OK + b"transfer-encoding: chunked, gzip\r\n\r\n3\r\nabc", "close", "answered", b"3\r\nabc", False),
        (OK + b"transfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "open", "answered", b"abc", False),
        (OK + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "open", "answered", b"", False),
        (OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", "close", "CONNECTION_CLOSED", b"abc", False),
        (OK + b"content-length: 4\r\n\r\nabc", "reset", "CONNECTION_CLOSED", b"abc", False),
        (OK + b"content-length: 4\r\n\r\nabc", "open", "waiting", b"abc", False),
        (OK + b"\r\nabc", "reset", "answered", b"abc", False),
        (OK + b"\r\nabc", "open", "waiting", b"abc", False),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "open", "answered", b"", False),
        # Statuses without a body, whatever their headers say
        (b"HTTP/1.1 204 X\r\ncontent-length: 4\r\n\r\nevil", "open", "answered", b"", False),
        (b"HTTP/1.1 204 X\r\ntransfer-encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", "open", "answered", b"", False),
        (b"HTTP/1.1 304 X\r\ncontent-length: 4\r\n\r\n", "open", "answered", b"", True),
        # Framing that can be read in two ways
        (OK + b"content-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "open", "PROTOCOL_ERROR", b"", False),
        (OK + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n", "open", "PROTOCOL_ERROR", b"", False),
        (OK + b"content-length: 3, 3\r\n\r\nabc", "open", "PROTOCOL_ERROR", b"", False),
        (OK + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc", "open", "PROTOCOL_ERROR", b"", False),
        (OK + b"x: a\r\n content-length: 0\r\n\r\n", "open", "PROTOCOL_ERROR", b"", False),
        (OK + b"x: a\rcontent-length: 0\r\n\r\n", "open", "PROTOCOL_ERROR", b"", False),
        (OK.replace(b"\r\n", b"\n") + b"content-length: 0\n\n", "open", "PROTOCOL_ERROR", b"", False),
        # Limits, exactly
        (OK + b"x: " + b"y" * (HEADERS_BYTES_MAX - 44) + b"\r\ncontent-length: 0\r\n\r\n", "open", "answered", b"", True),
        (OK + b"x: " + b"y" * (HEADERS_BYTES_MAX - 42) + b"\r\ncontent-length: 0\r\n\r\n", "open", "PROTOCOL_ERROR", b"", False),
        (OK + b"a: b\r\n" * 199 + b"content-length: 0\r\n\r\n", "open", "answered", b"", True),
        (OK + b"a: b\r\n" * 200 + b"content-length: 0\r\n\r\n", "open", "PROTOCOL_ERROR", b"", False),
        (OK + b"transfer-encoding: chunked\r\n\r\n0;" + b"e" * ANSWER_BYTES_MAX, "open", "answered", b"", False),
        (OK + b"transfer-encoding: chunked\r\n\r\n1;" + b"e" * ANSWER_BYTES_MAX + b"\r\nx", "open", "answered", b"", False),
        (b"\r\n" * HEADERS_BYTES_MAX, "open", "PROTOCOL_ERROR", b"", False),
        (b"HTTP/1.1 200 " + b"y" * HEADERS_BYTES_MAX, "open", "PROTOCOL_ERROR", b"", False),
        # Control characters
        (b"HTTP/1.1 200 O\x00K\r\ncontent-length: 0\r\n\r\n", "open", "PROTOCOL_ERROR", b"", False),
        (b"HTTP/1.1 200 \x1b[31m\r\ncontent-length: 0\r\n\r\n", "open", "PROTOCOL_ERROR", b"", False),
        (OK + b"x: \x7f\r\ncontent-length: 0\r\n\r\n", "open", "PROTOCOL_ERROR", b"", False),
        (OK + b"\x00: y\r\ncontent-length: 0\r\n\r\n", "open", "PROTOCOL_ERROR", b"", False),
        (b"HTTP/1.1 200 \xff\r\nx: \xff\r\ncontent-length: 0\r\n\r\n", "open", "answered", b"", True),
        # A second answer
        (EMPTY + EMPTY, "open", "answered", b"", False),
        (EMPTY + b"H", "open", "answered", b"", False),
    ],
)  # fmt: skip
def test_a_nasty_answer_has_one_verdict_however_it_is_cut(
    data: bytes, end: str, kind: str, body: bytes, reusable: bool
) -> None:
    whole = fuzzing.outcome([data], end)
    assert (whole.kind, whole.body, whole.reusable) == (kind, body, reusable)
    random = Random(len(data))
    cuts = [fuzzing.segments_of(random, data) for _ in range(10)]
    if len(data) < 1000:
        cuts.append([data[place : place + 1] for place in range(len(data))])
    for segments in cuts:
        cut = fuzzing.outcome(segments, end)
        assert (cut.kind, cut.status_code, cut.headers, cut.body) == (kind, whole.status_code, whole.headers, body)
        assert cut.reusable == reusable


def test_trailers_are_no_headers() -> None:
    """They may neither fill the memory nor delay the next attempt."""
    trailers = b"retry-after: 86400\r\n" + b"a: b\r\n" * 10_000
    seen = fuzzing.outcome([b"HTTP/1.1 503 X\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + trailers + b"\r\n"])
    assert (seen.kind, seen.headers) == ("answered", ((b"transfer-encoding", b"chunked"),))


@pytest.mark.parametrize("before", [0, 5, 100])
def test_a_second_answer_just_behind_a_full_read_buffer_is_not_the_next_ones(before: int) -> None:
    """The event loop hands over one buffer at a time: what follows may wait where the parser does not see it.

    With `before` bytes in a buffer of their own, the limit of the headers lies within the full one.
    """
    head = OK + b"x: " + b"y" * 50 + b"\r\ncontent-length: %d\r\n\r\n"
    size = before + fuzzing.READ_BUFFER_BYTES - len(head % 65_000)
    first = head % size + b"x" * size
    segments = [first[:before], first[before:] + OK + b"content-length: 4\r\n\r\nevil"]
    witness, connection = fuzzing.replay([part for part in segments if part], following=b"POST / HTTP/1.1\r\n\r\n")
    assert [seen.kind for seen in witness.verdicts] == ["answered"]
    assert not connection.usable


def test_what_comes_before_the_request_is_written_is_no_answer_to_it() -> None:
    writes: list[Callable[[], None]] = []
    shared = Shared(fuzzing.READ_BUFFER_BYTES, writes.append)
    witness, transport = fuzzing.Witness(), fuzzing.MemoryTransport()
    connection = Http1Connection(witness, shared, "127.0.0.1", "127.0.0.1")
    connection.connection_made(cast("asyncio.BaseTransport", transport))
    connection.begin(b"POST / HTTP/1.1\r\n\r\n")
    shared.read_buffer[: len(EMPTY)] = EMPTY
    connection.buffer_updated(len(EMPTY))
    writes[0]()
    assert [seen.kind for seen in witness.verdicts] == [Outcome.CONNECTION_CLOSED.name]
    assert transport.ended
    assert transport.written == b""


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_nasty_answers_get_the_verdict_that_a_second_parser_can_agree_with(seed: int) -> None:
    fuzzing.check(seed)


@settings(max_examples=200)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6), st.sampled_from(fuzzing.ENDS), st.booleans())
def test_any_bytes_end_in_one_verdict(data: bytes, cuts: list[int], end: str, status_line: bool) -> None:
    data = OK + data if status_line else data
    places = sorted(cuts)
    segments = [data[start:stop] for start, stop in zip([0, *places], [*places, len(data)], strict=True)]
    whole = fuzzing.outcome([data] if data else [], end)
    cut = fuzzing.outcome([segment for segment in segments if segment], end)
    assert (whole.kind, whole.status_code, whole.headers, whole.body) == (
        cut.kind,
        cut.status_code,
        cut.headers,
        cut.body,
    )
    assert end == "open" or whole.kind != "waiting"


# Over TLS


def _script(segments: list[bytes], end: str) -> bytes:
    return json.dumps({"segments": [base64.b64encode(part).decode() for part in segments], "end": end}).encode()


def _expected(seen: fuzzing.Verdict) -> tuple[Outcome, int | None]:
    if seen.kind == "answered":
        assert seen.status_code is not None
        success = 200 <= seen.status_code < 300
        return Outcome.SUCCEEDED if success else Outcome.UNEXPECTED_STATUS, seen.status_code
    return Outcome.TIMED_OUT if seen.kind == "waiting" else Outcome[seen.kind], seen.status_code


async def _case(post: Post, receivers: Receivers, seed: int) -> str:
    """A nasty answer and, waiting behind it for the one connection, a request whose answer holds its own mark."""
    random = Random(seed)
    end = random.choice((*fuzzing.ENDS, "close_notify"))
    if random.random() < 0.6:
        segments = [fuzzing.nasty_answer(random)]
    else:
        data, *_ = fuzzing.well_formed_answer(random)
        segments = fuzzing.segments_of(random, data)[-100:]
    mark = b"mark %d" % seed
    first = post.begin(receivers.uri("/script"), _script(segments, end), receiver_id=seed, concurrency=1, timeout_s=2)
    second = post.begin(receivers.uri("/script"), _script([OK + b"content-length: %d\r\n\r\n" % len(mark) + mark], "open"),
                        receiver_id=seed, concurrency=1, timeout_s=10)  # fmt: skip
    attempt, following = await first, await second
    seen = fuzzing.outcome([part for part in segments if part], "close" if end == "close_notify" else end)
    outcome, status_code = _expected(seen)
    # A reset may overtake what was sent before it.
    if end != "reset" or attempt.outcome is not Outcome.CONNECTION_CLOSED:
        assert (attempt.outcome, attempt.status_code, attempt.response_body) == (outcome, status_code, seen.body), seed
    assert (following.outcome, following.response_body) == (Outcome.SUCCEEDED, mark), seed
    return attempt.outcome.name


async def test_over_tls_too_each_request_gets_its_own_answer(post: Post, receivers: Receivers) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    outcomes = await asyncio.gather(*(_case(post, receivers, seed) for seed in range(1, 121)))
    assert {"SUCCEEDED", "UNEXPECTED_STATUS", "PROTOCOL_ERROR", "CONNECTION_CLOSED", "TIMED_OUT"} == set(outcomes)
    assert not reported


async def test_a_receiver_that_refuses_before_it_read_the_request_is_heard(post: Post, receivers: Receivers) -> None:
    for _ in range(5):
        attempt = await post(receivers.uri("/refuses-early"), b"x" * 256 * 1024)
        assert (attempt.outcome, attempt.status_code) == (Outcome.UNEXPECTED_STATUS, 413)


async def test_a_tls_session_that_ends_in_the_middle_of_an_answer_is_a_closed_connection(
    post: Post, receivers: Receivers
) -> None:
    script = _script([OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"], "close_notify")
    attempt = await post(receivers.uri("/script"), script)
    assert (attempt.outcome, attempt.status_code) == (Outcome.CONNECTION_CLOSED, 200)


def _dribble(start: bytes, rest: bytes) -> str:
    start_text, rest_text = (quote(base64.urlsafe_b64encode(part).decode()) for part in (start, rest))
    return f"/dribble-bytes?every=0.5&start={start_text}&rest={rest_text}"


DRIBBLES = {
    "status line": _dribble(b"HTTP/1.1 200 ", b"x"),
    "headers": _dribble(OK + b"x: ", b"y"),
    "interim answers": _dribble(b"HTTP/1.1 103 X\r\n\r\n", b"HTTP/1.1 103 X\r\n\r\n"),
    "body": _dribble(OK + b"content-length: 9999\r\n\r\n", b"x"),
    "body without length": _dribble(OK + b"\r\n", b"x"),
    "chunk size": _dribble(OK + b"transfer-encoding: chunked\r\n\r\n", b"0"),
    "chunk extension": _dribble(OK + b"transfer-encoding: chunked\r\n\r\n0;", b"e"),
    "trailer": _dribble(OK + b"transfer-encoding: chunked\r\n\r\n0\r\nx: ", b"y"),
}


async def test_500_dribbling_receivers_end_at_their_deadline_and_a_healthy_one_beside_them_is_answered(
    post: Post, receivers: Receivers
) -> None:
    paths = [*DRIBBLES.values()]
    dribbling = [
        post.begin(receivers.uri(paths[number % len(paths)]), receiver_id=number, timeout_s=5) for number in range(500)
    ]
    healthy: list[Attempt] = []
    while not any(future.done() for future in dribbling):
        healthy.append(await post(receivers.uri("/echo"), b"healthy", receiver_id=1000))
        await asyncio.sleep(0.1)
    assert {attempt.outcome for attempt in healthy} == {Outcome.SUCCEEDED}
    for attempt in await asyncio.gather(*dribbling):
        assert (attempt.outcome, attempt.error) == (Outcome.TIMED_OUT, "the answer was not complete within 5 s")
        assert 5000 <= attempt.duration_ms <= 5250
