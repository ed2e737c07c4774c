"""The worker's loop: load, ask the engine, send, ask the engine, settle.

Everything that decides is in the engine. Callbacks, not tasks, carry a delivery: the answers that came in with one turn of
the event loop are told to the engine, which says what is next, and the next requests go out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256

import asyncpg

from clarion.core.clock import Clock, Now, Random
from clarion.core.errors import InvariantBroken
from clarion.core.ids import SHARDS_COUNT, shard_of
from clarion.database.pool import store_errors
from clarion.delivery.body import body_of
from clarion.delivery.engine import Engine
from clarion.delivery.event import Event, Reason
from clarion.delivery.queue import SQL, Queue
from clarion.delivery.receivers import Receivers, load_receivers
from clarion.delivery.shard import Ownership, Shares
from clarion.delivery.share import next_move
from clarion.delivery.step import (
    Commanded,
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
from clarion.sender.outcome import Attempt
from clarion.sender.seal import Sealer
from clarion.sender.send import Sender

_log = logging.getLogger(__name__)

LOAD_ROWS_MAX = 500
LOAD_RECEIVER_ROWS_MAX = 100
SETTLE_ROWS_MAX = 500
SETTLE_GATHER_S = 0.004
"""How long a small settle waits for company; a settle under way gathers the next one by itself."""
SETTLE_MANY = 8
SETTLE_GATHER_MANY_S = 0.006
"""How much longer it waits when so many came meanwhile and none of them holds up another event: what a statement takes
whatever its rows is shared by more of them."""
LOOK_EVERY_S = 0.2
COMMANDS_MAX = 500
"""Orders read at once."""
_OVERTAKEN = (("clarion-overtaken", "true"),)


@dataclass(slots=True)
class Session:
    """The connections of one stretch of ownership."""

    owning: asyncpg.Connection
    reading: asyncpg.Connection
    writing: asyncpg.Connection
    ownership: Ownership
    releases: int


class Worker:
    """One owner of shards. It survives the loss of its sessions as long as nobody took over meanwhile."""

    def __init__(
        self,
        worker_id: int,
        incarnation: str,
        sender: Sender,
        sealer: Sealer,
        clock: Clock,
        random: Random,
        environment: str,
    ) -> None:
        self.worker_id = worker_id
        self._message_id_prefix = f"evt_{incarnation}_"
        self._sender = sender
        self._sealer = sealer
        self._environment = environment
        self._clock = clock
        self._engine = Engine(random)
        self._receivers: Receivers | None = None
        self._shards: set[int] = set()
        self._leaving: set[int] = set()
        self._tail = Tail()
        self._engine.handle(ShardsReleased(range(SHARDS_COUNT)), clock.now())
        self._shared_ns = 0
        self._patient_until_ns: int | None = None
        self._ending = False
        # A release never overlaps a settle: what it refuses is only what nobody waits for any more.
        self._outcomes = asyncio.Lock()
        self._finished: list[Finished] = []
        self._pending: list[Settle] = []
        self._settling: list[Settle] = []
        self._wanted: deque[LoadReceiver | LoadLane] = deque()
        self._disabled: list[Disable] = []
        self._remembered: dict[int, Remember] = {}
        self._commands_wait = True
        self._commands_taken: set[int] = set()
        self._obeyed: list[int] = []
        self._lease_until_ns = 0
        self._beaten_ns = 0
        self._serving = self._sends = False
        self._look = asyncio.Event()
        self._settle_now = asyncio.Event()
        self._idle = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_ns: int | None = None
        self._failed: asyncio.Future[None] | None = None
        self._discarded = False

    # ------------------------------------------------------------ one stretch of ownership

    async def run(self, session: Session, stopping: asyncio.Event, working: Callable[[], None]) -> None:
        """Deliver until `stopping`, then finish what is under way.

        Raises StoreUnavailable if a session was lost (run again with new ones) and Fenced if another took over.
        """
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        queue = Queue(session.reading, session.writing, self.worker_id, session.releases)
        await self._beat(session.ownership)
        await self._configure(session.reading)
        now_ns = self._clock.monotonic_ns()
        # A first session is nobody's loss. After a later one, whatever ended it may have hit the others too.
        first = self._patient_until_ns is None
        self._patient_until_ns = now_ns + (0 if first else round(session.ownership.policy.patience_s * 1e9))
        await self._find_again(queue, session.ownership)
        await self._share(queue, session.ownership)
        # Once before the first request, so that planning the statement does not delay the first outcomes.
        await queue.settle([])
        await session.owning.add_listener("clarion_queue", lambda *_: self._look.set())
        self._commands_wait = True
        await session.owning.add_listener("clarion_commands", lambda *_: self._look_for_commands())
        await session.owning.add_listener("clarion_configuration", lambda *_: self._look.set())
        session.owning.add_termination_listener(lambda *_: self._fail_with_lost_session())
        # Between a request's making and its writing the process may be frozen, for longer than its lease.
        self._sender.send_while(self._holds_lease)
        self._serve(sending=True)
        working()
        tasks = [
            asyncio.create_task(self._beat_forever(session.ownership), name="worker heartbeat"),
            asyncio.create_task(self._load_forever(queue, session.reading, session.ownership), name="worker load"),
            asyncio.create_task(self._settle_forever(queue), name="worker settle"),
        ]
        stop = asyncio.create_task(_until(stopping))
        try:
            await asyncio.wait({*tasks, stop, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.is_set():
                await self._drain(tasks)
            for ended in [*tasks, self._failed]:
                if ended.done():
                    ended.result()
        finally:
            self._serve(sending=False)
            stop.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, stop, return_exceptions=True)
            if self._failed.done() and not self._failed.cancelled():
                self._failed.exception()

    async def _drain(self, tasks: list[asyncio.Task[None]]) -> None:
        """No new requests; wait until those under way are answered and settled, or a session is lost."""
        self._ending = True
        self._serve(sending=False)
        self._look.set()
        assert self._failed is not None
        while self._engine.in_flight or self._pending or self._settling or self._remembered:
            self._idle.clear()
            waiting = asyncio.create_task(_until(self._idle))
            await asyncio.wait({*tasks, self._failed, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if self._failed.done() or any(task.done() for task in tasks):
                return

    def discard(self) -> None:
        """Another worker owns the shards now: whatever is still answered is its business."""
        self._discarded = True
        if self._timer is not None:
            self._timer.cancel()

    # ------------------------------------------------------------ the engine and its effects

    def _apply(self, *happened: Input) -> None:
        if self._discarded:
            return
        now = self._clock.now()
        if self._sends and not self._holds_lease():
            # The process was frozen, or the database is away: no request before the next heartbeat is stored.
            _log.warning("this worker's lease has ended: nothing is sent until it is renewed")
            self._sends = False
            happened = (SendingAllowed(allowed=False), *happened)
        effects = [effect for one in happened for effect in self._engine.handle(one, now)]
        # An effect may feed the engine again, so nothing is read from the engine while effects are carried out.
        for effect in effects:
            match effect:
                case Send():
                    self._send(effect.event, now)
                case Settle():
                    self._pending.append(effect)
                case LoadReceiver() | LoadLane():
                    self._wanted.append(effect)
                    self._look.set()
                case Disable():
                    self._disabled.append(effect)
                    self._look.set()
                case Remember(receiver_id):
                    # Stored with the next look, not at once: one that fails and succeeds in turn costs no more.
                    self._remembered[receiver_id] = effect
                case Obeyed(command_ids):
                    self._obeyed.extend(command_ids)
        if self._pending or self._obeyed:
            self._settle_now.set()
        due_ns = self._engine.wake_ns()
        if due_ns != self._wakes_ns:
            self._wake_at(due_ns)

    def _serve(self, *, sending: bool) -> None:
        """Send from now on, as long as the lease holds, or nothing more."""
        self._serving = self._sends = sending
        self._apply(SendingAllowed(allowed=sending))

    def _send(self, event: Event, now: Now) -> None:
        receivers = self._receivers
        assert receivers is not None
        try:
            body = body_of(event)
        except Exception:
            _log.exception("the body of event %s cannot be made", event.event_id)
            self._give_up(event, Reason.BODY_FAILED)
            return
        if body is None:
            self._give_up(event, Reason.TEMPLATE_FAILED)
            return
        digest = sha256(body).digest()
        if event.body_sha256 is not None and event.body_sha256 != digest:
            _log.error(
                "the body of event %s is not the one that was sent before; the ledger was altered", event.event_id
            )
            self._give_up(event, Reason.BODY_CHANGED)
            return
        event.body_sha256 = digest
        self._sender.send(
            receivers.endpoints[event.receiver_id],
            f"{self._message_id_prefix}{event.event_id}",
            now,
            body,
            _own_headers(event),
            partial(self._answered, event),
            uniform=event.is_test,
        )

    def _holds_lease(self) -> bool:
        return self._clock.lease_ns() <= self._lease_until_ns

    def _give_up(self, event: Event, reason: Reason) -> None:
        # Not at once: the engine is still being asked.
        asyncio.get_running_loop().call_soon(self._guarded, Unsendable(event, reason))

    def _answered(self, event: Event, attempt: Attempt) -> None:
        # Told once the event loop has read all answers that came in: one kind of work after the other finds its code and
        # data in the processor's caches.
        if not self._finished:
            asyncio.get_running_loop().call_soon(self._take_finished)
        self._finished.append(Finished(event, attempt))

    def _take_finished(self) -> None:
        finished, self._finished = self._finished, []
        self._guarded(*finished)

    def _guarded(self, *happened: Input) -> None:
        """Apply from a callback, where an exception would only be logged by the event loop.

        Whatever it is: what the engine was told is half done, and only to begin again from the table is safe.
        """
        try:
            self._apply(*happened)
        except Exception as error:
            self._fail(error)
        if self._ending and not self._engine.in_flight:
            self._idle.set()

    def _fail(self, error: Exception) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    def _fail_with_lost_session(self) -> None:
        # Without the lock another may own the shards any moment: stop sending at once, not when somebody notices.
        self._serving = self._sends = False
        self._guarded(SendingAllowed(allowed=False))
        self._look.set()

    def _wake_at(self, due_ns: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wakes_ns = due_ns
        if due_ns is not None:
            wait_s = max(0, due_ns - self._clock.monotonic_ns()) / 1e9
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._tick)

    def _tick(self) -> None:
        self._timer = self._wakes_ns = None
        self._guarded(Ticked())

    # ------------------------------------------------------------ shards

    async def _look_at_workers(self, ownership: Ownership) -> Shares:
        patient = self._patient_until_ns is not None and self._clock.monotonic_ns() < self._patient_until_ns
        return await ownership.look(self.worker_id, patient=patient)

    async def _find_again(self, queue: Queue, ownership: Ownership) -> None:
        """After a session was lost, perhaps with the answer to a claim or a release: what the table says holds."""
        owners = (await self._look_at_workers(ownership)).owners
        owned = {shard for shard, owner in owners.items() if owner == self.worker_id}
        self._forget(self._shards - owned)
        await self._take(queue, owned - self._shards)

    async def _share(self, queue: Queue, ownership: Ownership) -> None:
        """Move towards this worker's share. Runs in turn with the reads of the queue, never beside one."""
        if self._ending:
            return
        # Each as soon as it is drained: none waits for a request under way of another's.
        if self._leaving and (drained := self._engine.drained(self._leaving)):
            await self._store_health(queue)
            async with self._outcomes:
                queue.releases = await ownership.release(self.worker_id, drained)
            self._forget(drained)
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._shared_ns < ownership.policy.share_every_s * 1e9:
            return
        self._shared_ns = now_ns
        shares = await self._look_at_workers(ownership)
        move = next_move(self.worker_id, shares.workers, shares.owners)
        if move.release and not self._leaving:
            self._leaving = set(move.release)
            self._tail.without(self._leaving)
            self._apply(ShardsDraining(frozenset(self._leaving)))
            self._look.set()
        elif move.claim:
            await self._take(queue, set(await ownership.claim(self.worker_id, move.claim)))

    async def _take(self, queue: Queue, shards: set[int]) -> None:
        if shards:
            failing = await queue.load_failing(shards)
            self._shards |= shards
            self._tail.claimed(shards)
            self._commands_wait = True
            self._apply(ShardsClaimed(shards, failing))

    def _forget(self, shards: set[int]) -> None:
        if shards:
            self._shards -= shards
            self._leaving -= shards
            self._tail.without(shards)
            # What was to be read begins behind rows that are forgotten now.
            self._wanted = deque(wanted for wanted in self._wanted if shard_of(wanted.receiver_id) not in shards)
            for receiver_id in [one for one in self._remembered if shard_of(one) in shards]:
                del self._remembered[receiver_id]
            # Their orders are the next owner's, which this worker may be once more.
            self._commands_taken.clear()
            self._commands_wait = True
            self._apply(ShardsReleased(shards))
            _log.info("released %s shards", len(shards))

    # ------------------------------------------------------------ the loops

    async def _beat(self, ownership: Ownership) -> None:
        policy = ownership.policy
        asked_ns = self._clock.lease_ns()
        self._clock.learn_wall(await ownership.beat(self.worker_id))
        self._lease_until_ns = asked_ns + round(policy.lease_s * 1e9)
        if self._beaten_ns and self._clock.lease_ns() - self._beaten_ns > policy.lease_s * 1e9 / 2:
            # Whatever kept this worker's heartbeat for so long may have kept the others'.
            self._patient_until_ns = self._clock.monotonic_ns() + round(policy.patience_s * 1e9)
        self._beaten_ns = self._clock.lease_ns()
        if self._serving and not self._sends:
            self._serve(sending=True)

    async def _beat_forever(self, ownership: Ownership) -> None:
        while True:
            await asyncio.sleep(ownership.policy.beat_every_s)
            await self._beat(ownership)

    async def _configure(self, reading: asyncpg.Connection) -> None:
        self._receivers = await load_receivers(reading, self._sealer, self._environment)
        self._sender.set_rules(self._receivers.rules)
        self._apply(self._receivers.configured)

    async def _learn(self, version: int, reading: asyncpg.Connection) -> None:
        """Know the configuration of this version before the rows that were read under it.

        Of a receiver or subscription that the engine does not know it would think that they were deleted.
        """
        if self._receivers is None or version != self._receivers.version:
            await self._configure(reading)

    async def _load_forever(self, queue: Queue, reading: asyncpg.Connection, ownership: Ownership) -> None:
        while True:
            self._look.clear()
            await self._carry_out_disabling(reading)
            await self._store_health(queue)
            await self._share(queue, ownership)
            await self._load_commands(queue)
            more = await self._load_tail(queue, reading)
            # One receiver's backlog at a time and in small pieces: new events of all others come in between.
            if self._wanted:
                await self._load_wanted(queue, reading)
            if more or self._wanted:
                await asyncio.sleep(0)
                continue
            try:
                # Not wait_for: in Python 3.11 that loses a cancellation that meets the event it waits for.
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def _load_tail(self, queue: Queue, reading: asyncpg.Connection) -> bool:
        """Load what is new; whether there may be more."""
        cursor = self._tail.next()
        rows = await queue.load_tail(cursor.shards, cursor.after_queue_id, self._engine.overflowing(), LOAD_ROWS_MAX)
        await self._learn(rows.version, reading)
        if rows.events:
            self._apply(Loaded(rows.events))
        # Only after the engine has them: the cursor says what it knows.
        upto, more = rows.end(LOAD_ROWS_MAX)
        self._tail.seen(cursor, upto, more=more)
        return more or self._tail.catching_up

    async def _load_wanted(self, queue: Queue, reading: asyncpg.Connection) -> None:
        """Read what the engine asked for first.

        Taken off the line only when done: the engine asks once, and goes on waiting over the loss of a session.
        """
        wanted = self._wanted[0]
        match wanted:
            case LoadLane(receiver_id, lane):
                rows = await queue.load_lane(wanted)
                loaded: Input = LaneLoaded(receiver_id, lane, rows.events, len(rows.events) < wanted.limit)
            case LoadReceiver(receiver_id):
                limit = min(wanted.limit, LOAD_RECEIVER_ROWS_MAX)
                rows = await queue.load_receiver(replace(wanted, limit=limit))
                loaded = ReceiverLoaded(receiver_id, rows.events, len(rows.events) < limit)
        await self._learn(rows.version, reading)
        self._wanted.popleft()
        self._apply(loaded)

    def _look_for_commands(self) -> None:
        self._commands_wait = True
        self._look.set()

    async def _load_commands(self, queue: Queue) -> None:
        """Tell the engine what was ordered; looked for only after a notice and when a session begins."""
        while self._commands_wait:
            self._commands_wait = False
            # No outcome may be stored between: what was open as it was read, and is not in memory, is still to be loaded.
            async with self._outcomes:
                commands = await queue.load_commands(self._shards - self._leaving, self._commands_taken, COMMANDS_MAX)
                self._commands_taken.update(command.command_id for command in commands)
                self._commands_wait = self._commands_wait or len(commands) == COMMANDS_MAX
                if commands:
                    self._apply(Commanded(commands))

    async def _carry_out_disabling(self, reading: asyncpg.Connection) -> None:
        while self._disabled:
            disable = self._disabled[0]
            with store_errors("disable a receiver"):
                await reading.execute(SQL["disable"], disable.receiver_id, disable.reason)
            _log.warning("receiver %s is disabled: %s", disable.receiver_id, disable.reason)
            self._disabled.pop(0)

    async def _store_health(self, queue: Queue) -> None:
        """Store the latest that the engine said of each receiver."""
        if told := list(self._remembered.values()):
            await queue.remember(told)
            for one in told:
                if self._remembered.get(one.receiver_id) is one:
                    del self._remembered[one.receiver_id]
            if not self._remembered:
                self._idle.set()

    def _hold_up_others(self) -> bool:
        return any(self._engine.holds_up(settle.event) for settle in self._pending)

    async def _settle_forever(self, queue: Queue) -> None:
        while True:
            if not self._settling:
                await self._settle_now.wait()
                if len(self._pending) < SETTLE_ROWS_MAX:
                    await asyncio.sleep(SETTLE_GATHER_S)
                    if SETTLE_MANY <= len(self._pending) < SETTLE_ROWS_MAX and not self._hold_up_others():
                        await asyncio.sleep(SETTLE_GATHER_MANY_S)
                self._settling, self._pending = self._pending[:SETTLE_ROWS_MAX], self._pending[SETTLE_ROWS_MAX:]
                if not self._pending:
                    self._settle_now.clear()
            # Still in the list until they are deleted: if the session is lost here, the next settle deletes them.
            obeyed = tuple(self._obeyed)
            async with self._outcomes:
                await queue.settle(self._settling, obeyed)
            del self._obeyed[: len(obeyed)]
            settled, self._settling = self._settling, []
            if self._commands_taken:
                self._commands_taken.difference_update(obeyed, *(settle.command_ids for settle in settled))
            self._apply(Settled(settled))
            if self._leaving:
                self._look.set()
            if not self._pending:
                self._idle.set()


def _own_headers(event: Event) -> tuple[tuple[str, str], ...]:
    """What the receiver is told about a request that does not come in its object's order."""
    if event.round > 0:
        return (("clarion-retry", str(event.round)),)
    return _OVERTAKEN if event.overtaken else ()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


async def incarnation_of(connection: asyncpg.Connection) -> str:
    """Which life of the database this is; part of every webhook-id."""
    with store_errors("read the deployment"):
        incarnation = await connection.fetchval(SQL["incarnation"])
    if incarnation is None:
        raise InvariantBroken("clarion.deployment is empty")
    return str(incarnation)
