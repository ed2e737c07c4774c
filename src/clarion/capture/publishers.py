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


def drop_published(connection: psycopg.Connection[Any], resource: str) -> None:
    """Take away the function by which the resource is published, and what its publishers needed for it."""
    former = publishers_of(connection, resource)
    connection.execute(
        sql.SQL("DROP FUNCTION IF EXISTS clarion_triggers.{}").format(sql.Identifier(publishing_function(resource)))
    )
    forget_former(connection, former)


def forget_former(connection: psycopg.Connection[Any], former: Sequence[str]) -> None:
    """Take the right to use the functions' schema from those who may no longer publish anything."""
    for publisher in former:
        left = connection.execute(
            """SELECT EXISTS (SELECT FROM pg_proc p CROSS JOIN LATERAL aclexplode(p.proacl) a
                              WHERE p.pronamespace = 'clarion_triggers'::regnamespace AND a.grantee = %s::regrole)""",
            (sql.Identifier(publisher).as_string(connection),),
        ).fetchone()
        if left is not None and not left[0]:
            connection.execute(
                sql.SQL("REVOKE USAGE ON SCHEMA clarion_triggers FROM {}").format(sql.Identifier(publisher))
            )
