"""Environments: where an application runs, and the addresses that its webhooks come from. From a TOML file.

[environments.production]
label = "Production"
urls = ["https://app.example.com"]
addresses = ["44.0.0.1", {address = "44.0.0.2", from = 2027-01-01, until = 2027-06-30T12:00:00Z}]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from clarion.core.errors import UsageInvalid

Address = IPv4Address | IPv6Address

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_NAME_LENGTH_MAX = 100


@dataclass(frozen=True, slots=True)
class EgressAddress:
    """An address that requests come from: always, or from one moment until another (UTC)."""

    address: Address
    since: datetime | None = None
    until: datetime | None = None

    def in_force(self, now: datetime) -> bool:
        """Whether requests come from it at `now`."""
        return (self.since is None or self.since <= now) and (self.until is None or now < self.until)

    def published(self) -> dict[str, str | None]:
        """As it is published: address, CIDR, and moments in ISO 8601."""
        return {
            "address": str(self.address),
            "cidr": f"{self.address}/{self.address.max_prefixlen}",
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
        return frozenset(urlsplit(url).hostname or "" for url in self.urls)

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

    def published(self) -> dict[str, Any]:
        """The document of `/.well-known/webhook-egress.json`. `fixed` tells whether `addresses` is a promise."""
        return {
            "environment": None if self.own is None else self.own.name,
            "fixed": self.own is not None and bool(self.own.addresses),
            "addresses": [] if self.own is None else [one.published() for one in self.own.addresses],
            "environments": [environment.published() for environment in self.all],
        }


def load_environments(file: Path | None, name: str | None) -> Environments:
    """The environments in `file`, the own one being `name`. Raises UsageInvalid saying file, environment and key.

    A name without a file is only a name: egress rules are kept by it.
    """
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
    if not (0 < len(name) <= _NAME_LENGTH_MAX and _NAME_CHARACTERS.issuperset(name)):
        _refuse(where, "a name has lower-case letters, digits, - and _ only")
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
        if not isinstance(url, str) or not url.startswith("https://") or not urlsplit(url).hostname:
            _refuse(where, f"`urls` holds {url!r}, which is no https:// URL")
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
    if address.is_unspecified or address.is_multicast or address.is_loopback or address.is_link_local:
        _refuse(where, f"nothing can come from {address}: it is unspecified, multicast, loopback or link-local")
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
        return value.astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return _refuse(where, "must be a date or a time, without quotes")


def _known(table: Mapping[str, Any], keys: set[str], where: str) -> None:
    unknown = sorted(set(table) - keys)
    if unknown:
        _refuse(where, f"unknown key {unknown[0]!r}; known: {', '.join(sorted(keys))}")


def _refuse(where: str, reason: str) -> NoReturn:
    raise UsageInvalid(f"CLARION_ENVIRONMENTS_FILE: {where}: {reason}", _FORMAT)


_FORMAT = "docs/reference/egress.md has the format"
