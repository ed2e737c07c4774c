"""What does one POST on a kept TLS connection cost this process?

`python bench/sender.py [--requests N] [--connections N] [--body BYTES] [--json]`

A uvloop TLS receiver runs in a process of its own; figures are the CPU time (user and system) of the sending
process alone, median of five rounds, beside the floor: the same bytes written and read by a bare uvloop TLS
protocol that neither signs nor parses.
"""

# ruff: noqa: ARG002 - the signatures are asyncio's

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_network
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from clarion.core.system import SystemClock
from clarion.sender.outcome import Attempt, Outcome
from clarion.sender.policy import Policy
from clarion.sender.send import Endpoint, Sender
from tls import make_authority

ROUNDS = 5
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nserver: bench\r\ncontent-length: 2\r\n\r\nok"


class Receiver(asyncio.BufferedProtocol):
    """Answers every request; requests never overlap on a connection."""

    answer = ANSWER
    buffer = memoryview(bytearray(64 * 1024))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self.buffer[:nbytes]))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._missing = -1
        self._head = b""

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            start = self._head.index(b"content-length: ") + 16
            length = int(self._head[start : self._head.index(b"\r\n", start)])
            self._missing = length - (len(self._head) - end - 4)
            self._head = b""
        else:
            self._missing -= len(data)
        if self._missing == 0:
            self._missing = -1
            self._transport.write(self.answer)


def stay_on(core: int) -> None:
    """Keep this process on one core, so that sender and receiver do not push each other off."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)]})


def serve(certificate: Path, key: Path, ready: Connection) -> None:
    stay_on(1)

    async def run() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0, ssl=context)
        ready.send(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()

    uvloop.run(run())


class Bare(asyncio.BufferedProtocol):
    """The floor: writes a request, waits for an answer's bytes, writes the next."""

    def __init__(self, request: bytes, count: int, finished: asyncio.Future[None]) -> None:
        self._request, self._left, self._finished = request, count, finished
        self._buffer = memoryview(bytearray(64 * 1024))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def begin(self) -> None:
        self._transport.write(self._request)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._left -= 1
        if self._left:
            self._transport.write(self._request)
        elif not self._finished.done():
            self._finished.set_result(None)


def _same(protocol: Bare) -> Bare:
    return protocol


async def floor_us(port: int, ca_file: Path, connections: int, requests: int, size: int) -> float:
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context(cafile=ca_file)
    request = b"POST / HTTP/1.1\r\n" + b"x: %b\r\ncontent-length: %d\r\n\r\n" % (b"y" * 400, size) + b"z" * size
    share = requests // connections
    waits: list[asyncio.Future[None]] = []
    protocols: list[Bare] = []
    for _ in range(connections):
        wait: asyncio.Future[None] = loop.create_future()
        protocol = Bare(request, share, wait)
        await loop.create_connection(partial(_same, protocol), "127.0.0.1", port, ssl=context)
        waits.append(wait)
        protocols.append(protocol)
    before = time.process_time()
    for protocol in protocols:
        protocol.begin()
    await asyncio.gather(*waits)
    return (time.process_time() - before) / (share * connections) * 1e6


async def sender_us(sender: Sender, endpoint: Endpoint, connections: int, requests: int, body: bytes) -> float:
    clock = SystemClock()
    finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    sent = answered = 0

    def send_next() -> None:
        nonlocal sent
        sent += 1
        sender.send(endpoint, f"evt_0123456789abcdef_{sent}", clock.now(), body, (), done)

    def done(attempt: Attempt) -> None:
        nonlocal answered
        if attempt.outcome is not Outcome.SUCCEEDED and not finished.done():
            finished.set_exception(RuntimeError(f"an attempt failed: {attempt}"))
        answered += 1
        if sent < requests:
            send_next()
        elif answered == requests and not finished.done():
            finished.set_result(None)

    before = time.process_time()
    for _ in range(connections):
        send_next()
    await finished
    return (time.process_time() - before) / requests * 1e6


async def measure(port: int, ca_file: Path, options: argparse.Namespace) -> dict[str, float]:
    endpoint = Endpoint(
        1,
        f"https://127.0.0.1:{port}/hook",
        "application/json",
        (),
        (b"k" * 32,),
        ("V1",),
        15,
        options.connections,
        None,
    )
    body = b"x" * options.body
    sender = Sender(SystemClock(), policy=Policy((ip_network("127.0.0.0/8"),)), ca_file=ca_file)
    try:
        await sender_us(sender, endpoint, options.connections, 500, body)
        ours = [await sender_us(sender, endpoint, options.connections, options.requests, body) for _ in range(ROUNDS)]
    finally:
        await sender.close()
    floors = [await floor_us(port, ca_file, options.connections, options.requests, options.body) for _ in range(ROUNDS)]
    cost, floor = statistics.median(ours), statistics.median(floors)
    return {
        "cpu_us_per_post": round(cost, 1),
        "cpu_us_per_post_worst": round(max(ours), 1),
        "floor_us": round(floor, 1),
        "ratio": round(cost / floor, 2),
    }


@contextmanager
def serving(target: Callable[[Path, Path, Connection], None]) -> Iterator[tuple[Any, Path]]:
    """A receiver in a process of its own, this one on another core: what `target` says (its ports), and its authority's file."""
    with tempfile.TemporaryDirectory(prefix="clarion-bench.") as directory:
        authority = make_authority(Path(directory))
        certificate, key = authority.issue(addresses=["127.0.0.1"])
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=target, args=(certificate, key, theirs), daemon=True
        )
        process.start()
        stay_on(0)
        try:
            yield ours.recv(), authority.ca_file
        finally:
            process.terminate()
            process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000, help="per round")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--body", type=int, default=700, help="bytes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with serving(serve) as (port, ca_file):
        figures = uvloop.run(measure(port, ca_file, options))
    if options.json:
        print(json.dumps(figures))
        return
    print(f"CPU per POST on a kept TLS connection, {options.body} B body, {options.connections} connections")
    for name, value in figures.items():
        print(f"  {name:24} {value:8}")


if __name__ == "__main__":
    main()
