"""Certificates that integrators hand over: authorities to trust for a receiver, and what we show to it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

PEM_LENGTH_MAX = 65_536
CERTIFICATES_MAX = 20
RSA_BITS_MIN = 2048
EXPIRES_SOON = timedelta(days=30)

_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


class CertificateRefused(ValueError):
    """What is wrong with a text in PEM, in one short sentence that does not repeat it."""


class KeyRefused(CertificateRefused):
    """The same of a private key."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What may be said of a client certificate: distinguished names after RFC 4514, the end in UTC, SHA-256 in hexadecimal."""

    subject: str
    issuer: str
    not_after: datetime
    fingerprint_sha256: str
    pem: str


def check_authorities(pem: str, now: datetime) -> datetime:
    """The first moment at which one of these authorities (PEM, 1 to 20) ends. Raises CertificateRefused.

    Each must be allowed to sign certificates, be valid now and have a key that is strong enough.
    """
    certificates = _certificates(pem)
    for number, certificate in enumerate(certificates, 1):
        which = f"certificate {number}" if len(certificates) > 1 else "the certificate"
        _check_one(certificate, which, now)
        if not _may_sign(certificate):
            raise CertificateRefused(f"{which} is no authority: basicConstraints does not say CA")
    return min(certificate.not_valid_after_utc for certificate in certificates)


def check_client_certificate(pem: str, key_pem: str, now: datetime) -> datetime:
    """When the client certificate `pem` (leaf first, then its chain) ends. Raises CertificateRefused.

    `key_pem` is its private key, not encrypted. No text of an error holds any of it.
    """
    certificates = _certificates(pem)
    for number, certificate in enumerate(certificates, 1):
        _check_one(certificate, f"certificate {number}" if len(certificates) > 1 else "the certificate", now)
    if _private_key_of(key_pem) != _public_bytes(certificates[0].public_key()):
        raise KeyRefused("the private key is not that of the first certificate")
    return min(certificate.not_valid_after_utc for certificate in certificates)


def describe(pem: str) -> ClientCertificate:
    """What may be said of the first certificate in `pem`. Raises CertificateRefused."""
    leaf = _certificates(pem)[0]
    return ClientCertificate(
        leaf.subject.rfc4514_string(),
        leaf.issuer.rfc4514_string(),
        leaf.not_valid_after_utc,
        leaf.fingerprint(hashes.SHA256()).hex(),
        pem,
    )


def _certificates(pem: str) -> list[x509.Certificate]:
    if len(pem) > PEM_LENGTH_MAX:
        raise CertificateRefused(f"must have at most {PEM_LENGTH_MAX} characters")
    if "PRIVATE KEY" in pem:
        raise CertificateRefused("must have certificates only: a private key belongs into clientPrivateKey")
    try:
        found = x509.load_pem_x509_certificates(pem.encode("ascii"))
    except (ValueError, UnsupportedAlgorithm, UnicodeEncodeError):
        raise CertificateRefused("is not in PEM: -----BEGIN CERTIFICATE----- and base64") from None
    if len(found) > CERTIFICATES_MAX:
        raise CertificateRefused(f"must have at most {CERTIFICATES_MAX} certificates")
    return found


def _check_one(certificate: x509.Certificate, which: str, now: datetime) -> None:
    if certificate.not_valid_before_utc > now:
        raise CertificateRefused(f"{which} begins on {certificate.not_valid_before_utc:%Y-%m-%d}")
    if certificate.not_valid_after_utc <= now:
        raise CertificateRefused(f"{which} ended on {certificate.not_valid_after_utc:%Y-%m-%d}")
    try:
        key = certificate.public_key()
        algorithm = certificate.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateRefused(f"{which} has a key or signature of an unknown kind") from None
    # What an authority says of itself is trusted because it was handed over, not because of its signature.
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1) and certificate.issuer != certificate.subject:
        raise CertificateRefused(f"{which} is signed with {algorithm.name.upper()}, which is too weak")
    weakness = _weakness(key)
    if weakness is not None:
        raise CertificateRefused(f"{which} has {weakness}")


def _weakness(key: object) -> str | None:
    if isinstance(key, rsa.RSAPublicKey):
        return f"an RSA key of {key.key_size} bits: at least {RSA_BITS_MIN}" if key.key_size < RSA_BITS_MIN else None
    if isinstance(key, ec.EllipticCurvePublicKey):
        return None if isinstance(key.curve, _CURVES) else "a key on another curve than P-256, P-384 and P-521"
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return None
    return "a key of another kind than RSA, EC and EdDSA"


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _private_key_of(pem: str) -> bytes:
    """The public half of a private key in PEM."""
    try:
        key = serialization.load_pem_private_key(pem.encode("ascii"), password=None)
    except TypeError:
        raise KeyRefused("the private key is encrypted: hand it over without a password") from None
    except (ValueError, UnsupportedAlgorithm, UnicodeEncodeError):
        raise KeyRefused("the private key is not in PEM (PKCS#8, PKCS#1 or SEC1)") from None
    weakness = _weakness(key.public_key())
    if weakness is not None:
        raise KeyRefused(f"the private key has {weakness}")
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _public_bytes(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
