"""A backlog of queued events, drained by one worker; and what the worker takes per delivery beside what wrk takes.

    .venv/bin/python bench/drain.py [--events 200000] [--runs 3] [--json]

The events are made by the router from committed changes (a fifth of them CREATE, the rest UPDATE of the same objects), with
delivery off. Each run puts the same queue back and starts a worker. Deliveries/s is over the span from the first
request to the last stored outcome. Every attempt and answer is stored and checked. wrk then POSTs to the same receiver over
as many connections; CPU is the process's own.
"""

from __future__ import annotations

import time

from figures import Figure, Figures, options
from receivers import wrk
from rig import RECEIVERS_COUNT, Rig, cpu_us, engine_of, rig, spent_us
from writers import TABLES

UPDATES = 4
CONNECTIONS_PER_RECEIVER = 4
WRK_SECONDS = 4
SPAN = """
    SELECT extract(epoch FROM (SELECT max(settled_at) FROM clarion.events) - (SELECT min(started_at) FROM clarion.attempts))::float8
"""


def prepare(at: Rig, events: int) -> int:
    """The queue filled and kept aside; how many events."""
    at.register()
    at.raise_fan_out(1)
    at.fill(UPDATES, rows=events // len(TABLES) // (UPDATES + 1))
    with at.serving("router"):
        at.deployment.wait_for_row("SELECT WHERE NOT EXISTS (SELECT FROM clarion.outbox)", timeout_s=300)
    at.deployment.connection.execute("CREATE TABLE kept_queue AS TABLE clarion.queue")
    return at.flow().queue


def drain(at: Rig, events: int) -> tuple[float, float, float]:
    """Deliveries/s; CPU of the worker's process and of its sessions, in microseconds per delivery."""
    at.deployment.connection.execute("TRUNCATE clarion.queue, clarion.events, clarion.attempts")
    at.deployment.connection.execute("INSERT INTO clarion.queue TABLE kept_queue")
    at.deployment.connection.execute("VACUUM ANALYZE clarion.queue")
    at.deployment.connection.execute("CHECKPOINT")
    answered_before = at.receivers.count()
    with at.serving("delivery") as serve:
        worker, backends = [engine_of(serve)], at.backends()
        settled = at.flow().events
        worker_before, backends_before = cpu_us(worker), cpu_us(backends)
        at.deployment.wait_until_settled(600)
        counted = events - settled
        worker_us = spent_us(worker_before, cpu_us(worker)) / counted
        backend_us = spent_us(backends_before, cpu_us(backends)) / counted
    at.check_delivered(answered_before)
    ((span_s,),) = at.deployment.rows(SPAN)
    return events / span_s, worker_us, backend_us


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    given = parser.parse_args()
    figures = Figures(
        Figure("backlog drained by one worker", "deliveries/s", 9000, 18000),
        Figure("worker's own CPU per delivery", "us"),
        Figure("CPU of its PostgreSQL sessions per delivery", "us"),
        Figure("wrk's CPU per request, same receiver", "us"),
        Figure("wrk's requests", "requests/s"),
        Figure("worker's CPU / wrk's", "ratio", 6, 4),
    )
    notes = []
    with rig() as at:
        events = prepare(at, given.events)
        notes.append(f"{events} events; receiver: {at.receivers.name}")
        for _ in range(given.runs):
            rate, worker_us, backend_us = drain(at, events)
            figures["backlog drained by one worker"].add(rate)
            figures["worker's own CPU per delivery"].add(worker_us)
            figures["CPU of its PostgreSQL sessions per delivery"].add(backend_us)
            time.sleep(1)
            connections = RECEIVERS_COUNT * CONNECTIONS_PER_RECEIVER
            sent = wrk(at.directory, "127.0.1.1", at.receivers.port, connections, WRK_SECONDS)
            if sent is not None:
                figures["wrk's CPU per request, same receiver"].add(sent.cpu_us)
                figures["wrk's requests"].add(sent.rate)
                figures["worker's CPU / wrk's"].add(worker_us / sent.cpu_us)
    if not figures["worker's CPU / wrk's"].runs:
        notes.append("wrk is not installed (Debian: wrk): no ratio to it")
    figures.show(as_json=given.json, notes=notes)


if __name__ == "__main__":
    main()
