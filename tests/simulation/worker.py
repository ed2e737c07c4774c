"""The worker's loop as the real one runs it, with a model of its sessions: the same order of reads, settles and hand-overs.

Each loop is a generator that yields the seconds until it goes on, or None until it is woken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING

from clarion.core.errors import Fenced
from clarion.core.ids import SHARDS_COUNT, shard_of
from clarion.delivery.event import Event, Reason
from clarion.delivery.health import Failing
from clarion.delivery.share import next_move
from clarion.delivery.step import (
    Commanded,
    Configured,
    Disable,
    Finished,
    Input,
    LaneLoaded,
    Loaded,
    LoadLane,
    LoadReceiver,
    Obeyed,
    ReceiverLoaded,
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
from clarion.delivery.tail import Tail
from simulation.model_queue import ModelQueue

if TYPE_CHECKING:
    from simulation.world import World

Loop = Generator[float | None, None, None]
SHARE_EVERY_S = 0.2


class Chance:
    """A seeded Random for the engine."""

    def __init__(self, world: World) -> None:
        self._dice = world.engine_dice

    def uniform(self, low: float, high: float) -> float:
        return self._dice.uniform(low, high)

    def token(self, bytes_count: int) -> bytes:
        return self._dice.randbytes(bytes_count)


class Running:
    """A loop under way; stopping it drops what it was waiting for."""

    def __init__(self, world: World, loop: Loop) -> None:
        self._world = world
        self._loop = loop
        self._token = 0
        self._idle = False
        self._woken = False
        world.after(0, lambda: self._go_on(0))

    def wake(self) -> None:
        self._woken = True
        if self._idle:
            self._schedule(0)

    def stop(self) -> None:
        self._token = -1

    def _schedule(self, wait_s: float) -> None:
        self._idle = False
        self._token += 1
        token = self._token
        self._world.after(wait_s, lambda: self._go_on(token))

    def _go_on(self, token: int) -> None:
        if token != self._token:
            return
        wait_s = next(self._loop, None)
        if self._token == -1:
            return
        if wait_s is not None:
            self._schedule(wait_s)
        elif self._woken:
            self._woken = False
            self._schedule(0)
        else:
            self._idle = True


class ModelWorker:
    """One process. `alive` until it crashes or learns that it was fenced out."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.worker_id = world.tables.join()
        self.engine = world.engine_class(
            Chance(world),
            window=world.scenario.window,
            in_flight_max=world.scenario.in_flight_max,
            loaded_max=world.scenario.loaded_max,
            unstored_max=world.scenario.unstored_max,
        )
        self.shards: set[int] = set()
        self.alive = True
        self.has_session = False
        self.pending: list[Settle] = []
        self._finished: list[Finished] = []
        self.settling: list[Settle] = []
        self._leaving: set[int] = set()
        self._tail = Tail()
        self._version = 0
        self._wanted: deque[LoadReceiver | LoadLane] = deque()
        self._disabled: list[Disable] = []
        self._commands_wait = True
        self._commands_taken: set[int] = set()
        self._obeyed: list[int] = []
        self._outcome_under_way = False
        self._loops: list[Running] = []
        self._tick_ns: int | None = None
        self.apply(ShardsReleased(range(SHARDS_COUNT)))

    @property
    def idle(self) -> bool:
        return not (self.engine.in_flight or self.pending or self.settling)

    # ------------------------------------------------------------ its life

    def open_session(self) -> None:
        """What `Worker.run` does before it starts its loops."""
        if not self.alive or self.has_session:
            return
        tables = self._world.tables
        try:
            queue = ModelQueue(tables, self.worker_id, tables.rejoin(self.worker_id))
        except Fenced:
            self.discard()
            return
        self.has_session = True
        self._outcome_under_way = False
        self._configure()
        owned = {shard for shard, owner in tables.shards.items() if owner == self.worker_id}
        self._forget(self.shards - owned)
        self._take(owned - self.shards)
        self._commands_wait = True
        self.apply(SendingAllowed(allowed=True))
        self._loops = [
            Running(self._world, self._load_forever(queue)),
            Running(self._world, self._settle_forever(queue)),
        ]

    def lose_session(self) -> None:
        """Sending stops at once; what the loops were waiting for is lost."""
        if not self.alive or not self.has_session:
            return
        self.has_session = False
        self._stop_loops()
        self.apply(SendingAllowed(allowed=False))

    def discard(self) -> None:
        """Another owns the shards now, or the process is dead: nothing of it counts any more."""
        self.alive = self.has_session = False
        self._stop_loops()
        self._world.gone(self)

    def notice(self) -> None:
        """Something may be there to be read."""
        self._commands_wait = True
        self._look()

    def _look(self) -> None:
        if self._loops:
            self._loops[0].wake()

    def _stop_loops(self) -> None:
        for loop in self._loops:
            loop.stop()
        self._loops = []

    # ------------------------------------------------------------ the engine and its effects

    def apply(self, *happened: Input) -> None:
        if not self.alive:
            return
        for effect in [effect for one in happened for effect in self._world.handle(self, one)]:
            match effect:
                case Send(event, _):
                    self._send(event)
                case Settle():
                    self.pending.append(effect)
                case LoadReceiver() | LoadLane():
                    self._wanted.append(effect)
                    self._look()
                case Disable():
                    self._disabled.append(effect)
                    self._look()
                case Remember(receiver_id, failing):
                    self._remember(receiver_id, failing)
                case Obeyed(command_ids):
                    self._obeyed.extend(command_ids)
        if (self.pending or self._obeyed) and self._loops:
            self._loops[-1].wake()
        self._wake_at(self.engine.wake_ns())

    def _remember(self, receiver_id: int, failing: Failing | None) -> None:
        """Stored at once: how late the real one is costs a count, never order or an event."""
        if failing is None:
            self._world.tables.failing.pop(receiver_id, None)
        else:
            self._world.tables.failing[receiver_id] = failing

    def _send(self, event: Event) -> None:
        if event.event_id in self._world.unsendable:
            self._world.after(0, lambda: self.apply(Unsendable(event, Reason.BODY_FAILED)))
            return
        event.body_sha256 = event.event_id.to_bytes(32, "big")
        answer = self._world.request(self, event)
        started_at = self._world.wall()
        self._world.after(answer.after_s, lambda: self._answered(Finished(event, answer.attempt(started_at))))

    def _answered(self, finished: Finished) -> None:
        if not self._finished:
            self._world.after(0, self._take_finished)
        self._finished.append(finished)

    def _take_finished(self) -> None:
        finished, self._finished = self._finished, []
        self.apply(*finished)

    def _wake_at(self, due_ns: int | None) -> None:
        if due_ns is None or (self._tick_ns is not None and self._tick_ns <= due_ns):
            return
        self._tick_ns = due_ns
        wait_s = max(0, due_ns - self._world.now_ns) / 1e9
        self._world.after(wait_s + self._world.lateness_s(), lambda: self._tick(due_ns))

    def _tick(self, due_ns: int) -> None:
        if not self.alive or self._tick_ns != due_ns:
            return
        self._tick_ns = None
        wake_ns = self.engine.wake_ns()
        if wake_ns is not None and wake_ns <= self._world.now_ns:
            self.apply(Ticked())
        else:
            self._wake_at(wake_ns)

    # ------------------------------------------------------------ shards

    def _share(self, queue: ModelQueue) -> Loop:
        tables = self._world.tables
        if self._leaving and (drained := self.engine.drained(self._leaving)):
            while self._outcome_under_way:
                yield 0.001
            self._outcome_under_way = True
            yield self._world.latency_s()
            queue.releases = tables.release(self.worker_id, drained)
            self._world.shards_moved()
            yield self._world.latency_s()
            self._outcome_under_way = False
            self._forget(drained)
        live, owners = tuple(tables.live), dict(tables.shards)
        if self.worker_id not in live:
            return
        yield self._world.latency_s()
        move = next_move(self.worker_id, live, owners)
        if move.release and not self._leaving:
            self._leaving = set(move.release)
            self._tail.without(self._leaving)
            self.apply(ShardsDraining(frozenset(self._leaving)))
            self._look()
        elif move.claim:
            got = tables.claim(self.worker_id, move.claim)
            yield self._world.latency_s()
            self._take(got)

    def _take(self, shards: set[int]) -> None:
        if shards:
            self.shards |= shards
            self._tail.claimed(shards)
            self._commands_wait = True
            failing = self._world.tables.failing
            self.apply(ShardsClaimed(shards, {r: failing[r] for r in failing if shard_of(r) in shards}))

    def _forget(self, shards: set[int]) -> None:
        if shards:
            self.shards -= shards
            self._leaving -= shards
            self._tail.without(shards)
            self._wanted = deque(wanted for wanted in self._wanted if shard_of(wanted.receiver_id) not in shards)
            self._commands_taken.clear()
            self._commands_wait = True
            self.apply(ShardsReleased(shards))

    # ------------------------------------------------------------ the loops

    def _configure(self) -> None:
        tables = self._world.tables
        self._version = tables.version
        self.apply(Configured(dict(tables.receivers), dict(tables.subscriptions)))

    def _load_forever(self, queue: ModelQueue) -> Loop:
        world, tables = self._world, self._world.tables
        while True:
            while self._disabled:
                yield world.latency_s()
                if tables.disable(self._disabled[0].receiver_id):
                    world.reconfigured()
                self._disabled.pop(0)
            try:
                yield from self._share(queue)
            except Fenced:
                self.discard()
                return
            yield from self._load_commands(queue)
            more = yield from self._load_tail(queue)
            if self._wanted:
                yield from self._load_wanted(queue)
            if more or self._wanted:
                yield 0
            elif self._leaving or world.shards_unsettled(self):
                yield SHARE_EVERY_S
            else:
                yield None

    def _learn(self, version: int) -> Loop:
        if version != self._version:
            yield self._world.latency_s()
            self._configure()

    def _load_tail(self, queue: ModelQueue) -> Generator[float | None, None, bool]:
        world = self._world
        limit = world.scenario.load_rows_max
        cursor = self._tail.next()
        rows = queue.load_tail(cursor.shards, cursor.after_queue_id, self.engine.overflowing(), limit)
        yield world.latency_s()
        yield from self._learn(rows.version)
        if rows.events:
            self.apply(Loaded(rows.events))
        upto, more = rows.end(limit)
        self._tail.seen(cursor, upto, more=more)
        # A claim that has caught up is read with the others from now on; the real worker looks again by itself soon.
        return more or self._tail.catching_up or self._tail.next() is not cursor

    def _load_wanted(self, queue: ModelQueue) -> Loop:
        wanted = self._wanted[0]
        match wanted:
            case LoadLane(receiver_id, lane):
                rows = queue.load_lane(wanted)
                loaded: Input = LaneLoaded(receiver_id, lane, rows.events, len(rows.events) < wanted.limit)
            case LoadReceiver(receiver_id):
                limit = min(wanted.limit, self._world.scenario.load_receiver_rows_max)
                rows = queue.load_receiver(replace(wanted, limit=limit))
                loaded = ReceiverLoaded(receiver_id, rows.events, len(rows.events) < limit)
        yield self._world.latency_s()
        yield from self._learn(rows.version)
        self._wanted.popleft()
        self.apply(loaded)

    def _load_commands(self, queue: ModelQueue) -> Loop:
        while self._commands_wait:
            self._commands_wait = False
            limit = self._world.scenario.load_rows_max
            while self._outcome_under_way:
                yield 0.001
            self._outcome_under_way = True
            commands = queue.load_commands(self.shards - self._leaving, self._commands_taken, limit)
            yield self._world.latency_s()
            self._outcome_under_way = False
            self._commands_taken.update(command.command_id for command in commands)
            self._commands_wait = self._commands_wait or len(commands) == limit
            if commands:
                self.apply(Commanded(commands))

    def _settle_forever(self, queue: ModelQueue) -> Loop:
        world = self._world
        while True:
            if not self.settling:
                while not (self.pending or self._obeyed):
                    yield None
                yield 0.004
                batch = world.scenario.settle_rows_max
                self.settling, self.pending = self.pending[:batch], self.pending[batch:]
            obeyed = tuple(self._obeyed)
            while self._outcome_under_way:
                yield 0.001
            self._outcome_under_way = True
            yield world.latency_s()
            fate = world.fate_of_settle()
            if fate != "not reached":
                try:
                    queue.settle(self.settling, obeyed)
                except Fenced:
                    self.discard()
                    return
            if fate != "stored":
                world.session_lost(self)
                return
            yield world.latency_s()
            self._outcome_under_way = False
            del self._obeyed[: len(obeyed)]
            settled, self.settling = self.settling, []
            self._commands_taken.difference_update(obeyed, *(settle.command_ids for settle in settled))
            self.apply(Settled(settled))
            if self._leaving:
                self._look()
