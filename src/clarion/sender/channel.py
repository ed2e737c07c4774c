"""TLS over a connected socket: the event loop says when there is something to read, OpenSSL itself reads and writes.

The event loop's own TLS carries every record through two buffers in memory and reads on until OpenSSL says that there is no
more, by an exception: a good part of what a small request costs. Here a request is one write and its answer one read.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from contextlib import suppress
from typing import Any, Protocol, cast

RECORD_BYTES_MAX = 16 * 1024
"""Of TLS, in which a longer write is cut."""


class Reader(Protocol):
    """Whom a channel serves; called from the event loop. `busy`: an answer is awaited, or the rest of one."""

    busy: bool

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where to read to; asked for once."""
        ...

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were read, of one TLS record at most."""
        ...

    def eof_received(self) -> bool: ...

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed; called once. `exc` is why, unless one side meant it."""
        ...


class TlsChannel(asyncio.Transport):
    """A TLS session on a socket of its own, made by `open`."""

    def __init__(self, tls: ssl.SSLSocket, reader: Reader) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._tls = tls
        self._session: Any = cast(Any, tls)._sslobj  # noqa: SLF001 - SSLSocket's own methods take as long again
        self._reader = reader
        self._buffer = reader.get_buffer(-1)
        self._size = self._buffer.nbytes
        self._unsent = b""
        self._write_error: OSError | None = None
        # Each of the two may need the other first, for TLS's own sake.
        self._write_waits_to_read = False
        self._read_waits_to_write = False
        self._closed = False

    def __repr__(self) -> str:
        return f"TlsChannel({'closed' if self._closed else self._tls.fileno()}, {len(self._unsent)} bytes unsent)"

    @classmethod
    async def open(
        cls, raw: socket.socket, context: ssl.SSLContext, server_hostname: str, reader: Reader
    ) -> TlsChannel:
        """The channel after the handshake, with the certificate verified as `context` says; `raw` belongs to it.

        Raises ssl.SSLError or OSError, as OpenSSL and the system do; the socket is closed then.
        """
        tls = None
        try:
            tls = context.wrap_socket(
                raw, server_hostname=server_hostname, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
            await _shake_hands(tls)
        except BaseException as error:
            (tls or raw).close()
            if isinstance(error, OSError) and error.errno == errno.ENOTCONN:
                # It was gone before the handshake began; which call of ours notices is chance.
                raise ConnectionResetError(*error.args) from error
            raise
        # A long body's last record does not wait until the one before is acknowledged.
        tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel = cls(tls, reader)
        reader.connection_made(channel)
        if not channel._closed:
            channel._loop.add_reader(tls, channel._read)
        return channel

    def is_closing(self) -> bool:
        return self._closed

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send `data`, now or as soon as the socket takes it. A session that turns out to be broken ends later, not in here."""
        if self._closed or self._write_error is not None:
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent: int = self._session.write(data)
        except ssl.SSLWantReadError:
            self._unsent = bytes(data)
            self._write_waits_to_read = True
            return
        except ssl.SSLWantWriteError:
            sent = 0
        except OSError as error:
            if len(data) <= RECORD_BYTES_MAX:
                self._end(error)  # nothing was sent, so that whatever is there to be read is no answer to it
                return
            # A receiver may have answered before it stopped listening.
            self._write_error = error
            self._loop.call_soon(self._read)
            return
        if sent < len(data):
            # The same bytes again, as OpenSSL asks for.
            self._unsent = bytes(data[sent:])
            self._wait_to_write()

    def close(self) -> None:
        """End in good order: the peer is told, but not waited for. What is unsent is not sent any more."""
        if not self._closed:
            with suppress(OSError):  # the peer has not said so yet, nor need it
                self._tls.unwrap()
        self._end(None)

    def abort(self) -> None:
        """End at once."""
        self._end(None)

    def _read(self) -> None:
        """Read as long as something is awaited; for an answer in one record that is once, without asking in vain.

        Until there is no more where the next request has been begun: what came behind an answer is not the next one's. And
        where the rest is awaited: uvloop does not call again once it has seen an error, before which there may be data.
        """
        while not self._closed:
            try:
                count = self._session.read(self._size, self._buffer)
            except ssl.SSLWantReadError:
                if self._write_error is not None:
                    self._end(self._write_error)
                elif self._write_waits_to_read:
                    self._write_waits_to_read = False
                    self._wait_to_write()
                return
            except ssl.SSLWantWriteError:
                # Not asked again and again meanwhile.
                self._loop.remove_reader(self._tls)
                self._read_waits_to_write = True
                self._wait_to_write()
                return
            except ssl.SSLEOFError as error:
                # Without TLS's own goodbye, as many servers leave; or reset, for which Python 3.11 has no other error.
                self._end_as_left(reset=not error.reason and not self._has_peer())
                return
            except OSError as error:
                self._end(error)
                return
            if count == 0:
                self._end_as_left(reset=False)
                return
            try:
                self._reader.buffer_updated(count)
            except Exception as error:
                self._loop.call_exception_handler({"message": "an answer could not be read", "exception": error})
                self._end(error)
            if not self._reader.busy and self._write_error is None:
                return

    def _has_peer(self) -> bool:
        try:
            self._tls.getpeername()
        except OSError:
            return False
        return True

    def _end_as_left(self, *, reset: bool) -> None:
        self._reader.eof_received()
        self._end(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) if reset else None)

    def _wait_to_write(self) -> None:
        try:
            self._loop.add_writer(self._tls, self._write_on)
        except RuntimeError:  # of uvloop, which is done with a socket once it saw an error there
            self._loop.call_soon(self._read)

    def _write_on(self) -> None:
        self._loop.remove_writer(self._tls)
        if self._read_waits_to_write:
            self._read_waits_to_write = False
            self._loop.add_reader(self._tls, self._read)
            self._read()
        unsent, self._unsent = self._unsent, b""
        if unsent:
            self.write(unsent)

    def _end(self, error: Exception | None) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._tls)
        self._loop.remove_writer(self._tls)
        self._session = None  # whatever still holds the channel, OpenSSL's memory is freed
        self._tls.close()
        self._loop.call_soon(self._reader.connection_lost, error)


async def _shake_hands(tls: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            add, remove = loop.add_reader, loop.remove_reader
        except ssl.SSLWantWriteError:
            add, remove = loop.add_writer, loop.remove_writer
        else:
            return
        ready = loop.create_future()
        add(tls, _wake, ready)
        try:
            await ready
        finally:
            remove(tls)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
