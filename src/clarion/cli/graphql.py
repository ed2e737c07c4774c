"""Clarion's API over HTTP, as any client uses it. One connection is kept for all requests of a command."""

from __future__ import annotations

import http.client
import json
import select
import ssl
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from clarion.cli.output import inert
from clarion.core.errors import ApiRefused, UsageInvalid

_ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
_SHOWN_CHARACTERS: Final = 200
_DIGITS_EXACT: Final = 18
_HINTS: Final = {
    "UNAUTHENTICATED": "the key is unknown, revoked or expired: CLARION_API_KEY or --key-file must hold one of this deployment's",
    "FORBIDDEN": "the key's client may not do this; an administrator can change its role (`clarion clients update`)",
    "NOT_FOUND": "the `list` command shows what there is",
    "CONFLICT": "it was changed at the same moment: look at it (`show`) and repeat the command",
    "RATE_LIMITED": "wait a moment and repeat the command",
    "INTERNAL": "the log of `clarion serve` has the reason",
}


class ApiUnavailable(ApiRefused):
    """The API gave no answer, or one that says to come back later: the same request may succeed in a while.

    `wait_seconds` is what the API asked for; 0 if it did not say.
    """

    def __init__(self, message: str, hint: str = "", wait_seconds: int = 0) -> None:
        super().__init__(message, hint)
        self.wait_seconds = wait_seconds


class GraphQL:
    """`url` is the server's, as `http://127.0.0.1:8400`; `key` an API key, which no message ever holds.

    `ca_file` has further authorities (PEM) that an https server's certificate may come from. Redirects are refused.
    Raises UsageInvalid for a URL, a key or a file that cannot be used.
    """

    def __init__(self, url: str, key: str, *, ca_file: Path | None = None, timeout_seconds: float = 15) -> None:
        self.url = url
        self._target = _parsed(url)
        # http.client would quote the whole header in its error.
        if not key.strip() or key != key.strip() or not all(" " <= character <= "~" for character in key):
            raise UsageInvalid(
                "the API key has characters that no key has", "it is one line of ASCII, without a blank at either end"
            )
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._timeout_seconds = timeout_seconds
        self._tls = _tls(ca_file) if self._target.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None

    def run(self, document: str, **variables: object) -> dict[str, Any]:
        """The answer's data, its numbers with all their digits (int, or Decimal).

        Raises ApiRefused with the API's own words when it refuses, ApiUnavailable when it cannot answer now.
        """
        status, headers, body = self._exchange(json.dumps({"query": document, "variables": variables}))
        try:
            result = json.loads(body, parse_float=Decimal, parse_int=_whole)
        except ValueError:
            result = None
        errors = _errors(result)
        if (
            status == http.client.OK
            and isinstance(result, dict)
            and isinstance(result.get("data"), dict)
            and not errors
        ):
            data: dict[str, Any] = result["data"]
            return data
        raise self._refusal(status, headers, body, errors)

    def pages(self, document: str, connection: str, **variables: object) -> Iterator[list[dict[str, Any]]]:
        """The nodes of a connection, page by page. `document` takes `$after` and asks for `pageInfo`. Raises as `run`."""
        after = None
        while True:
            page = self.run(document, after=after, **variables)[connection]
            yield [edge["node"] for edge in page["edges"]]
            if not page["pageInfo"]["hasNextPage"]:
                return
            after = page["pageInfo"]["endCursor"]

    def nodes(self, document: str, connection: str, **variables: object) -> list[dict[str, Any]]:
        """All nodes of a connection. See `pages`."""
        return [node for page in self.pages(document, connection, **variables) for node in page]

    def close(self) -> None:
        """Ends the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(self, content: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        try:
            connection = self._connected()
            connection.request("POST", f"{self._target.path.rstrip('/')}/graphql", content, self._headers)
            answer = connection.getresponse()
            body = answer.read(_ANSWER_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ApiUnavailable(
                f"the API at {self.url} does not answer: {_reason(error)}",
                "is `clarion serve` running there? CLARION_API_URL or --url says where",
            ) from error
        except BaseException:
            # An answer that nobody reads must not be taken for the next one.
            self.close()
            raise
        if len(body) > _ANSWER_BYTES_MAX:
            self.close()
            raise ApiRefused(f"the API at {self.url} answered more than {_ANSWER_BYTES_MAX} bytes")
        return answer.status, answer.headers, body

    def _connected(self) -> http.client.HTTPConnection:
        """The connection, a new one when the server has closed the last: no request is sent a second time for that."""
        kept = self._connection
        if kept is not None and kept.sock is not None and select.select([kept.sock], [], [], 0)[0]:
            self.close()
        if self._connection is None:
            host, port = self._target.hostname or "", self._target.port
            self._connection = (
                http.client.HTTPConnection(host, port, timeout=self._timeout_seconds)
                if self._tls is None
                else http.client.HTTPSConnection(host, port, timeout=self._timeout_seconds, context=self._tls)
            )
        return self._connection

    def _refusal(
        self, status: int, headers: http.client.HTTPMessage, body: bytes, errors: list[dict[str, Any]]
    ) -> ApiRefused:
        """The error that says what the answer means."""
        first = errors[0] if errors else {}
        extensions = first.get("extensions")
        extensions = extensions if isinstance(extensions, dict) else {}
        code, field = extensions.get("code", ""), extensions.get("field")
        wait = headers.get("retry-after", "")
        wait_seconds = int(wait) if wait.isascii() and wait.isdigit() else 0
        if errors:
            where = f", {field}" if field else ""
            message = f"the API refused: {first.get('message', status)} ({code or status}{where})"
        elif 300 <= status < 400:
            message = f"the API at {self.url} answered {status}, a redirect to {headers.get('location', 'nowhere')}"
            raise ApiRefused(
                inert(message), "redirects are not followed: name the right address with CLARION_API_URL or --url"
            )
        else:
            shown = body[:_SHOWN_CHARACTERS].decode("utf-8", "replace").strip()
            message = f"the API at {self.url} answered {status}, and not as Clarion does: {shown}"
        hint = _HINTS.get(str(code), "")
        if code == "RATE_LIMITED" or status in {429, 502, 503, 504}:
            raise ApiUnavailable(inert(message), hint, wait_seconds)
        return ApiRefused(inert(message), hint)


def _errors(result: object) -> list[dict[str, Any]]:
    found = result.get("errors") if isinstance(result, dict) else None
    return [error for error in found if isinstance(error, dict)] if isinstance(found, list) else []


def _parsed(url: str) -> SplitResult:
    try:
        target = urlsplit(url)
        port = target.port
    except ValueError as error:
        raise UsageInvalid("the API's URL cannot be used", "it is as https://clarion.example.com") from error
    if target.username is not None or target.password is not None:
        raise UsageInvalid("the API's URL holds a password", "the key is given by CLARION_API_KEY or --key-file")
    if target.scheme not in {"http", "https"} or not target.hostname or port == 0 or target.query or target.fragment:
        raise UsageInvalid(f"the API's URL cannot be used: {url}", "it is as https://clarion.example.com")
    if any(not "!" <= character <= "~" for character in url):
        raise UsageInvalid("the API's URL has characters that no URL has", "it is as https://clarion.example.com")
    return target


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UsageInvalid(f"CLARION_CA_FILE: {ca_file} cannot be used: {error}") from error
    return context


def _reason(error: OSError | http.client.HTTPException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message} (CLARION_CA_FILE names further authorities)"
    return str(error) or type(error).__name__


def _whole(digits: str) -> int | Decimal:
    """An int where every JSON encoder has room for it."""
    return int(digits) if len(digits) <= _DIGITS_EXACT else Decimal(digits)
