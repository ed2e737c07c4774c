"""The schema, whole (0001_initial.sql)."""

from __future__ import annotations

from pathlib import Path

from clarion.database.migrate import run_file

revision = "0001_initial"
down_revision = None


def upgrade() -> None:
    run_file(Path(__file__).with_suffix(".sql"))


def downgrade() -> None:
    raise NotImplementedError("the schema only moves forward; restore a backup to go back")
