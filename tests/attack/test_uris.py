"""What must be refused by its text or its address alone: no network is needed to say no."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network

import pytest

from attack.special_purpose import BLOCKS, IPV4, IPV6, edges, forbidden, is_public, outside
from attack.uris import BY_ADDRESS, BY_SYNTAX, REGISTRABLE
from clarion.core.errors import RequestRefused
from clarion.sender.address import AddressNotAllowed, forbidden_reason
from clarion.sender.policy import Policy


@pytest.mark.parametrize("kind", BY_SYNTAX)
def test_no_text_of_the_attack_list_is_a_uri(kind: str) -> None:
    for uri in BY_SYNTAX[kind]:
        with pytest.raises(RequestRefused):
            Policy().parse(uri)


@pytest.mark.parametrize("kind", BY_ADDRESS)
def test_disguised_and_inside_hosts_are_all_refused_with_one_text(kind: str) -> None:
    for uri in BY_ADDRESS[kind]:
        with pytest.raises(AddressNotAllowed) as refused:
            Policy().parse(uri)
        assert str(refused.value) == AddressNotAllowed.TEXT


def test_the_positive_controls_are_uris() -> None:
    for uri in REGISTRABLE:
        Policy().parse(uri)


def test_the_edges_of_every_block_of_both_registries_are_forbidden_and_their_public_neighbours_are_not() -> None:
    assert len(IPV4) == 26
    assert len(IPV6) == 25
    assert {address for address in edges() if forbidden_reason(address, ()) is None} == set()
    assert len(outside()) >= 40
    assert {address for address in outside() if forbidden_reason(address, ()) is not None} == set()


def test_no_single_address_that_must_be_refused_is_public() -> None:
    refused = {address for address in forbidden() if forbidden_reason(address, ()) is not None}
    assert refused == forbidden().keys()
    hidden = {address for address in forbidden() if is_public(address)}
    # No block has these: the address is in the interface identifier.
    assert all(isinstance(address, IPv6Address) and "5efe" in str(address) for address in hidden)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_literals_at_a_blocks_edges_are_refused_as_uris(block: IPv4Network | IPv6Network) -> None:
    for address in (address for address in edges() if address in block):
        literal = f"[{address}]" if address.version == 6 else address
        with pytest.raises(AddressNotAllowed):
            Policy().parse(f"https://{literal}/")
