"""What the tests of capturing share."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from clarion.database.address import DatabaseAddress
from harness.capturing import Connection


@pytest.fixture
def connection(shared_database: DatabaseAddress) -> Iterator[Connection]:
    """The database's superuser, inside a transaction that is rolled back at the end."""
    with psycopg.connect(shared_database.url, autocommit=True) as opened, opened.transaction(force_rollback=True):
        yield opened


@pytest.fixture
def application(connection: Connection) -> str:
    """A role that may use schema public as its own and has no right on anything of Clarion's."""
    connection.execute("CREATE ROLE application; GRANT ALL ON SCHEMA public TO application")
    return "application"
