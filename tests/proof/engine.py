"""The proofs of the delivery engine. Each returns its figures; `brief` makes it shorter, never softer.

Every proof ends with the oracle of `harness.oracle` over three logs: the application's rows, the ledger, the receivers.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import psycopg

from harness.deployment import Deployment
from harness.oracle import percentile
from harness.process import tree_of
from proof.figures import Figure
from proof.load import Writer, add_items, latencies_ms, receiver_of
from proof.outages import freezes, kills
from proof.run import (
    add_receivers,
    another_receiver,
    attached,
    compare,
    figures_of,
    finished,
    judged,
    serve,
    wait_for_flow,
)

Proof = Callable[[bool], list[Figure]]

SOON_AGAIN = [0] + [1] * 19
"""A retry schedule in seconds: whoever is well again is tried again at once."""
DRIBBLERS = 500


def _span(seconds: float) -> tuple[float, float]:
    """Let things go on as they are for so long; from when to when, in Unix seconds."""
    begun = time.time()
    time.sleep(seconds)
    return begun, time.time()


def hanging(brief: bool) -> list[Figure]:
    """5 % of 100 receivers hang until the deadline; the others' latency against the one before."""
    seconds = 10 if brief else 45
    with attached() as deployment:
        quiet = add_receivers(deployment, 95)
        # Few enough failures that most of the time no breaker is open: it would spare us what hangs.
        settings = {"active": False, "timeout_seconds": 8, "retry_schedule": SOON_AGAIN}
        hung = add_receivers(deployment, 5, uri=deployment.receiver.uri("/switch/hanging"), **settings)
        deployment.receiver.switch("hang", "hanging")
        items = add_items(deployment, 100)
        serving = serve(deployment)
        with Writer(deployment, items, 4):
            wait_for_flow(deployment)
            time.sleep(2)
            begun, turned = _span(seconds)
            _activate(deployment, hung)
            time.sleep(seconds)
            ended = time.time()
        # Well again, so that everything has an end that can be judged.
        deployment.receiver.switch(200, "hanging")
        log = finished(deployment, serving)
        compared = compare("hanging: quiet receivers", deployment, log, quiet, (begun, turned), (turned, ended))
        hung_count = sum(request.status is None for request in log)
        figures = judged("hanging", deployment, log)
    return [*compared, Figure("hanging: requests that hung", hung_count, "", len(hung), "at least"), *figures]


def dribbling(brief: bool) -> list[Figure]:
    """500 receivers send a byte of their answer now and then, to the deadline; the others' latency against the one before."""
    seconds = 10 if brief else 60
    with attached() as deployment, another_receiver(deployment) as slow:
        slow.switch("dribble", "dribbling")
        healthy = add_receivers(deployment, 20, organisation="healthy")
        dribblers: list[int] = []
        for place in range(DRIBBLERS):
            dribblers += add_receivers(
                deployment,
                1,
                uri=slow.uri("/switch/dribbling"),
                organisation="dribbling",
                active=False,
                concurrency=1,
                # So that they do not open their next connections all at once.
                timeout_seconds=5 + place % 10,
                retry_schedule=SOON_AGAIN,
            )
        items = add_items(deployment, 100, "healthy")
        add_items(deployment, 2, "dribbling")
        serving = serve(deployment)
        with Writer(deployment, items, 15):
            wait_for_flow(deployment)
            time.sleep(2)
            begun, turned = _span(seconds)
            for first in range(0, DRIBBLERS, 25):
                _activate(deployment, dribblers[first : first + 25])
                time.sleep(0.25)
            slow.wait_until(lambda count: count >= DRIBBLERS, timeout_s=30)
            all_dribble = time.time()
            time.sleep(seconds)
            ended = time.time()
        slow.switch(200, "dribbling")
        log = finished(deployment, serving) + slow.received()
        name = "dribbling: healthy receivers"
        compared = compare(name, deployment, log, healthy, (begun, turned), (all_dribble, ended))
        onset = latencies_ms(deployment, log, receivers=healthy, since=turned, until=all_dribble)
        figures = judged("dribbling", deployment, log)
        ((timed_out, longest),) = deployment.rows(
            "SELECT count(*), max(duration_ms) FROM clarion.attempts WHERE outcome = 'TIMED_OUT'"
        )
    return [
        *compared,
        Figure(f"{name}: p99 while {DRIBBLERS} connections open ({len(onset):,})", percentile(onset, 0.99), "ms"),
        Figure("dribbling: requests cut off at their deadline", timed_out, "", DRIBBLERS, "at least"),
        Figure("dribbling: longest request, of deadlines up to 14 s", longest / 1000, "s", 14 * 1.05),
        *figures,
    ]


def bulk(brief: bool) -> list[Figure]:
    """One organisation commits 100,000 rows at once; another's latency, at receivers of its own, against the one before."""
    rows = 30_000 if brief else 100_000
    with attached() as deployment, another_receiver(deployment) as beside:
        # In a process of their own: how busy the bulk keeps its receivers is nothing that the engine could help.
        quiet = add_receivers(deployment, 3, uri=beside.uri("/ok"), organisation="quiet")
        add_receivers(deployment, 1, organisation="bulky")
        items = add_items(deployment, 100, "quiet")
        serving = serve(deployment)
        with Writer(deployment, items, 50):
            wait_for_flow(deployment, beside)
            time.sleep(2)
            begun, turned = _span(10)
            add_items(deployment, rows, "bulky")
            deployment.wait_for_row(
                """SELECT WHERE (SELECT count(*) FROM clarion.ledger l JOIN clarion.organisations o ON o.id = l.organisation_id
                                 WHERE o.name = 'bulky') >= %s
                   AND NOT EXISTS (SELECT FROM clarion.queue q JOIN clarion.organisations o ON o.id = q.organisation_id
                                   WHERE o.name = 'bulky')""",
                rows,
                timeout_s=240,
            )
            ended = time.time()
        log = finished(deployment, serving) + beside.received()
        compared = compare("bulk: quiet organisation", deployment, log, quiet, (begun, turned), (turned, ended))
        figures = judged("bulk", deployment, log)
    return [
        *compared,
        Figure("bulk: rows of the bulk routed and delivered per second", rows / (ended - turned), "1/s"),
        *figures,
    ]


def tenants(brief: bool) -> list[Figure]:
    """One of 50 organisations at 100 times the others' rate; the others' latency against the one before."""
    seconds = 10 if brief else 30
    with attached() as deployment:
        quiet: set[int] = set()
        items: list[int] = []
        for number in range(49):
            quiet |= add_receivers(deployment, 1, organisation=f"quiet {number}")
            items += add_items(deployment, 5, f"quiet {number}")
        add_receivers(deployment, 1, organisation="noisy")
        noisy_items = add_items(deployment, 50, "noisy")
        serving = serve(deployment)
        with Writer(deployment, items, 98):
            wait_for_flow(deployment)
            time.sleep(2)
            begun, turned = _span(seconds)
            with Writer(deployment, noisy_items, 200):
                time.sleep(seconds)
                ended = time.time()
        log = finished(deployment, serving)
        compared = compare("tenants: quiet organisations", deployment, log, quiet, (begun, turned), (turned, ended))
        figures = judged("tenants", deployment, log)
    return [*compared, *figures]


def returning(brief: bool) -> list[Figure]:
    """A backlog for a receiver that comes back, limited to 2,000 a second; its rate, and another's latency."""
    rows, limit = (20_000, 2_000) if brief else (100_000, 2_000)
    with attached() as deployment:
        (returned,) = add_receivers(deployment, 1, active=False, rate_limit_per_second=limit, organisation="away")
        quiet = add_receivers(deployment, 3, organisation="quiet")
        items = add_items(deployment, 100, "quiet")
        serving = serve(deployment)
        add_items(deployment, rows, "away")
        deployment.wait_for_row("SELECT WHERE NOT EXISTS (SELECT FROM clarion.outbox)", timeout_s=120)
        with Writer(deployment, items, 50):
            wait_for_flow(deployment)
            begun, turned = _span(10)
            _activate(deployment, [returned])
            deployment.wait_for_row(
                "SELECT WHERE NOT EXISTS (SELECT FROM clarion.queue WHERE receiver_id = %s)", returned, timeout_s=300
            )
            ended = time.time()
        log = finished(deployment, serving)
        compared = compare("returning: quiet receivers", deployment, log, quiet, (begun, turned), (turned, ended))
        owners = receiver_of(deployment)
        drained = sorted(request.at for request in log if owners[request.json()["subscription_id"]] == returned)
        ((concurrency, answer_ms),) = deployment.rows(
            """SELECT r.concurrency, avg(a.duration_ms)::float8 FROM clarion.attempts a JOIN clarion.events e USING (event_id, round)
               JOIN clarion.receivers r ON r.id = e.receiver_id WHERE r.id = %s GROUP BY 1""",
            returned,
        )
        figures = judged("returning", deployment, log)
    rate = len(drained) / (drained[-1] - drained[0])
    # Durations are whole milliseconds.
    possible = min(limit, concurrency * 1000 / max(answer_ms, 0.5))
    return [
        Figure("returning: rate of the drain against its limit", rate / limit, "of limit", 1.05),
        Figure(f"returning: rate of the drain against {possible:.0f}/s", rate / possible, "", 0.5, "at least"),
        *compared,
        *figures,
    ]


def cold(brief: bool) -> list[Figure]:
    """A worker starts on a million due rows of 50 receivers: its first request, and its memory."""
    rows, enough = (200_000, 50_000) if brief else (1_000_000, 100_000)
    with attached() as deployment:
        receivers = sorted(add_receivers(deployment, 50))
        _plant(deployment, rows)
        begun = time.time()
        serving = deployment.serve("--role", "delivery")
        first = deployment.receiver.wait_for(1)[0]
        # The largest memory is reached while it works, not before the first request.
        deployment.receiver.wait_until(lambda count: count >= enough, timeout_s=120)
        took = time.time() - begun
        count = deployment.receiver.count()
        memory = max(_peak_mb(pid) for pid in tree_of(serving.pid))
        serving.stop()
        log = deployment.receiver.received()
        planted = {
            receiver: {str(item): 1 for item in range(1, rows + 1) if item % len(receivers) == place}
            for place, receiver in enumerate(receivers)
        }
        verdict = deployment.judge(planted, log, chained=False)
    return [
        Figure(f"cold: first request after the start, {rows:,} rows due", first.at - begun, "s", 3),
        Figure("cold: largest process's peak memory", memory, "MB", 300),
        Figure("cold: deliveries per second from the start on", count / took, "1/s"),
        *figures_of("cold", verdict, open_events=rows - len({request.message_id for request in log})),
    ]


def contended(brief: bool) -> list[Figure]:
    """12 writers on 20 hot objects, several a transaction, pauses, a fifth rolled back."""
    seconds = 10 if brief else 60
    with attached() as deployment:
        add_receivers(deployment, 2)
        items = add_items(deployment, 20)
        serving = serve(deployment)
        until = time.monotonic() + seconds
        writers = [threading.Thread(target=_contend, args=(deployment, seed, items, until)) for seed in range(12)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        log = finished(deployment, serving)
        return judged("contended", deployment, log)


def horizon(brief: bool) -> list[Figure]:
    """A transaction holds the xmin horizon while 300 changes/s go on; latency at its end against its begin."""
    seconds = 20 if brief else 600
    with attached() as deployment:
        quiet = add_receivers(deployment, 3)
        items = add_items(deployment, 500)
        serving = serve(deployment)
        with psycopg.connect(deployment.database.url) as holder, Writer(deployment, items, 300) as writer:
            wait_for_flow(deployment)
            holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT count(*) FROM items")
            begun, commits = time.time(), writer.commits_count
            time.sleep(seconds)
            ended, commits = time.time(), writer.commits_count - commits
            holder.rollback()
        log = finished(deployment, serving)
        part = min(30, seconds / 4)
        name = f"horizon: held for {seconds} s, its end against its begin"
        compared = compare(name, deployment, log, quiet, (begun, begun + part), (ended - part, ended))
        figures = judged("horizon", deployment, log)
    return [
        *compared,
        Figure(
            "horizon: changes per second while held, of 300",
            commits / (ended - begun) / 300,
            "of 300",
            0.95,
            "at least",
        ),
        *figures,
    ]


PROOFS: dict[str, Proof] = {
    "kills": kills,
    "freezes": freezes,
    "hanging": hanging,
    "dribbling": dribbling,
    "bulk": bulk,
    "tenants": tenants,
    "returning": returning,
    "cold": cold,
    "contended": contended,
    "horizon": horizon,
}


# ---------------------------------------------------------------- what they share


def _activate(deployment: Deployment, receivers: Collection[int]) -> None:
    deployment.connection.execute("UPDATE clarion.receivers SET active = true WHERE id = ANY (%s)", (list(receivers),))


def _contend(deployment: Deployment, seed: int, items: Sequence[int], until: float) -> None:
    dice = random.Random(seed)
    with psycopg.connect(deployment.database.url) as connection:
        while time.monotonic() < until:
            # In one order, as applications do that want no deadlocks.
            for item in sorted(dice.sample(items, dice.randint(1, 3))):
                connection.execute("UPDATE items SET version = version + 1 WHERE id = %s", (item,))
                time.sleep(dice.uniform(0, 0.004))
            if dice.random() < 0.2:
                connection.rollback()
            else:
                connection.commit()


def _plant(deployment: Deployment, rows: int) -> None:
    """Due queue rows with their ledger rows, as a router would have left them, spread over all receivers."""
    with deployment.connection.transaction():
        deployment.connection.execute(
            """INSERT INTO clarion.ledger (position, organisation_id, change_id, outbox_id, recorded_at, occurred_at, captured_at, xid,
                                           action, resource, object_id, link, salt, new, first_event_id, events_count)
               SELECT base.position + n, o.id, base.position + n, n, now(), now(), now(), pg_current_xact_id(), 'c', 'ITEMS',
                      n::text, sha256('planted'), '\\x00', '{"id":' || n || ',"version":1,"note":"a row of a usual length, more or less"}',
                      base.event_id + n, 1
               FROM generate_series(1, %s) n, (SELECT position, event_id FROM clarion.counters) AS base,
                    (SELECT id FROM clarion.organisations WHERE name = 'default') AS o""",
            (rows,),
        )
        deployment.connection.execute(
            """INSERT INTO clarion.queue (queue_id, event_id, organisation_id, receiver_id, subscription_id, position,
                                          sequence, lane, shard)
               SELECT base.queue_id + n, base.event_id + n, s.organisation_id, s.receiver_id, s.id, base.position + n,
                      n, n, s.receiver_id %% 64
               FROM clarion.counters AS base, generate_series(1, %s) n
               JOIN (SELECT *, row_number() OVER (ORDER BY id) - 1 AS place, count(*) OVER () AS places
                     FROM clarion.subscriptions WHERE action = 'CREATE') AS s ON n %% s.places = s.place""",
            (rows,),
        )
        deployment.connection.execute(
            "UPDATE clarion.counters SET position = position + %s, event_id = event_id + %s, queue_id = queue_id + %s",
            (rows, rows, rows),
        )
    deployment.connection.execute("ANALYZE clarion.queue, clarion.ledger")


def _peak_mb(pid: int) -> float:
    """Largest resident memory so far, in MB (10^6 bytes)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e6
