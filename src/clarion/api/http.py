"""The API's HTTP side: who asks is settled before anything of the request's body is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import orjson
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from clarion.access.authentication import KeyCache, hash_of_header_key, presented_key, principal_of_key
from clarion.access.principal import Principal
from clarion.api.context import Context, Services
from clarion.api.errors import Asked, internal, shown
from clarion.api.published_keys import PublishedKeys
from clarion.api.schema import execute
from clarion.api.schema_source import SchemaSource
from clarion.api.session import Session, acting

BODY_BYTES_MAX = 64 * 1024
OPERATIONS_MAX = 10


@dataclass(frozen=True, slots=True)
class Api:
    """What the routes work with. `ready` tells for each other role of the deployment whether it is ready."""

    engine: AsyncEngine
    role: str
    keys: KeyCache
    source: SchemaSource
    services: Services
    ready: Callable[[], Mapping[str, bool]]


class Refused(Exception):
    """A request that is answered before GraphQL sees it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"message": message, "extensions": {"code": code}}


@dataclass(frozen=True, slots=True)
class Operation:
    """One entry of a request's body."""

    query: str
    variables: dict[str, Any]
    name: str | None


def build_app(api: Api, pages: Sequence[BaseRoute] = ()) -> Starlette:
    """The application with its routes: `/graphql`, two documents below `/.well-known`, `/livez`, `/readyz`.

    `pages` are what browsers get besides.
    """
    egress = orjson.dumps(api.services.environments.published(), option=orjson.OPT_INDENT_2)
    published_keys = PublishedKeys(api.engine, api.role, api.services.clock)

    async def graphql(request: Request) -> Response:
        return await _graphql(api, request)

    async def webhook_egress(request: Request) -> Response:
        return published(request, egress)

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def readyz(_request: Request) -> Response:
        parts = {
            "database": api.source.database_answers,
            "schema": api.source.published is not None,
            **api.ready(),
        }
        return Response(orjson.dumps(parts), 200 if all(parts.values()) else 503, media_type="application/json")

    return Starlette(
        routes=[
            Route("/graphql", graphql, methods=["POST"]),
            *pages,
            Route("/.well-known/webhook-egress.json", webhook_egress),
            Route("/.well-known/jwks.json", published_keys.answer),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ]
    )


def published(request: Request, document: bytes) -> Response:
    """A public JSON document that may be kept for five minutes, or 304 for whoever has it."""
    etag = f'"{sha256(document).hexdigest()[:32]}"'
    headers = {"etag": etag, "cache-control": "public, max-age=300", "access-control-allow-origin": "*"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(document, headers=headers, media_type="application/json")


async def _graphql(api: Api, request: Request) -> Response:
    request_id = api.services.random.token(8).hex()
    try:
        known = await _authenticated(api, request)
        origin = replace(known.origin, address=_peer(request), request_id=request_id)
        principal = replace(known, origin=origin)
        body = await _body(request)
        operations, is_array = parse_body(body)
        answers = [await _run(api, principal, operation, request_id) for operation in operations]
        return _json(answers if is_array else answers[0], 200, request_id)
    except Refused as refused:
        return _json({"errors": [refused.error]}, refused.status, request_id)
    except (SQLAlchemyError, OSError, TimeoutError) as error:
        return _json({"errors": [internal(request_id, error, "the database")]}, 503, request_id)
    except ClientDisconnect:
        return Response(status_code=499)
    except Exception as error:
        return _json({"errors": [internal(request_id, error, "the request")]}, 500, request_id)


def _json(content: object, status: int, request_id: str) -> Response:
    headers = {"x-request-id": request_id, "cache-control": "no-store"}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(orjson.dumps(content), status, headers, media_type="application/json")


async def _authenticated(api: Api, request: Request) -> Principal:
    """The client behind the request's key. Raises Refused (401)."""
    key = presented_key(request.headers.get("authorization"))
    if key is None:
        raise Refused(401, "UNAUTHENTICATED", "Please provide proper credentials: `Authorization: Bearer <API key>`")
    hashed = hash_of_header_key(key)
    known = api.keys.get(hashed)
    if known is not None:
        return known
    async with acting(api.engine, api.role) as connection:
        found = await principal_of_key(connection, hashed)
    if found is None:
        raise Refused(401, "UNAUTHENTICATED", "The API key is unknown, expired or revoked")
    api.keys.put(hashed, found)
    return found


def _peer(request: Request) -> str | None:
    """The address that the request came from."""
    return None if request.client is None else request.client.host


async def _body(request: Request) -> bytes:
    """The request's body. Raises Refused: 400 for another type than JSON, 413 for more than 64 KiB."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refused(400, "MALFORMED", "The body must be JSON: send `content-type: application/json`")
    too_large = Refused(413, "TOO_LARGE", f"The body may have at most {BODY_BYTES_MAX} bytes")
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > BODY_BYTES_MAX:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise too_large
    return bytes(body)


def parse_body(body: bytes) -> tuple[list[Operation], bool]:
    """The operations in a body, and whether they came as an array. Raises Refused (400)."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, "MALFORMED", "The body is no JSON document in UTF-8") from error
    if isinstance(content, list):
        if not 1 <= len(content) <= OPERATIONS_MAX:
            raise Refused(400, "MALFORMED", f"An array must have 1 to {OPERATIONS_MAX} operations")
        return [_operation(entry) for entry in content], True
    return [_operation(content)], False


def _operation(entry: Any) -> Operation:
    if not isinstance(entry, dict):
        raise Refused(400, "MALFORMED", "An operation is a JSON object with `query` and, if needed, `variables`")
    query, variables, name = entry.get("query"), entry.get("variables"), entry.get("operationName")
    if not isinstance(query, str):
        raise Refused(400, "MALFORMED", "`query` must be a text")
    if not isinstance(variables, dict | None):
        raise Refused(400, "MALFORMED", "`variables` must be an object")
    if not isinstance(name, str | None):
        raise Refused(400, "MALFORMED", "`operationName` must be a text")
    return Operation(query, variables or {}, name or None)


async def _run(api: Api, principal: Principal, operation: Operation, request_id: str) -> dict[str, Any]:
    """One operation's answer."""
    published = api.source.published
    if published is None:
        raise Refused(503, "INTERNAL", "The API is starting")
    session = Session(api.engine, api.role, principal, request_id)
    context = Context(api.services, principal, session, published.resources, operation.name)
    try:
        result = await execute(published.schema, operation.query, operation.variables, context)
    finally:
        await session.finish()
    answer: dict[str, Any] = {"data": result.data}
    if result.errors:
        asked = Asked(published.schema.graphql_schema, operation.query, operation.variables, request_id)
        answer["errors"] = shown(result.errors, asked)
    return answer
