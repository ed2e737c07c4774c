"""A row whose evaluation kills the router holds nobody up for ever; kills of other causes mark nothing."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from clarion.database import pool
from clarion.database.address import DatabaseAddress
from clarion.routing.careful import Marker
from clarion.routing.evaluation import KILLED
from clarion.routing.store import RouterStore
from harness.deployment import Deployment
from harness.process import ClarionProcess

pytestmark = pytest.mark.data_path

DEATHS_MAX = 13
"""One without care, two in the whole batch, one in each of at most eight parts of 500 rows, two alone."""


def _ended_or(process: ClarionProcess, done: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it is done; False if the process died before."""
    deadline = time.monotonic() + seconds
    while process.process.poll() is None:
        if done():
            return True
        assert time.monotonic() < deadline, process.output()
        time.sleep(0.02)
    return done()


def _ledger(deployment: Deployment) -> list[tuple[int, int]]:
    return deployment.rows(
        "SELECT object_id::int, (new::json ->> 'version')::int FROM clarion.ledger WHERE resource = 'ITEMS' ORDER BY position"
    )


def _nothing_waits(deployment: Deployment) -> bool:
    return not deployment.rows("SELECT FROM clarion.outbox LIMIT 1")


@pytest.mark.parametrize("culprit", [1, 177, 700])
def test_a_row_that_kills_the_router_is_routed_unevaluated_and_everything_else_as_ever(
    deployment: Deployment, culprit: int
) -> None:
    deployment.attach()
    receiver = deployment.register()
    asking = deployment.subscribe(receiver, condition="resource == 'ITEMS'")
    plain = deployment.subscribe(receiver, actions=["CREATE"])
    deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, 700)")
    deployment.connection.execute("UPDATE items SET version = 2 WHERE id <> %s AND id > 600", (culprit,))
    deaths, alarms = 0, []
    while True:
        with deployment.single_router("--killed-by", str(culprit)) as router:
            done = _ended_or(router, lambda: _nothing_waits(deployment))
            if not done:
                deaths += 1
                assert router.wait().code == -signal.SIGKILL
                assert deaths <= DEATHS_MAX, router.output()
            else:
                finished = router.stop()
            alarms += [line for line in router.stderr if "CRITICAL" in line]
        if done:
            break
    print(f"{deaths} deaths")
    assert finished.code == 0
    (outbox_id,) = deployment.rows(
        "SELECT outbox_id FROM clarion.ledger WHERE resource = 'ITEMS' AND object_id = %s", str(culprit)
    )[0]
    assert len(alarms) == 1
    assert f"outbox row {outbox_id} (ITEMS {culprit}) kills the router" in alarms[0]
    ledger = _ledger(deployment)
    updated = [(item, 2) for item in range(601, 701) if item != culprit]
    assert ledger == [(item, 1) for item in range(1, 701)] + updated, "all of it, once, in order"
    events = deployment.rows(
        "SELECT q.subscription_id, l.object_id::int, (l.new::json ->> 'version')::int FROM clarion.queue q "
        "JOIN clarion.ledger l USING (position) ORDER BY q.queue_id"
    )
    assert [event[1:] for event in events if event[0] == plain[0]] == ledger[:700]
    evaluated = [change for change in ledger if change[0] != culprit]
    assert [event[1:] for event in events if event[0] in asking] == evaluated, "of what was not evaluated, no event"
    assert deployment.rows(
        "SELECT subscription_id, conditions_count, templates_count, last_message FROM clarion.evaluation_errors"
    ) == [(asking[0], 1, 0, KILLED)]
    assert deployment.rows("SELECT ended_well, batch_ids FROM clarion.router") == [(True, None)]


def test_kills_from_outside_leave_a_short_careful_phase_and_mark_nothing(deployment: Deployment) -> None:
    deployment.attach()
    deployment.subscribe(deployment.register(), condition="resource == 'ITEMS'")
    expected = 0
    for _ in range(4):
        with deployment.single_router() as router:
            router.wait_for_line("^working")
            expected += 3
            deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, 3)")
            assert _ended_or(router, lambda: _nothing_waits(deployment))
            # Idle now; nothing is being evaluated, whoever is killed here.
            router.kill()
            assert not any("CRITICAL" in line for line in router.stderr)
        assert deployment.rows("SELECT ended_well, evaluating, batch_ids, batch_deaths FROM clarion.router") == [
            (False, False, None, 0)
        ]
    assert _ledger(deployment) == [(item, 1) for item in range(1, expected + 1)]


def test_a_router_that_stopped_in_good_order_is_followed_by_one_that_writes_no_marker(deployment: Deployment) -> None:
    deployment.attach()
    for _ in range(2):
        deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
        with deployment.single_router() as router:
            router.wait_for_line("^working")
            assert _ended_or(router, lambda: _nothing_waits(deployment))
            assert router.stop().code == 0
            assert not any("careful" in line for line in router.stderr)
    assert deployment.rows("SELECT ended_well FROM clarion.router") == [(True,)]


async def test_a_death_counts_once_and_only_if_it_came_while_rows_were_evaluated(database: DatabaseAddress) -> None:
    connection = await pool.connect(database, role=None, name="router")
    try:
        store, marker = RouterStore(connection), Marker((7, 5))
        assert (await store.begin(None)).ended_well
        assert (await store.begin(None)).suspected is None, "killed, but while it evaluated nothing"
        await store.mark(marker)
        assert (await store.begin(marker)).suspected is None, "a lost session: the process that evaluated lives"
        await store.mark(marker)
        assert (await store.begin(None)).suspected == Marker((7, 5), 1)
        assert (await store.begin(None)).suspected == Marker((7, 5), 1), "killed again before it evaluated anything"
        await store.mark(Marker((7, 5), 1))
        assert (await store.begin(marker)).suspected == Marker((7, 5), 2), (
            "what this process survived was another marker"
        )
        await store.mark(Marker((7,), 1))
        await store.unmark()
        await store.end_well()
        beginning = await store.begin(None)
        assert (beginning.ended_well, beginning.suspected) == (True, None)
    finally:
        await pool.close(connection)
