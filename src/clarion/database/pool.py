"""asyncpg connections of the hot path. The driver's errors become ours here, so that no stage knows asyncpg's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import asyncpg

from clarion.core.errors import ClarionError, Fenced, InvariantBroken, StoreUnavailable

if TYPE_CHECKING:
    from clarion.database.address import DatabaseAddress

_log = logging.getLogger(__name__)

BATCH_ABORTED = "CL001"
"""SQLSTATE raised by clarion.abort_batch."""

_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # What asyncpg raises where a statement meets a connection that is being torn down.
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.TransactionRollbackError,
    ConnectionError,
    OSError,
    TimeoutError,
)


_REFUSED_CLASSES = frozenset({"22", "23", "54", "P0", "XX"})
"""SQLSTATE's classes of what can be wrong with values: data, constraints, limits, what a trigger raises, and internal errors, as for a
value that would take too much memory."""


class ValuesRefused(InvariantBroken):
    """The database refuses a statement for the values in it, and would again. Nothing of it stayed; the session goes on."""


class BatchAborted(StoreUnavailable):
    """A compare-and-set inside a batch statement did not hold; nothing of the batch stayed."""


@contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """Translate the driver's errors: BatchAborted, Fenced, StoreUnavailable (may be tried again), ValuesRefused or InvariantBroken."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if error.sqlstate == BATCH_ABORTED:
            if "fenced" in str(error):
                raise Fenced(f"{doing}: {error}") from error
            raise BatchAborted(f"{doing}: {error}") from error
        if isinstance(error, _LOST):
            raise StoreUnavailable(f"{doing}: {error}") from error
        kind = ValuesRefused if _is_of_values(error) else InvariantBroken
        raise kind(f"{doing}: {type(error).__name__}: {error}") from error
    except _LOST as error:
        raise StoreUnavailable(f"{doing}: {error or type(error).__name__}") from error


def _is_of_values(error: asyncpg.PostgresError) -> bool:
    if isinstance(error, asyncpg.UniqueViolationError):
        return False  # every key is a number of ours
    if isinstance(error, asyncpg.CheckViolationError) and error.constraint_name is None:
        return False  # there is no partition
    return str(error.sqlstate)[:2] in _REFUSED_CLASSES


async def connect(address: DatabaseAddress, *, role: str | None, name: str) -> asyncpg.Connection:
    """One connection, acting as `role` if given. `name` shows in pg_stat_activity. Raises StoreUnavailable."""
    settings = {
        "application_name": f"clarion {name}",
        "timezone": "UTC",
        # A host that died without a word must not keep its session locks for hours.
        "tcp_keepalives_idle": "5",
        "tcp_keepalives_interval": "2",
        "tcp_keepalives_count": "3",
        "idle_in_transaction_session_timeout": "30s",
        "jit": "off",
        # Outbox and queue go from empty to a million rows and back within minutes, and statistics do not follow: a plan
        # that is best for an empty table reads the whole of a full one, for each batch. Every hot statement names the
        # rows it wants by an index, and wants them in its order.
        "enable_seqscan": "off",
        "enable_bitmapscan": "off",
        "enable_mergejoin": "off",
        "enable_sort": "off",
        "enable_incremental_sort": "off",
        "enable_hashjoin": "off",
        # Where statistics say that a table is large, starting processes for a few of its rows would be thought worth it.
        "max_parallel_workers_per_gather": "0",
    }
    with store_errors(f"connect ({name})"):
        connection: asyncpg.Connection = await asyncpg.connect(
            address.url, server_settings=settings, timeout=10, statement_cache_size=200
        )
        if role is not None:
            await connection.execute(f"SET ROLE {_identifier(role)}")
        return connection


async def join_by_hash(connection: asyncpg.Connection) -> None:
    """For a session that writes batches: the rows of a table, found by an array of keys, meet what the batch says of them.

    Other sessions join nested: a few rows look up theirs in another table. Raises StoreUnavailable.
    """
    with store_errors("set up a session"):
        await connection.execute("SET enable_hashjoin = on; SET enable_nestloop = off")


async def plan_once(connection: asyncpg.Connection) -> None:
    """For a session whose statements each have one good plan, whatever is asked: it is made at first and kept.

    Left to choose, PostgreSQL goes on planning anew where rows are few, which takes several times what they take. Statistics
    change nothing about a plan that is kept until they are gathered anew, so each statement must force its index by itself.
    Raises StoreUnavailable.
    """
    with store_errors("set up a session"):
        await connection.execute("SET plan_cache_mode = force_generic_plan")


async def connect_all(opening: Sequence[Awaitable[asyncpg.Connection]]) -> list[asyncpg.Connection]:
    """The sessions, opened at once, in their order. If one cannot be opened its error is raised and the others are closed."""
    tasks = [asyncio.ensure_future(one) for one in opening]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:  # also when it is cancelled
        for task in tasks:
            task.cancel()
        for connection in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(connection, BaseException):
                await close(connection)
        raise


async def close(connection: asyncpg.Connection | None) -> None:
    """End the session, politely if the server answers within two seconds; never raises."""
    if connection is None or connection.is_closed():
        return
    try:
        await asyncio.wait_for(connection.close(), 2)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        connection.terminate()


async def keep_running(
    address: DatabaseAddress,
    role: str | None,
    name: str,
    job: Callable[[asyncpg.Connection], Awaitable[None]],
    *,
    lost_wait_s: float = 1.0,
    failed_wait_s: float = 10.0,
) -> NoReturn:
    """Run `job` on a session of its own until cancelled; each time on a new one, `lost_wait_s` after the session was lost and
    `failed_wait_s` after any other error.

    For what runs beside the work: nobody waits for its end, so whatever ends it is logged and it begins again.
    """
    told = False
    while True:
        connection: asyncpg.Connection | None = None
        wait_s = failed_wait_s
        try:
            connection = await connect(address, role=role, name=name)
            told = False
            await job(connection)
        except StoreUnavailable as error:
            wait_s = lost_wait_s
            if not told:  # once an outage, however long it is
                _log.warning("%s has no session and tries again every %.3g s: %s", name, wait_s, error)
            told = True
        except ClarionError as error:
            _log.error("%s failed and begins again in %.3g s: %s", name, wait_s, error)
        except Exception:
            _log.exception("%s failed and begins again in %.3g s", name, wait_s)
        finally:
            await close(connection)
        await asyncio.sleep(wait_s)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
