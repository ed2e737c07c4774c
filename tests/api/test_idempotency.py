"""A request with an idempotency key is carried out once, and answered the same however often it is sent."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from clarion.database.maintenance import maintain
from clarion.database.pool import connect
from harness.api import Answer, Caller

CREATE = (
    "mutation($name: String!) { createWebhookReceiver(input: {name: $name, webhookUri: "
    '"https://93.184.216.34/"}) { webhookReceiver { id sharedSecret } } }'
)


def create(name: str = "r") -> dict[str, Any]:
    return {"query": CREATE, "variables": {"name": name}}


def keyed(caller: Caller, key: str, content: Any) -> Answer:
    return caller.send(json.dumps(content).encode(), idempotency_key=key)


def receivers(caller: Caller) -> int:
    ((count,),) = caller.rows("SELECT count(*) FROM clarion.receivers")
    return int(count)


def test_the_second_request_gets_the_first_ones_answer_with_its_secret(integrator: Caller) -> None:
    first = keyed(integrator, "one", create())
    second = keyed(integrator, "one", create())
    assert first.data["createWebhookReceiver"]["webhookReceiver"]["sharedSecret"].startswith("whsec_")
    assert (second.status, second.body) == (first.status, first.body)
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert receivers(integrator) == 1
    assert integrator.rows("SELECT count(*) FROM clarion.history WHERE object_type = 'WebhookReceiver'") == [(1,)]


def test_what_is_stored_holds_no_secret_in_clear(integrator: Caller) -> None:
    secret = keyed(integrator, "one", create()).data["createWebhookReceiver"]["webhookReceiver"]["sharedSecret"]
    ((sealed,),) = integrator.rows("SELECT answer_sealed FROM clarion.idempotency_keys")
    assert secret.encode() not in sealed
    assert b"createWebhookReceiver" not in sealed


def test_another_request_under_the_same_key_is_refused(integrator: Caller) -> None:
    keyed(integrator, "one", create("a"))
    refused = keyed(integrator, "one", create("b"))
    assert (refused.status, refused.refusal[0]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert receivers(integrator) == 1


def test_keys_are_the_clients_own(integrator: Caller, administrator: Caller) -> None:
    first = keyed(integrator, "one", create())
    other = keyed(administrator, "one", create())
    assert first.body != other.body
    assert "idempotency-replayed" not in other.headers
    assert receivers(integrator) == 2


def test_a_refusal_is_part_of_the_answer_and_the_rest_of_the_request_stands(integrator: Caller) -> None:
    content = [create("a"), create(""), create("c"), {"query": "{ webhookReceivers { edges { node { name } } } }"}]
    first = keyed(integrator, "one", content)
    assert first.body[1]["errors"][0]["extensions"] == {"code": "INVALID_INPUT", "field": "input.name"}
    # What the request did before is seen by what it reads after, although nothing is committed yet.
    assert [edge["node"]["name"] for edge in first.body[3]["data"]["webhookReceivers"]["edges"]] == ["a", "c"]
    assert keyed(integrator, "one", content).body == first.body
    assert receivers(integrator) == 2


def test_a_mutation_that_fails_halfway_leaves_nothing_of_itself(integrator: Caller) -> None:
    receiver = integrator.post(create()).data["createWebhookReceiver"]["webhookReceiver"]["id"]
    document = (
        f"mutation {{ a: createWebhookSubscription(input: {{receiverId: {receiver}, resource: RUNS, action: CREATE}}) "
        "{ webhookSubscription { id } } "
        'b: updateWebhookReceiver(input: {id: 1, etag: "old", name: "x"}) { webhookReceiver { id } } '
        f"c: createWebhookSubscription(input: {{receiverId: {receiver}, resource: RUNS, action: DELETE}}) "
        "{ webhookSubscription { receiver { subscriptions { action } } } } }"
    )
    answer = keyed(integrator, "one", {"query": document})
    assert answer.body["errors"][0]["extensions"]["code"] == "CONFLICT"
    assert answer.body["data"]["c"]["webhookSubscription"]["receiver"]["subscriptions"] == [
        {"action": "CREATE"},
        {"action": "DELETE"},
    ]
    assert integrator.rows("SELECT name FROM clarion.receivers") == [("r",)]


def test_a_fault_of_our_own_takes_everything_back_and_is_not_stored(integrator: Caller) -> None:
    content = [create("a"), {"query": "{ webhookSubscriptions { edges { cursor } } }"}, create("b")]
    integrator.rows("ALTER TABLE clarion.subscriptions RENAME TO elsewhere")
    try:
        failed = keyed(integrator, "one", content)
    finally:
        integrator.rows("ALTER TABLE clarion.elsewhere RENAME TO subscriptions")
    assert failed.status == 500
    assert {error["extensions"]["code"] for one in failed.body for error in one["errors"]} == {"INTERNAL"}
    assert receivers(integrator) == 0
    assert integrator.rows("SELECT count(*) FROM clarion.idempotency_keys") == [(0,)]
    again = keyed(integrator, "one", content)
    assert (again.status, receivers(integrator)) == (200, 2)


def test_an_answer_too_large_to_keep_takes_everything_back(integrator: Caller) -> None:
    name, long = "n" * 200, "d" * 1_000
    for number in range(100):
        integrator.rows(
            "INSERT INTO clarion.receivers (id, organisation_id, name, description, webhook_uri, shared_secret_sealed, "
            "shared_secret_hint) SELECT nextval('clarion.receivers_id_seq'), id, %s, %s, 'https://93.184.216.34/', "
            "'\\x00', 'hint' FROM clarion.organisations WHERE name = 'default'",
            name,
            long + str(number),
        )
    listed = "{ webhookReceivers { edges { node { id name description webhookUri } } } }"
    content = [create(), *({"query": listed} for _ in range(3))]
    answer = keyed(integrator, "one", content)
    assert {error["extensions"]["code"] for one in answer.body for error in one["errors"]} == {"QUERY_TOO_COMPLEX"}
    assert receivers(integrator) == 100


def test_a_request_that_only_reads_is_not_stored(integrator: Caller) -> None:
    for _ in range(2):
        answer = keyed(integrator, "one", {"query": "{ __typename }"})
        assert (answer.data, "idempotency-replayed" in answer.headers) == ({"__typename": "Query"}, False)
    assert integrator.rows("SELECT count(*) FROM clarion.idempotency_keys") == [(0,)]


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9", "a\tb"])
def test_a_key_that_is_none_is_malformed(integrator: Caller, key: str) -> None:
    answer = keyed(integrator, key, create())
    assert (answer.status, answer.refusal[0]) == (400, "MALFORMED")
    assert receivers(integrator) == 0


def test_of_many_at_once_one_acts_and_all_are_told_the_same(integrator: Caller) -> None:
    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda _: keyed(integrator, "one", create()), range(30)))
    assert {json.dumps(answer.body) for answer in answers} == {json.dumps(answers[0].body)}
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 29
    assert receivers(integrator) == 1


def test_who_waits_for_another_process_too_long_is_told_so(integrator: Caller) -> None:
    from clarion.access.principal import Principal, Role
    from clarion.api.idempotency import _lock_number
    from clarion.core.ids import ClientId, OrganisationId

    ((client, organisation),) = integrator.rows(
        "SELECT id, organisation_id FROM clarion.clients WHERE name = 'integrator'"
    )
    who = Principal(ClientId(client), "", "", Role.INTEGRATOR, OrganisationId(organisation))
    with psycopg.connect(integrator.database.url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_lock_number(who, "one"),))
        began = time.monotonic()
        # Waiting for the same key in the same process takes no connection: others are answered meanwhile.
        with ThreadPoolExecutor(12) as pool:
            waiting = [pool.submit(keyed, integrator, "one", create()) for _ in range(12)]
            assert integrator("{ webhookReceivers { edges { cursor } } }").status == 200
            assert not any(one.done() for one in waiting)
            answers = [one.result() for one in waiting]
        assert time.monotonic() - began > 2.5
    assert {(answer.status, answer.refusal[0]) for answer in answers} == {(409, "IDEMPOTENCY_KEY_IN_USE")}
    assert keyed(integrator, "one", create()).status == 200
    assert receivers(integrator) == 1


def test_no_connection_is_left_over(integrator: Caller) -> None:
    for number in range(15):
        keyed(integrator, str(number), [create(str(number)), create("")])
        keyed(integrator, str(number), create("another"))
    assert integrator("{ webhookReceivers { edges { cursor } } }").status == 200
    idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%%'"
    deadline = time.monotonic() + 5
    # The process follows the schema meanwhile, and writes what was refused into the history.
    while integrator.rows(idle) != [(0,)]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_order_whose_outcome_would_be_waited_for_is_answered_at_once(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    make_receiver()
    began = time.monotonic()
    test = {"query": "mutation { testWebhookReceiver(id: 1) { webhookEvent { id } attempt { number } } }"}
    answer = keyed(integrator, "one", test)
    assert answer.data == {"testWebhookReceiver": {"webhookEvent": None, "attempt": None}}
    assert time.monotonic() - began < 1
    assert integrator.rows("SELECT count(*) FROM clarion.tests") == [(1,)]
    assert keyed(integrator, "one", test).body == answer.body
    assert integrator.rows("SELECT count(*) FROM clarion.tests") == [(1,)]


async def test_answers_are_forgotten_after_a_day(integrator: Caller) -> None:
    for key in ("old", "new"):
        keyed(integrator, key, create(key))
    integrator.rows("UPDATE clarion.idempotency_keys SET created = now() - interval '25 hours' WHERE key = 'old'")
    connection = await connect(integrator.database, role=None, name="maintenance")
    maintaining = asyncio.create_task(maintain(connection))
    try:
        deadline = time.monotonic() + 10
        while integrator.rows("SELECT key FROM clarion.idempotency_keys") != [("new",)]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
    finally:
        maintaining.cancel()
        await asyncio.gather(maintaining, return_exceptions=True)
        await connection.close()
    assert "idempotency-replayed" not in keyed(integrator, "old", create("old")).headers
