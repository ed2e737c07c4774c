"""Sending one request at a time to the scripted receiver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from clarion.core.system import SystemClock
from clarion.sender.outcome import Attempt
from clarion.sender.policy import Policy
from clarion.sender.route import Route
from clarion.sender.send import Endpoint, Sender

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
SECRET = b"0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Receivers:
    """Ports of the scripted receiver's listeners, by what is special about them."""

    ca_file: Path
    localhost_address: str
    ports: dict[str, int]

    def uri(self, path: str, listener: str = "good", host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.ports[listener]}{path}"


class Post:
    """Sends one request at a time and waits for its attempt."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.endpoint = Endpoint(
            receiver_id=1,
            uri="",
            content_type="application/json",
            headers=(),
            secrets=(SECRET,),
            signatures=("V1",),
            timeout_s=5,
            concurrency=4,
            expected_response_code=None,
        )
        self._count = 0

    async def __call__(
        self, uri: str, body: bytes = b"{}", extra: tuple[tuple[str, str], ...] = (), **changes: Any
    ) -> Attempt:
        return await self.begin(uri, body, extra, **changes)

    def begin(
        self, uri: str, body: bytes = b"{}", extra: tuple[tuple[str, str], ...] = (), **changes: Any
    ) -> asyncio.Future[Attempt]:
        uniform = changes.pop("uniform", False)
        self._count += 1
        future: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()
        endpoint = replace(self.endpoint, uri=uri, **changes)
        self.sender.send(
            endpoint, f"evt_1_{self._count}", SystemClock().now(), body, extra, future.set_result, uniform=uniform
        )
        assert not future.done()
        return future


@asynccontextmanager
async def sending(receivers: Receivers, route: Route = Route(), connections_per_host: int = 64) -> AsyncIterator[Post]:
    """A sender to these receivers, by this route."""
    sender = Sender(
        SystemClock(),
        policy=Policy(LOOPBACK),
        ca_file=receivers.ca_file,
        route=route,
        connections_per_host=connections_per_host,
    )
    try:
        yield Post(sender)
    finally:
        await sender.close()
