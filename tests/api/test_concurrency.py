"""Callers at the same time: none is lost, none waits for ever, none gets an internal error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.api import Caller


def codes(answers: list[Any]) -> Counter[str]:
    return Counter(answer.refusal[0] if "errors" in answer.body else "done" for answer in answers)


def test_of_updates_with_the_same_etag_one_wins(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    receiver = make_receiver()

    def rename(number: int) -> Any:
        return integrator(
            "mutation($input: UpdateWebhookReceiverInput!) { updateWebhookReceiver(input: $input) { __typename } }",
            input={"id": 1, "etag": receiver["_etag"], "name": f"name {number}"},
        )

    with ThreadPoolExecutor(12) as pool:
        assert codes(list(pool.map(rename, range(12)))) == {"done": 1, "CONFLICT": 11}


def test_a_deleted_receiver_gets_no_subscription_however_close(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    receivers = [make_receiver(name=f"r{number}") for number in range(6)]
    requests = []
    for receiver in receivers:
        key = receiver["id"]
        subscribe = (
            f"mutation {{ createWebhookSubscription(input: {{receiverId: {key}, resource: RUNS, action: CREATE}}) "
            "{ webhookSubscription { receiver { subscriptions { id } } } } }"
        )
        delete = f'mutation {{ deleteWebhookReceiver(id: {key}, etag: "{receiver["_etag"]}") {{ id }} }}'
        requests += [subscribe, subscribe, delete, subscribe, subscribe]
    with ThreadPoolExecutor(20) as pool:
        counted = codes(list(pool.map(integrator, requests)))
    assert counted["done"] + counted["NOT_FOUND"] == len(requests), counted
    live = "SELECT count(*) FROM clarion.subscriptions s JOIN clarion.receivers r ON r.id = s.receiver_id "
    assert integrator.rows(live + "WHERE s.deleted IS NULL AND r.deleted IS NOT NULL") == [(0,)]
    assert integrator.rows("SELECT count(*) FROM clarion.receivers WHERE deleted IS NOT NULL") == [(6,)]


def test_more_callers_than_connections_are_all_answered(
    integrator: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    make_receiver()
    document = (
        "mutation { "
        + " ".join(
            f"s{number}: createWebhookSubscription(input: {{receiverId: 1, resource: RUNS, action: CREATE}}) "
            "{ webhookSubscription { receiver { name subscriptions(first: 1) { id } } } }"
            for number in range(2)
        )
        + " }"
    )
    with ThreadPoolExecutor(14) as pool:
        assert codes(list(pool.map(integrator, [document] * 14))) == {"done": 14}
    assert integrator.rows("SELECT count(*) FROM clarion.subscriptions") == [(28,)]
