"""The four roles of one database. Their names carry the database's name, because roles belong to the whole server."""

from __future__ import annotations

import hashlib
import re
from dataclasses import astuple, dataclass
from typing import Any

import psycopg
from psycopg import sql

_NAME_BYTES_MAX = 63


@dataclass(frozen=True, slots=True)
class Roles:
    """Role names as PostgreSQL stores them (unquoted)."""

    owner: str
    engine: str
    api: str
    capture: str

    @classmethod
    def same(cls, name: str) -> Roles:
        """One role in all four places: a deployment whose migrating role may not create roles."""
        return cls(name, name, name, name)

    @property
    def separate(self) -> bool:
        """True when four roles stand behind the four names."""
        return len(set(astuple(self))) == 4


def role_names(database_name: str) -> Roles:
    """The names that `migrate` gives the roles of `database_name`; at most 63 bytes each."""
    return Roles(
        owner=_role_name("clarion_owner_", database_name),
        engine=_role_name("clarion_engine_", database_name),
        api=_role_name("clarion_api_", database_name),
        capture=_role_name("clarion_capture_", database_name),
    )


def _role_name(prefix: str, database_name: str) -> str:
    """Prefix and database name; a name that is too long or needs care in SQL is cut to what does not, plus its hash."""
    whole = prefix + database_name
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", database_name)
    if plain == database_name and len(whole) <= _NAME_BYTES_MAX:
        return whole
    digest = hashlib.sha256(database_name.encode()).hexdigest()[:12]
    return f"{prefix}{plain[: _NAME_BYTES_MAX - len(prefix) - len(digest) - 1]}_{digest}"


def read_roles(connection: psycopg.Connection[Any]) -> Roles:
    """The roles that this database was migrated with, from clarion.deployment (a copy of a database keeps them)."""
    with connection.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
        row = cursor.execute(
            "SELECT owner_role, engine_role, api_role, capture_role FROM clarion.deployment"
        ).fetchone()
    if row is None:
        raise LookupError("clarion.deployment is empty")
    return Roles(*(str(name) for name in row))


def quoted(name: str, connection: psycopg.Connection[Any] | None = None) -> str:
    """`name` as an SQL identifier."""
    return sql.Identifier(name).as_string(connection)
