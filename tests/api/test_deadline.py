"""A request that takes too long is given up: in time, with what was done before it told, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from clarion.api.deadline import REQUEST_S_MAX, WAITED_S_MAX, Deadline, DeadlinePassed
from harness.api import Caller

CREATE = (
    'mutation { createWebhookReceiver(input: {name: "r", webhookUri: "https://93.184.216.34/"}) '
    "{ webhookReceiver { id } } }"
)
SLOW = "{ webhookSubscriptions { edges { cursor } } }"
"""While the table is locked it takes as long as a statement may, three seconds."""


@contextmanager
def locked(caller: Caller) -> Iterator[None]:
    with psycopg.connect(caller.database.url) as connection:
        connection.execute("LOCK TABLE clarion.subscriptions IN ACCESS EXCLUSIVE MODE")
        yield


def assert_nothing_is_left(caller: Caller) -> None:
    deadline = time.monotonic() + 5
    busy = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'clarion api' "
        "AND state <> 'idle'"
    )
    # The process follows the schema meanwhile, four times a second.
    while caller.rows(busy) != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for _ in range(12):
        assert caller(SLOW).data == {"webhookSubscriptions": {"edges": []}}


def test_a_request_is_answered_at_its_deadline_and_leaves_nothing_behind(integrator: Caller) -> None:
    with locked(integrator):
        began = time.monotonic()
        answers = integrator.post([{"query": CREATE}, {"query": SLOW}, {"query": SLOW}, {"query": SLOW}]).body
        took = time.monotonic() - began
    assert REQUEST_S_MAX - 0.05 <= took <= REQUEST_S_MAX * 1.05 + 0.25
    assert answers[0]["data"]["createWebhookReceiver"]["webhookReceiver"]["id"] == "1"
    for answer in answers[1:]:
        assert answer["data"] in (None, {"webhookSubscriptions": None})
        assert answer["errors"][0]["extensions"]["code"] == "QUERY_TOO_COMPLEX"
    assert "longer than it may" in answers[3]["errors"][0]["message"]
    assert_nothing_is_left(integrator)
    assert integrator.rows("SELECT count(*) FROM clarion.receivers") == [(1,)]


@pytest.mark.parametrize("blocked", [1, 2, 3])
def test_with_an_idempotency_key_nothing_was_done(integrator: Caller, blocked: int) -> None:
    """One blocked read is given up by the database, several by the request's deadline: the same either way."""
    content = json.dumps([{"query": CREATE}, *[{"query": SLOW}] * blocked]).encode()
    with locked(integrator):
        answers = integrator.send(content, idempotency_key="one").body
    codes = [answer["errors"][0]["extensions"]["code"] for answer in answers]
    assert codes == ["QUERY_TOO_COMPLEX"] * (1 + blocked)
    assert "nothing was done" in answers[0]["errors"][0]["message"]
    assert_nothing_is_left(integrator)
    assert integrator.rows("SELECT count(*) FROM clarion.receivers") == [(0,)]
    again = integrator.send(content, idempotency_key="one")
    assert "errors" not in again.body[0]
    assert "idempotency-replayed" not in again.headers


def test_a_statement_is_given_up_before_the_request_is(integrator: Caller) -> None:
    with locked(integrator):
        began = time.monotonic()
        answer = integrator(SLOW)
        assert 2.9 <= time.monotonic() - began <= 4
    assert answer.refusal[0] == "QUERY_TOO_COMPLEX"
    assert "database took too long" in answer.error["message"]


async def test_what_is_waited_for_is_allowed_for_up_to_a_bound() -> None:
    async with Deadline(0.05) as deadline:
        deadline.allow(0.3)
        await asyncio.sleep(0.15)
    with pytest.raises(DeadlinePassed):
        async with Deadline(0.02):
            await asyncio.sleep(1)
    began = asyncio.get_running_loop().time()
    async with Deadline(1) as deadline:
        for _ in range(100):
            deadline.allow(WAITED_S_MAX)
        when = deadline._timeout.when()
        assert when is not None
        assert when - began <= WAITED_S_MAX + 2


def test_a_test_send_may_wait_longer_than_a_request_may_work(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    make_receiver(timeoutSeconds=2)
    began = time.monotonic()
    # Nothing routes here: it waits for the receiver's two seconds and three more, and is not refused for that.
    answer = integrator("mutation { testWebhookReceiver(id: 1) { webhookEvent { id } attempt { number } } }")
    assert answer.data == {"testWebhookReceiver": {"webhookEvent": None, "attempt": None}}
    assert time.monotonic() - began >= REQUEST_S_MAX - 0.1
