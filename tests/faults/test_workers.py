"""Several workers, several routers: shares, hand-over, death and sleep, while receivers are served."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import psycopg
import pytest

from clarion.delivery.shard import LeasePolicy
from harness.deployment import Deployment
from harness.oracle import pauses_s
from harness.process import children_of, tree_of

pytestmark = pytest.mark.data_path

RECEIVERS = 6
CONCURRENCY = 2
UNSETTLED_MAX = 2 * RECEIVERS * CONCURRENCY
"""Requests whose outcome is not yet durable at one moment: as many may be in a settle as under way."""
ITEMS = 10
LEASE = LeasePolicy()
TAKE_OVER_S = 20
"""After a freeze, whatever froze: what the documentation promises."""
DELIVERY = ("--role", "delivery")
SHARED = """
    SELECT FROM (
        SELECT count(s.shard) AS n FROM clarion.workers w LEFT JOIN clarion.shards s ON s.worker_id = w.id
        WHERE w.ended_at IS NULL GROUP BY w.id) AS counted
    HAVING count(*) = %s AND sum(n) = 64 AND max(n) <= ceil(64.0 / %s)
"""


class Load:
    """An application that updates its rows, each change its own transaction, until the block ends."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._written: Counter[int] = Counter()
        self._rounds = 0

    def __enter__(self) -> Self:
        deployment = self._deployment
        deployment.attach()
        deployment.receiver.switch(200, "load")
        uri = deployment.receiver.uri("/switch/load")
        deployment.register_several(RECEIVERS, uri, concurrency=CONCURRENCY)
        deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, %s)", (ITEMS,))
        self._rounds = 1
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        with psycopg.connect(self._deployment.database.url, autocommit=True) as connection:
            item = 0
            while not self._stop.wait(0.03):
                item = item % ITEMS + 1
                connection.execute("UPDATE items SET version = version + 1 WHERE id = %s", (item,))
                self._written[item] += 1

    @property
    def versions(self) -> dict[int, int]:
        """What the rows have come to."""
        return {item: self._rounds + self._written[item] for item in range(1, ITEMS + 1)}

    @contextmanager
    def overwhelmed(self) -> Iterator[None]:
        """In the block each worker has as much under way as it may, of which nothing is answered yet, and more to be sent."""
        self._deployment.receiver.switch("slow", "load")
        self._deployment.connection.execute("UPDATE items SET version = version + 1")
        self._rounds += 1
        more(self._deployment, RECEIVERS * CONCURRENCY)
        yield
        self._deployment.receiver.switch(200, "load")


def wait_for_shares(deployment: Deployment, workers: int) -> None:
    """All shards are owned, by so many workers, none of which has more than its share."""
    deployment.wait_for_row(SHARED, workers, workers)


def more(deployment: Deployment, requests: int = 60) -> None:
    deployment.receiver.wait_for(deployment.receiver.count() + requests)


def test_workers_share_evenly_and_one_that_joins_or_leaves_causes_no_duplicate(deployment: Deployment) -> None:
    with Load(deployment) as load:
        first = deployment.serve("--role", "router", *DELIVERY)
        wait_for_shares(deployment, 1)
        more(deployment)
        second = deployment.serve(*DELIVERY, "--workers", "2")
        wait_for_shares(deployment, 3)
        more(deployment)
        second.stop()
        wait_for_shares(deployment, 1)
        more(deployment)
    deployment.wait_until_settled()
    first.stop()
    deployment.check(committed_versions=load.versions, duplicates_max=0)


def test_workers_that_lose_their_sessions_together_settle_what_they_hold_and_send_nothing_again(
    deployment: Deployment,
) -> None:
    with Load(deployment) as load:
        serve = deployment.serve("--role", "router", *DELIVERY, "--workers", "3")
        wait_for_shares(deployment, 3)
        for _ in range(3):
            more(deployment)
            deployment.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE 'clarion %%'"
            )
        more(deployment)
        wait_for_shares(deployment, 3)
    deployment.wait_until_settled()
    # Who finds no time to come back before the others lose patience is taken over, on a machine that is too busy.
    ((taken_over,),) = deployment.rows("SELECT count(*) FROM clarion.workers WHERE ended_at IS NOT NULL")
    serve.stop()
    print(f"taken over: {taken_over}")
    deployment.check(committed_versions=load.versions, duplicates_max=taken_over * UNSETTLED_MAX)


def test_a_killed_worker_of_three_loses_nothing_and_doubles_only_what_was_in_flight(deployment: Deployment) -> None:
    with Load(deployment) as load:
        serve = deployment.serve("--role", "router", *DELIVERY, "--workers", "3")
        wait_for_shares(deployment, 3)
        (routers,) = deployment.rows(
            "SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1129071954 AND objid = 1 AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert routers == (1,)
        more(deployment)
        for _ in range(2):
            (before,) = deployment.rows("SELECT max(id) FROM clarion.workers")
            os.kill(children_of(serve.pid)[0], signal.SIGKILL)
            deployment.wait_for_row("SELECT FROM clarion.workers WHERE id > %s AND ended_at IS NULL", before[0])
            wait_for_shares(deployment, 3)
            more(deployment)
    deployment.wait_until_settled()
    serve.stop()
    deployment.check(committed_versions=load.versions, duplicates_max=2 * UNSETTLED_MAX)


def pauses_since(deployment: Deployment, moment: float) -> list[float]:
    """How long each receiver heard nothing, in seconds, until it heard of what happened after the moment."""
    owners = dict(deployment.rows("SELECT id, receiver_id FROM clarion.subscriptions"))
    return list(pauses_s(deployment.receiver.received(), owners, deployment.secrets, moment).values())


def test_a_frozen_worker_of_three_is_taken_over_and_does_nothing_when_it_wakes_but_begin_anew(
    deployment: Deployment,
) -> None:
    with Load(deployment) as load:
        first = deployment.serve("--role", "router", *DELIVERY)
        second = deployment.serve(*DELIVERY, "--workers", "2")
        wait_for_shares(deployment, 3)
        more(deployment)
        frozen = children_of(second.pid)[0]
        with load.overwhelmed():
            os.kill(frozen, signal.SIGSTOP)
        frozen_at = time.time()
        # Those of the others go on all the while; its own wait until its lease is over for certain.
        more(deployment)
        wait_for_shares(deployment, 2)
        deployment.wait_for_row(
            "SELECT WHERE NOT EXISTS (SELECT FROM clarion.queue q JOIN clarion.ledger l USING (position) "
            "WHERE l.recorded_at < clock_timestamp() - interval '5 s')"
        )
        (ended,) = deployment.rows("SELECT count(*) FROM clarion.workers WHERE ended_at IS NOT NULL")
        assert ended == (1,)
        woken_at = time.time()
        os.kill(frozen, signal.SIGCONT)
        wait_for_shares(deployment, 3)
        more(deployment)
    deployment.wait_until_settled()
    second.stop()
    first.stop()
    pauses = pauses_since(deployment, frozen_at)
    print(f"pauses of the receivers: {', '.join(f'{pause:.2f} s' for pause in sorted(pauses))}")
    assert min(pauses) < LEASE.lease_s < max(pauses) <= TAKE_OVER_S
    # Twice came only what was under way when it froze, and that before it woke.
    seen: set[str] = set()
    for request in deployment.check(committed_versions=load.versions, duplicates_max=RECEIVERS * CONCURRENCY):
        assert request.message_id not in seen or request.at < woken_at
        seen.add(request.message_id)
    ((live,),) = deployment.rows("SELECT count(*) FROM clarion.workers WHERE ended_at IS NULL")
    assert live == 0, "whoever stops in good order ends its row"


def test_a_frozen_router_is_taken_over_and_stands_by_when_it_wakes(deployment: Deployment) -> None:
    with Load(deployment) as load:
        delivery = deployment.serve(*DELIVERY)
        first = deployment.serve("--role", "router")
        with deployment.single_router("--frozen-after", "4") as standby:
            more(deployment)
            assert standby.stdout == [], "the first one routes"
            processes = tree_of(first.pid)
            for pid in processes:
                os.kill(pid, signal.SIGSTOP)
            frozen_at = time.time()
            standby.wait_for_line("^working")
            more(deployment)
            for pid in processes:
                os.kill(pid, signal.SIGCONT)
            first.wait_for_line("router starts again", stderr=True)
            more(deployment)
        # The second one is killed, and the first goes on where it was.
        more(deployment)
    deployment.wait_until_settled()
    first.stop()
    delivery.stop()
    pauses = pauses_since(deployment, frozen_at)
    assert 1 < min(pauses) <= max(pauses) <= TAKE_OVER_S, pauses
    deployment.check(committed_versions=load.versions, duplicates_max=0)


def test_requests_under_way_at_a_sigterm_are_finished_and_settled_and_not_sent_again_by_who_goes_on(
    deployment: Deployment,
) -> None:
    deployment.attach()
    deployment.register_several(RECEIVERS, deployment.receiver.uri("/slow/3"))
    both = ("--role", "router", *DELIVERY)
    first, second = deployment.serve(*both), deployment.serve(*both)
    wait_for_shares(deployment, 2)
    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    deployment.receiver.wait_for(RECEIVERS)
    ((shares,),) = deployment.rows(
        "SELECT count(DISTINCT s.worker_id) FROM clarion.queue q JOIN clarion.shards s USING (shard)"
    )
    assert shares == 2, "each of the two has requests under way"
    assert first.stop().code == 0
    assert deployment.receiver.count() == RECEIVERS
    deployment.wait_until_settled()
    deployment.connection.execute("UPDATE clarion.receivers SET webhook_uri = %s", (deployment.receiver.uri(),))
    deployment.connection.execute("UPDATE items SET version = 2")
    deployment.wait_until_settled()
    assert second.stop().code == 0
    deployment.check(committed_versions={1: 2}, duplicates_max=0)
    assert deployment.rows("SELECT DISTINCT number, outcome FROM clarion.attempts") == [(1, "SUCCEEDED")]
