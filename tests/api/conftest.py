from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from harness.api import Caller, new_key, served
from harness.audit_rows import add_resources

from clarion.access.principal import Role
from clarion.core.system import SystemRandom
from clarion.database.address import DatabaseAddress
from clarion.sender.seal import Sealer

URI = "https://93.184.216.34/hook"
"""A public address: no name is looked up. Nothing is ever sent there."""


@pytest.fixture
def sealer() -> Sealer:
    random = SystemRandom()
    return Sealer(random.token(32), random)


@pytest.fixture
def administrator(database: DatabaseAddress, sealer: Sealer) -> Iterator[Caller]:
    """A running API with resources RUNS and ISSUES, called by an administrator of organisation `default`."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        add_resources(connection, [("RUNS", "RUN"), ("ISSUES", "ISSUE")])
    key = new_key(database, "default", Role.ADMINISTRATOR, "admin")
    with served(database, sealer) as port:
        yield Caller(port, key, database)


@pytest.fixture
def integrator(administrator: Caller) -> Caller:
    """The same API, called by an integrator of organisation `default`."""
    return administrator.of("default", Role.INTEGRATOR)


@pytest.fixture
def make_receiver(integrator: Caller) -> Callable[..., dict[str, Any]]:
    """Registers a receiver through the API."""

    def make(caller: Caller = integrator, **values: Any) -> dict[str, Any]:
        given = {"name": "receiver", "webhookUri": URI} | values
        answer = caller(
            "mutation($input: CreateWebhookReceiverInput!) { createWebhookReceiver(input: $input) { webhookReceiver "
            "{ id _etag sharedSecret headers { id key _etag } } } }",
            input=given,
        )
        made: dict[str, Any] = answer.data["createWebhookReceiver"]["webhookReceiver"]
        return made

    return make


@pytest.fixture
def make_subscription(integrator: Caller) -> Callable[..., dict[str, Any]]:
    """Registers a subscription through the API."""

    def make(receiver_id: str, resource: str = "RUNS", action: str = "CREATE", caller: Caller = integrator) -> Any:
        answer = caller(
            "mutation($input: CreateWebhookSubscriptionInput!) { createWebhookSubscription(input: $input) "
            "{ webhookSubscription { id _etag } } }",
            input={"receiverId": receiver_id, "resource": resource, "action": action},
        )
        return answer.data["createWebhookSubscription"]["webhookSubscription"]

    return make
