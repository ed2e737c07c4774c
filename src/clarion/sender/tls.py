"""TLS contexts: one for all receivers, and one for each that brings authorities or asks for a certificate.

What the environment says about authorities or key logs has no effect, and nothing switches verification off.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clarion.core.errors import EnvironmentRefused

# Where distributions keep their certificate authorities, when OpenSSL's own default is empty.
_AUTHORITIES_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """What is special about a receiver's TLS, all in PEM: the authorities that it is trusted by, and what we show to it."""

    authorities: str | None = None
    certificate: str | None = None
    key: bytes | None = field(default=None, repr=False)


COMMON = Identity()
"""Nothing special: the system's authorities, and no certificate of ours."""


class IdentityUnusable(Exception):
    """Authorities, certificate or key that OpenSSL does not take; the message says which, and why."""


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, certificate and name verified against the system's authorities and those in `ca_file`.

    Raises EnvironmentRefused when `ca_file` cannot be used.
    """
    context = _context()
    # Not set_default_verify_paths(): it reads SSL_CERT_FILE and SSL_CERT_DIR.
    compiled = ssl.get_default_verify_paths()
    files = [name for name in (compiled.openssl_cafile, *_AUTHORITIES_FILES) if Path(name).is_file()]
    directory = compiled.openssl_capath if Path(compiled.openssl_capath).is_dir() else None
    if files or directory is not None:
        context.load_verify_locations(cafile=files[0] if files else None, capath=directory)
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except (OSError, ssl.SSLError) as error:
            raise EnvironmentRefused(
                f"the certificate authorities in {ca_file} cannot be used: {error.strerror or error}",
                "CLARION_CA_FILE names a readable file with certificates in PEM form",
            ) from error
    return context


def context_of(identity: Identity, ca_file: Path | None) -> ssl.SSLContext:
    """The context for a receiver with this identity; its authorities take the place of the system's and of `ca_file`.

    Raises IdentityUnusable.
    """
    if identity.authorities is None:
        context = tls_context(ca_file)
    else:
        context = _context()
        # A pin may be an intermediate authority: the chain need not go on to one that signs itself.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            context.load_verify_locations(cadata=identity.authorities)
        except (ssl.SSLError, ValueError) as error:
            raise IdentityUnusable(f"the receiver's authorities cannot be used: {_reason(error)}") from error
    if identity.certificate is not None and identity.key is not None:
        try:
            with _file(identity.certificate.encode()) as certificate, _file(identity.key) as key:
                context.load_cert_chain(certificate, key, password=_no_password)
        except (ssl.SSLError, ValueError, OSError) as error:
            raise IdentityUnusable(f"the client certificate cannot be used: {_reason(error)}") from error
    return context


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else str(error)
    return (reason or "unknown reason").replace("_", " ").lower()[:120]


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """A path to `content` for as long as the block lasts: OpenSSL takes keys from files only. In memory where there is such a thing."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("clarion")
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.NamedTemporaryFile() as file:  # readable by its owner alone
        file.write(content)
        file.flush()
        yield file.name
