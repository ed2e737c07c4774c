"""Exceptions to the table of addresses: who may make which."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network

import pytest

from clarion.sender.address import AddressNotAllowed, UriRefused
from clarion.sender.policy import NEVER_BY_RULE, Policy, Rule, is_own

PUBLIC = [ip_address(f"8.8.{number}.1") for number in range(49)]
ERP = Policy(
    rules=(Rule("erp.plant.local", ip_network("10.1.0.0/16"), 443), Rule(None, ip_network("10.2.0.9/32"), 9443))
)


def test_one_forbidden_answer_among_many_is_enough() -> None:
    policy = Policy()
    target = policy.parse("https://hooks.example/")
    policy.check(target, PUBLIC)
    for bad in ("127.0.0.1", "fe80::1", "169.254.169.254"):
        with pytest.raises(AddressNotAllowed):
            policy.check(target, [*PUBLIC, ip_address(bad)])
    with pytest.raises(AddressNotAllowed):
        policy.check(target, [])
    inside = Policy((ip_network("127.0.0.0/8"),))
    with pytest.raises(AddressNotAllowed):
        inside.check(inside.parse("https://localhost/"), PUBLIC)


def test_a_rule_holds_for_its_host_its_network_and_its_port() -> None:
    ERP.check(ERP.parse("https://erp.plant.local/in"), [ip_address("10.1.2.3")])
    with pytest.raises(AddressNotAllowed):
        ERP.check(ERP.parse("https://erp.plant.local/in"), [ip_address("10.2.0.9")])
    with pytest.raises(AddressNotAllowed):
        ERP.parse("https://mes.plant.local/in")
    with pytest.raises(AddressNotAllowed):
        ERP.parse("https://erp.plant.local:8080/in")
    with pytest.raises(UriRefused, match="port 8080"):
        ERP.parse("https://hooks.example:8080/in")
    assert ERP.parse("https://10.2.0.9:9443/").literal == ip_address("10.2.0.9")
    for uri in ("https://10.2.0.9/", "https://10.2.0.8:9443/"):
        with pytest.raises(AddressNotAllowed):
            ERP.parse(uri)
    # An exception for one name opens nothing for a name outside: its answers are held against the table.
    with pytest.raises(AddressNotAllowed):
        ERP.check(ERP.parse("https://hooks.example/"), [ip_address("10.1.2.3")])


@pytest.mark.parametrize("network", NEVER_BY_RULE, ids=str)
def test_no_rule_opens_loopback_link_local_or_metadata(network: object) -> None:
    """Not even one that was planted in the database, or that holds such an address among others."""
    for wide in (str(network), "0.0.0.0/0", "::/0"):
        policy = Policy(rules=(Rule(None, ip_network(wide), 443),))
        address = ip_network(str(network))[0]
        literal = f"[{address}]" if address.version == 6 else address
        with pytest.raises(AddressNotAllowed):
            policy.parse(f"https://{literal}/")
        with pytest.raises(AddressNotAllowed):
            policy.check(policy.parse("https://hooks.example/"), [address])
    process = Policy((ip_network(str(network)),))
    process.check(process.parse("https://hooks.example/"), [ip_network(str(network))[0]])


def test_our_own_addresses_and_names_are_refused_whatever_a_rule_says() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
    assert is_own(ip_address("127.0.0.1"))
    assert not is_own(ip_address("8.8.8.8"))
    assert not is_own(ip_address("2606:4700::1111"))
    database = ip_address("10.9.9.9")
    policy = Policy(
        rules=(Rule(None, ip_network("10.0.0.0/8"), 443),),
        own_hosts=frozenset({"app.clarion.example"}),
        own_addresses=frozenset({database}),
    )
    with pytest.raises(AddressNotAllowed):
        policy.parse("https://10.9.9.9/")
    with pytest.raises(AddressNotAllowed):
        policy.parse("https://APP.clarion.example/")
    assert policy.parse("https://10.9.9.8/").literal == ip_address("10.9.9.8")
