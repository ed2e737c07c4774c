# ruff: noqa: RUF001 - look-alike characters are what is tested

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clarion.core.errors import Code
from clarion.sender.address import (
    AddressNotAllowed,
    Network,
    UriRefused,
    forbidden_reason,
    parse_webhook_uri,
)


def _words(text: str) -> list[str]:
    return text.split()


LOOPBACK = (ip_network("127.0.0.0/8"),)


def outside(_host: str, _port: int) -> tuple[Network, ...]:
    return ()


def inside(_host: str, _port: int) -> tuple[Network, ...]:
    return LOOPBACK


FORBIDDEN_V4 = _words(
    """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12
    192.0.0.0/24 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24 192.88.99.0/24 192.168.0.0/16
    192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    """
)
FORBIDDEN_V6 = _words(
    """
    ::/3 4000::/2 8000::/1 ::1/128 ::ffff:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 5f00::/16 fc00::/7
    fe80::/10 fec0::/10 ff00::/8 2001::/23 2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20
    """
)


@pytest.mark.parametrize("block", FORBIDDEN_V4 + FORBIDDEN_V6)
def test_the_first_the_middle_and_the_last_address_of_each_block_are_forbidden(block: str) -> None:
    network = ip_network(block)
    first, last = network[0], network[-1]
    middle = network[network.num_addresses // 2]
    for address in (first, middle, last):
        assert forbidden_reason(address, ()) is not None


@pytest.mark.parametrize(
    "address",
    _words(
        """
        1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15
        168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0
        192.0.3.0 192.31.195.255 192.31.197.0 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0
        198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255
        8.8.8.8 44.232.1.74 2001:200:: 2001:db7:ffff:: 2001:db9:: 2003:: 2606:4700::1111 2a00:1450:4001::1
        3ffe:: 3fff:1000::
        """
    ),
)
def test_addresses_just_outside_the_blocks_are_allowed(address: str) -> None:
    assert forbidden_reason(ip_address(address), ()) is None


@pytest.mark.parametrize(
    "address",
    _words(
        """
        ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1 64:ff9b::a00:1 64:ff9b:1::a00:1
        2002:7f00:1:: 2a00:1450::5efe:7f00:1 2a00:1450::200:5efe:808:808 fd00:ec2::254 fd20:ce::254
        2001:0:7f00:1::
        """
    ),
)
def test_ipv6_addresses_that_carry_an_ipv4_address_are_forbidden(address: str) -> None:
    assert forbidden_reason(ip_address(address), ()) is not None


def test_an_allowed_network_wins_over_the_table_also_through_a_mapped_address() -> None:
    for address in ("127.0.0.1", "127.255.255.255", "::ffff:127.0.0.1"):
        assert forbidden_reason(ip_address(address), LOOPBACK) is None
    assert forbidden_reason(ip_address("10.0.0.1"), LOOPBACK) is not None
    assert forbidden_reason(ip_address("::1"), LOOPBACK) is not None
    assert forbidden_reason(ip_address("::1"), (ip_network("::1/128"),)) is None


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_the_verdict_on_ipv4_never_permits_what_no_registry_calls_global(address: IPv4Address) -> None:
    if forbidden_reason(address, ()) is None:
        assert not (address.is_private or address.is_multicast or address.is_reserved or address.is_link_local)


@given(st.integers(0, 2**128 - 1).map(IPv6Address))
def test_ipv6_is_denied_outside_global_unicast(address: IPv6Address) -> None:
    if forbidden_reason(address, ()) is None:
        assert address in ip_network("2000::/3")


@pytest.mark.parametrize(
    ("uri", "host", "port", "target", "authority"),
    [
        ("https://whoknows.where.this.leads", "whoknows.where.this.leads", 443, "/", "whoknows.where.this.leads"),
        ("HTTPS://Hooks.Example.COM/a/b?c=d&e=%20", "hooks.example.com", 443, "/a/b?c=d&e=%20", "hooks.example.com"),
        ("https://hooks.example:8443/", "hooks.example", 8443, "/", "hooks.example:8443"),
        ("https://hooks.example:443/@user;v=1", "hooks.example", 443, "/@user;v=1", "hooks.example"),
        ("https://hooks.example/?a[]=1", "hooks.example", 443, "/?a[]=1", "hooks.example"),
        ("https://bücher.example/x", "xn--bcher-kva.example", 443, "/x", "xn--bcher-kva.example"),
        ("https://xn--bcher-kva.example/x", "xn--bcher-kva.example", 443, "/x", "xn--bcher-kva.example"),
        ("https://r3---sn-x.example/", "r3---sn-x.example", 443, "/", "r3---sn-x.example"),
        ("https://8.8.8.8/", "8.8.8.8", 443, "/", "8.8.8.8"),
        ("https://[2606:4700:0:0::1111]:8443/x", "2606:4700::1111", 8443, "/x", "[2606:4700::1111]:8443"),
    ],
)
def test_good_uris_come_apart_as_written(uri: str, host: str, port: int, target: str, authority: str) -> None:
    parsed = parse_webhook_uri(uri)
    assert (parsed.host, parsed.port, parsed.target, parsed.authority) == (host, port, target, authority)
    assert not parsed.only_allowed


@pytest.mark.parametrize(
    "uri",
    [
        *(
            f"{scheme}://hooks.example/"
            for scheme in ("http", "ftp", "file", "gopher", "dict", "ldap", "ws", "wss", "xhttps")
        ),
        "data:text/plain,x", "javascript:alert(1)", "", "hooks.example", "//hooks.example/", "https:hooks.example",
        "https:/hooks.example", "https:///hooks.example", "https://", "https://:443/", "https", "https:",
        # user information and what parsers disagree about
        "https://u:p@hooks.example/", "https://@[::1]/", "https://good.example@127.0.0.1/",
        "https://good.example:443@127.0.0.1:443/", "https://127.0.0.1\\@good.example/",
        "https://good.example\\@127.0.0.1/", "https://127.0.0.1%2f@good.example/", "https://good.example;@127.0.0.1/",
        "https://127.0.0.1#@good.example/", "https://good.example?@127.0.0.1/", "https://good.example/\\x",
        # control characters, spaces, invisible characters
        " https://hooks.example/", "https://hooks.example/ ", "https://hooks.example/\n", "https://ho\toks.example/",
        "https://hooks.example\x00.other.example/", "https://hooks.example/\r\nx: y", "https://hooks.example/\x7f",
        "https://hooks.example/\x85", "https://hooks\u200b.example/", "\ufeffhttps://hooks.example/",
        "https://hooks.example/\u202e", "https://ho\u00adoks.example/", "https://hooks.example/?a=\u00a0",
        # ports
        *(
            f"https://hooks.example:{port}/"
            for port in _words(
                """
                0 65536 +443 ４４３ 443:443 -1 0443 0x1bb 443a 22 25 80 3306 5432 6379 9200 11211
                """
            )
        ),
        "https://hooks.example:/", "https://8.8.8.8:22/",
        # brackets
        "https://[127.0.0.1]/", "https://[::1].good.example/", "https://good.example[::1]/", "https://[::1%25lo]/",
        "https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/", "https://::1/", "https://[::1/", "https://::1]/",
        "https://[]/", "https://[v1.x]/", "https://[::1]x/", "https://[ｆe80::1]/",
        # names
        "https://ho%6fks.example/", "https://hooks..example/", "https://.hooks.example/", "https://hooks.example./",
        f"https://{'a' * 64}.example/", f"https://{'a.' * 130}example/", "https://-hooks.example/",
        "https://hooks-.example/", "https://ho_oks.example/", "https://hooks.example/#fragment",
        "https://hooks.example/" + "a" * 2048, "https://ho!oks.example/", "https://hooks,example.com/",
        # paths
        "https://hooks.example/%", "https://hooks.example/%2", "https://hooks.example/%zz", "https://hooks.example/ä",
        "https://hooks.example/<x>", 'https://hooks.example/?"', "https://hooks.example/{x}", "https://hooks.example?x",
    ],
)  # fmt: skip
def test_malformed_uris_are_refused_with_a_reason(uri: str) -> None:
    for allowed in ((), LOOPBACK):
        if allowed and uri.startswith("https://hooks.example:") and uri[22:-1] in _NUMERIC_PORTS:
            continue  # with an allowed network, other ports are decided by what the name resolves to
        with pytest.raises(UriRefused) as refused:
            parse_webhook_uri(uri, inside if allowed else outside)
        assert refused.value.code is Code.INVALID_INPUT
        assert refused.value.field == "input.webhookUri"
        assert refused.value.message


_NUMERIC_PORTS = {"22", "25", "80", "3306", "5432", "6379", "9200", "11211"}

FORBIDDEN_HOSTS = _words(
    """
    127.0.0.1 10.1.2.3 169.254.169.254 192.168.0.1 0.0.0.0 255.255.255.255 224.0.0.1 [::1] [::]
    [::ffff:127.0.0.1] [fe80::1] [fd00:ec2::254] [2002:7f00:1::] [64:ff9b::7f00:1] 127.1 127.0.1
    2130706433 0x7f000001 0x7f.1 0177.0.0.1 127.000.000.001 0 00 0x0.0 4294967296 127.0.0.1. 1.2.3.4.5
    256.1.1.1 0X7F.0.0.1 127.0.0.0x1 8.8.8.08 010.8.8.8 hooks.example.123 hooks.0x ①②⑦.⓪.⓪.① １２７.0.0.1
    127。0。0。1 127．0．0．1 127｡0｡0｡1 ⓛocalhost ｌocalhost.example xn--a.example xn--.example
    xn--localhost-.example xn--bcher-kvA1.example localhost LOCALHOST localhost. foo.localhost
    localhost.localdomain ip6-localhost printer.local metadata metadata.google.internal
    host.docker.internal nas.lan box.home.arpa x.svc.cluster.local kubernetes.default.svc a.onion a.test
    a.invalid intranet a.corp
    """
)


@pytest.mark.parametrize("host", FORBIDDEN_HOSTS)
def test_everything_about_an_address_is_refused_with_one_text(host: str) -> None:
    with pytest.raises(AddressNotAllowed) as refused:
        parse_webhook_uri(f"https://{host}/")
    assert refused.value.message == AddressNotAllowed.TEXT
    assert refused.value.code is Code.ADDRESS_NOT_ALLOWED
    with pytest.raises((AddressNotAllowed, UriRefused)):
        parse_webhook_uri(f"https://user@{host}/")


def test_allowed_networks_open_any_port_on_their_literals_only() -> None:
    assert parse_webhook_uri("https://127.0.0.1:5432/", inside).only_allowed
    assert not parse_webhook_uri("https://127.0.0.1/", inside).only_allowed
    with pytest.raises(AddressNotAllowed):
        parse_webhook_uri("https://10.0.0.1/", inside)
    with pytest.raises(UriRefused, match="port 5432"):
        parse_webhook_uri("https://8.8.8.8:5432/", inside)


@pytest.mark.parametrize("uri", ["https://localhost/", "https://intranet/", "https://hooks.example:9000/"])
def test_with_allowed_networks_inside_names_and_other_ports_depend_on_their_answers(uri: str) -> None:
    assert parse_webhook_uri(uri, inside).only_allowed


@example("https://1.1.1.1:443")
@example("https://xn--" + "9" * 50 + ".example")
@given(
    st.one_of(
        st.text(max_size=60),
        st.text(alphabet="htps:/.@[]#?%\\0123456789abcdefx-_ \t\n①。ßİ\u200d", max_size=40).map("https://".__add__),
    )
)
def test_any_text_gives_a_safe_target_or_a_typed_refusal(text: str) -> None:
    try:
        target = parse_webhook_uri(text)
    except (UriRefused, AddressNotAllowed):
        return
    assert text.lower().startswith("https://")
    assert target.host.isascii()
    assert target.host == target.host.lower()
    assert target.port in {443, 8443}
    assert target.target.startswith("/")
    assert all("!" <= character <= "~" for character in target.target + target.authority)
    assert "." in target.host or target.literal is not None
    if target.literal is not None:
        assert forbidden_reason(target.literal, ()) is None
    else:
        assert not target.host.rpartition(".")[2].isdigit()
    assert parse_webhook_uri(f"https://{target.authority}{target.target}") == target
