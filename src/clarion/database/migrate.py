"""Brings a database to this Clarion's schema, and tells whose life of which database it is.

Roles, schema and the deployment's row are made in one transaction: a migration that was killed left nothing.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.errors import InsufficientPrivilege
from psycopg.rows import tuple_row

from clarion.core.errors import EnvironmentRefused
from clarion.database.acts import tell_person
from clarion.database.address import DatabaseAddress
from clarion.database.check import check_server, connect
from clarion.database.roles import Roles, quoted, read_roles, role_names

if TYPE_CHECKING:
    import sqlalchemy

HEAD = "0001_initial"
"""The newest revision, the one that this Clarion works with."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_INCARNATION_CHARACTERS = 10
_LOCK_KEY = 0x636C6172696F6E  # "clarion"; one migration at a time per database


@dataclass(frozen=True, slots=True)
class Identity:
    """Which database of which server this is."""

    system_identifier: str
    timeline: int
    database_oid: int


def migrate(address: DatabaseAddress, *, progress: Callable[[str], None] = lambda _: None) -> None:
    """Makes roles and schema if they are absent and applies what is newer. Again and again without harm.

    `progress` gets one line for each step and each warning. Raises EnvironmentRefused when the server is unsuitable,
    the login lacks a right (with the GRANT to run), or the schema is newer than this Clarion.
    """
    with connect(address) as connection:
        check_server(connection)
        with _named_rights(connection):
            if _revision(connection) == HEAD:
                _join_roles(connection, read_roles(connection))
                return
    from clarion.database.session import transaction

    # Alembic wants SQLAlchemy's connection; all else goes to the session behind it, in the same transaction.
    with transaction(address) as joined:
        session = joined.connection.driver_connection
        assert isinstance(session, psycopg.Connection)
        with _named_rights(session):
            _migrate(joined, session, address, progress)


def _migrate(
    joined: sqlalchemy.Connection,
    session: psycopg.Connection[Any],
    address: DatabaseAddress,
    progress: Callable[[str], None],
) -> None:
    session.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK_KEY])
    present = _revision(session)
    if present is None:
        roles = _make_roles(session, progress)
        _make_schema(session, roles)
    else:
        _refuse_newer(present, address)
        roles = read_roles(session)
        _join_roles(session, roles)
    if present == HEAD:
        return
    progress(f"migrating {address.display()} to {HEAD}")
    session.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(roles.owner)))
    _run_alembic(joined, session, roles)
    if present is None:
        _insert_deployment(session, roles)


def assert_migrated(address: DatabaseAddress) -> None:
    """Comes back when the schema is exactly this Clarion's and the login may use it.

    Raises EnvironmentRefused otherwise, naming `clarion migrate` or the GRANT to run.
    """
    with connect(address) as connection, _named_rights(connection):
        present = _revision(connection)
        if present is None:
            raise EnvironmentRefused(
                f"the database at {address.display()} has no Clarion schema", "run `clarion migrate`"
            )
        _refuse_newer(present, address)
        if present != HEAD:
            raise EnvironmentRefused(
                f"the schema at {address.display()} is at {present}, this clarion needs {HEAD}", "run `clarion migrate`"
            )
        roles = read_roles(connection)
        missing = [name for name in dict.fromkeys(astuple(roles)) if not _is_member(connection, name)]
        if missing:
            raise EnvironmentRefused(
                f"the login {_login(connection)!r} is not a member of {', '.join(missing)}",
                _grant_to_run(connection, missing),
            )


def identity(connection: psycopg.Connection[Any]) -> Identity:
    """What the server says it is now."""
    row = (
        connection.cursor(row_factory=tuple_row)
        .execute(
            "SELECT s.system_identifier::text, c.timeline_id, d.oid::bigint "
            "FROM pg_control_system() s, pg_control_checkpoint() c, pg_database d WHERE d.datname = current_database()"
        )
        .fetchone()
    )
    assert row is not None
    return Identity(*row)


def identity_mismatch(connection: psycopg.Connection[Any]) -> str | None:
    """Why this is not the database that this incarnation began on: a restore or a clone. None when it is."""
    row = (
        connection.cursor(row_factory=tuple_row)
        .execute("SELECT system_identifier, timeline, database_oid FROM clarion.deployment")
        .fetchone()
    )
    assert row is not None, "clarion.deployment is empty"
    stored = Identity(*row)
    present = identity(connection)
    if stored.system_identifier != present.system_identifier:
        return "the data moved to another server (a dump was restored, or this is a logical copy)"
    if stored.database_oid != present.database_oid:
        return "the database is a copy made on the same server"
    if stored.timeline != present.timeline:
        moved = f"from timeline {stored.timeline} to {present.timeline}"
        return f"the server went {moved} (a backup was restored, or a standby promoted)"
    return None


def adopt(connection: psycopg.Connection[Any]) -> str:
    """Starts another incarnation on the present database; its name comes back. One transaction."""
    incarnation = new_incarnation()
    with connection.transaction():
        roles = read_roles(connection)
        present = identity(connection)
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(roles.owner)))
        tell_person(connection)
        # A database without organisations is new: it has no history that this could be missing in.
        connection.execute(
            "SELECT clarion.record_act(NULL, 'UPDATE', 'Deployment', 'deployment', jsonb_build_object('incarnation', incarnation), "
            "jsonb_build_object('incarnation', %s::text)) FROM clarion.deployment "
            "WHERE EXISTS (SELECT FROM clarion.organisations)",
            (incarnation,),
        )
        connection.execute(
            "UPDATE clarion.deployment SET incarnation = %s, system_identifier = %s, timeline = %s, database_oid = %s",
            [incarnation, present.system_identifier, present.timeline, present.database_oid],
        )
        # Tables that came out of a dump are others than those that were remembered.
        connection.execute("DELETE FROM clarion.captured_tables")
        connection.execute("SELECT clarion.remember_captured()")
        connection.execute("RESET ROLE")
    return incarnation


def new_incarnation() -> str:
    """Ten characters of lower-case base32 (50 bits): part of every webhook-id."""
    return base64.b32encode(secrets.token_bytes(7)).decode()[:_INCARNATION_CHARACTERS].lower()


def run_file(path: Path) -> None:
    """Runs one migration's SQL with the roles put in. Called by the revisions, inside Alembic.

    The file goes to the server as it is, past SQLAlchemy: percent signs and colons stay what they are.
    """
    from alembic import context

    roles: Roles = context.config.attributes["roles"]
    connection: psycopg.Connection[Any] = context.config.attributes["psycopg"]
    text = path.read_text(encoding="utf-8")
    for place in ("owner", "engine", "api", "capture"):
        text = text.replace(f"@{place}@", quoted(getattr(roles, place), connection))
    connection.execute(text.encode())


def _run_alembic(joined: sqlalchemy.Connection, session: psycopg.Connection[Any], roles: Roles) -> None:
    from alembic import command
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    configuration.attributes.update({"connection": joined, "psycopg": session, "roles": roles})
    command.upgrade(configuration, HEAD)


def _revision(connection: psycopg.Connection[Any]) -> str | None:
    """The schema's revision; None when there is no schema of ours."""
    found = connection.execute("SELECT to_regclass('clarion.alembic_version') IS NOT NULL").fetchone()
    if found is None or not found[0]:
        return None
    row = connection.execute("SELECT version_num FROM clarion.alembic_version").fetchone()
    return str(row[0]) if row else None


def _refuse_newer(present: str, address: DatabaseAddress) -> None:
    if not (_MIGRATIONS / "versions" / f"{present}.sql").exists():
        raise EnvironmentRefused(
            f"the schema at {address.display()} is at {present}, which this clarion does not know: it is newer",
            "run the clarion version that migrated it, or a newer one",
        )


def _make_roles(connection: psycopg.Connection[Any], progress: Callable[[str], None]) -> Roles:
    """The four roles, made if absent; one role four times when the login may not make any."""
    database = connection.info.dbname
    wanted = role_names(database)
    login = _login(connection)
    existing = {
        row[0]
        for row in connection.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [list(astuple(wanted))])
    }
    missing = [name for name in astuple(wanted) if name not in existing]
    row = connection.execute("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user").fetchone()
    if missing and not (row and row[0]):
        if re.search(r"['%$]", login):
            raise EnvironmentRefused(
                f"the login {login!r} may not create roles, and its name has a character that Clarion does not quote",
                "use another login, or one with CREATEROLE",
            )
        progress(
            f"warning: {login} may not create roles, so it stands in for all four: engine, API and trigger can do what "
            f"the schema's owner can. To separate them, ALTER ROLE {quoted(login)} CREATEROLE before migrating"
        )
        return Roles.same(login)
    if missing:
        progress(f"creating roles {', '.join(missing)}")
    for name in missing:
        connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name)))
    _join_roles(connection, wanted)
    return wanted


def _join_roles(connection: psycopg.Connection[Any], roles: Roles) -> None:
    """Makes the login a member of the roles, where it is not yet."""
    login = _login(connection)
    missing = [name for name in dict.fromkeys(astuple(roles)) if name != login and not _is_member(connection, name)]
    for name in missing:
        try:
            connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(name), sql.Identifier(login)))
        except InsufficientPrivilege as error:
            raise EnvironmentRefused(
                f"the login {login!r} is not a member of {', '.join(missing)}", _grant_to_run(connection, missing)
            ) from error


def _is_member(connection: psycopg.Connection[Any], role: str) -> bool:
    """Whether the login has the role's rights and may switch to it."""
    switch = "SET" if connection.info.server_version >= 160000 else "MEMBER"
    row = connection.execute(
        "SELECT pg_has_role(current_user, %(role)s, 'USAGE') AND pg_has_role(current_user, %(role)s, %(switch)s)",
        {"role": role, "switch": switch},
    ).fetchone()
    return bool(row and row[0])


def _make_schema(connection: psycopg.Connection[Any], roles: Roles) -> None:
    row = connection.execute(
        "SELECT count(c.oid) FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid "
        "WHERE n.nspname = 'clarion' GROUP BY n.oid"
    ).fetchone()
    if row is not None and row[0] > 0:
        raise EnvironmentRefused(
            f"database {connection.info.dbname} has a schema `clarion` that is not Clarion's",
            "rename it, or use another database",
        )
    if row is None:
        connection.execute(sql.SQL("CREATE SCHEMA clarion AUTHORIZATION {}").format(sql.Identifier(roles.owner)))
    # A schema of its own for trigger functions, into which the role that they run as may not look.
    connection.execute(
        sql.SQL("CREATE SCHEMA IF NOT EXISTS clarion_triggers AUTHORIZATION {}").format(sql.Identifier(roles.owner))
    )


def _insert_deployment(connection: psycopg.Connection[Any], roles: Roles) -> None:
    present = identity(connection)
    connection.execute(
        "INSERT INTO clarion.deployment (incarnation, system_identifier, timeline, database_oid, "
        "owner_role, engine_role, api_role, capture_role) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        [new_incarnation(), present.system_identifier, present.timeline, present.database_oid, *astuple(roles)],
    )


@contextmanager
def _named_rights(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Turns a missing right into EnvironmentRefused with the GRANT to run."""
    try:
        yield
    except InsufficientPrivilege as error:
        login, database = connection.info.user, connection.info.dbname
        reason = (error.diag.message_primary or str(error)).strip()
        hint = f"GRANT CREATE ON DATABASE {quoted(database)} TO {quoted(login)};"
        if "schema" in reason or "table" in reason:
            hint = _grant_to_run(connection, list(astuple(role_names(database))))
        raise EnvironmentRefused(f"the login {login!r} lacks a right in database {database}: {reason}", hint) from error


def _grant_to_run(connection: psycopg.Connection[Any], roles: list[str]) -> str:
    return f"GRANT {', '.join(quoted(name) for name in roles)} TO {quoted(connection.info.user)};"


def _login(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("SELECT current_user").fetchone()
    assert row is not None
    return str(row[0])
