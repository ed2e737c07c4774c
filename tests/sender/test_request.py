from __future__ import annotations

from math import inf

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clarion import __version__
from clarion.sender import sign
from clarion.sender.address import parse_webhook_uri
from clarion.sender.request import (
    RequestUnsendable,
    content_type_refusal,
    header_refusal,
    headers_refusal,
    request_template,
)
from clarion.sender.signing_key import SigningKey, public_key


def _words(text: str) -> list[str]:
    return text.split()


TARGET = parse_webhook_uri("https://hooks.example:8443/a?b=c")


def _received(data: bytes) -> tuple[h11.Request, list[tuple[bytes, bytes]], bytes]:
    """What a strict server makes of the bytes of one request, and nothing may be left over."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    request = server.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert server.trailing_data[0] == b""
    return request, list(request.headers), body


def test_a_request_carries_exactly_these_headers() -> None:
    template = request_template(
        TARGET, "application/json", (("X-Api-Key", "k e y"),), (b"new" * 8, b"old" * 8), ("V1", "ION")
    )
    data = template.build("evt_3_77", 1614265330, b'{"a": 1}', (("clarion-retry", "2"),))
    request, headers, body = _received(data)
    assert (request.method, request.target, body) == (b"POST", b"/a?b=c", b'{"a": 1}')
    signatures = " ".join(sign.v1(key, "evt_3_77", 1614265330, body) for key in (b"new" * 8, b"old" * 8))
    assert dict(headers) == {
        b"host": b"hooks.example:8443",
        b"user-agent": f"Clarion/{__version__}".encode(),
        b"accept": b"*/*",
        b"accept-encoding": b"identity",
        b"content-type": b"application/json",
        b"x-api-key": b"k e y",
        b"webhook-id": b"evt_3_77",
        b"webhook-timestamp": b"1614265330",
        b"webhook-signature": signatures.encode(),
        b"x-ion-signature": sign.ion(b"new" * 8, body).encode(),
        b"clarion-retry": b"2",
        b"content-length": b"8",
    }
    assert len(headers) == 12


@example("x", "a\r\nwebhook-id: b")
@example("x\r\ny", "a")
@example("x", "a\x00")
@example("x ", "a")
@example("x:", "a")
@example("", "")
@given(st.text(max_size=20), st.text(max_size=20))
def test_a_header_that_is_not_refused_arrives_as_it_was_given(name: str, value: str) -> None:
    if header_refusal(name, value) is not None:
        return
    template = request_template(TARGET, "application/json", ((name, value),), (b"k" * 24,), ("V1",))
    _, headers, _ = _received(template.build("evt_1_1", 1, b"", ()))
    assert len(headers) == 10
    assert (name.lower().encode(), value.encode()) in headers


@pytest.mark.parametrize(
    "value",
    ["a\rb", "a\nb", "a\r\n b", "a\x00b", "a\x7fb", "ä", "a\tb", " a", "a ", "\u2028", "a" * 8193],
)
def test_values_that_could_split_a_request_are_refused(value: str) -> None:
    assert header_refusal("x-key", value) is not None


@pytest.mark.parametrize("name", ["", " ", "a b", "a:", ":authority", "a\r\nb", "ä", "(a)", "a" * 257, "x\t"])
def test_names_that_are_no_tokens_are_refused(name: str) -> None:
    assert header_refusal(name, "value") is not None


@pytest.mark.parametrize(
    "name",
    _words(
        """
        Host content-length Content-Type transfer-encoding CONNECTION keep-alive te trailer upgrade expect
        content-encoding cookie Proxy-Authorization proxy-connection forwarded X-Forwarded-For webhook-id
        Webhook-Signature webhook-anything signature signature-input traceparent clarion-retry user-agent
        accept-encoding x-ion-signature
        """
    ),
)
def test_reserved_names_are_refused_in_any_case(name: str) -> None:
    assert "reserved" in (header_refusal(name, "value") or "")


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "x-tenant", "Accept-Language", "api_key", "X-Hub.1"])
def test_ordinary_headers_are_accepted(name: str) -> None:
    assert header_refusal(name, "Bearer abc/def==") is None


def test_headers_are_limited_in_number_size_and_repetition() -> None:
    assert headers_refusal([(f"x-{number}", "v") for number in range(32)]) is None
    assert headers_refusal([(f"x-{number}", "v") for number in range(33)]) is not None
    assert headers_refusal([("x-a", "v" * 4090), ("x-b", "v" * 4090)]) is None
    assert headers_refusal([("x-a", "v" * 4096), ("x-b", "v" * 4096)]) is not None
    assert "twice" in (headers_refusal([("x-a", "1"), ("X-A", "2")]) or "")


@pytest.mark.parametrize(
    ("content_type", "refused"),
    [
        ("application/json", False),
        ("application/vnd.example+json; charset=utf-8", False),
        ('text/plain;charset="utf-8"', False),
        ("application/json\r\nx: y", True),
        ("application", True),
        ("", True),
        ("application/json; ", True),
        ("a/" + "b" * 300, True),
    ],
)
def test_content_types_have_type_and_subtype(content_type: str, refused: bool) -> None:
    assert (content_type_refusal(content_type) is not None) == refused


def test_what_was_planted_past_the_api_is_not_sent_either() -> None:
    good = ("application/json", (), (b"k",), ("V1",))
    request_template(TARGET, *good)
    for content_type, headers, secrets, signatures in (
        ("a/b\r\nx: y", (), (b"k",), ("V1",)),
        ("a/b", (("host", "other.example"),), (b"k",), ("V1",)),
        ("a/b", (("x", "y\r\nz"),), (b"k",), ("V1",)),
        ("a/b", (), (), ("V1",)),
        ("a/b", (), (b"",), ("V1",)),
    ):
        with pytest.raises(RequestUnsendable):
            request_template(TARGET, content_type, headers, secrets, signatures)
    template = request_template(TARGET, *good)
    for message_id, extra in (
        ("a.b", ()),
        ("a\r\nb", ()),
        ("", ()),
        ("a", (("x y", "z"),)),
        ("a", (("x", "y\r\nz"),)),
    ):
        with pytest.raises(RequestUnsendable):
            template.build(message_id, 1, b"", extra)


def _signatures(data: bytes) -> list[str]:
    _, headers, _ = _received(data)
    return dict(headers)[b"webhook-signature"].decode().split(" ")


def test_each_key_signs_in_its_time_and_the_current_secret_comes_first() -> None:
    seeds = (bytes([1]) * 32, bytes([2]) * 32)
    new, old = (
        SigningKey(seed, public_key(seed), from_s, until_s)
        for seed, from_s, until_s in zip(seeds, (100, 0), (inf, 120), strict=True)
    )
    secret, former = b"new" * 8, b"old" * 8

    def at(timestamp_s: int, *signatures: str) -> list[str]:
        template = request_template(TARGET, "text/plain", (), (secret,), signatures, (former, 110), (new, old))
        return _signatures(template.build("evt_1_2", timestamp_s, b"{}", ()))

    def v1(key: bytes, timestamp_s: int) -> str:
        return sign.v1(key, "evt_1_2", timestamp_s, b"{}")

    def v1a(key: SigningKey, timestamp_s: int) -> str:
        return key.v1a(b"evt_1_2", b"%d" % timestamp_s, b"{}").decode()

    for timestamp_s in (109, 110):
        both = [v1(secret, timestamp_s)] + [v1(former, timestamp_s)] * (timestamp_s < 110)
        assert at(timestamp_s, "V1") == at(timestamp_s, "V1", "ION") == at(timestamp_s, "ION") == both
        assert at(timestamp_s, "V1", "V1A") == [*both, v1a(new, timestamp_s), v1a(old, timestamp_s)]
    assert at(99, "V1A") == [v1a(old, 99)]
    assert at(100, "V1A") == at(100, "V1A", "ION") == [v1a(new, 100), v1a(old, 100)]
    assert at(120, "V1A") == [v1a(new, 120)]


def test_no_request_leaves_unsigned() -> None:
    seed = bytes(32)
    later = SigningKey(seed, public_key(seed), 100, inf)
    with pytest.raises(RequestUnsendable, match="no signing key"):
        request_template(TARGET, "text/plain", (), (b"k" * 24,), ("V1A",))
    template = request_template(TARGET, "text/plain", (), (b"k" * 24,), ("V1A",), None, (later,))
    with pytest.raises(RequestUnsendable, match="no key that signs"):
        template.build("evt_1_2", 99, b"{}", ())
