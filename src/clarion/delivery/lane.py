"""Order per object: one lane for each object of a receiver. Pure.

Of a lane whose head has to wait, and of a long one, the rest stays in the table; a lane with a rest takes new events from
its rest alone, so that none overtakes those that were left.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from clarion.delivery.event import Event, State


@dataclass(slots=True)
class Rest:
    """What of a lane waits in the table: rows above `after_queue_id`, the last one seen being `seen_upto`.

    `loading_upto` is the queue id up to which rows were asked for, while the answer is awaited.
    """

    after_queue_id: int
    seen_upto: int
    loading_upto: int | None = None


class Lanes:
    """The lanes of one receiver. Only a lane's head may be sent; a lane without events is not kept."""

    def __init__(self) -> None:
        self._lanes: dict[int, deque[Event]] = {}
        self.rests: dict[int, Rest] = {}

    def add(self, lane: int, event: Event) -> bool:
        """Put the event at the end of its lane; whether it is the head."""
        events = self._lanes.get(lane)
        if events is None:
            self._lanes[lane] = deque((event,))
            return True
        events.append(event)
        return False

    def knows(self, lane: int) -> bool:
        """Whether any event of the lane is in memory or left in the table."""
        return lane in self._lanes or lane in self.rests

    def is_followed(self, lane: int) -> bool:
        """Whether more than the lane's head is in memory, or a rest of it left in the table."""
        return lane in self.rests or len(self._lanes.get(lane, ())) > 1

    def is_head(self, lane: int, event: Event) -> bool:
        """Whether the event is at the front of its lane."""
        events = self._lanes.get(lane)
        return events is not None and events[0] is event

    def head(self, lane: int) -> Event | None:
        """The event at the front of the lane, if it has any in memory."""
        events = self._lanes.get(lane)
        return events[0] if events else None

    def leave(self, lane: int, event: Event, *, kept_max: int) -> bool:
        """Leave a new event in the table if the lane has a rest or is full; whether it was left."""
        rest = self.rests.get(lane)
        if rest is None:
            events = self._lanes.get(lane)
            if events is None or len(events) < kept_max:
                return False
            rest = self.rests[lane] = Rest(event.queue_id - 1, 0)
        rest.seen_upto = event.queue_id
        return True

    def cut(self, lane: int) -> list[Event]:
        """Forget what stands behind the lane's head; those events are its rest now."""
        events = self._lanes[lane]
        forgotten = []
        while len(events) > 1 and events[-1].state is State.WAITING:
            forgotten.append(events.pop())
        if forgotten:
            rest = self.rests.setdefault(lane, Rest(0, forgotten[0].queue_id))
            # Not the head's: one that was under way as the others were read anew stands before older ones.
            rest.after_queue_id = min(event.queue_id for event in forgotten) - 1
        return forgotten

    def remove(self, lane: int, event: Event) -> Event | None:
        """Take the event out; the lane's new head, if the event was the head and another follows."""
        events = self._lanes.get(lane)
        if events is None:
            return None
        if events[0] is not event:
            if event in events:
                events.remove(event)
            return None
        events.popleft()
        if events:
            return events[0]
        del self._lanes[lane]
        return None
