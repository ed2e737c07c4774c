"""Opening a connection: look up, check every answer, pin one address, connect, TLS for the name.

Each step is separate so that a failure names the step. What the environment says about proxies, certificate
authorities or key logs has no effect, and nothing switches verification off.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from weakref import WeakValueDictionary

from clarion.sender.address import AddressNotAllowed, Target
from clarion.sender.channel import TlsChannel
from clarion.sender.http1 import Http1Connection, Owner, Shared, tls_reason
from clarion.sender.opening import Opening
from clarion.sender.outcome import Failure, Outcome
from clarion.sender.policy import Policy
from clarion.sender.resolve import NameNotResolved, ResolverFailed, addresses_of
from clarion.sender.route import BLOCKED, OpeningFailed, Route, connect_failure, proxy_failed
from clarion.sender.tls import COMMON, Identity, context_of, tls_context

CONNECT_BUDGET_S = 5.0
READ_BUFFER_BYTES = 64 * 1024

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


class Opener:
    """Opens connections under one address policy, by one route, in one TLS context."""

    def __init__(self, policy: Policy, route: Route, ca_file: Path | None) -> None:
        self.policy = policy
        self._route = route
        self._turn = 0
        self._ca_file = ca_file
        self._context = tls_context(ca_file)
        self._contexts: WeakValueDictionary[Identity, ssl.SSLContext] = WeakValueDictionary()
        self._shared = Shared(READ_BUFFER_BYTES, asyncio.get_running_loop().call_soon)

    def write_while(self, may_write: Callable[[], bool]) -> None:
        """Ask `may_write` from now on before requests are written on any of the connections."""
        self._shared.may_write = may_write

    def context(self, identity: Identity) -> ssl.SSLContext:
        """The TLS context for receivers of this identity; all that have nothing special share one. Raises IdentityUnusable."""
        if identity == COMMON:
            return self._context
        context = self._contexts.get(identity)
        if context is None:
            context = self._contexts[identity] = context_of(identity, self._ca_file)
        return context

    async def open(
        self, target: Target, owner: Owner, preference: int, context: ssl.SSLContext | None, opening: Opening
    ) -> Http1Connection:
        """A fresh connection to `target`, owned by `owner`; `context` as from `context`, the common one if None.
        `opening` is told how far it came.

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
        opening.looked_up()
        reachable = self._route.reachable(addresses)
        pinned = reachable[preference % len(reachable)]
        self._turn += 1
        raw: socket.socket | None = None
        connection: Http1Connection | None = None
        if self._route.proxy is None:
            opening.reached()
        try:
            try:
                async with asyncio.timeout(CONNECT_BUDGET_S):
                    raw = await self._route.connect(pinned, target.port, self._turn)
                    if self._route.proxy is not None:
                        opening.reached()
                    connection = Http1Connection(owner, self._shared, raw.getsockname()[0], str(pinned))
                    await self._start_tls(raw, connection, target, context or self._context)
            except TimeoutError:
                if self._route.proxy is not None and (connection is None or opening.proxy_took_longest()):
                    raise proxy_failed(f"no connection within {CONNECT_BUDGET_S:g} s", pinned) from None
                step = "connecting" if connection is None else "the TLS handshake"
                failure = Failure(Outcome.TIMED_OUT, f"{step} took longer than {CONNECT_BUDGET_S:g} s")
                raise OpeningFailed(failure, str(pinned)) from None
        except BaseException as error:
            if connection is not None:
                connection.abandon()
                if isinstance(error, OpeningFailed):
                    error.source_address = connection.source_address
            if raw is not None:
                raw.close()
            raise
        return connection

    async def _start_tls(
        self, raw: socket.socket, connection: Http1Connection, target: Target, context: ssl.SSLContext
    ) -> None:
        try:
            await TlsChannel.open(raw, context, target.host, connection)
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
            raise OpeningFailed(connect_failure(error), connection.peer_address) from error
