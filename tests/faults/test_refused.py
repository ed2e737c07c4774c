"""A change that a table refuses, whatever for, holds up its own object and nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import asyncpg
import pytest

from clarion.core.system import SystemClock, SystemRandom
from clarion.database import pool
from clarion.database.check import connect
from clarion.database.roles import read_roles
from clarion.routing.evaluation import KILLED
from clarion.routing.pace import RouterPolicy
from clarion.routing.router import run_router
from harness.deployment import Deployment

pytestmark = pytest.mark.data_path


@asynccontextmanager
async def _routing(deployment: Deployment, policy: RouterPolicy | None = None) -> AsyncIterator[None]:
    """The production router in this event loop; what ends it is raised."""
    with connect(deployment.database) as connection:
        role = read_roles(connection).engine
    stopping = asyncio.Event()

    async def engine(name: str) -> asyncpg.Connection:
        return await pool.connect(deployment.database, role=role, name=name)

    async def login(name: str) -> asyncpg.Connection:
        return await pool.connect(deployment.database, role=None, name=name)

    routing = asyncio.create_task(
        run_router(engine, login, SystemClock(), SystemRandom(), stopping, policy=policy or RouterPolicy())
    )
    inside = asyncio.current_task()
    assert inside is not None
    routing.add_done_callback(lambda _: None if stopping.is_set() else inside.cancel())
    try:
        yield
    except asyncio.CancelledError:
        if routing.done():
            routing.result()
        raise
    finally:
        stopping.set()
        await asyncio.wait([routing])


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.02)


def _ledger(deployment: Deployment) -> list[tuple[int, int]]:
    return deployment.rows(
        "SELECT object_id::int, (new::json ->> 'version')::int FROM clarion.ledger WHERE resource = 'ITEMS' ORDER BY position"
    )


def _waiting(deployment: Deployment) -> list[tuple[int, int]]:
    return deployment.rows(
        "SELECT object_id::int, (new::json ->> 'version')::int FROM clarion.outbox WHERE resource = 'ITEMS' ORDER BY id"
    )


def _refuse(deployment: Deployment, objects: Collection[int]) -> None:
    names = ", ".join(f"'{one}'" for one in objects)
    deployment.connection.execute(
        f"ALTER TABLE clarion.ledger ADD CONSTRAINT refuses CHECK (resource <> 'ITEMS' OR object_id NOT IN ({names}))".encode()
    )


def _criticals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]


@pytest.mark.parametrize("culprits", [(1,), (177,), (700,), (3, 4, 699), tuple(range(2, 60))], ids=str)
async def test_a_change_that_is_refused_waits_with_its_object_and_all_others_are_routed(
    deployment: Deployment, caplog: pytest.LogCaptureFixture, culprits: tuple[int, ...]
) -> None:
    deployment.attach()
    subscriptions = deployment.subscribe(deployment.register())
    deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, 700)")
    deployment.connection.execute("UPDATE items SET version = 2")
    _refuse(deployment, culprits)
    async with _routing(deployment, RouterPolicy(refused_again_s=2)):
        good = [(item, version) for version in (1, 2) for item in range(1, 701) if item not in culprits]
        held = [(item, version) for version in (1, 2) for item in culprits]
        await _until(lambda: len(_waiting(deployment)) <= len(held))
        deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
        await _until(lambda: (701, 1) in _ledger(deployment))
        assert _ledger(deployment) == [*good, (701, 1)], "all of it, once, in order"
        assert _waiting(deployment) == held, "nothing of a held object overtakes what is refused of it"
        await _until(lambda: len(_criticals(caplog)) >= len(culprits))
        for item in culprits:
            assert any(f"(ITEMS {item}) is refused by the database" in line for line in _criticals(caplog))
        deployment.connection.execute("ALTER TABLE clarion.ledger DROP CONSTRAINT refuses")
        await _until(lambda: not _waiting(deployment))
    ledger = _ledger(deployment)
    for item in culprits:
        assert [version for object_id, version in ledger if object_id == item] == [1, 2]
    assert sorted(ledger) == sorted([*good, *held, (701, 1)])
    events = deployment.rows("SELECT subscription_id, count(*) FROM clarion.queue GROUP BY 1 ORDER BY 1")
    assert events == [(subscriptions[0], 701), (subscriptions[1], 700)]


async def test_what_is_refused_for_what_a_template_made_of_it_is_routed_without(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.attach()
    receiver = deployment.register()
    (asking,) = deployment.subscribe(receiver, actions=["CREATE"], condition="object.id > 0")
    (plain,) = deployment.subscribe(receiver, actions=["CREATE"])
    deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, 200)")
    # Of what a change makes of the subscription's condition, one event is refused: that of the change with this number.
    deployment.connection.execute(
        f"ALTER TABLE clarion.queue ADD CHECK (subscription_id <> {asking} OR position <> 77)".encode()
    )
    async with _routing(deployment):
        await _until(lambda: not _waiting(deployment))
    assert [item for item, _ in _ledger(deployment)] == list(range(1, 201))
    counts = dict(deployment.rows("SELECT subscription_id, count(*) FROM clarion.queue GROUP BY 1"))
    assert counts == {asking: 199, plain: 200}
    assert deployment.rows("SELECT subscription_id, conditions_count, last_message FROM clarion.evaluation_errors") == [
        (asking, 1, KILLED)
    ]
    assert len(_criticals(caplog)) == 1
    assert "is refused by the database" in _criticals(caplog)[0]


async def test_an_object_with_more_refused_changes_than_a_look_takes_hides_nobody(deployment: Deployment) -> None:
    deployment.attach()
    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    for _ in range(40):
        deployment.connection.execute("UPDATE items SET version = version + 1")
    deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, 30)")
    _refuse(deployment, [1])
    async with _routing(deployment, RouterPolicy(batch_rows_max=10, shared_rows_max=5)):
        await _until(lambda: len(_waiting(deployment)) == 41)
    assert [item for item, _ in _ledger(deployment)] == list(range(2, 32))


async def test_one_half_of_a_changed_key_that_is_refused_is_found_alone(deployment: Deployment) -> None:
    """The other half belongs to another object and is routed; it was taken along with its DELETE again and again."""
    deployment.attach()
    deployment.connection.execute("ALTER TABLE items ALTER id SET GENERATED BY DEFAULT")
    deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, 8)")
    deployment.connection.execute("UPDATE items SET id = id + 100")
    deployment.connection.execute(
        "ALTER TABLE clarion.ledger ADD CHECK (resource <> 'ITEMS' OR object_id <> '5' OR action <> 'd')"
    )
    async with _routing(deployment):
        await _until(lambda: len(_waiting(deployment)) == 1)
    assert deployment.rows("SELECT object_id, action::text FROM clarion.outbox") == [("5", "d")]
    created = [(str(item), "c") for item in (*range(1, 9), *range(101, 109))]
    assert sorted(
        deployment.rows("SELECT object_id, action::text FROM clarion.ledger WHERE resource = 'ITEMS'")
    ) == sorted([*created, *((str(item), "d") for item in range(1, 9) if item != 5)])


async def test_a_retry_that_is_refused_does_not_keep_changes_from_being_routed(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.attach()
    deployment.register()
    deployment.connection.execute(
        """INSERT INTO clarion.intake (organisation_id, kind, request)
           SELECT id, 'RETRY', '{"event_id": "none", "round": 0}' FROM clarion.organisations LIMIT 1"""
    )
    async with _routing(deployment):
        await _until(lambda: len(_criticals(caplog)) == 1)
        deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, 3)")
        await _until(lambda: not _waiting(deployment))
    assert "retries that are asked for wait" in _criticals(caplog)[0]
    assert [item for item, _ in _ledger(deployment)] == [1, 2, 3]
