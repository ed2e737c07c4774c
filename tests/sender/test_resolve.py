from __future__ import annotations

import asyncio
import socket
import time
from ipaddress import ip_address, ip_network

import pytest

from clarion.sender.address import AddressNotAllowed, UriRefused
from clarion.sender.policy import Policy
from clarion.sender.resolve import LOOKUPS_AT_ONCE_MAX, NameNotResolved, ResolverFailed, check_uri, resolve

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


async def test_a_name_gives_all_its_addresses_once() -> None:
    expected = {ip_address(answer[4][0]) for answer in socket.getaddrinfo("localhost", 443)}
    answers = await resolve("localhost", 443)
    assert set(answers) == expected
    assert len(answers) == len(expected)


async def test_a_name_that_does_not_exist_is_told_from_a_resolver_that_fails() -> None:
    # Where there is no resolver at all, the lookup itself fails; both are typed.
    with pytest.raises((NameNotResolved, ResolverFailed)):
        await resolve("does-not-exist.example", 443)


async def test_a_lookup_beyond_its_budget_is_our_failure() -> None:
    with pytest.raises(ResolverFailed, match="within 0 s"):
        await resolve("localhost", 443, budget_s=0)
    assert await resolve("localhost", 443)


async def test_a_name_that_does_not_resolve_today_is_accepted_with_a_warning() -> None:
    [warning] = await check_uri("https://whoknows.where.this.leads", Policy())
    assert warning.code == "NAME_NOT_RESOLVED"
    assert "whoknows.where.this.leads" in warning.message


async def test_public_literals_are_accepted_without_warning() -> None:
    assert await check_uri("https://8.8.8.8/hook", Policy()) == []


async def test_localhost_is_accepted_on_any_port_only_if_its_addresses_are_allowed() -> None:
    assert await check_uri("https://localhost:9000/", Policy(LOOPBACK)) == []
    for allowed in ((), (ip_network("10.0.0.0/8"),), (ip_network("127.0.0.2/32"),)):
        with pytest.raises(AddressNotAllowed):
            await check_uri("https://localhost/", Policy(allowed))


async def test_another_port_on_a_name_outside_is_a_matter_of_the_port_whatever_it_resolves_to() -> None:
    for allowed in ((), LOOPBACK):
        with pytest.raises(UriRefused, match="port 9000"):
            await check_uri("https://whoknows.where.this.leads:9000/", Policy(allowed))


async def test_an_inside_name_that_does_not_resolve_is_refused_like_one_that_resolves_elsewhere() -> None:
    with pytest.raises(AddressNotAllowed):
        await check_uri("https://printer.local/", Policy(LOOPBACK))


async def test_no_refusal_of_an_address_comes_before_its_quarter_of_a_second_is_over() -> None:
    for uri in ("https://127.0.0.1/", "https://2130706433/", "https://printer.local/", "https://localhost/"):
        for policy in (Policy(), Policy((ip_network("10.0.0.0/8"),))):
            started = time.monotonic()
            with pytest.raises(AddressNotAllowed):
                await check_uri(uri, policy)
            assert time.monotonic() - started > 0.249


async def test_more_lookups_than_are_made_at_once_wait_for_room() -> None:
    found = await asyncio.gather(*(resolve("localhost", 443, 10.0) for _ in range(LOOKUPS_AT_ONCE_MAX * 2)))
    assert len({tuple(addresses) for addresses in found}) == 1
    with pytest.raises(ResolverFailed, match="within 0 s|under way for 0 s"):
        await resolve("localhost", 443, 0.0)
    assert await resolve("localhost", 443) == found[0]
