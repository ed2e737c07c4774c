"""The running server compares what should be with what is, every minute, and keeps what it finds in clarion.alarms."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import asyncpg

from clarion.capture.doctor import STATEMENTS, Finding, Severity, findings, in_order, not_compared
from clarion.core.clock import Clock
from clarion.core.errors import StoreUnavailable
from clarion.database.pool import store_errors

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
START_AFTER_S = 10.0
LOG_AGAIN_AFTER_S = 3600.0
KEEP_ENDED_DAYS = 90

_ONE_OF_ALL = "SELECT pg_try_advisory_lock(hashtext('clarion.inspection'))"
_WRITE = """
    WITH found AS (
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS f (code, subject, severity, message)
    ), ended AS (
        UPDATE clarion.alarms a SET ended = clock_timestamp()
        WHERE a.ended IS NULL AND NOT EXISTS (SELECT FROM found f WHERE (f.code, f.subject) = (a.code, a.subject))
    ), old AS (
        DELETE FROM clarion.alarms WHERE ended < clock_timestamp() - make_interval(days => $5)
    )
    INSERT INTO clarion.alarms (code, subject, severity, message)
    SELECT code, subject, severity, message FROM found
    ON CONFLICT (code, subject) WHERE ended IS NULL DO UPDATE
        SET (severity, message, seen) = (excluded.severity, excluded.message, clock_timestamp())
"""


async def watch(connection: asyncpg.Connection, clock: Clock, *, every_s: float = LOOK_EVERY_S) -> None:
    """Compare, write and log until cancelled. Of all processes with this task, one at a time does so.

    `connection` is the login's own, not the owner's: other sessions' transactions are told to those who may see them.
    Raises StoreUnavailable when the session is lost.
    """
    log = AlarmLog()
    owner = False
    # What has just started has not yet given a sign of life.
    await asyncio.sleep(min(every_s, START_AFTER_S))
    while True:
        with store_errors("inspection"):
            owner = owner or bool(await connection.fetchval(_ONE_OF_ALL))
        if owner:
            found = await look(connection)
            await _write(connection, found)
            log.tell(found, clock.monotonic_ns())
        await asyncio.sleep(every_s)


async def look(connection: asyncpg.Connection) -> list[Finding]:
    """All findings of this moment. A statement that fails is one of them; raises StoreUnavailable for a lost session."""
    rows: list[Sequence[Any]] = []
    for name, statement in STATEMENTS.items():
        try:
            rows.extend(tuple(row) for row in await connection.fetch(statement, timeout=30))
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            if connection.is_closed():
                raise StoreUnavailable(f"inspection: {error}") from error
            rows.append(not_compared(name, error))
    return in_order(findings(rows))


async def _write(connection: asyncpg.Connection, found: Sequence[Finding]) -> None:
    unique = {(one.code, one.subject): one for one in found}
    columns: list[list[str]] = [
        [one.code for one in unique.values()],
        [one.subject for one in unique.values()],
        [one.severity.value for one in unique.values()],
        [f"{one.message}; {one.advice}" for one in unique.values()],
    ]
    try:
        await connection.execute(_WRITE, *columns, KEEP_ENDED_DAYS)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        if connection.is_closed():
            raise StoreUnavailable(f"inspection: {error}") from error
        # The table itself may be what is broken; what was found is logged all the same.
        _log.error("clarion.alarms cannot be written: %s", error)


class AlarmLog:
    """What was told of each alarm, and when: told again when it changes, after an hour, and when it ends."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], tuple[str, int]] = {}

    def tell(self, found: Sequence[Finding], now_ns: int) -> None:
        """Log what is new or changed or an hour old (failures as ERROR), and what ended. Information is not logged."""
        present = {(one.code, one.subject): one for one in found if one.severity is not Severity.INFORMATION}
        for key, one in present.items():
            before = self._told.get(key)
            # What a message counts (ages, rows) moves all the time: the words decide.
            words = "".join(character for character in one.message if not character.isdigit())
            if before is None or before[0] != words or now_ns - before[1] >= LOG_AGAIN_AFTER_S * 1e9:
                level = logging.ERROR if one.severity is Severity.FAILURE else logging.WARNING
                _log.log(level, "%s: %s: %s (%s)", one.code, one.subject, one.message, one.advice)
                self._told[key] = (words, now_ns)
        for code, subject in [key for key in self._told if key not in present]:
            del self._told[code, subject]
            _log.warning("%s: %s: no longer so", code, subject)
