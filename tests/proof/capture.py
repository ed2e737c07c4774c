"""The proofs of capture and conditions: no way around, an application that others wrote, and what it costs."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import sql

from capture.routes import ROUTES, Fate, prepare, take
from clarion.app import prepare_database
from clarion.capture import guard
from clarion.database.address import DatabaseAddress
from clarion.database.embedded import EmbeddedServer
from clarion.database.migrate import adopt
from harness import pgbench
from harness.cluster import installed_server
from harness.deployment import Deployment
from harness.stage import stage
from proof.bench import measured
from proof.figures import Figure
from proof.load import Writer, add_items, committed_by_receiver, receiver_of
from proof.run import add_receivers, another_receiver, attached, compare, finished, judged, serve, wait_for_flow

Proof = Callable[[bool], list[Figure]]

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")

ROUTED = """
    SELECT WHERE NOT EXISTS (SELECT FROM clarion.outbox b WHERE b.organisation = 'bulky')
             AND NOT EXISTS (SELECT FROM clarion.queue q JOIN clarion.organisations o ON o.id = q.organisation_id
                             WHERE o.name = 'bulky')
"""


def bulk_update(brief: bool) -> list[Figure]:
    """One organisation updates 100,000 rows in one statement; another's latency against the one before."""
    rows = 30_000 if brief else 100_000

    def subscribe(deployment: Deployment) -> None:
        add_receivers(deployment, 1, organisation="bulky")

    return _beside_a_bulk("bulk update", rows, subscribe)


def conditions(brief: bool) -> list[Figure]:
    """The same with 1,000 subscriptions of the bulk's organisation, each with a condition of its own; and a dear one."""
    rows, count = (300, 1000) if brief else (2_000, 1000)

    def subscribe(deployment: Deployment) -> None:
        receiver = deployment.register(organisation="bulky")
        for number in range(count):
            condition = f'object.version == 2 && oldObject.version == 1 && object.note == "{number}"'
            deployment.subscribe(receiver, actions=["UPDATE"], condition=condition)
        numbers = list(range(40))
        dear = " && ".join(f"{numbers}.all(x, {numbers}.exists(y, y == x + {n} - {n}))" for n in range(4))
        deployment.subscribe(receiver, actions=["UPDATE"], condition=dear)

    return _beside_a_bulk("conditions", rows, subscribe)


def _beside_a_bulk(name: str, rows: int, subscribe: Callable[[Deployment], None]) -> list[Figure]:
    """The latency of organisation `quiet`, at receivers of its own, while rows of organisation `bulky` are updated at once."""
    with attached() as deployment, another_receiver(deployment) as beside:
        quiet = add_receivers(deployment, 3, uri=beside.uri("/ok"), organisation="quiet")
        items = add_items(deployment, 100, "quiet")
        add_items(deployment, rows, "bulky")
        serving = serve(deployment)
        deployment.wait_for_row(ROUTED, timeout_s=240)
        # Not before, or the rows would have been sent when they were made.
        subscribe(deployment)
        with Writer(deployment, items, 50):
            wait_for_flow(deployment, beside)
            time.sleep(2)
            begun = time.time()
            time.sleep(10)
            turned = time.time()
            deployment.connection.execute("UPDATE items SET version = version + 1 WHERE organisation = 'bulky'")
            deployment.wait_for_row(ROUTED, timeout_s=240)
            ended = time.time()
        log = finished(deployment, serving) + beside.received()
        compared = compare(f"{name}: quiet organisation", deployment, log, quiet, (begun, turned), (turned, ended))
        owners = receiver_of(deployment)
        of_quiet = [request for request in log if owners[request.json()["subscription_id"]] in quiet]
        committed = {
            receiver: items_ for receiver, items_ in committed_by_receiver(deployment).items() if receiver in quiet
        }
        figures = judged(name, deployment, of_quiet, committed=committed)
        # Of the bulk each row is sent once, or counted at the one subscription whose condition took more than it may.
        ((failed,),) = deployment.rows("SELECT coalesce(sum(conditions_count), 0) FROM clarion.evaluation_errors")
        unaccounted = (
            rows - int(failed) - len({request.message_id for request in log} - {r.message_id for r in of_quiet})
        )
    return [
        *compared,
        Figure(f"{name}: rows of the bulk through per second", rows / (ended - turned), "1/s"),
        Figure(f"{name}: rows of the bulk neither sent nor counted as not evaluated", unaccounted, "", 0, "exactly"),
        Figure(f"{name}: of the bulk not evaluated, for its subscription's time was spent", int(failed), ""),
        *figures,
    ]


def routes(_brief: bool) -> list[Figure]:
    """Every known way around capture, on PostgreSQL 18 and 15, with the guard and without: captured, refused or detected."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="clarion-proof.") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with EmbeddedServer(directory / "18") as address:
            figures += _routes_on("18", address.with_database("postgres"))
        if not (DEBIAN_15 / "initdb").exists():
            raise FileNotFoundError(f"{DEBIAN_15} is missing: apt-get install postgresql-15")
        (directory / "15").mkdir()
        with installed_server(DEBIAN_15, directory / "15") as address:
            figures += _routes_on("15", address)
    return figures


def _routes_on(version: str, server: DatabaseAddress) -> list[Figure]:
    figures = []
    for how in ("guarded", "unguarded"):
        with psycopg.connect(server.url, autocommit=True) as administrator:
            administrator.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(how)))
        address = server.with_database(how)
        prepare_database(address)
        fates: Counter[Fate] = Counter()
        wrong = 0
        with psycopg.connect(address.url, autocommit=True) as connection:
            adopt(connection)
            (guard.turn_on if how == "guarded" else guard.turn_off)(connection)
            with connection.transaction(force_rollback=True):
                prepare(connection)
                for route in ROUTES:
                    if connection.info.server_version < route.version_min * 10000:
                        continue
                    ended = take(connection, route)
                    fates[ended.fate] += 1
                    expected = route.guarded if how == "guarded" else route.unguarded
                    as_expected = ended.fate is expected and (
                        expected is not Fate.CAPTURED or ended.captured == route.captured
                    )
                    wrong += not as_expected
                    sign = "" if as_expected else f"  EXPECTED {expected.value}"
                    print(f"# {version} {how:9} {route.name:72} {ended.fate.value}{sign}", file=sys.stderr)
        name = f"routes: PostgreSQL {version}, {how.replace('guarded', 'with the guard').replace('unwith', 'without')}"
        figures += [Figure(f"{name}: {fate.value}", count, "") for fate, count in sorted(fates.items())]
        figures.append(Figure(f"{name}: not as documented", wrong, "", 0, "exactly"))
    return figures


def application(brief: bool) -> list[Figure]:
    """pgbench with its own schema and workload, eight clients; what its deltas add up to at the receiver."""
    with stage() as deployment:
        pgbench.prepare(deployment, scale=10)
        receiver = deployment.register()
        for table in pgbench.TABLES:
            deployment.subscribe(receiver, f"PGBENCH_{table.upper()}", ["UPDATE"])
        serving = serve(deployment)
        outcome = pgbench.run(deployment, seconds=8 if brief else 30)
        serving.stop()
    figures = [
        Figure("application: transactions of pgbench, eight clients", outcome.transactions, ""),
        Figure("application: changes", outcome.changes, ""),
        Figure("application: lost", outcome.lost, "", 0, "exactly"),
        Figure("application: twice", outcome.doubled, "", 0, "exactly"),
        Figure("application: out of order per object", outcome.out_of_order, "", 0, "exactly"),
        Figure("application: after the load until all was delivered", outcome.tail_s, "s"),
    ]
    return figures + [
        Figure(f"application: {name}, sum at the receiver less sum in the table", sums[0] - sums[1], "", 0, "exactly")
        for name, sums in outcome.sums.items()
    ]


def costs(brief: bool) -> list[Figure]:
    """What the benchmarks of capture, of the router and of conditions measure, with their floors as targets."""
    runs = "1" if brief else "3"
    return [
        *measured("capture.py", "--runs", runs),
        *measured("router.py", "--runs", "1"),
        *measured("conditions.py", "--runs", runs),
    ]


PROOFS: dict[str, Proof] = {
    "routes": routes,
    "costs": costs,
    "application": application,
    "bulk-update": bulk_update,
    "conditions": conditions,
}
