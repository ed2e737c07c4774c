"""Loading and settling: the worker's reads of the queue and its one statement that stores outcomes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import asyncpg
import orjson

from clarion.core.ids import shard_of
from clarion.database.pool import store_errors
from clarion.database.statements import load_statements
from clarion.delivery.event import Event
from clarion.delivery.health import Failing
from clarion.delivery.step import Command, CommandKind, LoadLane, LoadReceiver, Remember, Settle
from clarion.ledger.change import Change

SQL = load_statements("clarion.delivery", "delivery.sql")


class Rows(NamedTuple):
    """What one statement read: events, and from the same snapshot the configuration's version and the last queue id."""

    events: list[Event]
    version: int
    last_queue_id: int


class Queue:
    """Statements on queue, events and attempts. Raises StoreUnavailable, Fenced or InvariantBroken."""

    def __init__(self, reading: asyncpg.Connection, writing: asyncpg.Connection, worker_id: int, releases: int) -> None:
        self._reading = reading
        self._writing = writing
        self._worker_id = worker_id
        self.releases = releases

    async def load_tail(
        self, shards: Collection[int], after_queue_id: int, without_receivers: Sequence[int], limit: int
    ) -> Rows:
        """Rows of the shards above `after_queue_id`, by ascending queue id."""
        with store_errors("load the queue"):
            return _rows(
                await self._reading.fetch(
                    SQL["load_tail"], list(shards), after_queue_id, list(without_receivers), limit
                )
            )

    async def load_receiver(self, wanted: LoadReceiver) -> Rows:
        """The receiver's rows above those it has, by ascending queue id."""
        with store_errors("load a receiver's queue"):
            return _rows(
                await self._reading.fetch(SQL["load_receiver"], wanted.receiver_id, wanted.after_queue_id, wanted.limit)
            )

    async def load_commands(self, shards: Collection[int], taken: Collection[int], limit: int) -> list[Command]:
        """Orders about events of these shards that are not among `taken`, by ascending id."""
        with store_errors("load commands"):
            records = await self._reading.fetch(SQL["load_commands"], list(shards), list(taken), limit)
        return [
            Command(
                record["command_id"],
                CommandKind(record["kind"]),
                None if record["queue_id"] is None else _event(record[2:]),
            )
            for record in records
        ]

    async def load_lane(self, wanted: LoadLane) -> Rows:
        """The lane's next rows, by ascending queue id."""
        with store_errors("load a lane"):
            return _rows(
                await self._reading.fetch(
                    SQL["load_lane"],
                    wanted.receiver_id,
                    wanted.lane,
                    wanted.after_queue_id,
                    wanted.upto_queue_id,
                    wanted.limit,
                )
            )

    async def load_failing(self, shards: Collection[int]) -> dict[int, Failing]:
        """What is stored of the receivers of these shards that fail, by receiver."""
        with store_errors("load the receivers that fail"):
            records = await self._reading.fetch(SQL["load_failing"])
        return {
            record["receiver_id"]: Failing(record["failing_since"], record["failed_count"])
            for record in records
            if shard_of(record["receiver_id"]) in shards
        }

    async def remember(self, told: Sequence[Remember]) -> None:
        """Store which receivers fail, at most once for each. Nothing is stored for a worker that another took over."""
        with store_errors("store which receivers fail"):
            await self._reading.execute(
                SQL["remember"],
                self._worker_id,
                [one.receiver_id for one in told],
                [one.failing.since if one.failing else None for one in told],
                [one.failing.count if one.failing else None for one in told],
            )

    async def settle(self, settlements: Sequence[Settle], obeyed: Sequence[int] = ()) -> None:
        """Store all of them and delete the orders that they carry out and those `obeyed`, or none of it.

        Raises Fenced if another worker took over, or if shards were released meanwhile.
        """
        ended = [s for s in settlements if s.ending is not None]
        postponed = [s.event for s in settlements if s.ending is None]
        attempted = [(s.event, s.attempt) for s in settlements if s.attempt is not None]
        with store_errors("settle"):
            await self._writing.fetchval(
                SQL["settle"],
                self._worker_id,
                [s.event.queue_id for s in ended],
                [s.ending.status.value for s in ended if s.ending],
                [s.ending.reason.value for s in ended if s.ending],
                [s.event.attempts_count for s in ended],
                [s.event.body_sha256 for s in ended],
                [e.queue_id for e in postponed],
                [e.due_at for e in postponed],
                [e.attempts_count for e in postponed],
                [e.spent_count for e in postponed],
                [e.first_failed_at for e in postponed],
                [e.body_sha256 for e in postponed],
                [e.event_id for e, _ in attempted],
                [e.round for e, _ in attempted],
                [e.attempts_count for e, _ in attempted],
                [e.organisation_id for e, _ in attempted],
                [a.started_at for _, a in attempted],
                [a.duration_ms for _, a in attempted],
                [a.status_code for _, a in attempted],
                [a.outcome.value for _, a in attempted],
                [_headers(a.response_headers) for _, a in attempted],
                [a.response_body for _, a in attempted],
                [_text(a.error) for _, a in attempted],
                [a.source_address for _, a in attempted],
                [a.peer_address for _, a in attempted],
                [*obeyed, *(command_id for s in settlements for command_id in s.command_ids)],
                self.releases,
            )


def _headers(pairs: Sequence[tuple[str, str]]) -> str | None:
    """JSON text of the pairs; NUL, which PostgreSQL's text cannot hold, is escaped by JSON."""
    return orjson.dumps(pairs).decode() if pairs else None


def _text(text: str | None) -> str | None:
    """Text as PostgreSQL can hold it: without NUL and without lone surrogates, wherever it came from."""
    return None if text is None else text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _rows(records: Sequence[Any]) -> Rows:
    version, last_queue_id, queue_id = records[0][:3]
    events = [] if queue_id is None else [_event(record[2:]) for record in records]
    return Rows(events, version, last_queue_id)


def _event(columns: Any) -> Event:
    """From the columns that the statements call `event`."""
    (queue_id, event_id, round_, organisation_id, receiver_id, subscription_id, sequence, lane, *tried) = columns[:13]
    change = Change._make(columns[13:])
    return Event(
        queue_id, event_id, round_, organisation_id, receiver_id, subscription_id, sequence, lane, change, *tried
    )
