"""The scheduler of a worker's shards: told what happened, it answers what to do. No I/O, no clock, no chance of its own.

Each receiver has lanes, one per object; only a lane's head is ever sent, and the next becomes head when the outcome of the
one before is durable. What stands behind a head that has to wait is left in the table, and such a head takes no room of its
receiver's window: other objects go on. Heads that are due wait in their receiver's `ready` line; receivers that have some, and
room, take turns. What is not loaded yet is asked for when a receiver's window has room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import assert_never

from clarion.core.clock import Now, Random
from clarion.core.errors import InvariantBroken
from clarion.core.ids import shard_of
from clarion.delivery.breaker import FAILURES_IN_A_ROW
from clarion.delivery.event import TRANSITIONS, Event, Reason, State, Status
from clarion.delivery.health import Failing, Health
from clarion.delivery.memory import Memory
from clarion.delivery.receiver import Receiver
from clarion.delivery.retry import after_failure
from clarion.delivery.room import Room
from clarion.delivery.step import (
    Command,
    Commanded,
    CommandKind,
    Configured,
    Disable,
    Effect,
    Ending,
    Finished,
    Input,
    LaneLoaded,
    Loaded,
    LoadLane,
    LoadReceiver,
    Obeyed,
    ReceiverLoaded,
    ReceiverSettings,
    Remember,
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
from clarion.delivery.timers import Timers
from clarion.sender.outcome import Attempt, Outcome

GONE_STATUS_CODE = 410
_DELIVERED = Ending(Status.DELIVERED, Reason.SUCCEEDED)
# To ask an Enum for its member takes longer than what is done with it here, several times for each delivery.
_WAITING, _READY, _IN_FLIGHT, _SETTLING, _GONE = State
_SUCCEEDED = Outcome.SUCCEEDED


class Engine:
    """All receivers of a worker. `in_flight_max` bounds all requests under way, `window` the events of one receiver in
    memory, apart from heads that wait for their next attempt, `loaded_max` those of all before windows shrink,
    `unstored_max` the outcomes that are not stored yet: while the database is away they would all be sent again.
    """

    def __init__(
        self,
        random: Random,
        *,
        window: int = 500,
        in_flight_max: int = 512,
        loaded_max: int = 50_000,
        unstored_max: int = 2_000,
    ) -> None:
        self._random = random
        self._memory = Memory(window, loaded_max)
        self._lane_kept_max = max(2, window // 16)
        self._room = Room(in_flight_max)
        self._receivers: dict[int, Receiver] = {}
        self._settings: dict[int, ReceiverSettings] = {}
        self._subscriptions: dict[int, int | None] = {}
        self._turns: deque[Receiver] = deque()
        self._held_back: dict[Receiver, None] = {}
        self._timers = Timers()
        self._sending_allowed = True
        self._unstored_max = unstored_max
        self._unstored = 0
        self._left: set[int] = set()
        self._effects: list[Effect] = []

    # ------------------------------------------------------------ what can be seen from outside

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self._room.in_flight

    @property
    def loaded_count(self) -> int:
        """Events in memory."""
        return sum(len(receiver.events) for receiver in self._receivers.values())

    def wake_ns(self) -> int | None:
        """The monotonic time at which a tick is needed, if nothing else happens before."""
        return self._timers.next_ns()

    def holds_up(self, event: Event) -> bool:
        """Whether another event of its lane waits until this one's outcome is stored."""
        return self._receiver(event.receiver_id).lanes.is_followed(event.lane)

    def overflowing(self) -> list[int]:
        """Receivers whose further rows are left in the table until their window has room."""
        return [receiver_id for receiver_id, receiver in self._receivers.items() if receiver.overflowing]

    def drained(self, shards: Collection[int]) -> set[int]:
        """Those of the shards of which no request is under way and no outcome is still to be stored."""
        engaged = {
            shard_of(receiver_id)
            for receiver_id, receiver in self._receivers.items()
            if shard_of(receiver_id) in shards and receiver.is_engaged()
        }
        return set(shards) - engaged

    # ------------------------------------------------------------ the one entry

    def handle(self, happened: Input, now: Now) -> list[Effect]:
        """What to do about it, in order. Raises InvariantBroken for what cannot have happened."""
        self._effects = []
        match happened:
            case Finished():  # nearly all; to take it apart here would cost as much again
                self._finished(happened.event, happened.attempt, now)
            case Settled(settlements):
                for settlement in settlements:
                    self._settled(settlement, now)
            case Loaded(events):
                self._loaded(events, now)
            case ReceiverLoaded(receiver_id, events, exhausted):
                self._receiver_loaded(receiver_id, events, now, exhausted=exhausted)
            case LaneLoaded():
                self._lane_loaded(happened, now)
            case Configured():
                self._configured(happened, now)
            case Unsendable(event, reason):
                receiver = self._release(event, None)
                self._take_turn(receiver)
                self._settle(receiver, event, None, Ending(Status.FAILED, reason))
            case Commanded(commands):
                for command in commands:
                    self._commanded(command, now)
            case SendingAllowed(allowed):
                self._sending_allowed = allowed
                if not allowed:
                    self._remember_all(now)
            case ShardsClaimed(shards, failing):
                self._shards_claimed(shards, failing, now)
            case ShardsDraining(shards):
                self._shards_draining(shards, now)
            case ShardsReleased(shards):
                self._shards_released(shards)
            case Ticked():
                pass
            case _:
                assert_never(happened)
        if self._timers.any_due(now.monotonic_ns):
            self._ring(now)
        self._pick(now)
        return self._effects

    # ------------------------------------------------------------ inputs

    def _configured(self, configured: Configured, now: Now) -> None:
        expiries = self._subscriptions
        self._settings = dict(configured.receivers)
        self._subscriptions = dict(configured.subscriptions)
        self._memory.weigh(self._receivers.values())
        for receiver_id, receiver in self._receivers.items():
            moved = receiver.configure(self._settings.get(receiver_id))
            self._remember(receiver, now)
            if receiver.is_reordered():
                self._read_anew(receiver)
            for event in list(receiver.events.values()):
                self._cancel_if_unwanted(receiver, event)
            for event in (*receiver.ready, *(receiver.events[queue_id] for queue_id in tuple(receiver.blocked))):
                expiry_moved = expiries.get(event.subscription_id) != self._subscriptions.get(event.subscription_id)
                if event.state is _READY or moved or expiry_moved:
                    self._consider(receiver, event, now)
            self._take_turn(receiver)
            self._refill(receiver)

    def _loaded(self, events: Collection[Event], now: Now) -> None:
        self._memory.moved(len(events), self._receivers.values())
        for event in events:
            if shard_of(event.receiver_id) in self._left:
                continue
            receiver = self._receiver(event.receiver_id)
            if receiver.overflowing or receiver.loading or receiver.stale:
                continue
            if self._memory.room_of(receiver) <= 0:
                receiver.overflowing = True
                continue
            self._admit(receiver, event, now)

    def _receiver_loaded(self, receiver_id: int, events: Collection[Event], now: Now, *, exhausted: bool) -> None:
        if shard_of(receiver_id) in self._left:
            return
        self._memory.moved(len(events), self._receivers.values())
        receiver = self._receiver(receiver_id)
        receiver.loading = False
        if receiver.stale:
            self._read_anew(receiver)
            return
        receiver.overflowing = not exhausted
        for event in events:
            self._admit(receiver, event, now)
        self._refill(receiver)

    def _lane_loaded(self, loaded: LaneLoaded, now: Now) -> None:
        """Take the next events of a lane, and note whether that was all of its rest."""
        if shard_of(loaded.receiver_id) in self._left:
            return
        receiver = self._receiver(loaded.receiver_id)
        rests = receiver.lanes.rests
        rest = rests.get(loaded.lane)
        if rest is None or rest.loading_upto is None:
            raise InvariantBroken(f"lane {loaded.lane} of receiver {loaded.receiver_id} was loaded unasked")
        upto, rest.loading_upto = rest.loading_upto, None
        if receiver.stale:
            self._read_anew(receiver)
            return
        if not loaded.exhausted:
            rest.after_queue_id = loaded.events[-1].queue_id
        elif rest.seen_upto > upto:
            rest.after_queue_id = upto  # more came while these were read
        else:
            del rests[loaded.lane]
        for event in loaded.events:
            if event.queue_id not in receiver.kept:
                self._keep(receiver, event, now)
        head = receiver.lanes.head(loaded.lane)
        if head is None:
            self._load_rest(receiver, loaded.lane)
        elif head.queue_id in receiver.blocked:
            self._cut(receiver, head)
        self._refill(receiver)

    def _finished(self, event: Event, attempt: Attempt, now: Now) -> None:
        probe = self._receiver(event.receiver_id).probe is event
        receiver = self._release(event, None if attempt.ours else attempt.duration_ms)
        event.attempts_count += 1
        if receiver.learn(attempt, now, probe=probe):
            self._remember(receiver, now)
        self._take_turn(receiver)
        if attempt.outcome is _SUCCEEDED:
            self._settle(receiver, event, attempt, _DELIVERED)
            return
        unwanted = Reason.CANCELLED_BY_REQUEST if event.cancelled_by else receiver.unwanted(event, self._subscriptions)
        if unwanted is not None:
            self._settle(receiver, event, attempt, Ending(Status.CANCELLED, unwanted))
            return
        settings = receiver.settings
        assert settings is not None
        if attempt.status_code == GONE_STATUS_CODE and settings.active:
            self._effects.append(Disable(event.receiver_id, "GONE"))
        elif settings.active and receiver.health.give_up(now):
            self._effects.append(Disable(event.receiver_id, "NO_SUCCESS"))
        ending = after_failure(event, attempt, settings.retry_schedule_s, self._random, now, probe=probe)
        self._settle(receiver, event, attempt, ending)

    def _settled(self, settlement: Settle, now: Now) -> None:
        self._unstored -= 1
        event = settlement.event
        receiver = self._receiver(event.receiver_id)
        if settlement.command_ids:
            event.cancelled_by = tuple(one for one in event.cancelled_by if one not in settlement.command_ids)
            event.hurried_by = tuple(one for one in event.hurried_by if one not in settlement.command_ids)
        if settlement.ending is None:
            self._move(event, _WAITING)
            if event.cancelled_by and not receiver.leaving:
                self._settle(receiver, event, None, Ending(Status.CANCELLED, Reason.CANCELLED_BY_REQUEST))
            elif not self._cancel_if_unwanted(receiver, event):
                self._hurry(receiver, event, now)
                self._consider(receiver, event, now)
                self._refill(receiver)
            return
        self._move(event, _GONE)
        if event.hurried_by or event.cancelled_by:
            # Orders that came while its end was being stored.
            self._effects.append(Obeyed(event.hurried_by + event.cancelled_by))
        receiver.events.pop(event.queue_id, None)  # not there if it was ended before it was loaded
        self._leave_lane(receiver, event, now)
        self._refill(receiver)

    def _commanded(self, command: Command, now: Now) -> None:
        row = command.event
        if row is None:
            self._effects.append(Obeyed((command.command_id,)))
            return
        if shard_of(row.receiver_id) in self._left:
            return  # its next owner does it
        receiver = self._receiver(row.receiver_id)
        event = receiver.events.get(row.queue_id)
        if event is None and (row.queue_id in receiver.ended_ahead or not receiver.is_ahead(row.queue_id, row.lane)):
            # Ended already, or its end was stored after the row was read.
            self._effects.append(Obeyed((command.command_id,)))
            return
        match command.kind:
            case CommandKind.CANCEL:
                self._cancel(receiver, command.command_id, event or receiver.end_ahead(row))
            case CommandKind.RETRY_NOW if event is None:
                # Not loaded yet: the order stands in its table until then.
                receiver.hurried_ahead.setdefault(row.queue_id, []).append(command.command_id)
            case CommandKind.RETRY_NOW:
                event.hurried_by += (command.command_id,)
                self._hurry(receiver, event, now)
            case _:
                assert_never(command.kind)

    def _cancel(self, receiver: Receiver, command_id: int, event: Event) -> None:
        event.cancelled_by += (command_id,)
        if event.state in (_WAITING, _READY):
            self._settle(receiver, event, None, Ending(Status.CANCELLED, Reason.CANCELLED_BY_REQUEST))

    def _hurry(self, receiver: Receiver, event: Event, now: Now) -> None:
        """Make a waiting event due that somebody wants tried at once; one that is under way is being tried."""
        if event.hurried_by and event.state is _WAITING and event.due_at is not None:
            event.due_at = min(event.due_at, now.wall)
            if event.overtaken or receiver.lanes.is_head(event.lane, event):
                self._consider(receiver, event, now)

    # ------------------------------------------------------------ shards

    def _shards_claimed(self, shards: Collection[int], failing: Mapping[int, Failing], now: Now) -> None:
        self._left.difference_update(shards)
        for receiver_id, stored in failing.items():
            if receiver_id not in self._receivers:  # what is known of one is newer
                receiver = self._receiver(receiver_id)
                receiver.health = Health(stored)
                if stored.count >= FAILURES_IN_A_ROW:
                    receiver.breaker.open_for_probe(now.monotonic_ns)

    def _shards_draining(self, shards: Collection[int], now: Now) -> None:
        self._left.update(shards)
        for receiver_id, receiver in self._receivers.items():
            receiver.leaving = receiver.leaving or shard_of(receiver_id) in shards
        self._remember_all(now)

    def _shards_released(self, shards: Collection[int]) -> None:
        if self.drained(shards) != set(shards):
            raise InvariantBroken("shards were released while their requests were under way")
        self._left.update(shards)
        self._receivers = {
            receiver_id: receiver
            for receiver_id, receiver in self._receivers.items()
            if shard_of(receiver_id) not in shards
        }
        self._turns = deque(receiver for receiver in self._turns if shard_of(receiver.receiver_id) not in shards)
        self._held_back = {one: None for one in self._held_back if shard_of(one.receiver_id) not in shards}
        # A timer left behind, an event's or a receiver's, would bring the receiver back to life.
        self._timers.keep(lambda waiting: shard_of(waiting.receiver_id) not in shards)

    # ------------------------------------------------------------ events and lanes

    def _receiver(self, receiver_id: int) -> Receiver:
        receiver = self._receivers.get(receiver_id)
        if receiver is None:
            receiver = Receiver(receiver_id, self._settings.get(receiver_id), self._random)
            self._receivers[receiver_id] = receiver
        return receiver

    def _admit(self, receiver: Receiver, event: Event, now: Now) -> None:
        if event.queue_id <= receiver.loaded_upto:
            return
        receiver.loaded_upto = event.queue_id
        if event.queue_id in receiver.kept:
            return
        if not receiver.unordered and receiver.lanes.knows(event.lane) and not receiver.past_block(event, now):
            head = receiver.lanes.head(event.lane)
            kept_max = 1 if head is not None and head.queue_id in receiver.blocked else self._lane_kept_max
            if receiver.lanes.leave(event.lane, event, kept_max=kept_max):
                return
        self._keep(receiver, event, now)

    def _keep(self, receiver: Receiver, event: Event, now: Now) -> None:
        if receiver.ended_ahead and (ended := receiver.ended_ahead.pop(event.queue_id, None)) is not None:
            if ended.state is not State.GONE:
                # In its place until its end is stored: what follows in its lane waits for that too.
                receiver.events[ended.queue_id] = ended
                receiver.lanes.add(ended.lane, ended)
            return
        receiver.events[event.queue_id] = event
        if receiver.hurried_ahead and (hurried_by := receiver.hurried_ahead.pop(event.queue_id, None)):
            event.hurried_by = tuple(hurried_by)
            event.due_at = None
        if self._cancel_if_unwanted(receiver, event):
            receiver.lanes.add(event.lane, event)
            return
        if receiver.unordered:
            event.lane = event.queue_id
        if event.first_failed_at is not None and receiver.past_block(event, now):
            event.overtaken = True
            self._consider(receiver, event, now)
        elif receiver.lanes.add(event.lane, event):
            self._consider(receiver, event, now)

    def _cancel_if_unwanted(self, receiver: Receiver, event: Event) -> bool:
        """End an event that nobody wants any more; whether it was one."""
        unwanted = receiver.unwanted(event, self._subscriptions)
        if unwanted is None or receiver.leaving or event.state not in (_WAITING, _READY):
            return False  # leaving: its next owner does it
        self._settle(receiver, event, None, Ending(Status.CANCELLED, unwanted))
        return True

    def _consider(self, receiver: Receiver, event: Event, now: Now) -> None:
        """A head (or an overtaken event) that may have become due, expired or overtaken; else wake when it does."""
        state = event.state
        if receiver.leaving or (state is not _WAITING and state is not _READY):
            return
        moments: tuple[datetime, ...] = ()
        if (expiry := receiver.expiry(event, self._subscriptions)) is not None:
            if expiry[0] <= now.wall:
                self._settle(receiver, event, None, Ending(Status.EXPIRED, expiry[1]))
                return
            moments = (expiry[0],)
        if state is _WAITING:
            if event.due_at is None or event.due_at <= now.wall:
                self._move(event, _READY)
                receiver.blocked.discard(event.queue_id)
                receiver.ready.append(event)
                self._take_turn(receiver)
            else:
                moments += (event.due_at,)
                receiver.blocked.add(event.queue_id)
                if not event.overtaken and receiver.past_block(event, now):
                    event.overtaken = True
                    self._leave_lane(receiver, event, now)
                elif (block_ends := receiver.block_ends(event)) is not None and not event.overtaken:
                    moments += (block_ends,)
                if not event.overtaken:
                    self._cut(receiver, event)
        if moments:
            self._set_timer(event, min(moments), now)

    def _leave_lane(self, receiver: Receiver, event: Event, now: Now) -> None:
        if (following := receiver.lanes.remove(event.lane, event)) is not None:
            self._consider(receiver, following, now)
        elif receiver.lanes.rests and receiver.lanes.head(event.lane) is None:
            self._load_rest(receiver, event.lane)

    def _cut(self, receiver: Receiver, head: Event) -> None:
        """Leave what follows a waiting head in the table."""
        if receiver.lanes.is_head(head.lane, head):
            for event in receiver.lanes.cut(head.lane):
                del receiver.events[event.queue_id]
                if event.hurried_by:
                    receiver.hurried_ahead[event.queue_id] = list(event.hurried_by)

    def _load_rest(self, receiver: Receiver, lane: int) -> None:
        """Ask for the next events of a lane that has none in memory but a rest in the table.

        Only up to where the receiver's own reading has come: what lies beyond it comes from there.
        """
        rest = receiver.lanes.rests.get(lane)
        if rest is not None and rest.loading_upto is None and not receiver.stale:
            rest.loading_upto = receiver.loaded_upto
            self._effects.append(
                LoadLane(receiver.receiver_id, lane, rest.after_queue_id, rest.loading_upto, self._lane_kept_max)
            )

    # ------------------------------------------------------------ sending

    def _take_turn(self, receiver: Receiver) -> None:
        if not receiver.queued and receiver.ready and receiver.has_room():
            receiver.queued = True
            self._turns.append(receiver)

    def _pick(self, now: Now) -> None:
        """Send from one receiver after the other while there is room."""
        now_ns = now.monotonic_ns
        room = self._room
        room.look(now_ns)
        if not self._sending_allowed or self._unstored >= self._unstored_max:
            return
        while (self._turns or self._held_back) and not room.full and (receiver := self._next()) is not None:
            if not room.admits(receiver.pace):
                self._held_back[receiver] = None
                continue
            receiver.queued = False
            ready = receiver.ready
            while ready and ready[0].state is not _READY:
                ready.popleft()  # ended while it stood in line
            if not ready or not receiver.has_room():
                continue
            wait_ns = receiver.wait_ns(now_ns)
            if wait_ns > 0:
                self._wake_receiver(receiver, now_ns + wait_ns)
                continue
            if receiver.limit is not None:
                receiver.limit.take(now_ns)
            event = ready.popleft()
            self._move(event, _IN_FLIGHT)
            if receiver.breaker.is_open:
                receiver.probe = event
            receiver.in_flight += 1
            room.sent(receiver.pace, event.queue_id, now_ns)
            self._effects.append(Send(event, event.attempts_count + 1))
            self._take_turn(receiver)

    def _next(self) -> Receiver | None:
        """Whose turn it is: first of those that were held back, if there is room for it now."""
        if self._held_back and self._room.admits((held := next(iter(self._held_back))).pace):
            del self._held_back[held]
            return held
        return self._turns.popleft() if self._turns else None

    def _release(self, event: Event, duration_ms: int | None) -> Receiver:
        receiver = self._receiver(event.receiver_id)
        if event.state is not _IN_FLIGHT:
            raise InvariantBroken(f"event {event.event_id} finished while {event.state.name}")
        receiver.in_flight -= 1
        self._room.ended(receiver.pace, event.queue_id, duration_ms)
        if self._held_back and receiver in self._held_back:  # it may have shown that it is not slow
            del self._held_back[receiver]
            receiver.queued = False
        if receiver.probe is event:
            receiver.probe = None
        return receiver

    def _settle(self, receiver: Receiver, event: Event, attempt: Attempt | None, ending: Ending | None) -> None:
        self._move(event, _SETTLING)
        self._unstored += 1
        receiver.blocked.discard(event.queue_id)
        command_ids = event.hurried_by + event.cancelled_by if ending is not None else event.hurried_by
        due_at = event.due_at if ending is None else None
        self._effects.append(Settle(event, attempt, ending, due_at, command_ids))

    def _remember(self, receiver: Receiver, now: Now) -> None:
        """Have stored what is due, and all that is known of a receiver that may be another worker's next."""
        health = receiver.health
        if health.due(now) or (health.untold and (receiver.leaving or not self._sending_allowed)):
            self._effects.append(Remember(receiver.receiver_id, health.tell(now)))

    def _remember_all(self, now: Now) -> None:
        for receiver in self._receivers.values():
            self._remember(receiver, now)

    # ------------------------------------------------------------ memory

    def _refill(self, receiver: Receiver) -> None:
        """Ask for more where a good part of the window is free; give up what is in memory for nothing."""
        stalled = receiver.is_stalled()
        if not stalled and (receiver.loading or not receiver.overflowing):
            return  # nearly always
        if receiver.stale or receiver.leaving:
            return
        window, room = self._memory.window_of(receiver), self._memory.room_of(receiver)
        if room < -window and stalled and receiver.forgettable() > window:
            self._read_anew(receiver)
        elif receiver.overflowing and not receiver.loading and room * 2 >= window:
            receiver.loading = True
            self._effects.append(LoadReceiver(receiver.receiver_id, receiver.loaded_upto, room))

    def _read_anew(self, receiver: Receiver) -> None:
        """Forget what is not under way and read it again: less of it, or in another order. After the reads under way."""
        receiver.stale = True
        if not receiver.leaving and not receiver.is_being_read():
            self._memory.moved(len(receiver.events), self._receivers.values())
            receiver.forget()
            self._refill(receiver)

    # ------------------------------------------------------------ time

    def _set_timer(self, event: Event, moment: datetime, now: Now) -> None:
        wait_ns = max(0, (moment - now.wall) // timedelta(microseconds=1)) * 1000 + 1_000_000
        self._timers.set(now.monotonic_ns + wait_ns, event)

    def _ring(self, now: Now) -> None:
        for waiting in self._timers.due(now.monotonic_ns):
            if isinstance(waiting, Event):
                receiver = self._receivers.get(waiting.receiver_id)
                if receiver is not None and receiver.events.get(waiting.queue_id) is waiting:  # not forgotten meanwhile
                    self._consider(receiver, waiting, now)
            elif waiting.wakes_ns is not None and waiting.wakes_ns <= now.monotonic_ns:
                waiting.wakes_ns = None
                self._take_turn(waiting)

    def _wake_receiver(self, receiver: Receiver, at_ns: int) -> None:
        """One timer at a time: a receiver may be asked again and again while it waits, for hours."""
        if receiver.wakes_ns is None or at_ns < receiver.wakes_ns:
            receiver.wakes_ns = at_ns
            self._timers.set(at_ns, receiver)

    def _move(self, event: Event, to: State) -> None:
        if to not in TRANSITIONS[event.state]:
            raise InvariantBroken(f"event {event.event_id} cannot go from {event.state.name} to {to.name}")
        event.state = to
