"""Is this PostgreSQL one that Clarion's guarantees hold on? Each refusal says what to do."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from clarion.core.errors import EnvironmentRefused
from clarion.database.address import DatabaseAddress

_VERSION_MIN = 15


def connect(address: DatabaseAddress, *, autocommit: bool = False) -> psycopg.Connection[Any]:
    """A session on the database. Raises EnvironmentRefused naming host, port and database, never the password."""
    try:
        return psycopg.connect(address.url, autocommit=autocommit, connect_timeout=10, application_name="clarion")
    except psycopg.OperationalError as error:
        raise EnvironmentRefused(
            f"no connection to PostgreSQL at {address.display()}: {_reason(error)}", _way_to_connect(error)
        ) from error


def check_server(connection: psycopg.Connection[Any]) -> None:
    """Comes back when the server can hold Clarion's guarantees.

    Raises EnvironmentRefused when it is older than 15, may lose what it committed, or hands each transaction to another
    session. `connection` must be outside a transaction.
    """
    version = connection.info.server_version
    if version < _VERSION_MIN * 10000:
        raise EnvironmentRefused(
            f"PostgreSQL {version // 10000} at {_where(connection)} is too old",
            f"use PostgreSQL {_VERSION_MIN} or newer, or unset CLARION_DATABASE_URL for the embedded server",
        )
    for setting in ("fsync", "full_page_writes"):
        row = connection.execute("SELECT current_setting(%s)", [setting]).fetchone()
        if row is None or row[0] != "on":
            connection.rollback()
            raise EnvironmentRefused(
                f"PostgreSQL at {_where(connection)} runs with {setting} off: a crash could lose committed changes",
                f"ALTER SYSTEM SET {setting} = on; SELECT pg_reload_conf();",
            )
    connection.rollback()
    if _session_is_lost(connection):
        raise EnvironmentRefused(
            f"a pooler in transaction mode stands before {_where(connection)}: locks that sessions hold break there",
            "let CLARION_DATABASE_URL name the server itself, or a pooler in session mode",
        )


def _session_is_lost(connection: psycopg.Connection[Any]) -> bool:
    """Whether the next transaction of this connection may run in another session of the server.

    A second connection begins a transaction while the first has none: a pooler in transaction mode gives it the
    session that the first one used, so that the first one's next transaction must run elsewhere.
    """
    before = _backend(connection)
    try:
        other = psycopg.connect(connection.info.dsn, password=connection.info.password or None, connect_timeout=10)
    except psycopg.OperationalError:
        # No second connection is to be had (a limit of the login): one session alone cannot tell.
        return _backend(connection) != before
    with other:
        return _backend(other, keep=True) == before or _backend(connection) != before


def _backend(connection: psycopg.Connection[Any], *, keep: bool = False) -> int:
    """The server's process behind this connection; `keep` leaves the transaction open."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    if not keep:
        connection.rollback()
    return int(row[0]) if row else 0


def _where(connection: psycopg.Connection[Any]) -> str:
    info = connection.info
    host = info.host if info.host.startswith("/") else f"{info.host}:{info.port}"
    return f"{host}, database {info.dbname}"


def _reason(error: psycopg.Error) -> str:
    """The last of libpq's reasons, without the address it repeats and without its advice."""
    lines = [line.strip() for line in str(error).splitlines()]
    reasons = [line for line in lines if line and not line.startswith(("Is the server running", "Multiple ", "HINT"))]
    last = reasons[-1].removeprefix("connection failed: ") if reasons else type(error).__name__
    return re.sub(r"^.*? failed: (?:FATAL:\s+)?", "", last)


def _way_to_connect(error: psycopg.Error) -> str:
    text = str(error)
    if "does not exist" in text and "database" in text and "role" not in text:
        return "CREATE DATABASE it, or correct CLARION_DATABASE_URL"
    if "authentication failed" in text or "no password supplied" in text or "pg_hba.conf" in text or "role" in text:
        return "correct the login in CLARION_DATABASE_URL, or the server's pg_hba.conf"
    return (
        "is the server running and reachable from here? CLARION_DATABASE_URL says where; unset, an embedded one is used"
    )
