"""PostgreSQL dies under a running deployment, in several ways, and everything goes on by itself."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from clarion.app import prepare_database
from clarion.database.address import DatabaseAddress
from clarion.database.embedded import EmbeddedServer
from clarion.delivery.shard import LeasePolicy
from harness.deployment import Deployment
from harness.process import ClarionProcess, children_of

ITEMS = 40
FROZEN_S = LeasePolicy().frozen_after_s + 2
SESSIONS = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


class Application:
    """Writes about 100 changes/s, each its own transaction, and connects again whenever it has to."""

    def __init__(self, database: DatabaseAddress) -> None:
        self._database = database
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.confirmed: Counter[int] = Counter(dict.fromkeys(range(1, ITEMS + 1), 1))
        self.unanswered: Counter[int] = Counter()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        written = 0
        while not self._stop.wait(0.02):
            try:
                with psycopg.connect(self._database.url, autocommit=True) as connection:
                    while not self._stop.wait(0.008):
                        item = written % ITEMS + 1
                        written += 1
                        self.unanswered[item] += 1
                        connection.execute("UPDATE items SET version = version + 1 WHERE id = %s", (item,))
                        self.unanswered[item] -= 1
                        self.confirmed[item] += 1
            except psycopg.OperationalError:
                continue


def _kill_the_server(deployment: Deployment, data_dir: Path) -> None:
    os.kill(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)


def _kill_a_backend(deployment: Deployment, data_dir: Path) -> None:
    """The server then ends all sessions and recovers."""
    pids = [int(pid) for (pid,) in deployment.rows(f"SELECT pid {SESSIONS}")]
    os.kill(random.choice(pids), signal.SIGKILL)


def _end_every_session(deployment: Deployment, data_dir: Path) -> None:
    deployment.rows(f"SELECT pg_terminate_backend(pid) {SESSIONS}")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / ".clarion"


@pytest.fixture
def embedded(data_dir: Path, clarion_process: Callable[..., ClarionProcess], tmp_path: Path) -> Iterator[Deployment]:
    """On an embedded server of its own, with a table of ITEMS rows attached."""
    with EmbeddedServer(data_dir) as database:
        prepare_database(database)
        with Deployment(database, tmp_path, clarion_process) as deployment:
            deployment.attach()
            deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, %s)", (ITEMS,))
            yield deployment


def test_whatever_happens_to_the_embedded_server_nothing_is_lost(embedded: Deployment, data_dir: Path) -> None:
    for _ in range(2):
        embedded.subscribe(embedded.register())
    serve = embedded.serve(CLARION_DATABASE_URL="")
    application = Application(embedded.database)
    application.start()
    for strike in (_end_every_session, _kill_the_server, _kill_a_backend, _kill_the_server, _end_every_session):
        embedded.receiver.wait_for(embedded.receiver.count() + 50)
        struck_at = time.time()
        strike(embedded, data_dir)
        embedded.reconnect()
        back_at = _first_delivery_of_a_change_after(embedded, struck_at)
        print(f"{strike.__name__}: delivering again after {back_at - struck_at:.2f} s")
    application.stop()
    embedded.reconnect()
    embedded.wait_until_settled()
    serve.stop()
    assert "Traceback" not in serve.output(), serve.output()
    versions = dict(embedded.rows("SELECT id, version FROM items"))
    for item, version in versions.items():
        lowest = application.confirmed[item]
        assert lowest <= version <= lowest + application.unanswered[item]
    received = embedded.check(committed_versions=versions, duplicates_max=0)
    print(f"{len(received)} requests, none twice")


def test_a_server_that_stands_still_for_longer_than_leases_last_makes_no_duplicate(
    embedded: Deployment, data_dir: Path
) -> None:
    """What was answered meanwhile is settled when it goes on, and no worker takes another for dead."""
    embedded.register_several(8, rate_limit_per_second=40)
    serve = embedded.serve("--workers", "2", CLARION_DATABASE_URL="")
    embedded.wait_for_row("SELECT FROM clarion.shards GROUP BY worker_id HAVING count(*) = 32")
    application = Application(embedded.database)
    application.start()
    time.sleep(2)
    application.stop()
    postmaster = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
    server = [postmaster, *children_of(postmaster)]
    for pid in server:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(FROZEN_S)
    heard_until = embedded.receiver.received()[-1].at
    for pid in server:
        os.kill(pid, signal.SIGCONT)
    frozen_at = time.time() - FROZEN_S
    assert heard_until < frozen_at + LeasePolicy().lease_s + 2, "a request left long after the lease's end"
    embedded.wait_until_settled(60)
    serve.stop()
    assert "Traceback" not in serve.output(), serve.output()
    assert embedded.rows("SELECT count(*) FROM clarion.workers") == [(2,)], serve.output()
    embedded.check(committed_versions=dict(embedded.rows("SELECT id, version FROM items")), duplicates_max=0)


def _first_delivery_of_a_change_after(deployment: Deployment, moment: float) -> float:
    """When the first request arrived that tells of a change made after the moment; Unix seconds."""
    seen = 0
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        received = deployment.receiver.received()
        for request in received[seen:]:
            occurred_at: str = request.json()["occurred_at"]
            if datetime.fromisoformat(occurred_at).timestamp() > moment:
                return request.at
        seen = len(received)
        time.sleep(0.05)
    pytest.fail("nothing is delivered any more")
