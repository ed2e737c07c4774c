"""Local addresses, the proxy, and the bound on connections to one host: real sockets, real TLS inside the tunnel."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from ipaddress import ip_address
from typing import Any

import pytest

from clarion.core.errors import UsageInvalid
from clarion.core.system import SystemClock
from clarion.sender.outcome import Attempt, Outcome
from clarion.sender.policy import Policy
from clarion.sender.route import Proxy, Route, parse_proxy
from clarion.sender.send import Sender
from sender.posting import Post, Receivers, sending


class ConnectProxy:
    """An HTTP proxy that tunnels, and keeps the heads of what it was asked."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.answer: bytes | None = None
        """What it says instead of connecting."""
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ConnectProxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if self.answer is not None:
                writer.write(self.answer)
                await writer.drain()
            else:
                host, _, port = head.split(b" ")[1].decode().rpartition(":")
                onward_reader, onward = await asyncio.open_connection(host.strip("[]"), int(port))
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.wait(
                    [asyncio.create_task(_pump(reader, onward)), asyncio.create_task(_pump(onward_reader, writer))],
                    return_when=asyncio.FIRST_COMPLETED,
                )
                onward.close()
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


def _seen(attempt: Attempt) -> Any:
    return json.loads(attempt.response_body)


async def test_requests_leave_from_the_source_addresses_in_turn_and_the_attempt_says_so(receivers: Receivers) -> None:
    sources = (ip_address("127.0.0.7"), ip_address("127.0.0.8"))
    async with sending(receivers, Route(sources)) as post:
        attempts = await asyncio.gather(*(post.begin(receivers.uri("/slow?seconds=0.1")) for _ in range(4)))
    assert {attempt.outcome for attempt in attempts} == {Outcome.SUCCEEDED}
    assert sorted(str(attempt.source_address) for attempt in attempts) == ["127.0.0.7"] * 2 + ["127.0.0.8"] * 2


async def test_a_source_address_that_this_host_has_not_is_our_failure(receivers: Receivers) -> None:
    async with sending(receivers, Route((ip_address("198.51.100.1"),))) as post:
        attempt = await post(receivers.uri("/echo"))
    assert (attempt.outcome, attempt.ours) == (Outcome.OVERLOADED, True)
    assert attempt.error == "the source address 198.51.100.1 is not on this host"


async def test_without_a_source_address_of_the_receivers_version_nothing_is_sent(receivers: Receivers) -> None:
    async with sending(receivers, Route((ip_address("::1"),))) as post:
        attempt = await post(receivers.uri("/echo"))
    assert (attempt.outcome, attempt.ours) == (Outcome.OVERLOADED, True)
    assert attempt.error == "there is no source address for IPv4"


async def test_through_a_proxy_tls_is_still_for_the_receivers_name_and_the_proxy_is_told_an_address(
    receivers: Receivers,
) -> None:
    async with ConnectProxy().running() as proxy:
        route = Route(proxy=Proxy("127.0.0.1", proxy.port, "Basic eDp5"))
        async with sending(receivers, route) as post:
            attempt = await post(receivers.uri("/echo", "localhost", "localhost"))
            wrong_name = await post(receivers.uri("/echo", "wrong name"), receiver_id=2)
    assert attempt.outcome is Outcome.SUCCEEDED
    assert attempt.peer_address == receivers.localhost_address
    assert "eDp5" not in json.dumps(_seen(attempt))
    authority = f"{receivers.localhost_address}:{receivers.ports['localhost']}".encode()
    assert proxy.heads[0].startswith(b"CONNECT " + authority + b" HTTP/1.1\r\nHost: " + authority + b"\r\n")
    assert b"\r\nProxy-Authorization: Basic eDp5\r\n" in proxy.heads[0]
    assert b"localhost" not in proxy.heads[0]
    assert wrong_name.outcome is Outcome.TLS_FAILED
    assert "mismatch" in str(wrong_name.error)


async def test_a_forbidden_destination_never_reaches_the_proxy(receivers: Receivers) -> None:
    async with ConnectProxy().running() as proxy:
        sender = Sender(SystemClock(), policy=Policy(), ca_file=None, route=Route(proxy=Proxy("127.0.0.1", proxy.port)))
        for uri in ("https://127.0.0.1/", "https://169.254.169.254/", "https://localhost/"):
            assert (await Post(sender)(uri)).outcome is Outcome.BLOCKED
        await sender.close()
    assert proxy.heads == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "it answered 407 to CONNECT"),
        (b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\nbad", "it answered 502 to CONNECT"),
        (b"HTTP/1.1 200 OK\r\n\r\nand more", "it sent more than an answer to CONNECT"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "its answer to CONNECT is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000, "its answer to CONNECT does not end"),
        (b"", "it closed the connection before it answered"),
    ],
)
async def test_whatever_goes_wrong_at_the_proxy_is_our_failure(receivers: Receivers, answer: bytes, error: str) -> None:
    async with ConnectProxy().running() as proxy:
        proxy.answer = answer
        async with sending(receivers, Route(proxy=Proxy("127.0.0.1", proxy.port))) as post:
            attempt = await post(receivers.uri("/echo"))
    assert (attempt.outcome, attempt.ours) == (Outcome.PROXY_FAILED, True)
    assert attempt.error == f"the egress proxy failed: {error}"


async def test_a_proxy_that_is_not_there_or_has_no_name_is_our_failure(receivers: Receivers) -> None:
    for proxy in (Proxy("127.0.0.1", 1), Proxy("proxy.invalid", 3128)):
        async with sending(receivers, Route(proxy=proxy)) as post:
            attempt = await post(receivers.uri("/echo"))
        assert (attempt.outcome, attempt.ours) == (Outcome.PROXY_FAILED, True)


def test_the_proxys_url_is_parsed_strictly_and_its_password_hidden() -> None:
    proxy = parse_proxy("http://clarion:p%40ss@proxy.example:3128")
    assert (proxy.host, proxy.port) == ("proxy.example", 3128)
    assert proxy.authorization == "Basic " + base64.b64encode(b"clarion:p@ss").decode()
    assert str(proxy.authorization) not in repr(Route(proxy=proxy))
    assert parse_proxy("http://[::1]:3128/") == Proxy("::1", 3128)
    for url in (
        "https://proxy.example:3128",
        "proxy.example:3128",
        "http://proxy.example",
        "http://u:p@ss@h:1",
        "http://h:0",
    ):
        with pytest.raises(UsageInvalid) as refused:
            parse_proxy(url)
        assert "u:p@ss" not in str(refused.value)


async def test_all_receivers_together_get_a_bounded_number_of_connections_to_one_host(receivers: Receivers) -> None:
    """Forty receivers want four connections each; what is idle at one makes room for the next."""
    async with sending(receivers, connections_per_host=8) as post:
        wanted = [
            post.begin(receivers.uri("/slow?seconds=0.05"), receiver_id=number, timeout_s=20)
            for number in range(40)
            for _ in range(4)
        ]
        most = 0
        while not all(future.done() for future in wanted):
            pools = [receiver.pool for receiver in post.sender._receivers.values() if receiver.pool is not None]
            most = max(most, sum(pool.connections_count for pool in pools))
            await asyncio.sleep(0.005)
        assert {future.result().outcome for future in wanted} == {Outcome.SUCCEEDED}
        assert most == 8
        idle = await post(receivers.uri("/echo"), receiver_id=1000)
        assert idle.outcome is Outcome.SUCCEEDED


async def test_a_busy_receiver_gives_up_a_connection_for_one_that_waits(receivers: Receivers) -> None:
    async with sending(receivers, connections_per_host=2) as post:
        ended = False

        async def keep_busy() -> None:
            while not ended:
                await post(receivers.uri("/echo"), receiver_id=1)

        busy = [asyncio.create_task(keep_busy()) for _ in range(8)]
        await asyncio.sleep(0.2)
        waiting = [await post(receivers.uri("/echo"), receiver_id=number, timeout_s=2) for number in range(2, 6)]
        ended = True
        await asyncio.gather(*busy)
    assert [attempt.outcome for attempt in waiting] == [Outcome.SUCCEEDED] * 4


async def test_nothing_tells_a_refused_connection_from_one_that_there_was_no_room_for(receivers: Receivers) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        socket.socket() as closed,
        ExitStack() as ending,
    ):
        closed.bind(("127.0.0.1", 0))
        filling = [ending.enter_context(socket.socket()) for _ in range(4)]
        for one in filling:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        ends = []
        for port in (full.getsockname()[1], closed.getsockname()[1]):
            async with sending(receivers, connections_per_host=1) as post:
                started = time.monotonic()
                attempts = await asyncio.gather(
                    *(post.begin(f"https://127.0.0.1:{port}/", timeout_s=1, uniform=True) for _ in range(3))
                )
                # The event loop's clock goes in milliseconds, and may be one ahead.
                assert time.monotonic() - started >= 1.14
                ends.append({(one.outcome, one.error, one.duration_ms, one.peer_address, one.ours) for one in attempts})
    assert ends[0] == ends[1]
    assert len(ends[0]) == 1
