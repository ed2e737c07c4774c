from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.api.server import api_engine
from clarion.database.address import DatabaseAddress


@pytest.fixture
async def connection(shared_database: DatabaseAddress) -> AsyncIterator[AsyncConnection]:
    engine = api_engine(shared_database)
    async with engine.connect() as connecting:
        yield connecting
    await engine.dispose()
