"""The rules of each configurable value, as data: one `Field` for each thing that a caller may set.

A check returns the value as it is stored, or raises RequestRefused that names the input (`input.retrySchedule`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clarion.core.errors import Code, RequestRefused
from clarion.sender.request import content_type_refusal

Check = Callable[[Any, str], Any]

DESCRIPTION_LENGTH_MAX = 2_000
NAME_LENGTH_MAX = 200
SCHEDULE_ENTRIES_MAX = 20
DAY_SECONDS = 86_400
MONTH_SECONDS = 30 * DAY_SECONDS


def refused(message: str, field: str) -> RequestRefused:
    """A refusal of one input's value."""
    return RequestRefused(Code.INVALID_INPUT, message, field)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about an accepted input that its sender should know. `code` is stable, as NAME_NOT_RESOLVED."""

    code: str
    field: str
    message: str


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


def description(value: str, field: str) -> str:
    if len(value) > DESCRIPTION_LENGTH_MAX:
        raise refused(f"must have at most {DESCRIPTION_LENGTH_MAX} characters", field)
    if any(not (character.isprintable() or character in "\n\t\r") for character in value):
        raise refused("must have printable characters and line breaks only", field)
    return value


def content_type(value: str, field: str) -> str:
    refusal = content_type_refusal(value)
    if refusal is not None:
        raise refused(refusal, field)
    return value


def flag(value: bool, _field: str) -> bool:
    return value


def whole_number(low: int, high: int) -> Check:
    """A check that the number lies in [low, high]."""

    def check(value: int, field: str) -> int:
        if not low <= value <= high:
            raise refused(f"must be from {low} to {high}", field)
        return value

    return check


def one_of(*choices: str) -> Check:
    """A check that the text is one of these."""

    def check(value: str, field: str) -> str:
        if value not in choices:
            raise refused(f"must be one of {', '.join(choices)}", field)
        return value

    return check


def some_of(*choices: str) -> Check:
    """A check for a list of at least one of these, each at most once."""

    def check(value: Sequence[str], field: str) -> list[str]:
        if not value or len(set(value)) != len(value) or not set(value) <= set(choices):
            raise refused(f"must have at least one of {', '.join(choices)}, each at most once", field)
        return list(value)

    return check


def retry_schedule(value: Sequence[int], field: str) -> list[int]:
    if not 1 <= len(value) <= SCHEDULE_ENTRIES_MAX:
        raise refused(f"must have 1 to {SCHEDULE_ENTRIES_MAX} entries", field)
    if value[0] != 0:
        raise refused("must begin with 0: the first attempt does not wait", field)
    if any(not 0 <= wait <= DAY_SECONDS for wait in value):
        raise refused(f"must have waits from 0 to {DAY_SECONDS} seconds", field)
    return list(value)
