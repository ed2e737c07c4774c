"""Test sends: asked for here, captured by the trigger of their table, and from there on an event like any other."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access import history
from clarion.access.principal import Permission, Principal
from clarion.core.errors import Code, RequestRefused
from clarion.core.ids import ReceiverId
from clarion.database import tables
from clarion.registry import rows
from clarion.registry.receivers import OBJECT_TYPE

TESTS_PER_HOUR = 10
_HOUR = timedelta(hours=1)


async def ask_for_test(connection: AsyncConnection, principal: Principal, receiver_id: ReceiverId) -> tuple[int, int]:
    """The new test's id, and the seconds that the receiver has for its answer.

    Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`, CONFLICT on `id` for an inactive receiver, RATE_LIMITED after ten
    tests of the receiver within an hour.
    """
    principal.require(Permission.WEBHOOKS_WRITE)
    receiver = await rows.locked_receiver(connection, principal, receiver_id, "id")
    if not receiver.active:
        raise RequestRefused(
            Code.CONFLICT, "the receiver is inactive, so its events are held: update it with `active: true` first", "id"
        )
    tests = tables.tests
    now = func.clock_timestamp()
    recent = (
        await connection.execute(
            select(func.count().label("tests_count"), (func.min(tests.c.created) + _HOUR - now).label("wait")).where(
                tests.c.receiver_id == receiver_id, tests.c.created > now - _HOUR
            )
        )
    ).one()
    if recent.tests_count >= TESTS_PER_HOUR:
        minutes = int(recent.wait.total_seconds()) // 60 + 1
        raise RequestRefused(
            Code.RATE_LIMITED,
            f"a receiver is tested {TESTS_PER_HOUR} times an hour at most: the next test is possible in {minutes} min",
            "id",
        )
    test_id = await connection.scalar(
        insert(tests)
        .values(organisation_id=principal.organisation_id, receiver_id=receiver_id, requested_by_id=principal.client_id)
        .returning(tests.c.id)
    )
    assert test_id is not None
    await history.record(
        connection, principal, [history.Entry("TEST", OBJECT_TYPE, str(receiver_id), after={"testId": test_id})]
    )
    return int(test_id), int(receiver.timeout_seconds)
