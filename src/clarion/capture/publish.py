"""An application announces a change that no trigger sees, inside the transaction that makes it.

    clarion.publish(connection, "SHIPMENTS", "UPDATE", shipment.id, data={…}, previous={…})

The change is captured if that transaction commits, and never otherwise. The call is one statement: a function of the
resource, made by `clarion attach --published`, which the application's role was granted. Whatever driver the connection
is of is already loaded; none is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from clarion.capture.acting import current, storable
from clarion.capture.json_text import object_text
from clarion.capture.names import RESOURCE, function_name
from clarion.core.errors import ClarionError

OBJECT_ID_LENGTH_MAX: Final = 1000
"""Characters of an object's id."""

_ACTIONS: Final = ("CREATE", "UPDATE", "DELETE")
_ARGUMENTS_COUNT: Final = 9
_IDLE: Final = 0
"""No transaction, as psycopg counts the states of a session."""

_Arguments = tuple[str | None, ...]


class PublishRefused(ClarionError, ValueError):
    """A change that cannot be published; nothing was sent, and the transaction goes on."""


def publish(
    connection: Any,
    resource: str,
    action: Literal["CREATE", "UPDATE", "DELETE"],
    object_id: object,
    data: Mapping[str, object] | str | None = None,
    *,
    previous: Mapping[str, object] | str | None = None,
    organisation: str | None = None,
    actor_id: str | int | None = None,
    actor_name: str | None = None,
    correlation_id: str | None = None,
) -> Any:
    """None, once the change is part of the connection's transaction; of an async connection an awaitable of that.

    `connection` is psycopg's (either kind), asyncpg's, SQLAlchemy's (a connection or session, either kind) or Django's.
    `data` is the whole object after the change (DELETE: before it, or nothing), `previous` of an UPDATE the whole object
    before; mappings, or JSON text that is kept as it is. Who acts, and as part of what, is as `acting` says unless given.

    Raises PublishRefused for what cannot be published, and where no transaction is open. Errors of the database are those
    of the driver, and fail the transaction as any do: no such function if the resource is not published, or a permission
    denied if this role was not granted it.
    """
    if RESOURCE.fullmatch(resource) is None:
        raise PublishRefused(f"publish: {resource!r} names no resource", "take its name as `clarion attach` lists it")
    if action not in _ACTIONS:
        raise PublishRefused(f"publish: {action!r} is none of {', '.join(_ACTIONS)}")
    if data is None and action != "DELETE":
        raise PublishRefused(f"publish: {action} needs data", "give the object as it is after the change")
    if previous is not None and action != "UPDATE":
        raise PublishRefused(f"publish: {action} has no previous", "it is the object before an UPDATE")
    acting = current()
    try:
        key = storable("object_id", str(object_id))
        if not 1 <= len(key) <= OBJECT_ID_LENGTH_MAX:
            raise ValueError(f"object_id: has {len(key)} characters, 1 to {OBJECT_ID_LENGTH_MAX} are allowed")
        arguments = (
            action,
            key,
            None if data is None else object_text("data", data),
            None if previous is None else object_text("previous", previous),
            _text("organisation", organisation),
            _text("actor_id", actor_id) or acting.actor_id,
            _text("actor_name", actor_name) or acting.actor_name,
            _text("correlation_id", correlation_id) or acting.correlation_id,
            None if acting.hops is None else str(acting.hops),
        )
    except ValueError as error:
        raise PublishRefused(f"publish: {error}") from error
    return _sender(connection)(connection, publishing_function(resource), arguments)


def publishing_function(resource: str) -> str:
    """The name of the resource's function in schema clarion_triggers."""
    return function_name(resource, "publish")


def _text(name: str, value: str | int | None) -> str | None:
    return None if value is None else storable(name, str(value))


def _sender(connection: object) -> Callable[[Any, str, _Arguments], Any]:
    """By whose connection this is, told from where its class or a class above it was defined."""
    for kind in type(connection).__mro__:
        if (sender := _SENDERS.get(kind.__module__.partition(".")[0])) is not None:
            return sender
    raise PublishRefused(
        f"publish: a {type(connection).__name__} is no connection that it knows",
        "give a connection of psycopg, asyncpg or Django, or a connection or session of SQLAlchemy",
    )


def _statement(function: str, places: Callable[[int], str]) -> str:
    """The call, with the places for its arguments. A function's name has letters, digits and _ only."""
    return f"SELECT clarion_triggers.{function}({', '.join(f'{places(number)}::text' for number in range(1, _ARGUMENTS_COUNT + 1))})"


def _percent(_number: int) -> str:
    return "%s"


def _dollar(number: int) -> str:
    return f"${number}"


def _assert_transaction(*, is_open: bool) -> None:
    if not is_open:
        raise PublishRefused(
            "publish: no transaction is open on this connection",
            "publish inside the transaction that makes the change, so that both are kept or neither",
        )


def _by_psycopg(connection: Any, function: str, arguments: _Arguments) -> Any:
    _assert_transaction(is_open=not connection.autocommit or connection.info.transaction_status != _IDLE)
    executed = connection.execute(_statement(function, _percent), arguments)
    return _finished(executed) if hasattr(executed, "__await__") else None


async def _finished(executed: Any) -> None:
    await executed


def _by_asyncpg(connection: Any, function: str, arguments: _Arguments) -> Any:
    _assert_transaction(is_open=connection.is_in_transaction())
    return _finished(connection.execute(_statement(function, _dollar), *arguments))


def _by_django(connection: Any, function: str, arguments: _Arguments) -> None:
    _assert_transaction(is_open=not connection.get_autocommit())
    with connection.cursor() as cursor:
        cursor.execute(_statement(function, _percent), arguments)


def _by_sqlalchemy(connection: Any, function: str, arguments: _Arguments) -> Any:
    if hasattr(connection, "run_sync"):
        return connection.run_sync(_by_sqlalchemy, function, arguments)
    # A session knows its connection by a call, a connection is one.
    target = connection.connection() if callable(connection.connection) else connection
    _assert_transaction(is_open=not target.connection.dbapi_connection.autocommit)
    places = _dollar if target.dialect.paramstyle == "numeric_dollar" else _percent
    target.exec_driver_sql(_statement(function, places), arguments)
    return None


_SENDERS: Final = {
    "psycopg": _by_psycopg,
    "asyncpg": _by_asyncpg,
    "sqlalchemy": _by_sqlalchemy,
    "django": _by_django,
}
