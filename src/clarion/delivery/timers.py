"""Whom the engine has to look at again, and when. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count

from clarion.delivery.event import Event
from clarion.delivery.receiver import Receiver

Waiting = Event | Receiver


class Timers:
    """Events and receivers by the monotonic nanosecond at which they are looked at; of one moment the first set goes first.

    A timer is never taken back: whoever it wakes sees for itself whether there is something to do.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Waiting]] = []
        self._numbers = count()

    def next_ns(self) -> int | None:
        """When the next one rings, if there is one."""
        return self._heap[0][0] if self._heap else None

    def any_due(self, now_ns: int) -> bool:
        """Whether the time of one has come."""
        return bool(self._heap) and self._heap[0][0] <= now_ns

    def set(self, at_ns: int, waiting: Waiting) -> None:
        """Look at it then."""
        heappush(self._heap, (at_ns, next(self._numbers), waiting))

    def due(self, now_ns: int) -> Iterator[Waiting]:
        """Those whose time has come, also those set meanwhile; each is taken off."""
        while self._heap and self._heap[0][0] <= now_ns:
            yield heappop(self._heap)[2]

    def keep(self, wanted: Callable[[Waiting], bool]) -> None:
        """Forget all others."""
        self._heap = [timer for timer in self._heap if wanted(timer[2])]
        heapify(self._heap)
