"""The names that attaching gives: of triggers, functions and what quotes their bodies."""

from __future__ import annotations

import hashlib
import re
from typing import Final

# AFTER triggers fire in the order of their names; this one comes before any name that an application is likely to give.
TRIGGER: Final = "!clarion_capture"
TRUNCATE_TRIGGER: Final = "!clarion_truncate"
TRUNCATE_ROWS_TRIGGER: Final = "!clarion_truncate_rows"
"""Fires after the one before, and captures what that one reads."""

FUNCTIONS_SCHEMA: Final = "clarion_triggers"
"""Where the trigger functions are. Their role owns them, so it could drop them, but it may not look into this schema: a
cast of the application's that runs with its rights cannot name them."""

ORGANISATION_MARK: Final = "$organisation_id$"
"""Stands in a function's text for the id of an organisation that the same transaction makes."""

BODY_QUOTES: Final = ("$capture$", "$function$", "$attach$", ORGANISATION_MARK)

RESOURCE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
"""What can name a resource, or one object of it."""

_IDENTIFIER_BYTES_MAX = 63


def function_name(resource: str, purpose: str = "capture") -> str:
    """The name of one of the resource's trigger functions: never cut by PostgreSQL, or two resources would share one."""
    name = f"{purpose}_{resource.lower()}"
    if len(name) <= _IDENTIFIER_BYTES_MAX:
        return name
    digest = hashlib.sha256(resource.encode()).hexdigest()[:12]
    return f"{name[: _IDENTIFIER_BYTES_MAX - len(digest) - 1]}_{digest}"


def function_names(resource: str) -> dict[str, str]:
    """All of the resource's trigger functions by purpose; those for `truncate` are there only if it is captured."""
    return {purpose: function_name(resource, purpose) for purpose in ("capture", "truncate", "truncate_rows")}
