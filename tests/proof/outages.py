"""Processes that route and deliver are killed or frozen, each alone and both in one; what receivers saw of it.

Every process sends from a source address of its own, so that the receivers' log says which one sent a request.
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from harness.deployment import Deployment
from harness.oracle import Event, judge, pauses_s, percentile
from harness.process import ClarionProcess, tree_of
from harness.receiver import Received
from harness.tables import read_tables
from proof.figures import Figure
from proof.load import Writer, add_items, committed_by_receiver, receiver_of
from proof.run import add_receivers, attached, figures_of, finished, wait_for_flow

KINDS = ("router", "worker", "router and worker in one")
KILL_GAP_S, FREEZE_GAP_S = 2, 20
RECEIVERS, CONCURRENCY = 10, 4
CONCURRENCY_SUM = RECEIVERS * CONCURRENCY
SHARED = """
    SELECT WHERE NOT EXISTS (SELECT FROM clarion.shards WHERE worker_id IS NULL)
             AND (SELECT count(DISTINCT worker_id) FROM clarion.shards) = %s
             AND NOT EXISTS (SELECT FROM clarion.workers w WHERE ended_at IS NULL
                             AND NOT EXISTS (SELECT FROM clarion.shards s WHERE s.worker_id = w.id))
"""


@dataclass(frozen=True, slots=True)
class Serving:
    """A running `clarion serve` and the address that its requests come from."""

    process: ClarionProcess
    source: str


@dataclass(frozen=True, slots=True)
class Outage:
    """What was struck and when, in Unix seconds; `woken_at` infinite for what was killed.

    `receivers` are those that had to be taken over: what the struck worker sent to, or all.
    """

    kind: str
    source: str
    at: float
    woken_at: float
    receivers: frozenset[int]


class Cluster:
    """Two processes of a kind, of which the first is in charge, and whatever else has to run beside them."""

    def __init__(self, deployment: Deployment, kind: str, numbers: Iterator[int]) -> None:
        self._deployment = deployment
        self._numbers = numbers
        self.kind = kind
        self._roles = {"router": ["router"], "worker": ["delivery"]}.get(kind, ["router", "delivery"])
        self._beside = [self._start(role) for role in ("router", "delivery") if role not in self._roles]
        self.pair = [self._start(*self._roles), self._start(*self._roles)]
        self.all = [*self._beside, *self.pair]

    def _start(self, *roles: str) -> Serving:
        source = f"127.0.1.{next(self._numbers)}"
        arguments = [part for role in roles for part in ("--role", role)]
        return Serving(self._deployment.serve(*arguments, CLARION_SOURCE_ADDRESSES=source), source)

    def wait_until_steady(self) -> None:
        """Until the first of the pair is in charge, both own shards if they deliver, and requests flow."""
        if "router" in self._roles:
            self.pair[0].process.wait_for_line("routing, on session", stderr=True)
        self._deployment.wait_for_row(SHARED, 2 if "delivery" in self._roles else 1)
        wait_for_flow(self._deployment)

    def replace_first(self) -> None:
        """The first is gone: the second is in charge, and a new one stands by."""
        self.pair = [self.pair[1], self._start(*self._roles)]
        self.all.append(self.pair[1])

    def affected(self) -> frozenset[int]:
        """Receivers that have to be taken over from the first of the pair if it is struck now."""
        owners = receiver_of(self._deployment)
        if "router" in self._roles:
            return frozenset(owners.values())
        last = {owners[r.json()["subscription_id"]]: r.source for r in self._deployment.receiver.received()[-2000:]}
        receivers = frozenset(receiver for receiver, source in last.items() if source == self.pair[0].source)
        assert receivers, "the worker that is struck sends nothing"
        return receivers

    @contextmanager
    def overwhelmed(self) -> Iterator[None]:
        """In the block every item has just changed.

        Those who deliver have as much under way as they may, of which nothing is answered yet, and much more to be sent: whoever
        is struck is not just writing a request, and would have a lot to send if it went on where it was.
        """
        receiver = self._deployment.receiver
        if "delivery" in self._roles:
            receiver.switch("slow", "outages")
        count = receiver.count()
        self._deployment.connection.execute("UPDATE items SET version = version + 1")
        receiver.wait_until(lambda now: now >= count + CONCURRENCY_SUM)
        yield
        receiver.switch(200, "outages")


def kills(brief: bool) -> list[Figure]:
    """SIGKILL of a router, of a worker and of a process that is both, under load, another of the kind beside it."""
    per_kind = 2 if brief else 7
    outages: list[Outage] = []
    with _loaded(per_second=80) as (deployment, load):
        numbers = itertools.count(1)
        for kind in KINDS:
            cluster = Cluster(deployment, kind, numbers)
            with load():
                for _ in range(per_kind):
                    cluster.wait_until_steady()
                    affected, struck = cluster.affected(), cluster.pair[0]
                    with cluster.overwhelmed():
                        struck.process.signal(signal.SIGKILL)
                    outages.append(Outage(kind, struck.source, time.time(), float("inf"), affected))
                    struck.process.kill()
                    _wait_until_served(deployment, outages[-1])
                    cluster.replace_first()
                wait_for_flow(deployment)
            log = finished(deployment, *(serving.process for serving in cluster.all))
        figures = _judged("kills", deployment, log, outages)
        gaps = _gaps_by_kind(deployment, log, outages)
    return [
        *(
            figure
            for kind, found in gaps.items()
            for figure in (
                Figure(
                    f"kills of a {kind}: gap at receivers, p95 ({len(found)})", percentile(found, 0.95), "s", KILL_GAP_S
                ),
                Figure(f"kills of a {kind}: gap at receivers, largest", max(found), "s"),
            )
        ),
        *figures,
    ]


def freezes(brief: bool) -> list[Figure]:
    """SIGSTOP for a minute of a router, of a worker and of a process that is both, then SIGCONT; another takes over."""
    per_kind = 1 if brief else 2
    outages: list[Outage] = []
    begun_anew = 0
    with _loaded(per_second=60) as (deployment, load):
        numbers = itertools.count(1)
        for kind in KINDS:
            cluster = Cluster(deployment, kind, numbers)
            with load():
                for _ in range(per_kind):
                    cluster.wait_until_steady()
                    frozen_s = 60 if not brief else 13 if kind == "router" else FREEZE_GAP_S
                    outages.append(_freeze(deployment, cluster, frozen_s))
                    cluster.pair.reverse()
                if kind != "router":
                    cluster.wait_until_steady()
                wait_for_flow(deployment)
            log = finished(deployment, *(serving.process for serving in cluster.all))
            said = [line for serving in cluster.all for line in serving.process.stderr]
            begun_anew += sum("delivery begins anew" in line for line in said)
        figures = _judged("freezes", deployment, log, outages)
        gaps = _gaps_by_kind(deployment, log, outages)
        fenced = _fenced(deployment, log, outages)
    workers = sum(outage.kind != "router" for outage in outages)
    return [
        *(
            Figure(f"freezes of a {kind}: gap at receivers, largest ({len(found)})", max(found), "s", FREEZE_GAP_S)
            for kind, found in gaps.items()
        ),
        *fenced,
        Figure("freezes: workers that found themselves fenced and began anew", begun_anew, "", workers, "exactly"),
        *figures,
    ]


def _freeze(deployment: Deployment, cluster: Cluster, frozen_s: float) -> Outage:
    """The first of the pair stands still for so long, and is awake and at work again at the end."""
    affected, struck = cluster.affected(), cluster.pair[0]
    processes = tree_of(struck.process.pid)
    with cluster.overwhelmed():
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
    at = time.time()
    _wait_until_served(deployment, Outage(cluster.kind, struck.source, at, float("inf"), affected), frozen_s)
    time.sleep(max(0, at + frozen_s - time.time()))
    woken_at = time.time()
    for pid in processes:
        os.kill(pid, signal.SIGCONT)
    if cluster.kind == "router":
        struck.process.wait_for_line("router starts again", stderr=True)
    else:
        deployment.wait_for_row("SELECT FROM clarion.workers WHERE started_at > to_timestamp(%s)", woken_at)
    return Outage(cluster.kind, struck.source, at, woken_at, affected)


# ---------------------------------------------------------------- what both share


@contextmanager
def _loaded(per_second: float) -> Iterator[tuple[Deployment, Callable[[], Writer]]]:
    with attached() as deployment:
        deployment.receiver.switch(200, "outages")
        uri = deployment.receiver.uri("/switch/outages")
        add_receivers(deployment, RECEIVERS, uri=uri, concurrency=CONCURRENCY)
        items = add_items(deployment, 200)
        yield deployment, lambda: Writer(deployment, items, per_second)


def _wait_until_served(deployment: Deployment, outage: Outage, within_s: float = 30) -> None:
    """Until each of the receivers has a request about a change that was made after the outage began, or time is up.

    The figure is made from the log at the end: what never came is not a number there.
    """
    owners = receiver_of(deployment)
    while time.time() < outage.at + within_s:
        log = deployment.receiver.received()
        recent = log[bisect_left(log, outage.at, key=lambda request: request.at) :]
        if not math.isinf(max(pauses_s(recent, owners, outage.receivers, outage.at).values())):
            return
        time.sleep(1)


def _gaps_by_kind(deployment: Deployment, log: Sequence[Received], outages: Sequence[Outage]) -> dict[str, list[float]]:
    owners = receiver_of(deployment)
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for outage in outages:
        found[outage.kind] += pauses_s(log, owners, outage.receivers, outage.at).values()
    return found


def _judged(name: str, deployment: Deployment, log: Sequence[Received], outages: Sequence[Outage]) -> list[Figure]:
    """The oracle's figures; a duplicate is excused by nothing but a request of the struck process that was under way."""
    tables = read_tables(deployment.connection, "ITEMS")
    verdict = judge(committed_by_receiver(deployment), tables, deployment.secrets, log)
    under_way = [_under_way(log, tables.events, outage) for outage in outages]
    excused = Counter(event_id for ids in under_way for event_id in ids)
    return [
        Figure(f"{name}: outages", len(outages), ""),
        Figure(f"{name}: requests under way at one of them, most", max(map(len, under_way)), "", CONCURRENCY_SUM),
        *figures_of(name, verdict, duplicates_max=sum(map(len, under_way))),
        Figure(
            f"{name}: duplicates of what was not under way",
            (Counter(verdict.doubled) - excused).total(),
            "",
            0,
            "exactly",
        ),
    ]


def _under_way(log: Sequence[Received], events: Sequence[Event], outage: Outage) -> Collection[int]:
    """Events that the struck process had begun to send and whose outcome was not stored when it was struck."""
    settled_at = {event.event_id: event.settled_at or float("inf") for event in events}
    begun = (r.json()["event_id"] for r in log if r.source == outage.source and r.at < outage.woken_at)
    return {event_id for event_id in begun if settled_at.get(event_id, 0) > outage.at}


def _fenced(deployment: Deployment, log: Sequence[Received], outages: Sequence[Outage]) -> list[Figure]:
    """What frozen workers did, or could not do, once they woke."""
    workers = deployment.rows(
        "SELECT extract(epoch FROM started_at)::float8, extract(epoch FROM ended_at)::float8 FROM clarion.workers ORDER BY id"
    )
    attempts = deployment.rows(
        """SELECT a.event_id, a.source_address, extract(epoch FROM a.started_at)::float8,
                  extract(epoch FROM e.settled_at)::float8
           FROM clarion.attempts a JOIN clarion.events e USING (event_id, round)"""
    )
    recorded_by = {event_id: source for event_id, source, *_ in attempts}
    fenced = refused = accepted = after = 0
    for outage in outages:
        ended = [ended_at for _, ended_at in workers if ended_at and outage.at < ended_at < outage.woken_at]
        fenced += len(ended)
        if outage.kind == "router":
            continue
        mine = [request for request in log if request.source == outage.source]
        # Asleep, it can have begun nothing: these it held when it woke.
        held = {r.json()["event_id"] for r in mine if outage.at - 1 < r.at < outage.woken_at}
        refused += sum(recorded_by.get(event_id) != outage.source for event_id in held)
        accepted += sum(
            source == outage.source and started_at < outage.at + 1 and settled_at > min(ended, default=outage.at)
            for _, source, started_at, settled_at in attempts
        )
        anew_at = min((started for started, _ in workers if started > outage.woken_at), default=float("inf"))
        first_by_others: dict[str, float] = {}
        for request in log:
            if request.source != outage.source:
                first_by_others.setdefault(request.message_id, request.at)
        after += sum(
            request.at > outage.woken_at
            and (request.at < anew_at or first_by_others.get(request.message_id, float("inf")) < request.at)
            for request in mine
        )
    frozen_workers = sum(outage.kind != "router" for outage in outages)
    return [
        Figure("freezes: workers fenced", fenced, "", frozen_workers, "exactly"),
        Figure("freezes: outcomes that the frozen held and another recorded", refused, ""),
        Figure("freezes: outcomes that the frozen recorded after its fence", accepted, "", 0, "exactly"),
        Figure("freezes: requests that the frozen sent after its lease had ended", after, "", 0, "exactly"),
    ]
