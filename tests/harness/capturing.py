"""What waits in the outbox, what attaching leaves in a database, and whoever does something to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

Connection = psycopg.Connection[Any]


@contextmanager
def acting_as(connection: Connection, role: str) -> Iterator[None]:
    connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))
    yield
    connection.execute("RESET SESSION AUTHORIZATION")


@contextmanager
def refused(
    connection: Connection, by: type[Exception] = psycopg.errors.InsufficientPrivilege, match: str | None = None
) -> Iterator[pytest.ExceptionInfo[Any]]:
    """The block fails so, and nothing of it stays."""
    with pytest.raises(by, match=match) as raised, connection.transaction():
        yield raised


def captured(connection: Connection, *columns: str) -> list[tuple[Any, ...]]:
    """What waits in the outbox, in order: by default action, object id, old and new row."""
    chosen = columns or ("action::text", "object_id", "old", "new")
    return connection.execute(f"SELECT {', '.join(chosen)} FROM clarion.outbox ORDER BY id".encode()).fetchall()


def traces(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that attaching could leave in the database, and when each of Clarion's resources was made."""
    return {
        name: connection.execute(statement).fetchall()
        for name, statement in {
            "triggers": "SELECT tgrelid, tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2",
            "functions": "SELECT oid::regprocedure, proowner, proacl::text FROM pg_proc "
            "WHERE pronamespace IN ('clarion'::regnamespace, 'clarion_triggers'::regnamespace) ORDER BY 1",
            "schemas": "SELECT nspname, nspacl::text FROM pg_namespace ORDER BY 1",
            "resources": "SELECT * FROM clarion.resources ORDER BY id",
        }.items()
    }
