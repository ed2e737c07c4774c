"""The API's routes."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from clarion.api.gate import Api, answered
from clarion.api.operations import answer_graphql
from clarion.api.published_keys import PublishedKeys
from clarion.api.publishing import Publishing


def build_app(api: Api, pages: Sequence[BaseRoute] = ()) -> Starlette:
    """The application with its routes: `/graphql`, `/v1/changes`, two documents below `/.well-known`, `/livez`, `/readyz`.

    `pages` are what browsers get besides.
    """
    egress = orjson.dumps(api.services.environments.published(), option=orjson.OPT_INDENT_2)
    published_keys = PublishedKeys(api.engine, api.role, api.services.clock)
    publishing = Publishing(api)

    async def graphql(request: Request) -> Response:
        # GraphQL's answers have HTTP 200, also when the client has used up its points.
        return await answered(api, request, answer_graphql, rate_limited_status=200)

    async def changes(request: Request) -> Response:
        return await answered(api, request, publishing.answer)

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
            Route("/v1/changes", changes, methods=["POST"]),
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
