"""Where requests may go: strict parsing of webhook URIs and the table of forbidden addresses. Pure.

The table is our own: the verdicts of Python's `ipaddress.is_global` differ between patch releases and call
multicast, translated and several reserved ranges global. URIs are taken apart by hand, because `urlsplit`
silently drops tabs, line ends and leading spaces, and accepts hosts that two parsers read differently.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network

import idna

from clarion.core.errors import Code, RequestRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Excepted = Callable[[str, int], Sequence[Network]]

URI_LENGTH_MAX = 2048
HOST_LENGTH_MAX = 253
LABEL_LENGTH_MAX = 63
PORTS = frozenset({443, 8443})

_FORBIDDEN_V4 = tuple(
    (IPv4Network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by carriers, metadata of clouds"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "metadata of a cloud"),
        ("169.254.0.0/16", "link-local, metadata of clouds"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "automatic multicast tunnels"),
        ("192.88.99.0/24", "6to4 relays"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "benchmarks"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved, broadcast"),
    )
)

_GLOBAL_V6 = IPv6Network("2000::/3")

_FORBIDDEN_V6 = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("2001::/23", "protocol assignments, Teredo, benchmarks, identifiers"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "AS112"),
        ("3fff::/20", "documentation"),
    )
)

# Names that mean something inside a network only. `.example` is missing on purpose: it never resolves, and is
# what documentation and tests write.
_INSIDE_SUFFIXES = (
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "svc",
    "test",
    "invalid",
    "onion",
    "alt",
)

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_OCTET = r"(?:0|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])"
_DOTTED_QUAD = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_PATH = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?\[\]-]|%[0-9A-Fa-f]{2})*")
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class UriRefused(RequestRefused):
    """Syntax, scheme or port of a webhook URI; the message is the precise reason."""

    def __init__(self, reason: str, field: str | None = "input.webhookUri") -> None:
        super().__init__(Code.INVALID_INPUT, reason, field)


class AddressNotAllowed(RequestRefused):
    """Anything about a destination's address: one text for all, since a precise one would map our network."""

    TEXT = "this destination is not allowed: only public addresses are, and those that an egress rule opens"

    def __init__(self, field: str | None = "input.webhookUri") -> None:
        super().__init__(Code.ADDRESS_NOT_ALLOWED, self.TEXT, field)


@dataclass(frozen=True, slots=True)
class Target:
    """A webhook URI taken apart.

    `host` is lower-case ASCII (an IPv6 literal without brackets), `target` path and query as sent, `literal`
    the address if the host is one. `only_allowed` demands that every address lies in an allowed network:
    the name belongs inside a network, or the port is not one of `PORTS`.
    """

    host: str
    port: int
    target: str
    literal: Address | None
    only_allowed: bool

    @property
    def authority(self) -> str:
        """The value of the Host header: the port only where it is not 443."""
        host = f"[{self.host}]" if isinstance(self.literal, IPv6Address) else self.host
        return host if self.port == 443 else f"{host}:{self.port}"


def forbidden_reason(address: Address, allowed: Sequence[Network]) -> str | None:
    """Why no request may go to `address`; None if one may. For logs and tests, not for callers of the API.

    `allowed` wins over the table. IPv6 is denied outside 2000::/3; an IPv4-mapped address is therefore denied,
    unless `allowed` holds it or the IPv4 address within.
    """
    if in_networks(address, allowed):
        return None
    if isinstance(address, IPv4Address):
        return next((reason for network, reason in _FORBIDDEN_V4 if address in network), None)
    if address not in _GLOBAL_V6:
        return "outside global unicast"
    # ISATAP hides an IPv4 destination in the interface identifier (RFC 5214): 0000:5efe or 0200:5efe.
    if (int(address) >> 32) & 0xFDFFFFFF == 0x00005EFE:
        return "ISATAP"
    return next((reason for network, reason in _FORBIDDEN_V6 if address in network), None)


def in_networks(address: Address, networks: Sequence[Network]) -> bool:
    """Whether `address`, or the IPv4 address mapped into it, lies in one of `networks`."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return any(
        (address in network) or (mapped is not None and mapped in network)  # other version: never inside
        for network in networks
    )


def parse_webhook_uri(text: str, excepted: Excepted = lambda _host, _port: ()) -> Target:
    """The parts of a webhook URI that may be registered.

    `excepted` tells the networks that a host and port may be in although the table forbids them. Raises UriRefused for
    syntax, scheme and port, AddressNotAllowed for forbidden literals, numeric disguises and names of inside networks.
    Where some network is excepted, such names and other ports are let through with `only_allowed` set, for the caller to
    hold the answers of the resolver against.
    """
    authority, target = _split_uri(text)
    host, port, bracketed = _split_authority(authority)
    literal = _ipv6(host) if bracketed else _ipv4(host)
    if literal is not None:
        host = str(literal)
        networks = excepted(host, port)
        if forbidden_reason(literal, networks) is not None:
            raise AddressNotAllowed
        if port not in PORTS and not in_networks(literal, networks):
            raise _port_refused(port)
        return Target(host, port, target, literal, only_allowed=port not in PORTS)
    host = _ascii_host(host)
    networks = excepted(host, port)
    only_allowed = _is_inside_name(host)
    if only_allowed and not networks:
        raise AddressNotAllowed
    if port not in PORTS:
        if not networks:
            raise _port_refused(port)
        only_allowed = True
    return Target(host, port, target, None, only_allowed)


def parse_host(text: str, field: str) -> str:
    """A host name as it stands in a `Target`, which may be one that belongs inside a network.

    Raises RequestRefused naming `field`: the precise reason for a malformed name, and one for a literal address.
    """
    try:
        if _ipv4(text) is None and ":" not in text:
            return _ascii_host(text)
    except UriRefused as refusal:
        raise UriRefused(refusal.message, field) from None
    except AddressNotAllowed:
        pass
    raise UriRefused("must be the name of a host; leave it out for addresses", field)


def refusal_of_answers(target: Target) -> RequestRefused:
    """The error for a name whose answers are not allowed: about the port where only the port was the matter."""
    if target.port not in PORTS and not _is_inside_name(target.host):
        return _port_refused(target.port)
    return AddressNotAllowed()


def _split_uri(text: str) -> tuple[str, str]:
    """Authority and request target of an https URI."""
    if not text:
        raise UriRefused("a URI is needed, for example https://hooks.example.com/clarion")
    if len(text) > URI_LENGTH_MAX:
        raise UriRefused(f"a URI has at most {URI_LENGTH_MAX} characters")
    for position, character in enumerate(text, 1):
        if character == "\\" or unicodedata.category(character)[0] in "CZ":
            raise UriRefused(f"character {position} (U+{ord(character):04X}) may not stand in a URI")
    scheme = _SCHEME.match(text)
    if scheme is None:
        raise UriRefused("a URI begins with https://")
    if scheme[0].lower() != "https:":
        # What stands before the first colon may be a secret that was pasted here.
        raise UriRefused("the scheme is https" + (", not http" if scheme[0].lower() == "http:" else ""))
    if not text.startswith("//", len("https:")):
        raise UriRefused("a URI begins with https://")
    rest = text[len("https://") :]
    if "#" in rest:
        raise UriRefused("a fragment (#…) is never sent: leave it out")
    authority, slash, after = rest.partition("/")
    if "?" in authority:
        raise UriRefused("a query needs a path before it: https://host/?…")
    path, question, query = after.partition("?")
    if _PATH.fullmatch(path) is None:
        raise UriRefused("the path holds a character that must be percent-encoded")
    if _QUERY.fullmatch(query) is None:
        raise UriRefused("the query holds a character that must be percent-encoded")
    return authority, (slash or "/") + path + question + query


def _split_authority(authority: str) -> tuple[str, int, bool]:
    """Host, port, and whether the host stood in brackets."""
    if "@" in authority:
        raise UriRefused("user and password may not stand in a URI: use a header")
    bracketed = authority.startswith("[")
    if bracketed:
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise UriRefused("after the bracketed address comes nothing but a port")
        colon, port_text = rest[:1], rest[1:]
    else:
        host, colon, port_text = authority.partition(":")
        if "[" in host or "]" in authority:
            raise UriRefused("brackets stand around a whole IPv6 address only")
        if ":" in port_text:
            raise UriRefused("one colon at most, before the port; an IPv6 address stands in brackets")
    if not host:
        raise UriRefused("the host is missing")
    port = 443
    if colon:
        if _PORT.fullmatch(port_text) is None or int(port_text) > 65535:
            raise UriRefused("a port is a number from 1 to 65535")
        port = int(port_text)
    return host, port, bracketed


def _ipv6(text: str) -> IPv6Address:
    try:
        if not text.isascii() or "%" in text:
            raise AddressValueError
        return IPv6Address(text)
    except AddressValueError:
        raise UriRefused("brackets hold an IPv6 address, without a zone") from None


def _ipv4(host: str) -> IPv4Address | None:
    """The address if `host` is a canonical dotted quad. Raises AddressNotAllowed for its disguises.

    Resolvers read 127.1, 0x7f.1, 0177.0.0.1 and 2130706433 as addresses; no public top-level domain is a number.
    """
    if _DOTTED_QUAD.fullmatch(host):
        return IPv4Address(host)
    last = host.removesuffix(".").rpartition(".")[2].lower()
    if last.startswith("0x") or (last.isascii() and last.isdigit()):
        raise AddressNotAllowed
    return None


def _ascii_host(host: str) -> str:
    """The host as lower-case ASCII labels (A-labels of IDNA 2008). Raises UriRefused or AddressNotAllowed."""
    host = host.translate(_ASCII_LOWER)
    if not host.isascii():
        # Digits in circles, full-width letters and ideographic full stops are addresses in disguise to a
        # resolver; IDNA 2008 has no place for any of them.
        try:
            host = ".".join(
                label if label.isascii() else idna.alabel(label).decode("ascii") for label in host.split(".")
            )
        except (idna.IDNAError, ValueError):
            raise AddressNotAllowed from None
    if _is_inside_name(host) and host.endswith("."):
        raise AddressNotAllowed
    if len(host) > HOST_LENGTH_MAX:
        raise UriRefused(f"a host has at most {HOST_LENGTH_MAX} characters")
    for label in host.split("."):
        if label.startswith("xn--") and not _is_round_trip(label):
            raise AddressNotAllowed
        if not label:
            raise UriRefused("the host has an empty label (two full stops, or one at an end)")
        if len(label) > LABEL_LENGTH_MAX:
            raise UriRefused(f"a label of the host has at most {LABEL_LENGTH_MAX} characters")
        if _LABEL.fullmatch(label) is None:
            raise UriRefused("the labels of a host hold letters, digits and inner hyphens only")
    return host


def _is_round_trip(label: str) -> bool:
    """Whether an A-label decodes to a valid U-label that encodes to the same A-label again."""
    try:
        unicode_label = idna.ulabel(label)
        return not unicode_label.isascii() and idna.alabel(unicode_label).decode("ascii") == label
    except (idna.IDNAError, ValueError):
        return False


def _is_inside_name(host: str) -> bool:
    """Whether a name belongs inside a network: single-label, or under a suffix that no public zone has."""
    name = host.removesuffix(".")
    return "." not in name or any(name == suffix or name.endswith("." + suffix) for suffix in _INSIDE_SUFFIXES)


def _port_refused(port: int) -> UriRefused:
    return UriRefused(f"port {port} is not allowed: use 443 or 8443")
