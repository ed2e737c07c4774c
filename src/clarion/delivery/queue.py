"""Loading and settling: the worker's reads of the queue and its one statement that stores outcomes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, cast

import asyncpg
import msgspec
import orjson

from clarion.core.ids import shard_of
from clarion.database.pool import store_errors
from clarion.database.statements import array_text, load_statements
from clarion.delivery.event import Event
from clarion.delivery.health import Failing
from clarion.delivery.step import Command, CommandKind, Ending, LoadLane, LoadReceiver, Remember, Settle
from clarion.ledger.change import Change
from clarion.sender.outcome import Attempt

SQL = load_statements("clarion.delivery", "delivery.sql")
_NO_ATTEMPT: Attempt = cast(Any, Attempt)(*[None] * len(msgspec.structs.fields(Attempt)))
"""The columns of an event without one."""
_NO_HASH = bytes(32)
"""In the place of an event that was never sent."""


class Rows(NamedTuple):
    """What one statement read: events, and from the same snapshot the configuration's version and the last queue id."""

    events: list[Event]
    version: int
    last_queue_id: int

    def end(self, limit: int) -> tuple[int, bool]:
        """Up to which queue id a read of `limit` rows has come, and whether it stopped there because of its limit.

        What was passed over belongs to receivers whose rows are read apart: it is not to be scanned at each look.
        """
        found = self.events[-1].queue_id if self.events else 0
        full = len(self.events) == limit
        return (found if full else max(found, self.last_queue_id)), full


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
                None if record["queue_id"] is None else _event(record),
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
        postponed = [s for s in settlements if s.ending is None]
        command_ids = [*obeyed, *(command_id for s in settlements for command_id in s.command_ids)]
        arguments = (self._worker_id, self.releases, *_columns([*ended, *postponed]), len(ended))
        with store_errors("settle"):
            if postponed or command_ids:
                await self._writing.fetchval(SQL["settle"], *arguments, array_text(command_ids))
            else:
                await self._writing.fetchval(SQL["settle_ended"], *arguments)


def _columns(settlements: Sequence[Settle]) -> tuple[str, bytes, bytes, str, str, str, str]:
    """What was sent and what came of it: kinds of rows, bodies, hashes; queue ids, each row's kind, durations, starts."""
    kinds: dict[tuple[Any, ...], int] = {}
    places: list[int] = []
    queue_ids: list[int] = []
    hashes: list[bytes] = []
    durations: list[int | None] = []
    starts: list[datetime | None] = []
    for settle in settlements:
        event = settle.event
        attempt = settle.attempt or _NO_ATTEMPT
        places.append(kinds.setdefault(_kind(event, attempt, settle.ending), len(kinds)))
        queue_ids.append(event.queue_id)
        hashes.append(event.body_sha256 or _NO_HASH)
        durations.append(attempt.duration_ms)
        starts.append(attempt.started_at)
    return (
        *_storable(kinds),
        b"".join(hashes),
        array_text(queue_ids),
        array_text(places),
        array_text(durations),
        array_text(starts),
    )


def _kind(event: Event, attempt: Attempt, ending: Ending | None) -> tuple[Any, ...]:
    """What the outcomes of many events have in common, in the order in which the statements take it apart."""
    return (
        *(
            (None, None, event.due_at, event.spent_count, event.first_failed_at)
            if ending is None
            else (ending.status, ending.reason, None, None, None)
        ),
        event.attempts_count,
        event.body_sha256 is not None,
        attempt.status_code,
        attempt.outcome,
        attempt.response_headers,
        attempt.response_body,
        attempt.error,
        attempt.source_address,
        attempt.peer_address,
    )


def _storable(kinds: Collection[tuple[Any, ...]]) -> tuple[str, bytes]:
    """The same as JSON, and the bodies, of any bytes, one after the other: in their place stand start and length of each."""
    rows: list[tuple[Any, ...]] = []
    bodies: list[bytes] = []
    start = 1
    for *known, headers, body, error, source_address, peer_address in kinds:
        length = None if body is None else len(body)
        rows.append((*known, _headers(headers), start, length, _text(error), source_address, peer_address))
        if body:
            bodies.append(body)
            start += len(body)
    return orjson.dumps(rows).decode(), b"".join(bodies)


@lru_cache(maxsize=256)
def _headers(pairs: tuple[tuple[str, str], ...] | None) -> str | None:
    """JSON text of the pairs; NUL, which PostgreSQL's text cannot hold, is escaped by JSON."""
    return orjson.dumps(pairs).decode() if pairs else None


def _text(text: str | None) -> str | None:
    """Text as PostgreSQL can hold it: without NUL and without lone surrogates, wherever it came from."""
    return None if text is None else text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _rows(records: Sequence[Any]) -> Rows:
    version, last_queue_id, queue_id = records[0][:3]
    events: list[Event] = []
    change: Change | None = None
    for record in records if queue_id is not None else ():
        event = _event(record, change)
        if event.change is change:
            event.shares_change = events[-1].shares_change = True
        change = event.change
        events.append(event)
    return Rows(events, version, last_queue_id)


def _event(record: Any, before: Change | None = None) -> Event:
    """From two columns and those that the statements call `event`; a change that is the one `before` is kept once for both."""
    # fmt: off
    (
        _, _, queue_id, event_id, round_, organisation_id, receiver_id, subscription_id, sequence, lane,
        attempts_count, spent_count, due_at, first_failed_at, body_sha256, render_version, fields, body,
        position, change_id, resource, action, object_id, occurred_at, recorded_at, actor_id, actor_name, correlation_id, old, new,
    ) = record  # by name it would take twice as long
    if before is not None and before.position == position:
        change = before
    else:
        change = Change(
            position, change_id, resource, action, object_id, _moment(occurred_at), _kept_moment(recorded_at),
            actor_id, actor_name, correlation_id, old, new,
        )
    return Event(
        queue_id, event_id, round_, organisation_id, receiver_id, subscription_id, sequence, lane, change,
        attempts_count, spent_count, due_at, first_failed_at, body_sha256, render_version, fields, body,
    )
    # fmt: on


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


_kept_moment = lru_cache(maxsize=64)(_moment)
"""For moments that many rows have: all changes of one batch of the router are recorded at once."""
