"""The factory put into a database, and its tables attached to Clarion by the means that any application has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final, cast

import psycopg
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.dialects.postgresql import dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex, CreateTable

from clarion.capture.attach import TRIGGER, TRUNCATE_TRIGGER, attach
from clarion.core.errors import EnvironmentRefused, StoreUnavailable
from clarion.database.address import DatabaseAddress
from clarion.factory.resources import RESOURCES, attachments
from clarion.factory.seed import sow
from clarion.factory.tables import SCHEMA, Base

_ROLLUPS: Final = files("clarion.factory").joinpath("rollups.sql").read_text(encoding="utf-8")


def install(address: DatabaseAddress) -> bool:
    """Make the factory and attach its tables; whether anything was missing.

    What is there already is left alone, so that it may be repeated beside a running `serve` and a working factory.
    Schema, tables, roll-ups and master data come in one transaction. The tables are attached in a second one, as those
    of an application are that lived without Clarion before: its master data is no change.
    Raises EnvironmentRefused for missing rights, StoreUnavailable when the database cannot be reached.
    """
    with _connected(address) as connection:
        # Two installations at once: the second waits, and finds everything made.
        connection.execute(text("SELECT pg_advisory_lock(hashtext('clarion.factory'))"))
        connection.commit()
        made = _make(connection)
        connection.commit()
        attached = _attached(connection)
        connection.commit()
        if not attached:
            attach(_driver(connection), attachments())
        return made or not attached


def installed(address: DatabaseAddress) -> bool:
    """Whether `install` would find nothing to do. Raises as `install`."""
    with _connected(address) as connection:
        return _made(connection) and _attached(connection)


@contextmanager
def _connected(address: DatabaseAddress) -> Iterator[Connection]:
    """A connection of its own, closed at the end and with it the lock; the driver's errors in ours."""
    engine = create_engine(address.sqlalchemy("psycopg"), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    except (DBAPIError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, psycopg.errors.InsufficientPrivilege):
            raise EnvironmentRefused(
                f"factory: {cause.diag.message_primary}",
                "the user needs CREATE on the database, and the rights that `clarion attach` needs",
            ) from error
        if isinstance(cause, psycopg.OperationalError):
            raise StoreUnavailable(
                f"factory: cannot work with {address.display()}: {str(cause).splitlines()[0]}",
                "check that the server runs and try again",
            ) from error
        raise


def _make(connection: Connection) -> bool:
    """Whether schema, tables, roll-ups and master data were missing or of another version, and are made now."""
    if _made(connection):
        return False
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
    Base.metadata.create_all(connection)
    _driver(connection).execute(_ROLLUPS.encode())
    with Session(connection) as session:
        sow(session)
    _driver(connection).execute(f"COMMENT ON SCHEMA {SCHEMA} IS '{_mark()}'".encode())
    return True


def _made(connection: Connection) -> bool:
    """Whether all tables are there, in a schema that bears this version's mark."""
    row = connection.execute(
        text(
            """SELECT obj_description(n.oid, 'pg_namespace'),
                      (SELECT count(*) FROM pg_class AS c WHERE c.relnamespace = n.oid AND c.relname = ANY (:tables))
               FROM pg_namespace AS n WHERE n.nspname = :schema"""
        ),
        {"schema": SCHEMA, "tables": [table.name for table in Base.metadata.sorted_tables]},
    ).one_or_none()
    return row is not None and tuple(row) == (_mark(), len(Base.metadata.sorted_tables))


def _mark() -> str:
    """Tells one version of tables and roll-ups from another."""
    statements = [_ROLLUPS]
    for table in Base.metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect())))  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
        statements.extend(
            sorted(str(CreateIndex(index).compile(dialect=dialect())) for index in table.indexes)  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
        )
    return f"Reference factory of Clarion, {sha256(''.join(statements).encode()).hexdigest()[:16]}"


def _attached(connection: Connection) -> bool:
    """Whether all resources are registered as they are listed here, with their triggers on."""
    if connection.scalar(text("SELECT to_regclass('clarion.resources')")) is None:
        return False
    found = connection.execute(
        text(
            """SELECT r.name, r.singular, r.description, r.table_name::text
               FROM clarion.resources AS r
               WHERE r.schema_name = :schema AND 2 = (
                   SELECT count(*) FROM pg_trigger AS t
                   WHERE t.tgrelid = to_regclass(format('%I.%I', r.schema_name, r.table_name))
                     AND t.tgname IN (:row_trigger, :truncate_trigger) AND t.tgenabled = 'A')"""
        ),
        {"schema": SCHEMA, "row_trigger": TRIGGER, "truncate_trigger": TRUNCATE_TRIGGER},
    )
    wanted = {(resource.name, resource.singular, resource.description, resource.table) for resource in RESOURCES}
    return wanted <= {(name, singular, description, table) for name, singular, description, table in found}


def _driver(connection: Connection) -> psycopg.Connection[Any]:
    """The psycopg connection below; it shares the transaction."""
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)
