"""A host that requests go to, and how many connections it may get from this process, whoever registered it.

Receivers are cheap to register; without a common bound many of them would turn the sender against one host.
"""

from __future__ import annotations

from typing import Protocol

CONNECTIONS_MAX = 64


class Connections(Protocol):
    """The connections of one receiver, as a destination sees them."""

    @property
    def connections_count(self) -> int: ...
    def give_up_idle(self) -> bool: ...
    def open_in_turn(self) -> None: ...


class Destination:
    """Admits connections to one host, first come first served. Idle ones make room for those that are needed."""

    def __init__(self, connections_max: int) -> None:
        self._max = connections_max
        self._present: dict[Connections, None] = {}
        self._waiting: dict[Connections, None] = {}
        self._in_turn: Connections | None = None

    @property
    def is_contended(self) -> bool:
        """Whether a receiver waits for room."""
        return bool(self._waiting)

    def admits(self, pool: Connections) -> bool:
        """Whether `pool` may open one more connection. If not, its `open_in_turn` is called when it may."""
        if self._has_room() and (pool is self._in_turn or not self._waiting):
            self._in_turn = None
            self._present[pool] = None
            return True
        self._waiting[pool] = None
        for present in self._present:
            if present is not pool and present.give_up_idle():
                break
        return False

    def left(self, pool: Connections) -> None:
        """One connection of `pool` has ended, or was not opened."""
        if pool.connections_count == 0:
            self._present.pop(pool, None)
        while self._waiting and self._has_room():
            self._in_turn = next(iter(self._waiting))
            del self._waiting[self._in_turn]
            self._in_turn.open_in_turn()
            self._in_turn = None

    def _has_room(self) -> bool:
        return sum(present.connections_count for present in self._present) < self._max
