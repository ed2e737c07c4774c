"""Who acts, and as part of what: values that hold for a block of code, in the thread or task that runs it.

Whatever carries them to the database reads them here: the SQLAlchemy extension (`capture.context`), the Django app
(`capture.django`), and `publish`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final

_HOPS_MAX: Final = 9999


@dataclass(frozen=True, slots=True)
class Context:
    """What a change is recorded with besides its rows; None means not known.

    `hops` counts how many integrations a change went through before this one.
    """

    actor_id: str | None = None
    actor_name: str | None = None
    correlation_id: str | None = None
    hops: int | None = None

    def settings(self) -> dict[str, str]:
        """The values as PostgreSQL's settings hold them: text, empty for what is not known."""
        return {
            "actor_id": self.actor_id or "",
            "actor_name": self.actor_name or "",
            "correlation_id": self.correlation_id or "",
            "hops": "" if self.hops is None else str(self.hops),
        }


NOTHING: Final = Context()
_current: ContextVar[Context] = ContextVar("clarion_context", default=NOTHING)


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
        "actor_id": None if actor_id is None else storable("actor_id", str(actor_id)),
        "actor_name": None if actor_name is None else storable("actor_name", actor_name),
        "correlation_id": None if correlation_id is None else storable("correlation_id", correlation_id),
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


def storable(name: str, value: str) -> str:
    """`value`, if PostgreSQL can hold it as text. Raises ValueError that begins with `name`."""
    if "\x00" in value:
        raise ValueError(f"{name}: holds a NUL character, which PostgreSQL cannot store")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: is not Unicode text") from error
    return value
