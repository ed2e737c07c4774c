"""What must hold whatever happens: one oracle, asked about every input and effect of every engine.

It knows the tables as they are durable, what the world did, and the contract; of an engine it sees only what it says.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from clarion.core.clock import Now
from clarion.core.ids import shard_of
from clarion.delivery.event import Event, Reason, Status
from clarion.delivery.room import ALL_TO_QUICK
from clarion.delivery.step import (
    Configured,
    Disable,
    Effect,
    Finished,
    Input,
    ReceiverSettings,
    Send,
    SendingAllowed,
    Settle,
    Settled,
    ShardsClaimed,
    ShardsDraining,
    ShardsReleased,
    Unsendable,
)
from clarion.sender.outcome import Attempt, Outcome
from simulation.health import FAILURES_IN_A_ROW, SECOND_NS, Health
from simulation.model_queue import Row, Tables
from simulation.trace import EPOCH

if TYPE_CHECKING:
    from simulation.worker import ModelWorker

JITTER = (0.5, 1.5)
OWN_FAULT_S = (5, 10, 20, 40, 80, 160, 300)
STALLED_S = 60
"""Longer than any request: a receiver that has work, and room, and may be sent to, has been sent to by then."""
_ROUNDING = timedelta(milliseconds=2)
_WELL = Health()
"""Of a receiver that nothing was sent to yet. Only read."""


class Violation(AssertionError):
    """The engine did what it must never do, or did not do what it must."""


@dataclass(slots=True)
class View:
    """What one engine was told, and what it has under way."""

    configured: Configured = field(default_factory=lambda: Configured({}, {}))
    sending_allowed: bool = True
    leaving: set[int] = field(default_factory=set)
    in_flight: dict[int, tuple[Event, datetime | None]] = field(default_factory=dict)
    settling: dict[int, Event] = field(default_factory=dict)
    health: defaultdict[int, Health] = field(default_factory=lambda: defaultdict(Health))
    finished: tuple[Event, bool] | None = None

    def of_receiver(self, receiver_id: int) -> list[Event]:
        return [event for event, _ in self.in_flight.values() if event.receiver_id == receiver_id]


class Oracle:
    """Raises Violation. `jumpy`: the wall clock jumps in this run, so that what depends on it is checked loosely."""

    def __init__(self, tables: Tables, *, in_flight_max: int, window: int, jumpy: bool) -> None:
        self._tables = tables
        self._in_flight_max = in_flight_max
        self._window = window
        self._jumpy = jumpy
        self._views: dict[int, View] = {}
        self._latest_wall: datetime = tables.wall()
        self._lowest_offset = timedelta(0)
        self._stalled: dict[tuple[int, int], int] = {}
        self.unordered: set[int] = set()  # at some time
        self.ordered: set[int] = set()  # at some time
        self.shortest_block_s: dict[int, int] = {}
        self.hurried: set[int] = set()
        self.cancelled: set[int] = set()
        self.lacked_upto: dict[tuple[int, str], int] = {}  # the last row when a receiver got a right back
        self.lanes: set[tuple[int, int]] = set()
        self.requests_count = 0

    # ------------------------------------------------------------ what the world tells

    def configured(self) -> None:
        """The configuration in the tables was changed."""
        for receiver_id, settings in self._tables.receivers.items():
            (self.ordered if settings.ordered_per_object else self.unordered).add(receiver_id)
            if settings.lane_block_max_s is not None:
                known = self.shortest_block_s.get(receiver_id, settings.lane_block_max_s)
                self.shortest_block_s[receiver_id] = min(known, settings.lane_block_max_s)

    def disturbed(self) -> None:
        """Something else than the engine may hold events up for a while from now on."""
        self._stalled.clear()

    def clock(self, wall: datetime, offset: timedelta) -> None:
        self._latest_wall = max(self._latest_wall, wall)
        self._lowest_offset = min(self._lowest_offset, offset)

    def crashed(self, worker_id: int) -> None:
        self._views.pop(worker_id, None)
        self._stalled.clear()

    # ------------------------------------------------------------ inputs

    def told(self, worker_id: int, happened: Input, now: Now) -> None:
        """The engine is about to be told."""
        view = self._views.setdefault(worker_id, View())
        view.finished = None
        match happened:
            case Finished(event, attempt):
                view.in_flight.pop(event.queue_id)
                view.finished = (event, view.health[event.receiver_id].finished(event, attempt, now))
            case Unsendable(event, _):
                view.in_flight.pop(event.queue_id)
                view.health[event.receiver_id].unsendable(event)
            case Settled(settlements):
                for settlement in settlements:
                    view.settling.pop(settlement.event.queue_id)
            case Configured():
                self._reconfigured(view, happened)
            case SendingAllowed(allowed):
                view.sending_allowed = allowed
            case ShardsClaimed(_, failing):
                for receiver_id, stored in failing.items():
                    if receiver_id not in view.health and stored.count >= FAILURES_IN_A_ROW:
                        view.health[receiver_id].open = True
            case ShardsDraining(shards):
                view.leaving.update(shards)
            case ShardsReleased(shards):
                view.leaving.difference_update(shards)
                for receiver_id in [r for r in view.health if shard_of(r) in shards]:
                    del view.health[receiver_id]
            case _:
                pass

    def _reconfigured(self, view: View, configured: Configured) -> None:
        for receiver_id, settings in configured.receivers.items():
            old = view.configured.receivers.get(receiver_id)
            if old is not None and receiver_id in view.health:
                if settings.active and not old.active:
                    view.health[receiver_id].activated()
                if settings.rate_limit_per_second != old.rate_limit_per_second:
                    view.health[receiver_id].rate_changed()
        view.configured = configured

    # ------------------------------------------------------------ effects

    def wants(self, worker: ModelWorker, effect: Effect, now: Now) -> None:
        """The engine wants this done."""
        view = self._views[worker.worker_id]
        match effect:
            case Send(event, number):
                self.requests_count += 1
                self._may_send(worker, view, event, number, now)
            case Settle():
                self._may_settle(worker, view, effect, now)
            case Disable(receiver_id, _):
                if view.finished is None or view.finished[0].receiver_id != receiver_id:
                    raise Violation(f"receiver {receiver_id} disabled without an answer of its own")
            case _:
                pass

    def _may_send(self, worker: ModelWorker, view: View, event: Event, number: int, now: Now) -> None:
        row = self._tables.queue.get(event.queue_id)
        settings = view.configured.receivers.get(event.receiver_id)
        what = f"event {event.event_id}.{event.round} (row {event.queue_id}) of receiver {event.receiver_id}"
        if row is None:
            raise Violation(f"{what} sent after its end was durable")
        if not view.sending_allowed:
            raise Violation(f"{what} sent while sending was not allowed")
        shard = shard_of(event.receiver_id)
        if shard not in worker.shards or shard in view.leaving:
            raise Violation(f"{what} sent by a worker that does not own its shard, or is giving it up")
        if settings is None or not settings.active:
            raise Violation(f"{what} sent to a receiver that is not in service")
        if event.subscription_id not in view.configured.subscriptions:
            raise Violation(f"{what} sent for a subscription that was deleted")
        if _lacks_right(settings, event.change.resource):
            raise Violation(f"{what} sent to a receiver without the right to {event.change.resource}")
        if event.queue_id in view.in_flight or event.queue_id in view.settling:
            raise Violation(f"{what} sent while it was under way or being settled")
        if number != row.attempts_count + 1:
            raise Violation(f"{what}: request {number}, but {row.attempts_count} attempts are stored")
        if row.due_at is not None and row.due_at > self._latest_wall and event.event_id not in self.hurried:
            raise Violation(f"{what} sent {row.due_at - now.wall} before it is due")
        expires_at = self._expires_at(view, row)
        if not self._jumpy and expires_at is not None and expires_at + timedelta(milliseconds=5) < now.wall:
            raise Violation(f"{what} sent {now.wall - expires_at} after it expired")
        if event.receiver_id not in self.unordered and row.round == 0:
            self._in_order(view, row, what)
        view.in_flight[event.queue_id] = (event, row.due_at)
        under_way = len(view.of_receiver(event.receiver_id))
        if under_way > settings.concurrency:
            raise Violation(f"{what}: {under_way} requests at a concurrency of {settings.concurrency}")
        if len(view.in_flight) > self._in_flight_max * ALL_TO_QUICK:
            raise Violation(f"{len(view.in_flight)} requests under way, of at most {self._in_flight_max}")
        health = view.health[event.receiver_id]
        if wrong := health.sent(event, under_way, settings.rate_limit_per_second, now):
            raise Violation(f"{what}: {wrong}")

    def _in_order(self, view: View, row: Row, what: str) -> None:
        for other in self._tables.queue.values():
            if other.queue_id >= row.queue_id:
                break
            same_lane = other.receiver_id == row.receiver_id and other.lane == row.lane
            if same_lane and other.round == 0 and not self._past_block(other):
                raise Violation(f"{what} sent before the end of row {other.queue_id}, earlier in its lane, was durable")
        for event, _ in view.in_flight.values():
            other_row = self._tables.queue.get(event.queue_id)
            if other_row is None or (other_row.receiver_id, other_row.lane) != (row.receiver_id, row.lane):
                continue
            if not self._past_block(other_row) and not self._past_block(row):
                raise Violation(f"{what} sent while row {event.queue_id} of its lane was under way")

    def _past_block(self, row: Row) -> bool:
        """Whether the row may have stopped blocking its lane."""
        block_s = self.shortest_block_s.get(row.receiver_id)
        if block_s is None or row.first_failed_at is None:
            return False
        return row.first_failed_at + timedelta(seconds=block_s) <= self._latest_wall

    def _expires_at(self, view: View, row: Row) -> datetime | None:
        seconds = view.configured.subscriptions.get(row.subscription_id)
        return None if seconds is None or row.round > 0 else row.change.recorded_at + timedelta(seconds=seconds)

    # ------------------------------------------------------------ settlements

    def _may_settle(self, worker: ModelWorker, view: View, settle: Settle, now: Now) -> None:
        event, attempt = settle.event, settle.attempt
        what = f"event {event.event_id}.{event.round} (row {event.queue_id})"
        if event.queue_id in view.settling:
            raise Violation(f"{what} settled while it is being settled")
        if event.queue_id in view.in_flight:
            raise Violation(f"{what} settled while it is under way")
        view.settling[event.queue_id] = event
        if self._tables.workers[worker.worker_id].ended:
            return  # an answer to a worker that was fenced out and does not know it yet: will be refused
        row = self._tables.queue.get(event.queue_id)
        if row is None:
            raise Violation(f"{what} settled after its end was durable")
        if attempt is not None and (view.finished is None or view.finished[0] is not event):
            raise Violation(f"{what} settled with an attempt that did not just end")
        probe = attempt is not None and view.finished is not None and view.finished[1]
        self._counted(row, event, attempt, what, probe=probe and settle.ending is None)
        if settle.ending is None:
            if attempt is None or attempt.outcome is Outcome.SUCCEEDED:
                raise Violation(f"{what} postponed without a failed attempt")
            self._postponed(view, row, event, attempt, what, now, probe=probe)
        else:
            self._ended(view, row, settle, what, now)

    def _counted(self, row: Row, event: Event, attempt: Attempt | None, what: str, *, probe: bool) -> None:
        if event.attempts_count != row.attempts_count + (attempt is not None):
            raise Violation(f"{what}: {event.attempts_count} attempts counted after {row.attempts_count} stored")
        spends = attempt is not None and attempt.outcome is not Outcome.SUCCEEDED and not attempt.ours and not probe
        if not row.spent_count <= event.spent_count <= row.spent_count + spends:
            raise Violation(f"{what}: {event.spent_count} attempts spent after {row.spent_count}, {probe=}")

    def _postponed(
        self, view: View, row: Row, event: Event, attempt: Attempt, what: str, now: Now, *, probe: bool
    ) -> None:
        due_at = event.due_at
        quiet = timedelta(seconds=attempt.retry_after_s or 0)
        if probe:
            if attempt.retry_after_s is not None and (due_at is None or due_at < now.wall + quiet - _ROUNDING):
                raise Violation(f"{what} due at {due_at} although its probe's answer asked for {quiet} of quiet")
            if attempt.retry_after_s is None and due_at != row.due_at and event.event_id not in self.hurried:
                raise Violation(f"{what}: a probe moved its due time")
            return
        settings: ReceiverSettings = view.configured.receivers[event.receiver_id]
        if attempt.ours:
            faults = event.attempts_count - event.spent_count
            step = OWN_FAULT_S[min(faults, len(OWN_FAULT_S)) - 1]
        elif event.spent_count != row.spent_count + 1:
            raise Violation(f"{what}: a failure that counts was not counted")
        else:
            step = settings.retry_schedule_s[event.spent_count]
        if due_at is None:
            raise Violation(f"{what} postponed without a time")
        wait = due_at - now.wall
        low, high = (timedelta(seconds=step * factor) for factor in JITTER)
        if not max(low, quiet) - _ROUNDING <= wait <= max(high, quiet) + _ROUNDING:
            raise Violation(f"{what} waits {wait}, not between {max(low, quiet)} and {max(high, quiet)}")

    def _ended(self, view: View, row: Row, settle: Settle, what: str, now: Now) -> None:
        assert settle.ending is not None
        attempt, status, reason = settle.attempt, settle.ending.status, settle.ending.reason
        settings = view.configured.receivers.get(row.receiver_id)
        expires_at = self._expires_at(view, row)
        succeeded = attempt is not None and attempt.outcome is Outcome.SUCCEEDED
        match (status, reason):
            case (Status.DELIVERED, Reason.SUCCEEDED):
                right = succeeded
            case (Status.FAILED, Reason.ATTEMPTS_EXHAUSTED):
                right = settings is not None and settle.event.spent_count >= len(settings.retry_schedule_s)
            case (Status.FAILED, Reason.BODY_FAILED | Reason.BODY_CHANGED):
                right = attempt is None
            case (Status.EXPIRED, Reason.EXPIRED):
                right = expires_at is not None and expires_at <= now.wall
            # In the tables too: the engine may know too little of them, which would be a loss.
            case (Status.CANCELLED, Reason.RECEIVER_DELETED):
                right = settings is None and row.receiver_id not in self._tables.receivers
            case (Status.CANCELLED, Reason.SUBSCRIPTION_DELETED):
                known = row.subscription_id in view.configured.subscriptions
                right = not known and row.subscription_id not in self._tables.subscriptions
            case (Status.CANCELLED, Reason.RIGHT_REVOKED):
                right = settings is not None and _lacks_right(settings, row.change.resource) and self._lacked(row)
            case (Status.CANCELLED, Reason.CANCELLED_BY_REQUEST):
                right = row.event_id in self.cancelled
            case _:
                right = False
        if not right or (succeeded and status is not Status.DELIVERED):
            raise Violation(f"{what} ended {status} {reason}, which is not what happened")

    def _lacked(self, row: Row) -> bool:
        """Whether the row was there while its receiver had no right to it."""
        settings = self._tables.receivers.get(row.receiver_id)
        lacks_now = settings is None or _lacks_right(settings, row.change.resource)
        return lacks_now or row.queue_id <= self.lacked_upto.get((row.receiver_id, row.change.resource), 0)

    # ------------------------------------------------------------ after a step

    def after_step(self, worker: ModelWorker) -> None:
        """The engine's own figures, as far as they can be seen."""
        view = self._views[worker.worker_id]
        if worker.engine.in_flight != len(view.in_flight):
            raise Violation(f"the engine counts {worker.engine.in_flight} requests, there are {len(view.in_flight)}")
        receivers = len(view.configured.receivers) + len(self.unordered)
        limit = self._window * max(1, receivers) + 4 * len(self.lanes)
        loaded = worker.engine.loaded_count
        # The blocked ones are counted only where they matter: this is asked after every step.
        if loaded > limit and loaded > (limit := limit + self._blocked()):
            raise Violation(f"{loaded} events in memory, of at most {limit}")

    def _blocked(self) -> int:
        return sum(row.due_at is not None for row in self._tables.queue.values())

    def audit(self, workers: list[ModelWorker], now: Now) -> None:
        """No limbo: every open event is under way, due at a known time, behind another, or held for a known reason."""
        owners = {shard: worker for worker in workers for shard in worker.shards}
        heads: set[tuple[int, int]] = set()
        stalled: dict[tuple[int, int], int] = {}
        # Without its jumps the clock would show this; a timer set while it was lowest rings that much later.
        steady = EPOCH + timedelta(microseconds=now.monotonic_ns // 1000) + self._lowest_offset
        for row in self._tables.queue.values():
            lane = (row.receiver_id, row.lane if row.receiver_id in self.ordered else row.queue_id)
            if lane in heads:
                continue
            heads.add(lane)
            worker = owners.get(shard_of(row.receiver_id))
            view = self._views.get(worker.worker_id) if worker is not None else None
            if view is None or self._held(view, row, now):
                continue
            if row.due_at is not None and row.due_at > steady and not self._is_overdue(view, row, now):
                continue
            key = (row.queue_id, row.attempts_count)
            stalled[key] = self._stalled.get(key, now.monotonic_ns)
            sent_ns = view.health.get(row.receiver_id, _WELL).sent_ns
            since_ns = max(stalled[key], sent_ns[-1] if sent_ns else 0)
            if now.monotonic_ns - since_ns > STALLED_S * SECOND_NS:
                raise Violation(
                    f"event {row.event_id}.{row.round} (row {row.queue_id}) of receiver {row.receiver_id} could be sent"
                    f" for {(now.monotonic_ns - since_ns) / SECOND_NS:.0f} s and was not"
                )
        self._stalled = stalled

    def _is_overdue(self, view: View, row: Row, now: Now) -> bool:
        """Whether the row should have ended, whenever its next attempt is due."""
        expires_at = self._expires_at(view, row)
        return not self._jumpy and expires_at is not None and expires_at < now.wall

    def _held(self, view: View, row: Row, now: Now) -> bool:
        """Whether there is a reason why the row is not sent now."""
        settings = view.configured.receivers.get(row.receiver_id)
        health = view.health.get(row.receiver_id, _WELL)
        under_way = len(view.of_receiver(row.receiver_id))
        return (
            not view.sending_allowed
            or shard_of(row.receiver_id) in view.leaving
            or row.queue_id in view.in_flight
            or row.queue_id in view.settling
            or settings is None
            or not settings.active
            or health.open
            or health.quiet_until_ns > now.monotonic_ns
            or under_way >= min(settings.concurrency, health.concurrency)
            or len(view.in_flight) >= self._in_flight_max
        )


def _lacks_right(settings: ReceiverSettings, resource: str) -> bool:
    return settings.readable_resources is not None and resource not in settings.readable_resources
