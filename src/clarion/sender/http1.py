"""One HTTP/1.1 connection: a request goes out, an answer comes back, nothing else is understood.

The parser calls back while it reads, so callbacks only note what they saw; every decision is taken in
`buffer_updated` after the parser returned, when no byte of the old answer is left to be mistaken for the next.
A connection is used again only after an answer that was complete, within limits, followed by nothing, and not
marked `connection: close`. There is no code for redirects, compression or upgrades.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from clarion.sender.outcome import Failure, Outcome

HEADERS_BYTES_MAX = 64 * 1024
HEADERS_MAX = 200
INTERIM_MAX = 16
BODY_READ_BYTES_MAX = 64 * 1024
BODY_KEPT_BYTES_MAX = 4 * 1024
ANSWER_BYTES_MAX = 3 * 64 * 1024
SEEN_BYTES_MAX = 8 * 1024
"""Of an answer that is kept as an example for those to come."""
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_TRANSFER_ENCODING = b"transfer-encoding"
_HEAD_END = b"\r\n\r\n"


class Owner(Protocol):
    """Who holds a connection; called from the event loop, never from `begin`."""

    def exchange_ended(self, connection: Http1Connection, failure: Failure | None) -> None:
        """The exchange begun last is over: answered (the connection holds the answer), or failed."""
        ...

    def connection_ended(self, connection: Http1Connection) -> None:
        """The connection is gone; called once."""
        ...


class Shared:
    """What all connections of one event loop share: the buffer that they read into, and the requests about to go out.

    Requests are written together, once the loop has handled all that came in. A receiver that is woken for the first of
    them finds the others when it looks; one write at a time would wake it for each, and the waking is what costs most.
    Before that the loop reads once more: what came behind an answer must not be taken for the answer to the next request.
    `call_soon` is the event loop's; `may_write` is asked at the last moment, for each.
    """

    def __init__(self, read_buffer_bytes: int, call_soon: Callable[[Callable[[], None]], object]) -> None:
        # What is read is parsed at once, so that one buffer serves all.
        self.read_buffer = memoryview(bytearray(read_buffer_bytes))
        self._call_soon = call_soon
        self.may_write: Callable[[], bool] = lambda: True
        self._begun: list[Http1Connection] = []

    def write_soon(self, connection: Http1Connection) -> None:
        """Have the connection write what it has begun."""
        self._begun.append(connection)
        if len(self._begun) == 1:
            self._call_soon(self._write_next_turn)

    def _write_next_turn(self) -> None:
        begun, self._begun = self._begun, []
        self._call_soon(partial(self._write, begun))

    def _write(self, begun: list[Http1Connection]) -> None:
        # Each is asked about: writing them all takes a millisecond, in which the process may be frozen.
        for connection in begun:
            if self.may_write():
                connection.write()
            else:
                connection.withdraw()


class _AnswerRefused(Exception):
    """Stops the parser from within a callback."""


class _Seen(NamedTuple):
    """An answer that the parser found good, in one piece and framed by its head alone.

    Receivers answer with the same head again and again: one that is the same to the byte, in front of as many bytes, means
    the same, and need not be parsed.
    """

    answer_bytes: int
    head: bytes
    status_code: int | None
    headers: list[tuple[bytes, bytes]]


class Http1Connection(asyncio.BufferedProtocol):
    """A connection to one receiver, with at most one exchange at a time.

    After `exchange_ended` the answer is in `status_code`, `headers` (as received) and `body` (its first 4 KiB);
    it stays until the next `begin`. `usable` tells whether another exchange may begin; `loss` why the connection
    ended while none was under way.
    """

    __slots__ = (
        "_body_bytes",
        "_codings",
        "_complete",
        "_headers_complete",
        "_interim_count",
        "_keep",
        "_lost",
        "_owner",
        "_parser",
        "_received_bytes",
        "_request",
        "_seen",
        "_shared",
        "_transport",
        "_violation",
        "body",
        "busy",
        "exchanges_count",
        "headers",
        "idle_since_ns",
        "loss",
        "opened_ns",
        "peer_address",
        "source_address",
        "status_code",
        "usable",
    )

    def __init__(self, owner: Owner, shared: Shared, source_address: str, peer_address: str) -> None:
        self._owner = owner
        self._shared = shared
        self.source_address = source_address
        self.peer_address = peer_address
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._lost = False
        self.usable = False
        self.busy = False
        self.exchanges_count = 0
        self.idle_since_ns = 0
        self.opened_ns = 0
        self.loss: Failure | None = None
        self._seen: _Seen | None = None
        self._request: bytes | None = None
        # What is noted of one exchange; `_clear` makes it anew.
        self.status_code: int | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: bytes = b""
        self._body_bytes: int = 0
        self._codings: list[bytes] = []
        self._complete: bool = False
        self._headers_complete: bool = False
        self._interim_count: int = 0
        self._keep: bool = False
        self._received_bytes: int = 0
        self._violation: str | None = None

    def __repr__(self) -> str:
        state = "lost" if self._lost else "busy" if self.busy else "idle" if self.usable else "closing"
        return f"Http1Connection({self.source_address} -> {self.peer_address}, {state}, {self.exchanges_count})"

    # What the owner calls

    @property
    def answered_any(self) -> bool:
        """Whether any byte came back in the exchange begun last."""
        return self._received_bytes > 0

    def begin(self, request: bytes) -> None:
        """Send a request, when the event loop has handled what came in. The connection must be usable and not busy."""
        assert self.usable
        assert not self.busy
        self._clear()
        self.busy = True
        self.exchanges_count += 1
        self._request = request
        self._shared.write_soon(self)

    def write(self) -> None:
        """Write the request that was begun, unless the connection has ended meanwhile."""
        if self._request is not None and self._transport is not None:
            self._transport.write(self._request)
        self._request = None

    def withdraw(self) -> None:
        """End the exchange whose request is not to be written any more."""
        if self._request is not None:
            self._fail(Failure(Outcome.OVERLOADED, "this process may not send any more", ours=True))

    def abandon(self) -> None:
        """End the connection at once, without a word to the owner about the exchange under way."""
        self.busy = False
        self._drop()

    def close(self) -> None:
        """End an idle connection in good order."""
        self.usable = False
        if self._transport is not None:
            self._transport.close()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the signature is asyncio's
        return self._shared.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self.busy:
            self._drop()  # nobody asked: the next answer could not be told from this
            return
        if self._request is not None:
            # Nor can this be the answer to what is not written yet.
            self._fail(Failure(Outcome.CONNECTION_CLOSED, "the receiver sent what nobody had asked for"))
            return
        seen = self._seen
        if seen is not None and nbytes == seen.answer_bytes and self._received_bytes == 0:
            answer = bytes(self._shared.read_buffer[:nbytes])
            if answer.startswith(seen.head):
                self._answered_as(seen, answer)
                return
        data = self._shared.read_buffer[:nbytes]
        is_full = nbytes == len(self._shared.read_buffer)
        room = (ANSWER_BYTES_MAX if self._headers_complete else HEADERS_BYTES_MAX) - self._received_bytes
        while nbytes > room:
            # Cut where a limit ends, so that the verdict does not depend on how the network cut the answer.
            self._read(data[:room])
            data = data[room:]
            nbytes -= room
            if self._complete or self._violation is not None:
                self._keep = False  # more follows
                break
            room = (ANSWER_BYTES_MAX if self._headers_complete else HEADERS_BYTES_MAX) - self._received_bytes
            if room == 0:
                self._too_large()
                return
        else:
            self._read(data)
            if is_full:
                self._keep = False  # what follows may already wait where the parser does not see it
        if self._complete:
            self._seen = self._as_seen(data)
            self._answered()
        elif self._violation is not None:
            self._fail(Failure(Outcome.PROTOCOL_ERROR, self._violation))

    def eof_received(self) -> bool:
        self.usable = False
        return False  # the transport closes, connection_lost decides

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self.usable = False
        if self.busy:
            if self._headers_complete and not self._is_framed():
                self._complete = True  # a body without a length ends with the connection
                self._answered()
            else:
                self._fail(self._closed(exc))
        else:
            self.loss = self._closed(exc)
        if self._transport is not None:
            self._owner.connection_ended(self)

    # What the parser calls; notes only

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False
            raise _AnswerRefused

    def on_status(self, reason: bytes) -> None:
        if _CONTROL.search(reason) is not None:  # the parser looks for them in headers only
            self._refuse("the answer is not HTTP/1.1: control characters in the status line")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers_complete:
            return  # a trailer; it may neither frame the answer nor say when to come back
        if len(self.headers) == HEADERS_MAX:
            self._refuse(f"the answer has more than {HEADERS_MAX} headers")
        self.headers.append((name, value))  # their bytes are limited by what is read
        if len(name) == len(_TRANSFER_ENCODING) and name.lower() == _TRANSFER_ENCODING:
            self._codings += [coding.strip().lower() for coding in value.split(b",")]

    def on_headers_complete(self) -> None:
        status_code = self._parser.get_status_code()
        if self._parser.get_http_version() not in {"1.1", "1.0"}:
            self._refuse("the answer is not HTTP/1.1")
        if status_code == 101:
            self._refuse("the receiver switches to another protocol")
        if status_code < 200:
            self._interim_count += 1
            if status_code < 100:
                self._refuse("the answer is not HTTP/1.1: invalid status code")
            if self._interim_count > INTERIM_MAX:
                self._refuse(f"more than {INTERIM_MAX} interim answers")
            if self._has_body():
                # The parser would read it for some statuses and not for others.
                self._refuse("an interim answer announces a body")
            return
        self.status_code = status_code
        self._headers_complete = True
        # Other codings than one `chunked` were not asked for, and implementations differ about where they end; those of
        # HTTP/1.0 are faulty framing (RFC 9112 section 6.1).
        self._keep = self._parser.should_keep_alive() and (
            not self._codings or (self._codings == [b"chunked"] and self._parser.get_http_version() == "1.1")
        )

    def on_body(self, body: bytes) -> None:
        if self._body_bytes < BODY_KEPT_BYTES_MAX:
            self.body += body[: BODY_KEPT_BYTES_MAX - self._body_bytes]
        self._body_bytes += len(body)
        if self._body_bytes > BODY_READ_BYTES_MAX:
            # The status is what counts; the rest is not worth reading.
            self._complete = True
            self._keep = False
            raise _AnswerRefused

    def on_message_complete(self) -> None:
        if self._headers_complete:
            self._complete = True
        else:
            self.headers = []  # those of an interim answer

    # Inner workings

    def _read(self, data: memoryview) -> None:
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._violation = self._violation or "the receiver switches to another protocol"
        except HttpParserError as error:
            self._violation = self._violation or f"the answer is not HTTP/1.1: {str(error)[:120]}"

    def _too_large(self) -> None:
        if not self._headers_complete:
            self._fail(Failure(Outcome.PROTOCOL_ERROR, _HEADERS_TOO_LARGE))
            return
        self._keep = False  # chunk extensions or trailers without end; the status is what counts
        self._answered()

    def _as_seen(self, data: memoryview) -> _Seen | None:
        """The complete answer as an example for those to come, if `data` is all of it and its head alone frames it."""
        if (
            len(data) > SEEN_BYTES_MAX
            or not self._keep
            or self._violation is not None
            or self._received_bytes != len(data)
            or self._interim_count > 0
            or self._codings
            or self._body_bytes > BODY_KEPT_BYTES_MAX
        ):
            return None
        head = bytes(data[: len(data) - self._body_bytes])
        # Not so if line ends before the answer or behind it were passed over.
        if head.find(_HEAD_END) != len(head) - len(_HEAD_END):
            return None
        return _Seen(len(data), head, self.status_code, self.headers)

    # Endings

    def _answered_as(self, seen: _Seen, answer: bytes) -> None:
        """Take an answer that differs from one seen before by its body at most."""
        self._received_bytes = len(answer)
        self._headers_complete = self._complete = self._keep = True
        self.status_code, self.headers = seen.status_code, seen.headers
        self.body = answer[len(seen.head) :]
        self._answered()

    def _answered(self) -> None:
        self.busy = False
        if self._keep and self._violation is None:
            self._owner.exchange_ended(self, None)
            return
        self._drop()
        self._owner.exchange_ended(self, None)

    def _fail(self, failure: Failure) -> None:
        self.busy = False
        self._drop()
        self._owner.exchange_ended(self, failure)

    def _drop(self) -> None:
        self.usable = False
        self._request = None
        if self._transport is not None and not self._lost:
            self._transport.abort()

    def _clear(self) -> None:
        self.status_code = None
        self.headers = []
        self.body = b""
        self._body_bytes = 0
        self._codings = []
        self._complete = False
        self._headers_complete = False
        self._interim_count = 0
        self._keep = False
        self._received_bytes = 0
        self._violation = None

    def _refuse(self, violation: str) -> None:
        self._violation = violation
        raise _AnswerRefused

    def _is_framed(self) -> bool:
        """Whether the answer says where it ends; RFC 9112 section 6.3: by chunks only if they are the last coding."""
        if self._codings:
            return self._codings[-1] == b"chunked"
        return any(name.lower() == b"content-length" for name, _ in self.headers)

    def _has_body(self) -> bool:
        lengths = [value for name, value in self.headers if name.lower() == b"content-length"]
        return bool(self._codings) or any(length.strip(b"0") for length in lengths)

    def _closed(self, exc: Exception | None) -> Failure:
        where = "in the middle of its answer" if self.answered_any else "before it answered"
        if isinstance(exc, ssl.SSLError) and not isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return Failure(Outcome.TLS_FAILED, f"the TLS session ended {where}: {tls_reason(exc)}")
        how = "reset" if isinstance(exc, ConnectionResetError) else "closed"
        return Failure(Outcome.CONNECTION_CLOSED, f"the receiver {how} the connection {where}")


def tls_reason(error: ssl.SSLError) -> str:
    """OpenSSL's reason in words, as `tlsv1 alert protocol version`."""
    return (error.reason or "unknown reason").replace("_", " ").lower()[:120]


_HEADERS_TOO_LARGE = f"the answer's headers are larger than {HEADERS_BYTES_MAX // 1024} KiB"
