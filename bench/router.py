"""The router alone: how many waiting changes a second it ledgers and turns into events.

    .venv/bin/python bench/router.py [--changes 100000] [--organisations 1,500] [--listening 0,10,1000] [--runs 3] [--json]

The outbox is filled with delivery and router off by one transaction of the application, organisations in turn, one
subscription matching each change. Then one organisation with none, ten and a thousand of them, each of which makes an event,
and with a thousand that have a condition each, of which one holds; the more there are, the fewer changes. Changes/s is over
the span between the router's looks at the first batch and at the last; the latter's rows do not count. CPU is that of the
router's process and of its sessions, from when it is ready.
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
SUBSCRIPTIONS = """
    INSERT INTO clarion.subscriptions (organisation_id, receiver_id, resource, action, condition)
    SELECT r.organisation_id, r.id, 'ITEMS', 'CREATE', CASE WHEN %(asking)s THEN 'object.done == false && object.quantity == ' || n END
    FROM clarion.receivers r JOIN clarion.organisations o ON o.id = r.organisation_id, generate_series(1, %(count)s) n
    WHERE o.name = 'organisation 1'
"""
EVENTS_MAX = 200_000
CONDITIONS_MAX = 2_000_000
"""What a run comes to at most, however many listen."""


def route(at: Rig, organisations: int, changes: int, events_each: int = 1) -> tuple[float, float, float]:
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
    assert (ledgered, queued) == (changes, changes * events_each), f"{ledgered} of {changes} changes, {queued} events"
    ((rate,),) = at.deployment.rows(RATE, position)
    return rate, process_us, backend_us


def listen(at: Rig, count: int, *, asking: bool) -> None:
    """Organisation 1 has so many subscriptions now; `asking`: each with a condition of its own, of which one holds."""
    connection = at.deployment.connection
    connection.execute("UPDATE clarion.subscriptions SET deleted = now() WHERE deleted IS NULL")
    connection.execute(SUBSCRIPTIONS, {"count": count, "asking": asking})
    # The registrations themselves are changes; they are not what is measured.
    route_registrations(at)


def route_registrations(at: Rig) -> None:
    with at.serving("router"):
        at.deployment.wait_for_row("SELECT WHERE NOT EXISTS (SELECT FROM clarion.outbox)", timeout_s=120)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--changes", type=int, default=100_000)
    parser.add_argument("--organisations", default="1,500")
    parser.add_argument("--listening", default="0,10,1000")
    given = parser.parse_args()
    mixes = [int(count) for count in numbers(given.organisations)]
    counts = [int(count) for count in numbers(given.listening)]
    names = {
        (count, asking): _name(count, asking)
        for count in counts
        for asking in (False, True)
        if count > 10 or not asking
    }
    figures = Figures(
        *(figure for mix in mixes for figure in _figures(f"organisations {mix}", 10000, 24000)),
        *(figure for name in names.values() for figure in _figures(name)),
    )
    attachment = Attachment(resource="ITEMS", table="items", organisation=None, organisation_column="organisation")
    with rig(schema=SCHEMA, attachments=[attachment]) as at:
        at.deployment.connection.execute(SUBSCRIBE, (max(*mixes, 1),))
        route_registrations(at)
        for _ in range(given.runs):
            for mix in mixes:
                _note(figures, f"organisations {mix}", *route(at, mix, given.changes))
        for (count, asking), name in names.items():
            listen(at, count, asking=asking)
            changes = min(given.changes, CONDITIONS_MAX // count if asking else EVENTS_MAX // max(count, 1))
            for _ in range(given.runs):
                _note(figures, name, *route(at, 1, changes, 1 if asking else count))
    figures.show(
        as_json=given.json, notes=[f"outbox of {given.changes} rows, fewer where more than one subscription listens"]
    )


def _name(count: int, asking: bool) -> str:
    return f"subscriptions {count:,}" + (", of which one holds" if asking else "")


def _figures(name: str, floor: float | None = None, goal: float | None = None) -> list[Figure]:
    return [
        Figure(f"router alone, {name}", "changes/s", floor, goal),
        Figure(f"  CPU of its process, {name}", "us per change"),
        Figure(f"  CPU of its PostgreSQL sessions, {name}", "us per change"),
    ]


def _note(figures: Figures, name: str, rate: float, process_us: float, backend_us: float) -> None:
    figures[f"router alone, {name}"].add(rate)
    figures[f"  CPU of its process, {name}"].add(process_us)
    figures[f"  CPU of its PostgreSQL sessions, {name}"].add(backend_us)


if __name__ == "__main__":
    main()
