"""What keeps the tables fit while the product runs: vacuum of those that turn over, partitions made ahead.

Answers that nobody can ask for any more are forgotten, too.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import asyncpg

from clarion.core.errors import InvariantBroken
from clarion.database.pool import store_errors

_log = logging.getLogger(__name__)

START_AFTER_S = 2.0
VACUUM_EVERY_S = 5.0
PARTITIONS_EVERY_S = 60.0
FAILED_AGAIN_AFTER_S = 60.0
ANSWERS_KEPT = timedelta(days=1)
"""How long the answer to a request with an idempotency key can be asked for again."""

# A handful of dead rows is not worth a vacuum's write-ahead log.
_DEAD_ROWS_MIN = 200
_ANSWERS_AT_ONCE = 5_000
_FORGET_ANSWERS = """
    DELETE FROM clarion.idempotency_keys WHERE id IN (
        SELECT id FROM clarion.idempotency_keys WHERE created < clock_timestamp() - $1::interval ORDER BY created LIMIT $2
    )
"""


async def maintain(connection: asyncpg.Connection) -> None:
    """Look after outbox, queue, partitions and stored answers until cancelled. `connection` acts as the owner.

    What fails is logged and tried again a minute later; the rest goes on meanwhile. Raises StoreUnavailable.
    """
    waits_s = dict.fromkeys(_EVERY_S, 0.0)
    # Whoever has just taken over from a process that died has something else to do.
    await asyncio.sleep(START_AFTER_S)
    while True:
        for work, every_s in _EVERY_S.items():
            waits_s[work] -= VACUUM_EVERY_S
            if waits_s[work] > 0:
                continue
            waits_s[work] = every_s
            try:
                with store_errors("maintenance"):
                    await work(connection)
            except InvariantBroken as error:
                waits_s[work] = FAILED_AGAIN_AFTER_S
                _log.error("%s", error)
        await asyncio.sleep(VACUUM_EVERY_S)


async def _make_partitions(connection: asyncpg.Connection) -> None:
    if made := await connection.fetchval("SELECT clarion.ensure_partitions()"):
        _log.info("made %s partitions ahead", made)


async def _vacuum(connection: asyncpg.Connection) -> None:
    for table in await connection.fetch(
        "SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'clarion' "
        "AND relname IN ('outbox', 'queue', 'counters', 'organisation_counters', 'subscription_counters') "
        "AND n_dead_tup >= $1",
        _DEAD_ROWS_MIN,
    ):
        # TRUNCATE OFF: giving pages back takes a lock that would make the application's commits wait.
        await connection.execute(f"VACUUM (TRUNCATE OFF, SKIP_LOCKED) clarion.{table['relname']}")


async def _forget_answers(connection: asyncpg.Connection) -> None:
    await connection.execute(_FORGET_ANSWERS, ANSWERS_KEPT, _ANSWERS_AT_ONCE)


_EVERY_S = {_make_partitions: PARTITIONS_EVERY_S, _vacuum: VACUUM_EVERY_S, _forget_answers: VACUUM_EVERY_S}
