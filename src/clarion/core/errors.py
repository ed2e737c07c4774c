"""Errors by blame: the operator's, the caller's, the store's, and our own.

A receiver's failure is not here: it is a value (`clarion.sender.outcome.Attempt`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class ClarionError(Exception):
    """Something refused, with what to do about it.

    `message` says what was wrong and where, in one line; `hint` what to do next.
    `exit_code` is the process's exit code when the error ends a command.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class CheckFailed(ClarionError):
    """A check that the command exists for did not hold."""


class UsageInvalid(ClarionError):
    """A setting or an argument of the command line is unusable."""

    exit_code = 2


class EnvironmentRefused(ClarionError):
    """The environment refuses: port, directory, database or privileges."""

    exit_code = 3


class ApiRefused(ClarionError):
    """The API refused the request or cannot be reached."""

    exit_code = 4


class Code(StrEnum):
    """Stable codes of refused requests, as `extensions.code`."""

    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    INVALID_INPUT = "INVALID_INPUT"
    ADDRESS_NOT_ALLOWED = "ADDRESS_NOT_ALLOWED"
    CONFLICT = "CONFLICT"
    QUERY_INVALID = "QUERY_INVALID"
    QUERY_TOO_COMPLEX = "QUERY_TOO_COMPLEX"
    RATE_LIMITED = "RATE_LIMITED"
    INTERNAL = "INTERNAL"


class BeforeGraphQL(StrEnum):
    """Further codes, of requests that are answered without GraphQL, with another HTTP status than 200."""

    MALFORMED = "MALFORMED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    TOO_LARGE = "TOO_LARGE"
    IDEMPOTENCY_KEY_IN_USE = "IDEMPOTENCY_KEY_IN_USE"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    BUSY = "BUSY"


class RequestRefused(ClarionError):
    """A caller's request that changes nothing; `field` names the input, as `input.webhookUri`.

    `place` is the line and column, from 1, within that input's text, where there is one. `recorded` is what the history
    keeps of a message that repeats what was sent: that may be a secret in the wrong place. By default it is the message.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        field: str | None = None,
        place: tuple[int, int] | None = None,
        *,
        recorded: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.place = place
        self.recorded = message if recorded is None else recorded


class StoreUnavailable(ClarionError):
    """The database cannot be reached or ended the session; the work may be tried again."""

    exit_code = 3


class Fenced(ClarionError):
    """This worker's or router's ownership ended; what it still holds belongs to its successor."""


class InvariantBroken(ClarionError):
    """Our own bug: logged, the process restarts, nothing is swallowed."""
