"""The API on a real socket and a real database, in a thread of the test's process, and a caller that speaks HTTP to it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy

from clarion.access.bootstrap import create_key
from clarion.access.principal import Role
from clarion.api.server import no_other_roles, serve_api
from clarion.console.serve import explorer_routes
from clarion.core.ids import ResourceName
from clarion.core.settings import Settings
from clarion.core.system import SystemClock, SystemRandom
from clarion.database.address import DatabaseAddress
from clarion.registry.resources import Resource
from clarion.sender.seal import Sealer


def resource(name: str, singular: str | None = None, description: str = "") -> Resource:
    """A resource as a schema needs it, which looks at its names alone."""
    never = datetime.fromtimestamp(0, UTC)
    return Resource(0, ResourceName(name), singular, description, False, None, None, "", never, never)


UNLIMITED = Settings(api_points_per_second=1_000_000, api_points_burst=10_000_000)
"""Points for as many requests as a test makes: the answer is to be about something else."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; `body` is its JSON."""

    status: int
    headers: dict[str, str]
    body: Any
    text: str
    """The body as it came."""

    @property
    def data(self) -> Any:
        assert "errors" not in self.body, self.body
        return self.body["data"]

    @property
    def error(self) -> dict[str, Any]:
        """The only error."""
        assert len(self.body["errors"]) == 1, self.body
        return dict(self.body["errors"][0])

    @property
    def refusal(self) -> tuple[str, str | None]:
        """Code and field of the only error."""
        extensions = self.error["extensions"]
        return extensions["code"], extensions.get("field")


@dataclass(frozen=True, slots=True)
class Caller:
    """Sends requests with one key."""

    port: int
    key: str | None
    database: DatabaseAddress

    def __call__(self, query: str, /, **variables: Any) -> Answer:
        return self.post({"query": query, "variables": variables})

    def post(self, content: Any) -> Answer:
        return self.send(json.dumps(content).encode())

    def send(
        self, body: bytes | Iterator[bytes], method: str = "POST", path: str = "/graphql", **headers: str
    ) -> Answer:
        given = {"content-type": "application/json"}
        if self.key is not None:
            given["authorization"] = f"Bearer {self.key}"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, given, encode_chunked="transfer-encoding" in given)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        shown = {name.lower(): value for name, value in response.headers.items()}
        text = content.decode()
        return Answer(response.status, shown, json.loads(text) if is_json else text, text)

    def with_key(self, key: str | None) -> Caller:
        return replace(self, key=key)

    def of(self, organisation: str, role: Role, name: str | None = None) -> Caller:
        """Another client's caller, made with its organisation when absent."""
        return self.with_key(new_key(self.database, organisation, role, name or role.lower()))

    def rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What a statement finds in the database, past the API."""
        with psycopg.connect(self.database.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []


def new_key(database: DatabaseAddress, organisation: str, role: Role, name: str) -> str:
    engine = sqlalchemy.create_engine(database.sqlalchemy("psycopg"), poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        return create_key(connection, organisation, name, role, SystemRandom())


@contextmanager
def served(
    database: DatabaseAddress,
    sealer: Sealer,
    *allowed_networks: str,
    ready: Callable[[], Mapping[str, bool]] = no_other_roles,
    settings: Settings | None = None,
    console: Path | None = None,
) -> Iterator[int]:
    """The port of an API that runs until the block ends. `console` is a directory in place of the built console's."""
    networks = tuple(ip_network(network) for network in allowed_networks)
    given = (settings or Settings()).model_copy(update={"allowed_networks": networks})
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    accepting = threading.Event()
    failures: list[BaseException] = []
    ends: list[Callable[[], object]] = []

    async def serve() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        ends.append(partial(loop.call_soon_threadsafe, stopping.set))
        clock, random = SystemClock(), SystemRandom()
        await serve_api(
            *(given, database, listening, clock, random, sealer, stopping, accepting.set, ready),
            pages=explorer_routes(console),
        )

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failures.append(error)
        finally:
            accepting.set()

    thread = threading.Thread(target=run, name="api")
    thread.start()
    try:
        assert accepting.wait(20)
        if failures:
            raise failures[0]
        yield port
    finally:
        ends[0]()
        thread.join(20)
        assert not thread.is_alive()
        if failures:
            raise failures[0]
