"""What is wrong, by stable codes: the comparison of what should be with what is, for capture and for whoever operates it.

The statements are in doctor.sql; here is what their findings mean. docs/reference/doctor.md has every code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from clarion.database.statements import load_statements

STATEMENTS = load_statements("clarion.capture", "doctor.sql")


class Severity(StrEnum):
    """How bad it is. Only a failure makes `clarion doctor` exit with 1."""

    FAILURE = "FAILURE"
    WARNING = "WARNING"
    INFORMATION = "INFORMATION"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be: what, where, and what to do."""

    code: str
    severity: Severity
    subject: str
    message: str
    advice: str


_ATTACH = "run `clarion attach` for the resource again; what was written meanwhile was not captured"
_FAILURE, _WARNING, _INFORMATION = Severity.FAILURE, Severity.WARNING, Severity.INFORMATION

CODES: dict[str, tuple[Severity, str, str]] = {
    # Code: severity, message ({} is the detail), what to do.
    "TABLE_MISSING": (
        _FAILURE,
        "there is no such table; resource {}",
        "put it back under this name, or `clarion detach`",
    ),
    "TRIGGER_MISSING": (_FAILURE, "its row trigger is missing, nothing is captured; resource {}", _ATTACH),
    "TRIGGER_CHANGED": (_FAILURE, "its row trigger is not the one that was attached; resource {}", _ATTACH),
    "TRIGGER_NOT_ALWAYS": (_FAILURE, "its row trigger is disabled or does not fire always; resource {}", _ATTACH),
    "TRUNCATE_MISSING": (_FAILURE, "nothing refuses TRUNCATE; resource {}", _ATTACH),
    "TRUNCATE_CHANGED": (_FAILURE, "its TRUNCATE trigger is not the one that was attached; resource {}", _ATTACH),
    "TRUNCATE_NOT_ALWAYS": (_FAILURE, "its TRUNCATE trigger is disabled or does not fire always; resource {}", _ATTACH),
    "COLUMN_MISSING": (
        _FAILURE,
        "a column that its trigger function reads is gone, so that writes fail; resource {}",
        "run `clarion attach` again with the columns that there are",
    ),
    "PARTITION_GONE": (
        _FAILURE,
        "this partition or child was detached or dropped, its rows left without events; resource {}",
        "put it back, or accept it: `clarion attach` for the resource again takes note",
    ),
    "ROWS_REWRITTEN": (
        _FAILURE,
        "all rows were rewritten by a change of type, without events; resource {}",
        "tell those who listen, then `clarion attach` for the resource again takes note",
    ),
    "FUNCTION_MISSING": (_FAILURE, "the trigger function is missing; resource {}", _ATTACH),
    "FUNCTION_CHANGED": (_FAILURE, "the function is not as it was made: {}", _ATTACH),
    "KEY_LOST": (
        _FAILURE,
        "no unique, not null, not deferrable key any more: {}",
        "make the key again: without it the order of an object's changes is not certain",
    ),
    "ROW_NOT_READ": (
        _WARNING,
        "changes of the last day are recorded without what could not be read of their rows; {}",
        "mend the cast or the column that it names, and run `clarion attach` for the resource again",
    ),
    "TABLE_NOT_LOGGED": (
        _WARNING,
        "a crash empties this table without events; resource {}",
        "ALTER TABLE … SET LOGGED",
    ),
    "TABLE_NOT_ENROLLED": (
        _INFORMATION,
        "nobody attached this table; others of its schema are{}",
        "`clarion attach` it if its changes are to be captured",
    ),
    "CAPTURED_TWICE": (
        _WARNING,
        "logical replication writes into this table, and what it writes is captured here too; resource {}",
        "capture at the publisher or here, not at both",
    ),
    "GUARD_OFF": (
        _INFORMATION,
        "nothing refuses commands that silence capture: {}",
        "`clarion guard on` as a superuser; without one, this comparison finds what they did",
    ),
    "GUARD_MISSING": (
        _FAILURE,
        "its event triggers were taken away: {}",
        "`clarion guard on`, or `clarion guard off` if that is meant",
    ),
    "GUARD_DISABLED": (_FAILURE, "its event triggers do not fire always: {}", "`clarion guard on`"),
    "GUARD_CHANGED": (_FAILURE, "its functions or their owners are not as they were made: {}", "`clarion guard on`"),
    "BREAK_GLASS_OPEN": (
        _FAILURE,
        "the guard lets everything through {}",
        "`clarion break-glass --close` as soon as the work is done",
    ),
    "SETTING_UNSAFE": (
        _FAILURE,
        "it is {}: a crash could lose committed changes",
        "ALTER SYSTEM SET it to on; SELECT pg_reload_conf();",
    ),
    "OUTBOX_BEHIND": (
        _FAILURE,
        "changes are not taken: {}",
        "is `clarion serve` running with a router? its log says what holds it up",
    ),
    "ROUTER_SILENT": (_WARNING, "no router is working: {}", "start `clarion serve`"),
    "DELIVERY_SILENT": (_WARNING, "nothing delivers: {}", "start `clarion serve`"),
    "HOLD_ENDS_SOON": (
        _WARNING,
        "events are held for it, the first of which expire after 30 days: {}",
        "switch the receiver on again, or cancel what it is not to get any more",
    ),
    "TRANSACTION_OLD": (
        _WARNING,
        "this transaction holds vacuum back: {}",
        "end it: tables that turn over quickly grow and get slow",
    ),
    "PARTITION_NOT_AHEAD": (
        _FAILURE,
        "this partition is not there: {}",
        "is `clarion serve` running? its maintenance makes them; its log says why it does not",
    ),
    "SERVER_UNSUITABLE": (_FAILURE, "{}", ""),
    "NOT_COMPARED": (_FAILURE, "this part of the comparison failed: {}", "repair what it names, and look again"),
}


def findings(rows: Iterable[Sequence[Any]]) -> list[Finding]:
    """What rows of code, subject and detail mean. Raises KeyError for a code that there is none of."""
    found = []
    for code, subject, detail in rows:
        severity, message, advice = CODES[code]
        found.append(Finding(code, severity, str(subject), message.replace("{}", str(detail)), advice))
    return found


def not_compared(name: str, error: Exception) -> tuple[str, str, str]:
    """The row for a statement of doctor.sql that failed."""
    return ("NOT_COMPARED", name, str(error).partition("\n")[0])


def inspect(connection: psycopg.Connection[Any]) -> list[Finding]:
    """All findings of this moment, failures first. A statement that fails is a finding of its own."""
    rows: list[Sequence[Any]] = []
    with connection.cursor(row_factory=tuple_row) as cursor:
        for name, statement in STATEMENTS.items():
            try:
                with connection.transaction():
                    rows.extend(cursor.execute(statement.encode()).fetchall())
            except (psycopg.errors.OperationalError, psycopg.errors.InterfaceError):
                raise
            except psycopg.Error as error:
                rows.append(not_compared(name, error))
    return in_order(findings(rows))


def in_order(found: Iterable[Finding]) -> list[Finding]:
    """Failures first, then warnings, then information; by code and subject."""
    severities = list(Severity)
    return sorted(found, key=lambda one: (severities.index(one.severity), one.code, one.subject))
