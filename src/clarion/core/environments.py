"""Environments: where an application runs, and the addresses that its webhooks come from. From a TOML file.

[environments.production]
label = "Production"
urls = ["https://app.example.com"]
addresses = ["44.0.0.1", {address = "44.0.0.2", from = 2027-01-01, until = 2027-06-30T12:00:00Z}]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any, NoReturn

from clarion.core.errors import UsageInvalid

Address = IPv4Address | IPv6Address

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_NAME_LENGTH_MAX = 100
# The host as a webhook URI's is compared with it: ASCII, no full stop at its end.
_URL = re.compile(
    r"https://(?P<host>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)(?::[0-9]{1,5})?(?:/[!-~]*)?", re.IGNORECASE
)
# Private addresses are missing on purpose: receivers inside the plant see them.
_NOBODYS = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("224.0.0.0/4"),
    IPv4Network("240.0.0.0/4"),
    IPv6Network("::/8"),
    IPv6Network("fe80::/10"),
    IPv6Network("fec0::/10"),
    IPv6Network("ff00::/8"),
)


@dataclass(frozen=True, slots=True)
class EgressAddress:
    """An address that requests come from: always, or from one moment until another (UTC)."""

    address: Address
    since: datetime | None = None
    until: datetime | None = None

    def in_force(self, now: datetime) -> bool:
        """Whether requests come from it at `now`."""
        return (self.since is None or self.since <= now) and (self.until is None or now < self.until)

    @property
    def cidr(self) -> str:
        """The network that holds this address alone."""
        return f"{self.address}/{self.address.max_prefixlen}"

    def published(self) -> dict[str, str | None]:
        """As it is published: address, CIDR, and moments in ISO 8601."""
        return {
            "address": str(self.address),
            "cidr": self.cidr,
            "from": None if self.since is None else self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment of the file."""

    name: str
    label: str
    urls: tuple[str, ...]
    addresses: tuple[EgressAddress, ...]

    @property
    def hosts(self) -> frozenset[str]:
        """The host names of its application, in lower case."""
        found = (_URL.fullmatch(url) for url in self.urls)
        return frozenset(match["host"].lower() for match in found if match is not None)

    def sources(self, now: datetime) -> tuple[Address, ...]:
        """The addresses in force. Raises UsageInvalid if all have ended or are yet to come: none may be guessed then."""
        found = tuple(one.address for one in self.addresses if one.in_force(now))
        if self.addresses and not found:
            raise UsageInvalid(
                f"environment {self.name} has egress addresses, but none is in force at {now:%Y-%m-%dT%H:%M:%SZ}",
                "correct `from` and `until` in CLARION_ENVIRONMENTS_FILE, or set CLARION_SOURCE_ADDRESSES",
            )
        return found

    def published(self) -> dict[str, Any]:
        """As it is published, without the moments of other environments."""
        return {
            "name": self.name,
            "label": self.label,
            "urls": list(self.urls),
            "addresses": [one.published() for one in self.addresses],
        }


@dataclass(frozen=True, slots=True)
class Environments:
    """All environments of a deployment's file, and which one this process is, if any."""

    all: tuple[Environment, ...] = ()
    own: Environment | None = None

    def refusal(self, name: str) -> str | None:
        """Why nothing can be kept by the name of this environment; None if it can. Without a file any name will do."""
        if not _is_name(name):
            return _NAME_RULE
        names = [environment.name for environment in self.all]
        return f"must be one of {', '.join(names)}" if names and name not in names else None

    @property
    def addresses(self) -> tuple[EgressAddress, ...]:
        """The own environment's addresses."""
        return () if self.own is None else self.own.addresses

    @property
    def fixed(self) -> bool:
        """Whether `addresses` is a promise; without any, requests may come from anywhere."""
        return bool(self.addresses)

    def published(self) -> dict[str, Any]:
        """The document of `/.well-known/webhook-egress.json`."""
        return {
            "environment": None if self.own is None else self.own.name,
            "fixed": self.fixed,
            "addresses": [one.published() for one in self.addresses],
            "environments": [environment.published() for environment in self.all],
        }


def load_environments(file: Path | None, name: str | None) -> Environments:
    """The environments in `file`, the own one being `name`. Raises UsageInvalid saying file, environment and key.

    A name without a file is only a name: egress rules are kept by it.
    """
    if name is not None and not _is_name(name):
        raise UsageInvalid(f"CLARION_ENVIRONMENT: {_NAME_RULE}", _FORMAT)
    if file is None:
        return Environments()
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageInvalid(
            f"CLARION_ENVIRONMENTS_FILE: {file} cannot be read: {error.strerror}", "name a file that exists"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageInvalid(f"CLARION_ENVIRONMENTS_FILE: {file} is no TOML: {error}", _FORMAT) from error
    found = parse_environments(content, str(file))
    own = next((environment for environment in found if environment.name == name), None)
    if name is not None and own is None:
        raise UsageInvalid(
            f"CLARION_ENVIRONMENT: {file} has no environment {name!r}",
            "it has " + (", ".join(environment.name for environment in found) or "none"),
        )
    return Environments(found, own)


def parse_environments(content: Mapping[str, Any], where: str) -> tuple[Environment, ...]:
    """The environments in a parsed TOML document. Raises UsageInvalid; `where` names the file in its text."""
    _known(content, {"environments"}, where)
    tables = content.get("environments", {})
    if not isinstance(tables, dict):
        _refuse(where, "`environments` must be tables: [environments.production]")
    return tuple(_environment(name, table, f"{where}, environment {name}") for name, table in tables.items())


def _environment(name: str, table: Any, where: str) -> Environment:
    if not _is_name(name):
        _refuse(where, _NAME_RULE)
    if not isinstance(table, dict):
        _refuse(where, "must be a table")
    _known(table, {"label", "urls", "addresses"}, where)
    label = table.get("label", name)
    if not isinstance(label, str) or not label.strip() or not label.isprintable():
        _refuse(where, "`label` must be a printable text")
    urls = table.get("urls", [])
    if not isinstance(urls, list):
        _refuse(where, "`urls` must be a list")
    for url in urls:
        if not isinstance(url, str) or _URL.fullmatch(url) is None:
            _refuse(where, f"`urls` holds {url!r}, which is no https:// URL with a host in ASCII (xn--… for others)")
    addresses = table.get("addresses", [])
    if not isinstance(addresses, list):
        _refuse(where, "`addresses` must be a list")
    found = tuple(_address(entry, where) for entry in addresses)
    if len({one.address for one in found}) < len(found):
        _refuse(where, "an address is there twice")
    return Environment(name, label, tuple(urls), found)


def _address(entry: Any, where: str) -> EgressAddress:
    if isinstance(entry, str):
        entry = {"address": entry}
    if not isinstance(entry, dict):
        _refuse(where, 'an address is a text or a table: {address = "44.0.0.2", from = 2027-01-01}')
    _known(entry, {"address", "from", "until"}, where)
    text = entry.get("address")
    try:
        address = ip_address(str(text).removesuffix("/32") if "." in str(text) else str(text).removesuffix("/128"))
    except ValueError:
        _refuse(where, f"{text!r} is no IP address (one address each, not a network)")
    if "%" in str(text):
        _refuse(where, f"{text!r} has a zone, which means something on one host only")
    nobodys = next((network for network in _NOBODYS if address in network), None)
    if nobodys is not None:
        _refuse(where, f"nothing can come from {address}: no host's address lies in {nobodys}")
    since, until = (_moment(entry.get(name), f"{where}, {name} of {address}") for name in ("from", "until"))
    if since is not None and until is not None and until <= since:
        _refuse(where, f"{address} ends before it begins")
    return EgressAddress(address, since, until)


def _moment(value: Any, where: str) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            _refuse(where, "a time needs its zone, for example 2027-01-01T00:00:00Z")
        try:
            return value.astimezone(UTC)
        except OverflowError:
            _refuse(where, "is outside of the years that can be told")
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return _refuse(where, "must be a date or a time, without quotes")


def _is_name(name: str) -> bool:
    return 0 < len(name) <= _NAME_LENGTH_MAX and _NAME_CHARACTERS.issuperset(name)


def _known(table: Mapping[str, Any], keys: set[str], where: str) -> None:
    unknown = sorted(set(table) - keys)
    if unknown:
        _refuse(where, f"unknown key {unknown[0]!r}; known: {', '.join(sorted(keys))}")


def _refuse(where: str, reason: str) -> NoReturn:
    raise UsageInvalid(f"CLARION_ENVIRONMENTS_FILE: {where}: {reason}", _FORMAT)


_NAME_RULE = f"a name has 1 to {_NAME_LENGTH_MAX} lower-case letters, digits, - and _ only"
_FORMAT = "docs/reference/egress.md has the format"
