"""A receiver as the engine remembers it: what is loaded, under way and waiting, and how it fares. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Mapping
from datetime import datetime, timedelta

from clarion.core.clock import Now, Random
from clarion.delivery.breaker import Breaker
from clarion.delivery.event import Event, Reason, State
from clarion.delivery.health import Health
from clarion.delivery.lane import Lanes
from clarion.delivery.limit import RateLimit
from clarion.delivery.retry import RETRY_AFTER_S_MAX
from clarion.delivery.room import Pace
from clarion.delivery.step import ReceiverSettings
from clarion.sender.outcome import Attempt, Outcome

HOLD_MAX = timedelta(days=30)
"""How long an event is held for a receiver that is not active; capture/doctor.sql warns a week before."""
_UNDER_WAY = (State.IN_FLIGHT, State.SETTLING)


class Receiver:
    """What the engine remembers of one receiver. `unordered`: no event waits for others of its object. `stale`: all that is
    not under way is to be read anew, once the answers to the reads that are under way have come and were ignored.
    """

    __slots__ = (
        "blocked",
        "breaker",
        "ended_ahead",
        "events",
        "health",
        "hurried_ahead",
        "in_flight",
        "kept",
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
        "stale",
        "unordered",
        "wakes_ns",
    )

    def __init__(self, receiver_id: int, settings: ReceiverSettings | None, random: Random) -> None:
        self.receiver_id = receiver_id
        self.settings: ReceiverSettings | None = None
        self.unordered = _unordered(settings)
        self.breaker = Breaker(random)
        self.health = Health()
        self.probe: Event | None = None
        self.quiet_until_ns = 0
        self.wakes_ns: int | None = None
        self.limit: RateLimit | None = None
        self.events: dict[int, Event] = {}
        self.lanes = Lanes()
        self.kept: set[int] = set()  # under way as the others were forgotten: not to be taken in once more
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
        self.stale = False
        self.leaving = False
        self.configure(settings)

    def unwanted(self, event: Event, subscriptions: Container[int]) -> Reason | None:
        """Why the event is not to be sent any more; `subscriptions` are the live ones."""
        settings = self.settings
        if settings is None:
            return Reason.RECEIVER_DELETED
        if event.subscription_id not in subscriptions:
            return Reason.SUBSCRIPTION_DELETED
        return None if settings.may_be_sent(event) else Reason.RIGHT_REVOKED

    def configure(self, settings: ReceiverSettings | None) -> bool:
        """Take new settings; None: deleted. Whether heads that wait have another time now at which something happens to them."""
        old = self.settings
        old_rate = old.rate_limit_per_second if old else None
        if old is not None and not old.active and settings is not None and settings.active:
            # Whoever puts a receiver back into service says that it is well again: that ends all waiting, but not care.
            self.quiet_until_ns = 0
            self.breaker.close_slowly()
            self.health.clear()
        self.settings = settings
        rate = settings.rate_limit_per_second if settings else None
        if rate is None:
            self.limit = None
        elif self.limit is None or rate != old_rate:
            self.limit = RateLimit(rate)
        return _ends_waiting(old) != _ends_waiting(settings)

    def learn(self, attempt: Attempt, now: Now, *, probe: bool) -> bool:
        """What an outcome means for the other events; whether there is something of it that is not stored."""
        if probe:
            self.breaker.probed(attempt, now.monotonic_ns)
        else:
            self.breaker.finished(attempt, now.monotonic_ns)
        if attempt.retry_after_s is not None and attempt.outcome is not Outcome.SUCCEEDED:
            quiet_s = min(attempt.retry_after_s, RETRY_AFTER_S_MAX)
            self.quiet_until_ns = max(self.quiet_until_ns, now.monotonic_ns + quiet_s * 1_000_000_000)
        return self.health.finished(attempt, now)

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
        return any(event.state in _UNDER_WAY for event in events)

    def is_being_read(self) -> bool:
        """Whether rows were asked for that have not come yet."""
        return self.loading or any(rest.loading_upto is not None for rest in self.lanes.rests.values())

    def is_stalled(self) -> bool:
        """Whether it is not sent to now, except for probes."""
        settings = self.settings
        return settings is not None and (not settings.active or self.breaker.is_open)

    def is_reordered(self) -> bool:
        """Whether order was switched on or off since the rows in memory were taken in."""
        return self.unordered is not _unordered(self.settings)

    def forgettable(self) -> int:
        """How many events `forget` would let go, apart from heads that wait for their next attempt."""
        return sum(event.state not in _UNDER_WAY for event in self.events.values()) - len(self.blocked)

    def forget(self) -> None:
        """Forget all but what is under way or being stored: the rows are read anew, from the first. None may be being read."""
        self.stale = False
        self.unordered = _unordered(self.settings)
        under_way = {queue_id: event for queue_id, event in self.events.items() if event.state in _UNDER_WAY}
        for queue_id, event in self.events.items():
            if event.hurried_by and queue_id not in under_way:
                self.hurried_ahead[queue_id] = list(event.hurried_by)
        self.events = under_way
        self.kept = set(under_way)
        self.lanes = Lanes()
        for _, event in sorted(under_way.items()):
            if not event.overtaken:
                self.lanes.add(event.lane, event)
        self.blocked.clear()
        self.ready.clear()
        self.loaded_upto = 0
        self.overflowing = True

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

    def expiry(self, event: Event, subscriptions: Mapping[int, int | None]) -> tuple[datetime, Reason] | None:
        """When the event ends unsent, and why: by its subscription's seconds, or because it is held; None: it does not."""
        seconds, settings = subscriptions.get(event.subscription_id), self.settings
        since = settings.inactive_since if settings is not None else None
        if seconds is None and since is None:
            return None
        if event.round > 0:  # somebody asked for it, however old it is
            return None
        recorded_at = event.change.recorded_at
        ends = None if seconds is None else (recorded_at + timedelta(seconds=seconds), Reason.EXPIRED)
        if since is not None:
            hold_ends = max(since, recorded_at) + HOLD_MAX
            if ends is None or hold_ends < ends[0]:
                return hold_ends, Reason.HELD_TOO_LONG
        return ends

    def past_block(self, event: Event, now: Now) -> bool:
        """Whether the event has blocked its lane for as long as it may."""
        block_ends = self.block_ends(event)
        return block_ends is not None and block_ends <= now.wall


def _unordered(settings: ReceiverSettings | None) -> bool:
    return settings is not None and not settings.ordered_per_object


def _ends_waiting(settings: ReceiverSettings | None) -> tuple[int | None, datetime | None]:
    return (settings.lane_block_max_s, settings.inactive_since) if settings is not None else (None, None)
