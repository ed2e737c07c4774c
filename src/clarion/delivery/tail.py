"""How far the end of the queue has been read, for each claim of shards. Pure.

The router hands out queue ids in the order in which they become visible, so "above the last one seen" misses nothing
of a shard that was owned all the while. A shard claimed later begins at 0, apart from the others, and joins
them when it has caught up: then one statement reads for all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(slots=True)
class Cursor:
    """Shards that are read together, and the last queue id seen of them."""

    shards: set[int]
    after_queue_id: int = 0


class Tail:
    """The cursors of a worker's shards. Nothing may be read while shards come or go."""

    def __init__(self) -> None:
        self._steady = Cursor(set())
        self._catching_up: list[Cursor] = []

    def claimed(self, shards: Collection[int]) -> None:
        """These are owned from now on: read them from the start."""
        self._catching_up.append(Cursor(set(shards)))

    def without(self, shards: Collection[int]) -> None:
        """Read no more of these."""
        for cursor in (self._steady, *self._catching_up):
            cursor.shards.difference_update(shards)
        self._catching_up = [cursor for cursor in self._catching_up if cursor.shards]

    def next(self) -> Cursor:
        """What to read next: a claim that has to catch up, otherwise all."""
        return self._catching_up[0] if self._catching_up else self._steady

    def seen(self, cursor: Cursor, last_queue_id: int | None, *, more: bool) -> None:
        """The cursor was read up to there (None: nothing was found); `more`: there may be further rows."""
        if last_queue_id is not None:
            cursor.after_queue_id = last_queue_id
        if more or cursor is self._steady:
            return
        self._catching_up.remove(cursor)
        # The steady cursor may be behind this one. What is read twice then, the engine knows already.
        if not self._steady.shards:
            self._steady.after_queue_id = cursor.after_queue_id
        self._steady.shards |= cursor.shards

    @property
    def catching_up(self) -> bool:
        """Whether a claim has not been read to its end."""
        return bool(self._catching_up)
