"""Connections that have not said yet who they are: how long a request's head may be, and how long it may take.

The HTTP server waits for the end of a head for ever, and keeps it all until then. Whoever can reach the port could fill
the process's memory without a key, or hold its sockets.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX: Final = 64 * 1024
"""Of a request's first line with all of its headers."""
HEADERS_MAX: Final = 200
HEAD_SECONDS_MAX: Final = 20
"""From the connection, or from the first byte of a further request, to the end of the head."""
REST_SECONDS_MAX: Final = 20
"""How long the rest of a body may take whose request is answered already."""


class _HeadTooLarge(Exception):
    """The parser passes it on as an error of the request."""


class BoundedProtocol(HttpToolsProtocol):
    """The server's HTTP/1.1, with bounds on what comes before and after a request that somebody answers.

    A head that is too large is answered with 400; what takes too long is disconnected.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._part: Literal["none", "head", "body"] = "none"
        """What of a request is being received."""
        self._requests_count = 0
        self._unanswered_count = 0
        self._head_bytes = 0
        self._unparsed_bytes = 0
        self._ending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the base class
        super().connection_made(transport)
        self._end_in(HEAD_SECONDS_MAX)

    def connection_lost(self, exc: Exception | None) -> None:
        self._go_on()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._part, self._requests_count
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._part == "none" and self._is_idle and self.timeout_keep_alive_task is None and self._ending is None:
            # Empty lines begin no request, but ended the wait for one.
            self._end_in(HEAD_SECONDS_MAX)
        if before == ("head", self._requests_count) == (self._part, self._requests_count):
            # The parser keeps a line to itself until it has come to its end.
            self._unparsed_bytes += len(data)
            if self._unparsed_bytes > HEAD_BYTES_MAX:
                self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part = "head"
        self._requests_count += 1
        self._head_bytes = self._unparsed_bytes = 0
        if self._ending is None:
            self._end_in(HEAD_SECONDS_MAX)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + len(": \r\n"))
        if len(self.headers) >= HEADERS_MAX:
            raise _HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._part = "body"
        self._unanswered_count += 1
        self._go_on()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._part = "none"
        self._go_on()
        super().on_message_complete()
        if self._is_idle:
            # The wait for the next request, which began with the answer, was ended by the body's rest.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        self._unanswered_count -= 1
        super().on_response_complete()
        if self._part == "body" and self._is_idle and not self.transport.is_closing():
            self._end_in(REST_SECONDS_MAX)

    @property
    def _is_idle(self) -> bool:
        """Whether every request whose head came is answered."""
        return self._unanswered_count == 0

    def _count(self, length: int) -> None:
        self._head_bytes += length
        if self._head_bytes > HEAD_BYTES_MAX:
            raise _HeadTooLarge

    def _end_in(self, seconds: float) -> None:
        self._go_on()
        self._ending = self.loop.call_later(seconds, self._end)

    def _go_on(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None

    def _end(self) -> None:
        self._ending = None
        if self.transport.is_closing():
            return
        if self._is_idle:
            self.transport.close()
        else:
            # One before it is being answered, and nothing more is read meanwhile.
            self._end_in(HEAD_SECONDS_MAX)
