"""Clarion's API over HTTP, as any client uses it. One connection is kept for all requests of a command.

A change carries an idempotency key of its own, so that it can be asked for again when nobody knows what became of it: the
API carries it out once, and answers the same.
"""

from __future__ import annotations

import http.client
import json
import secrets
import select
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import click

from clarion.cli.output import inert
from clarion.core.errors import ApiRefused, UsageInvalid

WAITS_SECONDS: Final = (0.2, 1.0, 2.0, 4.0, 8.0)
"""Before each further request for one change; so it is asked for six times at most."""

_WAIT_SECONDS_MAX: Final = 30
"""An API that wants to be left alone for longer is not waited for."""
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
_CERTIFICATE_HINTS: Final = {
    10: "it has to be renewed",
    62: "CLARION_API_URL or --url must name the API as its certificate does",
    64: "CLARION_API_URL or --url must name the API as its certificate does",
}
"""By the code of OpenSSL: expired, another name, another address."""
_AUTHORITY_HINT: Final = (
    "if it is the API's, CLARION_CA_FILE must name a PEM file with the certificate of the authority that it comes from"
)


class ApiUnavailable(ApiRefused):
    """The API gave no answer, or one that says to come back later: the same request may succeed in a while.

    `wait_seconds` is what the API asked for; 0 if it did not say. `nothing_done`: the request is known not to have been
    carried out.
    """

    def __init__(self, message: str, hint: str = "", wait_seconds: int = 0, *, nothing_done: bool = False) -> None:
        super().__init__(message, hint)
        self.wait_seconds = wait_seconds
        self.nothing_done = nothing_done


class GraphQL:
    """`url` is the server's, as `http://127.0.0.1:8400`; `key` an API key, which no message ever holds.

    `ca_file` has further authorities (PEM) that an https server's certificate may come from. Redirects are refused.
    `waits_seconds` are the pauses before a change is asked for again. Raises UsageInvalid for a URL, a key or a file that
    cannot be used.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        ca_file: Path | None = None,
        timeout_seconds: float = 15,
        waits_seconds: Sequence[float] = WAITS_SECONDS,
    ) -> None:
        self.url = url
        self._target = _parsed(url)
        # http.client would quote the whole header in its error.
        if not key.strip() or key != key.strip() or not all(" " <= character <= "~" for character in key):
            raise UsageInvalid(
                "the API key has characters that no key has", "it is one line of ASCII, without a blank at either end"
            )
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._timeout_seconds = timeout_seconds
        self._waits_seconds = waits_seconds
        self._tls = _tls(ca_file) if self._target.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None

    def run(self, document: str, **variables: object) -> dict[str, Any]:
        """The answer's data, its numbers with all their digits (int, or Decimal).

        A mutation is asked for again, with the same idempotency key, while it is not known whether it was carried out.
        Raises ApiRefused with the API's own words when it refuses, ApiUnavailable when it cannot answer now.
        """
        if not document.lstrip().startswith("mutation"):
            return self.run_once(document, **variables)
        headers = self._headers | {"Idempotency-Key": secrets.token_hex(16)}
        return self._until_answered(_content(document, variables), headers, is_change=True)

    def run_once(self, document: str, **variables: object) -> dict[str, Any]:
        """The same from one request without a key: for what is waited for in the API, which no key allows."""
        return self._answered(_content(document, variables), self._headers)

    def pages(self, document: str, connection: str, **variables: object) -> Iterator[list[dict[str, Any]]]:
        """The nodes of a connection, page by page. `document` takes `$after` and asks for `pageInfo`. Raises as `run`.

        A page that there is no answer for is asked for again, so that a long export survives a restart of the API.
        """
        after = None
        while True:
            content = _content(document, {"after": after, **variables})
            page = self._until_answered(content, self._headers, was_there=after is not None)[connection]
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

    def _until_answered(
        self, content: str, headers: Mapping[str, str], *, is_change: bool = False, was_there: bool = False
    ) -> dict[str, Any]:
        """The answer's data, from the same request as often as it takes; each further one is said on standard error.

        An API that cannot be reached to begin with is not asked again, unless it `was_there` a moment ago.
        """
        maybe_done = False
        for tried, pause_seconds in enumerate((*self._waits_seconds, None), 1):
            try:
                return self._answered(content, headers)
            except ApiUnavailable as unavailable:
                maybe_done |= not unavailable.nothing_done
                is_worth_it = maybe_done or was_there or unavailable.wait_seconds > 0
                if not is_worth_it or pause_seconds is None or unavailable.wait_seconds > _WAIT_SECONDS_MAX:
                    if not is_change or not maybe_done:
                        raise
                    asked = f"; it was asked {tried} times" if tried > 1 else ""
                    raise ApiUnavailable(
                        f"{unavailable.message}{asked}; it is not known whether the change was made",
                        "look (`list`, `show`) before you repeat the command: it would make the change once more",
                    ) from unavailable
                seconds = max(pause_seconds, unavailable.wait_seconds)
                once = ", with its idempotency key: the change is made once" if is_change else ""
                click.echo(f"clarion: {unavailable.message}; asking again in {seconds:g} s{once}", err=True)
                time.sleep(seconds)
        raise AssertionError("the last try returns or raises")

    def _answered(self, content: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """The data that one request is answered with. Raises as `run`."""
        status, answer_headers, body = self._exchange(content, headers)
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
        raise self._refusal(status, answer_headers, body, errors)

    def _exchange(self, content: str, headers: Mapping[str, str]) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = self._connected()
        try:
            connection.request("POST", f"{self._target.path.rstrip('/')}/graphql", content, dict(headers))
            answer = connection.getresponse()
            body = answer.read(_ANSWER_BYTES_MAX + 1)
            if len(body) > _ANSWER_BYTES_MAX:
                raise ApiRefused(f"the API at {self.url} answered more than {_ANSWER_BYTES_MAX} bytes")
            if answer.length:
                # Bytes that were announced: `read` with a limit does not miss them.
                raise http.client.IncompleteRead(body, answer.length)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unavailable(error) from error
        except BaseException:
            # An answer that nobody reads must not be taken for the next one.
            self.close()
            raise
        return answer.status, answer.headers, body

    def _connected(self) -> http.client.HTTPConnection:
        """The connection, a new one when the server has closed the last.

        Raises ApiUnavailable when there is none to be had, ApiRefused for a server whose certificate is not trusted.
        """
        kept = self._connection
        if kept is not None:
            if kept.sock is not None and not select.select([kept.sock], [], [], 0)[0]:
                return kept
            self.close()
        host, port = self._target.hostname or "", self._target.port
        connection = (
            http.client.HTTPConnection(host, port, timeout=self._timeout_seconds)
            if self._tls is None
            else http.client.HTTPSConnection(host, port, timeout=self._timeout_seconds, context=self._tls)
        )
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            if not isinstance(error, ssl.SSLCertVerificationError):
                raise self._unavailable(error, nothing_done=True) from error
            raise ApiRefused(
                inert(f"the certificate of the API at {self.url} is not trusted: {error.verify_message}"),
                _CERTIFICATE_HINTS.get(error.verify_code, _AUTHORITY_HINT),
            ) from error
        self._connection = connection
        return connection

    def _unavailable(self, error: OSError | http.client.HTTPException, *, nothing_done: bool = False) -> ApiUnavailable:
        return ApiUnavailable(
            f"the API at {self.url} does not answer: {inert(str(error)) or type(error).__name__}",
            "is it https that is spoken there? CLARION_API_URL or --url says so"
            if isinstance(error, ssl.SSLError)
            else "is `clarion serve` running there? CLARION_API_URL or --url says where",
            nothing_done=nothing_done,
        )

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
        if 300 <= status < 400:
            message = f"the API at {self.url} answered {status}, a redirect to {headers.get('location', 'nowhere')}"
            return ApiRefused(
                inert(message), "redirects are not followed: name the right address with CLARION_API_URL or --url"
            )
        if errors:
            where = f", {field}" if field else ""
            message = f"the API refused: {first.get('message', status)} ({code or status}{where})"
        else:
            shown = body[:_SHOWN_CHARACTERS].decode("utf-8", "replace").strip()
            message = f"the API at {self.url} answered {status}, and not as Clarion does: {shown}"
        # What was refused for one of its inputs says itself who gives which right.
        hint = "" if code == "FORBIDDEN" and field else _HINTS.get(str(code), "")
        if code in {"RATE_LIMITED", "IDEMPOTENCY_KEY_IN_USE"} or status in {429, 502, 503, 504}:
            # What has no points, or comes too often, is refused before it is carried out.
            nothing_done = code == "RATE_LIMITED" or status == http.client.TOO_MANY_REQUESTS
            return ApiUnavailable(inert(message), hint, wait_seconds, nothing_done=nothing_done)
        return ApiRefused(inert(message), hint)


def _content(document: str, variables: Mapping[str, object]) -> str:
    return json.dumps({"query": document, "variables": variables})


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


def _whole(digits: str) -> int | Decimal:
    """An int where every JSON encoder has room for it."""
    return int(digits) if len(digits) <= _DIGITS_EXACT else Decimal(digits)
