"""Deadlines that pass before the receiver had its time: whose fault they are."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from clarion.sender.opening import Opening, fault_of_ours
from clarion.sender.outcome import Attempt, Outcome
from clarion.sender.route import Proxy, Route
from sender.posting import Receivers, sending


class Resolver:
    """The system's resolver, silent until it is let answer."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer
        self.asked = threading.Event()
        self.may_answer = threading.Event()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.asked.set()
        self.may_answer.wait(20)
        return self._answer(*arguments, **options)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    silent = Resolver(socket.getaddrinfo)
    monkeypatch.setattr(socket, "getaddrinfo", silent)
    yield silent
    silent.may_answer.set()


@asynccontextmanager
async def silent_proxy(answer_after_s: float | None = None) -> AsyncIterator[Route]:
    """A proxy that takes connections and says that it connected after that time, if at all."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer_after_s is not None:
            await asyncio.sleep(answer_after_s)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Route(proxy=Proxy("127.0.0.1", server.sockets[0].getsockname()[1]))
    finally:
        server.close()


def _blame(attempt: Attempt) -> tuple[Outcome, bool, str | None]:
    return attempt.outcome, attempt.ours, attempt.error


async def test_a_resolver_that_is_silent_until_the_deadline_is_ours(receivers: Receivers, resolver: Resolver) -> None:
    """The lookup's own budget of two seconds is longer than the attempt: it was blamed on the receiver."""
    async with sending(receivers) as post:
        attempt = await post(receivers.uri("/echo", "localhost", "localhost"), timeout_s=1)
        assert resolver.asked.is_set()
    assert _blame(attempt) == (Outcome.DNS_FAILED, True, "looking up the name took 1.0 of the attempt's 1 s")


async def test_a_lookup_that_leaves_the_receiver_little_time_is_ours(receivers: Receivers, resolver: Resolver) -> None:
    async with sending(receivers) as post:
        late = post.begin(receivers.uri("/hang", "localhost", "localhost"), timeout_s=1)
        await asyncio.sleep(0.8)
        resolver.may_answer.set()
        attempt = await late
    assert (attempt.outcome, attempt.ours) == (Outcome.DNS_FAILED, True)


async def test_a_receiver_that_does_not_shake_hands_is_to_blame(receivers: Receivers) -> None:
    async with sending(receivers) as post:
        attempt = await post(receivers.uri("/", "silent"), timeout_s=1)
    assert _blame(attempt) == (Outcome.TIMED_OUT, False, "no connection within 1 s")


async def test_a_proxy_that_is_silent_until_the_deadline_is_ours(receivers: Receivers) -> None:
    async with silent_proxy() as route, sending(receivers, route) as post:
        attempt = await post(receivers.uri("/echo"), timeout_s=1)
    assert _blame(attempt) == (
        Outcome.PROXY_FAILED,
        True,
        "the egress proxy failed: connecting through it took 1.0 of the attempt's 1 s",
    )


async def test_a_proxy_whose_name_is_being_looked_up_is_ours(receivers: Receivers, resolver: Resolver) -> None:
    async with sending(receivers, Route(proxy=Proxy("localhost", 1))) as post:
        attempt = await post(receivers.uri("/echo"), timeout_s=1)
        assert resolver.asked.is_set()
    assert (attempt.outcome, attempt.ours) == (Outcome.PROXY_FAILED, True)


@pytest.mark.parametrize(("answer_after_s", "timeout_s"), [(0.8, 1), (4.7, 20)], ids=["deadline", "connecting"])
async def test_a_proxy_that_left_the_receiver_no_time_for_its_handshake_is_ours(
    receivers: Receivers, answer_after_s: float, timeout_s: int
) -> None:
    """By the attempt's deadline, and by the five seconds that connecting may take."""
    async with silent_proxy(answer_after_s) as route, sending(receivers, route) as post:
        attempt = await post(receivers.uri("/echo"), timeout_s=timeout_s)
    assert (attempt.outcome, attempt.ours) == (Outcome.PROXY_FAILED, True)


async def test_who_waits_for_room_while_another_connection_is_opened_waits_for_us(receivers: Receivers) -> None:
    """One connection is being opened to a silent receiver and there is no room for a second: only the first is its fault."""
    async with sending(receivers, connections_per_host=1) as post:
        first, second = (post.begin(receivers.uri("/", "silent"), timeout_s=1) for _ in range(2))
        opening, waiting = await asyncio.gather(first, second)
    assert _blame(opening) == (Outcome.TIMED_OUT, False, "no connection within 1 s")
    assert _blame(waiting) == (Outcome.OVERLOADED, True, "waiting for a free connection took 1.0 of the attempt's 1 s")


async def test_a_connection_that_came_free_too_late_is_ours(receivers: Receivers) -> None:
    async with sending(receivers) as post:
        post.begin(receivers.uri("/slow?seconds=0.8"), concurrency=1)
        attempt = await post(receivers.uri("/hang"), concurrency=1, timeout_s=1)
    assert (attempt.outcome, attempt.ours) == (Outcome.OVERLOADED, True)


def test_the_receiver_is_to_blame_where_it_had_at_least_half_of_the_time() -> None:
    times = iter([2_000, 3_000, 5_000])  # it begins, the name is known, the proxy has connected
    opening = Opening(lambda: next(times))
    assert _cause(opening) is Outcome.DNS_FAILED
    assert _cause(opening, deadline_ns=3_000) is Outcome.OVERLOADED
    opening.looked_up()
    assert _cause(opening) is Outcome.PROXY_FAILED
    opening.reached()
    assert _cause(opening) is None
    assert _cause(opening, waiting_since_ns=1_000, started_ns=1_000) is None
    assert _cause(opening, deadline_ns=9_000) is Outcome.OVERLOADED
    assert _cause(opening, waiting_since_ns=2_500, deadline_ns=9_000) is None


def _cause(
    opening: Opening, started_ns: int = 0, waiting_since_ns: int = 0, deadline_ns: int = 10_000
) -> Outcome | None:
    failure = fault_of_ours(started_ns, deadline_ns, waiting_since_ns, opening)
    return None if failure is None else failure.outcome


async def test_the_first_connection_is_opened_alone_for_a_moment_and_others_beside_it_then(
    receivers: Receivers,
) -> None:
    async with sending(receivers) as post:
        hanging = [post.begin(receivers.uri("/", "silent"), timeout_s=5) for _ in range(4)]
        (receiver,) = post.sender._receivers.values()
        assert receiver.pool is not None
        assert receiver.pool.connections_count == 1
        async with asyncio.timeout(4):
            while receiver.pool.connections_count < 4:
                await asyncio.sleep(0.01)
        assert not any(attempt.done() for attempt in hanging)
