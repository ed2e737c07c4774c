"""Which changes the database refuses to take into the ledger, and what waits behind them. Pure.

A batch that is refused for what is in it is halved until the row is alone. One that is refused even then, and without what its
subscriptions ask of it, stays in the outbox, where its age is an alarm. So do later changes of its object, which may not
overtake it. All others go on. It is tried again every so often: whoever removes the cause need not tell the router.
"""

from __future__ import annotations

from collections.abc import Iterable

from clarion.ledger.change import Captured
from clarion.routing.order import owner_of

_Object = tuple[int | str | None, str, str]


def _object_of(row: Captured) -> _Object:
    return owner_of(row), row.resource, row.object_id


class Refused:
    """The objects that wait for a row that was refused, in the order in which their rows are tried again."""

    def __init__(self, again_after_ns: int) -> None:
        """A row is tried again so many nanoseconds after it was refused."""
        self._again_after_ns = again_after_ns
        self._held: dict[_Object, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, row: Captured, now_ns: int) -> None:
        """This row was refused now, by the monotonic clock."""
        self._held[_object_of(row)] = row.outbox_id, now_ns + self._again_after_ns

    def without(self, rows: Iterable[Captured]) -> list[Captured]:
        """The rows of all other objects."""
        return [row for row in rows if _object_of(row) not in self._held]

    def release_due(self, now_ns: int) -> int | None:
        """The id of a row that is to be tried again, whose object is held no longer; None if it is not yet time for any."""
        for held, (outbox_id, again_ns) in self._held.items():
            if again_ns <= now_ns:
                del self._held[held]
                return outbox_id
            break  # the others were refused later
        return None
