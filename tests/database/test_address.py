from __future__ import annotations

import asyncpg
import psycopg
import pytest
import sqlalchemy
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.ext.asyncio import create_async_engine

from clarion.core.errors import UsageInvalid
from clarion.database.address import DatabaseAddress

WORD = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=20)


@given(user=WORD, password=WORD, database=WORD)
def test_any_name_survives_being_put_into_an_address(user: str, password: str, database: str) -> None:
    address = DatabaseAddress("postgresql://somebody@db.example:6432/other?sslmode=require")
    parts = conninfo_to_dict(address.with_user(user, password).with_database(database).url)
    assert parts == {
        "user": user,
        "password": password,
        "dbname": database,
        "host": "db.example",
        "port": "6432",
        "sslmode": "require",
    }


@given(password=WORD.filter(lambda word: word not in "DatabaseAddress(db.example:5432, database ledger)"))
def test_password_is_never_shown(password: str) -> None:
    address = DatabaseAddress("postgresql://db.example/ledger").with_user("somebody", password)
    assert str(address) == repr(address) == "DatabaseAddress(db.example:5432, database ledger)"


@pytest.mark.parametrize("text", ["mysql://host/db", "host=somewhere", "postgresql://user:sec%ret@host/db", ""])
def test_unusable_address_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(UsageInvalid, match=r"CLARION_DATABASE_URL: .*postgresql://") as refused:
        DatabaseAddress(text)
    assert "sec%ret" not in str(refused.value)


@pytest.mark.data_path
async def test_every_driver_reaches_the_same_database(database: DatabaseAddress) -> None:
    with psycopg.connect(database.url) as connection:
        row = connection.execute("SELECT current_database()").fetchone()
        assert row is not None
        expected = row[0]
    hot = await asyncpg.connect(database.url)
    assert await hot.fetchval("SELECT current_database()") == expected
    await hot.close()
    engine = sqlalchemy.create_engine(database.sqlalchemy("psycopg"))
    with engine.connect() as joined:
        assert joined.scalar(sqlalchemy.text("SELECT current_database()")) == expected
    engine.dispose()
    asynchronous = create_async_engine(database.sqlalchemy("asyncpg"))
    async with asynchronous.connect() as joined_later:
        assert await joined_later.scalar(sqlalchemy.text("SELECT current_database()")) == expected
    await asynchronous.dispose()
