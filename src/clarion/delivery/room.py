"""How many requests may be under way, and how many of them at receivers that are slow. Pure.

Without the second bound, receivers that hang and may have many requests at once would sooner or later hold every one of
them, and the others would wait for their deadlines. Half of the room is kept for receivers that answer. Where many that have answered
before hang together, they fill all of it before it shows; from then on their requests take none of it.
"""

from __future__ import annotations

from collections import deque

SLOW_MS = 1000
"""A receiver is slow from the moment that a request has been under way for so long."""
ALL_TO_QUICK = 4
"""How many times as many requests may be under way as at receivers that are not slow: a bound on sockets."""


class Pace:
    """What of one receiver's requests decides whether it is slow."""

    __slots__ = ("answered", "dawdled", "old", "slow", "under_way")

    def __init__(self) -> None:
        self.answered = False  # at least once, and quickly
        self.dawdled = False  # with its last answer
        self.old: set[int] = set()
        self.under_way: dict[int, int] = {}  # since which monotonic time, by queue id
        self.slow = False


class Room:
    """The requests under way of all receivers together: at most `in_flight_max` at those that are not slow."""

    def __init__(self, in_flight_max: int) -> None:
        self._in_flight_max = in_flight_max
        self._half = max(1, in_flight_max // 2)
        self.in_flight = 0
        self._slow_in_flight = 0
        self._young: deque[tuple[int, int, Pace]] = deque()

    @property
    def full(self) -> bool:
        """Whether nobody may send."""
        return (
            self.in_flight - self._slow_in_flight >= self._in_flight_max
            or self.in_flight >= self._in_flight_max * ALL_TO_QUICK
        )

    def admits(self, pace: Pace) -> bool:
        """Whether the receiver may have a further request under way as far as the others need the room.

        One that has not answered yet is given one request to show what it is.
        """
        if self.in_flight < self._half:
            return True
        if pace.slow:
            return self._slow_in_flight < self._half
        return pace.answered or not pace.under_way

    def sent(self, pace: Pace, queue_id: int, now_ns: int) -> None:
        """A request went out."""
        pace.under_way[queue_id] = now_ns
        self._young.append((now_ns, queue_id, pace))
        self.in_flight += 1
        self._slow_in_flight += pace.slow

    def ended(self, pace: Pace, queue_id: int, duration_ms: int | None) -> None:
        """It is not under way any more. `duration_ms`: how long the receiver took; None: not the receiver's doing."""
        del pace.under_way[queue_id]
        self.in_flight -= 1
        self._slow_in_flight -= pace.slow
        pace.old.discard(queue_id)
        if duration_ms is not None:
            pace.dawdled = duration_ms >= SLOW_MS
            pace.answered = pace.answered or not pace.dawdled
        if pace.slow or pace.dawdled or pace.old:
            self._weigh(pace)

    def look(self, now_ns: int) -> None:
        """Find who has become slow by now."""
        while self._young and self._young[0][0] <= now_ns - SLOW_MS * 1_000_000:
            since_ns, queue_id, pace = self._young.popleft()
            if pace.under_way.get(queue_id) == since_ns:
                pace.old.add(queue_id)
                self._weigh(pace)

    def _weigh(self, pace: Pace) -> None:
        slow = pace.dawdled or bool(pace.old)
        if slow is not pace.slow:
            pace.slow = slow
            self._slow_in_flight += len(pace.under_way) if slow else -len(pace.under_way)
