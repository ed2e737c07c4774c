"""The receiver's certificate, and the authority that it comes from: both made here, trusted by the demo alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST: Final = "127.0.0.1"
_VALID_DAYS: Final = 90
_RENEWED_BEFORE_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Certificates:
    """Files in PEM: what a client is to trust, the receiver's certificate, its private key (mode 0600)."""

    authority: Path
    certificate: Path
    key: Path


def ensure_certificates(directory: Path, now: datetime) -> Certificates:
    """The certificates in `directory` (which must exist), made anew when missing, unusable or near their end.

    The authority's private key is thrown away as soon as it has signed: nobody can ever issue with it.
    Raises OSError when the directory cannot be written.
    """
    files = Certificates(directory / "authority.pem", directory / "receiver.pem", directory / "receiver.key")
    if not _usable(files, now + timedelta(days=_RENEWED_BEFORE_DAYS)):
        _make(files, now)
    return files


def _usable(files: Certificates, until: datetime) -> bool:
    """Whether the three belong together, and hold from before `until` on until after it."""
    try:
        authority = x509.load_pem_x509_certificate(files.authority.read_bytes())
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        key = serialization.load_pem_private_key(files.key.read_bytes(), None)
        certificate.verify_directly_issued_by(authority)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    begins = max(authority.not_valid_before_utc, certificate.not_valid_before_utc)
    ends = min(authority.not_valid_after_utc, certificate.not_valid_after_utc)
    return (
        begins < until - timedelta(days=_RENEWED_BEFORE_DAYS)
        and until < ends
        and (key.public_key() == certificate.public_key())
    )


def _make(files: Certificates, now: datetime) -> None:
    begin, end = now - timedelta(days=1), now + timedelta(days=_VALID_DAYS)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name, name = _name("Clarion demo authority"), _name("Clarion demo receiver")
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = (
        _begun(authority_name, authority_name, authority_key.public_key(), begin, end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_only_signs_certificates(), critical=True)
        .add_extension(identifier, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        _begun(name, authority_name, key.public_key(), begin, end)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(files.key, private)
    for path, made in ((files.certificate, certificate), (files.authority, authority)):
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM))


def write_private(path: Path, content: bytes) -> None:
    """Puts a file that only its owner may read in the place of `path`. Raises OSError."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _only_signs_certificates() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
