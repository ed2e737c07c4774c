"""One synchronous SQLAlchemy transaction, for commands that do one thing and end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy
from sqlalchemy.pool import NullPool

from clarion.database.address import DatabaseAddress
from clarion.database.check import connect


@contextmanager
def transaction(address: DatabaseAddress) -> Iterator[sqlalchemy.Connection]:
    """A session of its own with one transaction: committed at the end, rolled back on an error.

    Raises EnvironmentRefused when there is no connection.
    """
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: connect(address), poolclass=NullPool)
    with engine.begin() as connection:
        yield connection
