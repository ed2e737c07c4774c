"""The router alone: how many waiting changes a second it ledgers and turns into events.

    .venv/bin/python bench/router.py [--changes 100000] [--organisations 1,500] [--runs 3] [--json]

The outbox is filled with delivery and router off by one transaction of the application, organisations in turn, one
subscription matching each change. Changes/s is over the span between the router's looks at the first batch and at the last;
the latter's rows do not count. CPU is that of the router's process and of its sessions, from when it is ready.
"""

from __future__ import annotations

from figures import Figure, Figures, numbers, options
from rig import Rig, cpu_us, engine_of, rig, spent_us

from clarion.capture.attach import Attachment

SCHEMA = """
    CREATE TABLE items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, organisation text NOT NULL, number text NOT NULL DEFAULT 'PN-1',
        title text DEFAULT 'Bracket, left', status text DEFAULT 'in_progress', quantity integer DEFAULT 1, cost numeric DEFAULT 12.5,
        due timestamptz DEFAULT now(), done boolean DEFAULT false, spec jsonb DEFAULT '{"length": 12.5, "finish": ["anodised", "black"]}');
"""
# Never sent, so never opened: the secrets may be anything.
SUBSCRIBE = """
    WITH organisations AS (
        INSERT INTO clarion.organisations (name) SELECT 'organisation ' || n FROM generate_series(1, %s) n RETURNING id
    ), receivers AS (
        INSERT INTO clarion.receivers (organisation_id, name, webhook_uri, shared_secret_sealed, shared_secret_hint)
        SELECT id, 'receiver', 'https://127.0.1.1/ok', 'sealed', 'none' FROM organisations RETURNING id, organisation_id
    )
    INSERT INTO clarion.subscriptions (organisation_id, receiver_id, resource, action)
    SELECT organisation_id, id, 'ITEMS', 'CREATE' FROM receivers
"""
FILL = "INSERT INTO items (organisation) SELECT 'organisation ' || n %% %s + 1 FROM generate_series(1, %s) n"
RATE = """
    SELECT (count(*) FILTER (WHERE recorded_at < last))::float8 / extract(epoch FROM last - min(recorded_at))::float8
    FROM clarion.ledger, (SELECT max(recorded_at) AS last FROM clarion.ledger) AS newest
    WHERE position > %s GROUP BY last
"""


def route(at: Rig, organisations: int, changes: int) -> tuple[float, float, float]:
    """Changes/s; CPU of the router's process and of its sessions, in microseconds per change."""
    connection = at.deployment.connection
    connection.execute("TRUNCATE clarion.queue")
    ((position,),) = at.deployment.rows("SELECT position FROM clarion.counters")
    connection.execute(FILL, (organisations, changes))
    connection.execute("ANALYZE clarion.outbox")
    connection.execute("CHECKPOINT")
    with at.serving("router") as serve:
        router, backends = [engine_of(serve)], at.backends()
        ((routed,),) = at.deployment.rows("SELECT position - %s FROM clarion.counters", position)
        before, backends_before = cpu_us(router), cpu_us(backends)
        at.deployment.wait_for_row("SELECT WHERE NOT EXISTS (SELECT FROM clarion.outbox)", timeout_s=300)
        counted = changes - routed
        process_us = spent_us(before, cpu_us(router)) / counted
        backend_us = spent_us(backends_before, cpu_us(backends)) / counted
    ((ledgered, queued),) = at.deployment.rows(
        "SELECT (SELECT position FROM clarion.counters) - %s, (SELECT count(*) FROM clarion.queue)", position
    )
    assert ledgered == queued == changes, f"{ledgered} changes in the ledger and {queued} events, of {changes}"
    ((rate,),) = at.deployment.rows(RATE, position)
    return rate, process_us, backend_us


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--changes", type=int, default=100_000)
    parser.add_argument("--organisations", default="1,500")
    given = parser.parse_args()
    mixes = [int(count) for count in numbers(given.organisations)]
    figures = Figures(
        *(
            figure
            for mix in mixes
            for figure in (
                Figure(f"router alone, organisations {mix}", "changes/s", 10000, 24000),
                Figure(f"  CPU of its process, organisations {mix}", "us per change"),
                Figure(f"  CPU of its PostgreSQL sessions, organisations {mix}", "us per change"),
            )
        )
    )
    attachment = Attachment(resource="ITEMS", table="items", organisation=None, organisation_column="organisation")
    with rig(schema=SCHEMA, attachments=[attachment]) as at:
        at.deployment.connection.execute(SUBSCRIBE, (max(mixes),))
        with at.serving("router"):
            # The registrations themselves are changes; they are not what is measured.
            at.deployment.wait_for_row("SELECT WHERE NOT EXISTS (SELECT FROM clarion.outbox)")
        for _ in range(given.runs):
            for mix in mixes:
                rate, process_us, backend_us = route(at, mix, given.changes)
                figures[f"router alone, organisations {mix}"].add(rate)
                figures[f"  CPU of its process, organisations {mix}"].add(process_us)
                figures[f"  CPU of its PostgreSQL sessions, organisations {mix}"].add(backend_us)
    figures.show(as_json=given.json, notes=[f"outbox of {given.changes} rows"])


if __name__ == "__main__":
    main()
