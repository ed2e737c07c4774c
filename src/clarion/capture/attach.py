"""Triggers on: from the moment `attach` commits, no write to the table passes Clarion by.

The table keeps its owner, its columns and its speed; it gains one row trigger and one or two for TRUNCATE, and so does each
partition of it and each child that inherits from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from clarion.capture.attachment import OWN_RESOURCES, Attachment, OnTruncate
from clarion.capture.names import FUNCTIONS_SCHEMA, TRIGGER, TRUNCATE_TRIGGER
from clarion.capture.plan import plan_attach, plan_detach
from clarion.core.errors import EnvironmentRefused
from clarion.database.acts import tell_person
from clarion.database.roles import Roles, read_roles

__all__ = [
    "FUNCTIONS_SCHEMA",
    "LOCK_TIMEOUT_S",
    "OWN_RESOURCES",
    "TRIGGER",
    "TRUNCATE_TRIGGER",
    "Attachment",
    "OnTruncate",
    "attach",
    "attach_statements",
    "detach",
    "detach_statements",
    "one_change",
]

LOCK_TIMEOUT_S = 10.0
"""How long a table may stay locked by others before attach and detach give up."""


def attach(
    connection: psycopg.Connection[Any], attachments: Sequence[Attachment], *, lock_timeout_s: float = LOCK_TIMEOUT_S
) -> None:
    """Register the tables as resources and put their triggers on, in one transaction; again without harm.

    Raises UsageInvalid for a table or column that cannot be attached, EnvironmentRefused for missing rights and
    for a table that stays locked by others for `lock_timeout_s`.
    """
    with one_change("attach", connection, lock_timeout_s):
        roles = read_roles(connection)
        before, after = _around(roles)
        _run(connection, before)
        for attachment in attachments:
            _run(connection, plan_attach(connection, attachment, roles))
        _run(connection, after)


def attach_statements(connection: psycopg.Connection[Any], attachments: Sequence[Attachment]) -> list[str]:
    """The SQL that `attach` would run, a whole transaction for psql; nothing is changed. Raises UsageInvalid."""
    with _reading("attach", connection):
        roles = read_roles(connection)
        before, after = _around(roles)
        planned = [step for attachment in attachments for step in plan_attach(connection, attachment, roles)]
        return _transaction(connection, [*before, *planned, *after])


def detach(connection: psycopg.Connection[Any], resource: str, *, lock_timeout_s: float = LOCK_TIMEOUT_S) -> None:
    """Take a resource's triggers off and forget it, in one transaction. What was captured before is still delivered.

    Raises UsageInvalid if there is no such resource, it is one of Clarion's own, or a subscription listens for it;
    EnvironmentRefused as `attach`.
    """
    with one_change("detach", connection, lock_timeout_s):
        _run(connection, plan_detach(connection, resource))


def detach_statements(connection: psycopg.Connection[Any], resource: str) -> list[str]:
    """The SQL that `detach` would run, a whole transaction for psql; nothing is changed. Raises UsageInvalid."""
    with _reading("detach", connection):
        return _transaction(connection, plan_detach(connection, resource))


def _around(roles: Roles) -> tuple[list[sql.Composed], list[sql.Composed]]:
    """What goes before and after: the right to create is needed to hand the functions over, and for nothing else."""
    if roles.capture == roles.owner:
        return [], []
    names = {"schema": sql.Identifier(FUNCTIONS_SCHEMA), "capture": sql.Identifier(roles.capture)}
    return (
        [sql.SQL("GRANT CREATE ON SCHEMA {schema} TO {capture}").format(**names)],
        [sql.SQL("REVOKE CREATE ON SCHEMA {schema} FROM {capture}").format(**names)],
    )


def _run(connection: psycopg.Connection[Any], statements: Sequence[sql.Composed]) -> None:
    for statement in statements:
        connection.execute(statement)


def _opening(lock_timeout_s: float) -> list[sql.Composed]:
    return [
        sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(f"{round(lock_timeout_s * 1000)}ms")),
        sql.SQL("SELECT pg_advisory_xact_lock(hashtext({}))").format(sql.Literal("clarion.attach")),
    ]


def _transaction(connection: psycopg.Connection[Any], statements: Sequence[sql.Composed]) -> list[str]:
    texts = [statement.as_string(connection) for statement in (*_opening(LOCK_TIMEOUT_S), *statements)]
    return ["BEGIN", *texts, "COMMIT"]


@contextmanager
def _reading(what: str, connection: psycopg.Connection[Any]) -> Iterator[None]:
    with _explained(what), connection.transaction(force_rollback=True):
        connection.execute("SET TRANSACTION READ ONLY")
        yield


@contextmanager
def one_change(what: str, connection: psycopg.Connection[Any], lock_timeout_s: float) -> Iterator[None]:
    """One transaction, one at a time, that waits for no lock longer than `lock_timeout_s`."""
    with _explained(what, lock_timeout_s), connection.transaction():
        _run(connection, _opening(lock_timeout_s))
        tell_person(connection)
        yield


@contextmanager
def _explained(what: str, lock_timeout_s: float = 0) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise EnvironmentRefused(
            f"{what}: {error.diag.message_primary}",
            "run it as the owner of the table who is also a member of Clarion's owner and capture roles",
        ) from error
    except psycopg.errors.LockNotAvailable as error:
        raise EnvironmentRefused(
            f"{what}: the table stayed locked by another transaction for {lock_timeout_s:g} s",
            "end that transaction or try again later",
        ) from error
