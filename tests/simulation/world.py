"""A world from a seed: a clock, a heap of happenings, and everything around the engine, from producers to receivers.

All chance comes from the seed, so a run repeats to the byte. It has two parts: trouble, as much of it as the scenario
wants; then everybody is well, nothing more happens, and every event must come to its end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count

from clarion.core.clock import Now
from clarion.delivery.engine import Engine
from clarion.delivery.event import Event, Status
from clarion.delivery.step import CommandKind, Effect, Input, ReceiverSettings
from clarion.ledger.change import Change
from simulation.model_queue import Row, Tables
from simulation.network import PERSONALITIES, Answer, ModelReceiver, healthy
from simulation.oracle import Oracle, Violation
from simulation.trace import EPOCH, Trace
from simulation.worker import ModelWorker

SCHEDULE_S = (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
FIRST_LANE = 1 << 40
RESOURCES = ("RUNS", "ISSUES")
RIGHTS = (None, None, frozenset({"RUNS"}), frozenset({"ISSUES"}), frozenset[str]())
"""Above all queue ids, as the real ones are as good as always: an event outside its lane has its queue id for a lane."""
STEPS_MAX = 3_000_000
DRAINED_WITHIN_S = 4 * 86_400
AUDIT_EVERY_STEPS = 16
AUDIT_AFTER_NS = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a run is like, drawn from its seed. `happenings_count` is None in a run by days."""

    receivers_count: int
    objects_count: int
    window: int
    in_flight_max: int
    loaded_max: int
    unstored_max: int
    load_rows_max: int
    load_receiver_rows_max: int
    settle_rows_max: int
    workers_count: int
    jumpy: bool
    lost_settles: float
    happenings_count: int | None
    gap_max_s: float

    @staticmethod
    def draw(dice: random.Random, days: float | None) -> Scenario:
        return Scenario(
            receivers_count=dice.randint(1, 5),
            objects_count=dice.choice((1, 2, 4, 12)),
            window=dice.choice((2, 4, 8, 32)),
            in_flight_max=dice.choice((2, 5, 16, 64)),
            loaded_max=dice.choice((4, 20, 50_000)),
            unstored_max=dice.choice((1, 4, 2_000)),
            load_rows_max=dice.choice((3, 10, 50)),
            load_receiver_rows_max=dice.choice((1, 3, 10)),
            settle_rows_max=dice.choice((1, 4, 50)),
            workers_count=dice.choice((1, 1, 1, 2, 3)),
            jumpy=dice.random() < 0.25,
            lost_settles=dice.choice((0, 0.01, 0.1)),
            happenings_count=dice.randint(15, 45) if days is None else None,
            gap_max_s=dice.choice((0.5, 30, 3600)) if days is None else dice.choice((600, 3600, 14_400)),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to; `violation` is None if all was well."""

    seed: int
    digest: str
    steps: int
    events: int
    requests: int
    virtual_s: float
    violation: str | None


class World:
    """One run. Only `run` is called from outside."""

    def __init__(
        self,
        seed: int,
        *,
        engine_class: type[Engine] = Engine,
        days: float | None = None,
        show: Callable[[str], None] | None = None,
    ) -> None:
        self.seed = seed
        self.engine_class = engine_class
        self.dice = random.Random(2 * seed)
        self.engine_dice = random.Random(2 * seed + 1)
        self.scenario = Scenario.draw(self.dice, days)
        self.now_ns = 0
        self.tables = Tables(self.wall)
        self.unsendable: set[int] = set()
        self._offset = timedelta(0)
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = count()
        self._trace = Trace(show)
        self._workers: list[ModelWorker] = []
        self._receivers: dict[int, ModelReceiver] = {}
        self._subscriptions_of: dict[int, list[int]] = {}
        self._event_ids = count(1)
        self._changes = count(1)
        self._produced: dict[tuple[int, int], int] = {}
        self._steps = 0
        self._audited_ns = 0
        self._left = self.scenario.happenings_count
        self._trouble_ends_ns = None if days is None else round(days * 86_400e9)
        self._draining = False
        self._drained_by_ns = 0
        self._oracle = Oracle(
            self.tables,
            in_flight_max=self.scenario.in_flight_max,
            window=self.scenario.window,
            jumpy=self.scenario.jumpy,
        )

    # ------------------------------------------------------------ the run

    def run(self) -> Result:
        """Trouble, then recovery; whatever is raised on the way is the violation."""
        violation = None
        self._trace.line(f"seed {self.seed} {self.scenario}")
        try:
            self._begin()
            while self._heap and not self._finished():
                due_ns, _, call = heappop(self._heap)
                self.now_ns = max(self.now_ns, due_ns)
                call()
                if self._draining and self.now_ns > self._drained_by_ns:
                    raise Violation(f"not drained after days without trouble: {self._open()}")
                if self._steps > STEPS_MAX:
                    raise Violation("no end of steps")
            self._account()
        except Exception as error:
            violation = f"{type(error).__name__}: {error}"
            self._trace.line(f"violation {violation}")
        return Result(
            self.seed,
            self._trace.digest(),
            self._steps,
            len(self._produced),
            self._oracle.requests_count,
            self.now_ns / 1e9,
            violation,
        )

    def _begin(self) -> None:
        for _ in range(self.scenario.receivers_count):
            self._register()
        self.reconfigured()
        for _ in range(self.scenario.workers_count):
            self._start_worker()
        self.after(0, self._happen)

    def _finished(self) -> bool:
        return (
            self._draining
            and not self.tables.queue
            and not self.tables.commands
            and all(worker.idle for worker in self._workers)
        )

    def _account(self) -> None:
        """Each event that was made has its one end, and nothing is left anywhere."""
        if not self._finished():
            raise Violation(f"nothing is going to happen any more, and these are not settled: {self._open()}")
        if lost := self._produced.keys() - self.tables.events.keys():
            raise Violation(f"lost: {sorted(lost)}")
        if made_up := self.tables.events.keys() - self._produced.keys():
            raise Violation(f"ended, but never made: {sorted(made_up)}")
        for key, settled in self.tables.events.items():
            reached = key in self._receivers[settled.row.receiver_id].received
            if settled.ending.status is Status.DELIVERED and not reached:
                raise Violation(f"event {key} is DELIVERED and never reached its receiver")
        for worker in self._workers:
            if worker.engine.loaded_count and worker.has_session:  # the others were fenced out and will hear of it
                raise Violation(f"{worker.engine.loaded_count} events of an empty queue are in memory")

    def _open(self) -> str:
        rows = [f"{row.event_id}.{row.round} (row {row.queue_id})" for row in self.tables.queue.values()]
        return f"{len(rows)} events {', '.join(rows[:5])}; {len(self.tables.commands)} orders"

    # ------------------------------------------------------------ time and chance

    def after(self, wait_s: float, call: Callable[[], None]) -> None:
        heappush(self._heap, (self.now_ns + round(wait_s * 1e9), next(self._numbers), call))

    def wall(self) -> datetime:
        return EPOCH + timedelta(microseconds=self.now_ns // 1000) + self._offset

    def latency_s(self) -> float:
        """Of one way to the database."""
        return self.dice.uniform(0.2, 1.5) if self.dice.random() < 0.01 else self.dice.uniform(0.0003, 0.004)

    def lateness_s(self) -> float:
        """Of a timer."""
        return self.dice.choice((0, 0, 0.0007, 0.02))

    def fate_of_settle(self) -> str:
        if self._draining or self.dice.random() >= self.scenario.lost_settles:
            return "stored"
        return self.dice.choice(("not reached", "answer lost"))

    # ------------------------------------------------------------ what workers call

    def handle(self, worker: ModelWorker, happened: Input) -> list[Effect]:
        """Ask the engine, with the oracle watching both ways."""
        now = Now(self.now_ns, self.wall())
        self._steps += 1
        self._trace.told(worker.worker_id, happened, now)
        self._oracle.clock(now.wall, self._offset)
        self._oracle.told(worker.worker_id, happened, now)
        effects = list(worker.engine.handle(happened, now))
        for effect in effects:
            self._trace.wants(effect)
            self._oracle.wants(worker, effect, now)
        self._oracle.after_step(worker)
        if self._steps % AUDIT_EVERY_STEPS == 0 or now.monotonic_ns - self._audited_ns > AUDIT_AFTER_NS:
            self._audited_ns = now.monotonic_ns
            self._oracle.audit(self._workers, now)
        return effects

    def request(self, worker: ModelWorker, event: Event) -> Answer:
        return self._receivers[event.receiver_id].request(event, self.dice)

    def session_lost(self, worker: ModelWorker) -> None:
        """It is opened again after a while, unless the worker is gone by then."""
        self._oracle.disturbed()
        worker.lose_session()
        self.after(self.dice.choice((0.05, 0.5, 8)), worker.open_session)

    def gone(self, worker: ModelWorker) -> None:
        """A worker's process ended: fenced out sooner or later, and another started."""
        if worker in self._workers:
            self._workers.remove(worker)
        self._oracle.crashed(worker.worker_id)
        self.after(self.dice.choice((0.05, 1, 15)), lambda: self._fence_out(worker.worker_id))
        self.after(self.dice.choice((0.1, 2, 20)), self._start_worker)

    def shards_moved(self) -> None:
        self._oracle.disturbed()
        self._notify()

    def shards_unsettled(self, worker: ModelWorker) -> bool:
        """Whether the worker has to look again for shards, though nobody tells it."""
        owned = list(self.tables.shards.values()).count(worker.worker_id)
        share = -(-len(self.tables.shards) // max(1, len(self.tables.live)))
        return owned > share or (owned < share and None in self.tables.shards.values())

    def reconfigured(self) -> None:
        if self._draining and not all(settings.active for settings in self.tables.receivers.values()):
            self.after(1, self._activate_all)  # disabled for an answer given before everybody was well
        self._oracle.configured()
        self._oracle.disturbed()
        self._notify()

    def _notify(self) -> None:
        """A notice, or the next look if it was lost."""
        for worker in self._workers:
            self.after(self.dice.choice((0.001, 0.01, 0.2)), worker.notice)

    def _start_worker(self) -> None:
        worker = ModelWorker(self)
        self._workers.append(worker)
        self._oracle.disturbed()
        worker.open_session()
        self._notify()

    def _fence_out(self, worker_id: int) -> None:
        self.tables.end(worker_id)
        self.shards_moved()

    # ------------------------------------------------------------ what happens

    def _happen(self) -> None:
        if self._left is not None:
            self._left -= 1
        if (self._left is not None and self._left < 0) or (
            self._trouble_ends_ns is not None and self.now_ns >= self._trouble_ends_ns
        ):
            self._recover()
            return
        happenings, weights = zip(*_HAPPENINGS, strict=True)
        (chosen,) = self.dice.choices(happenings, weights)
        chosen(self)
        low, high = 0.001, self.scenario.gap_max_s
        self.after(low * (high / low) ** self.dice.random(), self._happen)

    def _recover(self) -> None:
        """Everybody is well from now on."""
        self._draining = True
        for receiver in self._receivers.values():
            receiver.personality = healthy
        latest = max((row.due_at for row in self.tables.queue.values() if row.due_at), default=self.wall())
        waits = max(0.0, (latest - self.wall()).total_seconds()) + DRAINED_WITHIN_S
        self._drained_by_ns = self.now_ns + round(waits * 1e9)
        self._activate_all()

    def _activate_all(self) -> None:
        for receiver_id, settings in self.tables.receivers.items():
            self.tables.receivers[receiver_id] = replace(settings, active=True)
        self._change_configuration()

    def _change_configuration(self) -> None:
        self.tables.version += 1
        self.reconfigured()

    def _register(self) -> None:
        dice = self.dice
        receiver_id = max(self._receivers, default=0) + dice.randint(1, 50)  # of any shard
        self._receivers[receiver_id] = ModelReceiver(dice.choice((healthy, *PERSONALITIES)))
        self.tables.receivers[receiver_id] = ReceiverSettings(
            receiver_id,
            active=dice.random() < 0.9,
            concurrency=dice.choice((1, 2, 4, 8)),
            retry_schedule_s=SCHEDULE_S[: dice.randint(1, len(SCHEDULE_S))],
            ordered_per_object=dice.random() < 0.85,
            rate_limit_per_second=dice.choice((None, None, None, 1, 5, 50)),
            lane_block_max_s=dice.choice((None, None, 2, 60, 3600)),
        )
        self._subscriptions_of[receiver_id] = [1000 * receiver_id + n for n in range(dice.randint(1, 2))]
        for subscription_id in self._subscriptions_of[receiver_id]:
            self.tables.subscriptions[subscription_id] = dice.choice((None, None, None, 5, 600, 86_400))

    def _register_another(self) -> None:
        if len(self.tables.receivers) < self.scenario.receivers_count:
            self._register()
            self._change_configuration()

    def _subscribe_again(self) -> None:
        if (receiver_id := self._choose_receiver()) is not None:
            subscription_id = self._subscriptions_of[receiver_id][-1] + 1
            if not self.tables.subscriptions.keys() & set(self._subscriptions_of[receiver_id]):
                self._subscriptions_of[receiver_id].append(subscription_id)
                self.tables.subscriptions[subscription_id] = None
                self._change_configuration()

    def _produce(self) -> None:
        """One batch of the router: a burst of changes, most of them of a few hot objects."""
        for _ in range(self.dice.choice((1, 1, 2, 5, 12))):
            objects = self.scenario.objects_count
            number = min(self.dice.randint(1, objects), self.dice.randint(1, objects))
            position, wall = next(self._changes), self.wall()
            lane = FIRST_LANE + number
            resource = RESOURCES[number % 2]
            change = Change(position, position, resource, "u", str(number), wall, wall, None, None, None, "{}", "{}")
            for receiver_id, settings in self.tables.receivers.items():
                if not _may_read(settings, resource):
                    continue
                for subscription_id in self._subscriptions_of[receiver_id]:
                    if subscription_id in self.tables.subscriptions and self.dice.random() < 0.7:
                        self._add(next(self._event_ids), 0, receiver_id, subscription_id, lane, change)
        self._notify()

    def _add(
        self, event_id: int, number: int, receiver_id: int, subscription_id: int, lane: int, change: Change
    ) -> None:
        queue_id = self.tables.last_queue_id + 1
        lane = queue_id if number else lane
        self.tables.add(Row(queue_id, event_id, number, receiver_id, subscription_id, lane, change))
        self._produced[event_id, number] = queue_id
        self._oracle.lanes.add((receiver_id, lane))
        if self.dice.random() < 0.01:
            self.unsendable.add(event_id)

    def _choose_receiver(self) -> int | None:
        return self.dice.choice(sorted(self.tables.receivers)) if self.tables.receivers else None

    def _pause_or_activate(self) -> None:
        if (receiver_id := self._choose_receiver()) is not None:
            settings = self.tables.receivers[receiver_id]
            self.tables.receivers[receiver_id] = replace(settings, active=not settings.active)
            self._change_configuration()

    def _delete_receiver(self) -> None:
        if (receiver_id := self._choose_receiver()) is not None:
            del self.tables.receivers[receiver_id]
            for subscription_id in self._subscriptions_of[receiver_id]:
                self.tables.subscriptions.pop(subscription_id, None)
            self._change_configuration()

    def _delete_subscription(self) -> None:
        if self.tables.subscriptions:
            del self.tables.subscriptions[self.dice.choice(sorted(self.tables.subscriptions))]
            self._change_configuration()

    def _change_settings(self) -> None:
        receiver_id = self._choose_receiver()
        if receiver_id is None:
            return
        dice, settings = self.dice, self.tables.receivers[receiver_id]
        changed = dice.choice(
            (
                replace(settings, concurrency=dice.choice((1, 2, 4, 8))),
                replace(settings, rate_limit_per_second=dice.choice((None, 1, 5, 50))),
                replace(settings, lane_block_max_s=dice.choice((None, 2, 60, 3600))),
                replace(settings, retry_schedule_s=SCHEDULE_S[: dice.randint(1, len(SCHEDULE_S))]),
                replace(settings, ordered_per_object=dice.random() < 0.8),
            )
        )
        self.tables.receivers[receiver_id] = changed
        self._change_configuration()

    def _change_rights(self) -> None:
        if (receiver_id := self._choose_receiver()) is not None:
            before = self.tables.receivers[receiver_id]
            after = replace(before, readable_resources=self.dice.choice(RIGHTS))
            self.tables.receivers[receiver_id] = after
            for resource in RESOURCES:
                if _may_read(after, resource) and not _may_read(before, resource):
                    self._oracle.lacked_upto[receiver_id, resource] = self.tables.last_queue_id
            self._change_configuration()

    def _change_expiry(self) -> None:
        if self.tables.subscriptions:
            chosen = self.dice.choice(sorted(self.tables.subscriptions))
            self.tables.subscriptions[chosen] = self.dice.choice((None, 5, 600, 86_400))
            self._change_configuration()

    def _change_personality(self) -> None:
        if (receiver_id := self._choose_receiver()) is not None:
            self._receivers[receiver_id].personality = self.dice.choice((healthy, healthy, *PERSONALITIES))

    def _order(self, kind: CommandKind) -> None:
        """About an event that is open, or was a moment ago."""
        rows = list(self.tables.queue.values()) or [settled.row for settled in self.tables.events.values()]
        if rows:
            row = self.dice.choice(rows)
            (self._oracle.cancelled if kind is CommandKind.CANCEL else self._oracle.hurried).add(row.event_id)
            self.tables.order(kind, row.event_id, row.receiver_id)
            self._notify()

    def _cancel(self) -> None:
        self._order(CommandKind.CANCEL)

    def _retry_now(self) -> None:
        self._order(CommandKind.RETRY_NOW)

    def _retry_settled(self) -> None:
        open_ids = {row.event_id for row in self.tables.queue.values()}
        latest = {event_id: number for event_id, number in self.tables.events if event_id not in open_ids}
        if latest:
            event_id, number = self.dice.choice(sorted(latest.items()))
            row = self.tables.events[event_id, number].row
            self._add(event_id, number + 1, row.receiver_id, row.subscription_id, row.lane, row.change)
            self._notify()

    def _choose_worker(self) -> ModelWorker | None:
        return self.dice.choice(self._workers) if self._workers else None

    def _crash(self) -> None:
        if (worker := self._choose_worker()) is not None:
            worker.discard()

    def _lose_session(self) -> None:
        if (worker := self._choose_worker()) is not None:
            self.session_lost(worker)

    def _take_over(self) -> None:
        """A worker that lost its session is fenced out before it comes back, and answers still reach it."""
        if (worker := self._choose_worker()) is not None:
            self.session_lost(worker)
            self._fence_out(worker.worker_id)

    def _add_worker(self) -> None:
        if len(self._workers) < 4:
            self._start_worker()

    def _jump(self) -> None:
        """The wall clock is learned anew from the database, which may have been set."""
        if self.scenario.jumpy:
            self._oracle.disturbed()
            self._offset += timedelta(seconds=self.dice.choice((-3600, -2, -0.01, 0.01, 2, 3600)))


def _may_read(settings: ReceiverSettings, resource: str) -> bool:
    return settings.readable_resources is None or resource in settings.readable_resources


_HAPPENINGS: tuple[tuple[Callable[[World], None], float], ...] = (
    (World._produce, 14),
    (World._pause_or_activate, 2),
    (World._delete_receiver, 0.3),
    (World._register_another, 1),
    (World._subscribe_again, 1),
    (World._delete_subscription, 0.3),
    (World._change_settings, 2),
    (World._change_rights, 1),
    (World._change_expiry, 0.5),
    (World._change_personality, 3),
    (World._cancel, 1.5),
    (World._retry_now, 1.5),
    (World._retry_settled, 1),
    (World._crash, 1),
    (World._lose_session, 1.5),
    (World._take_over, 0.7),
    (World._add_worker, 0.3),
    (World._jump, 1.5),
)


def simulate(
    seed: int,
    *,
    engine_class: type[Engine] = Engine,
    days: float | None = None,
    show: Callable[[str], None] | None = None,
) -> Result:
    """The result of one seed's run. `days` of trouble instead of a short run; `show` gets each line of the trace."""
    return World(seed, engine_class=engine_class, days=days, show=show).run()
