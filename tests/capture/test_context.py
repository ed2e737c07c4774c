from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from clarion.capture import context
from clarion.capture.attach import Attachment, attach
from clarion.capture.context import acting
from clarion.database.address import DatabaseAddress

LOOK = text(
    "SELECT "
    + ", ".join(
        f"coalesce(current_setting('clarion.{name}', true), '')"
        for name in ("actor_id", "actor_name", "correlation_id", "hops")
    )
)
NOTHING = ("", "", "", "")


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@pytest.fixture
def engine(database: DatabaseAddress) -> Iterator[Engine]:
    """An application's engine with one pooled connection, told once about the extension."""
    engine = create_engine(database.sqlalchemy("psycopg"), pool_size=1, max_overflow=0)
    context.install(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def things(database: DatabaseAddress, engine: Engine) -> DatabaseAddress:
    """The database with a captured table in it."""
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
    with psycopg.connect(database.url) as connection:
        attach(connection, [Attachment(resource="THINGS", table="things")])
    return database


def _captured(address: DatabaseAddress) -> list[tuple[Any, ...]]:
    with psycopg.connect(address.url) as connection:
        return connection.execute(
            "SELECT object_id, actor_id, actor_name, correlation_id, hops FROM clarion.outbox ORDER BY id"
        ).fetchall()


def _look(connection: Connection) -> tuple[str, ...]:
    return tuple(connection.execute(LOOK).one())


def test_a_change_is_captured_with_who_made_it_and_as_part_of_what(things: DatabaseAddress, engine: Engine) -> None:
    with acting(actor_id=17, actor_name="operator 17 ☃", correlation_id="order-9", hops=2), Session(engine) as session:
        session.add(Thing(id=1, name="bolt"))
        session.commit()
    assert _captured(things) == [("1", "17", "operator 17 ☃", "order-9", 2)]


def test_without_a_block_nothing_is_said_and_nothing_is_paid(things: DatabaseAddress, engine: Engine) -> None:
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    with Session(engine) as session:
        session.add(Thing(id=1, name="bolt"))
        session.commit()
    ((object_id, *who, hops),) = _captured(things)
    assert (object_id, who, hops) == ("1", [None] * 3, None)
    assert not [statement for statement in statements if "set_config" in statement]


def test_a_transaction_pays_one_round_trip(engine: Engine) -> None:
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    context.install(engine)
    with acting(actor_id="1"), engine.begin() as connection:
        for _ in range(3):
            connection.execute(text("SELECT 1"))
    assert len([statement for statement in statements if "set_config" in statement]) == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_nothing_stays_on_the_pooled_connection(engine: Engine, end: str) -> None:
    with acting(actor_id="1", actor_name="one", correlation_id="c", hops=1), engine.connect() as connection:
        assert _look(connection) == ("1", "one", "c", "1")
        getattr(connection, end)()
    with engine.connect() as connection:
        assert _look(connection) == NOTHING


def test_a_session_that_goes_on_after_a_rollback_carries_the_values_again(engine: Engine) -> None:
    with acting(actor_id="1"), engine.connect() as connection:
        with pytest.raises(DBAPIError):
            connection.execute(text("SELECT 1 / 0"))
        connection.rollback()
        assert _look(connection)[0] == "1"


def test_a_block_within_a_block_adds_to_it_and_gives_it_back(engine: Engine) -> None:
    with acting(actor_id="1", correlation_id="request"), engine.begin() as connection:
        seen = [_look(connection)]
        with acting(actor_id="2", hops=0):
            seen.append(_look(connection))
        seen.append(_look(connection))
    assert seen == [("1", "", "request", ""), ("2", "", "request", "0"), ("1", "", "request", "")]


def test_a_transaction_that_was_open_before_takes_the_values_on_and_off(engine: Engine) -> None:
    with engine.begin() as connection:
        seen = [_look(connection)]
        with acting(actor_id="1"):
            seen.append(_look(connection))
        seen.append(_look(connection))
    assert seen == [NOTHING, ("1", "", "", ""), NOTHING]


def test_a_savepoint_that_fails_leaves_the_outer_values_in_force(things: DatabaseAddress, engine: Engine) -> None:
    with acting(actor_id="outer"), Session(engine) as session, session.begin():
        session.add(Thing(id=1, name="bolt"))
        session.flush()
        with acting(actor_id="inner"), pytest.raises(IntegrityError), session.begin_nested():
            session.execute(text("INSERT INTO things VALUES (1, 'again')"))
        session.add(Thing(id=2, name="nut"))
        session.flush()
        with acting(actor_id="inner"), session.begin_nested():
            session.add(Thing(id=3, name="pin"))
        session.add(Thing(id=4, name="cap"))
    assert [row[:2] for row in _captured(things)] == [("1", "outer"), ("2", "outer"), ("3", "inner"), ("4", "outer")]


def test_a_bulk_write_carries_the_values_on_every_row(things: DatabaseAddress, engine: Engine) -> None:
    with acting(actor_id="7"), engine.begin() as connection:
        connection.execute(text("INSERT INTO things VALUES (:id, 'x')"), [{"id": number} for number in range(1, 4)])
        connection.exec_driver_sql("UPDATE things SET name = 'y'")
    assert [row[1] for row in _captured(things)] == ["7"] * 6


def test_threads_do_not_see_each_others_values(database: DatabaseAddress) -> None:
    engine = create_engine(database.sqlalchemy("psycopg"), pool_size=2)
    context.install(engine)
    seen: dict[str, tuple[str, ...]] = {}
    both = threading.Barrier(2)

    def work(name: str) -> None:
        with acting(actor_id=name), engine.begin() as connection:
            both.wait(10)
            seen[name] = _look(connection)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    engine.dispose()
    assert seen == {"a": ("a", "", "", ""), "b": ("b", "", "", "")}


async def test_an_async_engine_carries_each_tasks_own_values(things: DatabaseAddress) -> None:
    engine = create_async_engine(things.sqlalchemy("asyncpg"), pool_size=4)
    context.install(engine)
    together = asyncio.Barrier(4)

    async def work(number: int) -> None:
        with acting(actor_id=number, correlation_id=f"task {number}"):
            async with AsyncSession(engine) as session, session.begin():
                await together.wait()
                session.add(Thing(id=number, name="x"))

    try:
        await asyncio.gather(*(work(number) for number in range(1, 5)))
        async with engine.connect() as connection:
            assert tuple((await connection.execute(LOOK)).one()) == NOTHING
    finally:
        await engine.dispose()
    assert sorted(_captured(things)) == [(str(n), str(n), None, f"task {n}", None) for n in range(1, 5)]


def test_in_autocommit_mode_nothing_is_carried_and_nothing_breaks(things: DatabaseAddress, engine: Engine) -> None:
    with acting(actor_id="1"), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("INSERT INTO things VALUES (1, 'x')"))
    ((object_id, *who, hops),) = _captured(things)
    assert (object_id, who, hops) == ("1", [None] * 3, None)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"actor_id": "a\x00b"}, "actor_id: holds a NUL"),
        ({"correlation_id": "\ud800"}, "correlation_id: is not Unicode"),
        ({"hops": -1}, "hops: -1 is not in"),
        ({"hops": 10_000}, "hops: 10000 is not in"),
    ],
)
def test_a_value_that_cannot_be_stored_is_refused_at_once(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says), acting(**given):
        pytest.fail("the block was entered")
    assert context.current() == context.Context()


def test_a_value_is_never_taken_for_sql(engine: Engine) -> None:
    name = "'); DROP TABLE things; -- %s :name $1 \\"
    with acting(actor_name=name), engine.begin() as connection:
        assert _look(connection)[1] == name
