"""Pages, filters and sorts of the three lists."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import sqlalchemy

from harness.api import Caller
from harness.audit_rows import (
    add_attempt,
    add_change,
    add_open,
    add_receiver,
    add_resources,
    add_settled,
    add_subscription,
)

RECEIVERS = (
    "query($first: Int, $after: String, $last: Int, $before: String, $sort: [WebhookReceiverSortEnum!], "
    "$filters: WebhookReceiversInputFilters) { webhookReceivers(first: $first, after: $after, last: $last, "
    "before: $before, sort: $sort, filters: $filters) { edges { cursor node { id name } } "
    "pageInfo { hasNextPage hasPreviousPage startCursor endCursor totalCount count } } }"
)


def names(caller: Caller, **variables: Any) -> list[str]:
    found = caller(RECEIVERS, **variables).data["webhookReceivers"]
    assert found["pageInfo"]["count"] == len(found["edges"])
    return [edge["node"]["name"] for edge in found["edges"]]


@pytest.fixture
def receivers(integrator: Caller, make_receiver: Callable[..., dict[str, Any]]) -> Caller:
    """Seven receivers named a, b, c, a, b, c, a."""
    with psycopg.connect(integrator.database.url) as connection:
        ((organisation_id,),) = connection.execute("SELECT id FROM clarion.organisations WHERE name = 'default'")
        for name in "abcabca":
            add_receiver(connection, organisation_id, name)
    return integrator


def test_pages_forwards_and_backwards_meet(receivers: Caller) -> None:
    for sort, whole in (
        (None, "abcabca"),
        (["ID_DESC"], "acbacba"),
        (["NAME_ASC"], "aaabbcc"),
        (["NAME_DESC", "ID_DESC"], "ccbbaaa"),
        (["CREATED_DESC"], "abcabca"),
    ):
        forwards, after = [], None
        while True:
            page = receivers(RECEIVERS, first=3, after=after, sort=sort).data["webhookReceivers"]
            forwards += [(edge["node"]["id"], edge["node"]["name"]) for edge in page["edges"]]
            info = page["pageInfo"]
            assert (info["totalCount"], info["hasPreviousPage"]) == (7, after is not None)
            assert (info["startCursor"], info["endCursor"]) == (page["edges"][0]["cursor"], page["edges"][-1]["cursor"])
            after = info["endCursor"]
            if not info["hasNextPage"]:
                break
        backwards: list[tuple[str, str]] = []
        before = None
        while True:
            page = receivers(RECEIVERS, last=3, before=before, sort=sort).data["webhookReceivers"]
            backwards = [(edge["node"]["id"], edge["node"]["name"]) for edge in page["edges"]] + backwards
            assert page["pageInfo"]["hasNextPage"] == (before is not None)
            before = page["pageInfo"]["startCursor"]
            if not page["pageInfo"]["hasPreviousPage"]:
                break
        assert forwards == backwards
        assert "".join(name for _id, name in forwards) == whole
        assert len({key for key, _name in forwards}) == 7


def test_filters_of_receivers(receivers: Caller) -> None:
    for filters, expected in (
        ({"name": {"eq": "a"}}, "aaa"),
        ({"name": {"neq": "a"}}, "bcbc"),
        ({"name": {"in": ["b", "c"]}}, "bcbc"),
        ({"name": {"in": []}}, ""),
        ({"name": {"eq": "\x00"}}, ""),
        ({"id": {"eq": 2}}, "b"),
        ({"id": {"in": ["1", "2", "nonsense"]}}, "ab"),
        ({"id": {"neq": "99999999999999999999"}}, "abcabca"),
        ({"id": {"eq": "1 OR 1=1"}}, ""),
        ({"active": {"eq": False}}, ""),
        ({"name": {"eq": "a"}, "id": {"neq": 1}}, "aa"),
        ({"name": None}, "abcabca"),
        ({"name": {"eq": None}}, "abcabca"),
        ({"webhookUri": {"neq": "https://example.com/"}}, ""),
    ):
        assert "".join(names(receivers, filters=filters)) == expected, filters
    many = receivers(RECEIVERS, filters={"id": {"in": list(range(101))}})
    assert many.refusal == ("INVALID_INPUT", "filters.id.in")


def test_a_cursor_that_is_none_of_this_list_is_refused(receivers: Caller) -> None:
    page = receivers(RECEIVERS, first=1, sort=["NAME_ASC"]).data["webhookReceivers"]
    cursor = page["pageInfo"]["endCursor"]
    forged = [["id", True], ["id", "1"], ["id", 2**70], ["id", None], ["id", 1.5], ["id"], ["id", 1, 2], "id"]
    cursors = [base64.urlsafe_b64encode(json.dumps(one).encode()).decode() for one in forged]
    for after in (*cursors, cursor, "", "nonsense", "ünicode", "WzFd", "\x00"):
        assert receivers(RECEIVERS, first=1, after=after).refusal == ("INVALID_INPUT", "after"), after
    assert receivers(RECEIVERS, last=1, before="nonsense").refusal == ("INVALID_INPUT", "before")


@pytest.fixture
def trail(integrator: Caller) -> Caller:
    """Events 1 to 8 of two subscriptions of two receivers, the second inactive.

    1 and 2 delivered, 3 failed then sent again and delivered, 4 failed and open again, 5 open, 6 and 7 held, 8 cancelled.
    """
    with psycopg.connect(integrator.database.url) as connection:
        ((organisation_id,),) = connection.execute("SELECT id FROM clarion.organisations WHERE name = 'default'")
        for name in ("active", "inactive"):
            add_receiver(connection, organisation_id, name)
        connection.execute(
            "UPDATE clarion.receivers SET active = false, disabled_reason = 'GONE' WHERE name = 'inactive'"
        )
        first = add_subscription(connection, organisation_id, 1)
        second = add_subscription(connection, organisation_id, 2, "ISSUES")
        # Both once listened for UPDATE.
        connection.execute("UPDATE clarion.subscriptions SET action = 'UPDATE'")
        connection.execute("UPDATE clarion.subscriptions SET action = 'CREATE'")
        for position in range(1, 9):
            add_change(
                connection,
                position,
                organisation_id=organisation_id,
                resource="ISSUES" if position in {6, 7, 8} else "RUNS",
                action="u" if position % 2 else "c",
                object_id=str(position % 3),
            )
        of = {"organisation_id": organisation_id, "receiver_id": 1, "subscription_id": first}
        held = {"organisation_id": organisation_id, "receiver_id": 2, "subscription_id": second}
        add_settled(connection, 1, position=1, **of)
        add_settled(connection, 2, position=2, **of)
        for event_id in (3, 4):
            add_settled(connection, event_id, position=event_id, status="FAILED", reason="EXHAUSTED", **of)
        add_settled(connection, 3, position=3, sent_again=1, **of)
        add_open(connection, 4, position=4, sent_again=1, **of)
        add_open(connection, 5, position=5, **of)
        add_open(connection, 6, position=6, **held)
        add_open(connection, 7, position=7, **held)
        add_settled(connection, 8, position=8, status="CANCELLED", reason="REQUESTED", **held)
        add_attempt(
            connection,
            3,
            1,
            organisation_id=organisation_id,
            outcome="UNEXPECTED_STATUS",
            status_code=500,
            body=b"\xff no",
        )
        add_attempt(connection, 3, 1, organisation_id=organisation_id, sent_again=1)
        add_attempt(
            connection,
            4,
            1,
            organisation_id=organisation_id,
            outcome="CONNECT_FAILED",
            status_code=None,
            headers=None,
            body=None,
        )
    return integrator


EVENTS = (
    "query($first: Int, $after: String, $last: Int, $before: String, $sort: [WebhookEventSortEnum!], "
    "$filters: WebhookEventsInputFilters) { webhookEvents(first: $first, after: $after, last: $last, before: $before, "
    "sort: $sort, filters: $filters) { edges { node { id status } } "
    "pageInfo { hasNextPage hasPreviousPage startCursor endCursor totalCount count } } }"
)


def test_the_trail_is_the_union_of_open_and_settled_events(trail: Caller) -> None:
    found = trail(EVENTS).data["webhookEvents"]
    assert [(edge["node"]["id"], edge["node"]["status"]) for edge in found["edges"]] == [
        ("8", "CANCELLED"),
        ("7", "HELD"),
        ("6", "HELD"),
        ("5", "PENDING"),
        ("4", "PENDING"),
        ("3", "DELIVERED"),
        ("2", "DELIVERED"),
        ("1", "DELIVERED"),
    ]
    assert found["pageInfo"]["totalCount"] == 8


def test_pages_of_events(trail: Caller) -> None:
    for sort, whole in ((None, "87654321"), (["ID_ASC"], "12345678")):
        seen, after = "", None
        for size in (3, 3, 2):
            page = trail(EVENTS, first=3, after=after, sort=sort).data["webhookEvents"]
            after = page["pageInfo"]["endCursor"]
            assert (page["pageInfo"]["hasNextPage"], page["pageInfo"]["count"]) == (size == 3, size)
            seen += "".join(edge["node"]["id"] for edge in page["edges"])
        assert seen == whole
        page = trail(EVENTS, last=3, before=after, sort=sort).data["webhookEvents"]
        assert "".join(edge["node"]["id"] for edge in page["edges"]) == whole[4:7]
        assert (page["pageInfo"]["hasNextPage"], page["pageInfo"]["hasPreviousPage"]) == (True, True)


def test_filters_of_events(trail: Caller) -> None:
    for filters, expected in (
        ({"status": {"eq": "HELD"}}, "76"),
        ({"status": {"eq": "PENDING"}}, "54"),
        ({"status": {"neq": "DELIVERED"}}, "87654"),
        ({"status": {"in": ["FAILED", "EXPIRED"]}}, ""),
        ({"status": {"in": ["CANCELLED", "PENDING"]}}, "854"),
        ({"status": {"in": []}}, ""),
        ({"receiverId": {"eq": 2}}, "876"),
        ({"subscriptionId": {"in": ["1"]}}, "54321"),
        ({"resource": {"eq": "ISSUES"}}, "876"),
        ({"resource": {"in": ["ISSUE", "RUN"]}}, "87654321"),
        ({"resource": {"neq": "ISSUE"}}, "54321"),
        ({"action": {"eq": "UPDATE"}}, "7531"),
        ({"action": {"neq": "UPDATE"}, "status": {"eq": "DELIVERED"}}, "2"),
        ({"objectId": {"eq": "0"}}, "63"),
        ({"objectId": {"in": ["0", "1"]}, "receiverId": {"eq": 1}}, "431"),
    ):
        found = trail(EVENTS, filters=filters).data["webhookEvents"]
        assert "".join(edge["node"]["id"] for edge in found["edges"]) == expected, filters
        assert found["pageInfo"]["totalCount"] == len(expected), filters


def test_an_event_with_everything_about_it(trail: Caller) -> None:
    query = """{ %s(id: %s) { ... on WebhookEvent {
        id status reason resource action objectId changeId sequence created settled dueAt
        subscription { id resource events(first: 2) { id } } receiver { id name }
        attempts { number round outcome statusCode responseHeaders responseBody error sourceAddress peerAddress
            startedAt durationMs } } } }"""
    event = trail(query % ("webhookEvent", 3)).data["webhookEvent"]
    attempts = event.pop("attempts")
    assert event == {
        "id": "3",
        "status": "DELIVERED",
        "reason": "SUCCEEDED",
        "resource": "RUNS",
        "action": "UPDATE",
        "objectId": "0",
        "changeId": 3,
        "sequence": 3,
        "created": "2026-11-24T01:02:06.456789Z",
        "settled": "2026-11-24T03:02:03.456789Z",
        "dueAt": None,
        "subscription": {"id": "1", "resource": "RUNS", "events": [{"id": "5"}, {"id": "4"}]},
        "receiver": {"id": "1", "name": "active"},
    }
    assert [(one["round"], one["number"], one["outcome"]) for one in attempts] == [
        (0, 1, "UNEXPECTED_STATUS"),
        (1, 1, "SUCCEEDED"),
    ]
    assert attempts[0]["responseBody"] == "\ufffd no"
    assert attempts[1] == {
        "number": 1,
        "round": 1,
        "outcome": "SUCCEEDED",
        "statusCode": 200,
        "responseHeaders": [["content-type", "text/plain"]],
        "responseBody": "ok",
        "error": None,
        "sourceAddress": "10.0.0.1",
        "peerAddress": "192.0.2.1",
        "startedAt": "2026-11-24T01:02:03.456789Z",
        "durationMs": 12,
    }
    held = trail(query % ("node", '"WebhookEvent:7"')).data["node"]
    assert (held["status"], held["reason"], held["attempts"]) == ("HELD", "GONE", [])
    assert trail(query % ("webhookEvent", 99)).refusal == ("NOT_FOUND", "id")
    assert trail('{ node(id: "Nothing:1") { id } }').refusal == ("NOT_FOUND", "id")


def test_the_trail_still_names_what_was_deleted(trail: Caller) -> None:
    trail.rows("UPDATE clarion.receivers SET deleted = now()")
    trail.rows("UPDATE clarion.subscriptions SET deleted = now()")
    found = trail("{ webhookEvent(id: 1) { receiver { name deleted } subscription { id deleted receiver { name } } } }")
    event = found.data["webhookEvent"]
    assert (event["receiver"]["name"], event["subscription"]["receiver"]["name"]) == ("active", "active")
    assert event["receiver"]["deleted"] is not None


def test_nested_lists_take_first(trail: Caller) -> None:
    found = trail("{ webhookSubscriptions { edges { node { events(first: 1) { id } } } } }").data
    assert [edge["node"]["events"] for edge in found["webhookSubscriptions"]["edges"]] == [[{"id": "5"}], [{"id": "8"}]]
    for first in (0, 101):
        refused = trail(f"{{ webhookSubscription(id: 1) {{ events(first: {first}) {{ id }} }} }}")
        assert refused.refusal == ("INVALID_INPUT", "first")


def test_a_level_of_a_query_costs_one_statement_however_many_nodes_it_has(administrator: Caller) -> None:
    with psycopg.connect(administrator.database.url) as connection:
        ((organisation_id,),) = connection.execute("SELECT id FROM clarion.organisations WHERE name = 'default'")
        add_resources(connection, [("PARTS", None)])
        for number in range(20):
            receiver_id = add_receiver(connection, organisation_id, f"r{number}")
            for _ in range(3):
                add_subscription(connection, organisation_id, receiver_id, "PARTS")
    query = (
        "{ webhookReceivers(first: %d) { edges { node { headers { id } subscriptions "
        "{ receiver { name } createdBy { name } events { id } activeFromPosition } } } } }"
    )

    executed: list[str] = []

    def count(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        executed.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", count)
    try:
        counts = []
        # A connection's first use asks the server for its version; that is not the query's.
        administrator(query % 1)
        for size in (1, 20):
            seen = []
            for _ in range(5):
                executed.clear()
                found = administrator(query % size).data["webhookReceivers"]["edges"]
                assert (len(found), len(found[0]["node"]["subscriptions"])) == (size, 3)
                seen.append(len(executed))
            # The server's own look at the configuration may fall into one of them, not into all.
            counts.append(min(seen))
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", count)
    # One for each level.
    assert counts[0] == counts[1] == 6
