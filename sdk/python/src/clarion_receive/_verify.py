"""Signatures after Standard Webhooks 1.0.0, scheme v1 (HMAC-SHA256)."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from clarion_receive._event import VerifiedEvent, event_of

_PREFIX = "whsec_"
_ID_HEADER = "webhook-id"
_TIMESTAMP_HEADER = "webhook-timestamp"
_SIGNATURE_HEADER = "webhook-signature"
_HEADER_LENGTH_MAX = 4096
_SIGNATURES_MAX = 32

# No full stop: it separates the signed parts, so that an id with one could be read in two ways.
_ID = re.compile(r"[!-\-/-~]{1,256}")
_TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,10}")


class VerificationError(Exception):
    """The request must not be believed: answer it with 400 or 401. The message says why."""


class Webhook:
    """Verifies the requests of one receiver."""

    def __init__(self, secret: str | Sequence[str], tolerance_s: int = 300) -> None:
        """`secret` is the receiver's shared secret, or several (any may have signed) while it is being rotated.

        What follows `whsec_` is base64; a secret without that prefix is used as its UTF-8 bytes. Requests older
        or newer than `tolerance_s` seconds are refused. Raises ValueError for no, empty or malformed secrets.
        """
        secrets = [secret] if isinstance(secret, str) else list(secret)
        if not secrets:
            raise ValueError("at least one secret is needed")
        self._keys = [_key(text) for text in secrets]
        self._tolerance_s = tolerance_s

    def __repr__(self) -> str:
        return f"Webhook(secrets hidden, tolerance_s={self._tolerance_s})"

    def verify(self, body: bytes, headers: Mapping[str, str], now: float | None = None) -> VerifiedEvent:
        """The event, if one of the secrets signed these very bytes within the tolerance.

        `body` is the raw request body, before any parsing. `headers` may have names in any case; a webhook
        header given twice is refused. `now` is Unix seconds, by default the system's clock.
        Raises VerificationError, and nothing else whatever the bytes.
        """
        message_id = _header(headers, _ID_HEADER)
        timestamp_text = _header(headers, _TIMESTAMP_HEADER)
        signatures = _header(headers, _SIGNATURE_HEADER)
        if _ID.fullmatch(message_id) is None:
            raise VerificationError("the header webhook-id is malformed")
        if _TIMESTAMP.fullmatch(timestamp_text) is None:
            raise VerificationError("the header webhook-timestamp is not a number of seconds")
        timestamp_s = int(timestamp_text)
        content = b"%b.%b.%b" % (message_id.encode("ascii"), timestamp_text.encode("ascii"), body)
        if not self._is_signed(content, signatures):
            raise VerificationError("no signature matches")
        age_s = (time.time() if now is None else now) - timestamp_s
        if not -self._tolerance_s <= age_s <= self._tolerance_s:
            raise VerificationError("the request is too old" if age_s > 0 else "the request is from the future")
        return event_of(message_id, datetime.fromtimestamp(timestamp_s, UTC), bytes(body))

    def _is_signed(self, content: bytes, signatures: str) -> bool:
        """Whether any given signature is any key's; takes the same time wherever they begin to differ."""
        expected = [
            b"v1," + binascii.b2a_base64(hmac.digest(key, content, "sha256"), newline=False) for key in self._keys
        ]
        given = signatures.split(" ")
        if len(given) > _SIGNATURES_MAX:
            return False
        matches = 0
        for signature in given:
            # Compared as text, so that no other spelling of the same bytes passes.
            candidate = signature.encode("utf-8", "replace")
            for wanted in expected:
                matches += hmac.compare_digest(candidate, wanted)
        return matches > 0


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        key = secret.encode()
    else:
        try:
            key = base64.b64decode(secret[len(_PREFIX) :], validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("the text after whsec_ is not base64") from None
    if not key:
        raise ValueError("a secret must not be empty")
    return key


def _header(headers: Mapping[Any, Any], name: str) -> str:
    """The only value of a header. Raises VerificationError if it is missing, doubled or no text."""
    found = [value for given, value in headers.items() if isinstance(given, str) and given.lower() == name]
    if not found:
        raise VerificationError(f"the header {name} is missing")
    if len(found) > 1:
        raise VerificationError(f"the header {name} is given more than once")
    value = found[0]
    if not isinstance(value, str) or len(value) > _HEADER_LENGTH_MAX:
        raise VerificationError(f"the header {name} is malformed")
    return value
