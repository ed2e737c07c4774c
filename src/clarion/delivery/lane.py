"""Order per object: one lane for each object of a receiver. Pure."""

from __future__ import annotations

from collections import deque

from clarion.delivery.event import Event


class Lanes:
    """The lanes of one receiver. Only a lane's head may be sent; a lane without events is not kept."""

    def __init__(self) -> None:
        self._lanes: dict[int, deque[Event]] = {}

    def add(self, lane: int, event: Event) -> bool:
        """Put the event at the end of its lane; whether it is the head."""
        events = self._lanes.get(lane)
        if events is None:
            self._lanes[lane] = deque((event,))
            return True
        events.append(event)
        return False

    def is_head(self, lane: int, event: Event) -> bool:
        """Whether the event is at the front of its lane."""
        events = self._lanes.get(lane)
        return events is not None and events[0] is event

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
