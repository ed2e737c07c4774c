"""Opening a connection: look up, check every answer, pin one address, connect, TLS for the name.

Each step is separate so that a failure names the step. What the environment says about proxies, certificate
authorities or key logs has no effect, and nothing switches verification off.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import cast

from clarion.core.errors import EnvironmentRefused
from clarion.sender.address import Address, AddressNotAllowed, Target
from clarion.sender.http1 import Http1Connection, Owner, Shared, tls_reason
from clarion.sender.outcome import Failure, Outcome
from clarion.sender.policy import Policy
from clarion.sender.resolve import NameNotResolved, ResolverFailed, addresses_of

CONNECT_BUDGET_S = 5.0
READ_BUFFER_BYTES = 64 * 1024
_SHUTDOWN_BUDGET_S = 1.0

BLOCKED = Failure(Outcome.BLOCKED, "the destination is not allowed")

# Where distributions keep their certificate authorities, when OpenSSL's own default is empty.
_AUTHORITIES_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

_LOCAL_ERRORS = {
    errno.EMFILE: "this process has no file descriptor left",
    errno.ENFILE: "this host has no file descriptor left",
    errno.ENOBUFS: "this host has no buffer left",
    errno.ENOMEM: "this host has no memory left",
    errno.EADDRNOTAVAIL: "this host has no local address or port left",
}

_CONNECT_ERRORS = {
    errno.ECONNREFUSED: "the connection was refused",
    errno.EHOSTUNREACH: "the host is unreachable",
    errno.ENETUNREACH: "the network is unreachable",
    errno.ECONNRESET: "the connection was reset",
}

# X509_V_ERR_* of OpenSSL's x509_vfy.h, in the words an operator searches for.
_CERTIFICATE_ERRORS = {
    9: "certificate is not yet valid",
    10: "certificate has expired",
    18: "self-signed certificate",
    19: "self-signed certificate in the chain: its authority is not trusted",
    20: "unknown certificate authority, or an intermediate certificate is missing",
    21: "unknown certificate authority, or an intermediate certificate is missing",
    62: "hostname mismatch: the certificate is for another name",
    64: "address mismatch: the certificate is for another address",
    66: "certificate's key is too weak",
    68: "certificate's signature is too weak",
}


class OpeningFailed(Exception):
    """No connection; `failure` says what to record, `peer_address` how far it came."""

    def __init__(self, failure: Failure, peer_address: str | None = None) -> None:
        super().__init__(failure.error)
        self.failure = failure
        self.peer_address = peer_address


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, certificate and name verified against the system's authorities and those in `ca_file`.

    Raises EnvironmentRefused when `ca_file` cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.set_alpn_protocols(["http/1.1"])
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


class Opener:
    """Opens connections under one address policy and one TLS context."""

    def __init__(self, policy: Policy, ca_file: Path | None) -> None:
        self.policy = policy
        self._context = tls_context(ca_file)
        self._shared = Shared(READ_BUFFER_BYTES, asyncio.get_running_loop().call_soon)

    async def open(self, target: Target, owner: Owner, preference: int) -> Http1Connection:
        """A fresh connection to `target`, owned by `owner`.

        The address used is number `preference` (modulo their count) of those found, so that a caller can move on
        to the next after a failure. Takes at most 2 s for the name and 5 s for the rest. Raises OpeningFailed.
        """
        try:
            addresses = await addresses_of(target, self.policy)
        except AddressNotAllowed:
            raise OpeningFailed(BLOCKED) from None
        except NameNotResolved as error:
            raise OpeningFailed(Failure(Outcome.DNS_FAILED, str(error))) from error
        except ResolverFailed as error:
            failure = Failure(Outcome.DNS_FAILED, f"the name could not be looked up: {error}", ours=True)
            raise OpeningFailed(failure) from error
        pinned = addresses[preference % len(addresses)]
        step = "connecting"
        connection: Http1Connection | None = None
        raw = _socket(pinned)
        try:
            try:
                async with asyncio.timeout(CONNECT_BUDGET_S):
                    await _connect(raw, pinned, target.port)
                    step = "the TLS handshake"
                    connection = Http1Connection(owner, self._shared, raw.getsockname()[0], str(pinned))
                    await self._start_tls(raw, connection, target)
            except TimeoutError:
                failure = Failure(Outcome.TIMED_OUT, f"{step} took longer than {CONNECT_BUDGET_S:g} s")
                raise OpeningFailed(failure, str(pinned)) from None
        except BaseException:
            if connection is not None:
                connection.abandon()
            raw.close()
            raise
        return connection

    async def _start_tls(self, raw: socket.socket, connection: Http1Connection, target: Target) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(
                lambda: connection,
                sock=raw,
                ssl=self._context,
                server_hostname=target.host,
                ssl_handshake_timeout=CONNECT_BUDGET_S * 2,  # ours is shorter and covers connecting too
                ssl_shutdown_timeout=_SHUTDOWN_BUDGET_S,
            )
        except ssl.SSLCertVerificationError as error:
            reason = _CERTIFICATE_ERRORS.get(error.verify_code, error.verify_message.lower()[:120])
            raise OpeningFailed(Failure(Outcome.TLS_FAILED, reason), connection.peer_address) from error
        except (ssl.SSLEOFError, ConnectionError) as error:
            how = "reset" if isinstance(error, ConnectionResetError) else "closed"
            failure = Failure(Outcome.CONNECTION_CLOSED, f"the receiver {how} the connection during the TLS handshake")
            raise OpeningFailed(failure, connection.peer_address) from error
        except ssl.SSLError as error:
            failure = Failure(Outcome.TLS_FAILED, f"the TLS handshake failed: {tls_reason(error)}")
            raise OpeningFailed(failure, connection.peer_address) from error
        except OSError as error:
            raise OpeningFailed(_connect_failure(error), connection.peer_address) from error


def _socket(pinned: Address) -> socket.socket:
    family = socket.AF_INET6 if isinstance(pinned, IPv6Address) else socket.AF_INET
    try:
        raw = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise OpeningFailed(_connect_failure(error), str(pinned)) from error
    raw.setblocking(False)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Finds out, while a connection is idle, that a firewall between has forgotten it.
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    return raw


async def _connect(raw: socket.socket, pinned: Address, port: int) -> None:
    try:
        await asyncio.get_running_loop().sock_connect(raw, (str(pinned), port))
        peer = cast(str, raw.getpeername()[0])
    except OSError as error:
        raise OpeningFailed(_connect_failure(error), str(pinned)) from error
    if ip_address(peer) != pinned:
        # Nothing known can cause this; if something does, nothing is sent.
        raise OpeningFailed(BLOCKED, str(pinned))


def _connect_failure(error: OSError) -> Failure:
    number = error.errno or 0
    if number in _LOCAL_ERRORS:
        return Failure(Outcome.OVERLOADED, _LOCAL_ERRORS[number], ours=True)
    if number == errno.ETIMEDOUT:
        return Failure(Outcome.TIMED_OUT, "connecting timed out")
    reason = _CONNECT_ERRORS.get(number, f"connecting failed: {(error.strerror or 'unknown error')[:120].lower()}")
    return Failure(Outcome.CONNECT_FAILED, reason)
