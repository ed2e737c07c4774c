"""The rules of each configurable value, as data: one `Field` for each thing that a caller may set.

A check returns the value as it is stored, or raises RequestRefused that names the input (`input.retrySchedule`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clarion.access.fields import NAME_LENGTH_MAX, Check, Field, checked, flag, name, one_of, refused
from clarion.sender.request import content_type_refusal

__all__ = [
    "DAY_SECONDS",
    "DESCRIPTION_LENGTH_MAX",
    "MONTH_SECONDS",
    "NAME_LENGTH_MAX",
    "SCHEDULE_ENTRIES_MAX",
    "Check",
    "Field",
    "Notice",
    "checked",
    "content_type",
    "description",
    "flag",
    "name",
    "one_of",
    "refused",
    "retry_schedule",
    "some_of",
    "whole_number",
]

DESCRIPTION_LENGTH_MAX = 2_000
SCHEDULE_ENTRIES_MAX = 20
DAY_SECONDS = 86_400
MONTH_SECONDS = 30 * DAY_SECONDS


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about an accepted input that its sender should know. `code` is stable, as NAME_NOT_RESOLVED."""

    code: str
    field: str
    message: str


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


def whole_number(low: int, high: int) -> Check:
    """A check that the number lies in [low, high]."""

    def check(value: int, field: str) -> int:
        if not low <= value <= high:
            raise refused(f"must be from {low} to {high}", field)
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
