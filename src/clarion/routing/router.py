"""The loop that turns committed outbox rows into ledger and queue rows, one statement a batch.

Exactly one router works per database: its advisory lock lives on the connection that writes, so a router that lost
its session cannot write. All others wait, and end the session of one that froze.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime

import asyncpg

from clarion.core.clock import Clock, Random
from clarion.core.errors import Fenced, StoreUnavailable
from clarion.database.pool import BatchAborted, ValuesRefused, close, connect_all, join_by_hash, plan_once
from clarion.ledger.chain import SALT_BYTES
from clarion.ledger.change import Captured
from clarion.routing.careful import DEATHS_MAX, Marker, Portion, next_portion, still_waiting
from clarion.routing.evaluation import Evaluator
from clarion.routing.match import Index
from clarion.routing.order import (
    by_turns,
    dominant,
    in_order,
    maybe_halves,
    missing_predecessors,
    moved,
    owner_of,
    shared,
    with_moves_folded,
)
from clarion.routing.pace import Pace, RouterPolicy
from clarion.routing.refused import Refused
from clarion.routing.scan import HiddenRows, ScanFloor
from clarion.routing.stamp import Batch, Limit, Numbers, stamp
from clarion.routing.store import Configuration, Look, RouterStore, RouterWatch

_log = logging.getLogger(__name__)

UNASSIGNED = "unassigned"
"""Organisation of rows whose organisation column holds nothing usable: kept, and nobody else's."""

_ORGANISATION_NAME_LENGTH_MAX = 200
_MET_MAX = 1000
"""Organisations remembered as met lately, beyond which old ones are forgotten."""


class Router:
    """One incarnation of the router on one session. `run` works until stopped or until the session is lost."""

    def __init__(
        self,
        store: RouterStore,
        clock: Clock,
        random: Random,
        policy: RouterPolicy,
        evaluator: Evaluator | None = None,
        marked: Marker | None = None,
    ) -> None:
        """`marked` is what an incarnation before, in this process, left."""
        self._store = store
        self._clock = clock
        self._random = random
        self._policy = policy
        self._evaluator = evaluator or Evaluator(clock.monotonic_ns, clock.cpu_ns)
        self.marked = marked
        self._suspected: Marker | None = None
        self._careful_until: int | None = None
        self._refused = Refused(round(policy.refused_again_s * 1e9))
        self._refusal: ValuesRefused | None = None
        self._rows_max_after_refusal = policy.batch_rows_max
        self._requests_after_ns = 0
        self._floor = ScanFloor()
        self._hidden = HiddenRows()
        self._numbers = Numbers(0, 0, 0, {}, {})
        self._configuration = Configuration(0, (), {}, {})
        self._index = Index(())
        self._dominating: frozenset[int | str | None] = frozenset()
        self._others_floor = ScanFloor()
        self._look_at_others_ns = 0
        self._others_seen_ns: int | None = None
        self._met_ns: dict[int | str | None, int] = {}
        self._left_some = False
        self._several_seen_ns: int | None = None
        self.batches_count = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Route until `stopping`. Raises StoreUnavailable or InvariantBroken."""
        await self._start()
        pace = Pace(self._policy, self._clock.monotonic_ns())
        while not stopping.is_set():
            routed = await self.step()
            pause_s = pace.pause_s(self._clock.monotonic_ns(), routed)
            if self._left_some:
                await asyncio.sleep(0)
                continue
            self._evaluator.prepare(self._policy.preparing_ns)
            if routed or self._refused or self._are_requests_refused():
                # In the database, the wait would find at once what is refused.
                await asyncio.sleep(pause_s)
            else:
                # Where batches are written their numbers serve.
                if self._floor.reading.lacks_number or self._hidden.reading.lacks_number:
                    self._wrote(await self._store.transaction_number())
                await self._store.wait(self._floor.floor, self._hidden, pause_s, self._policy.waiting_s)
        await self._store.end_well()

    async def _start(self) -> None:
        beginning = await self._store.begin(self.marked)
        self.marked, self._suspected = None, beginning.suspected
        if not beginning.ended_well or beginning.suspected is not None:
            self._careful_until = beginning.sequence_last
            _log.info("the router before ended badly: careful up to outbox row %s", beginning.sequence_last)
        position, event_id, queue_id = await self._store.counters()
        self._numbers = Numbers(position, event_id, queue_id, {}, {})
        await self._reload()

    async def _reload(self) -> None:
        self._configuration = await self._store.configuration(self._numbers.position + 1)
        self._index = Index(self._configuration.subscriptions)
        self._evaluator.configure(self._configuration.subscriptions, self._configuration.decimals)
        self._numbers = replace(self._numbers, sequences=self._configuration.sequences)

    async def step(self) -> int:
        """Route one batch; the number of rows routed and requests taken, 0 if nothing waits."""
        self._try_refused_again()
        limit = self._policy.shared_rows_max if self._sharing() else self._policy.batch_rows_max
        limit = min(limit, self._rows_max_after_refusal)
        look = await self._look(limit)
        careful = bool(look.rows) and self._careful(look)
        requests = await self._take_requests() if look.asked else 0
        self._left_some = requests >= self._policy.batch_rows_max
        if not look.rows:
            self._looked(look, complete=not careful)
            return requests
        portion: Portion | None = None
        if careful:
            rows, portion = await self._choose_carefully(look, limit)
        else:
            rows = await self._choose(look, limit)
        owners = await self._owners(rows)
        while True:
            batch = await self._stamp([(row, owners[row.outbox_id]) for row in rows], look.now, portion)
            try:
                xid = await self._store.write(batch, self._configuration.version, moved(rows[: len(batch.outbox_ids)]))
            except BatchAborted:
                await self._understand_abort()
                continue
            except ValuesRefused as error:
                self._looked(look, complete=False)
                self._suspect(rows[: len(batch.outbox_ids)], portion, error)
                return requests
            break
        # A careful router may leave rows that it saw, and so does one whose evaluations took their time.
        left_some = look.is_full or len(batch.outbox_ids) < len(rows)
        self._left_some = self._left_some or left_some
        self._looked(look, complete=not careful and not left_some)
        if portion and not portion.evaluated:
            await self._routed_unevaluated(rows[0])
        self._suspected = portion.rest if portion else None
        if self._suspected is None:
            self._refusal = None
            self._rows_max_after_refusal = min(2 * self._rows_max_after_refusal, self._policy.batch_rows_max)
        self._numbers = batch.after
        self._wrote(xid)
        self.batches_count += 1
        return len(batch.outbox_ids) + requests

    async def _look(self, rows_max: int) -> Look:
        """The lowest rows that are to be routed, and what the look says about the next one."""
        limit = rows_max + len(self._refused)
        while True:
            look = await self._store.waiting(self._floor.floor, limit, self._hidden)
            if not look.began_above:
                self._floor.looked(look.snapshot_xmin, look.rows[0].outbox_id if look.rows else None)
            self._floor.read(look.sequence_last)
            if not self._refused:
                return look
            rows = self._refused.without(look.rows)
            if rows or not look.is_full:
                return replace(look, rows=rows[:rows_max], is_full=look.is_full or len(rows) > rows_max)
            # In one look: a later one might see a row that comes before what this one saw.
            limit *= 2

    def _looked(self, look: Look, *, complete: bool) -> None:
        complete = complete and not self._refused
        self._hidden.looked(
            look.running, look.snapshot_xmax, look.sequence_last, began_above=look.began_above, complete=complete
        )

    def _wrote(self, xid: int) -> None:
        for reading in (self._floor.reading, self._others_floor.reading, self._hidden.reading):
            reading.wrote(xid)

    def _careful(self, look: Look) -> bool:
        """Whether rows still wait that waited when this router followed one that ended badly."""
        if self._careful_until is not None and self._suspected is None and look.rows[0].outbox_id > self._careful_until:
            self._careful_until = None
        return self._careful_until is not None

    async def _choose_carefully(self, look: Look, limit: int) -> tuple[list[Captured], Portion]:
        """The batch as ever, unless rows are suspected: then these, or a part of them."""
        rows: list[Captured] = []
        if self._suspected is not None:
            rows = await self._store.waiting_by_id(self._suspected.outbox_ids)
            rows = with_moves_folded([*rows, *await self._other_halves(rows)])
            # Not the halves of moves to another key, each of which is a row of its own.
            rows = [row for row in rows if row.outbox_id in self._suspected.outbox_ids]
        suspected = self._suspected if rows else None
        rows = rows or await self._choose(look, limit)
        outbox_ids = tuple(row.outbox_id for row in rows)
        portion = next_portion(still_waiting(suspected, outbox_ids) if suspected else Marker(outbox_ids))
        return rows[: len(portion.marker.outbox_ids)], portion

    async def _routed_unevaluated(self, row: Captured) -> None:
        why = "kills the router" if self._refusal is None else f"is refused by the database ({self._refusal})"
        _log.critical(
            "outbox row %s (%s %s) %s: routed without evaluating what its subscriptions ask of it",
            row.outbox_id,
            row.resource,
            row.object_id,
            why,
        )
        await self._store.unmark()

    def _suspect(self, rows: Sequence[Captured], portion: Portion | None, error: ValuesRefused) -> None:
        """A batch of these rows was refused: they are tried by halves, as after two deaths. A row that is refused whatever it is
        routed with waits, and what comes after it of its object.
        """
        self._left_some = True
        if portion is None or portion.evaluated:
            _log.warning("%d rows are refused and tried in parts: %s", len(rows), error)
            outbox_ids = tuple(row.outbox_id for row in rows)
            self._suspected, self._refusal = Marker(outbox_ids, DEATHS_MAX), error
            self._careful_until = max(self._careful_until or 0, *outbox_ids)
            return
        [row] = rows
        self._suspected = self._refusal = None
        # What is refused often comes together: the next ones are found sooner in small batches.
        self._rows_max_after_refusal = 1
        self._refused.hold(row, self._clock.monotonic_ns())
        _log.critical(
            "outbox row %s (%s %s) is refused by the database: it waits, and what comes after it of its object, and is tried again"
            " every %.3g s: %s",
            row.outbox_id,
            row.resource,
            row.object_id,
            self._policy.refused_again_s,
            error,
        )
        if len(self._refused) > self._policy.refused_max:
            raise StoreUnavailable(f"{len(self._refused)} rows are refused") from error

    def _try_refused_again(self) -> None:
        """Have the next step take, alone, a row that was refused some time ago."""
        if self._suspected is None and (due := self._refused.release_due(self._clock.monotonic_ns())) is not None:
            self._suspected = Marker((due,))
            self._careful_until = max(self._careful_until or 0, due)

    async def _stamp(self, rows: Sequence[tuple[Captured, int]], now: datetime, portion: Portion | None) -> Batch:
        """The batch; a careful router says before what it evaluates, and after that it lives.

        Another one ends the batch early where it makes many events or its evaluations have taken their time: whoever
        comes next waits for it, and so does the delivery that shares this process.
        """
        salts = self._random.token(SALT_BYTES * len(rows))
        if portion is None:
            clock_ns = self._clock.monotonic_ns
            now_ns = clock_ns()
            several = self._several_seen_ns is not None and now_ns - self._several_seen_ns < self._policy.shared_for_ns
            evaluating_ns = self._policy.evaluating_shared_ns if several else self._policy.evaluating_ns
            limit = Limit(self._policy.batch_events_max, now_ns + evaluating_ns, clock_ns)
            return stamp(rows, self._numbers, self._index, now, salts, self._evaluator, limit=limit)
        if not portion.evaluated:
            unevaluated = portion.marker.outbox_ids
            return stamp(rows, self._numbers, self._index, now, salts, self._evaluator, unevaluated)
        self.marked = portion.marker
        await self._store.mark(portion.marker)
        batch = stamp(rows, self._numbers, self._index, now, salts, self._evaluator)
        # Not only after the write: who is killed while the database lets it wait did not die of these rows.
        await self._store.unmark()
        self.marked = None
        return batch

    def _are_requests_refused(self) -> bool:
        """Whether it is not yet time to try again the requests that were refused."""
        return self._clock.monotonic_ns() < self._requests_after_ns

    async def _take_requests(self) -> int:
        """Make queue rows for the retries that are asked for; how many queue ids they took."""
        before = self._numbers
        if self._are_requests_refused():
            return 0
        try:
            queue_id = await self._store.take_requests(
                before.position, before.event_id, before.queue_id, self._policy.batch_rows_max
            )
        except BatchAborted:
            await self._understand_abort()
            return 0
        except ValuesRefused as error:
            self._requests_after_ns = self._clock.monotonic_ns() + round(self._policy.refused_again_s * 1e9)
            _log.critical("retries that are asked for wait %.3g s: %s", self._policy.refused_again_s, error)
            return 0
        self._numbers = replace(before, queue_id=queue_id)
        return queue_id - before.queue_id

    async def _understand_abort(self) -> None:
        """After an abort: reload if the configuration moved, else somebody else wrote our tables and we must not."""
        if await self._store.configuration_version() != self._configuration.version:
            await self._reload()
            return
        if await self._store.counters() != (self._numbers.position, self._numbers.event_id, self._numbers.queue_id):
            raise Fenced("the ledger's counters moved without this router", "only one router may write to a database")
        raise StoreUnavailable("a batch was refused although nothing moved", "the router starts again from the tables")

    def _sharing(self) -> bool:
        """Whether others came lately while one organisation's bulk went through."""
        return (
            self._others_seen_ns is not None
            and self._clock.monotonic_ns() - self._others_seen_ns < self._policy.shared_for_ns
        )

    async def _choose(self, look: Look, limit: int) -> list[Captured]:
        """The batch: the lowest rows, but no organisation takes all of it while others wait."""
        rows: Sequence[Captured] = look.rows
        if not look.is_full:
            self._meet(rows)
            return self._by_turns(in_order(rows))
        dominating = dominant(rows, limit // 2)
        if dominating:
            others = await self._others(look, dominating)
            if others or self._met_lately(dominating):
                self._others_seen_ns = self._clock.monotonic_ns()
                others = others or [row for row in rows if owner_of(row) not in dominating]
                rows = shared(rows, others, dominating, self._policy.shared_rows_max)
        # A full batch may cut a transaction in two, and with it rows that were drawn in the wrong order.
        whole = {row.outbox_id: row for row in (*rows, *await self._other_halves(rows))}
        searched: set[int] = set()
        while suspects := [row for row in missing_predecessors(list(whole.values())) if row.outbox_id not in searched]:
            searched.update(row.outbox_id for row in suspects)
            whole.update((row.outbox_id, row) for row in await self._store.predecessors(suspects))
        # The other half of a row may be of another object, that waits.
        return self._by_turns(in_order(self._refused.without(whole.values()) if self._refused else whole.values()))

    def _by_turns(self, rows: list[Captured]) -> list[Captured]:
        """The rows; organisations in turn where a batch may end before the last, or one's conditions would delay the others."""
        if not self._index.asks:
            return rows
        if any(owner_of(row) != owner_of(rows[0]) for row in rows):
            self._several_seen_ns = self._clock.monotonic_ns()
        return by_turns(rows)

    async def _other_halves(self, rows: Sequence[Captured]) -> list[Captured]:
        """What is left out of these rows of moves to another partition."""
        deletes = maybe_halves(rows)
        return await self._store.other_halves(deletes) if deletes else []

    def _meet(self, rows: Sequence[Captured]) -> None:
        now_ns = self._clock.monotonic_ns()
        self._met_ns.update(dict.fromkeys((owner_of(row) for row in rows), now_ns))
        if len(self._met_ns) > _MET_MAX:
            since_ns = now_ns - self._policy.shared_for_ns
            self._met_ns = {owner: met_ns for owner, met_ns in self._met_ns.items() if met_ns > since_ns}

    def _met_lately(self, dominating: Sequence[int | str | None]) -> bool:
        """Whether others had rows shortly before: whose next one comes must not wait for a large batch."""
        since_ns = self._clock.monotonic_ns() - self._policy.shared_for_ns
        return any(met_ns > since_ns and owner not in dominating for owner, met_ns in self._met_ns.items())

    async def _others(self, look: Look, dominating: Sequence[int | str | None]) -> list[Captured]:
        """The lowest rows of all but the organisations whose bulk goes through; none if it is not yet time to look.

        Their floor lies above the bulk, so that looking past it is cheap; while an old transaction keeps that floor down and
        makes it dear, looking takes no more than a quarter of the time.
        """
        if self._clock.monotonic_ns() < self._look_at_others_ns:
            return []
        if self._dominating != frozenset(dominating):
            self._dominating = frozenset(dominating)
            self._others_floor = ScanFloor(self._floor.floor)
        begun_ns = self._clock.monotonic_ns()
        floor = max(self._floor.floor, self._others_floor.floor)
        others = await self._store.waiting_of_others(floor, self._policy.shared_rows_max, dominating)
        took_ns = self._clock.monotonic_ns() - begun_ns
        # The look came before: its snapshot is the older one, hence its xmin holds for this one too.
        lowest = others[0].outbox_id if others else None
        self._others_floor.looked(look.snapshot_xmin, lowest)
        self._others_floor.decided(self._hidden.decided, lowest)
        # What this look walked past the next one need not, if the floor rose.
        dear = took_ns > self._policy.others_dear_ns and max(self._floor.floor, self._others_floor.floor) <= floor
        wait_ns = max(3 * took_ns if dear else 0, 0 if others else self._policy.others_every_ns)
        self._look_at_others_ns = begun_ns + took_ns + wait_ns
        self._others_floor.read(look.sequence_last)
        return self._refused.without(others) if self._refused else others

    async def _owners(self, rows: Sequence[Captured]) -> dict[int, int]:
        """The organisation's id for each row, by outbox id; names seen for the first time become organisations."""
        named = {row.outbox_id: _usable(row.organisation) for row in rows if row.organisation_id is None}
        known = self._configuration.organisations
        if unknown := set(named.values()) - known.keys():
            known = await self._store.add_organisations(sorted(unknown))
            self._configuration = replace(self._configuration, organisations=known)
        owners = {
            row.outbox_id: row.organisation_id if row.organisation_id is not None else known[named[row.outbox_id]]
            for row in rows
        }
        if fresh := set(owners.values()) - self._numbers.tails.keys():
            tails = await self._store.tails(sorted(fresh))
            self._numbers = replace(self._numbers, tails={**self._numbers.tails, **tails})
        return owners


def _usable(name: str | None) -> str:
    """The organisation's name, or UNASSIGNED for one that cannot be a name."""
    return name if name and len(name) <= _ORGANISATION_NAME_LENGTH_MAX else UNASSIGNED


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    """Wait, but not beyond `stopping`."""
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return


Connect = Callable[[str], Awaitable[asyncpg.Connection]]


async def run_router(
    connect_engine: Connect,
    connect_login: Connect,
    clock: Clock,
    random: Random,
    stopping: asyncio.Event,
    working: Callable[[bool], None] = lambda _: None,
    policy: RouterPolicy | None = None,
    evaluator: Evaluator | None = None,
) -> None:
    """Be the router, or its standby, until `stopping`; lost sessions are opened again.

    `connect_engine` opens sessions with the engine's role, `connect_login` with the login's own (only that one may end
    another's session). `working(True)` is called when this process becomes the router, `working(False)` when it ends.
    """
    policy = policy or RouterPolicy()
    wait_s = 0.05
    marked: Marker | None = None
    while not stopping.is_set():
        router: Router | None = None
        opened: list[asyncpg.Connection] = []
        try:
            opened = await connect_all([connect_engine("router"), connect_login("router watch")])
            writing, watching = opened
            await join_by_hash(writing)
            await plan_once(writing)
            store, watch = RouterStore(writing), RouterWatch(watching)
            standby_s = policy.standby_first_s
            while not stopping.is_set() and not await store.lock():
                if (pid := await watch.end_frozen(policy.frozen_after_s)) is not None:
                    _log.warning("ended the session %s of a router that had stopped beating", pid)
                await _pause(stopping, standby_s)
                standby_s = min(1.5 * standby_s, policy.standby_every_s)
            if stopping.is_set():
                return
            _log.info("routing, on session %s", store.backend_pid)
            await watch.beat(store.backend_pid)
            working(True)
            wait_s = 0.05
            router = Router(store, clock, random, policy, evaluator, marked)
            await _route_and_beat(router, watch, store.backend_pid, stopping, policy)
        except (StoreUnavailable, Fenced) as error:
            _log.warning("router starts again in %.2f s: %s", wait_s, error)
            await _pause(stopping, wait_s)
            wait_s = min(wait_s * 2, 2.0)
        finally:
            working(False)
            marked = router.marked if router is not None else marked
            for connection in opened:
                await close(connection)


async def _route_and_beat(
    router: Router, watch: RouterWatch, backend_pid: int, stopping: asyncio.Event, policy: RouterPolicy
) -> None:
    """Route and beat until one of them ends; the other ends with it."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(policy.beat_every_s)
            await watch.beat(backend_pid)

    routing = asyncio.create_task(router.run(stopping), name="router")
    beating = asyncio.create_task(beat(), name="router heartbeat")
    try:
        done, _ = await asyncio.wait({routing, beating}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (routing, beating):
            task.cancel()
        await asyncio.gather(routing, beating, return_exceptions=True)
