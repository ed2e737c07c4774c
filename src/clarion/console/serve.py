"""The API explorer: a page at `GET /graphql` and its files below `/graphql/assets/`, all from the package itself.

The page is a program in the browser that holds an API key. What it may do is bounded by a Content-Security-Policy: no
script but ours, no request but to this server, in no frame. Its source is in console/ at the repository's root;
hatch_build.py builds it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

_log = logging.getLogger(__name__)

ASSETS: Final = "/graphql/assets/"
TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "ttf": "font/ttf",
    "woff2": "font/woff2",
}
FOR_PROGRAMS: Final = (
    "Send queries here with POST, as JSON, with an API key: `Authorization: Bearer <API key>`.\n"
    "In a browser this address is the API explorer.\n"
)
NOT_BUILT: Final = (
    "This installation was built without the API explorer. The API works: send queries here with POST.\n"
    "In a working copy, scripts/setup builds it and says why it could not.\n"
)

# The editor (Monaco) writes its colours and sizes into <style> elements and style attributes as it runs, which no hash
# or nonce can name; hence 'unsafe-inline', for styles alone. Its marks under errors are images in `data:` addresses.
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; worker-src 'self'; "
    "img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A worker is bound by the policy that its own file comes with: it loads nothing and calls nobody.
_ASSET_POLICY: Final = "default-src 'none'; script-src 'self'; frame-ancestors 'none'"
_PERMISSIONS: Final = (
    "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), publickey-credentials-get=(), usb=()"
)
_ALWAYS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": _PERMISSIONS,
}
_PAGE_HEADERS: Final = {
    **_ALWAYS,
    "content-security-policy": _PAGE_POLICY,
    "cache-control": "no-cache",
    "vary": "accept, accept-encoding",
}
_ASSET_HEADERS: Final = {
    **_ALWAYS,
    "content-security-policy": _ASSET_POLICY,
    # The name has the content's hash in it.
    "cache-control": "public, max-age=31536000, immutable",
    "vary": "accept-encoding",
}


@dataclass(frozen=True, slots=True)
class Document:
    """A file in memory: as it is, and with gzip if that is smaller."""

    content: bytes
    compressed: bytes | None
    media_type: str
    etag: str


@dataclass(frozen=True, slots=True)
class Built:
    """The built console: its page, and its files by name. About 8 MB."""

    page: Document
    assets: Mapping[str, Document]


def explorer_routes(static: Traversable | None = None) -> list[BaseRoute]:
    """Routes for the page and its files, which are read now, from the package unless another directory is given.

    Without a built console the page is a text that says so.
    """
    built = _read(static or files("clarion.console") / "static")
    if built is None:
        _log.warning("GET /graphql has no explorer: the console was not built with this installation")

    async def page(request: Request) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            headers = {"allow": "POST", "vary": "accept"}
            return PlainTextResponse(FOR_PROGRAMS, 405, headers)
        if built is None:
            return PlainTextResponse(NOT_BUILT, 404, {"vary": "accept"})
        return _answer(request, built.page, _PAGE_HEADERS)

    async def asset(request: Request) -> Response:
        found = None if built is None else built.assets.get(request.path_params["name"])
        if found is None:
            return PlainTextResponse("There is no such file.\n", 404, {"x-content-type-options": "nosniff"})
        return _answer(request, found, _ASSET_HEADERS)

    return [Route("/graphql", page, methods=["GET"]), Route(ASSETS + "{name}", asset, methods=["GET"])]


def _read(static: Traversable) -> Built | None:
    if not (static / "index.html").is_file():
        return None
    directory = static / "graphql" / "assets"
    names = [entry.name for entry in directory.iterdir() if not entry.name.endswith(".gz")]
    return Built(_document(static, "index.html"), {name: _document(directory, name) for name in names})


def _document(directory: Traversable, name: str) -> Document:
    content = (directory / name).read_bytes()
    compressed = directory / f"{name}.gz"
    return Document(
        content,
        compressed.read_bytes() if compressed.is_file() else None,
        TYPES[name.rpartition(".")[2]],
        sha256(content).hexdigest()[:32],
    )


def _answer(request: Request, document: Document, fixed: Mapping[str, str]) -> Response:
    """The document as the browser takes it, or 304 for one that has it."""
    content, etag, encoding = document.content, f'"{document.etag}"', {}
    if document.compressed is not None and _takes_gzip(request):
        content, etag, encoding = document.compressed, f'"{document.etag}-gzip"', {"content-encoding": "gzip"}
    headers = {**fixed, "etag": etag}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers={**headers, **encoding}, media_type=document.media_type)


def _takes_gzip(request: Request) -> bool:
    for offered in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = offered.replace(" ", "").partition(";")
        if name == "gzip":
            return weight not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
