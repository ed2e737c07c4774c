"""The process in the namespace `world`: every address there is answers on it, over real TLS, and counts who came.

`python -m harness.world CERTIFICATE KEY NAMESERVER` answers `harness.agent` requests.
"""

from __future__ import annotations

import gzip
import resource
import socket
import ssl
import sys
import threading
import zlib
from contextlib import suppress
from functools import cache
from typing import Any

from harness.agent import answer_requests
from harness.canary import Canaries
from harness.dns_server import Zone, serve_names
from sender.scripted_receiver import Visit, answer

_BOMB_BYTES = 400_000_000


@cache
def bomb(encoding: str) -> bytes:
    """A compressed body that inflates to 400 MB (`nested`: a gzip of a gzip of it)."""
    if encoding == "deflate":
        compressor = zlib.compressobj(9)
        block = bytes(10_000_000)
        return b"".join(compressor.compress(block) for _ in range(_BOMB_BYTES // len(block))) + compressor.flush()
    once = gzip.compress(bytes(_BOMB_BYTES), 9, mtime=0)
    return gzip.compress(once, 9, mtime=0) if encoding == "nested" else once


class HostileVisit(Visit):
    """What else a receiver may do, beside what `Visit` has."""

    def on_long_line(self, query: dict[str, str]) -> bool:
        self.connection.sendall(b"HTTP/1.1 200 OK\r\nx-long: ")
        for _ in range(int(query["bytes"]) // 65536):
            self.connection.sendall(b"x" * 65536)
        self.connection.sendall(b"\r\ncontent-length: 0\r\n\r\n")
        return True

    def on_header_count(self, query: dict[str, str]) -> bool:
        self.connection.sendall(
            b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * int(query["count"]) + b"content-length: 0\r\n\r\n"
        )
        return True

    def on_bomb(self, query: dict[str, str]) -> bool:
        name = {"nested": "gzip, gzip"}.get(query["encoding"], query["encoding"])
        self.connection.sendall(answer(200, bomb(query["encoding"]), (f"content-encoding: {name}",)))
        return True

    def on_interim_endless(self, query: dict[str, str]) -> bool:
        while True:
            self.connection.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 100)

    def on_trailers(self, query: dict[str, str]) -> bool:
        self.connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
        while True:
            self.connection.sendall(b"a: b\r\n" * 1000)

    def on_desync(self, query: dict[str, str]) -> bool:
        """A second answer that nobody asked for, behind the first."""
        self.connection.sendall(answer(200, b"first") + answer(200, b"smuggled"))
        return True


class Gauge:
    """How many visits there are at one time, at most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = self._most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._open += 1
            self._most = max(self._most, self._open)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open -= 1

    def most_open(self) -> int:
        """Since the last call."""
        with self._lock:
            most, self._most = self._most, self._open
        return most


def main() -> None:
    certificate, key, nameserver = sys.argv[1:4]
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    gauge = Gauge()

    def visit(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(60)
        with (
            gauge,
            suppress(OSError, ValueError, StopIteration),
            connection,
            context.wrap_socket(connection, server_side=True) as secure,
        ):
            HostileVisit(secure).serve()

    canaries = Canaries(visit, without=(53,))
    zone = Zone()
    serve_names(zone, nameserver)

    def prepare() -> None:
        for encoding in ("gzip", "deflate", "nested"):
            bomb(encoding)

    def names(entries: dict[str, Any]) -> None:
        zone.set(entries)

    answer_requests(
        {
            "counts": canaries.counts,
            "names": names,
            "asked": zone.asked,
            "prepare": prepare,
            "most_open": gauge.most_open,
        }
    )


if __name__ == "__main__":
    main()
