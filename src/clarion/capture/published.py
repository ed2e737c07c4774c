"""Resources without a table: which there are, and which database roles may publish their changes.

Each has a function of its own in schema clarion_triggers, with its name and its organisation written into it. The right
to publish is the right to execute that function, so it is PostgreSQL that keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, LiteralString, cast

import psycopg
from psycopg import sql

from clarion.capture.attach import LOCK_TIMEOUT_S, one_change
from clarion.capture.attachment import ORGANISATION_LENGTH_MAX, check_called
from clarion.capture.json_text import DATA_BYTES_MAX
from clarion.capture.names import FUNCTIONS_SCHEMA
from clarion.capture.publish import OBJECT_ID_LENGTH_MAX, publishing_function
from clarion.capture.publishers import forget_former, publishers_of
from clarion.core.errors import UsageInvalid
from clarion.database.roles import Roles, read_roles

_BODY: LiteralString = files("clarion.capture").joinpath("publish.sql").read_text(encoding="utf-8")
OBJECTS_LOCKED_MAX: Final = 1000
"""Objects that one transaction locks singly; with the next one it takes their whole resource."""
_ARGUMENTS: Final = sql.SQL(
    "action text, object_id text, data text, previous text, organisation text, "
    "actor_id text, actor_name text, correlation_id text, hops text"
)
_CREATE: Final = (
    "CREATE OR REPLACE FUNCTION {function}({arguments}) RETURNS void LANGUAGE plpgsql SECURITY DEFINER "
    "SET search_path = pg_catalog, pg_temp SET row_security = on AS {body}"
)


@dataclass(frozen=True, slots=True)
class Published:
    """A resource whose changes are published: by which roles, and of which organisation's objects.

    `organisation` None means that each publish names it, any that there is or is not yet.
    """

    resource: str
    publishers: tuple[str, ...] = ()
    singular: str | None = None
    description: str = ""
    organisation: str | None = "default"


def attach_published(
    connection: psycopg.Connection[Any], published: Published, *, lock_timeout_s: float = LOCK_TIMEOUT_S
) -> None:
    """Register the resource and grant its publishers, in one transaction; again without harm.

    The publishers are exactly those named: who was granted before and is not among them may no longer publish. Raises
    UsageInvalid for a name that is taken or unusable and for a role that cannot be a publisher, EnvironmentRefused for
    missing rights.
    """
    with one_change("attach", connection, lock_timeout_s):
        roles = read_roles(connection)
        check_called(published.resource, published.singular, published.organisation, example="SHIPMENTS")
        _check_free(connection, published.resource)
        for publisher in published.publishers:
            _check_publisher(connection, publisher, roles)
        connection.execute("SELECT clarion.note_attaching(%s)", (published.resource,))
        owner_id = _make_organisation(connection, published.organisation)
        _register(connection, published, owner_id)
        _make_function(connection, published, owner_id, roles)
        _grant(connection, published)
        connection.execute("SELECT clarion.record_attached(%s)", (published.resource,))


def _check_free(connection: psycopg.Connection[Any], resource: str) -> None:
    table = connection.execute(
        "SELECT format('%%s.%%s', schema_name, table_name) FROM clarion.resources WHERE name = %s AND table_name IS NOT NULL",
        (resource,),
    ).fetchone()
    if table is not None:
        raise UsageInvalid(
            f"attach: {resource} is the table {table[0]}",
            "publish under a name of its own: between a trigger and publish there is no order",
        )


def _check_publisher(connection: psycopg.Connection[Any], publisher: str, roles: Roles) -> None:
    found = connection.execute(
        "SELECT pg_has_role(%s, oid, 'MEMBER') FROM pg_roles WHERE rolname = %s", (roles.capture, publisher)
    ).fetchone()
    if found is None:
        raise UsageInvalid(f"attach: there is no role {publisher!r}", "name the role that the application logs in as")
    if found[0] and roles.separate:
        # Casts of the application's run as the capture role: what it may, they may.
        raise UsageInvalid(f"attach: {publisher!r} is a role that Clarion's capture role belongs to")


def _make_organisation(connection: psycopg.Connection[Any], name: str | None) -> int | None:
    """The id of the organisation of this name, made if absent; None of none."""
    if name is None:
        return None
    row = connection.execute("SELECT clarion.ensure_organisation(%s)", (name,)).fetchone()
    return cast("tuple[int]", row)[0]


def _register(connection: psycopg.Connection[Any], published: Published, owner_id: int | None) -> None:
    connection.execute(
        """INSERT INTO clarion.resources (name, singular, description, key_columns, organisation_id) VALUES (%s, %s, %s, '{}', %s)
           ON CONFLICT (name) DO UPDATE SET (singular, description, organisation_id)
               = (excluded.singular, excluded.description, excluded.organisation_id)""",
        (
            published.resource,
            published.singular,
            published.description or "Published by the application.",
            owner_id,
        ),
    )


def _make_function(
    connection: psycopg.Connection[Any], published: Published, owner_id: int | None, roles: Roles
) -> None:
    body = sql.SQL(_BODY).format(
        resource=sql.Literal(published.resource),
        organisation=sql.SQL("{}::text").format(sql.Literal(published.organisation)),
        organisation_id=sql.Literal(owner_id),
        data_bytes_max=sql.Literal(DATA_BYTES_MAX),
        object_id_length_max=sql.Literal(OBJECT_ID_LENGTH_MAX),
        objects_locked_max=sql.Literal(OBJECTS_LOCKED_MAX),
        name_length_max=sql.Literal(ORGANISATION_LENGTH_MAX),
    )
    names = {
        "function": sql.Identifier(FUNCTIONS_SCHEMA, publishing_function(published.resource)),
        "arguments": _ARGUMENTS,
        "body": sql.Literal(body.as_string(connection)),
        "capture": sql.Identifier(roles.capture),
        "schema": sql.Identifier(FUNCTIONS_SCHEMA),
    }
    lent = roles.capture != roles.owner
    statements: list[LiteralString] = [
        _CREATE,
        "REVOKE ALL ON FUNCTION {function} FROM PUBLIC",
        # The right to create is needed to hand the function over, and for nothing after.
        *(["GRANT CREATE ON SCHEMA {schema} TO {capture}"] if lent else []),
        "ALTER FUNCTION {function} OWNER TO {capture}",
        *(["REVOKE CREATE ON SCHEMA {schema} FROM {capture}"] if lent else []),
    ]
    for statement in statements:
        connection.execute(sql.SQL(statement).format(**names))


def _grant(connection: psycopg.Connection[Any], published: Published) -> None:
    function = sql.Identifier(FUNCTIONS_SCHEMA, publishing_function(published.resource))
    before = publishers_of(connection, published.resource)
    for publisher in set(before) - set(published.publishers):
        connection.execute(sql.SQL("REVOKE ALL ON FUNCTION {} FROM {}").format(function, sql.Identifier(publisher)))
    for publisher in published.publishers:
        role = sql.Identifier(publisher)
        connection.execute(sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(function, role))
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(FUNCTIONS_SCHEMA), role))
    forget_former(connection, before)
