"""Signatures after Standard Webhooks 1.0.0: schemes v1 (HMAC-SHA256) and v1a (Ed25519)."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from clarion_receive._ed25519 import PublicKey
from clarion_receive._event import VerifiedEvent, event_of

_PREFIX = "whsec_"
_PUBLIC_PREFIX = "whpk_"
_ID_HEADER = "webhook-id"
_TIMESTAMP_HEADER = "webhook-timestamp"
_SIGNATURE_HEADER = "webhook-signature"
_HEADER_LENGTH_MAX = 4096
_SIGNATURES_MAX = 32
_V1A_SIGNATURES_MAX = 4
"""More than the two of a rotation; each costs milliseconds."""

# No full stop: it separates the signed parts, so that an id with one could be read in two ways.
_ID = re.compile(r"[!-\-/-~]{1,256}")
_V1A = re.compile(r"v1a,[A-Za-z0-9+/]{86}==")
_BASE64URL_KEY = re.compile(r"[A-Za-z0-9_-]{43}")
_TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,10}")


class VerificationError(Exception):
    """The request must not be believed: answer it with 400 or 401. The message says why."""


class Webhook:
    """Verifies the requests of one receiver."""

    def __init__(self, secret: str | Sequence[str], tolerance_s: int = 300) -> None:
        """`secret` is the receiver's shared secret, or several (any may have signed) while it is being rotated.

        A text that begins with `whpk_` is a public key: it verifies v1a signatures (`public_keys` reads them from a JWK
        set). What follows `whsec_` is base64; a secret without that prefix is used as its UTF-8 bytes. Requests older
        or newer than `tolerance_s` seconds are refused. Raises ValueError for no, empty or malformed secrets.
        """
        secrets = [secret] if isinstance(secret, str) else list(secret)
        if not secrets:
            raise ValueError("at least one secret is needed")
        self._keys = [_key(text) for text in secrets if not text.startswith(_PUBLIC_PREFIX)]
        self._public_keys = [_public_key(text) for text in secrets if text.startswith(_PUBLIC_PREFIX)]
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
        return matches > 0 or self._is_signed_by_public_key(content, given)

    def _is_signed_by_public_key(self, content: bytes, given: Sequence[str]) -> bool:
        if not self._public_keys:
            return False
        candidates = [found for text in given if (found := _v1a(text)) is not None]
        if len(candidates) > _V1A_SIGNATURES_MAX:
            return False
        return any(key.verifies(signature, content) for signature in candidates for key in self._public_keys)


def public_keys(jwks: str | bytes | Mapping[str, Any]) -> list[str]:
    """The Ed25519 keys of a JWK set (RFC 7517, 8037), as `whpk_…` for `Webhook`; keys of other kinds are left out.

    `jwks` is what `/.well-known/jwks.json` answers, parsed or not. Raises ValueError for anything else, and when no key
    is there.
    """
    try:
        document = jwks if isinstance(jwks, Mapping) else json.loads(jwks)
    except (ValueError, RecursionError):
        raise ValueError("a JWK set is a JSON document") from None
    entries = document.get("keys") if isinstance(document, Mapping) else None
    found = []
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, Mapping) or (entry.get("kty"), entry.get("crv")) != ("OKP", "Ed25519"):
            continue
        x = entry.get("x")
        if not isinstance(x, str) or _BASE64URL_KEY.fullmatch(x) is None:
            raise ValueError("a key of the JWK set is malformed")
        text = _PUBLIC_PREFIX + base64.b64encode(base64.urlsafe_b64decode(x + "=")).decode()
        _public_key(text)
        found.append(text)
    if not found:
        raise ValueError("the JWK set has no Ed25519 key")
    return found


def _public_key(text: str) -> PublicKey:
    try:
        return PublicKey(base64.b64decode(text[len(_PUBLIC_PREFIX) :], validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("the text after whpk_ is not the base64 of an Ed25519 public key") from None


def _v1a(text: str) -> bytes | None:
    """The 64 bytes of a v1a signature; None for anything else, other spellings of the same bytes included."""
    if _V1A.fullmatch(text) is None:
        return None
    signature = base64.b64decode(text[4:])
    return signature if base64.b64encode(signature).decode() == text[4:] else None


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
