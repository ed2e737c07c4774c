"""The proofs of capture and conditions: no way around, an application that others wrote, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.deployment import Deployment
from proof.figures import Figure
from proof.load import Writer, add_items, committed_by_receiver, receiver_of
from proof.run import add_receivers, another_receiver, attached, compare, finished, judged, serve, wait_for_flow

Proof = Callable[[bool], list[Figure]]

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
        figures = judged(name, deployment, of_quiet, duplicates_max=0, committed=committed)
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


PROOFS: dict[str, Proof] = {"bulk update": bulk_update, "conditions": conditions}
