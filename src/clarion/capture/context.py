"""Who does it, and as part of what: an application's SQLAlchemy engine tells the capture trigger.

    install(engine)                                    # once, for a sync or an async engine
    with acting(actor_id="17", actor_name="operator 17", correlation_id=request_id):
        session.execute(...)                           # its changes carry these values

Each statement runs under the values in force where it is executed, also in nested transactions and for what an ORM
flushes by itself. The values travel as transaction-local settings, so that nothing is left on a pooled connection
after commit or rollback. A transaction pays one round trip for them, and one more for each time they change within
it; a transaction without values pays none. In autocommit mode there is no transaction to carry them.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from clarion.capture.acting import NOTHING, Context, acting, current

__all__ = ["Context", "acting", "current", "install"]

_TRANSACTION_CONTROL: Final = ("SAVEPOINT", "RELEASE", "ROLLBACK", "COMMIT", "PREPARE", "BEGIN")
_SETTINGS: Final = text(
    "SELECT set_config('clarion.actor_id', :actor_id, true), set_config('clarion.actor_name', :actor_name, true),"
    " set_config('clarion.correlation_id', :correlation_id, true), set_config('clarion.hops', :hops, true)"
)
_APPLIED: Final = "clarion.context"


def install(engine: Engine | AsyncEngine) -> None:
    """From now on, transactions of `engine` carry the values of `acting`. Again without harm."""
    target = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    if event.contains(target, "before_cursor_execute", _before_statement):
        return
    event.listen(target, "begin", _forget)
    event.listen(target, "begin_twophase", _forget)
    event.listen(target, "before_cursor_execute", _before_statement)


def _forget(connection: Connection, _transaction_id: object = None) -> None:
    connection.info[_APPLIED] = NOTHING


def _before_statement(
    connection: Connection, _cursor: object, statement: str, _parameters: object, _context: object, _many: bool
) -> None:
    if statement.startswith(_TRANSACTION_CONTROL):
        if statement.startswith("ROLLBACK"):
            # To a savepoint: what was set before it is in force again, and that is not known here.
            connection.info[_APPLIED] = None
        return
    wanted = current()
    if connection.info.get(_APPLIED, NOTHING) == wanted:
        return
    # Noted first: the statement below comes by here itself.
    connection.info[_APPLIED] = wanted
    connection.execute(_SETTINGS, wanted.settings())
