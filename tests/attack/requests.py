"""Hostile requests that are more than a document: what goes over the wire for each, and what it is answered with.

The documents themselves are in `attack.graphql`. `PLAIN` are answered by the API, `BROKEN` by the HTTP server before it.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import count

from attack.graphql import BODY_BYTES_MAX

PING = "{ __typename }"
DELETE = 'mutation { deleteWebhookReceiver(id: 1, etag: "x") { id } }'
_MIB = 1024 * 1024
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class HostileRequest:
    """`build` gives the whole request for a key, another one each time where it matters.

    `code` is that of its error, None where it is answered or not by the API. With `others` it is one of several answers
    that are all right, by status.
    """

    name: str
    build: Callable[[str], bytes]
    status: int = 400
    code: str | None = "MALFORMED"


def request(
    key: str | None,
    body: bytes = b"",
    *more: str,
    method: str = "POST",
    path: str = "/graphql",
    media_type: str | None = "application/json",
    length: str | None = "",
) -> bytes:
    """The bytes of a request; `more` are lines of its head. `length` None: without `content-length`."""
    lines = [f"{method} {path} HTTP/1.1", "host: clarion.example"]
    if key is not None:
        lines.append(f"authorization: Bearer {key}")
    if media_type is not None:
        lines.append(f"content-type: {media_type}")
    if length is not None:
        lines.append(f"content-length: {length or len(body)}")
    return "\r\n".join([*lines, *more, "", ""]).encode("latin-1") + body


def operation(query: str, **more: object) -> bytes:
    return json.dumps({"query": query, **more}, ensure_ascii=False).encode()


def _array(queries: Iterator[str] | list[str]) -> bytes:
    return json.dumps([{"query": query} for query in queries]).encode()


def _filled(before: bytes, unit: bytes, after: bytes, size: int = BODY_BYTES_MAX) -> bytes:
    return before + unit * ((size - len(before) - len(after)) // len(unit)) + after


def _with_variables(
    json_text: bytes, query: str = "query($n: Int) { webhookReceivers(first: $n) { edges { cursor } } }"
) -> bytes:
    return b'{"query": ' + json.dumps(query).encode() + b', "variables": ' + json_text + b"}"


def _body(name: str, body: Callable[[], bytes], status: int = 400, code: str | None = "MALFORMED") -> HostileRequest:
    return HostileRequest(name, lambda key: request(key, body()), status, code)


@cache
def _bomb() -> bytes:
    return gzip.compress(b" " * 60 * _MIB)


def _unseen(names: int) -> str:
    """A document of so many short names, another one each time."""
    number = next(_numbers)
    return "{" + " ".join(f"a{number}" for _ in range(names)) + "}"


_IN_FILTER = "query($f: WebhookSubscriptionsInputFilters) { webhookSubscriptions(filters: $f) { edges { cursor } } }"

PLAIN: tuple[HostileRequest, ...] = (
    # Arrays of operations.
    _body("an array of eleven", lambda: _array([PING] * 11)),
    _body("an array of none", lambda: b"[]"),
    _body("arrays in arrays", lambda: b"[[[[" + operation(PING) + b"]]]]"),
    _body("an array of 13,000 numbers", lambda: _filled(b"[", b"1,", b"1]")),
    _body(
        "an array of ten lists, together too much",
        lambda: _array(
            ["{ webhookReceivers(first: 100) { edges { node { subscriptions(first: 15) { id } } } } }"] * 10
        ),
        200,
        "QUERY_TOO_COMPLEX",
    ),
    _body(
        "an array of ten documents, each as long as one may be",
        lambda: _array([_unseen(1_000) for _ in range(10)]),
        200,
        "QUERY_TOO_COMPLEX",
    ),
    # What a page of another site could make a browser send.
    *(
        HostileRequest(
            f"a mutation as {media_type or 'no type'}",
            partial(request, body=operation(DELETE), media_type=media_type),
        )
        for media_type in (
            *("text/plain", "application/x-www-form-urlencoded", "application/graphql", "text/json", None),
            "text/plain; application/json",
        )
    ),
    HostileRequest(
        "a form",
        lambda key: request(
            key,
            b'--x\r\ncontent-disposition: form-data; name="operations"\r\n\r\n' + operation(DELETE) + b"\r\n--x--\r\n",
            media_type="multipart/form-data; boundary=x",
        ),
    ),
    HostileRequest(
        "a mutation in the address", lambda key: request(key, path="/graphql?query=mutation%7Bx%7D&variables=%7B%7D")
    ),
    *(
        HostileRequest(
            f"a mutation by {method}",
            partial(request, body=operation(DELETE), method=method, path="/graphql?query=mutation%7Bx%7D"),
            405,
            None,
        )
        for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS")
    ),
    HostileRequest(
        "a method in a header", lambda key: request(key, b"", "x-http-method-override: POST", method="GET"), 405, None
    ),
    HostileRequest(
        "a preflight",
        lambda key: request(
            None, b"", "origin: https://evil.example", "access-control-request-method: POST", method="OPTIONS"
        ),
        405,
        None,
    ),
    HostileRequest(
        "another site's page with a cookie",
        lambda key: request(
            None, operation(DELETE), f"cookie: authorization=Bearer {key}", "origin: https://evil.example"
        ),
        401,
        "UNAUTHENTICATED",
    ),
    # Keys.
    HostileRequest("no key, and a body", lambda _key: request(None, operation(PING)), 401, "UNAUTHENTICATED"),
    HostileRequest(
        "a key of 60,000 letters", lambda _key: request("k" * 60_000, operation(PING)), 401, "UNAUTHENTICATED"
    ),
    HostileRequest(
        "a key of control characters",
        lambda _key: request("\x80\xff\xa0 " * 40, operation(PING)),
        401,
        "UNAUTHENTICATED",
    ),
    # Sizes and encodings of bodies.
    HostileRequest(
        "a byte too much", lambda key: request(key, operation(PING).ljust(BODY_BYTES_MAX + 1)), 413, "TOO_LARGE"
    ),
    HostileRequest("a length that is not sent", lambda key: request(key, b"{", length=str(10**15)), 413, "TOO_LARGE"),
    HostileRequest(
        "ten megabytes in chunks",
        lambda key: (
            request(key, b"10000\r\n" + b" " * 65_536 + b"\r\n", "transfer-encoding: chunked", length=None)
            + b"10000\r\n"
            + b" " * 65_536
            + b"\r\n0\r\n\r\n"
        ),
        413,
        "TOO_LARGE",
    ),
    HostileRequest("60 MiB in gzip", lambda key: request(key, _bomb(), "content-encoding: gzip")),
    HostileRequest(
        "a mutation in deflate", lambda key: request(key, zlib.compress(operation(DELETE)), "content-encoding: deflate")
    ),
    HostileRequest("UTF-16", lambda key: request(key, operation(PING).decode().encode("utf-16"))),
    HostileRequest(
        "letters in more bytes than they need", lambda key: request(key, b'{"query": "\xc1\xbb __typename }"}')
    ),
    HostileRequest("half a character", lambda key: request(key, b'{"query": "\xed\xa0\x80"}')),
    HostileRequest("half a character, escaped", lambda key: request(key, b'{"query": "\\ud800"}')),
    HostileRequest("a mark of byte order", lambda key: request(key, b"\xef\xbb\xbf" + operation(PING))),
    # JSON.
    _body("lists 60,000 deep", lambda: _filled(b"", b"[", b"")),
    _body("lists 30,000 deep that end", lambda: b"[" * 30_000 + b"]" * 30_000),
    _body("objects 12,000 deep", lambda: _filled(b"", b'{"a":', b"")),
    _body("a number of 60,000 digits", lambda: _filled(b"", b"1", b"")),
    _body("two documents", lambda: operation(PING) + operation(DELETE)),
    _body("not a number", lambda: _with_variables(b'{"n": NaN}')),
    _body("a query that is a list", lambda: b'{"query": ["{ __typename }"]}'),
    _body(
        "an id in place of a query",
        lambda: b'{"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "' + b"0" * 64 + b'"}}}',
    ),
    _body("a name 9,000 times", lambda: _filled(b'{"query": "{ __typename }"', b',"x": 1', b"}"), 200, None),
    _body(
        "a query twice",
        lambda: b'{"query": ' + json.dumps(DELETE).encode() + b', "query": "{ __typename }"}',
        200,
        None,
    ),
    _body(
        "an operation's name as long as the body",
        lambda: operation(PING, operationName="x" * 60_000),
        200,
        "QUERY_INVALID",
    ),
    # Variables.
    _body(
        "a variable of 60,000 digits",
        lambda: _filled(
            b'{"query": "query($n: Int) { webhookReceivers(first: $n) { edges { cursor } } }", "variables": {"n": ',
            b"1",
            b"}}",
        ),
    ),
    _body("a variable beyond a double", lambda: _with_variables(b'{"n": 1e400}'), 400),
    _body("a variable beyond 32 bits", lambda: _with_variables(b'{"n": 4294967296}'), 200, "INVALID_INPUT"),
    _body("a variable 9,000 deep", lambda: _with_variables(b'{"n": ' + b"[" * 9_000 + b"]" * 9_000 + b"}"), 400),
    _body(
        "a variable 900 deep",
        lambda: _with_variables(b'{"f": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}", _IN_FILTER),
        200,
        "INVALID_INPUT",
    ),
    _body(
        "6,000 variables that nobody asked for",
        lambda: _with_variables(b"{" + b",".join(b'"v%d":1' % number for number in range(6_000)) + b"}"),
        200,
        None,
    ),
    _body(
        "NUL in an id",
        lambda: operation("query($i: ID!) { webhookReceiver(id: $i) { id } }", variables={"i": "1\0"}),
        200,
        "NOT_FOUND",
    ),
    _body(
        "an id in another alphabet's digits",
        lambda: operation("query($i: ID!) { webhookReceiver(id: $i) { id } }", variables={"i": "\u0661\uff12"}),
        200,
        "NOT_FOUND",
    ),
    _body(
        "an id beyond 64 bits",
        lambda: operation("query($i: ID!) { webhookReceiver(id: $i) { id } }", variables={"i": "9" * 4_000}),
        200,
        "NOT_FOUND",
    ),
    _body(
        "a cursor that is none",
        lambda: operation('{ webhookReceivers(after: "' + "A" * 50_000 + '") { edges { cursor } } }'),
        200,
        "INVALID_INPUT",
    ),
    # Not HTTP's business.
    HostileRequest(
        "a websocket",
        lambda key: request(
            key,
            b"",
            "upgrade: websocket",
            "connection: upgrade",
            "sec-websocket-version: 13",
            "sec-websocket-key: x",
            method="GET",
        ),
        405,
        None,
    ),
    HostileRequest(
        "an address above the root",
        lambda key: request(key, operation(PING), path="/graphql/../../etc/passwd"),
        404,
        None,
    ),
    HostileRequest("an address in escapes", lambda key: request(key, operation(PING), path="/%67raphql%00"), 404, None),
)
"""Each is answered by the API with this status, and this code where there is one."""

BROKEN: tuple[HostileRequest, ...] = (
    HostileRequest(
        "both lengths",
        lambda key: request(key, b"0\r\n\r\n" + request(key, operation(DELETE)), "transfer-encoding: chunked"),
        code=None,
    ),
    HostileRequest("two lengths", lambda key: request(key, operation(PING), "content-length: 3"), code=None),
    HostileRequest("a length below zero", lambda key: request(key, operation(PING), length="-1"), code=None),
    HostileRequest("a length beyond 64 bits", lambda key: request(key, operation(PING), length="9" * 40), code=None),
    HostileRequest(
        "a chunk's length beyond 64 bits",
        lambda key: request(key, b"f" * 40 + b"\r\n", "transfer-encoding: chunked", length=None),
        code=None,
    ),
    HostileRequest(
        "a blank before a colon", lambda key: request(key, operation(PING), "content-length : 3"), code=None
    ),
    HostileRequest(
        "a folded header", lambda key: request(key, operation(PING), "x: 1", " transfer-encoding: chunked"), code=None
    ),
    HostileRequest("NUL in a header", lambda key: request(key, operation(PING), "x: \0"), code=None),
    HostileRequest(
        "a head of 70 KB in one line", lambda key: request(key, operation(PING), "x: " + "y" * 70_000), code=None
    ),
    HostileRequest("a head of 20,000 lines", lambda key: request(key, operation(PING), *["x: y"] * 20_000), code=None),
    HostileRequest(
        "a line of 10 MB without end", lambda key: b"POST /graphql HTTP/1.1\r\nx: " + b"y" * 10 * _MIB, code=None
    ),
    HostileRequest("an address of 10 MB", lambda key: b"POST /" + b"g" * 10 * _MIB, code=None),
    HostileRequest("not HTTP", lambda _key: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), code=None),
    HostileRequest("another version of HTTP", lambda _key: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", code=None),
)
"""Each ends its connection, after the status 400 where it was not already closed; nothing of it reaches the API."""
