"""A receiver in a process of its own: real TLS, real HTTP, every request written down before it is answered.

The path decides what it does: `/ok` answers 200, `/slow` the same half a second later, `/slow/3` after so many seconds,
`/status/503` that status, `/hang` nothing, `/dribble` a byte of its answer every half second without end, in one of several
places, `/close` closes, `/mirror` sends the request's headers back, in its own headers and body, `/switch/NAME` does what
`ReceiverProcess.switch` said for that name, `/switch` for none.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

import httptools
import orjson
import uvloop

_TESTS = Path(__file__).resolve().parents[1]
_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"transfer-encoding: chunked\r\n\r\n"
DRIBBLES = (
    (b"HTTP/1.1 200 ", b"x"),
    (_OK + b"x: ", b"y"),
    (b"HTTP/1.1 103 X\r\n\r\n", b"HTTP/1.1 103 X\r\n\r\n"),
    (_OK + b"content-length: 9999\r\n\r\n", b"x"),
    (_CHUNKED, b"0"),
    (_CHUNKED + b"0\r\nx: ", b"y"),
)
"""Answers without an end: what comes at once, and what follows byte by byte, again and again."""
_DRIBBLE_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived; `at` in Unix seconds, header names in lower case.

    `status` is what it was answered with, None if it got no whole answer; `source` the address that it came from.
    """

    at: float
    path: str
    headers: dict[str, str]
    body: bytes
    status: int | None = None
    source: str = ""

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]

    def json(self) -> dict[str, Any]:
        """The body, parsed."""
        parsed: dict[str, Any] = orjson.loads(self.body)
        return parsed


class ReceiverProcess:
    """The receiver from the test's side."""

    def __init__(self, directory: Path, certificate: tuple[Path, Path], host: str = "127.0.0.1") -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "received.log"
        self._log.touch()
        self._switch = directory / "switches"
        self._switch.mkdir()
        self.switch(200)
        # The log is read once, however often it is asked for: it grows to hundreds of megabytes.
        self._reading = threading.Lock()
        self._requests: list[Received] = []
        self._read_upto = self._counted_upto = self._count = 0
        with socket.create_server((host, 0)) as listening:
            self.port: int = listening.getsockname()[1]
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "harness.receiver",
                    str(listening.fileno()),
                    *(str(path) for path in (*certificate, self._log, self._switch)),
                ],
                cwd=_TESTS,
                pass_fds=[listening.fileno()],
            )
        self.host = host

    def uri(self, path: str = "/ok") -> str:
        """The address to register."""
        return f"https://{self.host}:{self.port}{path}"

    def switch(self, behaviour: int | Literal["hang", "dribble", "slow"], name: str = "") -> None:
        """What `/switch/NAME` (without a name: `/switch`) does from now on: answer with that status, or as the path of that name."""
        switch = self._switch / (name or "switch")
        fresh = switch.with_suffix(".new")
        fresh.write_text(str(behaviour))
        fresh.replace(switch)

    def received(self) -> list[Received]:
        """All requests so far, in the order of arrival."""
        with self._reading:
            lines = self._new_lines(self._read_upto)
            self._read_upto += len(lines)
            for line in lines.split(b"\n")[:-1]:
                at, path, headers, body, status, source = orjson.loads(line)
                self._requests.append(Received(at, path, headers, body.encode("latin-1"), status, source))
            return self._requests.copy()

    def count(self) -> int:
        """How many requests came, without reading them."""
        with self._reading:
            lines = self._new_lines(self._counted_upto)
            self._counted_upto += len(lines)
            self._count += lines.count(b"\n")
            return self._count

    def _new_lines(self, read_upto: int) -> bytes:
        with self._log.open("rb") as log:
            log.seek(read_upto)
            new = log.read()
        # A read may fall into the middle of a write: what stands behind the last newline is not yet a request.
        return new[: new.rfind(b"\n") + 1]

    def wait_for(self, count: int, timeout_s: float = 10) -> list[Received]:
        """All requests, once there are at least `count`; fails after the timeout."""
        self.wait_until(lambda now: now >= count, timeout_s=timeout_s)
        return self.received()

    def wait_until(self, enough: Callable[[int], bool], timeout_s: float = 10) -> None:
        """Until the number of requests is `enough`; fails after the timeout."""
        deadline = time.monotonic() + timeout_s
        while not enough(count := self.count()):
            if time.monotonic() > deadline:
                raise AssertionError(f"{count} requests after {timeout_s} s are not enough")
            time.sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()


class _Connection(asyncio.Protocol):
    _dribbles = itertools.cycle(DRIBBLES)

    def __init__(self, log: int, switch: Path) -> None:
        self._log = log
        self._switch = switch
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._path = ""
        self._source = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's by inheritance, only by behaviour.
        self._transport = cast("asyncio.Transport", transport)
        self._source = transport.get_extra_info("peername")[0]

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        assert self._transport is not None
        behaviour = self._behaviour()
        status = int(behaviour) if behaviour.isdigit() else 200 if behaviour == "slow" else None
        body = bytes(self._body).decode("latin-1")
        os.write(
            self._log,
            orjson.dumps([time.time(), self._path, self._headers, body, status, self._source]) + b"\n",
        )
        path, headers, self._headers, self._body = self._path, self._headers, {}, bytearray()
        if behaviour == "close":
            self._transport.abort()
        elif behaviour == "dribble":
            start, rest = next(self._dribbles)
            self._transport.write(start)
            self._dribble(itertools.cycle(rest))
        if status is None:
            return
        answer = b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\nok" % status
        if path == "/mirror":
            content = orjson.dumps(headers)
            mirrored = "".join(f"x-your-{name}: {value}\r\n" for name, value in headers.items()).encode()
            answer = b"HTTP/1.1 200 X\r\n%bcontent-length: %d\r\n\r\n%b" % (mirrored, len(content), content)
        if behaviour == "slow":
            seconds = float(path.removeprefix("/slow/")) if path.startswith("/slow/") else 0.5
            asyncio.get_running_loop().call_later(seconds, self._transport.write, answer)
        else:
            self._transport.write(answer)

    def _behaviour(self) -> str:
        """A status, or `slow`, `hang`, `dribble`, `close`."""
        _, first, *rest = self._path.split("/")
        match first:
            case "switch":
                return (self._switch / (rest[0] if rest else "switch")).read_text()
            case "status":
                return rest[0]
            case "slow" | "hang" | "dribble" | "close":
                return first
            case _:
                return "200"

    def _dribble(self, rest: Iterator[int]) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(bytes([next(rest)]))
            asyncio.get_running_loop().call_later(_DRIBBLE_EVERY_S, self._dribble, rest)


async def _serve(listening: socket.socket, certificate: str, key: str, log: str, switch: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    appending = os.open(log, os.O_WRONLY | os.O_APPEND)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Connection(appending, Path(switch)), sock=listening, ssl=context, backlog=1024
    )
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(0.5)
    server.close()


if __name__ == "__main__":
    uvloop.run(_serve(socket.socket(fileno=int(sys.argv[1])), *sys.argv[2:6]))
