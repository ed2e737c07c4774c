"""One behaviour of loading and settling, asked of the model that the simulation runs on and of PostgreSQL itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from inspect import isawaitable
from typing import Any

import asyncpg
import pytest
from msgspec import structs

from clarion.core.errors import Fenced
from clarion.core.ids import shard_of
from clarion.database.address import DatabaseAddress
from clarion.delivery.event import Reason, Status
from clarion.delivery.queue import Queue, Rows
from clarion.delivery.step import CommandKind, Ending, LoadLane, LoadReceiver, Settle
from clarion.ledger.change import Change
from clarion.sender.outcome import Attempt, Outcome
from simulation.model_queue import ModelQueue, Row, Tables

EPOCH = datetime(2026, 11, 24, tzinfo=UTC)
DELIVERED = Ending(Status.DELIVERED, Reason.SUCCEEDED)
ALL = range(64)
HASH = sha256(b"body").digest()


def change(position: int) -> Change:
    occurred_at = EPOCH + timedelta(microseconds=position * 1_234_567)
    recorded_at = EPOCH + timedelta(days=1, microseconds=-position)
    return Change(position, position, "RUNS", "u", "7", occurred_at, recorded_at, "1", "operator", None, "{}", "{}")


def attempt(outcome: Outcome = Outcome.SUCCEEDED) -> Attempt:
    return Attempt(outcome, EPOCH, 5, 200, (("a", "b"),), b"body", None, None, None, None)


def _whole(a: Attempt) -> tuple[Any, ...]:
    """All of an attempt that is stored beside its event and outcome."""
    return (
        a.started_at,
        a.duration_ms,
        a.status_code,
        a.response_headers,
        a.response_body,
        a.error,
        a.source_address,
        a.peer_address,
    )


class Model:
    """The model's tables, seen as the tests want to see them."""

    def __init__(self) -> None:
        self.tables = Tables(lambda: EPOCH)

    async def join(self) -> int:
        return self.tables.join()

    async def end(self, worker_id: int) -> None:
        self.tables.end(worker_id)

    async def release(self, worker_id: int) -> int:
        return self.tables.release(worker_id, (1,))

    async def reconfigure(self) -> None:
        self.tables.version += 1

    async def add(self, receiver_id: int, lane: int = 1, *, queue_id: int | None = None) -> int:
        number = queue_id or self.tables.last_queue_id + 1
        self.tables.add(Row(number, number, 0, receiver_id, 1, lane, change(number)))
        return number

    async def order(self, kind: CommandKind, event_id: int, receiver_id: int) -> int:
        return self.tables.order(kind, event_id, receiver_id)

    async def orders(self) -> list[int]:
        return list(self.tables.commands)

    async def open_rows(self) -> dict[int, tuple[Any, ...]]:
        return {
            r.queue_id: (r.due_at, r.attempts_count, r.spent_count, r.first_failed_at, r.body_sha256)
            for r in self.tables.queue.values()
        }

    async def ended(self) -> dict[int, tuple[str, str, int]]:
        return {
            event_id: (e.ending.status.value, e.ending.reason.value, e.attempts_count)
            for (event_id, _), e in self.tables.events.items()
        }

    async def attempts(self) -> list[tuple[int, int, str]]:
        return [(event_id, number, a.outcome.value) for (event_id, _, number), a in self.tables.attempts.items()]

    async def whole_attempts(self) -> dict[tuple[int, int], tuple[Any, ...]]:
        return {(event_id, number): _whole(a) for (event_id, _, number), a in self.tables.attempts.items()}

    async def hashes(self) -> dict[int, bytes | None]:
        return {event_id: e.body_sha256 for (event_id, _), e in self.tables.events.items()}

    def queue(self, worker_id: int, releases: int = 0) -> ModelQueue:
        return ModelQueue(self.tables, worker_id, releases)


class Real:
    """The same of PostgreSQL."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._last = 0

    async def prepare(self) -> None:
        await self._connection.execute(
            "INSERT INTO clarion.organisations (id, name) OVERRIDING SYSTEM VALUE VALUES (1, 'one')"
        )

    async def empty(self) -> None:
        for table in ("commands", "attempts", "events", "queue", "ledger", "workers", "organisations"):
            await self._connection.execute(f"DELETE FROM clarion.{table}")
        await self._connection.execute("UPDATE clarion.counters SET queue_id = 0")

    async def join(self) -> int:
        return await self._connection.fetchval(
            "INSERT INTO clarion.workers (name, backend_pid) VALUES ('w', 1) RETURNING id"
        )

    async def end(self, worker_id: int) -> None:
        await self._connection.execute("UPDATE clarion.workers SET ended_at = now() WHERE id = $1", worker_id)

    async def release(self, worker_id: int) -> int:
        return await self._connection.fetchval(
            "UPDATE clarion.workers SET releases = releases + 1 WHERE id = $1 RETURNING releases", worker_id
        )

    async def reconfigure(self) -> None:
        await self._connection.execute("UPDATE clarion.configuration SET version = version + 1")

    async def add(self, receiver_id: int, lane: int = 1, *, queue_id: int | None = None) -> int:
        number = self._last = queue_id or self._last + 1
        c = change(number)
        await self._connection.execute(
            "INSERT INTO clarion.ledger (position, organisation_id, change_id, outbox_id, recorded_at, occurred_at,"
            " captured_at, xid, action, resource, object_id, actor_id, actor_name, link, old, new)"
            " VALUES ($1, 1, $1, $1, $2, $3, $3, '1', 'u', $4, $5, $6, $7, sha256(''), $8, $9)",
            number,
            c.recorded_at,
            c.occurred_at,
            c.resource,
            c.object_id,
            c.actor_id,
            c.actor_name,
            c.old,
            c.new,
        )
        await self._connection.execute(
            "INSERT INTO clarion.queue (queue_id, event_id, organisation_id, receiver_id, subscription_id, position, sequence,"
            " lane, shard) VALUES ($1, $1, 1, $2, 1, $1, 1, $3, $4)",
            number,
            receiver_id,
            lane,
            shard_of(receiver_id),
        )
        await self._connection.execute("UPDATE clarion.counters SET queue_id = $1", number)
        return number

    async def order(self, kind: CommandKind, event_id: int, receiver_id: int) -> int:
        return await self._connection.fetchval(
            "INSERT INTO clarion.commands (organisation_id, shard, kind, event_id) VALUES (1, $1, $2, $3) RETURNING id",
            shard_of(receiver_id),
            kind.value,
            event_id,
        )

    async def orders(self) -> list[int]:
        return [r["id"] for r in await self._connection.fetch("SELECT id FROM clarion.commands ORDER BY id")]

    async def open_rows(self) -> dict[int, tuple[Any, ...]]:
        records = await self._connection.fetch(
            "SELECT queue_id, due_at, attempts_count, spent_count, first_failed_at, body_sha256 FROM clarion.queue"
        )
        return {r[0]: tuple(r)[1:] for r in records}

    async def ended(self) -> dict[int, tuple[str, str, int]]:
        records = await self._connection.fetch("SELECT event_id, status, reason, attempts_count FROM clarion.events")
        return {r[0]: (r[1], r[2], r[3]) for r in records}

    async def attempts(self) -> list[tuple[int, int, str]]:
        records = await self._connection.fetch(
            "SELECT event_id, number, outcome FROM clarion.attempts ORDER BY event_id, number"
        )
        return [(r[0], r[1], r[2]) for r in records]

    async def whole_attempts(self) -> dict[tuple[int, int], tuple[Any, ...]]:
        records = await self._connection.fetch(
            "SELECT event_id, number, started_at, duration_ms, status_code, response_headers, response_body, error,"
            " source_address, peer_address FROM clarion.attempts"
        )
        return {
            (r[0], r[1]): (*r[2:5], tuple((name, value) for name, value in json.loads(r[5] or "[]")), *r[6:])
            for r in records
        }

    async def hashes(self) -> dict[int, bytes | None]:
        records = await self._connection.fetch("SELECT event_id, body_sha256 FROM clarion.events")
        return {r[0]: r[1] for r in records}

    def queue(self, worker_id: int, releases: int = 0) -> Queue:
        return Queue(self._connection, self._connection, worker_id, releases)


@pytest.fixture(params=["model", pytest.param("postgresql", marks=pytest.mark.data_path)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Model | Real]:
    """The model, or the module's database, emptied after the test."""
    if request.param == "model":
        yield Model()
        return
    address: DatabaseAddress = request.getfixturevalue("shared_database")
    connection = await asyncpg.connect(address.url)
    try:
        real = Real(connection)
        await real.prepare()
        yield real
        await real.empty()
    finally:
        await connection.close()


async def done(answer: Any) -> Any:
    """The model answers at once, PostgreSQL when awaited."""
    return await answer if isawaitable(answer) else answer


def ids(rows: Rows) -> list[int]:
    return [event.queue_id for event in rows.events]


async def test_the_tail_is_read_by_ascending_id_above_the_last_one_seen(store: Model | Real) -> None:
    queue = store.queue(await store.join())
    for receiver_id in (3, 1, 2, 1):
        await store.add(receiver_id)
    assert ids(await done(queue.load_tail(ALL, 0, [], 10))) == [1, 2, 3, 4]
    assert ids(await done(queue.load_tail(ALL, 2, [], 10))) == [3, 4]
    assert ids(await done(queue.load_tail(ALL, 4, [], 10))) == []


async def test_rows_come_with_the_configuration_and_the_last_queue_id_of_their_moment(store: Model | Real) -> None:
    queue = store.queue(await store.join())
    before = await done(queue.load_tail(ALL, 0, [], 10))
    assert (before.events, before.last_queue_id) == ([], 0)
    await store.reconfigure()
    await store.add(1)
    await store.add(2)
    for rows in (
        await done(queue.load_tail(ALL, 0, [], 10)),
        await done(queue.load_tail(ALL, 0, [], 0)),
        await done(queue.load_receiver(LoadReceiver(3, 0, 10))),
        await done(queue.load_lane(LoadLane(1, 1, 0, 9, 10))),
    ):
        assert (rows.version, rows.last_queue_id) == (before.version + 1, 2)


async def test_the_tail_ends_at_the_limit_and_leaves_out_receivers_and_foreign_shards(store: Model | Real) -> None:
    queue = store.queue(await store.join())
    for receiver_id in (1, 2, 3, 65, 1):
        await store.add(receiver_id)
    assert ids(await done(queue.load_tail(ALL, 0, [], 2))) == [1, 2]
    assert ids(await done(queue.load_tail(ALL, 0, [1, 2], 2))) == [3, 4]
    assert ids(await done(queue.load_tail({shard_of(65)}, 0, [], 10))) == [1, 4, 5]


async def test_a_loaded_event_carries_its_row_and_its_change(store: Model | Real) -> None:
    queue = store.queue(await store.join())
    await store.add(5, lane=9)
    (event,) = (await done(queue.load_tail(ALL, 0, [], 10))).events
    assert (event.event_id, event.round, event.receiver_id, event.subscription_id, event.lane) == (1, 0, 5, 1, 9)
    assert (event.attempts_count, event.spent_count, event.due_at, event.first_failed_at) == (0, 0, None, None)
    assert event.change == change(1)


async def test_a_changes_moments_come_to_the_microsecond(store: Model | Real) -> None:
    queue = store.queue(await store.join())
    for _ in range(50):
        await store.add(5)
    events = (await done(queue.load_tail(ALL, 0, [], 50))).events
    assert [event.change for event in events] == [change(number) for number in range(1, 51)]


async def test_a_receivers_rows_are_read_by_ascending_id_up_to_the_limit(store: Model | Real) -> None:
    queue = store.queue(await store.join())
    for receiver_id in (1, 2, 1, 1):
        await store.add(receiver_id)
    assert ids(await done(queue.load_receiver(LoadReceiver(1, 0, 2)))) == [1, 3]
    assert ids(await done(queue.load_receiver(LoadReceiver(1, 3, 2)))) == [4]


async def test_a_lanes_rows_are_read_between_two_ids(store: Model | Real) -> None:
    queue = store.queue(await store.join())
    for receiver_id, lane in ((1, 7), (1, 8), (1, 7), (2, 7), (1, 7), (1, 7)):
        await store.add(receiver_id, lane)
    assert ids(await done(queue.load_lane(LoadLane(1, 7, 1, 5, 10)))) == [3, 5]
    assert ids(await done(queue.load_lane(LoadLane(1, 7, 1, 6, 2)))) == [3, 5]


async def test_an_ended_event_leaves_the_queue_with_its_end_and_its_attempt(store: Model | Real) -> None:
    queue = store.queue(await store.join())
    await store.add(1)
    await store.add(1)
    (event,) = (await done(queue.load_tail(ALL, 0, [], 1))).events
    event.attempts_count = 1
    await done(queue.settle([Settle(event, attempt(), DELIVERED, None)]))
    assert list(await store.open_rows()) == [2]
    assert await store.ended() == {1: ("DELIVERED", "SUCCEEDED", 1)}
    assert await store.attempts() == [(1, 1, "SUCCEEDED")]


async def test_a_postponed_event_keeps_its_place_and_what_is_known_of_it(store: Model | Real) -> None:
    queue = store.queue(await store.join())
    await store.add(1)
    await store.add(1)
    (event,) = (await done(queue.load_tail(ALL, 0, [], 1))).events
    event.attempts_count, event.spent_count = 2, 1
    event.due_at, event.first_failed_at, event.body_sha256 = EPOCH + timedelta(5), EPOCH, HASH
    await done(queue.settle([Settle(event, attempt(Outcome.TIMED_OUT), None, event.due_at)]))
    assert (await store.open_rows())[1] == (EPOCH + timedelta(5), 2, 1, EPOCH, HASH)
    again = (await done(queue.load_tail(ALL, 0, [], 10))).events[0]
    assert (again.queue_id, again.due_at, again.attempts_count, again.spent_count) == (1, event.due_at, 2, 1)
    assert await store.attempts() == [(1, 2, "TIMED_OUT")]
    assert await store.ended() == {}


async def test_rows_that_are_alike_and_rows_that_differ_keep_what_is_theirs(store: Model | Real) -> None:
    """In one batch: most are alike, some have their own answer, one was never sent, one of two that failed goes on."""
    queue = store.queue(await store.join())
    for _ in range(12):
        await store.add(1)
    events = (await done(queue.load_tail(ALL, 0, [], 12))).events
    settlements: list[Settle] = []
    for number, event in enumerate(events):
        event.attempts_count = 1 + number % 2
        event.body_sha256 = sha256(b"%d" % number).digest()
        tried = Attempt(
            Outcome.SUCCEEDED if number < 10 else Outcome.UNEXPECTED_STATUS,
            EPOCH + timedelta(microseconds=number * 7),
            number,
            200 if number < 10 else 500,
            (("a", "b"),) if number < 5 else (("date", str(number)),),
            b"" if number < 5 else bytes(range(number)),
            None if number < 10 else f"failed {number}",
            "127.0.0.1",
            "::1" if number % 3 else None,
            None,
        )
        settlements.append(Settle(event, tried, DELIVERED, None))
    events[7].body_sha256 = None
    settlements[7] = Settle(events[7], None, Ending(Status.EXPIRED, Reason.EXPIRED), None)
    events[3].due_at = EPOCH + timedelta(microseconds=1)
    settlements[3] = Settle(events[3], settlements[3].attempt, None, events[3].due_at)
    settlements[11] = Settle(events[11], settlements[11].attempt, None, None)
    await done(queue.settle(settlements))
    assert {queue_id: (row[0], row[1], row[4]) for queue_id, row in (await store.open_rows()).items()} == {
        4: (events[3].due_at, 2, events[3].body_sha256),
        12: (None, 2, events[11].body_sha256),
    }
    ended = [s for s in settlements if s.ending is not None]
    assert await store.hashes() == {s.event.event_id: s.event.body_sha256 for s in ended}
    assert await store.ended() == {
        s.event.event_id: (s.ending.status.value, s.ending.reason.value, s.event.attempts_count)
        for s in ended
        if s.ending
    }
    assert await store.whole_attempts() == {
        (s.event.event_id, s.event.attempts_count): _whole(a) for s in settlements if (a := s.attempt)
    }


@pytest.mark.parametrize("store", [pytest.param("postgresql", marks=pytest.mark.data_path)], indirect=True)
async def test_whatever_a_receiver_answers_can_be_stored(store: Real) -> None:
    queue = store.queue(await store.join())
    await store.add(1)
    await store.add(1)
    ended, postponed = (await queue.load_tail(ALL, 0, [], 2)).events
    hostile = 'a\0b \ud800 "quoted" \\u0000 {1,2} \u2028 \U0001f4a5\n\x1f'
    headers = (("x-\x7f", '\0 "\\u0000" \xff {}'), ("x", ""), ("x", "[]"))
    body = bytes(range(256)) * 16
    tried = Attempt(Outcome.PROTOCOL_ERROR, EPOCH, 0, None, headers, body, hostile, None, None, None)
    ended.attempts_count = postponed.attempts_count = 1
    failed = Ending(Status.FAILED, Reason.ATTEMPTS_EXHAUSTED)
    await queue.settle([Settle(postponed, tried, None, None), Settle(ended, tried, failed, None)])
    shown = hostile.replace("\0", "\ufffd").replace("\ud800", "?")
    stored = (EPOCH, 0, None, headers, body, shown, None, None)
    assert await store.whole_attempts() == {(1, 1): stored, (2, 1): stored}


async def test_a_postponement_that_comes_late_takes_nothing_back(store: Model | Real) -> None:
    """As one of a session that was lost, repeated on the next one, and carried out by the server after all."""
    queue = store.queue(await store.join())
    await store.add(1)
    (event,) = (await done(queue.load_tail(ALL, 0, [], 1))).events
    first = structs.replace(event, attempts_count=1, spent_count=1, due_at=EPOCH)
    second = structs.replace(event, attempts_count=2, spent_count=2, due_at=EPOCH + timedelta(1))
    for one in (first, second, first):
        await done(queue.settle([Settle(one, attempt(Outcome.TIMED_OUT), None, one.due_at)]))
    assert (await store.open_rows())[1][:3] == (EPOCH + timedelta(1), 2, 2)
    third = structs.replace(second, attempts_count=3)
    await done(queue.settle([Settle(third, attempt(), DELIVERED, None)]))
    assert await store.attempts() == [(1, 1, "TIMED_OUT"), (1, 2, "TIMED_OUT"), (1, 3, "SUCCEEDED")]


async def test_settling_twice_is_harmless(store: Model | Real) -> None:
    queue = store.queue(await store.join())
    await store.add(1)
    await store.add(2)
    ended, postponed = (await done(queue.load_tail(ALL, 0, [], 10))).events
    ended.attempts_count = postponed.attempts_count = 1
    postponed.due_at = EPOCH
    settlements = [
        Settle(ended, attempt(), DELIVERED, None),
        Settle(postponed, attempt(Outcome.TLS_FAILED), None, EPOCH),
    ]
    await done(queue.settle(settlements))
    before = (await store.open_rows(), await store.ended(), await store.attempts())
    await done(queue.settle(settlements))
    assert (await store.open_rows(), await store.ended(), await store.attempts()) == before
    assert await store.attempts() == [(1, 1, "SUCCEEDED"), (2, 1, "TLS_FAILED")]


@pytest.mark.parametrize("fenced_by", ["take-over", "release"])
async def test_a_fenced_settle_is_refused_and_nothing_of_it_is_stored(store: Model | Real, fenced_by: str) -> None:
    worker_id = await store.join()
    queue = store.queue(worker_id)
    await store.add(1)
    await store.add(2)
    ordered = await store.order(CommandKind.CANCEL, 2, 2)
    ended, postponed = (await done(queue.load_tail(ALL, 0, [], 10))).events
    ended.attempts_count = postponed.attempts_count = 1
    before = await store.open_rows()
    if fenced_by == "take-over":
        await store.end(worker_id)
    else:
        await store.release(worker_id)
    with pytest.raises(Fenced):
        await done(
            queue.settle(
                [Settle(ended, attempt(), DELIVERED, None), Settle(postponed, attempt(), None, EPOCH)], [ordered]
            )
        )
    assert await store.open_rows() == before
    assert await store.ended() == {}
    assert await store.attempts() == []
    assert await store.orders() == [ordered]


async def test_a_settle_after_a_release_is_accepted_with_the_new_number(store: Model | Real) -> None:
    worker_id = await store.join()
    releases = await store.release(worker_id)
    await store.add(1)
    queue = store.queue(worker_id, releases)
    (event,) = (await done(queue.load_tail(ALL, 0, [], 10))).events
    await done(queue.settle([Settle(event, None, Ending(Status.EXPIRED, Reason.EXPIRED), None)]))
    assert await store.ended() == {1: ("EXPIRED", "EXPIRED", 0)}
    assert await store.attempts() == []


async def test_orders_come_with_their_open_event_and_go_when_they_are_carried_out(store: Model | Real) -> None:
    queue = store.queue(await store.join())
    await store.add(1)
    await store.add(2)
    first = await store.order(CommandKind.CANCEL, 1, 1)
    second = await store.order(CommandKind.RETRY_NOW, 2, 2)
    third = await store.order(CommandKind.CANCEL, 99, 1)
    commands = await done(queue.load_commands(ALL, [], 10))
    assert [(c.command_id, c.kind, c.event and c.event.queue_id) for c in commands] == [
        (first, CommandKind.CANCEL, 1),
        (second, CommandKind.RETRY_NOW, 2),
        (third, CommandKind.CANCEL, None),
    ]
    assert [c.command_id for c in await done(queue.load_commands(ALL, [first], 1))] == [second]
    assert [c.command_id for c in await done(queue.load_commands({shard_of(2)}, [], 10))] == [second]
    event = commands[0].event
    assert event is not None
    cancelled = Ending(Status.CANCELLED, Reason.CANCELLED_BY_REQUEST)
    await done(queue.settle([Settle(event, None, cancelled, None, (first,))], [third]))
    assert await store.orders() == [second]


async def test_a_settle_of_nothing_is_accepted(store: Model | Real) -> None:
    queue = store.queue(await store.join())
    await done(queue.settle([]))
    assert await store.ended() == {}
