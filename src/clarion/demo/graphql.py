"""Clarion's API over HTTP, as any client uses it."""

from __future__ import annotations

import http.client
import json
from typing import Any, Final
from urllib.parse import urlsplit

from clarion.core.errors import ApiRefused

_TIMEOUT_SECONDS: Final = 15


class GraphQL:
    """`url` is the server's, as `http://127.0.0.1:8400`; `key` an API key."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key

    def run(self, document: str, **variables: object) -> dict[str, Any]:
        """The answer's data. Raises ApiRefused with the API's own words when it refuses, or cannot be reached."""
        target = urlsplit(self._url)
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=_TIMEOUT_SECONDS)
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        try:
            connection.request("POST", "/graphql", json.dumps({"query": document, "variables": variables}), headers)
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ApiRefused(f"the API at {self._url} does not answer: {error or type(error).__name__}") from error
        finally:
            connection.close()
        try:
            result = json.loads(body)
        except ValueError:
            result = None
        if not isinstance(result, dict):
            raise ApiRefused(f"the API at {self._url} answered {status} {body[:200].decode('utf-8', 'replace')}")
        if result.get("errors") or status != http.client.OK:
            first = (result.get("errors") or [{}])[0]
            code = first.get("extensions", {}).get("code", "")
            raise ApiRefused(f"the API refused: {first.get('message', status)} {code}".rstrip())
        data: dict[str, Any] = result["data"]
        return data

    def nodes(self, document: str, connection: str, **variables: object) -> list[dict[str, Any]]:
        """All nodes of a connection, page by page. `document` takes `$after` and asks for `pageInfo`."""
        found: list[dict[str, Any]] = []
        after = None
        while True:
            page = self.run(document, after=after, **variables)[connection]
            found += [edge["node"] for edge in page["edges"]]
            if not page["pageInfo"]["hasNextPage"]:
                return found
            after = page["pageInfo"]["endCursor"]
