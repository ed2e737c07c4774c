"""Answers and refusals of the API as they go over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from clarion.api.rate import Standing
from clarion.core.errors import BeforeGraphQL, Code


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a JSON document. `replayed`: it was given before, to the request that did the work."""

    status: int
    content: bytes
    replayed: bool = False


class Refused(Exception):
    """A request that is answered before anything is done for it."""

    def __init__(self, status: int, code: Code | BeforeGraphQL, message: str, **extensions: object) -> None:
        super().__init__(message)
        self.status = status
        self.error: dict[str, Any] = {"message": message, "extensions": {"code": code.value, **extensions}}

    @property
    def headers(self) -> Mapping[str, str]:
        return {"www-authenticate": "Bearer"} if self.status == 401 else {}


class RateLimited(Refused):
    """A client has used up its points for now, or an address its guesses."""

    def __init__(self, retry_after_s: int, what: str) -> None:
        second = "second" if retry_after_s == 1 else "seconds"
        super().__init__(
            429,
            Code.RATE_LIMITED,
            f"{what}: try again in {retry_after_s} {second}",
            retryAfterSeconds=retry_after_s,
        )
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> Mapping[str, str]:
        return {"retry-after": str(self.retry_after_s)}


def errors_answer(status: int, *errors: Mapping[str, Any]) -> Answer:
    """An answer that is nothing but errors."""
    return Answer(status, orjson.dumps({"errors": errors}))


def rate_headers(standing: Standing) -> dict[str, str]:
    """What every answer to a known client says about its points."""
    return {
        "ratelimit-limit": str(standing.limit),
        "ratelimit-remaining": str(standing.remaining),
        "ratelimit-reset": str(standing.reset_s),
    }
