"""The deployment's Ed25519 keys: v1a signatures after Standard Webhooks 1.0.0, and how their public halves are published."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_KEY_PREFIX = "whpk_"
SEED_BYTES = 32


class SigningKey:
    """One key, with the Unix seconds from which and before which it signs (infinity: for as long as it is the latest)."""

    __slots__ = ("_private", "from_s", "public", "until_s")

    def __init__(self, seed: bytes, public: bytes, from_s: float, until_s: float) -> None:
        """`seed` are the 32 bytes of the private key (RFC 8032). Raises ValueError if it is not the one of `public`."""
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        if self._private.public_key().public_bytes_raw() != public:
            raise ValueError("the private key belongs to another public key")
        self.public = public
        self.from_s = from_s
        self.until_s = until_s

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()}, private hidden)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SigningKey):
            return NotImplemented
        return (self.public, self.from_s, self.until_s) == (other.public, other.from_s, other.until_s)

    def __hash__(self) -> int:
        return hash(self.public)

    def v1a(self, identity: bytes, stamp: bytes, body: bytes) -> bytes:
        """The signature `v1a,<base64>` over id, decimal timestamp and body joined by full stops."""
        signature = self._private.sign(b"%b.%b.%b" % (identity, stamp, body))
        return b"v1a," + binascii.b2a_base64(signature, newline=False)


def public_key(seed: bytes) -> bytes:
    """The 32 bytes of the public half."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def whpk(public: bytes) -> str:
    """A public key as Standard Webhooks writes it."""
    return PUBLIC_KEY_PREFIX + base64.b64encode(public).decode()


def jwk(public: bytes) -> Mapping[str, str]:
    """A public key as a JWK (RFC 8037); `kid` is its RFC 7638 thumbprint, `whpk` Standard Webhooks' form of the same."""
    x = _base64url(public)
    # RFC 7638 section 3.2: the required members in the order of their names, without blanks.
    canonical = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":"))
    kid = _base64url(sha256(canonical.encode()).digest())
    return {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x, "whpk": whpk(public)}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
