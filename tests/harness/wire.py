"""Bytes to a server and back, past any client that would send only what is right."""

from __future__ import annotations

import http.client
import socket
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; `status` None: the connection ended without an answer."""

    status: int | None
    body: bytes = b""


def exchange(port: int, sent: bytes, timeout_s: float = 20) -> Reply:
    """The first answer to these bytes on a connection of their own. Raises TimeoutError when there is none in time."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        # The server may have heard enough.
        with suppress(ConnectionError):
            connection.sendall(sent)
        return answer_on(connection, sent.partition(b" ")[0].decode("latin-1"))


def answer_on(connection: socket.socket, method: str = "POST") -> Reply:
    """The next answer on a connection. Raises TimeoutError."""
    response = http.client.HTTPResponse(connection, method=method)
    try:
        response.begin()
        return Reply(response.status, response.read())
    except (ConnectionError, http.client.HTTPException):
        return Reply(None)
    finally:
        response.close()
