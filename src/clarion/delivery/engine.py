"""The scheduler of a worker's shards: told what happened, it answers what to do. No I/O, no clock, no chance of its own.

Each receiver has lanes, one per object; only a lane's head is ever sent, and the next becomes head when the outcome of
the one before is durable. Heads that are due wait in their receiver's `ready` line; receivers that have some, and room,
take turns. What is not loaded yet is asked for when a receiver's window has room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from itertools import count
from typing import assert_never

from clarion.core.clock import Now, Random
from clarion.core.errors import InvariantBroken
from clarion.core.ids import shard_of
from clarion.delivery.event import TRANSITIONS, Event, Reason, State, Status
from clarion.delivery.lane import Lanes
from clarion.delivery.limit import RateLimit
from clarion.delivery.retry import next_wait_ms, own_fault_wait_ms, wait_with_retry_after_ms
from clarion.delivery.step import (
    Configured,
    Disable,
    Effect,
    Ending,
    Finished,
    Input,
    Loaded,
    LoadReceiver,
    ReceiverLoaded,
    ReceiverSettings,
    Send,
    SendingAllowed,
    Settle,
    Settled,
    ShardsClaimed,
    ShardsDraining,
    ShardsReleased,
    Ticked,
    Unsendable,
)
from clarion.sender.outcome import Attempt, Outcome

GONE_STATUS_CODE = 410


class _Receiver:
    """What the engine remembers of one receiver."""

    __slots__ = (
        "events",
        "in_flight",
        "lanes",
        "leaving",
        "limit",
        "loaded_upto",
        "loading",
        "overflowing",
        "queued",
        "ready",
        "settings",
    )

    def __init__(self, settings: ReceiverSettings | None) -> None:
        self.settings = settings
        self.limit: RateLimit | None = None
        self.events: dict[int, Event] = {}
        self.lanes = Lanes()
        self.ready: deque[Event] = deque()
        self.in_flight = 0
        self.queued = False
        self.loaded_upto = 0
        self.overflowing = False
        self.loading = False
        self.leaving = False

    def configure(self, settings: ReceiverSettings | None) -> None:
        """Take new settings; None: deleted."""
        old_rate = self.settings.rate_limit_per_second if self.settings else None
        self.settings = settings
        rate = settings.rate_limit_per_second if settings else None
        if rate is None:
            self.limit = None
        elif self.limit is None or rate != old_rate:
            self.limit = RateLimit(rate)

    def has_room(self) -> bool:
        """Whether a further request may be under way."""
        settings = self.settings
        return settings is not None and settings.active and not self.leaving and self.in_flight < settings.concurrency


class Engine:
    """All receivers of a worker. `window` bounds the events of one receiver in memory, `in_flight_max` all requests."""

    def __init__(self, random: Random, *, window: int = 500, in_flight_max: int = 512) -> None:
        self._random = random
        self._window = window
        self._in_flight_max = in_flight_max
        self._in_flight = 0
        self._receivers: dict[int, _Receiver] = {}
        self._settings: dict[int, ReceiverSettings] = {}
        self._subscriptions: dict[int, int | None] = {}
        self._turns: deque[_Receiver] = deque()
        self._timers: list[tuple[int, int, Event | _Receiver]] = []
        self._timer_numbers = count()
        self._sending_allowed = True
        self._left: set[int] = set()
        self._effects: list[Effect] = []

    # ------------------------------------------------------------ what can be seen from outside

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self._in_flight

    @property
    def loaded_count(self) -> int:
        """Events in memory."""
        return sum(len(receiver.events) for receiver in self._receivers.values())

    def wake_ns(self) -> int | None:
        """The monotonic time at which a tick is needed, if nothing else happens before."""
        return self._timers[0][0] if self._timers else None

    def overflowing(self) -> list[int]:
        """Receivers whose further rows are left in the table until their window has room."""
        return [receiver_id for receiver_id, receiver in self._receivers.items() if receiver.overflowing]

    def drained(self, shards: Collection[int]) -> bool:
        """Whether no request of these shards is under way and no outcome of theirs is still to be stored."""
        return not any(
            event.state in (State.IN_FLIGHT, State.SETTLING)
            for receiver_id, receiver in self._receivers.items()
            if shard_of(receiver_id) in shards
            for event in receiver.events.values()
        )

    # ------------------------------------------------------------ the one entry

    def handle(self, happened: Input, now: Now) -> list[Effect]:
        """What to do about it, in order. Raises InvariantBroken for what cannot have happened."""
        self._effects = []
        match happened:
            case Finished(event, attempt):
                self._finished(event, attempt, now)
            case Settled(settlements):
                for settlement in settlements:
                    self._settled(settlement, now)
            case Loaded(events):
                self._loaded(events, now)
            case ReceiverLoaded(receiver_id, events, exhausted):
                self._receiver_loaded(receiver_id, events, now, exhausted=exhausted)
            case Configured():
                self._configured(happened, now)
            case Unsendable(event, reason):
                self._release(event)
                self._settle(event, None, Ending(Status.FAILED, reason))
            case SendingAllowed(allowed):
                self._sending_allowed = allowed
            case ShardsClaimed(shards):
                self._left.difference_update(shards)
            case ShardsDraining(shards):
                self._shards_draining(shards)
            case ShardsReleased(shards):
                self._shards_released(shards)
            case Ticked():
                pass
            case _:
                assert_never(happened)
        self._ring(now)
        self._pick(now)
        return self._effects

    # ------------------------------------------------------------ inputs

    def _configured(self, configured: Configured, now: Now) -> None:
        self._settings = dict(configured.receivers)
        self._subscriptions = dict(configured.subscriptions)
        for receiver_id, receiver in self._receivers.items():
            receiver.configure(self._settings.get(receiver_id))
            for event in list(receiver.events.values()):
                self._cancel_if_deleted(receiver, event)
            for event in list(receiver.ready):
                self._consider(receiver, event, now)
            self._take_turn(receiver)

    def _loaded(self, events: Iterable[Event], now: Now) -> None:
        for event in events:
            if shard_of(event.receiver_id) in self._left:
                continue
            receiver = self._receiver(event.receiver_id)
            if receiver.overflowing or receiver.loading:
                continue
            if len(receiver.events) >= self._window:
                receiver.overflowing = True
                continue
            self._admit(receiver, event, now)

    def _receiver_loaded(self, receiver_id: int, events: Iterable[Event], now: Now, *, exhausted: bool) -> None:
        if shard_of(receiver_id) in self._left:
            return
        receiver = self._receiver(receiver_id)
        receiver.loading = False
        receiver.overflowing = not exhausted
        for event in events:
            self._admit(receiver, event, now)
        self._refill(receiver_id, receiver)

    def _finished(self, event: Event, attempt: Attempt, now: Now) -> None:
        receiver = self._release(event)
        event.attempts_count += 1
        if attempt.outcome is Outcome.SUCCEEDED:
            self._settle(event, attempt, Ending(Status.DELIVERED, Reason.SUCCEEDED))
            return
        event.first_failed_at = event.first_failed_at or now.wall
        settings = receiver.settings
        if settings is None:
            self._settle(event, attempt, Ending(Status.CANCELLED, Reason.RECEIVER_DELETED))
            return
        if event.subscription_id not in self._subscriptions:
            self._settle(event, attempt, Ending(Status.CANCELLED, Reason.SUBSCRIPTION_DELETED))
            return
        if attempt.status_code == GONE_STATUS_CODE and settings.active:
            self._effects.append(Disable(event.receiver_id, "GONE"))
        if attempt.ours:
            wait_ms: int | None = own_fault_wait_ms(event.attempts_count - event.spent_count, self._random)
        else:
            event.spent_count += 1
            wait_ms = next_wait_ms(event.spent_count, settings.retry_schedule_s, self._random)
        if wait_ms is None:
            self._settle(event, attempt, Ending(Status.FAILED, Reason.ATTEMPTS_EXHAUSTED))
            return
        wait_ms = wait_with_retry_after_ms(wait_ms, attempt.retry_after_s)
        event.due_at = now.wall + timedelta(milliseconds=wait_ms)
        self._settle(event, attempt, None)

    def _settled(self, settlement: Settle, now: Now) -> None:
        event = settlement.event
        receiver = self._receiver(event.receiver_id)
        if settlement.ending is None:
            self._move(event, State.WAITING)
            if not self._cancel_if_deleted(receiver, event):
                self._consider(receiver, event, now)
            return
        self._move(event, State.GONE)
        del receiver.events[event.queue_id]
        self._leave_lane(receiver, event, now)
        self._refill(event.receiver_id, receiver)

    # ------------------------------------------------------------ shards

    def _shards_draining(self, shards: Collection[int]) -> None:
        self._left.update(shards)
        for receiver_id, receiver in self._receivers.items():
            receiver.leaving = receiver.leaving or shard_of(receiver_id) in shards

    def _shards_released(self, shards: Collection[int]) -> None:
        if not self.drained(shards):
            raise InvariantBroken("shards were released while their requests were under way")
        self._left.update(shards)
        gone = [receiver_id for receiver_id in self._receivers if shard_of(receiver_id) in shards]
        forgotten = {id(self._receivers.pop(receiver_id)) for receiver_id in gone}
        self._turns = deque(receiver for receiver in self._turns if id(receiver) not in forgotten)
        # A timer left behind would bring its event, and with it the receiver, back to life.
        self._timers = [
            timer
            for timer in self._timers
            if (
                shard_of(timer[2].receiver_id) not in shards
                if isinstance(timer[2], Event)
                else id(timer[2]) not in forgotten
            )
        ]
        heapify(self._timers)

    # ------------------------------------------------------------ events and lanes

    def _receiver(self, receiver_id: int) -> _Receiver:
        receiver = self._receivers.get(receiver_id)
        if receiver is None:
            receiver = self._receivers[receiver_id] = _Receiver(None)
            receiver.configure(self._settings.get(receiver_id))
        return receiver

    def _admit(self, receiver: _Receiver, event: Event, now: Now) -> None:
        if event.queue_id <= receiver.loaded_upto:
            return
        receiver.loaded_upto = event.queue_id
        receiver.events[event.queue_id] = event
        if self._cancel_if_deleted(receiver, event):
            receiver.lanes.add(event.lane, event)
            return
        if receiver.settings is not None and not receiver.settings.ordered_per_object:
            event.lane = event.queue_id
        if self._past_block(receiver, event, now):
            event.overtaken = True
            self._consider(receiver, event, now)
        elif receiver.lanes.add(event.lane, event):
            self._consider(receiver, event, now)

    def _cancel_if_deleted(self, receiver: _Receiver, event: Event) -> bool:
        """End an event that nobody wants any more; whether it was one."""
        if receiver.leaving:  # its next owner does it
            return False
        if event.state not in (State.WAITING, State.READY):
            return False
        if receiver.settings is None:
            self._settle(event, None, Ending(Status.CANCELLED, Reason.RECEIVER_DELETED))
            return True
        if event.subscription_id not in self._subscriptions:
            self._settle(event, None, Ending(Status.CANCELLED, Reason.SUBSCRIPTION_DELETED))
            return True
        return False

    def _consider(self, receiver: _Receiver, event: Event, now: Now) -> None:
        """A head (or an overtaken event) that may have become due, expired or overtaken; else wake when it does."""
        if receiver.leaving:
            return
        if event.state not in (State.WAITING, State.READY):
            return
        expires_at = self._expires_at(event)
        if expires_at is not None and expires_at <= now.wall:
            self._settle(event, None, Ending(Status.EXPIRED, Reason.EXPIRED))
            return
        moments = [expires_at] if expires_at is not None else []
        if event.state is State.WAITING:
            if event.due_at is None or event.due_at <= now.wall:
                self._move(event, State.READY)
                receiver.ready.append(event)
                self._take_turn(receiver)
            else:
                moments.append(event.due_at)
                if not event.overtaken and self._past_block(receiver, event, now):
                    event.overtaken = True
                    self._leave_lane(receiver, event, now)
                elif (block_ends := self._block_ends(receiver, event)) is not None and not event.overtaken:
                    moments.append(block_ends)
        if moments:
            self._set_timer(event, min(moments), now)

    def _leave_lane(self, receiver: _Receiver, event: Event, now: Now) -> None:
        following = receiver.lanes.remove(event.lane, event)
        if following is not None:
            self._consider(receiver, following, now)

    def _expires_at(self, event: Event) -> datetime | None:
        seconds = self._subscriptions.get(event.subscription_id)
        return None if seconds is None else event.change.recorded_at + timedelta(seconds=seconds)

    def _block_ends(self, receiver: _Receiver, event: Event) -> datetime | None:
        """When a failing head stops blocking its lane; None: never."""
        settings = receiver.settings
        if settings is None or settings.lane_block_max_s is None or event.first_failed_at is None:
            return None
        return event.first_failed_at + timedelta(seconds=settings.lane_block_max_s)

    def _past_block(self, receiver: _Receiver, event: Event, now: Now) -> bool:
        block_ends = self._block_ends(receiver, event)
        return block_ends is not None and block_ends <= now.wall

    # ------------------------------------------------------------ sending

    def _take_turn(self, receiver: _Receiver) -> None:
        if not receiver.queued and receiver.ready and receiver.has_room():
            receiver.queued = True
            self._turns.append(receiver)

    def _pick(self, now: Now) -> None:
        """Send from one receiver after the other while there is room."""
        while self._turns and self._in_flight < self._in_flight_max and self._sending_allowed:
            receiver = self._turns.popleft()
            receiver.queued = False
            while receiver.ready and receiver.ready[0].state is not State.READY:
                receiver.ready.popleft()  # ended while it stood in line
            if not receiver.ready or not receiver.has_room():
                continue
            if receiver.limit is not None:
                if (wait_ns := receiver.limit.wait_ns(now.monotonic_ns)) > 0:
                    heappush(self._timers, (now.monotonic_ns + wait_ns, next(self._timer_numbers), receiver))
                    continue
                receiver.limit.take(now.monotonic_ns)
            event = receiver.ready.popleft()
            self._move(event, State.IN_FLIGHT)
            receiver.in_flight += 1
            self._in_flight += 1
            self._effects.append(Send(event, event.attempts_count + 1))
            self._take_turn(receiver)

    def _release(self, event: Event) -> _Receiver:
        receiver = self._receiver(event.receiver_id)
        if event.state is not State.IN_FLIGHT:
            raise InvariantBroken(f"event {event.event_id} finished while {event.state.name}")
        receiver.in_flight -= 1
        self._in_flight -= 1
        self._take_turn(receiver)
        return receiver

    def _settle(self, event: Event, attempt: Attempt | None, ending: Ending | None) -> None:
        self._move(event, State.SETTLING)
        self._effects.append(Settle(event, attempt, ending, None if ending else event.due_at))

    def _refill(self, receiver_id: int, receiver: _Receiver) -> None:
        room = self._window - len(receiver.events)
        if receiver.overflowing and not receiver.loading and not receiver.leaving and room * 2 >= self._window:
            receiver.loading = True
            self._effects.append(LoadReceiver(receiver_id, receiver.loaded_upto, room))

    # ------------------------------------------------------------ time

    def _set_timer(self, event: Event, moment: datetime, now: Now) -> None:
        wait_ns = max(0, (moment - now.wall) // timedelta(microseconds=1)) * 1000 + 1_000_000
        heappush(self._timers, (now.monotonic_ns + wait_ns, next(self._timer_numbers), event))

    def _ring(self, now: Now) -> None:
        while self._timers and self._timers[0][0] <= now.monotonic_ns:
            _, _, waiting = heappop(self._timers)
            if isinstance(waiting, Event):
                self._consider(self._receiver(waiting.receiver_id), waiting, now)
            else:
                self._take_turn(waiting)

    def _move(self, event: Event, to: State) -> None:
        if (event.state, to) not in TRANSITIONS:
            raise InvariantBroken(f"event {event.event_id} cannot go from {event.state.name} to {to.name}")
        event.state = to
