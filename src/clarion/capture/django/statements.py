"""What stands between Django and each of its statements: who acts goes along, as settings of the transaction alone.

Nothing is left on a connection that a pooler hands on, and an open transaction pays one round trip for the values, and
one for each time they change within it. In autocommit mode there is no transaction to carry them, so a statement that
writes gets one of its own around it: three more round trips. A statement that reads is let pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Final

from django.db import transaction

from clarion.capture.acting import NOTHING, Context, current

Execute = Callable[[Any, Any, bool, dict[str, Any]], Any]

request_of: ContextVar[Any] = ContextVar("clarion_request", default=None)
"""The request that is being answered; its user is known only later, and asking costs queries."""

_IDLE, _FAILED = 0, 3
"""States of a session, as psycopg and psycopg2 number them: no transaction; one in which an error came up."""

_SETTINGS: Final = (
    "SELECT set_config('clarion.actor_id', %s, true), set_config('clarion.actor_name', %s, true),"
    " set_config('clarion.correlation_id', %s, true), set_config('clarion.hops', %s, true)"
)
_WRITING: Final = re.compile(
    r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(?:INSERT|UPDATE|DELETE|MERGE|WITH)\b", re.IGNORECASE | re.DOTALL
)
_ROLLBACK: Final = re.compile(r"\s*ROLLBACK\b", re.IGNORECASE)
_APPLIED: Final = "clarion_applied"


def carry(execute: Execute, statement: Any, parameters: Any, many: bool, context: dict[str, Any]) -> Any:
    """Django's hook around each statement: its result, once the values in force here were set before it."""
    connection = context["connection"]
    if connection.get_autocommit():
        if _WRITING.match(_text(statement, connection)) is None or _wanted() == NOTHING:
            return execute(statement, parameters, many, context)
        # Whoever stands outside sees one statement, and an error of it is what it would have been.
        with transaction.atomic(using=connection.alias):
            _apply(connection)
            return execute(statement, parameters, many, context)
    if connection.connection.info.transaction_status != _FAILED:
        _apply(connection)
    result = execute(statement, parameters, many, context)
    if _ROLLBACK.match(_text(statement, connection)) is not None:
        # To a savepoint: what was set before it is in force again, and that is not known here.
        setattr(connection, _APPLIED, None)
    return result


def _text(statement: Any, connection: Any) -> str:
    if isinstance(statement, bytes):
        return statement.decode(errors="replace")
    return statement if isinstance(statement, str) else str(statement.as_string(connection.connection))


def _wanted() -> Context:
    """The values in force: those of `acting`; where it names no actor, the user of the request."""
    wanted = current()
    request = request_of.get()
    if request is None or wanted.actor_id is not None or wanted.actor_name is not None:
        return wanted
    # Its own queries come by here, and must not ask again.
    token = request_of.set(None)
    try:
        user = getattr(request, "user", None)
        if user is None or not user.is_authenticated:
            return wanted
        return replace(wanted, actor_id=str(user.pk), actor_name=user.get_username().replace("\x00", ""))
    finally:
        request_of.reset(token)


def _apply(connection: Any) -> None:
    """Set the values in force, unless they are those that this transaction has already."""
    wanted = _wanted()
    # Django makes this list anew at each commit and rollback, also of a savepoint: what it is tells one from the next.
    ends = connection.run_on_commit
    known = getattr(connection, _APPLIED, None)
    if connection.connection.info.transaction_status == _IDLE:
        applied: Context | None = NOTHING
    else:
        applied = known[1] if known is not None and known[0] is ends else None
    if wanted != applied:
        with connection.wrap_database_errors, connection.connection.cursor() as cursor:
            cursor.execute(_SETTINGS, tuple(wanted.settings().values()))
    setattr(connection, _APPLIED, (ends, wanted))
