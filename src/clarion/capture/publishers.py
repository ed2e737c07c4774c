"""Which roles may publish: what PostgreSQL's own access lists say of the functions that publishing goes through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from clarion.capture.publish import publishing_function


def publishers_of(connection: psycopg.Connection[Any], resource: str) -> list[str]:
    """The roles that were granted to publish the resource, by name; none if it is not published."""
    rows = connection.execute(
        """SELECT r.rolname::text FROM pg_proc p CROSS JOIN LATERAL aclexplode(p.proacl) a JOIN pg_roles r ON r.oid = a.grantee
           WHERE p.pronamespace = 'clarion_triggers'::regnamespace AND p.proname = %s AND a.grantee <> p.proowner
           ORDER BY 1""",
        (publishing_function(resource),),
    ).fetchall()
    return [row[0] for row in rows]


def plan_drop(connection: psycopg.Connection[Any], resource: str) -> list[sql.Composed]:
    """The statements that take away the function by which the resource is published, and what its publishers needed for it."""
    function = publishing_function(resource)
    statements = [sql.SQL("DROP FUNCTION IF EXISTS clarion_triggers.{}").format(sql.Identifier(function))]
    return statements + _revoked(connection, publishers_of(connection, resource), function)


def forget_former(connection: psycopg.Connection[Any], former: Sequence[str]) -> None:
    """Take the right to use the functions' schema from those who may no longer publish anything."""
    for statement in _revoked(connection, former, None):
        connection.execute(statement)


def _revoked(connection: psycopg.Connection[Any], former: Sequence[str], besides: str | None) -> list[sql.Composed]:
    """For each who may call nothing in the functions' schema, the function `besides` apart: without the right to use it."""
    statements = []
    for publisher in former:
        role = sql.Identifier(publisher)
        left = connection.execute(
            """SELECT EXISTS (SELECT FROM pg_proc p CROSS JOIN LATERAL aclexplode(p.proacl) a
                              WHERE p.pronamespace = 'clarion_triggers'::regnamespace AND a.grantee = %s::regrole
                                AND p.proname IS DISTINCT FROM %s)""",
            (role.as_string(connection), besides),
        ).fetchone()
        if left is not None and not left[0]:
            statements.append(sql.SQL("REVOKE USAGE ON SCHEMA clarion_triggers FROM {}").format(role))
    return statements
