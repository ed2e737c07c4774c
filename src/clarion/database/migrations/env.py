"""Alembic's environment: runs inside the transaction that `clarion.database.migrate` opened and commits."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="alembic_version",
    version_table_schema="clarion",
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
