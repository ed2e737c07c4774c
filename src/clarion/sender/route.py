"""The way out: which local address a connection leaves from, and the proxy that it may go through.

    pinned address ── direct ─────────────────────▶ connected socket, its peer compared
                   └─ CONNECT address:port ─▶ proxy ─▶ socket that the proxy joined to the address

The address has been checked before; a proxy is told that address, never the name, so that nobody looks it up again.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import cast
from urllib.parse import unquote

from clarion.core.errors import UsageInvalid
from clarion.sender.address import Address
from clarion.sender.outcome import Failure, Outcome
from clarion.sender.resolve import NameNotResolved, ResolverFailed, resolve

_PROXY_HEAD_BYTES_MAX = 16 * 1024
_PROXY = re.compile(
    r"http://(?:(?P<user>[^:@/\s]*):(?P<password>[^@/\s]*)@)?(?:\[(?P<literal>[0-9A-Fa-f:.]+)\]|(?P<host>[0-9A-Za-z.-]+))"
    r":(?P<port>[0-9]{1,5})/?"
)
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")
_BIND_WITHOUT_PORT = 24
"""IP_BIND_ADDRESS_NO_PORT of linux/in.h: the port is chosen at connect, so that one can serve several destinations."""

BLOCKED = Failure(Outcome.BLOCKED, "the destination is not allowed")

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


class OpeningFailed(Exception):
    """No connection; `failure` says what to record, `peer_address` and `source_address` how far it came."""

    def __init__(self, failure: Failure, peer_address: str | None = None, source_address: str | None = None) -> None:
        super().__init__(failure.error)
        self.failure = failure
        self.peer_address = peer_address
        self.source_address = source_address


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that is asked to CONNECT. `authorization` is the value of its header, if it wants one."""

    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)


def parse_proxy(url: str) -> Proxy:
    """The proxy of `http://[user:password@]host:port`. Raises UsageInvalid, which does not show the URL."""
    found = _PROXY.fullmatch(url)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise UsageInvalid(
            "CLARION_EGRESS_PROXY: must look like http://proxy.example:3128 or http://user:password@proxy.example:3128",
            "the request inside is always HTTPS; what is in clear is CONNECT with the receiver's address alone",
        )
    authorization = None
    if found["user"] is not None:
        pair = f"{unquote(found['user'])}:{unquote(found['password'])}".encode()
        authorization = f"Basic {base64.b64encode(pair).decode()}"
    return Proxy(found["literal"] or found["host"], int(found["port"]), authorization)


@dataclass(frozen=True, slots=True)
class Route:
    """How connections leave. Without `sources` the system chooses the local address."""

    sources: tuple[Address, ...] = ()
    proxy: Proxy | None = None

    def reachable(self, addresses: Sequence[Address]) -> list[Address]:
        """Those of a receiver's addresses that there is a source address for. Raises OpeningFailed if there is none.

        Through a proxy all are: it connects from addresses of its own.
        """
        if self.proxy is not None or not self.sources:
            return list(addresses)
        versions = {source.version for source in self.sources}
        found = [address for address in addresses if address.version in versions]
        if not found:
            version = addresses[0].version
            failure = Failure(Outcome.OVERLOADED, f"there is no source address for IPv{version}", ours=True)
            raise OpeningFailed(failure, str(addresses[0]))
        return found

    async def connect(self, pinned: Address, port: int, turn: int) -> socket.socket:
        """A socket connected to `pinned`, itself or through the proxy; the caller closes it.

        `turn` chooses among source addresses of one version. Raises OpeningFailed.
        """
        if self.proxy is None:
            raw = _bound_socket(pinned, self.sources, turn)
            with _closed_on_failure(raw):
                await _connect(raw, pinned, port)
            return raw
        return await self._connect_by_proxy(self.proxy, pinned, port, turn)

    async def _connect_by_proxy(self, proxy: Proxy, pinned: Address, port: int, turn: int) -> socket.socket:
        nearest = (await _proxy_addresses(proxy, pinned))[0]
        raw = _bound_socket(nearest, self.sources, turn)
        with _closed_on_failure(raw):
            try:
                await _connect(raw, nearest, proxy.port)
            except OpeningFailed as failed:
                raise proxy_failed(failed.failure.error, pinned) from failed
            try:
                status = await _ask_to_connect(raw, proxy, pinned, port)
            except OSError as error:
                raise proxy_failed((error.strerror or "connection lost").lower(), pinned) from error
            if not 200 <= status <= 299:
                raise proxy_failed(f"it answered {status} to CONNECT", pinned)
        return raw


def proxy_failed(what: str, pinned: Address) -> OpeningFailed:
    """A failure of the proxy: ours, since the receiver is not to blame for it."""
    return OpeningFailed(Failure(Outcome.PROXY_FAILED, f"the egress proxy failed: {what}", ours=True), str(pinned))


@contextmanager
def _closed_on_failure(raw: socket.socket) -> Iterator[None]:
    """Closes the socket if the block does not end well, cancelled or not."""
    try:
        yield
    except BaseException:
        raw.close()
        raise


async def _proxy_addresses(proxy: Proxy, pinned: Address) -> list[Address]:
    try:
        return [ip_address(proxy.host)]
    except ValueError:
        pass
    try:
        return await resolve(proxy.host, proxy.port)
    except (NameNotResolved, ResolverFailed) as error:
        raise proxy_failed(f"its name could not be looked up: {error}", pinned) from error


async def _ask_to_connect(raw: socket.socket, proxy: Proxy, pinned: Address, port: int) -> int:
    """The status that the proxy answers with. Nothing may follow its head: TLS begins with us."""
    loop = asyncio.get_running_loop()
    authority = f"[{pinned}]:{port}" if isinstance(pinned, IPv6Address) else f"{pinned}:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    await loop.sock_sendall(raw, "\r\n".join([*lines, "", ""]).encode("ascii"))
    head = b""
    while b"\r\n\r\n" not in head:
        piece = await loop.sock_recv(raw, 4096)
        if not piece:
            raise proxy_failed("it closed the connection before it answered", pinned)
        head += piece
        if len(head) > _PROXY_HEAD_BYTES_MAX:
            raise proxy_failed("its answer to CONNECT does not end", pinned)
    status = _STATUS.match(head)
    if status is None:
        raise proxy_failed("its answer to CONNECT is not HTTP", pinned)
    if 200 <= int(status[1]) <= 299 and not head.endswith(b"\r\n\r\n"):
        raise proxy_failed("it sent more than an answer to CONNECT", pinned)
    return int(status[1])


def _bound_socket(pinned: Address, sources: Sequence[Address], turn: int) -> socket.socket:
    family = socket.AF_INET6 if isinstance(pinned, IPv6Address) else socket.AF_INET
    try:
        raw = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise OpeningFailed(connect_failure(error), str(pinned)) from error
    raw.setblocking(False)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Finds out, while a connection is idle, that a firewall between has forgotten it.
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    usable = [source for source in sources if source.version == pinned.version]
    if usable:
        source = usable[turn % len(usable)]
        with _closed_on_failure(raw):
            _bind(raw, source, pinned)
    elif sources:
        raw.close()
        failure = Failure(Outcome.OVERLOADED, f"there is no source address for IPv{pinned.version}", ours=True)
        raise OpeningFailed(failure, str(pinned))
    return raw


def _bind(raw: socket.socket, source: Address, pinned: Address) -> None:
    if sys.platform == "linux":
        with suppress(OSError):  # without it there are fewer ports, nothing worse
            raw.setsockopt(socket.IPPROTO_IP, _BIND_WITHOUT_PORT, 1)
    try:
        raw.bind((str(source), 0))
    except OSError as error:
        what = f"the source address {source} is not on this host"
        if error.errno != errno.EADDRNOTAVAIL:
            what = f"the source address {source} cannot be used: {(error.strerror or 'unknown error').lower()}"
        raise OpeningFailed(Failure(Outcome.OVERLOADED, what, ours=True), str(pinned)) from error


async def _connect(raw: socket.socket, pinned: Address, port: int) -> None:
    try:
        await asyncio.get_running_loop().sock_connect(raw, (str(pinned), port))
        peer = cast(str, raw.getpeername()[0])
    except OSError as error:
        raise OpeningFailed(connect_failure(error), str(pinned), _source_of(raw)) from error
    if ip_address(peer) != pinned:
        # Nothing known can cause this; if something does, nothing is sent.
        raise OpeningFailed(BLOCKED, str(pinned))


def _source_of(raw: socket.socket) -> str | None:
    """The local address of a socket that did not come to be connected, if one had been chosen."""
    try:
        source = str(raw.getsockname()[0])
    except OSError:
        return None
    return None if ip_address(source).is_unspecified else source


def connect_failure(error: OSError) -> Failure:
    """What an error of the system's, while a connection is opened, is recorded as."""
    number = error.errno or 0
    if number in _LOCAL_ERRORS:
        return Failure(Outcome.OVERLOADED, _LOCAL_ERRORS[number], ours=True)
    if number == errno.ETIMEDOUT:
        return Failure(Outcome.TIMED_OUT, "connecting timed out")
    reason = _CONNECT_ERRORS.get(number, f"connecting failed: {(error.strerror or 'unknown error')[:120].lower()}")
    return Failure(Outcome.CONNECT_FAILED, reason)
