"""SIGKILL, ten times, of whatever is there, while the application goes on writing."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter

import psycopg
import pytest

from harness.deployment import Deployment
from harness.process import ClarionProcess, children_of

pytestmark = pytest.mark.data_path

RECEIVERS = 2
CONCURRENCY = 4
ITEMS = 50


# Requests whose outcome is not yet durable at one moment: under way, answered, or in the settle.
UNSETTLED_MAX = 24


def _kill(victim: str, serve: ClarionProcess, deployment: Deployment) -> None:
    match victim:
        case "group":
            os.killpg(serve.pid, signal.SIGKILL)
        case "parent":
            os.kill(serve.pid, signal.SIGKILL)
        case "child":
            os.kill(children_of(serve.pid)[0], signal.SIGKILL)
        case "session":
            pids = [
                row[0]
                for row in deployment.rows(
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'clarion %%'"
                )
            ]
            for pid in pids:
                deployment.rows("SELECT pg_terminate_backend(%s)", pid)


def test_ten_kills_under_load_lose_nothing_and_double_only_what_was_in_flight(deployment: Deployment) -> None:
    deployment.attach()
    deployment.register_several(RECEIVERS, concurrency=CONCURRENCY)
    deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, %s)", (ITEMS,))
    versions: Counter[int] = Counter(dict.fromkeys(range(1, ITEMS + 1), 1))
    stop = threading.Event()

    def write() -> None:
        """100 changes/s, each its own transaction."""
        with psycopg.connect(deployment.database.url, autocommit=True) as connection:
            begun, written = time.monotonic(), 0
            while not stop.is_set():
                item = written % ITEMS + 1
                connection.execute("UPDATE items SET version = version + 1 WHERE id = %s", (item,))
                versions[item] += 1
                written += 1
                stop.wait(max(0, begun + written / 100 - time.monotonic()))

    writer = threading.Thread(target=write)
    serve = deployment.serve()
    writer.start()
    kills = ["group", "child", "session", "parent", "child", "group", "session", "child", "parent", "group"]
    killed_at = []
    for number, victim in enumerate(kills):
        received = deployment.receiver.count()
        deployment.receiver.wait_for(received + 20 + number)
        # What waited during the last outage is done: from here on it is the steady load that is hit.
        deployment.wait_for_row("SELECT WHERE (SELECT count(*) FROM clarion.queue) < 10")
        killed_at.append(time.time())
        _kill(victim, serve, deployment)
        if victim in ("group", "parent"):
            serve.wait()
            serve = deployment.serve()
    received = deployment.receiver.count()
    deployment.receiver.wait_for(received + 20)
    stop.set()
    writer.join()
    deployment.wait_until_settled()
    serve.stop()
    seen: set[str] = set()
    doubled: Counter[str] = Counter()
    for request in deployment.check(committed_versions=dict(versions), duplicates_max=len(kills) * UNSETTLED_MAX):
        if request.message_id in seen:
            kill = max(number for number, at in enumerate(killed_at) if at <= request.at)
            doubled[kills[kill]] += 1
        seen.add(request.message_id)
    print(f"doubled by what was killed: {dict(doubled)}, of {len(seen)} requests")
    assert doubled["session"] == 0, "a worker that nobody replaced settles what it holds instead of sending it again"
