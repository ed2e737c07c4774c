"""What may be sent to: the table of addresses, and who made which exception to it.

Looked at twice: when a URI is registered, and for every new connection, with the answers of the resolver. In this order:
networks of the process (`CLARION_ALLOWED_NETWORKS`) are allowed whatever else is said; addresses of this host and of the
database never; what a rule made through the API names, unless no rule can name it; the rest by the table.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

import psutil

from clarion.core.system import SystemClock
from clarion.sender.address import (
    Address,
    AddressNotAllowed,
    Network,
    Target,
    forbidden_reason,
    in_networks,
    parse_webhook_uri,
)

_KEPT_NS = 1_000_000_000
_VERDICTS_MAX = 10_000

# Loopback, link-local, metadata of clouds, and what stands for "here" or "everyone": a rule made through the API would
# turn the sender against its own host.
NEVER_BY_RULE: tuple[Network, ...] = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("100.100.100.200/32"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("168.63.129.16/32"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("192.0.0.192/32"),
    IPv4Network("224.0.0.0/4"),
    IPv4Network("255.255.255.255/32"),
    IPv6Network("::/8"),
    IPv6Network("fd00:ec2::254/128"),
    IPv6Network("fd20:ce::254/128"),
    IPv6Network("fe80::/10"),
    IPv6Network("ff00::/8"),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """An exception to the table: addresses of `network` on `port`, for the name `host` or (None) for any host."""

    host: str | None
    network: Network
    port: int


@dataclass(frozen=True, slots=True)
class Policy:
    """Where requests may go. `networks` are those of the process, any port; `own_hosts` names that lead back to us.

    `own_addresses` are the database's and others that belong to the deployment; those of this host are known.
    """

    networks: tuple[Network, ...] = ()
    rules: tuple[Rule, ...] = ()
    own_hosts: frozenset[str] = frozenset()
    own_addresses: frozenset[Address] = frozenset()

    def parse(self, uri: str) -> Target:
        """The parts of a webhook URI. Raises UriRefused and AddressNotAllowed as `parse_webhook_uri`."""
        target = parse_webhook_uri(uri, self._excepted)
        if target.host in self.own_hosts:
            raise AddressNotAllowed
        if target.literal is not None:
            self.check(target, (target.literal,))
        return target

    def check(self, target: Target, addresses: Iterable[Address]) -> None:
        """Return if every one of these addresses of `target` may be sent to, and there is one. Raises AddressNotAllowed.

        One forbidden address among many is enough: which one is used is up to whoever made the answers.
        """
        checked = list(addresses)
        ruled = self._ruled(target.host, target.port)
        if not checked or any(self._refusal(target, address, ruled) is not None for address in checked):
            raise AddressNotAllowed

    def _refusal(self, target: Target, address: Address, ruled: Sequence[Network]) -> str | None:
        """Why no request for `target` may go to `address`, for whoever debugs; None if one may."""
        if in_networks(address, self.networks):
            return None
        if address in self.own_addresses or _is_own_lately(address):
            return "an address of this host or of the database"
        if in_networks(address, ruled) and not in_networks(address, NEVER_BY_RULE):
            return None
        if target.only_allowed:
            return "allowed only by an exception, and there is none"
        return forbidden_reason(address, ())

    def _excepted(self, host: str, port: int) -> Sequence[Network]:
        return (*self.networks, *self._ruled(host, port))

    def _ruled(self, host: str, port: int) -> list[Network]:
        return [rule.network for rule in self.rules if rule.port == port and rule.host in {None, host}]


def is_own(address: Address) -> bool:
    """Whether `address` belongs to an interface of this host, now.

    Asks the kernel by binding a socket to it, which sends nothing; where it lets bind to anything
    (`ip_nonlocal_bind`), the interfaces are listed.
    """
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return not _binds_to_anything(family) or address in _interface_addresses()


_clock = SystemClock()
_verdicts: dict[Address, tuple[bool, int]] = {}


def _is_own_lately(address: Address) -> bool:
    """As `is_own`, asked once a second for each address: a name with eight would take 100 µs of every connection."""
    now_ns = _clock.monotonic_ns()
    verdict = _verdicts.get(address)
    if verdict is None or now_ns - verdict[1] > _KEPT_NS:
        if len(_verdicts) >= _VERDICTS_MAX:
            _verdicts.clear()
        verdict = _verdicts[address] = (is_own(address), now_ns)
    return verdict[0]


@cache
def _binds_to_anything(family: socket.AddressFamily) -> bool:
    nobodys = "192.0.2.1" if family == socket.AF_INET else "2001:db8::1"
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((nobodys, 0))
    except OSError:
        return False
    return True


def _interface_addresses() -> set[Address]:
    listed = (entry for entries in psutil.net_if_addrs().values() for entry in entries)
    return {
        ip_address(entry.address.partition("%")[0])
        for entry in listed
        if entry.family in {socket.AF_INET, socket.AF_INET6}
    }
