"""The tables that a worker reads and writes, and its statements on them, in memory.

What PostgreSQL does in one statement is one call here. `test_queue.py` asks both for the same behaviour, so that what the
simulation finds out on this model says something about the real thing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from clarion.core.errors import Fenced, InvariantBroken
from clarion.core.ids import SHARDS_COUNT, shard_of
from clarion.delivery.event import Event
from clarion.delivery.health import Failing
from clarion.delivery.queue import Rows
from clarion.delivery.step import Command, CommandKind, Ending, LoadLane, LoadReceiver, ReceiverSettings, Settle
from clarion.ledger.change import Change
from clarion.sender.outcome import Attempt


@dataclass(slots=True)
class Row:
    """A row of the queue joined with its change."""

    queue_id: int
    event_id: int
    round: int
    receiver_id: int
    subscription_id: int
    lane: int
    change: Change
    organisation_id: int = 1
    sequence: int = 1
    attempts_count: int = 0
    spent_count: int = 0
    due_at: datetime | None = None
    first_failed_at: datetime | None = None
    body_sha256: bytes | None = None

    def event(self) -> Event:
        """A fresh value, as a statement that reads the row gives it."""
        return Event(
            self.queue_id,
            self.event_id,
            self.round,
            self.organisation_id,
            self.receiver_id,
            self.subscription_id,
            self.sequence,
            self.lane,
            self.change,
            self.attempts_count,
            self.spent_count,
            self.due_at,
            self.first_failed_at,
            self.body_sha256,
        )


@dataclass(frozen=True, slots=True)
class SettledRow:
    """A row of the settled events."""

    row: Row
    ending: Ending
    attempts_count: int
    body_sha256: bytes | None
    settled_at: datetime


@dataclass(slots=True)
class WorkerRow:
    releases: int = 0
    ended: bool = False


@dataclass(slots=True)
class Tables:
    """The database. `wall` is its clock."""

    wall: Callable[[], datetime]
    queue: dict[int, Row] = field(default_factory=dict)
    events: dict[tuple[int, int], SettledRow] = field(default_factory=dict)
    attempts: dict[tuple[int, int, int], Attempt] = field(default_factory=dict)
    commands: dict[int, tuple[CommandKind, int, int]] = field(default_factory=dict)
    workers: dict[int, WorkerRow] = field(default_factory=dict)
    live: list[int] = field(default_factory=list)
    shards: dict[int, int | None] = field(default_factory=lambda: dict.fromkeys(range(SHARDS_COUNT)))
    receivers: dict[int, ReceiverSettings] = field(default_factory=dict)
    subscriptions: dict[int, int | None] = field(default_factory=dict)
    failing: dict[int, Failing] = field(default_factory=dict)
    version: int = 1
    last_queue_id: int = 0
    last_command_id: int = 0

    # ------------------------------------------------------------ what others write

    def add(self, row: Row) -> None:
        """A row as the router makes it; queue ids ascend."""
        assert row.queue_id > self.last_queue_id
        self.queue[row.queue_id] = row
        self.last_queue_id = row.queue_id

    def order(self, kind: CommandKind, event_id: int, receiver_id: int) -> int:
        """A command as the API makes it; its id."""
        self.last_command_id += 1
        self.commands[self.last_command_id] = (kind, event_id, shard_of(receiver_id))
        return self.last_command_id

    # ------------------------------------------------------------ workers and shards

    def join(self) -> int:
        """A new worker's id."""
        worker_id = len(self.workers) + 1
        self.workers[worker_id] = WorkerRow()
        self.live.append(worker_id)
        return worker_id

    def rejoin(self, worker_id: int) -> int:
        """How often the worker released shards. Raises Fenced if it was ended."""
        worker = self.workers[worker_id]
        if worker.ended:
            raise Fenced("the worker was ended")
        return worker.releases

    def end(self, worker_id: int) -> None:
        """Fence a worker out, then free its shards."""
        self.workers[worker_id].ended = True
        if worker_id in self.live:
            self.live.remove(worker_id)
        for shard, owner in self.shards.items():
            if owner == worker_id:
                self.shards[shard] = None

    def claim(self, worker_id: int, shards: Collection[int]) -> set[int]:
        """Those of the shards that were free, now the worker's."""
        if self.workers[worker_id].ended:
            return set()
        got = {shard for shard in shards if self.shards[shard] is None}
        self.shards.update(dict.fromkeys(got, worker_id))
        return got

    def release(self, worker_id: int, shards: Collection[int]) -> int:
        """Give shards up; how often the worker did so. Raises Fenced if it was ended."""
        releases = self.rejoin(worker_id) + 1
        self.workers[worker_id].releases = releases
        for shard in shards:
            if self.shards[shard] == worker_id:
                self.shards[shard] = None
        return releases

    def disable(self, receiver_id: int) -> bool:
        """Take an active receiver out of service; whether it was one."""
        settings = self.receivers.get(receiver_id)
        if settings is None or not settings.active:
            return False
        self.receivers[receiver_id] = replace(settings, active=False)
        self.version += 1
        return True


class ModelQueue:
    """One worker's statements: the methods of `clarion.delivery.queue.Queue`, at once instead of awaited."""

    def __init__(self, tables: Tables, worker_id: int, releases: int) -> None:
        self._tables = tables
        self._worker_id = worker_id
        self.releases = releases

    def load_tail(
        self, shards: Collection[int], after_queue_id: int, without_receivers: Sequence[int], limit: int
    ) -> Rows:
        found = []
        for queue_id, row in self._tables.queue.items():  # by ascending id: so they were added
            if queue_id > after_queue_id and row.receiver_id not in without_receivers:
                if shard_of(row.receiver_id) in shards:
                    found.append(row.event())
                if len(found) == limit:
                    break
        return self._rows(found)

    def load_receiver(self, wanted: LoadReceiver) -> Rows:
        rows = [
            row
            for row in self._tables.queue.values()
            if row.receiver_id == wanted.receiver_id and row.queue_id > wanted.after_queue_id
        ]
        return self._rows([row.event() for row in rows[: wanted.limit]])

    def load_lane(self, wanted: LoadLane) -> Rows:
        rows = [
            row
            for row in self._tables.queue.values()
            if row.receiver_id == wanted.receiver_id
            and row.lane == wanted.lane
            and wanted.after_queue_id < row.queue_id <= wanted.upto_queue_id
        ]
        return self._rows([row.event() for row in rows[: wanted.limit]])

    def _rows(self, events: list[Event]) -> Rows:
        return Rows(events, self._tables.version, self._tables.last_queue_id)

    def load_commands(self, shards: Collection[int], taken: Collection[int], limit: int) -> list[Command]:
        chosen = [
            (command_id, kind, event_id)
            for command_id, (kind, event_id, shard) in self._tables.commands.items()
            if shard in shards and command_id not in taken
        ][:limit]
        open_rows = {row.event_id: row for row in self._tables.queue.values()} if chosen else {}
        return [
            Command(command_id, kind, open_rows[event_id].event() if event_id in open_rows else None)
            for command_id, kind, event_id in chosen
        ]

    def settle(self, settlements: Sequence[Settle], obeyed: Sequence[int] = ()) -> None:
        worker = self._tables.workers[self._worker_id]
        if worker.ended or worker.releases != self.releases:
            raise Fenced("this worker or its shards were taken over")
        for settlement in settlements:
            event, ending = settlement.event, settlement.ending
            row = self._tables.queue.get(event.queue_id)
            key = (event.event_id, event.round, event.attempts_count)
            if row is not None and ending is not None:
                if settlement.attempt is not None and key in self._tables.attempts:
                    raise InvariantBroken(f"attempt {key} was stored before the event that it ends")
                self._end(row, event, ending)
            elif row is not None and row.attempts_count <= event.attempts_count:
                row.due_at = event.due_at
                row.attempts_count = event.attempts_count
                row.spent_count = event.spent_count
                row.first_failed_at = event.first_failed_at
                row.body_sha256 = event.body_sha256
            if settlement.attempt is not None:
                self._tables.attempts.setdefault(key, settlement.attempt)
        for command_id in (*obeyed, *(command_id for s in settlements for command_id in s.command_ids)):
            self._tables.commands.pop(command_id, None)

    def _end(self, row: Row, event: Event, ending: Ending) -> None:
        key = (row.event_id, row.round)
        if key in self._tables.events:
            raise InvariantBroken(f"event {key} ended twice")
        del self._tables.queue[row.queue_id]
        self._tables.events[key] = SettledRow(row, ending, event.attempts_count, event.body_sha256, self._tables.wall())
