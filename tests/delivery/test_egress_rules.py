"""A rule on the real thing: made and taken back while `clarion serve` runs, seen in what attempts end with."""

from __future__ import annotations

import pytest

from clarion.app import egress_policy
from clarion.core.settings import Settings
from clarion.database.address import DatabaseAddress
from clarion.database.check import connect
from clarion.sender.address import AddressNotAllowed
from harness.deployment import Deployment

FORBIDDEN = "10.255.255.254"
"""Nothing is ever sent there: a connection that leaves from loopback comes no further than this host."""


def test_a_rule_reaches_the_worker_within_a_second_and_goes_again(deployment: Deployment) -> None:
    deployment.attach()
    receiver_id = deployment.register(f"https://{FORBIDDEN}:9443/hook", retry_schedule=[0])
    deployment.subscribe(receiver_id, actions=["CREATE"])
    deployment.serve(CLARION_SOURCE_ADDRESSES="127.0.0.7", CLARION_ENVIRONMENT="plant")
    outcomes: list[str] = []

    def attempt() -> str:
        deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
        outcomes.append(
            deployment.wait_for_row(
                "SELECT outcome FROM clarion.attempts ORDER BY event_id, number OFFSET %s", len(outcomes)
            )[0]
        )
        return outcomes[-1]

    def allow(environment: str) -> None:
        deployment.connection.execute(
            "INSERT INTO clarion.egress_rules (organisation_id, environment, network, port, note) "
            "SELECT id, %s, '10.255.255.254/32', 9443, 'test' FROM clarion.organisations WHERE name = 'default'",
            (environment,),
        )
        deployment.rows("SELECT 1 FROM pg_sleep(1)")

    assert attempt() == "BLOCKED"
    allow("another")
    assert attempt() == "BLOCKED"
    allow("plant")
    # Past the policy; from a loopback address there is no way to it.
    assert attempt() == "CONNECT_FAILED"
    deployment.connection.execute("DELETE FROM clarion.egress_rules")
    deployment.rows("SELECT 1 FROM pg_sleep(1)")
    assert attempt() == "BLOCKED"


def test_names_that_lead_back_to_the_deployment_are_refused(database: DatabaseAddress) -> None:
    networks = {"allowed_networks": "127.0.0.0/8"}
    with connect(database) as connection:
        named = egress_policy(Settings(listen="Clarion.plant.local:8400", **networks), None, connection)
        literal = egress_policy(Settings(listen="127.0.0.1:8400", **networks), None, connection)
        local = egress_policy(Settings(listen="localhost:8400", **networks), None, connection)
    with pytest.raises(AddressNotAllowed):
        named.parse("https://clarion.plant.local/")
    assert literal.parse("https://127.0.0.1:9000/").host == "127.0.0.1"
    assert local.parse("https://localhost:9000/").host == "localhost"
