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

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine

_HOPS_MAX: Final = 9999
_TRANSACTION_CONTROL: Final = ("SAVEPOINT", "RELEASE", "ROLLBACK", "COMMIT", "PREPARE", "BEGIN")


@dataclass(frozen=True, slots=True)
class Context:
    """What a change is recorded with besides its rows; None means not known.

    `hops` counts how many integrations a change went through before this one.
    """

    actor_id: str | None = None
    actor_name: str | None = None
    correlation_id: str | None = None
    hops: int | None = None


_SETTINGS: Final = text(
    "SELECT set_config('clarion.actor_id', :actor_id, true), set_config('clarion.actor_name', :actor_name, true),"
    " set_config('clarion.correlation_id', :correlation_id, true), set_config('clarion.hops', :hops, true)"
)
_NOTHING: Final = Context()
_current: ContextVar[Context] = ContextVar("clarion_context", default=_NOTHING)
_APPLIED: Final = "clarion.context"


def current() -> Context:
    """The values in force here."""
    return _current.get()


@contextmanager
def acting(
    *,
    actor_id: str | int | None = None,
    actor_name: str | None = None,
    correlation_id: str | None = None,
    hops: int | None = None,
) -> Iterator[Context]:
    """Within the block, changes made by this thread or task carry these values; one left out is kept from outside.

    Raises ValueError for text that PostgreSQL cannot hold, and for `hops` outside [0, 9999].
    """
    given: dict[str, Any] = {
        "actor_id": None if actor_id is None else _storable("actor_id", str(actor_id)),
        "actor_name": None if actor_name is None else _storable("actor_name", actor_name),
        "correlation_id": None if correlation_id is None else _storable("correlation_id", correlation_id),
        "hops": hops,
    }
    if hops is not None and not 0 <= hops <= _HOPS_MAX:
        raise ValueError(f"hops: {hops} is not in [0, {_HOPS_MAX}]")
    context = replace(_current.get(), **{name: value for name, value in given.items() if value is not None})
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


def install(engine: Engine | AsyncEngine) -> None:
    """From now on, transactions of `engine` carry the values of `acting`. Again without harm."""
    target = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    if event.contains(target, "before_cursor_execute", _before_statement):
        return
    event.listen(target, "begin", _forget)
    event.listen(target, "begin_twophase", _forget)
    event.listen(target, "before_cursor_execute", _before_statement)


def _storable(name: str, value: str) -> str:
    if "\x00" in value:
        raise ValueError(f"{name}: holds a NUL character, which PostgreSQL cannot store")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: is not Unicode text") from error
    return value


def _forget(connection: Connection, _transaction_id: object = None) -> None:
    connection.info[_APPLIED] = _NOTHING


def _before_statement(
    connection: Connection, _cursor: object, statement: str, _parameters: object, _context: object, _many: bool
) -> None:
    if statement.startswith(_TRANSACTION_CONTROL):
        if statement.startswith("ROLLBACK"):
            # To a savepoint: what was set before it is in force again, and that is not known here.
            connection.info[_APPLIED] = None
        return
    wanted = _current.get()
    if connection.info.get(_APPLIED, _NOTHING) == wanted:
        return
    # Noted first: the statement below comes by here itself.
    connection.info[_APPLIED] = wanted
    connection.execute(
        _SETTINGS,
        {
            "actor_id": wanted.actor_id or "",
            "actor_name": wanted.actor_name or "",
            "correlation_id": wanted.correlation_id or "",
            "hops": "" if wanted.hops is None else str(wanted.hops),
        },
    )
