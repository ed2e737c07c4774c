"""`GET /.well-known/jwks.json`: the public halves of the deployment's signing keys, for everybody."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import orjson
from sqlalchemy import func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from clarion.api.session import acting
from clarion.core.clock import Clock
from clarion.database import tables
from clarion.sender.signing_key import jwk

_KEPT_NS = 1_000_000_000
_CACHEABLE_S = 300
_PUBLISHED_AFTER = timedelta(days=1)
"""How long a key is published after it signed last: retries, queues and clocks of receivers are late."""


class PublishedKeys:
    """Answers from memory for a second: whoever asks without a key must not be able to keep the database busy."""

    def __init__(self, engine: AsyncEngine, role: str, clock: Clock) -> None:
        self._engine = engine
        self._role = role
        self._clock = clock
        self._reading = asyncio.Lock()
        self._document = b""
        self._until_ns = 0

    async def answer(self, _request: Request) -> Response:
        """The JWK set (RFC 7517); 503 while the database cannot be read and nothing was read before."""
        async with self._reading:
            if self._clock.monotonic_ns() >= self._until_ns:
                try:
                    self._document = await self._read()
                except (SQLAlchemyError, OSError, TimeoutError):
                    # Keys that were true a while ago are better than none.
                    if not self._document:
                        return PlainTextResponse("the database cannot be read\n", 503, {"cache-control": "no-store"})
                self._until_ns = self._clock.monotonic_ns() + _KEPT_NS
        headers = {"cache-control": f"public, max-age={_CACHEABLE_S}"}
        return Response(self._document, 200, headers, media_type="application/jwk-set+json")

    async def _read(self) -> bytes:
        keys = tables.signing_keys.c
        statement = (
            select(keys.public_key)
            .where(or_(keys.signs_until.is_(None), keys.signs_until > func.now() - _PUBLISHED_AFTER))
            .order_by(keys.signs_from.desc(), keys.id.desc())
        )
        async with acting(self._engine, self._role) as connection:
            found = (await connection.scalars(statement)).all()
        return orjson.dumps({"keys": [jwk(public) for public in found]})
