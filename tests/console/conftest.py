from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from clarion.access.principal import Role
from clarion.core.system import SystemRandom
from clarion.database.address import DatabaseAddress
from clarion.sender.seal import Sealer
from harness.api import Caller, new_key, served
from harness.audit_rows import add_resources


@pytest.fixture(scope="module")
def administrator(shared_database: DatabaseAddress) -> Iterator[Caller]:
    """An API with resources RUNS and ISSUES and the explorer, for the tests of one file."""
    with psycopg.connect(shared_database.url, autocommit=True) as connection:
        add_resources(connection, [("RUNS", "RUN"), ("ISSUES", "ISSUE")])
    random = SystemRandom()
    with served(shared_database, Sealer(random.token(32), random)) as port:
        caller = Caller(port, new_key(shared_database, "default", Role.ADMINISTRATOR, "admin"), shared_database)
        waited_until = time.monotonic() + 5
        while len(caller("{ resources { name } }").data["resources"]) != 6:
            assert time.monotonic() < waited_until
        yield caller
