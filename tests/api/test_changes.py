"""The ledger through the API: what changed, exactly, for whoever may see it, and at a bounded cost."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from clarion.access.principal import Role
from clarion.records.changes import SEARCHED_MAX
from harness.api import Caller
from harness.audit_rows import (
    NOBODY,
    add_change,
    add_open,
    add_receiver,
    add_settled,
    add_subscription,
)

CHANGES = (
    "query($first: Int, $after: String, $last: Int, $before: String, $sort: [ChangeSortEnum!], $filters: ChangesInputFilters) "
    "{ changes(first: $first, after: $after, last: $last, before: $before, sort: $sort, filters: $filters) "
    "{ edges { node { id changeId } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor totalCount count } } }"
)
EVERYTHING = (
    "id changeId resource action objectId occurredAt recordedAt actor { id name } correlationId changed data previous "
    "dataOmitted link"
)


def ids(answer: Any) -> str:
    return "".join(str(edge["node"]["changeId"]) for edge in answer.data["changes"]["edges"])


@pytest.fixture
def ledger(administrator: Caller) -> Caller:
    """Changes 1 to 9 of `default` at the odd positions 1 to 17, with one of another organisation after each."""
    administrator.of("other", Role.ADMINISTRATOR)
    with psycopg.connect(administrator.database.url) as connection:
        own, other = (
            connection.execute("SELECT id FROM clarion.organisations WHERE name = %s", (name,)).fetchall()[0][0]
            for name in ("default", "other")
        )
        for number in range(1, 10):
            add_change(
                connection,
                2 * number - 1,
                organisation_id=own,
                change_id=number,
                resource="ISSUES" if number > 6 else "RUNS",
                action="cud"[number % 3],
                object_id=str(number % 4),
                old=None if number % 3 == 0 else f'{{"id":{number},"cost":1.10}}',
                new=None if number % 3 == 2 else f'{{"id":{number},"cost":12345678901234567890.12}}',
            )
            add_change(connection, 2 * number, organisation_id=other, change_id=number, new='{"id":1}')
    return administrator


def test_a_change_has_its_values_digit_by_digit_as_receivers_get_them(ledger: Caller) -> None:
    answer = ledger(f"{{ change(id: 1) {{ {EVERYTHING} }} }}")
    assert answer.data["change"] == {
        "id": "1",
        "changeId": 1,
        "resource": "RUNS",
        "action": "UPDATE",
        "objectId": "1",
        "occurredAt": "2026-11-24T01:02:04.456789Z",
        "recordedAt": "2026-11-24T01:02:04.456789Z",
        "actor": None,
        "correlationId": None,
        "changed": ["cost"],
        "data": {"id": 1, "cost": 12345678901234567890.12},
        "previous": {"cost": 1.1},
        "dataOmitted": False,
        "link": NOBODY.hex(),
    }
    assert '"cost":12345678901234567890.12}' in answer.text
    assert '{"cost":1.10}' in answer.text
    deleted = ledger("{ change(id: 3) { action changed data previous } }").data["change"]
    assert deleted == {"action": "DELETE", "changed": [], "data": {"id": 2, "cost": 1.1}, "previous": {}}
    ledger.rows("UPDATE clarion.ledger SET actor_name = 'Ann', correlation_id = 'job 7' WHERE position = 1")
    found = ledger("{ change(id: 1) { actor { id name } correlationId } }").data["change"]
    assert found == {"actor": {"id": None, "name": "Ann"}, "correlationId": "job 7"}


def test_pages_of_changes(ledger: Caller) -> None:
    for sort, whole in ((None, "987654321"), (["CHANGE_ID_ASC"], "123456789")):
        seen, after = "", None
        for size in (4, 4, 1):
            page = ledger(CHANGES, first=4, after=after, sort=sort)
            info = page.data["changes"]["pageInfo"]
            assert (info["count"], info["totalCount"], info["hasNextPage"]) == (size, 9, size == 4)
            seen, after = seen + ids(page), info["endCursor"]
        assert seen == whole
        page = ledger(CHANGES, last=3, before=after, sort=sort)
        assert ids(page) == whole[5:8]
        assert page.data["changes"]["pageInfo"]["hasPreviousPage"]


def test_filters_of_changes(ledger: Caller) -> None:
    for filters, expected in (
        ({"resource": {"eq": "ISSUE"}}, "987"),
        ({"resource": {"in": ["RUNS", "ISSUES"]}, "action": {"eq": "CREATE"}}, "963"),
        ({"action": {"neq": "CREATE"}}, "875421"),
        ({"objectId": {"eq": "1"}}, "951"),
        ({"objectId": {"eq": "1"}, "resource": {"eq": "RUNS"}}, "51"),
        ({"objectId": {"eq": "\x00"}}, ""),
        ({"correlationId": {"eq": "none"}}, ""),
        ({"changeId": {"eq": 4}}, "4"),
        ({"changeId": {"in": [9, 2, 77]}}, "92"),
        ({"changeId": {"in": []}}, ""),
        ({"changeId": {"gte": 3, "lt": 6}}, "543"),
        ({"changeId": {"gte": 2**63 - 1}}, ""),
        ({"changeId": {"lt": -(2**70)}}, ""),
        ({"changeId": {"lt": 6}, "action": {"eq": "UPDATE"}}, "41"),
        ({"recordedAt": {"gte": "2026-11-24T01:02:10Z", "lt": "2026-11-24T01:02:15Z"}}, "654"),
        ({"recordedAt": {"lt": "2026-11-24T01:02:05Z"}}, "1"),
        ({"recordedAt": {"gte": "2030-01-01T00:00:00Z"}}, ""),
    ):
        found = ledger(CHANGES, filters=filters)
        assert ids(found) == expected, filters
        assert found.data["changes"]["pageInfo"]["totalCount"] == len(expected), filters


def test_a_filter_on_moments_finds_its_place_among_many_changes(ledger: Caller) -> None:
    _add_many(ledger, 3_000)
    found = ledger(
        CHANGES, first=3, sort=["CHANGE_ID_ASC"], filters={"recordedAt": {"gte": "2027-01-01T00:20:00Z"}}
    ).data["changes"]
    assert [edge["node"]["changeId"] for edge in found["edges"]] == [1_200, 1_201, 1_202]


def test_a_search_ends_a_page_where_it_stopped_and_goes_on_from_there(ledger: Caller) -> None:
    _add_many(ledger, 2 * SEARCHED_MAX + 500)
    for sort, whole in ((None, "987"), (["CHANGE_ID_ASC"], "789")):
        seen, after, pages = "", None, 0
        while True:
            page = ledger(CHANGES, first=2, after=after, sort=sort, filters={"resource": {"neq": "RUNS"}})
            seen, pages = seen + ids(page), pages + 1
            info = page.data["changes"]["pageInfo"]
            after = info["endCursor"]
            if not info["hasNextPage"]:
                break
        assert (seen, pages) == (whole, 4)
        backwards, before, pages = "", None, 0
        while True:
            page = ledger(CHANGES, last=2, before=before, sort=sort, filters={"resource": {"neq": "RUNS"}})
            backwards, pages = ids(page) + backwards, pages + 1
            info = page.data["changes"]["pageInfo"]
            before = info["startCursor"]
            if not info["hasPreviousPage"]:
                break
        assert (backwards, pages) == (whole, 4)


def test_whoever_may_not_read_a_resource_sees_none_of_its_changes_anywhere(ledger: Caller) -> None:
    limited = ledger.of("default", Role.INTEGRATOR, "limited")
    ledger.rows("UPDATE clarion.clients SET readable_resources = '{ISSUES}' WHERE name = 'limited'")
    found = limited(CHANGES)
    assert ids(found) == "987"
    assert found.data["changes"]["pageInfo"]["totalCount"] == 3
    assert ids(limited(CHANGES, filters={"resource": {"eq": "RUNS"}})) == ""
    absent = limited("{ change(id: 99) { id } }").body
    for query in ("{ change(id: 1) { id } }", '{ change(id: "2") { id } }', '{ change(id: "x") { id } }'):
        refused = limited(query).body
        assert refused["errors"][0]["extensions"] == absent["errors"][0]["extensions"], query
        assert refused["errors"][0]["message"] == absent["errors"][0]["message"], query
    assert limited('{ node(id: "Change:1") { id } }').refusal == ("NOT_FOUND", "id")
    assert limited('{ node(id: "Change:17") { id ... on Change { objectId } } }').data["node"]["objectId"] == "1"
    assert limited("{ change(id: 17) { data } }").data["change"]["data"]["id"] == 9


def test_another_organisations_changes_are_absent(ledger: Caller) -> None:
    other = ledger.of("other", Role.AUDITOR)
    assert ids(other(CHANGES)) == "987654321"
    assert ledger("{ change(id: 2) { id } }").refusal == ("NOT_FOUND", "id")
    assert other("{ change(id: 2) { id } }").data["change"] == {"id": "2"}


def test_reading_changes_is_a_right_of_its_own(ledger: Caller) -> None:
    with psycopg.connect(ledger.database.url) as connection:
        ((organisation_id,),) = connection.execute("SELECT id FROM clarion.organisations WHERE name = 'default'")
        receiver_id = add_receiver(connection, organisation_id)
        of = {"organisation_id": organisation_id, "receiver_id": receiver_id}
        subscription_id = add_subscription(connection, organisation_id, receiver_id)
        add_settled(connection, 1, position=1, subscription_id=subscription_id, **of)
        add_open(connection, 2, position=3, subscription_id=subscription_id, **of)
    operator = ledger.of("default", Role.OPERATOR)
    for query in ("{ changes { edges { node { id } } } }", "{ change(id: 1) { id } }"):
        assert operator(query).refusal == ("FORBIDDEN", None)
    assert operator("{ webhookEvent(id: 1) { change { id } } }").refusal == ("FORBIDDEN", None)
    found = ledger("{ webhookEvents { edges { node { id change { id changeId data } } } } }").data["webhookEvents"]
    assert [(edge["node"]["change"]["changeId"], edge["node"]["change"]["data"]["id"]) for edge in found["edges"]] == [
        (2, 2),
        (1, 1),
    ]


def test_a_change_has_its_events_and_only_those_that_the_caller_may_see(ledger: Caller) -> None:
    with psycopg.connect(ledger.database.url) as connection:
        ((own,), (other,)) = connection.execute("SELECT id FROM clarion.organisations ORDER BY name <> 'default'")
        of, others = (
            {"organisation_id": owner, "receiver_id": receiver_id}
            | {"subscription_id": add_subscription(connection, owner, receiver_id)}
            for owner in (own, other)
            for receiver_id in [add_receiver(connection, owner)]
        )
        for event_id in (11, 12):
            add_settled(connection, event_id, position=1, **of)
        add_settled(connection, 12, position=1, sent_again=1, **of)
        add_open(connection, 13, position=1, **of)
        add_settled(connection, 14, position=2, **others)
        add_settled(connection, 15, position=3, **of)
        add_open(connection, 15, position=3, sent_again=1, **of)
        # A row that says more than it has shows nobody another's events.
        connection.execute("UPDATE clarion.ledger SET events_count = 9 WHERE position = 1")
    events = "events(first: $first) { id status attempts { number } change { changeId } }"
    query = f"query($first: Int!) {{ changes(sort: CHANGE_ID_ASC, first: 3) {{ edges {{ node {{ {events} }} }} }} }}"

    def of_changes(caller: Caller, first: int) -> list[list[tuple[str, str, int]]]:
        return [
            [(one["id"], one["status"], one["change"]["changeId"]) for one in edge["node"]["events"]]
            for edge in caller(query, first=first).data["changes"]["edges"]
        ]

    assert of_changes(ledger, 20) == [
        [("11", "DELIVERED", 1), ("12", "DELIVERED", 1), ("13", "PENDING", 1)],
        [("15", "PENDING", 2)],
        [],
    ]
    assert of_changes(ledger, 2)[0] == [("11", "DELIVERED", 1), ("12", "DELIVERED", 1)]
    assert of_changes(ledger.of("other", Role.AUDITOR), 20)[0] == [("14", "DELIVERED", 1)]
    assert ledger(query, first=101).refusal == ("INVALID_INPUT", "first")


def test_what_is_too_long_is_left_out_and_said_to_be(ledger: Caller) -> None:
    ledger.rows("UPDATE clarion.ledger SET new = '{\"a\":\"' || repeat('x', 262144) || '\"}' WHERE position = 1")
    omitted = ledger("{ change(id: 1) { dataOmitted data previous changed } }").data["change"]
    assert omitted == {"dataOmitted": True, "data": None, "previous": None, "changed": None}
    _add_many(ledger, 60)
    ledger.rows(
        "UPDATE clarion.ledger SET new = '{\"a\":\"' || repeat('x', 250000) || '\"}' WHERE change_id > 9 AND organisation_id = "
        "(SELECT id FROM clarion.organisations WHERE name = 'default')"
    )
    found = ledger("{ changes(first: 51) { edges { node { changeId dataOmitted data } } } }").data["changes"]["edges"]
    shown = [edge["node"]["changeId"] for edge in found if not edge["node"]["dataOmitted"]]
    assert shown == list(range(60, 60 - 33, -1))
    assert all((edge["node"]["data"] is None) == edge["node"]["dataOmitted"] for edge in found)


def _add_many(caller: Caller, highest: int) -> None:
    """Changes of RUNS from number 10 to this one, recorded a second apart from 2027 on."""
    caller.rows(
        "INSERT INTO clarion.ledger (position, organisation_id, change_id, outbox_id, recorded_at, occurred_at, captured_at, xid, "
        "action, resource, object_id, link, new) SELECT 1000 + n, o.id, n, n, m, m, m, '1', 'c', 'RUNS', 'many', %s, '{\"id\":1}' "
        "FROM clarion.organisations o, generate_series(10, %s::int) n, "
        "LATERAL (SELECT timestamptz '2027-01-01T00:00:00Z' + n * interval '1 second') AS moment (m) WHERE o.name = 'default'",
        NOBODY,
        highest,
    )
