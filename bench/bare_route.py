"""The least that a route can do with the bodies of bench/publish.py: read, parse, answer. Its argument is the port."""

from __future__ import annotations

import sys

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def changes(request: Request) -> Response:
    content = orjson.loads(await request.body())
    return Response(orjson.dumps({"accepted": len(content["changes"])}), media_type="application/json")


uvicorn.run(
    Starlette(routes=[Route("/v1/changes", changes, methods=["POST"])]),
    port=int(sys.argv[1]),
    http="httptools",
    loop="uvloop",
    ws="none",
    lifespan="off",
    log_config=None,
    access_log=False,
)
