"""What an act is, and how one is carried out: in a transaction of its own, under the name of who does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar
from uuid import uuid4

from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from clarion.capture import context
from clarion.core.errors import ClarionError
from clarion.database.address import DatabaseAddress
from clarion.factory.tables import Base

_RETRIED: Final = frozenset({"40001", "40P01"})
"""Serialization failure and deadlock: the transaction left nothing and may run again."""
_TRIES: Final = 5


Result = TypeVar("Result", bound="Act | None")


class ActRefused(ClarionError):
    """An act that the state of its object does not allow; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who acts: a row of `users`."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Change:
    """One change that an act makes: resource, action and object as the ledger names them."""

    resource: str
    action: Literal["CREATE", "UPDATE", "DELETE"]
    object_id: str


@dataclass(frozen=True, slots=True)
class Act:
    """A business act that was carried out.

    `changes` holds what the act itself wrote, the one that it is about first, an object once for each action; what the
    roll-ups added is not listed. All of them, listed or not, carry `correlation_id`.
    """

    name: str
    summary: str
    changes: tuple[Change, ...]
    correlation_id: str = ""

    @property
    def object_id(self) -> int:
        """Key of the object that the act is about."""
        return int(self.changes[0].object_id)


def created(row: Base) -> Change:
    """The change that an INSERT of `row`, already flushed, makes."""
    return Change(row.__tablename__.upper(), "CREATE", str(row.id))


def updated(table: type[Base], row_id: int) -> Change:
    """The change that an UPDATE of that row makes."""
    return Change(table.__tablename__.upper(), "UPDATE", str(row_id))


def open_engine(address: DatabaseAddress) -> Engine:
    """An engine on `address` whose transactions tell Clarion who acts."""
    engine = create_engine(
        address.sqlalchemy("psycopg"), pool_size=2, connect_args={"application_name": "clarion factory"}
    )
    context.install(engine)
    return engine


def perform(engine: Engine, by: Person, act: Callable[[Session], Result]) -> Result:
    """What `act` returns, its transaction committed, with the correlation id that its changes carry.

    None from `act` ends the transaction with nothing done. A deadlock with another writer is tried again, at most
    five times in all; then, and for every other failure, the driver's error is raised and nothing was changed.
    """
    for tries_left in range(_TRIES - 1, -1, -1):
        correlation_id = uuid4().hex
        try:
            with (
                context.acting(actor_id=by.id, actor_name=by.name, correlation_id=correlation_id),
                Session(engine) as session,
                session.begin(),
            ):
                done = act(session)
        except OperationalError as error:
            if tries_left == 0 or getattr(error.orig, "sqlstate", None) not in _RETRIED:
                raise
        else:
            return done if done is None else replace(done, correlation_id=correlation_id)
    raise AssertionError("the last try returns or raises")
