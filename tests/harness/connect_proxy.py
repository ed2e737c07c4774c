"""A real CONNECT proxy (RFC 9110, section 9.3.6): tunnels to whatever it is asked for, and says what that was.

`python -m harness.connect_proxy [HOST]` prints its port, then one line for each CONNECT, until its standard input ends.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import uvloop

_TESTS = Path(__file__).resolve().parents[1]


class ProxyProcess:
    """The proxy from the test's side, on `port`; `prefix` runs it elsewhere (`ip netns exec NAME`)."""

    def __init__(self, host: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "harness.connect_proxy", host],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_TESTS,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://{host}:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> list[str]:
        """The authorities that it was asked for, in order."""
        asked, _ = self._process.communicate("", timeout=10)
        return asked.split()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()


class _Onward(asyncio.Protocol):
    """The tunnel's far side: what it reads goes back to the near one."""

    def __init__(self, near: asyncio.Transport) -> None:
        self._near = near

    def data_received(self, data: bytes) -> None:
        self._near.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._near.close()


class _Near(asyncio.Protocol):
    """The side of whoever asks."""

    def __init__(self) -> None:
        self._head = b""
        self._onward: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._onward is not None:
            self._onward.write(data)
            return
        self._head += data
        if b"\r\n\r\n" in self._head and self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open())

    async def _open(self) -> None:
        method, authority, _ = self._head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        host, _, port = authority.rpartition(":")
        if method != "CONNECT":
            self._transport.write(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n")
            return
        print(authority, flush=True)
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: _Onward(self._transport), host.strip("[]"), int(port)
            )
        except OSError:
            self._transport.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
            self._transport.close()
            return
        self._onward = transport
        self._transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._onward is not None:
            self._onward.close()


async def _serve(host: str) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Near, host, 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    with suppress(asyncio.CancelledError):
        await ended.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"))
