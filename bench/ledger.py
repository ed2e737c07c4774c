"""What the lists of the API take when there is much to list: each filter and sort, its newest page, a deep one, its count.

    .venv/bin/python bench/ledger.py [--changes 1200000] [--partition 300000] [--only events,changes] [--matching TEXT] [--runs 3] [--json]

The rows are made by SQL as router and workers leave them: a change has no, one or two events; of 1,200,000 changes about
1,000,000 events are settled and 200,000 open, of ten organisations, of which one has most and one has a hundred. A list is read by
the functions that the API calls, as the API's role for one organisation, so row-level security is part of it. Milliseconds are the
median of the runs after one that warms up; `read` is the most rows that a node of a page's plan read, `sequential` the tables of more than
10,000 rows that a statement of a page read whole.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from figures import options
from sqlalchemy.ext.asyncio import AsyncConnection

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from clarion.access.principal import Principal, Role
from clarion.api.server import api_engine
from clarion.api.session import settings_of
from clarion.core.ids import ClientId, OrganisationId
from clarion.database import tables
from clarion.database.address import DatabaseAddress
from clarion.database.filters import Condition, Operator
from clarion.database.page import Page, PageRequest, SortKey, encode_cursor, number
from clarion.database.transaction import transaction
from clarion.records.changes import count_changes, list_changes
from clarion.records.event_list import count_events, list_events
from clarion.records.trail import EventStatus
from harness.stage import stage

SQL = Path(__file__).with_name("ledger.sql")


def fill(connection: psycopg.Connection[Any], changes: int, width: int) -> None:
    """A database with so many changes and about as many events, five sixths of them settled, in partitions so wide."""
    numbers = {
        "changes": changes,
        "settled": changes * 7 // 8,
        "width": width,
        "partitions": changes * 11 // 10 // width + 1,
    }
    text = SQL.read_text()
    for name, value in numbers.items():
        text = text.replace(f"{{{name}}}", str(value))
    for statement in text.split("\n--------\n"):
        connection.execute(statement)


@dataclass(slots=True)
class Case:
    """One list with one filter and one sort. `page` reads it from a place in it (None: from its beginning), `count` counts it."""

    name: str
    principal: Principal
    page: Callable[[AsyncConnection, str | None], Awaitable[Page[Any]]]
    count: Callable[[AsyncConnection], Awaitable[int]]
    deep: str | None
    """The cursor in the middle of the whole list, whatever the filter."""


@dataclass(slots=True)
class Measured:
    """Milliseconds of the newest page, of a deep one and of the count, None for more than the API's limit; and what was read."""

    list: str
    name: str
    newest_ms: float | None = None
    deep_ms: float | None = None
    count_ms: float | None = None
    rows: int = 0
    deep_rows: int = 0
    total: int = 0
    read: int = 0
    sequential: tuple[str, ...] = ()

    def row(self) -> str:
        """The figures in a line."""
        times = (
            f"{self.list:8} {self.name:52}",
            _ms(self.newest_ms),
            self.rows,
            _ms(self.deep_ms),
            self.deep_rows,
            _ms(self.count_ms),
        )
        return (
            "{} {:>8} {:>4} {:>8} {:>4} {:>8}".format(*times)
            + f" {self.total or 0:>9,} {self.read:>9,}  {' '.join(self.sequential)}"
        )


class Bench:
    """Lists of one database, read as the API reads them."""

    def __init__(self, database: DatabaseAddress, runs: int) -> None:
        self._engine = api_engine(database)
        self._runs = runs
        with psycopg.connect(database.url) as connection:
            ((self._role,),) = connection.execute("SELECT api_role FROM clarion.deployment").fetchall()
            self.organisations = dict(connection.execute("SELECT name, id FROM clarion.organisations").fetchall())
            self._large = {
                name
                for (name,) in connection.execute(
                    "SELECT relname FROM pg_class WHERE relnamespace = 'clarion'::regnamespace AND reltuples > 10000"
                ).fetchall()
            }
            self.receivers = dict(
                connection.execute(
                    "SELECT name, id FROM clarion.receivers WHERE organisation_id = %s", (self.organisations["large"],)
                ).fetchall()
            )
            ((self.subscription,),) = connection.execute(
                "SELECT id FROM clarion.subscriptions WHERE receiver_id = %s AND resource = 'RUNS' AND action = 'UPDATE'",
                (self.receivers["receiver 3"],),
            ).fetchall()

    def principal(self, organisation: str, readable: frozenset[str] | None = None) -> Principal:
        return Principal(
            ClientId(1),
            "reader",
            "MACHINE",
            Role.ADMINISTRATOR,
            OrganisationId(self.organisations[organisation]),
            readable,
        )

    async def measure(self, what: str, case: Case) -> Measured:
        """The case's times, and the rows that the plans of its first page read."""
        made = Measured(what, case.name)
        made.newest_ms, newest = await self._timed(case, lambda connection: case.page(connection, None))
        made.deep_ms, deep = await self._timed(case, lambda connection: case.page(connection, case.deep))
        made.count_ms, made.total = await self._timed(case, case.count)
        made.rows, made.deep_rows = len(newest.rows) if newest else 0, len(deep.rows) if deep else 0
        if newest is not None:
            await self._explain(case, made)
        return made

    def _settings(self, case: Case) -> dict[str, str]:
        return settings_of(self._role, case.principal, "bench")

    async def _timed(self, case: Case, read: Callable[[AsyncConnection], Awaitable[Any]]) -> tuple[float | None, Any]:
        times = []
        found = None
        for _ in range(self._runs + 1):
            try:
                async with self._engine.connect() as connection, transaction(connection, self._settings(case)):
                    began = time.perf_counter()
                    found = await read(connection)
                    times.append((time.perf_counter() - began) * 1000)
            except sqlalchemy.exc.DBAPIError as error:
                if "statement timeout" not in str(error):
                    raise
                return None, None
        return statistics.median(times[1:]), found

    async def _explain(self, case: Case, made: Measured) -> None:
        executed: list[tuple[str, Any]] = []

        def keep(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
            executed.append((statement, parameters))

        async with self._engine.connect() as connection, transaction(connection, self._settings(case)):
            sqlalchemy.event.listen(self._engine.sync_engine, "before_cursor_execute", keep)
            try:
                await case.page(connection, None)
            finally:
                sqlalchemy.event.remove(self._engine.sync_engine, "before_cursor_execute", keep)
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.execute("SET LOCAL statement_timeout = 0")
            for statement, parameters in executed:
                (explained,) = await driver.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *parameters)
                for node in nodes(explained["Plan"]):
                    read = int(node["Actual Loops"]) * int(node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
                    made.read = max(made.read, read)
                    if (
                        node["Node Type"] == "Seq Scan"
                        and node["Actual Loops"]
                        and node["Relation Name"] in self._large
                    ):
                        made.sequential = (*made.sequential, node["Relation Name"])

    async def close(self) -> None:
        await self._engine.dispose()


def one(column: str, value: object) -> Condition:
    return Condition(column, Operator.EQ, (value,))


def event_cases(bench: Bench, middle: int) -> Iterator[Case]:
    large, small = bench.principal("large"), bench.principal("small")
    few, rare = bench.principal("large", frozenset({"ISSUES"})), bench.principal("large", frozenset({"PARTS"}))
    common = [
        ("all", large, []),
        ("all, small organisation", small, []),
        ("all, middle organisation", bench.principal("middle 3"), []),
        ("all, may read ISSUES (1 %)", few, []),
        ("all, may read PARTS (0.01 %)", rare, []),
        *((f"status {status}", large, [one("status", status)]) for status in EventStatus),
        ("status not DELIVERED", large, [Condition("status", Operator.NEQ, ("DELIVERED",))]),
        ("status CANCELLED, small organisation", small, [one("status", "CANCELLED")]),
        ("receiver", large, [one("receiver_id", bench.receivers["receiver 3"])]),
        ("receiver, FAILED", large, [one("receiver_id", bench.receivers["receiver 3"]), one("status", "FAILED")]),
        ("receiver that is not active", large, [one("receiver_id", bench.receivers["receiver 9"])]),
        ("receiver that always fails, DELIVERED", large, [one("receiver_id", bench.receivers["receiver 7"]), one("status", "DELIVERED")]),
        ("receiver without events", large, [one("receiver_id", bench.receivers["further 7"])]),
        ("subscription", large, [one("subscription_id", bench.subscription)]),
        ("subscription, FAILED", large, [one("subscription_id", bench.subscription), one("status", "FAILED")]),
        ("resource RUNS (70 %)", large, [one("resource", "RUNS")]),
        ("resource ISSUES (1 %)", large, [one("resource", "ISSUES")]),
        ("resource PARTS (0.01 %)", large, [one("resource", "PARTS")]),
        ("resource LOCATIONS (none)", large, [one("resource", "LOCATIONS")]),
        ("resource PARTS, small organisation", small, [one("resource", "PARTS")]),
        ("action DELETE (1 %)", large, [one("action", "DELETE")]),
        ("resource ISSUES, action DELETE", large, [one("resource", "ISSUES"), one("action", "DELETE")]),
        ("resource ISSUES, FAILED", large, [one("resource", "ISSUES"), one("status", "FAILED")]),
        ("object (8 changes)", large, [one("object_id", "4711"), one("resource", "RUNS")]),
        ("object (1 %)", large, [one("object_id", "hot")]),
        ("object that is not there", large, [one("object_id", "none")]),
    ]  # fmt: skip
    yield from both_ways(
        common, list_events, count_events, SortKey("id", tables.events.c.event_id, True, number), "ID", middle
    )


def change_cases(bench: Bench) -> Iterator[Case]:
    large, small = bench.principal("large"), bench.principal("small")
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=600_000)
    common = [
        ("all", large, []),
        ("all, small organisation", small, []),
        ("all, may read ISSUES (1 %)", bench.principal("large", frozenset({"ISSUES"})), []),
        ("all, may read PARTS (0.01 %)", bench.principal("large", frozenset({"PARTS"})), []),
        ("recorded since", large, [Condition("recorded_at", Operator.GTE, (moment,))]),
        ("change ids", large, [Condition("change_id", Operator.IN, (5, 500_000))]),
        ("resource RUNS (70 %)", large, [one("resource", "RUNS")]),
        ("resource ISSUES (1 %)", large, [one("resource", "ISSUES")]),
        ("resource PARTS (0.01 %)", large, [one("resource", "PARTS")]),
        ("action DELETE (1 %)", large, [one("action", "DELETE")]),
        ("object (8 changes)", large, [one("object_id", "4711"), one("resource", "RUNS")]),
        ("object (1 %)", large, [one("object_id", "hot")]),
        ("object that is not there", large, [one("object_id", "none")]),
        ("correlation", large, [one("correlation_id", "tx-100000")]),
    ]
    yield from both_ways(
        common,
        list_changes,
        count_changes,
        SortKey("id", tables.ledger.c.change_id, True, number),
        "CHANGE_ID",
        500_000,
    )


def both_ways(
    lists: Iterable[tuple[str, Principal, list[Condition]]],
    list_: Callable[..., Awaitable[Page[Any]]],
    count: Callable[..., Awaitable[int]],
    key: SortKey,
    named: str,
    middle: int,
) -> Iterator[Case]:
    """Each of these lists newest first and oldest first; `named` is the sort in the API, `middle` the id in the middle of all."""
    for name, principal, conditions in lists:
        for newest_first in (True, False):
            yield Case(
                f"{name}; {named}_{'DESC' if newest_first else 'ASC'}",
                principal,
                partial(_page, list_, principal, conditions, newest_first),
                partial(count, principal=principal, conditions=conditions),
                encode_cursor([replace(key, descending=newest_first)], [middle]),
            )


async def _page(
    list_: Callable[..., Awaitable[Page[Any]]],
    principal: Principal,
    conditions: Sequence[Condition],
    newest_first: bool,
    connection: AsyncConnection,
    after: str | None,
) -> Page[Any]:
    return await list_(
        connection, principal, conditions, PageRequest(100, after, None, None), newest_first=newest_first
    )


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def _ms(value: float | None) -> str:
    return "> 3,000" if value is None else f"{value:,.1f}"


async def run(database: DatabaseAddress, only: Sequence[str], runs: int, matching: str = "") -> list[Measured]:
    """Each case's figures, printed as they come."""
    bench = Bench(database, runs)
    found = []
    for what, cases in (("events", event_cases(bench, 600_000)), ("changes", change_cases(bench))):
        for case in cases if what in only else ():
            if matching not in case.name:
                continue
            one_more = await bench.measure(what, case)
            print(one_more.row(), flush=True)
            found.append(one_more)
    await bench.close()
    return found


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--changes", type=int, default=1_200_000)
    parser.add_argument("--partition", type=int, default=300_000)
    parser.add_argument("--only", default="events,changes")
    parser.add_argument("--matching", default="", help="only cases whose names have this in them")
    given = parser.parse_args()
    with stage() as deployment:
        fill(deployment.connection, given.changes, given.partition)
        if not given.json:
            print(
                f"{'list':8} {'filter and sort':52} {'newest':>8} rows {'deep':>8} rows {'count':>8} {'of':>9} {'read':>9}  sequential"
            )
        found = asyncio.run(run(deployment.database, given.only.split(","), given.runs, given.matching))
    if given.json:
        print(json.dumps([asdict(one_of) for one_of in found]))


if __name__ == "__main__":
    main()
