"""How many events a worker holds in memory, and how many of one receiver. Pure.

Receivers that cannot be sent to, and those whose objects fail one after the other, would sooner or later fill any memory, and
the others would wait for it. So nobody's loading ever stops: each receiver's window shrinks as memory fills.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clarion.delivery.receiver import Receiver

STALLED_WINDOW = 32
"""Events of a receiver that is not sent to now: its breaker is open, or it is not active."""
BLOCKED_MAX = 20_000
"""Heads of one receiver that wait for their next attempt without taking room of its window."""
BLOCKED_ALL_MAX = 40_000
"""The same of all receivers together; above it those that have most take in no more."""
_WEIGHED_EVERY = 1_000
"""Events that are loaded or forgotten between two looks at all receivers, at least; where there are more receivers, as many as those."""
_SHRUNK_TO = 64


class Memory:
    """The bounds as they are now. `window` is that of one receiver at most, `events_max` what all receivers together hold
    before windows are at their smallest, a sixty-fourth.
    """

    def __init__(self, window: int, events_max: int) -> None:
        self._window_max = window
        self._events_max = events_max
        self._unweighed = 0
        self._window = window
        self._blocked_max = BLOCKED_MAX

    def window_of(self, receiver: Receiver) -> int:
        """How many of its events may be in memory, apart from heads that wait for their next attempt."""
        return min(self._window, STALLED_WINDOW) if receiver.is_stalled() else self._window

    def room_of(self, receiver: Receiver) -> int:
        """How many further events of it may be loaded; less than 0 if its window has shrunk."""
        room = self.window_of(receiver) - len(receiver.events)
        return room + min(len(receiver.blocked), self._blocked_max) if receiver.blocked else room

    def moved(self, events_count: int, receivers: Collection[Receiver]) -> None:
        """So many events are being loaded, or forgotten."""
        self._unweighed += events_count
        if self._unweighed >= max(_WEIGHED_EVERY, len(receivers)):
            self.weigh(receivers)

    def weigh(self, receivers: Iterable[Receiver]) -> None:
        """Look at what all receivers hold. Up to half of it is nobody's concern."""
        self._unweighed = taken = blocked = holders = 0
        for receiver in receivers:
            taken += len(receiver.events) - len(receiver.blocked)
            blocked += len(receiver.blocked)
            holders += len(receiver.blocked) > self._window_max
        free = max(0, self._events_max - taken)
        fair = 2 * self._window_max * free // self._events_max
        self._window = min(self._window_max, max(1, self._window_max // _SHRUNK_TO, fair))
        self._blocked_max = BLOCKED_MAX if blocked <= BLOCKED_ALL_MAX else BLOCKED_ALL_MAX // max(1, holders)
