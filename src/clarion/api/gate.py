"""What every route for clients has in common: who asks, how much of it, and how it is answered.

A route hands `answered` a function that is called with the Visit of a known client that had a point left. The body is
read by whoever wants it; who is unknown is refused before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from clarion.access.authentication import KeyCache, hash_of_header_key, presented_key, principal_of_key
from clarion.access.history import Entry
from clarion.access.principal import Origin, Principal
from clarion.api.answers import Answer, RateLimited, Refused, errors_answer, rate_headers
from clarion.api.context import Services
from clarion.api.errors import internal
from clarion.api.idempotency import Idempotency, checked_key
from clarion.api.rate import RateLimiter, Standing, Strangers
from clarion.api.refusals import Refusals
from clarion.api.schema_source import SchemaSource
from clarion.api.session import Whole, acting
from clarion.core.errors import BeforeGraphQL, Code

IDEMPOTENCY_KEY = "idempotency-key"

BODY_SECONDS_MAX = 30


@dataclass(frozen=True, slots=True)
class Api:
    """What the routes work with. `ready` tells for each other role of the deployment whether it is ready."""

    engine: AsyncEngine
    role: str
    keys: KeyCache
    source: SchemaSource
    services: Services
    ready: Callable[[], Mapping[str, bool]]
    rates: RateLimiter
    strangers: Strangers
    idempotency: Idempotency
    refusals: Refusals


class Visit:
    """One request of a known client."""

    def __init__(self, api: Api, request: Request, principal: Principal, request_id: str) -> None:
        self.api = api
        self.request = request
        self.principal = principal
        self.request_id = request_id
        self.standing: Standing | None = None
        self.refused: list[Entry] = []
        """What of the request was refused, for the history."""
        self._charged = 0

    def charge(self, points: int) -> None:
        """Take the points. Raises RateLimited if the client or its organisation does not have them.

        A visit is never charged more than the client can have at once: what costs more can be asked for by who waited.
        """
        points = self._bounded(points)
        who = self.principal
        self.standing = self.api.rates.charge(who.client_id, who.organisation_id, points, self._now_ns())
        if self.standing.retry_after_s is not None:
            raise self._limited(self.standing.retry_after_s)
        self._charged += points

    def owe(self, points: int, wanted: int) -> RateLimited:
        """Charge for what is done already, and say when `wanted` can be had, which was refused."""
        who, wanted = self.principal, self._bounded(wanted)
        self.standing = self.api.rates.owe(who.client_id, who.organisation_id, points, wanted, self._now_ns())
        return self._limited(self.standing.retry_after_s or 1)

    def _bounded(self, points: int) -> int:
        limit = points if self.standing is None else self.standing.limit
        return min(points, limit - self._charged)

    def _limited(self, retry_after_s: int) -> RateLimited:
        self.api.refusals.count(self.principal, self.request.url.path, Code.RATE_LIMITED)
        return RateLimited(retry_after_s, f"client {self.principal.name!r} or its organisation asked for too much")

    def _now_ns(self) -> int:
        return self.api.services.clock.monotonic_ns()

    async def body(self, bytes_max: int) -> bytes:
        """The request's body. Raises Refused: 400 for another type than JSON, 413 for more than `bytes_max`, 408 for too slow."""
        media_type = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise Refused(400, BeforeGraphQL.MALFORMED, "the body must be JSON: send `content-type: application/json`")
        too_large = Refused(
            413, BeforeGraphQL.TOO_LARGE, f"the body may have at most {bytes_max} bytes: send less at once"
        )
        length = self.request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > bytes_max:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                async for chunk in self.request.stream():
                    body += chunk
                    if len(body) > bytes_max:
                        raise too_large
        except TimeoutError:
            raise Refused(
                408,
                BeforeGraphQL.MALFORMED,
                f"the body did not come within {BODY_SECONDS_MAX} seconds: send less at once",
            ) from None
        return bytes(body)

    @property
    def idempotency_key(self) -> str | None:
        """The key that the request came with. Raises Refused (400) for one that is none."""
        header = self.request.headers.get(IDEMPOTENCY_KEY)
        return None if header is None else checked_key(header)

    async def once(self, key: str, body: bytes, act: Callable[[Whole], Awaitable[Answer]]) -> Answer:
        """What `act` answers in one transaction that holds its answer, too, or what it answered before.

        `act` works on the connection of the Whole, as the API's role for the client's organisation. It raises NotKept to
        take back what it did. Raises Refused: 422 for another body under the same key, 409 while one with it runs.
        """
        path = self.request.url.path.encode()
        return await self.api.idempotency.once(self.principal, self.request_id, key, path + b"\n" + body, act)


async def answered(
    api: Api, request: Request, act: Callable[[Visit], Awaitable[Answer]], *, rate_limited_status: int = 429
) -> Response:
    """The answer of `act` to a known client's request, or why there is none."""
    request_id = api.services.random.token(8).hex()
    visit: Visit | None = None
    more: Mapping[str, str] = {}
    try:
        principal = await _authenticated(api, request, request_id)
        origin = replace(principal.origin, address=_peer(request), request_id=request_id)
        visit = Visit(api, request, replace(principal, origin=origin), request_id)
        visit.charge(1)
        answer = await act(visit)
    except RateLimited as refused:
        status = refused.status if visit is None else rate_limited_status
        answer, more = errors_answer(status, refused.error), refused.headers
    except Refused as refused:
        answer, more = errors_answer(refused.status, refused.error), refused.headers
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        answer = errors_answer(503, internal(request_id, error, "the database"))
    except ClientDisconnect:
        return Response(status_code=499)
    except Exception as error:
        answer = errors_answer(500, internal(request_id, error, "the request"))
    if visit is not None:
        # Whatever the request held is given back by now.
        await api.refusals.record(visit.principal, visit.refused)
    return _response(answer, visit, request_id, more)


def _response(answer: Answer, visit: Visit | None, request_id: str, more: Mapping[str, str]) -> Response:
    headers = {"x-request-id": request_id, "cache-control": "no-store", "x-content-type-options": "nosniff", **more}
    if visit is not None and visit.standing is not None:
        headers |= rate_headers(visit.standing)
        if visit.standing.retry_after_s is not None:
            headers["retry-after"] = str(visit.standing.retry_after_s)
    if answer.replayed:
        headers["idempotency-replayed"] = "true"
    return Response(answer.content, answer.status, headers, media_type="application/json")


async def _authenticated(api: Api, request: Request, request_id: str) -> Principal:
    """The client behind the request's key. Raises Refused (401), RateLimited for too many unknown keys."""
    key = presented_key(request.headers.get("authorization"))
    if key is None:
        raise Refused(
            401, BeforeGraphQL.UNAUTHENTICATED, "Please provide proper credentials: `Authorization: Bearer <API key>`"
        )
    hashed = hash_of_header_key(key)
    known = api.keys.get(hashed)
    if known is not None:
        return known
    clock, address = api.services.clock, _peer(request)
    wait_s = api.strangers.wait_s(address, hashed, clock.monotonic_ns())
    if wait_s > 0:
        raise RateLimited(wait_s, "too many unknown API keys came from this address")
    async with acting(api.engine, api.role) as connection:
        found = await principal_of_key(connection, hashed)
    if found is None:
        api.strangers.unknown(address, hashed, clock.monotonic_ns())
        await api.refusals.record_key(hashed, Origin(address, request_id))
        raise Refused(
            401,
            BeforeGraphQL.UNAUTHENTICATED,
            "the API key is unknown, expired or revoked: ask an administrator of the organisation",
        )
    api.strangers.known(hashed)
    api.keys.put(hashed, found)
    return found


def _peer(request: Request) -> str | None:
    """The address that the request came from."""
    return None if request.client is None else request.client.host
