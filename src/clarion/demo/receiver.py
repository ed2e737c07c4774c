"""The receiving end, a process of its own: HTTPS, every request verified, five integrators and a Teams-shaped endpoint.

    python -m clarion.demo.receiver LISTEN_FD

Standard input: one line of JSON, a `Setup`; its end means that the demo is gone, and ends this process too.
Standard output: a line of JSON when it is ready, then one (a `Delivery`) for each request, once all is done about it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from datetime import UTC, datetime
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from clarion.database.address import DatabaseAddress
from clarion.demo.application import Application
from clarion.demo.delivery import IGNORED, READY, Delivery
from clarion.demo.handle import Integrators, Later
from clarion.demo.receiver_setup import Setup, read_setup
from clarion.demo.teams import CARD_ACCEPTED, CARD_ACCEPTED_BODY, card_faults, card_lines
from clarion_receive import VerificationError, VerifiedEvent, Webhook

TEAMS_PATH: Final = "teams"
TEST_RESOURCE: Final = "webhook_tests"


class Receiver:
    """The routes. Reports go through `tell`, one line each."""

    def __init__(self, setup: Setup, integrators: Integrators) -> None:
        self._webhooks = {path: Webhook(secret) for path, secret in setup.secrets.items()}
        self._integrators = integrators
        self._under_way: set[asyncio.Task[None]] = set()
        routes = [
            Route(f"/{path}", self._take_card if path == TEAMS_PATH else self._take_event, methods=["POST"])
            for path in self._webhooks
        ]
        self.application = Starlette(routes=routes)

    async def _take_event(self, request: Request) -> Response:
        path, at, event = await self._verified(request)
        if isinstance(event, VerificationError):
            return JSONResponse({"error": str(event)}, status_code=401)
        if self._integrators.books.is_known(event.id):
            tell(Delivery.verified(path, at, event, f"{IGNORED}known already", repeated=True))
            return JSONResponse({"did": "nothing"})
        if event.resource == TEST_RESOURCE:
            tell(Delivery.verified(path, at, event, f"{IGNORED}a test"))
            return JSONResponse({"did": "nothing: it was a test"})
        try:
            outcome = await self._integrators.handlers[path](event)
        except Exception as error:  # whatever went wrong is ours: Clarion is to send it again
            tell(Delivery.verified(path, at, event, f"failed: {_words(error)}", failed=True))
            return JSONResponse({"error": type(error).__name__}, status_code=502)
        self._integrators.books.remember(event.id)
        if isinstance(outcome, Later):
            task = asyncio.create_task(self._finish(path, at, event, outcome))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            return JSONResponse({"did": "accepted, validated later"})
        tell(Delivery.verified(path, at, event, outcome.words, outcome.act))
        return JSONResponse({"did": outcome.words})

    async def _finish(self, path: str, at: datetime, event: VerifiedEvent, later: Later) -> None:
        try:
            done = await later.work
        except Exception as error:  # nobody waits for an answer any more: it is shown
            tell(Delivery.verified(path, at, event, f"failed: {_words(error)}", failed=True))
        else:
            tell(Delivery.verified(path, at, event, done.words, done.act))

    async def _take_card(self, request: Request) -> Response:
        """As Teams takes a message, but for the signature, which Teams does not look at."""
        path, at, event = await self._verified(request)
        if isinstance(event, VerificationError):
            return PlainTextResponse(str(event), status_code=401)
        if faults := card_faults(event.payload):
            tell(Delivery.verified(path, at, event, f"failed: Teams refused the card: {faults[0]}", failed=True))
            return PlainTextResponse("; ".join(faults), status_code=400)
        lines = card_lines(event.payload)
        if self._integrators.books.is_known(event.id):
            tell(Delivery.verified(path, at, event, f"{IGNORED}known already", repeated=True, card=lines))
        else:
            self._integrators.books.remember(event.id)
            tell(Delivery.verified(path, at, event, "adaptive card shown, Teams answered 200", card=lines))
        return PlainTextResponse(CARD_ACCEPTED_BODY, status_code=CARD_ACCEPTED)

    async def _verified(self, request: Request) -> tuple[str, datetime, VerifiedEvent | VerificationError]:
        """Path, time of arrival, and the event, or why it is none, which is told."""
        body = await request.body()
        at = datetime.now(UTC)
        path = request.url.path.strip("/")
        try:
            return path, at, self._webhooks[path].verify(body, request.headers)
        except VerificationError as refused:
            tell(Delivery.unverified(path, at, str(refused)))
            return path, at, refused


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _write(READY)


def tell(report: Delivery) -> None:
    """One line to the demo."""
    _write(report.line())


def _write(line: bytes) -> None:
    while line:
        line = line[os.write(sys.stdout.fileno(), line) :]


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


async def _serve(listening: socket.socket, setup: Setup) -> None:
    integrators = Integrators(Application(DatabaseAddress(setup.database_url)))
    server = _Server(
        uvicorn.Config(
            Receiver(setup, integrators).application,
            ssl_certfile=setup.certificate,
            ssl_keyfile=setup.key,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            # Clarion keeps idle connections for minutes.
            timeout_keep_alive=600,
            timeout_graceful_shutdown=1,
        )
    )

    def demo_is_gone() -> None:
        if os.read(sys.stdin.fileno(), 4096) == b"":
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            server.should_exit = True

    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), demo_is_gone)
    await server.serve([listening])


def _read_setup() -> Setup:
    """The first line of standard input, byte by byte: what follows is its end, for the loop to see."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            sys.exit(1)
        line += byte
    return read_setup(bytes(line))


def main() -> None:
    """Serves until told to end."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    asyncio.run(_serve(listening, _read_setup()))


if __name__ == "__main__":
    main()
