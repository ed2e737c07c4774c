"""Both IANA registries of special-purpose addresses, with the registries' own names, and what clouds use beside them.

Written down from https://www.iana.org/assignments/iana-ipv4-special-registry and …/iana-ipv6-special-registry (as of
October 2025), apart from the product's table and so that either shows a mistake of the other.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

IPV4 = {
    "0.0.0.0/8": '"This network"',
    "0.0.0.0/32": '"This host on this network"',
    "10.0.0.0/8": "Private-Use",
    "100.64.0.0/10": "Shared Address Space",
    "127.0.0.0/8": "Loopback",
    "169.254.0.0/16": "Link Local",
    "172.16.0.0/12": "Private-Use",
    "192.0.0.0/24": "IETF Protocol Assignments",
    "192.0.0.0/29": "IPv4 Service Continuity Prefix",
    "192.0.0.8/32": "IPv4 dummy address",
    "192.0.0.9/32": "Port Control Protocol Anycast",
    "192.0.0.10/32": "Traversal Using Relays around NAT Anycast",
    "192.0.0.170/32": "NAT64/DNS64 Discovery",
    "192.0.0.171/32": "NAT64/DNS64 Discovery",
    "192.0.2.0/24": "Documentation (TEST-NET-1)",
    "192.31.196.0/24": "AS112-v4",
    "192.52.193.0/24": "AMT",
    "192.88.99.0/24": "Deprecated (6to4 Relay Anycast)",
    "192.88.99.2/32": "6a44-relay anycast address",
    "192.168.0.0/16": "Private-Use",
    "192.175.48.0/24": "Direct Delegation AS112 Service",
    "198.18.0.0/15": "Benchmarking",
    "198.51.100.0/24": "Documentation (TEST-NET-2)",
    "203.0.113.0/24": "Documentation (TEST-NET-3)",
    "240.0.0.0/4": "Reserved",
    "255.255.255.255/32": "Limited Broadcast",
}

IPV6 = {
    "::1/128": "Loopback Address",
    "::/128": "Unspecified Address",
    "::ffff:0:0/96": "IPv4-mapped Address",
    "64:ff9b::/96": "IPv4-IPv6 Translat.",
    "64:ff9b:1::/48": "IPv4-IPv6 Translat.",
    "100::/64": "Discard-Only Address Block",
    "100:0:0:1::/64": "Dummy IPv6 Prefix",
    "2001::/23": "IETF Protocol Assignments",
    "2001::/32": "TEREDO",
    "2001:1::1/128": "Port Control Protocol Anycast",
    "2001:1::2/128": "Traversal Using Relays around NAT Anycast",
    "2001:1::3/128": "DNS-SD Service Registration Protocol Anycast",
    "2001:2::/48": "Benchmarking",
    "2001:3::/32": "AMT",
    "2001:4:112::/48": "AS112-v6",
    "2001:10::/28": "Deprecated (previously ORCHID)",
    "2001:20::/28": "ORCHIDv2",
    "2001:30::/28": "Drone Remote ID Protocol Entity Tags (DETs) Prefix",
    "2001:db8::/32": "Documentation",
    "2002::/16": "6to4",
    "2620:4f:8000::/48": "Direct Delegation AS112 Service",
    "3fff::/20": "Documentation",
    "5f00::/16": "Segment Routing (SRv6) SIDs",
    "fc00::/7": "Unique-Local",
    "fe80::/10": "Link-Local Unicast",
}

BESIDE = {
    "168.63.129.16/32": "metadata and name service of a cloud",
    "224.0.0.0/4": "multicast (RFC 1112), a registry of its own",
    "::/8": "reserved by the IETF: compatible, translated",
    "200::/7": "returned by the IETF (was NSAP)",
    "400::/6": "reserved by the IETF",
    "800::/5": "reserved by the IETF",
    "1000::/4": "reserved by the IETF",
    "4000::/2": "reserved by the IETF",
    "8000::/1": "reserved by the IETF, link-local, multicast",
    "fec0::/10": "deprecated site-local (RFC 3879)",
    "ff00::/8": "multicast",
}
"""What no address of the public internet is in, although the registries say nothing or say it elsewhere."""

BLOCKS: dict[Network, str] = {ip_network(block): name for block, name in (IPV4 | IPV6 | BESIDE).items()}

_GLOBAL_UNICAST = IPv6Network("2000::/3")


def is_public(address: Address) -> bool:
    """Whether a receiver may be there, by these tables alone."""
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return not any(address in block for block in BLOCKS)


def edges() -> dict[Address, str]:
    """The lowest and the highest address of every block, with the block's name."""
    return {address: f"{block} {name}" for block, name in BLOCKS.items() for address in (block[0], block[-1])}


def outside() -> list[Address]:
    """The next address on either side of every block, where that is public."""
    found = set()
    for block in BLOCKS:
        kind = IPv4Address if block.version == 4 else IPv6Address
        for number in (int(block[0]) - 1, int(block[-1]) + 1):
            if 0 <= number < 2**block.max_prefixlen and is_public(kind(number)):
                found.add(kind(number))
    return sorted(found, key=lambda address: (address.version, int(address)))


def _hidden(v4: str) -> list[str]:
    """One IPv4 address in every IPv6 form that leads to it somewhere."""
    number = int(IPv4Address(v4))
    high, low = number >> 16, number & 0xFFFF
    embedded = f"{high:x}:{low:x}"
    return [
        f"::{embedded}",
        f"::ffff:{embedded}",
        f"::ffff:0:{embedded}",
        f"64:ff9b::{embedded}",
        f"64:ff9b:1::{embedded}",
        f"2002:{embedded}::",
        f"2002:{embedded}::1",
        f"2001:0:{embedded}::",
        f"2001::{high ^ 0xFFFF:x}:{low ^ 0xFFFF:x}",  # Teredo hides the client's address so
        f"fe80::5efe:{embedded}",
        f"2606:4700::5efe:{embedded}",
        f"2a00:1450:4001:800:200:5efe:{embedded}",
    ]


SINGLE = [
    *("0.0.0.0", "0.0.0.1", "127.0.0.1", "127.0.1.1", "127.255.255.254", "169.254.169.254", "169.254.170.2"),
    *("169.254.169.253", "100.100.100.200", "168.63.129.16", "192.0.0.192", "255.255.255.255", "224.0.0.251"),
    *("::", "::1", "fd00:ec2::254", "fd00:ec2::253", "fd20:ce::254", "fe80::a9fe:a9fe", "fec0::1", "ff02::1", "1::1"),
    *(form for v4 in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "8.8.8.8") for form in _hidden(v4)),
]
"""Addresses that have been reached elsewhere by whoever only compared blocks, or only IPv4."""


def forbidden() -> dict[Address, str]:
    """Every address that must never be connected to, with the reason."""
    return {ip_address(text): "by itself" for text in SINGLE} | edges()
