"""Whatever is asked of the list of events, and wherever a search ends a page: all pages together are the whole list, once each."""

from __future__ import annotations

import random
from dataclasses import dataclass

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.principal import Principal, Role
from clarion.api.session import settings_of
from clarion.core.ids import TESTS, ClientId, OrganisationId
from clarion.database.address import DatabaseAddress
from clarion.database.filters import Condition, Operator, matches
from clarion.database.page import page_request
from clarion.database.transaction import transaction
from clarion.records import event_list
from clarion.records.event_list import count_events, list_events
from harness.audit_rows import add_change, add_open, add_receiver, add_settled, add_subscription

CHANGES = 90
ACTIONS = {"c": "CREATE", "u": "UPDATE", "d": "DELETE"}


@dataclass(frozen=True)
class Known:
    """One event as it was written, for comparison with what is listed."""

    id: int
    organisation_id: int
    status: str
    receiver_id: int
    subscription_id: int
    resource: str
    action: str
    object_id: str

    def meets(self, principal: Principal, conditions: list[Condition]) -> bool:
        may_read = principal.readable_resources is None or self.resource in {*principal.readable_resources, TESTS}
        return (
            self.organisation_id == principal.organisation_id
            and may_read
            and all(matches(one, getattr(self, one.column)) for one in conditions)
        )


@pytest.fixture(scope="module")
def known(shared_database: DatabaseAddress) -> list[Known]:
    """Events of two organisations that settled, failed, were sent again, are open or held, and tests; one subscription was edited."""
    chance = random.Random(7)
    known = []
    with psycopg.connect(shared_database.url, autocommit=True) as connection:
        subscriptions: dict[int, list[tuple[int, int, str]]] = {}
        for name in ("own", "other"):
            ((owner,),) = connection.execute(
                "INSERT INTO clarion.organisations (name) VALUES (%s) RETURNING id", (name,)
            ).fetchall()
            for receiver_id in [add_receiver(connection, owner, f"r{number}") for number in range(3)]:
                for resource in ("RUNS", "ISSUES"):
                    subscription_id = add_subscription(connection, owner, receiver_id, resource)
                    subscriptions.setdefault(owner, []).append((subscription_id, receiver_id, resource))
        connection.execute("UPDATE clarion.receivers SET active = false, disabled_reason = 'MANUAL' WHERE name = 'r2'")
        connection.execute("UPDATE clarion.subscriptions SET resource = 'PARTS' WHERE id = 1")
        connection.execute("UPDATE clarion.subscriptions SET deleted = now() WHERE id = 4")
        connection.execute(
            "INSERT INTO clarion.subscription_resources SELECT organisation_id, resource, a, id "
            "FROM clarion.subscriptions, unnest(ARRAY['UPDATE', 'DELETE']) AS a ON CONFLICT DO NOTHING"
        )
        event_id = 0
        numbers = dict.fromkeys(subscriptions, 0)
        for position in range(1, CHANGES + 1):
            owner = chance.choice([*subscriptions, min(subscriptions)])
            resource = chance.choice(["RUNS", "RUNS", "ISSUES", "PARTS", TESTS])
            action, object_id = chance.choice("cuud"), chance.choice(["1", "2", "many", "many", "many"])
            numbers[owner] += 1
            add_change(
                connection,
                position,
                change_id=numbers[owner],
                organisation_id=owner,
                resource=resource,
                action=action,
                object_id=object_id,
            )
            made = [one for one in subscriptions[owner] if one[2] == resource or (one[0] == 1 and resource == "PARTS")]
            if resource == TESTS:
                made = [(0, subscriptions[owner][0][1], TESTS)]
            for subscription_id, receiver_id, _ in chance.sample(made, chance.randint(0, len(made))):
                event_id += 1
                of = {"organisation_id": owner, "receiver_id": receiver_id, "subscription_id": subscription_id}
                status = chance.choice(
                    ["DELIVERED", "DELIVERED", "FAILED", "EXPIRED", "CANCELLED", "OPEN", "AGAIN", "AGAIN"]
                )
                if status == "OPEN" or (status == "AGAIN" and chance.random() < 0.5):
                    if status == "AGAIN":
                        add_settled(connection, event_id, position=position, status="FAILED", **of)
                    add_open(connection, event_id, position=position, sent_again=int(status == "AGAIN"), **of)
                    status = "HELD" if receiver_id % 3 == 0 else "PENDING"
                elif status == "AGAIN":
                    add_settled(connection, event_id, position=position, status="FAILED", **of)
                    status = chance.choice(["DELIVERED", "FAILED"])
                    add_settled(connection, event_id, position=position, status=status, sent_again=1, **of)
                else:
                    add_settled(connection, event_id, position=position, status=status, **of)
                known.append(
                    Known(event_id, owner, status, receiver_id, subscription_id, resource, ACTIONS[action], object_id)
                )
        connection.execute("ANALYZE")
    return known


def one(column: str, *values: object, operator: Operator = Operator.IN) -> Condition:
    return Condition(column, operator, values)


ASKED: list[list[Condition]] = [
    [],
    [one("status", "DELIVERED")],
    [one("status", "FAILED", "EXPIRED")],
    [one("status", "CANCELLED", "PENDING")],
    [one("status", "HELD")],
    [one("status", "DELIVERED", operator=Operator.NEQ)],
    [one("receiver_id", 1)],
    [one("receiver_id", 1), one("status", "FAILED", "DELIVERED")],
    [one("receiver_id", 4)],
    [one("subscription_id", 1)],
    [one("subscription_id", 0)],
    [one("subscription_id", 1, operator=Operator.NEQ), one("status", "FAILED")],
    [one("resource", "RUNS")],
    [one("resource", "PARTS")],
    [one("resource", "PARTS"), one("status", "DELIVERED")],
    [one("resource", "RUNS", operator=Operator.NEQ)],
    [one("resource", TESTS)],
    [one("action", "DELETE")],
    [one("action", "CREATE", operator=Operator.NEQ), one("receiver_id", 2, 3)],
    [one("object_id", "many")],
    [one("object_id", "1", "2"), one("status", "DELIVERED", "PENDING", "HELD")],
    [one("object_id", "many", operator=Operator.NEQ)],
    [one("object_id", "1"), one("resource", "ISSUES")],
    [one("object_id", "none")],
    [one("resource")],
]


@pytest.mark.parametrize(
    "readable", [None, frozenset({"ISSUES"}), frozenset({"PARTS"})], ids=["all", "ISSUES", "PARTS"]
)
@pytest.mark.parametrize("subscriptions_max", [1, 300])
async def test_all_pages_together_are_the_whole_list(
    connection: AsyncConnection,
    shared_database: DatabaseAddress,
    known: list[Known],
    monkeypatch: pytest.MonkeyPatch,
    readable: frozenset[str] | None,
    subscriptions_max: int,
) -> None:
    for name, value in {
        "SEARCHED_MAX": 8,
        "OPEN_SEARCHED_MAX": 3,
        "CHANGES_SEARCHED_MAX": 15,
        "CHANGES_OF_OBJECTS_MAX": 4,
        "SUBSCRIPTIONS_MAX": subscriptions_max,
    }.items():
        monkeypatch.setattr(event_list, name, value)
    principal = Principal(
        ClientId(1),
        "reader",
        "MACHINE",
        Role.AUDITOR,
        OrganisationId(min(event.organisation_id for event in known)),
        readable,
    )
    ((role,),) = (await connection.exec_driver_sql("SELECT api_role FROM clarion.deployment")).all()
    async with transaction(connection, settings_of(role, principal, "test")):
        for place, conditions in enumerate(ASKED):
            expected = sorted(
                (event for event in known if event.meets(principal, conditions)), key=lambda event: event.id
            )
            newest_first, backwards = place % 2 == 0, place % 4 > 1
            seen: list[tuple[int, str]] = []
            cursor: str | None = None
            while True:
                request = page_request(None, None, 2, cursor) if backwards else page_request(2, cursor, None, None)
                page = await list_events(connection, principal, conditions, request, newest_first=newest_first)
                listed = [(event.id, event.status.value) for _, event in page.rows]
                seen = listed + seen if backwards else seen + listed
                if not (page.has_previous if backwards else page.has_next):
                    break
                rows = page.rows
                cursor = (page.start or rows[0][0]) if backwards else (page.end or rows[-1][0])
            wanted = [(event.id, event.status) for event in (reversed(expected) if newest_first else expected)]
            assert seen == wanted, conditions
            assert await count_events(connection, principal, conditions) == len(expected), conditions
        assert await connection.scalar(text("SHOW plan_cache_mode")) == "force_custom_plan"
