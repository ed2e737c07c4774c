"""A receiver as the engine remembers it: what is loaded, under way and waiting, and how it fares. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from datetime import datetime, timedelta

from clarion.core.clock import Now, Random
from clarion.delivery.breaker import Breaker
from clarion.delivery.event import Event, Reason, State
from clarion.delivery.health import Health
from clarion.delivery.lane import Lanes
from clarion.delivery.limit import RateLimit
from clarion.delivery.room import Pace
from clarion.delivery.step import ReceiverSettings

BLOCKED_MAX = 20_000
"""Heads of one receiver that wait for their next attempt without taking room of its window."""


class Receiver:
    """What the engine remembers of one receiver; `unordered`: new events need not wait for others of their object."""

    __slots__ = (
        "alone",
        "blocked",
        "breaker",
        "ended_ahead",
        "events",
        "health",
        "hurried_ahead",
        "in_flight",
        "lanes",
        "leaving",
        "limit",
        "loaded_upto",
        "loading",
        "overflowing",
        "pace",
        "probe",
        "queued",
        "quiet_until_ns",
        "ready",
        "receiver_id",
        "settings",
        "unordered",
        "wakes_ns",
    )

    def __init__(self, receiver_id: int, settings: ReceiverSettings | None, random: Random) -> None:
        self.receiver_id = receiver_id
        self.settings = settings
        self.unordered = _unordered(settings)
        self.breaker = Breaker(random)
        self.health = Health()
        self.probe: Event | None = None
        self.quiet_until_ns = 0
        self.wakes_ns: int | None = None
        self.limit: RateLimit | None = None
        self.events: dict[int, Event] = {}
        self.lanes = Lanes()
        self.alone: set[int] = set()  # admitted while order was off; a lane's rest must not bring them once more
        self.blocked: set[int] = set()
        self.ready: deque[Event] = deque()
        self.in_flight = 0
        self.pace = Pace()
        self.queued = False
        self.loaded_upto = 0
        self.ended_ahead: dict[int, Event] = {}
        self.hurried_ahead: dict[int, list[int]] = {}
        self.overflowing = False
        self.loading = False
        self.leaving = False

    def unwanted(self, event: Event, subscriptions: Container[int]) -> Reason | None:
        """Why the event is not to be sent any more; `subscriptions` are the live ones."""
        settings = self.settings
        if settings is None:
            return Reason.RECEIVER_DELETED
        if event.subscription_id not in subscriptions:
            return Reason.SUBSCRIPTION_DELETED
        return None if settings.may_be_sent(event) else Reason.RIGHT_REVOKED

    def configure(self, settings: ReceiverSettings | None) -> None:
        """Take new settings; None: deleted."""
        old = self.settings
        old_rate = old.rate_limit_per_second if old else None
        if old is not None and not old.active and settings is not None and settings.active:
            # Whoever puts a receiver back into service says that it is well again: that ends all waiting, but not care.
            self.quiet_until_ns = 0
            self.breaker.close_slowly()
            self.health.clear()
        self.settings = settings
        self.unordered = _unordered(settings)
        rate = settings.rate_limit_per_second if settings else None
        if rate is None:
            self.limit = None
        elif self.limit is None or rate != old_rate:
            self.limit = RateLimit(rate)

    def is_ahead(self, queue_id: int, lane: int) -> bool:
        """Whether an open row that is not in memory is still to be loaded, at the end of the queue or from a lane's rest."""
        rest = self.lanes.rests.get(lane)
        return queue_id > self.loaded_upto or (rest is not None and queue_id > rest.after_queue_id)

    def end_ahead(self, row: Event) -> Event:
        """The row of an event that is not loaded yet, and never is to be."""
        self.ended_ahead = {
            queue_id: one for queue_id, one in self.ended_ahead.items() if self.is_ahead(queue_id, one.lane)
        }
        self.ended_ahead[row.queue_id] = row
        row.hurried_by = tuple(self.hurried_ahead.pop(row.queue_id, ()))
        return row

    def is_engaged(self) -> bool:
        """Whether a request is under way, or an outcome still to be stored."""
        events = (*self.events.values(), *self.ended_ahead.values())
        return any(event.state in (State.IN_FLIGHT, State.SETTLING) for event in events)

    def room(self, window: int) -> int:
        """How many further events may be loaded."""
        return window - len(self.events) + min(len(self.blocked), BLOCKED_MAX)

    def has_room(self) -> bool:
        """Whether a further request may be under way."""
        settings = self.settings
        if settings is None or not settings.active or self.leaving or self.in_flight >= settings.concurrency:
            return False
        if self.breaker.is_open:
            return self.probe is None
        return self.in_flight < self.breaker.concurrency

    def wait_ns(self, now_ns: int) -> int:
        """Nanoseconds until the next request: quiet that the receiver asked for, its breaker's next probe, its rate; 0: now."""
        if self.limit is None and self.quiet_until_ns <= now_ns and not self.breaker.is_open:
            return 0  # nearly always
        wait_ns = max(0, self.quiet_until_ns - now_ns, self.breaker.wait_ns(now_ns))
        return wait_ns if self.limit is None else max(wait_ns, self.limit.wait_ns(now_ns))

    def block_ends(self, event: Event) -> datetime | None:
        """When a failing head stops blocking its lane; None: never."""
        settings = self.settings
        if event.first_failed_at is None or settings is None or settings.lane_block_max_s is None or event.round > 0:
            return None
        return event.first_failed_at + timedelta(seconds=settings.lane_block_max_s)

    def past_block(self, event: Event, now: Now) -> bool:
        """Whether the event has blocked its lane for as long as it may."""
        block_ends = self.block_ends(event)
        return block_ends is not None and block_ends <= now.wall


def _unordered(settings: ReceiverSettings | None) -> bool:
    return settings is not None and not settings.ordered_per_object
