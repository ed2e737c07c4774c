"""What stands before an API: a reverse proxy that ends TLS, sends elsewhere, or loses what it was to pass on, when told."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Fault(Enum):
    """What becomes of one request."""

    NOT_PASSED_ON = auto()
    """The connection ends, and the API never hears of it."""
    NOT_WAITED_FOR = auto()
    """The connection ends while the API is at work on it."""
    ANSWER_LOST = auto()
    """The API has answered; the connection ends without a byte of that."""
    ANSWER_CUT = auto()
    """It ends in the middle of the answer."""
    ANSWER_HELD = auto()
    """The API has answered; the client waits until it has enough."""
    BAD_GATEWAY = auto()
    """The API has answered; the client gets a 502."""
    IN_MAINTENANCE = auto()
    """Not passed on: 503, to come back in an hour."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as the proxy got it, header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


class Front(ThreadingHTTPServer):
    """Listens on 127.0.0.1, at `url`. `behind` is the API's port; `certificate` makes it https."""

    daemon_threads = True

    def __init__(
        self, behind: int = 0, *, certificate: tuple[Path, Path] | None = None, redirecting_to: str | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.behind = behind
        self.redirecting_to = redirecting_to
        self.faults: deque[Fault | None] = deque()
        """What becomes of the next requests; those after them are passed on."""
        self.seen: list[Seen] = []
        self.statuses: list[int] = []
        """What the API answered."""
        self.connections_count = 0
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        self.connections_count += 1
        if self._tls is not None:
            # The handshake is made by the connection's own thread.
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that refuse the certificate, or leave: whoever tests that looks at the client."""

    def pass_on(self, seen: Seen) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body of the API's answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=30)
        try:
            connection.request("POST", seen.path, seen.body, seen.headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        self.statuses.append(answer.status)
        return answer.status, answer.getheaders(), content

    @property
    def idempotency_keys(self) -> list[str | None]:
        """Those that requests came with, None for each that had none."""
        return [one.headers.get("idempotency-key") for one in self.seen]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Front

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.path, headers, self.rfile.read(int(headers.get("content-length", "0"))))
        self.server.seen.append(seen)
        if self.server.redirecting_to is not None:
            self._answer(307, [("location", self.server.redirecting_to)], b"")
            return
        fault = self.server.faults.popleft() if self.server.faults else None
        if fault is Fault.IN_MAINTENANCE:
            self._answer(503, [("retry-after", "3600")], b"back soon")
            return
        if fault is Fault.NOT_WAITED_FOR:
            threading.Thread(target=self.server.pass_on, args=(seen,), daemon=True).start()
        if fault in {Fault.NOT_PASSED_ON, Fault.NOT_WAITED_FOR}:
            self.close_connection = True
            return
        status, answered, content = self.server.pass_on(seen)
        match fault:
            case None:
                self._answer(status, answered, content)
            case Fault.BAD_GATEWAY:
                self._answer(502, [], b"bad gateway")
            case Fault.ANSWER_CUT:
                self._answer(status, answered, content, content[: len(content) // 2])
                self.close_connection = True
            case _:
                if fault is Fault.ANSWER_HELD:
                    self.connection.recv(1)
                self.close_connection = True

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, sent: bytes | None = None) -> None:
        """An answer of which only `sent` is sent."""
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if sent is None else sent)

    def log_message(self, *_: object) -> None:
        """What came is in `seen`."""
