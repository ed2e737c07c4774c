"""The rules of values that a caller may set, as data: one `Field` for each.

A check returns the value as it is stored, or raises RequestRefused that names the input (`input.name`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clarion.core.errors import Code, RequestRefused

Check = Callable[[Any, str], Any]

NAME_LENGTH_MAX = 200


def refused(message: str, field: str, *, recorded: str | None = None) -> RequestRefused:
    """A refusal of one input's value. `recorded`: as RequestRefused has it, for a message that repeats the value."""
    return RequestRefused(Code.INVALID_INPUT, message, field, recorded=recorded)


@dataclass(frozen=True, slots=True)
class Field:
    """One value that a caller may set: its column, its name in the API, its check, and whether null is a value."""

    column: str
    api_name: str
    check: Check
    nullable: bool = False

    @property
    def input_name(self) -> str:
        return f"input.{self.api_name}"


def checked(fields: Sequence[Field], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values (by column) as they are stored; what is not given is not there.

    Raises RequestRefused for the first value that its rule refuses, null included where there must be a value.
    """
    values: dict[str, Any] = {}
    for field in fields:
        if field.column not in given:
            continue
        value = given[field.column]
        if value is None and not field.nullable:
            raise refused("must have a value; leave it out to keep it as it is", field.input_name)
        values[field.column] = None if value is None else field.check(value, field.input_name)
    return values


def name(value: str, field: str) -> str:
    stripped = value.strip()
    if not stripped:
        raise refused("must not be empty", field)
    if len(stripped) > NAME_LENGTH_MAX:
        raise refused(f"must have at most {NAME_LENGTH_MAX} characters", field)
    if not stripped.isprintable():
        raise refused("must have printable characters only", field)
    return stripped


def flag(value: bool, _field: str) -> bool:
    return value


def one_of(*choices: str) -> Check:
    """A check that the text is one of these."""

    def check(value: str, field: str) -> str:
        if value not in choices:
            raise refused(f"must be one of {', '.join(choices)}", field)
        return value

    return check
