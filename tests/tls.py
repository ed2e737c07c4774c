"""Certificate authorities and certificates for tests, made on the spot."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = timedelta(days=1)
_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in a directory; `ca_file` is its certificate (PEM), what clients are to trust."""

    directory: Path
    ca_file: Path
    _certificate: x509.Certificate
    _key: ec.EllipticCurvePrivateKey

    @property
    def subject(self) -> x509.Name:
        return self._certificate.subject

    @property
    def signing_key(self) -> ec.EllipticCurvePrivateKey:
        return self._key

    def intermediate(self) -> Authority:
        """An authority below this one."""
        return make_authority(self.directory, self)

    def issue(
        self,
        names: Sequence[str] = (),
        addresses: Sequence[str] = (),
        *,
        common_name: str = "receiver",
        expired: bool = False,
        not_yet_valid: bool = False,
        self_signed: bool = False,
        client: bool = False,
        rsa_bits: int | None = None,
    ) -> tuple[Path, Path]:
        """Paths of a new certificate (PEM) for DNS names and addresses, and of its key.

        `expired` ended yesterday, `not_yet_valid` begins tomorrow, `self_signed` is not from this authority.
        `client` is for clients; `rsa_bits` asks for an RSA key instead of one on P-256.
        """
        now = datetime.now(UTC)
        begin, end = now - _DAY, now + 30 * _DAY
        if expired:
            begin, end = now - 30 * _DAY, now - _DAY
        if not_yet_valid:
            begin, end = now + _DAY, now + 30 * _DAY
        key: _PrivateKey = ec.generate_private_key(ec.SECP256R1())
        if rsa_bits is not None:
            key = rsa.generate_private_key(65537, rsa_bits)
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        subject = _name(common_name)
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ip_address(address)) for address in addresses]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if self_signed else self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key((key if self_signed else self._key).public_key()),
                critical=False,
            )
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(key if self_signed else self._key, hashes.SHA256())
        label = secrets.token_hex(4)
        certificate_path = self.directory / f"{common_name}-{label}.pem"
        key_path = self.directory / f"{common_name}-{label}.key"
        _write(certificate_path, certificate)
        key_path.write_bytes(_key_bytes(key))
        return certificate_path, key_path


def make_authority(directory: Path, above: Authority | None = None) -> Authority:
    """A new authority whose files lie in `directory` (which must exist); `above` signs it, or it signs itself."""
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    label = secrets.token_hex(4)
    name = _name(f"Clarion test authority {label}")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if above is None else above.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 60 * _DAY)
        .not_valid_after(now + 60 * _DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key if above is None else above.signing_key, hashes.SHA256())
    )
    ca_file = directory / f"authority-{label}.pem"
    _write(ca_file, certificate)
    return Authority(directory, ca_file, certificate, key)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _write(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _key_bytes(key: _PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
