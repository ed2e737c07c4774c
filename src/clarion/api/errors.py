"""Errors as the API shows them: a stable code and the input's name; of our own faults a correlation id and no more."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphql import DocumentNode, FieldNode, GraphQLError, GraphQLSchema
from sqlalchemy.exc import DBAPIError

from clarion.api.input_paths import fields_of
from clarion.api.limits import TOKENS_MAX
from clarion.core.errors import Code, RequestRefused

_log = logging.getLogger(__name__)

INTERNAL_TEXT = "an internal error occurred; the log has it under this correlation id"
_QUERY_CANCELED = "57014"
DOCUMENT_TEXT = "the document or its variables are not as the schema has them"
"""What the history keeps of the library's messages, which repeat names and values of the caller's."""

_REPEATED = re.compile(
    r"(cannot represent[^:]*value): .*|[,;.]? found: .*|, but encountered error .*|(escape sequence): .*",
    re.DOTALL | re.IGNORECASE,
)
_REPEATED_TOKEN = re.compile(r"^(Syntax Error: .*?\b(?:String|BlockString|Int|Float)) '.*", re.DOTALL)
_OF_ENUM = re.compile(
    r"(?:Variable '\$\w+' has invalid value(?: at [.\w\[\]]+)?: )?"
    r"(?:Enum '\w+' cannot represent|Value '[^']*' does not exist in '\w+' enum)"
)
_MOMENT = "Expected value of type 'DateTime'"
_DIGITS = "integer string conversion"
"""In how the language words its refusal of numbers with thousands of digits, with advice for programmers."""
_TOO_LARGE = (f"more than {TOKENS_MAX} tokens", "nested too deeply")
"""How the library words its refusals of too large documents; it has no codes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the errors are answers to."""

    schema: GraphQLSchema
    document: DocumentNode | None
    variables: Mapping[str, Any]
    request_id: str


@dataclass(frozen=True, slots=True)
class Shown:
    """An error as the answer has it, and its message as the history keeps it, without anything that was sent."""

    error: dict[str, Any]
    recorded: str


def shown(errors: Sequence[GraphQLError], asked: Asked) -> list[Shown]:
    """The errors for the answer. What is our own fault is logged with its cause and shown without."""
    too_complex = [error for error in errors if (error.extensions or {}).get("code") == Code.QUERY_TOO_COMPLEX]
    kept = too_complex or list(errors)
    by_library = [_of_library(error) for error in kept]
    fields = _fields([error for error, ours in zip(kept, by_library, strict=True) if ours], asked)
    return [
        Shown(_of_caller(error, next(fields)), DOCUMENT_TEXT) if ours else _of_resolver(error, asked.request_id)
        for error, ours in zip(kept, by_library, strict=True)
    ]


def internal(request_id: str, error: BaseException | None, where: str) -> dict[str, Any]:
    """The answer to a fault of our own, which is logged here with its cause."""
    _log.error("request %s: %s failed", request_id, where, exc_info=error)
    return {"message": INTERNAL_TEXT, "extensions": {"code": Code.INTERNAL.value, "correlationId": request_id}}


def _of_library(error: GraphQLError) -> bool:
    """Whether the library refused the document, a variable, or an argument: the caller's input, before any resolver."""
    if isinstance(error.original_error, GraphQLError):
        node = error.nodes[0] if error.nodes else None
        return error.path is None or not isinstance(node, FieldNode)
    if isinstance(error.original_error, ValueError) and error.path is None:
        return True
    if error.original_error is None:
        return error.path is None or not any(isinstance(node, FieldNode) for node in error.nodes or ())
    return False


def _of_caller(error: GraphQLError, field: str | None) -> dict[str, Any]:
    if "code" in (error.extensions or {}):
        return {**error.formatted}
    if any(text in error.message for text in _TOO_LARGE):
        code = Code.QUERY_TOO_COMPLEX
    elif error.original_error is not None or error.path is not None:
        code = Code.INVALID_INPUT
    else:
        code = Code.QUERY_INVALID
    extensions = {"code": code.value} | ({} if field is None else {"field": field})
    return {**error.formatted, "message": _without_values(error.message), "extensions": extensions}


def _without_values(message: str) -> str:
    """The library's message without the input that it repeats, which may hold a secret and ends up in callers' logs.

    What a name of an enumeration should have been is worth showing.
    """
    if _DIGITS in message:
        return "A number has too many digits."
    if _OF_ENUM.match(message):
        return message
    without = _REPEATED.sub(r"\1\2", _REPEATED_TOKEN.sub(r"\1", message))
    return f"{without}: a moment is written as 2026-11-24T01:02:03Z" if without.endswith(_MOMENT) else without


def _of_resolver(error: GraphQLError, request_id: str) -> Shown:
    cause = error.original_error
    shown_error: dict[str, Any]
    if isinstance(cause, RequestRefused):
        field = {} if cause.field is None else {"field": cause.field}
        place = {} if cause.place is None else dict(zip(("line", "column"), cause.place, strict=True))
        shown_error = {"message": cause.message, "extensions": {"code": cause.code.value, **field, **place}}
    elif isinstance(cause, RecursionError):
        shown_error = {
            "message": "the document is nested too deeply: ask for less at once",
            "extensions": {"code": Code.QUERY_TOO_COMPLEX.value},
        }
    elif isinstance(cause, DBAPIError) and getattr(cause.orig, "sqlstate", None) == _QUERY_CANCELED:
        shown_error = {
            "message": "the database took too long for this: ask for less at once",
            "extensions": {"code": Code.QUERY_TOO_COMPLEX.value},
        }
    else:
        shown_error = internal(request_id, cause or error, ".".join(str(step) for step in error.path or ["operation"]))
    formatted = error.formatted
    where = {key: formatted[key] for key in ("locations", "path") if formatted.get(key)}
    recorded = cause.recorded if isinstance(cause, RequestRefused) else shown_error["message"]
    return Shown(where | shown_error, recorded)


def _fields(errors: Sequence[GraphQLError], asked: Asked) -> Any:
    if asked.document is None or not any(error.nodes for error in errors):
        return iter([None] * len(errors))
    return iter(fields_of(errors, asked.schema, asked.document, asked.variables))
