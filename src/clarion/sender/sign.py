"""Signatures of requests, after Standard Webhooks 1.0.0, and ION's own header."""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256

from clarion.core.clock import Random

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix of secrets, not one of them
_NEW_SECRET_BYTES = 32
_DECODED_BYTES_MIN, _DECODED_BYTES_MAX = 24, 64
_TEXT_LENGTH_MIN, _TEXT_LENGTH_MAX = 16, 128
_BLOCK_BYTES = 64
"""Of SHA-256."""


class Key:
    """A secret made ready for HMAC-SHA256 (RFC 2104): both padded keys are hashed once, not for every message."""

    def __init__(self, secret: bytes) -> None:
        key = (secret if len(secret) <= _BLOCK_BYTES else sha256(secret).digest()).ljust(_BLOCK_BYTES, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = sha256(bytes(byte ^ 0x5C for byte in key))

    def __repr__(self) -> str:
        return "Key(hidden)"

    def v1(self, identity: bytes, stamp: bytes, body: bytes) -> bytes:
        """As the function `v1`; `identity` is the message's id, `stamp` the decimal timestamp."""
        digest = self._digest(b"%b.%b." % (identity, stamp), body)
        return b"v1," + binascii.b2a_base64(digest, newline=False)

    def ion(self, body: bytes) -> str:
        """As the function `ion`."""
        return self._digest(b"", body).hex()

    def _digest(self, head: bytes, body: bytes) -> bytes:
        inner = self._inner.copy()
        inner.update(head)
        inner.update(body)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


def v1(secret: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The signature `v1,<base64>` of one request: HMAC-SHA256 over id, timestamp and body joined by full stops.

    `timestamp_s` is the attempt's time in Unix seconds; `message_id` holds no full stop.
    """
    return Key(secret).v1(message_id.encode(), b"%d" % timestamp_s, body).decode()


def ion(secret: bytes, body: bytes) -> str:
    """The value of `x-ion-signature`: HMAC-SHA256 of the raw body in lower-case hexadecimal."""
    return Key(secret).ion(body)


def new_secret(random: Random) -> str:
    """A fresh shared secret: `whsec_` and 32 random bytes in base64."""
    return SECRET_PREFIX + base64.b64encode(random.token(_NEW_SECRET_BYTES)).decode()


def secret_bytes(text: str) -> bytes:
    """The key that `text` stands for: decoded base64 after `whsec_`, any other text as its UTF-8 bytes.

    Raises ValueError for what `secret_refusal` refuses to decode.
    """
    if not text.startswith(SECRET_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text[len(SECRET_PREFIX) :], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the text after whsec_ is not base64") from None


def secret_refusal(text: str) -> str | None:
    """Why `text` cannot be a receiver's shared secret; None if it can."""
    if not text.isascii() or not text.isprintable():
        return "a secret consists of printable ASCII characters"
    if text.startswith(("whpk_", "whsk_")):
        return "a secret does not begin with whpk_ or whsk_: those are Ed25519 keys"
    if not text.startswith(SECRET_PREFIX):
        if not _TEXT_LENGTH_MIN <= len(text) <= _TEXT_LENGTH_MAX:
            return f"a secret has {_TEXT_LENGTH_MIN} to {_TEXT_LENGTH_MAX} characters"
        return None
    try:
        decoded = secret_bytes(text)
    except ValueError as error:
        return str(error)
    if not _DECODED_BYTES_MIN <= len(decoded) <= _DECODED_BYTES_MAX:
        return f"a whsec_ secret stands for {_DECODED_BYTES_MIN} to {_DECODED_BYTES_MAX} bytes, not {len(decoded)}"
    return None
