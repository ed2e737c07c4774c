"""What keeps the tables fit while the product runs: vacuum of those that turn over, partitions made ahead.

Answers that nobody can ask for any more are forgotten, too.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import asyncpg

from clarion.database.pool import store_errors

_log = logging.getLogger(__name__)

VACUUM_EVERY_S = 5.0
PARTITIONS_EVERY_S = 60.0
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
    """Look after outbox, queue, partitions and stored answers until cancelled. `connection` acts as the owner. Raises StoreUnavailable."""
    seconds = PARTITIONS_EVERY_S
    while True:
        with store_errors("maintenance"):
            if seconds >= PARTITIONS_EVERY_S:
                seconds = 0.0
                if made := await connection.fetchval("SELECT clarion.ensure_partitions()"):
                    _log.info("made %s partitions ahead", made)
            for table in await connection.fetch(
                "SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'clarion' "
                "AND relname IN ('outbox', 'queue', 'counters', 'organisation_counters', 'subscription_counters') "
                "AND n_dead_tup >= $1",
                _DEAD_ROWS_MIN,
            ):
                # TRUNCATE OFF: giving pages back takes a lock that would make the application's commits wait.
                await connection.execute(f"VACUUM (TRUNCATE OFF, SKIP_LOCKED) clarion.{table['relname']}")
            await connection.execute(_FORGET_ANSWERS, ANSWERS_KEPT, _ANSWERS_AT_ONCE)
        await asyncio.sleep(VACUUM_EVERY_S)
        seconds += VACUUM_EVERY_S
