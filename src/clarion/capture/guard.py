"""The guard: event triggers that refuse what would silence capture, and the recorded way past them.

Event triggers need a superuser. Without one nothing is prevented, and `clarion doctor` finds what happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from clarion.core.errors import EnvironmentRefused, UsageInvalid
from clarion.database.acts import person, tell_person
from clarion.database.roles import quoted, read_roles

MINUTES_MAX = 24 * 60
"""How long a window of break-glass may be open at most."""

_SOURCE = files("clarion.capture").joinpath("guard.sql").read_text(encoding="utf-8")
_DIGEST = """
    SELECT sha256(coalesce(string_agg(clarion.function_digest(p.oid) || convert_to(p.proname, 'UTF8'), '' ORDER BY p.proname), ''))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'clarion_guard'
"""


@dataclass(frozen=True, slots=True)
class Window:
    """A window of break-glass: until when, why, and by whom it was opened."""

    id: int
    opened_at: datetime
    until: datetime
    reason: str
    opened_by: str


def turn_on(connection: psycopg.Connection[Any]) -> None:
    """Make the event triggers, again and again without harm; tables that lack only their children's triggers get them.

    One transaction. Raises EnvironmentRefused if the login is no superuser.
    """
    with connection.transaction():
        was_on = is_on(connection)
        if not is_superuser(connection):
            raise EnvironmentRefused(
                f"the guard is made of event triggers, and {who(connection)} is no superuser",
                "run `clarion guard on` with a superuser's CLARION_DATABASE_URL; until then `clarion doctor` and the "
                "running server find what the guard would have refused",
            )
        owner = quoted(read_roles(connection).owner, connection)
        connection.execute(_SOURCE.replace("@owner@", owner).encode())
        # What was broken while there was no guard is the doctor's, and in the way of nobody's commands.
        connection.execute(
            "DELETE FROM clarion.captured_tables WHERE table_oid IN "
            "(SELECT member FROM clarion.capture_state() WHERE faults <> '{}')"
        )
        connection.execute("SELECT clarion.remember_captured()")
        # Partitions and children that came while nobody looked.
        connection.execute(
            "SELECT clarion_guard.enrol(root, member, capture_function) FROM clarion.capture_state() s "
            "WHERE faults <> '{}' AND root <> member "
            "AND EXISTS (SELECT FROM clarion.captured_tables k WHERE k.table_oid = s.root)"
        )
        connection.execute("SELECT clarion.remember_captured()")
        _note(connection, was_on=was_on, wanted=True)


def turn_off(connection: psycopg.Connection[Any]) -> None:
    """Take the event triggers away. One transaction. Raises EnvironmentRefused if the login is no superuser."""
    with connection.transaction():
        was_on = is_on(connection)
        if not is_superuser(connection):
            raise EnvironmentRefused(
                f"the guard is made of event triggers, and {who(connection)} is no superuser",
                "run `clarion guard off` with a superuser's CLARION_DATABASE_URL",
            )
        for name in ("ended", "dropped", "rewriting"):
            connection.execute(f"DROP EVENT TRIGGER IF EXISTS clarion_guard_{name}".encode())
        connection.execute("DROP SCHEMA IF EXISTS clarion_guard CASCADE")
        _note(connection, was_on=was_on, wanted=False)


def ensure(connection: psycopg.Connection[Any]) -> bool:
    """Make the guard where nobody has decided about it yet; whether it was made now. For the embedded server.

    One that was switched off stays off, and one that somebody took away stays away: `clarion doctor` says so.
    """
    with connection.transaction():
        if _one(connection, "SELECT EXISTS (SELECT FROM clarion.guard)") or not is_superuser(connection):
            return False
        turn_on(connection)
    return True


def is_on(connection: psycopg.Connection[Any]) -> bool:
    """Whether all three event triggers are there and fire always."""
    return bool(
        _one(
            connection,
            "SELECT count(*) = 3 FROM pg_event_trigger WHERE evtname LIKE 'clarion\\_guard\\_%' AND evtenabled = 'A'",
        )
    )


def _note(connection: psycopg.Connection[Any], *, was_on: bool, wanted: bool) -> None:
    connection.execute(
        f"""INSERT INTO clarion.guard (wanted, changed_by, functions_sha256) VALUES (%s, %s, ({_DIGEST}))
            ON CONFLICT (only_row) DO UPDATE SET (wanted, changed_at, changed_by, functions_sha256)
                = (excluded.wanted, now(), excluded.changed_by, excluded.functions_sha256)""".encode(),
        (wanted, who(connection)),
    )
    if was_on != wanted:
        tell_person(connection)
        connection.execute(
            "SELECT clarion.record_act(NULL, 'UPDATE', 'Guard', 'guard', "
            "jsonb_build_object('on', %s::boolean), jsonb_build_object('on', %s::boolean))",
            (was_on, wanted),
        )


# ---------------------------------------------------------------- break-glass


def open_window(
    connection: psycopg.Connection[Any], reason: str, *, minutes: int = 30, opened_by: str | None = None
) -> Window:
    """Let through, and record, what the guard would refuse, for so many minutes (1 to 1440) or until it is closed.

    In a transaction that also closes it, it holds for that transaction alone. `opened_by` is the login by default.
    Raises UsageInvalid for an empty reason or while a window is open, EnvironmentRefused without the rights of
    Clarion's owner.
    """
    if not reason.strip() or len(reason) > 2000:
        raise UsageInvalid("break-glass: say why, in 1 to 2000 characters", 'for example --reason "restore of orders"')
    if not 1 <= minutes <= MINUTES_MAX:
        raise UsageInvalid(f"break-glass: a window is open for 1 to {MINUTES_MAX} minutes")
    with _as_owner(connection):
        connection.execute("LOCK TABLE clarion.break_glass IN SHARE ROW EXCLUSIVE MODE")
        if (present := current_window(connection)) is not None:
            raise UsageInvalid(
                f"break-glass: a window is open until {present.until:%Y-%m-%d %H:%M:%S %Z} ({present.reason})",
                "`clarion break-glass --close` ends it",
            )
        name = opened_by or who(connection)
        row = _row(
            connection,
            # The clock is read once: a window of the longest kind must not be a microsecond longer.
            "INSERT INTO clarion.break_glass (reason, opened_by, opened_at, until) "
            "SELECT %s, %s, at, at + make_interval(mins => %s) FROM (SELECT clock_timestamp() AS at) AS now "
            "RETURNING id, opened_at, until, reason, opened_by",
            (reason, name, minutes),
        )
        assert row is not None
        _record_window(connection, "OPEN", row[0])
        return Window(*row)


def close_window(connection: psycopg.Connection[Any], *, closed_by: str | None = None) -> Window | None:
    """End the open window; the window, or None if none is open. Raises EnvironmentRefused as `open_window`."""
    with _as_owner(connection):
        present = current_window(connection)
        if present is None:
            return None
        name = closed_by or who(connection)
        connection.execute(
            "UPDATE clarion.break_glass SET closed_at = clock_timestamp(), closed_by = %s WHERE id = %s",
            (name, present.id),
        )
        _record_window(connection, "CLOSE", present.id)
        return present


@contextmanager
def window_of_transaction(connection: psycopg.Connection[Any], reason: str, *, by: str) -> Iterator[None]:
    """For what Clarion itself has to do to a captured table: a window that the caller's transaction alone sees.

    Inside a transaction of the caller's. Where a window is open already, that one serves.
    """
    own = current_window(connection) is None
    if own:
        open_window(connection, reason, minutes=MINUTES_MAX, opened_by=by)
    yield
    if own:
        close_window(connection, closed_by=by)


def current_window(connection: psycopg.Connection[Any]) -> Window | None:
    """The window that is open now."""
    row = _row(
        connection,
        "SELECT id, opened_at, until, reason, opened_by FROM clarion.break_glass "
        "WHERE closed_at IS NULL AND until > clock_timestamp() ORDER BY id DESC LIMIT 1",
    )
    return None if row is None else Window(*row)


def _record_window(connection: psycopg.Connection[Any], action: str, window_id: int) -> None:
    tell_person(connection)
    connection.execute(
        """SELECT clarion.record_act(NULL, %s, 'BreakGlass', id::text, CASE WHEN closed_at IS NOT NULL THEN '{"closedAt": null}'::jsonb END,
                  jsonb_build_object('reason', reason, 'openedAt', opened_at, 'until', until, 'closedAt', closed_at))
           FROM clarion.break_glass WHERE id = %s""",
        (action, window_id),
    )


@contextmanager
def _as_owner(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """One transaction whose missing rights are named."""
    try:
        with connection.transaction():
            yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise EnvironmentRefused(
            f"break-glass: {error.diag.message_primary}",
            "run it with a login that is a member of Clarion's owner role",
        ) from error


def who(connection: psycopg.Connection[Any]) -> str:
    """The database's login and, where the system knows, the person at this machine."""
    login, at_machine = str(_one(connection, "SELECT session_user")), person()
    return f"{login} ({at_machine})" if at_machine else login


def is_superuser(connection: psycopg.Connection[Any]) -> bool:
    """Whether the session may make event triggers."""
    return bool(_one(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"))


def _one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = _row(connection, query)
    return None if row is None else row[0]


def _row(connection: psycopg.Connection[Any], query: str, values: tuple[object, ...] = ()) -> tuple[Any, ...] | None:
    with connection.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query.encode(), values or None).fetchone()
