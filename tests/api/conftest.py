from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from clarion.access.principal import Role
from clarion.core.system import SystemRandom
from clarion.database.address import DatabaseAddress
from clarion.sender.seal import Sealer
from harness.api import UNLIMITED, Caller, new_key, served
from harness.audit_rows import AS_MADE, add_resources, keep_resources

URI = "https://93.184.216.34/hook"
"""A public address: no name is looked up. Nothing is ever sent there."""


@pytest.fixture(scope="module")
def sealer() -> Sealer:
    random = SystemRandom()
    return Sealer(random.token(32), random)


@pytest.fixture(scope="module")
def module_database(
    server: DatabaseAddress, template: str, request: pytest.FixtureRequest
) -> Iterator[DatabaseAddress]:
    """A migrated database for the tests of one file, each of which finds it as new (see `emptied`)."""
    database = f"api_{Path(request.path).stem}"
    name = sql.Identifier(database)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(name, sql.Identifier(template))
        )
    yield server.with_database(database)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture(scope="module")
def module_api(module_database: DatabaseAddress, sealer: Sealer) -> Iterator[int]:
    """The port of an API that serves the tests of one file, whose clients have the same ids one after the other."""
    with served(module_database, sealer, settings=UNLIMITED) as port:
        yield port


EMPTIED = (
    *(
        "egress_rules",
        "tests",
        "idempotency_keys",
        "history",
        "attempts",
        "events",
        "queue",
        "activations",
        "evaluation_errors",
        "subscription_counters",
        "headers",
        "subscription_resources",
        "subscriptions",
    ),
    *("receivers", "api_keys", "clients", "ledger", "outbox", "commands", "intake"),
)
"""Tables in an order in which no row is missed by another."""


@pytest.fixture
def emptied(module_database: DatabaseAddress) -> Iterator[DatabaseAddress]:
    """The file's database with no rows of any organisation, and all ids beginning at 1."""
    with psycopg.connect(module_database.url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("; ").join(
                [
                    # Those of most tests stay as long as they are as they were made: for others the API makes a schema anew.
                    sql.SQL(
                        "DELETE FROM clarion.resources WHERE (schema_name = 'public' OR table_name IS NULL) "
                        "AND etag <> ALL ({})"
                    ).format(sql.Literal(AS_MADE.get(module_database.url, []))),
                    *(sql.SQL("DELETE FROM clarion.{}").format(sql.Identifier(table)) for table in EMPTIED),
                    sql.SQL("DELETE FROM clarion.organisations WHERE name <> 'default'"),
                    sql.SQL(
                        "SELECT setval(format('%I.%I', schemaname, sequencename)::regclass, 1, false) FROM pg_sequences "
                        "WHERE schemaname = 'clarion' AND sequencename NOT IN ('organisations_id_seq', 'resources_id_seq')"
                    ),
                ]
            )
        )
        yield module_database


@pytest.fixture
def administrator(emptied: DatabaseAddress, module_api: int) -> Caller:
    """An API with resources RUNS and ISSUES, called by an administrator of organisation `default`."""
    with psycopg.connect(emptied.url, autocommit=True) as connection:
        keep_resources(
            connection,
            emptied.url,
            ["RUNS", "ISSUES"],
            lambda: add_resources(connection, [("RUNS", "RUN"), ("ISSUES", "ISSUE")]),
        )
        ((count,),) = connection.execute("SELECT count(*) FROM clarion.resources").fetchall()
    caller = Caller(module_api, new_key(emptied, "default", Role.ADMINISTRATOR, "admin"), emptied)
    deadline = time.monotonic() + 10
    while len(caller("{ resources { name } }").data["resources"]) != count:
        assert time.monotonic() < deadline
    return caller


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
