"""The router's reads and its one statement, on the connection that holds its lock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

import asyncpg

from clarion.core.errors import StoreUnavailable
from clarion.core.ids import SHARDS_COUNT
from clarion.database.pool import store_errors
from clarion.database.statements import array_text, load_statements
from clarion.ledger.chain import GENESIS
from clarion.ledger.change import Captured
from clarion.routing.careful import Marker
from clarion.routing.match import Subscription
from clarion.routing.scan import HiddenRows
from clarion.routing.stamp import Batch, Failed, Tail

SQL = load_statements("clarion.routing", "routing.sql")

_LOOK_COLUMNS = 5
"""Columns of `waiting` before those of a row."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the outbox found: the database's clock, the snapshot, whether a retry is asked for, the lowest rows.

    `running`: the transactions that ran in the snapshot, of those with a number below its xmax. `began_above`: the look passed over
    the hidden rows. `is_full`: it found as many rows as it may, and there may be more.
    """

    now: datetime
    snapshot_xmin: int
    snapshot_xmax: int
    running: frozenset[int]
    began_above: bool
    sequence_last: int
    asked: bool
    rows: Sequence[Captured]
    is_full: bool


@dataclass(frozen=True, slots=True)
class Beginning:
    """How the router before ended, which rows are suspected of having killed it, and the last outbox id drawn."""

    ended_well: bool
    suspected: Marker | None
    sequence_last: int


@dataclass(frozen=True, slots=True)
class Configuration:
    """What is matched against, as of one version. `decimals`: the decimal columns of resources that expressions ask about."""

    version: int
    subscriptions: tuple[Subscription, ...]
    organisations: dict[str, int]
    sequences: dict[int, int]
    decimals: dict[str, frozenset[str]] = field(default_factory=dict)


class RouterStore:
    """Statements of routing.sql. Raises StoreUnavailable, BatchAborted or InvariantBroken."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @property
    def backend_pid(self) -> int:
        """The server process of the session that holds the lock."""
        return self._connection.get_server_pid()

    async def lock(self) -> bool:
        """Whether this session now is the router's."""
        with store_errors("router lock"):
            return bool(await self._connection.fetchval(SQL["lock"]))

    async def begin(self, survived: Marker | None) -> Beginning:
        """Begin to route. `survived` is a marker that this process wrote and lived to see: it is no death."""
        survived = survived or Marker(())
        with store_errors("begin to route"):
            record = await self._connection.fetchrow(SQL["begin"], list(survived.outbox_ids), survived.deaths)
        assert record is not None
        ids = record["batch_ids"]
        suspected = Marker(tuple(ids), record["batch_deaths"]) if ids and record["batch_deaths"] else None
        return Beginning(record["ended_well"], suspected, record["sequence_last"])

    async def end_well(self) -> None:
        """The router stops in good order."""
        with store_errors("end routing"):
            await self._connection.execute(SQL["end_well"])

    async def mark(self, marker: Marker) -> None:
        """Write down what is about to be evaluated."""
        with store_errors("mark a batch"):
            await self._connection.execute(SQL["mark"], list(marker.outbox_ids), marker.deaths)

    async def unmark(self) -> None:
        """Take the marker back: the evaluation is over."""
        with store_errors("mark a batch"):
            await self._connection.execute(SQL["unmark"])

    async def waiting_by_id(self, outbox_ids: Sequence[int]) -> list[Captured]:
        """Those of the rows that wait, in the order of the ids given."""
        with store_errors("read the outbox"):
            records = await self._connection.fetch(SQL["waiting_by_id"], list(outbox_ids))
        return [Captured._make(record) for record in records]

    async def waiting(self, floor: int, limit: int, hidden: HiddenRows) -> Look:
        """The lowest `limit` committed rows above the floor, and above the hidden rows if they still are hidden."""
        with store_errors("read the outbox"):
            records = await self._connection.fetch(SQL["waiting"], floor, limit, hidden.upto, array_text(hidden.owners))
        now, snapshot, began_above, sequence_last, asked = records[0][:_LOOK_COLUMNS]
        xmin, xmax, running = snapshot.split(":")
        rows = [Captured._make(record[_LOOK_COLUMNS:]) for record in records[1:]]
        owners = frozenset(map(int, running.split(","))) if running else frozenset()
        is_full = len(rows) >= limit
        return Look(now, int(xmin), int(xmax), owners, began_above, sequence_last, asked, rows, is_full)

    async def wait(self, floor: int, hidden: HiddenRows, every_s: float, at_most_s: float) -> None:
        """Until `waiting` may find something, to `every_s` seconds, or `at_most_s` have passed."""
        above = max(floor, hidden.upto) if hidden.owners else floor
        with store_errors("wait for the outbox"):
            await self._connection.execute(
                SQL["await_work"], floor, above, array_text(hidden.owners), every_s, at_most_s
            )

    async def transaction_number(self) -> int:
        """The number of a transaction that does nothing else and has ended."""
        with store_errors("read a transaction's number"):
            return int(await self._connection.fetchval(SQL["transaction_number"]))

    async def waiting_of_others(self, floor: int, limit: int, owners: Iterable[int | str | None]) -> list[Captured]:
        """The lowest rows of all organisations but `owners`."""
        ids = [owner for owner in owners if isinstance(owner, int)]
        names = [owner for owner in owners if isinstance(owner, str)]
        with store_errors("read the outbox"):
            records = await self._connection.fetch(SQL["waiting_of_others"], floor, limit, ids, names)
        return [Captured._make(record) for record in records]

    async def predecessors(self, rows: Sequence[Captured]) -> list[Captured]:
        """Rows that ended where one of these started, in the same transaction and object, drawn later."""
        with store_errors("read the outbox"):
            records = await self._connection.fetch(
                SQL["predecessors"],
                min(row.outbox_id for row in rows),
                [row.xid for row in rows],
                [row.resource for row in rows],
                [row.object_id for row in rows],
                [row.old_ctid for row in rows],
            )
        return [Captured._make(record) for record in records]

    async def other_halves(self, outbox_ids: Sequence[int]) -> list[Captured]:
        """The CREATE halves that wait of these DELETE halves."""
        with store_errors("read the outbox"):
            records = await self._connection.fetch(SQL["other_halves"], list(outbox_ids))
        return [Captured._make(record) for record in records]

    async def write(self, batch: Batch, version: int, moved: Sequence[tuple[int, int]] = ()) -> int:
        """Run the batch statement; its transaction's xid. Raises BatchAborted if anything moved meanwhile, ValuesRefused if a table
        refuses a row of it.

        `moved` are the places in the batch, from 1 on, of rows that are one UPDATE of two, each with its other half's id.
        """
        before, after = batch.before, batch.after
        tails, sequences = batch.changed_tails, batch.changed_sequences
        last_places = {organisation_id: place for place, organisation_id in enumerate(batch.organisation_ids, start=1)}
        parts_count = 1 + len(tails) + len(sequences) + len(batch.outbox_ids) + len(moved) + len(batch.subscription_ids)
        parameters: list[object] = [
            before.position,
            before.event_id,
            before.queue_id,
            after.position,
            after.event_id,
            after.queue_id,
            version,
            array_text(tails),
            array_text(before.tails.get(organisation_id, Tail()).change_id for organisation_id in tails),
            array_text(tail.change_id for tail in tails.values()),
            array_text(last_places[organisation_id] for organisation_id in tails),
            array_text(sequences),
            array_text(before.sequences[subscription_id] for subscription_id in sequences),
            array_text(sequences.values()),
            array_text(batch.outbox_ids),
            array_text(batch.organisation_ids),
            array_text(batch.change_ids),
            array_text(batch.events_before[:-1]),
            array_text(through - earlier for earlier, through in pairwise(batch.events_before)),
            b"".join(batch.links),
            batch.salts,
            batch.recorded_at,
            array_text(batch.queue_organisation_ids),
            array_text(batch.receiver_ids),
            array_text(batch.subscription_ids),
            array_text(batch.queue_places),
            array_text(batch.queue_sequences),
            array_text(batch.lanes),
            SHARDS_COUNT,
            parts_count,
        ]
        statement = "batch"
        if moved or batch.shaped or batch.failed:
            statement = "batch_with_more"
            parameters += [
                array_text(place for place, _ in moved),
                array_text(outbox_id for _, outbox_id in moved),
                *_shapes(batch),
                list(batch.failed),
                *_transposed(batch.failed.values(), len(Failed._fields)),
            ]
        with store_errors("route a batch"):
            record = await self._connection.fetchrow(SQL[statement], *parameters)
        assert record is not None
        return int(record["xid"])

    async def take_requests(self, position: int, event_id: int, queue_id: int, limit: int) -> int:
        """Queue the retries asked for; the last queue id after it. Raises BatchAborted if a counter moved."""
        with store_errors("take requests"):
            return int(
                await self._connection.fetchval(SQL["take_requests"], position, event_id, queue_id, limit, SHARDS_COUNT)
            )

    async def counters(self) -> tuple[int, int, int]:
        """Last position, event id and queue id."""
        with store_errors("read counters"):
            record = await self._connection.fetchrow(SQL["counters"])
        assert record is not None
        return record["position"], record["event_id"], record["queue_id"]

    async def tails(self, organisation_ids: Sequence[int]) -> dict[int, Tail]:
        """Where the chains of these organisations end."""
        with store_errors("read chains"):
            records = await self._connection.fetch(SQL["tails"], list(organisation_ids), GENESIS)
        return {record["organisation_id"]: Tail(record["change_id"], record["link"]) for record in records}

    async def add_organisations(self, names: Sequence[str]) -> dict[str, int]:
        """All organisations by name, after adding those that are new."""
        with store_errors("add organisations"):
            await self._connection.execute(SQL["add_organisations"], list(names))
            records = await self._connection.fetch(SQL["organisations"])
        return {record["name"]: record["id"] for record in records}

    async def configuration_version(self) -> int:
        with store_errors("read the configuration"):
            return int(await self._connection.fetchval(SQL["configuration_version"]))

    async def configuration(self, next_position: int) -> Configuration:
        """What is configured now; activations are stamped to hold from `next_position` on."""
        with store_errors("read the configuration"):
            async with self._connection.transaction(isolation="repeatable_read"):
                version = int(await self._connection.fetchval(SQL["configuration_version"]))
                subscriptions = tuple(
                    Subscription(*r) for r in await self._connection.fetch(SQL["active_subscriptions"])
                )
                ids = [s.subscription_id for s in subscriptions]
                owners = [s.organisation_id for s in subscriptions]
                await self._connection.execute(SQL["end_activations"], ids, next_position)
                await self._connection.execute(SQL["begin_activations"], ids, next_position)
                asking = {s.resource for s in subscriptions if s.condition or s.template}
                decimals = await self._connection.fetch(SQL["decimal_columns"], list(asking)) if asking else []
                sequences = await self._connection.fetch(SQL["sequences"], ids, owners)
                organisations = await self._connection.fetch(SQL["organisations"])
        return Configuration(
            version,
            subscriptions,
            {record["name"]: record["id"] for record in organisations},
            {record["subscription_id"]: record["sequence"] for record in sequences},
            {record["resource"]: frozenset(record["columns"]) for record in decimals},
        )


def _shapes(batch: Batch) -> list[list[Any]]:
    """The columns of what few events have, empty if none has: unnest fills up with nulls."""
    if not batch.shaped:
        return [[], [], []]
    absent = (None, None, None)
    return _transposed((batch.shaped.get(place, absent) for place in range(len(batch.subscription_ids))), 3)


def _transposed(rows: Iterable[Sequence[Any]], width: int) -> list[list[Any]]:
    """Columns instead of rows."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


class RouterWatch:
    """A second connection: beats for the router that works, ends the session of one that froze."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def beat(self, backend_pid: int) -> None:
        """The router on this session lives. Raises StoreUnavailable if it has lost its lock."""
        with store_errors("router heartbeat"):
            if await self._connection.fetchval(SQL["beat"], backend_pid) is None:
                raise StoreUnavailable("the router's session was ended, another may have taken over")

    async def end_frozen(self, after_seconds: float) -> int | None:
        """The pid of the session ended because its router stopped beating; None if all is well."""
        with store_errors("watch the router"):
            pid = await self._connection.fetchval(SQL["frozen"], after_seconds)
            if pid is not None:
                await self._connection.execute(SQL["end_session"], pid)
            return None if pid is None else int(pid)
