"""Every way in which one attempt can end, against a real TLS receiver in another process."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import uvloop

from clarion.core.errors import EnvironmentRefused
from clarion.core.system import SystemClock
from clarion.sender.outcome import Attempt, Outcome
from clarion.sender.policy import Policy
from clarion.sender.send import Sender
from clarion_receive import Webhook
from sender.posting import LOOPBACK, SECRET, Post, Receivers

OK = b"HTTP/1.1 200 OK\r\n"


def _raw(data: bytes, *, close: bool = False) -> str:
    return "/raw?bytes=" + quote(base64.urlsafe_b64encode(data).decode()) + ("&close=1" if close else "")


def _seen(attempt: Attempt) -> Any:
    return json.loads(attempt.response_body)


async def test_an_answer_of_200_succeeds_and_the_attempt_tells_all(post: Post, receivers: Receivers) -> None:
    before = datetime.now(UTC)
    attempt = await post(receivers.uri("/echo"))
    assert (attempt.outcome, attempt.status_code, attempt.error) == (Outcome.SUCCEEDED, 200, None)
    assert before <= attempt.started_at <= datetime.now(UTC)
    assert 0 <= attempt.duration_ms < 5000
    assert (attempt.source_address, attempt.peer_address) == ("127.0.0.1", "127.0.0.1")
    assert attempt.response_headers == (("content-length", str(len(attempt.response_body))),)
    assert attempt.retry_after_s is None
    assert not attempt.ours


async def test_the_request_verifies_and_has_the_registered_headers(post: Post, receivers: Receivers) -> None:
    body = '{"title": "Schweißnaht"}'.encode()
    attempt = await post(
        receivers.uri("/echo?a=b"), body, (("clarion-retry", "1"),), headers=(("X-Key", "v"),), signatures=("V1", "ION")
    )
    seen = _seen(attempt)
    line, *rest = seen["head"].split("\r\n")
    headers = dict(entry.split(": ", 1) for entry in rest)
    assert line == "POST /echo?a=b HTTP/1.1"
    assert headers["X-Key"] == "v"
    assert headers["clarion-retry"] == "1"
    assert headers["accept-encoding"] == "identity"
    assert len(headers["x-ion-signature"]) == 64
    event = Webhook(SECRET.decode()).verify(base64.b64decode(seen["body"]), headers)
    assert event.body == body


@pytest.mark.parametrize(
    ("status", "expected", "outcome"),
    [
        (204, None, Outcome.SUCCEEDED),
        (299, None, Outcome.SUCCEEDED),
        (200, 202, Outcome.UNEXPECTED_STATUS),
        (202, 202, Outcome.SUCCEEDED),
        (418, 418, Outcome.SUCCEEDED),
        (500, None, Outcome.UNEXPECTED_STATUS),
        (410, None, Outcome.UNEXPECTED_STATUS),
    ],
)
async def test_the_status_decides(
    post: Post, receivers: Receivers, status: int, expected: int | None, outcome: Outcome
) -> None:
    attempt = await post(receivers.uri(f"/status?code={status}"), expected_response_code=expected)
    assert (attempt.outcome, attempt.status_code) == (outcome, status)
    assert (attempt.error is None) == (outcome is Outcome.SUCCEEDED)


async def test_what_may_not_be_sent_any_more_when_it_is_written_never_leaves(post: Post, receivers: Receivers) -> None:
    before = int((await post(receivers.uri("/visits?path=/status"))).response_body)
    asked = iter((False, True))
    post.sender.send_while(lambda: next(asked))
    attempt = await post(receivers.uri("/status?code=200"))
    assert (attempt.outcome, attempt.status_code, attempt.ours) == (Outcome.OVERLOADED, None, True)
    assert int((await post(receivers.uri("/visits?path=/status"))).response_body) == before


async def test_a_process_that_was_frozen_between_two_requests_of_a_turn_sends_no_more_of_them(
    post: Post, receivers: Receivers
) -> None:
    two = (21, 22)
    for receiver_id in two:
        await post(receivers.uri("/status?code=200"), receiver_id=receiver_id)
    asked = iter((True, False))
    post.sender.send_while(lambda: next(asked))
    # Their connections are open: both are written in one turn of the event loop.
    begun = [post.begin(receivers.uri("/status?code=200"), receiver_id=receiver_id) for receiver_id in two]
    attempts = await asyncio.gather(*begun)
    assert [attempt.outcome for attempt in attempts] == [Outcome.SUCCEEDED, Outcome.OVERLOADED]


@pytest.mark.parametrize("path", ["/twice", "/twice?reset=1"])
async def test_a_second_answer_is_not_the_next_ones(post: Post, receivers: Receivers, path: str) -> None:
    """Whether the next request waits already, or comes as soon as the first one is answered."""
    for receiver_id in range(10, 15):
        first = post.begin(receivers.uri(path), receiver_id=receiver_id, concurrency=1)
        waiting = post.begin(receivers.uri("/echo"), b"waiting", receiver_id=receiver_id, concurrency=1)
        assert path != "/twice" or (await first).response_body == b"first"
        await first
        later = await post(receivers.uri("/echo"), b"later", receiver_id=receiver_id, concurrency=1)
        for attempt, body in ((await waiting, b"waiting"), (later, b"later")):
            assert base64.b64decode(json.loads(attempt.response_body)["body"]) == body


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_answers_and_nobody_goes_there(post: Post, receivers: Receivers, status: int) -> None:
    before = (await post(receivers.uri("/visits?path=/followed"))).response_body
    location = quote(receivers.uri("/followed"))
    attempt = await post(receivers.uri(f"/status?code={status}&location={location}"))
    assert (attempt.outcome, attempt.status_code) == (Outcome.UNEXPECTED_STATUS, status)
    assert "redirects are not followed" in (attempt.error or "")
    assert (await post(receivers.uri("/visits?path=/followed"))).response_body == before


@pytest.mark.parametrize(
    ("status", "value", "seconds"), [(429, "7", 7), (503, "99999999", 86400), (503, "soon", None), (500, "7", None)]
)
async def test_retry_after_is_read_on_429_and_503_only(
    post: Post, receivers: Receivers, status: int, value: str, seconds: int | None
) -> None:
    attempt = await post(receivers.uri(f"/status?code={status}&retry-after={value}"))
    assert (attempt.outcome, attempt.retry_after_s) == (Outcome.UNEXPECTED_STATUS, seconds)


async def test_what_takes_too_long_ends_at_the_deadline(post: Post, receivers: Receivers) -> None:
    """The deadline is one for the whole attempt: drops of data do not move it."""
    cases = {
        receivers.uri("/hang"): (None, "no answer within 1 s"),
        receivers.uri("/dribble"): (None, "the answer was not complete within 1 s"),
        receivers.uri("/dribble-body"): (200, "the answer was not complete within 1 s"),
        receivers.uri("/never-reads"): (None, "no answer within 1 s"),
        receivers.uri("/", "silent"): (None, "no connection within 1 s"),
    }
    attempts = await asyncio.gather(
        *(post.begin(uri, b"x" * 4_000_000, receiver_id=number, timeout_s=1) for number, uri in enumerate(cases, 1))
    )
    for attempt, (status, error) in zip(attempts, cases.values(), strict=True):
        assert (attempt.outcome, attempt.status_code, attempt.error) == (Outcome.TIMED_OUT, status, error)
        assert 1000 <= attempt.duration_ms <= 1150
        assert not attempt.ours


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/close", None, "the receiver closed the connection before it answered"),
        ("/reset", None, "the receiver reset the connection before it answered"),
        ("/close-in-the-middle", 200, "the receiver closed the connection in the middle of its answer"),
    ],
)
async def test_a_receiver_that_closes_is_named(
    post: Post, receivers: Receivers, path: str, status: int | None, error: str
) -> None:
    attempt = await post(receivers.uri(path))
    assert (attempt.outcome, attempt.status_code, attempt.error) == (Outcome.CONNECTION_CLOSED, status, error)


async def test_a_receiver_that_closes_during_the_handshake_is_named(post: Post, receivers: Receivers) -> None:
    attempt = await post(receivers.uri("/", "closing"))
    assert attempt.outcome is Outcome.CONNECTION_CLOSED
    assert "during the TLS handshake" in (attempt.error or "")
    assert attempt.peer_address == "127.0.0.1"


@pytest.mark.parametrize(
    ("listener", "error"),
    [
        ("wrong name", "address mismatch: the certificate is for another address"),
        ("common name only", "address mismatch: the certificate is for another address"),
        ("expired", "certificate has expired"),
        ("not yet valid", "certificate is not yet valid"),
        ("self-signed", "self-signed certificate"),
        ("unknown authority", "unknown certificate authority, or an intermediate certificate is missing"),
    ],
)
async def test_certificates_that_prove_nothing_are_refused_by_name(
    post: Post, receivers: Receivers, listener: str, error: str
) -> None:
    attempt = await post(receivers.uri("/echo", listener))
    assert (attempt.outcome, attempt.error, attempt.status_code) == (Outcome.TLS_FAILED, error, None)


@pytest.mark.parametrize("listener", ["old TLS", "plain"])
async def test_what_is_not_tls_1_2_or_newer_is_refused(post: Post, receivers: Receivers, listener: str) -> None:
    attempt = await post(receivers.uri("/echo", listener))
    assert attempt.outcome is Outcome.TLS_FAILED
    assert "the TLS handshake failed" in (attempt.error or "")


async def test_the_certificate_is_checked_for_the_name_that_was_registered(post: Post, receivers: Receivers) -> None:
    good = await post(receivers.uri("/echo", "localhost", "localhost"))
    assert (good.outcome, good.peer_address) == (Outcome.SUCCEEDED, receivers.localhost_address)
    host = receivers.localhost_address
    bad = await post(receivers.uri("/echo", "localhost", f"[{host}]" if ":" in host else host))
    assert (bad.outcome, bad.error) == (
        Outcome.TLS_FAILED,
        "address mismatch: the certificate is for another address",
    )
    wrong = await post(receivers.uri("/echo", "wrong name", "localhost"))
    assert wrong.outcome in {Outcome.TLS_FAILED, Outcome.CONNECT_FAILED}


async def test_nobody_listening_is_a_refused_connection(post: Post) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    attempt = await post(f"https://127.0.0.1:{port}/")
    assert (attempt.outcome, attempt.error) == (Outcome.CONNECT_FAILED, "the connection was refused")
    assert attempt.peer_address == "127.0.0.1"


async def test_a_name_that_does_not_resolve_is_a_dns_failure(post: Post) -> None:
    attempt = await post("https://does-not-exist.example/")
    assert attempt.outcome is Outcome.DNS_FAILED
    assert attempt.peer_address is None


@pytest.mark.parametrize(
    "uri",
    [
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/",
        "https://2130706433/",
        "https://127.1/",
        "http://127.0.0.1/",
        "https://user@127.0.0.1/",
        "https://8.8.8.8:22/",
        "file:///etc/passwd",
        "https://hooks.example\r\nx: y/",
        "",
    ],
)
async def test_what_policy_forbids_is_blocked_with_one_text_even_if_planted(post: Post, uri: str) -> None:
    attempt = await post(uri)
    assert (attempt.outcome, attempt.error) == (Outcome.BLOCKED, "the destination is not allowed")
    assert (attempt.peer_address, attempt.source_address, attempt.status_code) == (None, None, None)


async def test_a_name_that_resolves_to_a_forbidden_address_is_blocked(receivers: Receivers) -> None:
    """`localhost` passes the syntax as some network is allowed, its answer is not in it."""
    allowed = [ip_network("127.0.0.2/32"), ip_network("10.0.0.0/8")]
    sender = Sender(SystemClock(), policy=Policy(tuple(allowed)), ca_file=receivers.ca_file)
    try:
        attempt = await Post(sender)(receivers.uri("/echo", "localhost", "localhost"))
    finally:
        await sender.close()
    assert (attempt.outcome, attempt.error) == (Outcome.BLOCKED, "the destination is not allowed")


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": (("host", "other.example"),)},
        {"headers": (("x", "y\r\nz: 1"),)},
        {"content_type": "a/b\r\nx: y"},
        {"secrets": ()},
    ],
)
async def test_a_planted_header_that_would_split_the_request_is_blocked(
    post: Post, receivers: Receivers, changes: dict[str, Any]
) -> None:
    attempt = await post(receivers.uri("/echo"), **changes)
    assert (attempt.outcome, attempt.error) == (Outcome.BLOCKED, "the destination is not allowed")
    assert (await post(receivers.uri("/echo"))).outcome is Outcome.SUCCEEDED


async def test_connections_are_kept_and_reused(post: Post, receivers: Receivers) -> None:
    numbers = {_seen(await post(receivers.uri("/echo")))["connection"] for _ in range(10)}
    assert len(numbers) == 1


async def test_changes_of_an_endpoint_take_effect_and_keep_the_connection_if_the_target_stays(
    post: Post, receivers: Receivers
) -> None:
    first = _seen(await post(receivers.uri("/echo")))
    second = _seen(await post(receivers.uri("/echo?other=1"), headers=(("X-New", "1"),)))
    assert second["connection"] == first["connection"]
    assert "X-New: 1" in second["head"]
    moved = _seen(await post(receivers.uri("/echo", "localhost", "localhost")))
    assert moved["connection"] != first["connection"]
    back = _seen(await post(receivers.uri("/echo")))
    assert back["connection"] not in {first["connection"], moved["connection"]}


async def test_receivers_never_share_a_connection(post: Post, receivers: Receivers) -> None:
    numbers = [_seen(await post(receivers.uri("/echo"), receiver_id=number))["connection"] for number in range(1, 5)]
    assert len(set(numbers)) == 4


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_callers_wait_for_a_free_connection_instead_of_opening_more(
    post: Post, receivers: Receivers, concurrency: int
) -> None:
    attempts = await asyncio.gather(
        *(post.begin(receivers.uri("/slow"), concurrency=concurrency) for _ in range(2 * concurrency))
    )
    assert {attempt.outcome for attempt in attempts} == {Outcome.SUCCEEDED}
    assert len({_seen(attempt)["connection"] for attempt in attempts}) == concurrency
    assert max(attempt.duration_ms for attempt in attempts) >= 400


async def test_an_attempt_that_never_got_a_connection_is_our_overload(post: Post, receivers: Receivers) -> None:
    hanging = post.begin(receivers.uri("/hang"), concurrency=1, timeout_s=2)
    waiting = post.begin(receivers.uri("/hang"), concurrency=1, timeout_s=1)
    attempt = await waiting
    assert (attempt.outcome, attempt.ours) == (Outcome.OVERLOADED, True)
    assert attempt.error == "waiting for a free connection took 1.0 of the attempt's 1 s"
    assert (await hanging).outcome is Outcome.TIMED_OUT


async def test_a_kept_connection_that_was_closed_under_us_is_replaced_once_and_at_once(
    post: Post, receivers: Receivers
) -> None:
    first = await post(receivers.uri("/once"))
    second = await post(receivers.uri("/once"))
    assert (first.outcome, second.outcome) == (Outcome.SUCCEEDED, Outcome.SUCCEEDED)
    assert _seen(second)["connection"] != _seen(first)["connection"]


async def test_the_replacement_is_not_replaced_again(post: Post, receivers: Receivers) -> None:
    assert (await post(receivers.uri("/once-for-each-visitor"))).outcome is Outcome.SUCCEEDED
    attempt = await post(receivers.uri("/once-for-each-visitor"))
    assert attempt.outcome is Outcome.CONNECTION_CLOSED
    visits = (await post(receivers.uri("/visits?path=/once-for-each-visitor"))).response_body
    assert visits == b"3"


async def test_many_kept_connections_closed_together_lose_no_request(post: Post, receivers: Receivers) -> None:
    for _ in range(3):
        attempts = await asyncio.gather(*(post.begin(receivers.uri("/once")) for _ in range(4)))
        assert {attempt.outcome for attempt in attempts} == {Outcome.SUCCEEDED}


async def test_connection_close_is_obeyed(post: Post, receivers: Receivers) -> None:
    numbers = {_seen(await post(receivers.uri("/last")))["connection"] for _ in range(3)}
    assert len(numbers) == 3


@pytest.mark.parametrize(
    ("answer", "body", "reused"),
    [
        (OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: v\r\n\r\n", b"abcde", True),
        (OK + b"content-length: 3\r\n\r\nabc", b"abc", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 103 Early\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", b"abc", False),
        # desync: bytes after the answer
        (OK + b"content-length: 3\r\n\r\nabcHTTP/1.1 500 Evil\r\ncontent-length: 0\r\n\r\n", b"abc", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcgarbage", b"abc", False),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabcgarbage", b"abc", False),
        (b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n", b"", False),
        # compression is not undone
        (OK + b"content-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00", b"\x1f\x8b\x08\x00", True),
    ],
)  # fmt: skip
async def test_well_formed_answers_count_and_only_clean_connections_are_reused(
    post: Post, receivers: Receivers, answer: bytes, body: bytes, reused: bool
) -> None:
    first = _seen(await post(receivers.uri("/echo")))
    attempt = await post(receivers.uri(_raw(answer)))
    assert (attempt.outcome, attempt.response_body) == (Outcome.SUCCEEDED, body)
    assert attempt.status_code in {200, 204}
    after = _seen(await post(receivers.uri("/echo")))
    assert (after["connection"] == first["connection"]) == reused


async def test_a_body_without_length_ends_with_the_connection(post: Post, receivers: Receivers) -> None:
    attempt = await post(receivers.uri(_raw(b"HTTP/1.1 200 OK\r\n\r\nall of it", close=True)))
    assert (attempt.outcome, attempt.response_body) == (Outcome.SUCCEEDED, b"all of it")


@pytest.mark.parametrize(
    "answer",
    [
        b"220 mail.example ESMTP\r\n",
        b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nbad header: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\x00b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: \x1b[31m\r\n\r\n",
        b"\x00\x01\x02\x03\r\n\r\n",
    ],
)
async def test_answers_that_are_not_http_1_1_are_protocol_errors(
    post: Post, receivers: Receivers, answer: bytes
) -> None:
    attempt = await post(receivers.uri(_raw(answer)))
    assert attempt.outcome is Outcome.PROTOCOL_ERROR
    assert attempt.error
    assert attempt.duration_ms < 1000
    assert (await post(receivers.uri("/echo"))).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("path", "outcome", "error"),
    [
        ("/endless-body", Outcome.SUCCEEDED, None),
        ("/endless-trailer", Outcome.SUCCEEDED, None),
        ("/endless-header", Outcome.PROTOCOL_ERROR, "the answer's headers are larger than 64 KiB"),
        ("/many-headers", Outcome.PROTOCOL_ERROR, "the answer has more than 200 headers"),
        ("/interim?count=16", Outcome.SUCCEEDED, None),
        ("/interim?count=17", Outcome.PROTOCOL_ERROR, "more than 16 interim answers"),
        ("/interim?count=100000", Outcome.PROTOCOL_ERROR, "more than 16 interim answers"),
    ],
)
async def test_answers_without_end_are_cut(
    post: Post, receivers: Receivers, path: str, outcome: Outcome, error: str | None
) -> None:
    await post(receivers.uri("/echo"))
    cpu_s = time.process_time()
    attempt = await post(receivers.uri(path))
    assert (attempt.outcome, attempt.error) == (outcome, error)
    assert len(attempt.response_body) <= 4096
    assert attempt.duration_ms < 1000
    assert time.process_time() - cpu_s < 0.2


async def test_what_an_answer_carries_is_kept_as_it_was(post: Post, receivers: Receivers) -> None:
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: \xff=<b>\r\ncontent-length: 3\r\n\r\n\xff\x00<"
    attempt = await post(receivers.uri(_raw(answer)))
    assert attempt.response_headers == (("Set-Cookie", "ÿ=<b>"), ("content-length", "3"))
    assert attempt.response_body == b"\xff\x00<"


async def test_the_environment_has_no_say(
    receivers: Receivers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Proxies, certificate files and key logs of the environment are not read."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    monkeypatch.setenv("SSL_CERT_FILE", str(receivers.ca_file))
    trusting = Sender(SystemClock(), policy=Policy(LOOPBACK), ca_file=receivers.ca_file)
    strict = Sender(SystemClock(), policy=Policy(LOOPBACK), ca_file=None)
    try:
        assert (await Post(trusting)(receivers.uri("/echo"))).outcome is Outcome.SUCCEEDED
        assert (await Post(strict)(receivers.uri("/echo"))).outcome is Outcome.TLS_FAILED
    finally:
        await trusting.close()
        await strict.close()
    assert not (tmp_path / "keys").exists()


async def test_a_missing_authority_file_is_the_operators_error(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(EnvironmentRefused, match=name):
            Sender(SystemClock(), policy=Policy(), ca_file=tmp_path / name)


def _open_sockets() -> set[str]:
    """The sockets of this process, where the system lists them."""
    found = set()
    for descriptor in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):
            found.add(str(descriptor.readlink()))
    return {name for name in found if name.startswith("socket:")}


async def test_closing_ends_what_is_under_way_as_ours_and_leaves_nothing_open(receivers: Receivers) -> None:
    before = _open_sockets()
    sender = Sender(SystemClock(), policy=Policy(LOOPBACK), ca_file=receivers.ca_file)
    post = Post(sender)
    await post(receivers.uri("/echo"))
    hanging = [post.begin(receivers.uri(path), concurrency=1) for path in ("/hang", "/hang")]
    opening = post.begin(receivers.uri("/", "silent"), receiver_id=2)
    await post(receivers.uri("/echo"), receiver_id=3)
    await sender.close()
    for future in (*hanging, opening):
        attempt = future.result()
        assert (attempt.outcome, attempt.ours) == (Outcome.OVERLOADED, True)
    late = await post(receivers.uri("/echo"))
    assert (late.outcome, late.error, late.ours) == (Outcome.OVERLOADED, "this process is shutting down", True)
    assert _open_sockets() <= before


async def test_done_may_send_again_and_what_it_raises_harms_nobody(post: Post, receivers: Receivers) -> None:
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    endpoint = replace(post.endpoint, uri=receivers.uri("/echo"), concurrency=1)
    finished: asyncio.Future[list[int]] = loop.create_future()
    connections: list[int] = []

    def again(count: int) -> Callable[[Attempt], None]:
        def done(attempt: Attempt) -> None:
            connections.append(_seen(attempt)["connection"])
            if count == 0:
                finished.set_result(connections)
                raise RuntimeError("from done")
            post.sender.send(endpoint, "evt_1_1", SystemClock().now(), b"", (), again(count - 1))

        return done

    post.sender.send(endpoint, "evt_1_1", SystemClock().now(), b"", (), again(20))
    assert len(set(await finished)) == 1
    assert (await post(receivers.uri("/echo"), concurrency=1)).outcome is Outcome.SUCCEEDED
    assert [str(error) for error in reported] == ["from done"]


class StillClock(SystemClock):
    """A clock whose monotonic reading can jump, as after a process was stopped."""

    jump_ns = 0

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + self.jump_ns


async def test_a_deadline_that_passed_while_this_process_stood_still_is_not_held_against_the_receiver(
    receivers: Receivers,
) -> None:
    clock = StillClock()
    sender = Sender(clock, policy=Policy(LOOPBACK), ca_file=receivers.ca_file)
    try:
        hanging = Post(sender).begin(receivers.uri("/hang"), timeout_s=5)
        clock.jump_ns = 60_000_000_000
        attempt = await hanging
    finally:
        await sender.close()
    assert (attempt.outcome, attempt.ours) == (Outcome.OVERLOADED, True)
    assert attempt.error == "this process stood still during the attempt"


async def test_idle_connections_close_after_two_minutes_and_old_ones_after_ten(receivers: Receivers) -> None:
    clock = StillClock()
    sender = Sender(clock, policy=Policy(LOOPBACK), ca_file=receivers.ca_file)
    post = Post(sender)
    try:
        first = _seen(await post(receivers.uri("/echo")))["connection"]
        clock.jump_ns += 100_000_000_000
        assert _seen(await post(receivers.uri("/echo")))["connection"] == first
        clock.jump_ns += 121_000_000_000
        for _ in range(100):
            if "receivers=0" in repr(sender):
                break
            await asyncio.sleep(0.05)
        second = _seen(await post(receivers.uri("/echo")))["connection"]
        assert second != first
        for _ in range(6):
            clock.jump_ns += 101_000_000_000
            assert _seen(await post(receivers.uri("/echo")))["connection"] == second
        assert _seen(await post(receivers.uri("/echo")))["connection"] != second
    finally:
        await sender.close()


def test_the_sender_runs_on_the_loop_it_was_made_in(receivers: Receivers) -> None:
    async def once() -> Outcome:
        sender = Sender(SystemClock(), policy=Policy(LOOPBACK), ca_file=receivers.ca_file)
        try:
            return (await Post(sender)(receivers.uri("/echo"))).outcome
        finally:
            await sender.close()

    assert asyncio.run(once()) is Outcome.SUCCEEDED
    assert uvloop.run(once()) is Outcome.SUCCEEDED
