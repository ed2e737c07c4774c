"""The bytes of a request, and which headers an operator may add to it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

from clarion import __version__
from clarion.sender import sign
from clarion.sender.address import Target
from clarion.sender.mirror import private_values
from clarion.sender.signing_key import SigningKey

Signer = Callable[[bytes, bytes, bytes], bytes]
"""Message id, decimal timestamp and body to one signature, as `sign.Key.v1`."""

HEADERS_MAX = 32
HEADERS_BYTES_MAX = 8 * 1024
_NAME_LENGTH_MAX = 256

# Token of RFC 9110 section 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
_MESSAGE_ID = re.compile(r"[0-9A-Za-z_-]{1,128}")
_CONTENT_TYPE = re.compile(
    r"[!#$&^_.+0-9A-Za-z-]+/[!#$&^_.+0-9A-Za-z-]+"
    r"(?: ?; ?[!#$%&'*+.^_`|~0-9A-Za-z-]+=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|\"[ !#-\[\]-~]*\"))*"
)

# What frames or routes the message, what proxies trust, and what Clarion states about itself.
_RESERVED_NAMES = frozenset(
    {
        "accept-encoding",
        "baggage",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "cookie2",
        "date",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "via",
        "x-ion-signature",
        "x-real-ip",
    }
)
_RESERVED_PREFIXES = ("clarion-", "proxy-", "signature", "webhook-", "x-forwarded-")


def header_refusal(name: str, value: str) -> str | None:
    """Why a header may not be added to requests; None if it may."""
    if len(name) > _NAME_LENGTH_MAX or _TOKEN.fullmatch(name) is None:
        return "a header's name is a token: letters, digits and !#$%&'*+-.^_`|~"
    lower = name.lower()
    if lower in _RESERVED_NAMES or lower.startswith(_RESERVED_PREFIXES):
        return "this header is set by Clarion or reserved: choose another name"
    return _value_refusal(value)


def headers_refusal(headers: Sequence[tuple[str, str]]) -> str | None:
    """Why these headers together may not be added to requests; None if they may."""
    if len(headers) > HEADERS_MAX:
        return f"at most {HEADERS_MAX} headers"
    if sum(len(name) + len(value) for name, value in headers) > HEADERS_BYTES_MAX:
        return f"headers have at most {HEADERS_BYTES_MAX} bytes together"
    seen: set[str] = set()
    for name, value in headers:
        refusal = header_refusal(name, value)
        if refusal is not None:
            return refusal
        if name.lower() in seen:
            return "a header is given twice; names do not differ by case"
        seen.add(name.lower())
    return None


def content_type_refusal(value: str) -> str | None:
    """Why `value` cannot be a request's content type; None if it can."""
    if len(value) > _NAME_LENGTH_MAX or _CONTENT_TYPE.fullmatch(value) is None:
        return "a content type looks like application/json or text/plain; charset=utf-8"
    return None


def _value_refusal(value: str) -> str | None:
    if len(value) > HEADERS_BYTES_MAX:
        return f"a header's value has at most {HEADERS_BYTES_MAX} characters"
    if _VALUE.fullmatch(value) is None:
        return "a header's value holds printable ASCII characters, without spaces at its ends"
    return None


class RequestUnsendable(Exception):
    """A request that must not leave as it was asked for; the message says why, for our logs."""


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """What all requests to one receiver share; `build` adds the rest.

    `keys` sign always, each of `timed` from its first Unix second on and before its second one: whose time it is turns
    out at each attempt, so that a rotation ends on time without anybody being told.
    """

    prefix: bytes = field(repr=False)  # holds the values of registered headers
    keys: tuple[sign.Key, ...]
    timed: tuple[tuple[float, float, Signer], ...]
    ion_key: sign.Key | None
    private: tuple[str, ...] = field(default=(), repr=False)
    """What an answer may not be kept with: the registered headers' values."""

    def build(self, message_id: str, timestamp_s: int, body: bytes, extra_headers: Sequence[tuple[str, str]]) -> bytes:
        """One POST request, head and body. Raises RequestUnsendable for an id or header that could split it.

        `extra_headers` are Clarion's own (as `clarion-retry`): reserved names are fine, malformed ones are not.
        """
        if _MESSAGE_ID.fullmatch(message_id) is None:
            raise RequestUnsendable("the message id is not a short token without full stops")
        identity = message_id.encode("ascii")
        stamp = b"%d" % timestamp_s
        signatures = [key.v1(identity, stamp, body) for key in self.keys]
        if self.timed:
            signatures += [
                signer(identity, stamp, body)
                for from_s, until_s, signer in self.timed
                if from_s <= timestamp_s < until_s
            ]
            if not signatures:
                raise RequestUnsendable("there is no key that signs at this time")
        parts = [
            self.prefix,
            identity,
            b"\r\nwebhook-timestamp: ",
            stamp,
            b"\r\nwebhook-signature: ",
            b" ".join(signatures),
        ]
        if self.ion_key is not None:
            parts += (b"\r\nx-ion-signature: ", self.ion_key.ion(body).encode("ascii"))
        for name, value in extra_headers:
            if _TOKEN.fullmatch(name) is None or _value_refusal(value) is not None:
                raise RequestUnsendable("an extra header is malformed")
            parts += (b"\r\n", name.encode("ascii"), b": ", value.encode("ascii"))
        parts += (b"\r\ncontent-length: %d\r\n\r\n" % len(body), body)
        return b"".join(parts)


def request_template(
    target: Target,
    content_type: str,
    headers: Sequence[tuple[str, str]],
    secrets: tuple[bytes, ...],
    signatures: Sequence[str],
    previous_secret: tuple[bytes, int] | None = None,
    signing_keys: Sequence[SigningKey] = (),
) -> RequestTemplate:
    """The template for one receiver; `secrets` has the current one first, other arguments as in `send.Endpoint`.

    Without "V1" in `signatures` the secrets do not sign, but only if "V1A" is there: no request leaves unsigned.

    Everything is checked again, as it may have reached the database by another way than the API.
    Raises RequestUnsendable.
    """
    if not secrets or not all(secrets):
        raise RequestUnsendable("there is no secret to sign with")
    refusal = headers_refusal(headers) or content_type_refusal(content_type)
    if refusal is not None:
        raise RequestUnsendable(refusal)
    lines = [
        f"POST {target.target} HTTP/1.1",
        f"host: {target.authority}",
        f"user-agent: Clarion/{__version__}",
        "accept: */*",
        "accept-encoding: identity",
        f"content-type: {content_type}",
        *(f"{name}: {value}" for name, value in headers),
        "webhook-id: ",
    ]
    keys = tuple(sign.Key(secret) for secret in secrets)
    ion_key = keys[0] if "ION" in signatures else None
    timed: list[tuple[float, float, Signer]] = []
    if "V1A" in signatures and "V1" not in signatures:
        keys = ()
    elif previous_secret is not None:
        timed.append((-inf, previous_secret[1], sign.Key(previous_secret[0]).v1))
    if "V1A" in signatures:
        if not signing_keys:
            raise RequestUnsendable("there is no signing key")
        timed += [(key.from_s, key.until_s, key.v1a) for key in signing_keys]
    return RequestTemplate("\r\n".join(lines).encode("ascii"), keys, tuple(timed), ion_key, private_values(headers))
