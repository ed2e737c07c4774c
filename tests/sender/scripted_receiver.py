"""A receiver that misbehaves as its request path asks; run as a process of its own.

`python scripted_receiver.py CONFIG` where CONFIG is JSON: a list of listeners `{"kind", "address", "certificate",
"key", "tls_version_max"}`. Kinds: `tls`, `plain` (HTTP without TLS), `silent` (accepts, then nothing), `closing`
(accepts, then closes). Prints the ports as JSON, then serves until its standard input ends.
"""

from __future__ import annotations

import base64
import itertools
import json
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

connections = itertools.count(1)
paths: Counter[str] = Counter()


def answer(status: int, body: bytes = b"", headers: tuple[str, ...] = ()) -> bytes:
    lines = [f"HTTP/1.1 {status} Text", *headers, f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


class Visit:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.number = next(connections)
        self.requests_count = 0
        self.received = bytearray()
        self.head = ""
        self.body = b""

    def serve(self) -> None:
        while self.read_head():
            self.requests_count += 1
            parts = urlsplit(self.head.split(" ", 2)[1])
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            paths[parts.path] += 1
            if parts.path == "/refuses-early":
                self.connection.sendall(answer(413, b"", ("connection: close",)))
                return
            if parts.path == "/never-reads":
                time.sleep(30)
                return
            self.read_body()
            if not getattr(self, "on_" + parts.path.strip("/").replace("-", "_"))(query):
                return

    def read_head(self) -> bool:
        while b"\r\n\r\n" not in self.received:
            data = self.connection.recv(65536)
            if not data:
                return False
            self.received += data
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        return True

    def read_body(self) -> None:
        """Raises ConnectionError if the other side leaves before its end."""
        length = next(int(line[15:]) for line in self.head.split("\r\n") if line.startswith("content-length:"))
        while len(self.received) < length:
            data = self.connection.recv(65536)
            if not data:
                raise ConnectionError("the request was not finished")
            self.received += data
        self.body, self.received = bytes(self.received[:length]), self.received[length:]

    # Each returns whether the connection goes on.

    def on_echo(self, query: dict[str, str]) -> bool:
        seen = {"head": self.head, "body": base64.b64encode(self.body).decode(), "connection": self.number}
        self.connection.sendall(answer(200, json.dumps(seen).encode()))
        return True

    def on_status(self, query: dict[str, str]) -> bool:
        headers = tuple(f"{name}: {value}" for name, value in query.items() if name != "code")
        self.connection.sendall(answer(int(query["code"]), b"", headers))
        return True

    def on_followed(self, query: dict[str, str]) -> bool:
        self.connection.sendall(answer(200))
        return True

    def on_twice(self, query: dict[str, str]) -> bool:
        """Answers a second time, unasked: another TLS record, which arrives with the first one. Then a reset, if wanted."""
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        self.connection.sendall(answer(200, b"first"))
        self.connection.sendall(answer(200, b"second"))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        return self.on_reset(query) if "reset" in query else True

    def on_visits(self, query: dict[str, str]) -> bool:
        self.connection.sendall(answer(200, str(paths[query["path"]]).encode()))
        return True

    def on_raw(self, query: dict[str, str]) -> bool:
        self.connection.sendall(base64.urlsafe_b64decode(query["bytes"]))
        return "close" not in query

    def on_slow(self, query: dict[str, str]) -> bool:
        time.sleep(float(query.get("seconds", "0.2")))
        return self.on_echo(query)

    def on_once(self, query: dict[str, str]) -> bool:
        if self.requests_count > 1:
            return False
        return self.on_echo(query)

    def on_once_for_each_visitor(self, query: dict[str, str]) -> bool:
        """The first request of the whole process is answered, every later one is closed upon."""
        if paths["/once-for-each-visitor"] > 1:
            return False
        return self.on_echo(query)

    def on_last(self, query: dict[str, str]) -> bool:
        """Announces the end of the connection, as HTTP wants it."""
        seen = {"connection": self.number}
        self.connection.sendall(answer(200, json.dumps(seen).encode(), ("connection: close",)))
        return False

    def on_hang(self, query: dict[str, str]) -> bool:
        self.connection.recv(1)
        return False

    def on_dribble(self, query: dict[str, str]) -> bool:
        return self.dribble(b"HTTP/1.1 200 OK\r\nx-filler: " + b"x" * 1000)

    def on_dribble_body(self, query: dict[str, str]) -> bool:
        self.connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        return self.dribble(b"x" * 1000)

    def dribble(self, data: bytes) -> bool:
        for byte in data:
            self.connection.sendall(bytes([byte]))
            time.sleep(0.1)
        return False

    def on_dribble_bytes(self, query: dict[str, str]) -> bool:
        """The first part at once, the rest byte by byte, again and again, until the other side gives up."""
        start, rest = (base64.urlsafe_b64decode(query[name]) for name in ("start", "rest"))
        self.connection.sendall(start)
        for byte in itertools.cycle(rest):
            time.sleep(float(query["every"]))
            self.connection.sendall(bytes([byte]))
        return False

    def on_script(self, query: dict[str, str]) -> bool:
        """The request's body says what is sent, in which pieces, and how the connection ends."""
        script = json.loads(self.body)
        for segment in script["segments"]:
            self.connection.sendall(base64.b64decode(segment))
            time.sleep(0.001)
        if script["end"] == "reset":
            return self.on_reset(query)
        if script["end"] == "close_notify" and isinstance(self.connection, ssl.SSLSocket):
            self.connection.unwrap()
        return bool(script["end"] == "open")

    def on_close(self, query: dict[str, str]) -> bool:
        return False

    def on_close_in_the_middle(self, query: dict[str, str]) -> bool:
        self.connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nabc")
        return False

    def on_reset(self, query: dict[str, str]) -> bool:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    def on_endless_body(self, query: dict[str, str]) -> bool:
        self.connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            self.connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")

    def on_endless_header(self, query: dict[str, str]) -> bool:
        self.connection.sendall(b"HTTP/1.1 200 OK\r\nx-long: ")
        while True:
            self.connection.sendall(b"x" * 4096)

    def on_endless_trailer(self, query: dict[str, str]) -> bool:
        self.connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-long: ")
        while True:
            self.connection.sendall(b"x" * 4096)

    def on_many_headers(self, query: dict[str, str]) -> bool:
        self.connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10_000 + b"content-length: 0\r\n\r\n")
        return True

    def on_interim(self, query: dict[str, str]) -> bool:
        interim = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
        self.connection.sendall(interim * int(query["count"]) + answer(200, b"", ("x-final: yes",)))
        return True


def accept(listener: socket.socket, config: dict[str, Any]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if config.get("tls_version_max"):
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion[config["tls_version_max"]]
    if config["kind"] == "tls":
        context.load_cert_chain(config["certificate"], config["key"])
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=visit, args=(connection, context, config["kind"]), daemon=True).start()


def visit(connection: socket.socket, context: ssl.SSLContext, kind: str) -> None:
    with suppress(OSError), connection:
        if kind == "closing":
            return
        if kind == "silent":
            time.sleep(60)
        elif kind == "plain":
            connection.recv(65536)
            connection.sendall(answer(200))
        else:
            with context.wrap_socket(connection, server_side=True) as secure:
                Visit(secure).serve()


def main() -> None:
    ports = []
    for config in json.loads(sys.argv[1]):
        family = socket.AF_INET6 if ":" in config["address"] else socket.AF_INET
        listener = socket.create_server((config["address"], 0), family=family, backlog=1000)
        ports.append(listener.getsockname()[1])
        threading.Thread(target=accept, args=(listener, config), daemon=True).start()
    print(json.dumps(ports), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
