"""TLS on a socket, against servers that are slow, leave without a word, or are gone."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from clarion.sender.channel import TlsChannel
from tls import Authority, make_authority

BOTH = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
SMALL_BUFFER_BYTES = 4096


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("channel"))


class Heard:
    """What came of a channel. `wants` bytes are an answer."""

    def __init__(self, wants: int = 1) -> None:
        self.busy = True
        self.data = b""
        self.eof = False
        self.answered = asyncio.Event()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._wants = wants
        self._buffer = memoryview(bytearray(64 * 1024))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert not transport.is_closing()

    def get_buffer(self, sizehint: int) -> memoryview:
        assert sizehint == -1
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self._buffer[:nbytes]
        if len(self.data) >= self._wants:
            self.busy = False
            self.answered.set()

    def eof_received(self) -> bool:
        self.eof = True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@contextmanager
def served(
    authority: Authority, version: ssl.TLSVersion, serve: Callable[[ssl.SSLSocket], None]
) -> Iterator[tuple[int, list[BaseException]]]:
    """A port where one connection is served by `serve` in a thread, and what that raised."""
    certificate, key = authority.issue(addresses=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.minimum_version = context.maximum_version = version
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as secure:
                serve(secure)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], raised
        thread.join(10)
        assert not thread.is_alive()
    finally:
        listener.close()


async def opened(port: int, ca_file: Path, heard: Heard) -> TlsChannel:
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER_BYTES)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    return await TlsChannel.open(raw, ssl.create_default_context(cafile=ca_file), "127.0.0.1", heard)


@pytest.mark.parametrize("version", BOTH)
async def test_what_the_socket_does_not_take_at_once_follows_in_order(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    first, second = bytes(range(256)) * 4096, b"and the end"

    def serve(connection: ssl.SSLSocket) -> None:
        received = b""
        while len(received) < len(first) + len(second):
            received += connection.recv(3000)
        connection.sendall(sha256(received).digest())
        assert connection.recv(1) == b""

    with served(authority, version, serve) as (port, raised):
        heard = Heard(wants=32)
        channel = await opened(port, authority.ca_file, heard)
        channel.write(first)
        assert "0 bytes unsent" not in repr(channel)
        channel.write(second)
        await heard.answered.wait()
        assert heard.data == sha256(first + second).digest()
        channel.close()
        assert channel.is_closing()
        assert await heard.lost is None
    # The server was told of the end: without that it would have taken it for a cut.
    assert not raised


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("polite", [True, False])
async def test_a_server_that_leaves_ends_the_channel(
    authority: Authority, version: ssl.TLSVersion, polite: bool
) -> None:
    def serve(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"answer")
        if polite:
            connection.settimeout(0)
            with pytest.raises(ssl.SSLWantReadError):
                connection.unwrap()

    with served(authority, version, serve) as (port, raised):
        heard = Heard()
        channel = await opened(port, authority.ca_file, heard)
        assert await heard.lost is None
        assert (heard.data, heard.eof, channel.is_closing()) == (b"answer", True, True)
        channel.write(b"into the void")
    assert not raised


async def test_an_abort_tells_the_server_nothing(authority: Authority) -> None:
    def serve(connection: ssl.SSLSocket) -> None:
        with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
            connection.recv(1)

    with served(authority, ssl.TLSVersion.TLSv1_3, serve) as (port, raised):
        heard = Heard()
        channel = await opened(port, authority.ca_file, heard)
        channel.abort()
        channel.close()
        assert await heard.lost is None
    assert not raised


async def test_a_reader_that_fails_ends_its_channel_alone(authority: Authority) -> None:
    class Failing(Heard):
        def buffer_updated(self, nbytes: int) -> None:
            raise ValueError(nbytes)

    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    with served(authority, ssl.TLSVersion.TLSv1_3, lambda connection: connection.sendall(b"answer")) as (port, _):
        heard = Failing()
        await opened(port, authority.ca_file, heard)
        assert isinstance(await heard.lost, ValueError)
    assert len(reported) == 1


async def test_nobody_is_trusted_without_a_reason(authority: Authority) -> None:
    with served(authority, ssl.TLSVersion.TLSv1_3, lambda connection: connection.recv(1)) as (port, raised):
        raw = socket.create_connection(("127.0.0.1", port))
        raw.setblocking(False)
        with pytest.raises(ssl.SSLCertVerificationError):
            await TlsChannel.open(raw, ssl.create_default_context(), "127.0.0.1", Heard())
        assert raw.fileno() == -1
    assert raised
