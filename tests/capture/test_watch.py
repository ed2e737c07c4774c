"""The running server's look at capture: what is wrong becomes an alarm, is logged, and ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import asyncpg
import psycopg
import pytest

from clarion.capture import guard
from clarion.capture.attach import Attachment, attach
from clarion.capture.doctor import CODES, Finding, Severity, inspect
from clarion.capture.watch import AlarmLog, look, watch
from clarion.core.system import SystemClock
from clarion.database import pool
from clarion.database.address import DatabaseAddress

pytestmark = pytest.mark.data_path

Connection = psycopg.Connection[Any]


@pytest.fixture
def application(database: DatabaseAddress) -> Iterator[Connection]:
    """A superuser with the guard on and `parts` attached, committed."""
    with psycopg.connect(database.url, autocommit=True) as opened:
        guard.turn_on(opened)
        opened.execute("CREATE TABLE parts (id bigint PRIMARY KEY)")
        attach(opened, [Attachment("PARTS", "parts")])
        yield opened


@pytest.fixture
async def session(database: DatabaseAddress) -> AsyncIterator[asyncpg.Connection]:
    opened = await pool.connect(database, role=None, name="inspection")
    yield opened
    await pool.close(opened)


async def until_alarm(application: Connection, code: str, *, ended: bool = False) -> tuple[Any, ...]:
    """The alarm, as soon as it is there (or has ended)."""
    for _ in range(500):
        row = application.execute(
            "SELECT code, subject, severity, ended IS NOT NULL FROM clarion.alarms "
            "WHERE code = %s AND (ended IS NOT NULL) = %s",
            (code, ended),
        ).fetchone()
        if row is not None:
            return row
        await asyncio.sleep(0.02)
    pytest.fail(f"no alarm {code}")


async def test_a_guard_that_a_superuser_drops_is_an_alarm_at_the_next_look_and_ends_when_it_is_back(
    application: Connection, session: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    task = asyncio.create_task(watch(session, SystemClock(), every_s=0.02))
    try:
        await until_alarm(application, "ROUTER_SILENT")
        application.execute("DROP EVENT TRIGGER clarion_guard_ended")
        assert await until_alarm(application, "GUARD_MISSING") == ("GUARD_MISSING", "guard", "FAILURE", False)
        application.execute("ALTER TABLE parts DISABLE TRIGGER USER")
        await until_alarm(application, "TRIGGER_NOT_ALWAYS")
        guard.turn_on(application)
        await until_alarm(application, "GUARD_MISSING", ended=True)
        attach(application, [Attachment("PARTS", "parts")])
        await until_alarm(application, "TRIGGER_NOT_ALWAYS", ended=True)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    told = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, text in told if text.startswith("GUARD_MISSING")] == ["ERROR", "WARNING"]
    assert "GUARD_MISSING: guard: no longer so" in [text for _, text in told]


async def test_whatever_is_broken_the_look_goes_on_and_says_what_it_could_not_compare(
    application: Connection, session: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    application.execute("ALTER TABLE clarion.counters RENAME TO elsewhere")
    application.execute("ALTER TABLE clarion.alarms RENAME TO nowhere")
    task = asyncio.create_task(watch(session, SystemClock(), every_s=0.02))
    try:
        while "clarion.alarms cannot be written" not in caplog.text:
            await asyncio.sleep(0.02)
        application.execute("ALTER TABLE clarion.nowhere RENAME TO alarms")
        assert (await until_alarm(application, "NOT_COMPARED"))[1] == "partitions"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_one_of_all_processes_looks(
    application: Connection, session: asyncpg.Connection, database: DatabaseAddress
) -> None:
    application.execute("SELECT pg_advisory_lock(hashtext('clarion.inspection'))")
    task = asyncio.create_task(watch(session, SystemClock(), every_s=0.02))
    try:
        # It asks for the lock again and again, and writes nothing.
        await _asked_for_the_lock(application, session)
        assert application.execute("SELECT count(*) FROM clarion.alarms").fetchone() == (0,)
        application.execute("SELECT pg_advisory_unlock(hashtext('clarion.inspection'))")
        await until_alarm(application, "ROUTER_SILENT")
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _asked_for_the_lock(application: Connection, session: asyncpg.Connection) -> None:
    while not application.execute(
        "SELECT FROM pg_stat_activity WHERE pid = %s AND query LIKE '%%try_advisory_lock%%' AND state = 'idle'",
        (session.get_server_pid(),),
    ).fetchall():
        await asyncio.sleep(0.02)


async def test_the_server_and_the_command_find_the_same(application: Connection, session: asyncpg.Connection) -> None:
    application.execute("ALTER EVENT TRIGGER clarion_guard_ended DISABLE; ALTER TABLE parts DISABLE TRIGGER USER")
    application.execute("ALTER TABLE parts DROP CONSTRAINT parts_pkey")
    found = await look(session)
    assert {one.code for one in found} >= {"GUARD_DISABLED", "TRIGGER_NOT_ALWAYS", "KEY_LOST"}
    assert found == inspect(application)


def test_an_alarm_is_told_once_and_again_when_it_changes_or_after_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    log = AlarmLog()

    def finding(message: str, code: str = "KEY_LOST") -> Finding:
        return Finding(code, CODES[code][0], "public.parts", message, "do it")

    hour = 3_600_000_000_000
    for now, found in (
        (0, [finding("waits for 60 s"), finding("x", "TABLE_NOT_ENROLLED")]),
        (1, [finding("waits for 120 s")]),
        (2, [finding("waits no more for 120 s")]),
        (hour, [finding("waits no more for 120 s")]),
        (hour + 2, [finding("waits no more for 120 s")]),
        (hour + 3, []),
        (hour + 4, []),
    ):
        log.tell(found, now)
    assert [record.getMessage() for record in caplog.records] == [
        "KEY_LOST: public.parts: waits for 60 s (do it)",
        "KEY_LOST: public.parts: waits no more for 120 s (do it)",
        "KEY_LOST: public.parts: waits no more for 120 s (do it)",
        "KEY_LOST: public.parts: no longer so",
    ]
    assert CODES["KEY_LOST"][0] is Severity.FAILURE
