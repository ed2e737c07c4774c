from __future__ import annotations

import sqlalchemy

from clarion.database import tables
from clarion.database.address import DatabaseAddress

KINDS = {
    "bigint": "BIGINT",
    "integer": "INTEGER",
    "smallint": "SMALLINT",
    "boolean": "BOOLEAN",
    "text": "TEXT",
    "name": "TEXT",
    "xid8": "TEXT",
    '"char"': '"char"',
    "bytea": "BYTEA",
    "jsonb": "JSONB",
    "timestamp with time zone": "TIMESTAMP WITH TIME ZONE",
    "integer[]": "INTEGER[]",
    "text[]": "TEXT[]",
    "name[]": "TEXT[]",
    "cidr": "CIDR",
}
"""PostgreSQL's types and how SQLAlchemy's tables spell them."""


def test_the_tables_mirror_the_migrated_schema(database: DatabaseAddress) -> None:
    engine = sqlalchemy.create_engine(database.sqlalchemy("psycopg"), poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        found = connection.execute(
            sqlalchemy.text(
                "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull FROM pg_attribute a "
                "JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = 'clarion'::regnamespace "
                "AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped ORDER BY c.relname, a.attnum"
            )
        ).all()
        dialect = engine.dialect
    migrated: dict[str, list[tuple[str, str, bool]]] = {}
    for table, column, kind, nullable in found:
        migrated.setdefault(table, []).append((column, KINDS.get(kind, kind), nullable))
    assert len(tables.metadata.tables) == 24
    for table in tables.metadata.tables.values():
        ours = [(column.name, column.type.compile(dialect), bool(column.nullable)) for column in table.columns]
        assert ours == migrated[table.name], table.name
