"""The history that auditors read: every mutation is in it, every reveal, every refusal; in pages, from indexes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access.history_list import list_history
from clarion.access.principal import Role
from clarion.api.server import api_engine
from clarion.core.ids import OrganisationId
from clarion.database.address import DatabaseAddress
from clarion.database.filters import Condition, Operator
from clarion.database.page import page_request
from harness.api import Caller
from harness.audit_rows import add_change, add_open, add_settled
from harness.plans import most_read

Make = Callable[..., dict[str, Any]]

ENTRY = "id at client { id name } clientName apiKeyId fromAddress requestId action objectType objectId before after refusal message"


def entries(caller: Caller, arguments: str = "first: 100") -> list[dict[str, Any]]:
    answer = caller(f"{{ history({arguments}) {{ edges {{ node {{ {ENTRY} }} }} }} }}")
    return [edge["node"] for edge in answer.data["history"]["edges"]]


def test_who_changed_what_from_where_and_what_it_was_before(administrator: Caller, make_receiver: Make) -> None:
    made = make_receiver(administrator, description="old")
    changed = administrator(
        "mutation($input: UpdateWebhookReceiverInput!) { updateWebhookReceiver(input: $input) { __typename } }",
        input={"id": 1, "etag": made["_etag"], "description": "new"},
    )
    newest, *_ = entries(administrator)
    moment = datetime.fromisoformat(newest.pop("at"))
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    ((key_id,),) = administrator.rows("SELECT id::text FROM clarion.api_keys WHERE client_id = 1")
    entry_id = newest.pop("id")
    assert newest == {
        "client": {"id": "1", "name": "admin"},
        "clientName": "admin",
        "apiKeyId": key_id,
        "fromAddress": "127.0.0.1",
        "requestId": changed.headers["x-request-id"],
        "action": "UPDATE",
        "objectType": "WebhookReceiver",
        "objectId": "1",
        "before": {"description": "old"},
        "after": {"description": "new"},
        "refusal": None,
        "message": None,
    }
    found = administrator(f'{{ node(id: "HistoryEntry:{entry_id}") {{ id ... on HistoryEntry {{ action }} }} }}')
    assert found.data == {"node": {"id": entry_id, "action": "UPDATE"}}


def test_only_roles_with_the_permission_read_it_and_only_their_own(administrator: Caller) -> None:
    other = administrator.of("other", Role.ADMINISTRATOR)
    ((foreign,),) = administrator.rows(
        "SELECT h.id FROM clarion.history h JOIN clarion.organisations o ON o.id = h.organisation_id WHERE o.name = 'other' "
        "AND h.object_type = 'ApiKey'"
    )
    for role, may in ((Role.OPERATOR, True), (Role.AUDITOR, True), (Role.INTEGRATOR, False)):
        caller = administrator.of("default", role)
        answer = caller("{ history { edges { node { id } } } }")
        assert ("errors" not in answer.body) is may, role
        node = caller(f'{{ node(id: "HistoryEntry:{foreign}") {{ id }} }}')
        assert node.refusal[0] == ("NOT_FOUND" if may else "FORBIDDEN")
    assert [entry["objectType"] for entry in entries(other)] == ["ApiKey", "Client", "Organisation"]
    assert str(foreign) not in [entry["id"] for entry in entries(administrator)]


def test_filters_and_sorts(administrator: Caller, integrator: Caller, make_receiver: Make) -> None:
    make_receiver(administrator)
    make_receiver(integrator)
    integrator('mutation { deleteWebhookReceiver(id: 9, etag: "x") { id } }')
    ids = [entry["id"] for entry in entries(administrator)]
    assert [int(id_) for id_ in ids] == sorted(map(int, ids), reverse=True)
    assert [entry["id"] for entry in entries(administrator, "sort: [AT_ASC]")] == ids[::-1]

    def found(filters: str) -> list[tuple[str, str, str]]:
        return [
            (entry["clientName"], entry["action"], entry["objectType"])
            for entry in entries(administrator, f"sort: [AT_ASC], filters: {{{filters}}}")
        ]

    receiver, refused = "WebhookReceiver", ("integrator", "deleteWebhookReceiver", "WebhookReceiver")
    made = [("admin", "CREATE", receiver), ("integrator", "CREATE", receiver)]
    assert found('objectType: {eq: "WebhookReceiver"}') == [*made, refused]
    assert found('objectType: {eq: "WebhookReceiver"}, objectId: {eq: "2"}') == [made[1]]
    assert found('clientId: {eq: 2}, action: {eq: "CREATE"}') == [made[1]]
    assert found("refused: true") == found('refusal: {eq: "NOT_FOUND"}') == [refused]
    assert found('refused: false, objectType: {in: ["WebhookReceiver"]}') == made
    assert found('refused: null, refusal: {eq: "CONFLICT"}') == []
    assert found('clientId: {eq: "nobody"}') == found('action: {eq: "\\u0000"}') == []
    moments = [entry["at"] for entry in entries(administrator, "sort: [AT_ASC]")]
    assert [entry["at"] for entry in entries(administrator, f'filters: {{at: {{gte: "{moments[1]}"}}}}')] == moments[
        :0:-1
    ]
    between = f'sort: [AT_ASC], filters: {{at: {{gte: "{moments[1]}", lt: "{moments[2]}"}}}}'
    assert [entry["at"] for entry in entries(administrator, between)] == [moments[1]]


def test_pages_go_both_ways_and_count_what_is_filtered(administrator: Caller, make_receiver: Make) -> None:
    for number in range(5):
        make_receiver(administrator, name=f"r{number}")
    listed = (
        '{ history(filters: {objectType: {eq: "WebhookReceiver"}}, %s) { edges { cursor node { objectId } } '
        "pageInfo { hasNextPage hasPreviousPage endCursor startCursor totalCount } } }"
    )
    first = administrator(listed % "first: 2").data["history"]
    assert [edge["node"]["objectId"] for edge in first["edges"]] == ["5", "4"]
    assert (first["pageInfo"]["hasNextPage"], first["pageInfo"]["totalCount"]) == (True, 5)
    second = administrator(listed % f'first: 2, after: "{first["pageInfo"]["endCursor"]}"').data["history"]
    assert [edge["node"]["objectId"] for edge in second["edges"]] == ["3", "2"]
    back = administrator(listed % f'last: 2, before: "{second["pageInfo"]["startCursor"]}"').data["history"]
    assert back["edges"] == first["edges"]
    other_sort = administrator(listed % f'sort: [AT_ASC], after: "{first["pageInfo"]["endCursor"]}"')
    assert other_sort.refusal == ("INVALID_INPUT", "after")


@pytest.fixture
def filled(
    administrator: Caller, make_receiver: Make, make_subscription: Callable[..., dict[str, Any]]
) -> Callable[[str], tuple[int, str]]:
    """Two receivers with a header, a subscription and events; tells id and etag of the object of a table."""
    for _ in range(2):
        make_receiver(administrator, headers=[{"key": "x-a", "value": "1"}], timeoutSeconds=1)
    make_subscription("1", caller=administrator)
    with psycopg.connect(administrator.database.url) as connection:
        ((organisation_id,),) = connection.execute("SELECT DISTINCT organisation_id FROM clarion.receivers").fetchall()
        of = {"organisation_id": organisation_id, "receiver_id": 1, "subscription_id": 1}
        for position in (1, 2):
            add_change(connection, position, organisation_id=organisation_id)
        add_settled(connection, 1, position=1, **of)
        add_open(connection, 2, position=2, **of)

    def id_and_etag(table: str) -> tuple[int, str]:
        last = {"clients", "api_keys"}  # not the one that asks
        which = (
            "WHERE name = 'SHIPMENTS'"
            if table == "resources"
            else f"ORDER BY id {'DESC' if table in last else ''} LIMIT 1"
        )
        ((key, etag),) = administrator.rows(f"SELECT id, etag FROM clarion.{table} {which}")
        return key, etag

    return id_and_etag


CASES: dict[str, tuple[str, str | None, tuple[str, str]]] = {
    "createWebhookReceiver": (
        '(input: {name: "new", webhookUri: "https://93.184.216.34/"}) { __typename }',
        None,
        ("CREATE", "WebhookReceiver"),
    ),
    "updateWebhookReceiver": (
        '(input: {id: 1, etag: "$etag", name: "other"}) { __typename }',
        "receivers",
        ("UPDATE", "WebhookReceiver"),
    ),
    "rotateWebhookReceiverSecret": (
        '(input: {id: 1, etag: "$etag"}) { __typename }',
        "receivers",
        ("UPDATE", "WebhookReceiver"),
    ),
    "deleteWebhookReceiver": ('(id: 1, etag: "$etag") { id }', "receivers", ("DELETE", "WebhookReceiver")),
    "testWebhookReceiver": ("(id: 2) { __typename }", None, ("TEST", "WebhookReceiver")),
    "createWebhookSubscription": (
        "(input: {receiverId: 2, resource: RUNS, action: CREATE}) { __typename }",
        None,
        ("CREATE", "WebhookSubscription"),
    ),
    "updateWebhookSubscription": (
        '(input: {id: 1, etag: "$etag", active: false}) { __typename }',
        "subscriptions",
        ("UPDATE", "WebhookSubscription"),
    ),
    "deleteWebhookSubscription": ('(id: 1, etag: "$etag") { id }', "subscriptions", ("DELETE", "WebhookSubscription")),
    "createWebhookHeader": (
        '(input: {receiverId: 1, key: "x-b", value: "1"}) { __typename }',
        None,
        ("CREATE", "WebhookHeader"),
    ),
    "updateWebhookHeader": (
        '(input: {id: 1, etag: "$etag", value: "2"}) { __typename }',
        "headers",
        ("UPDATE", "WebhookHeader"),
    ),
    "deleteWebhookHeader": ('(id: 1, etag: "$etag") { id }', "headers", ("DELETE", "WebhookHeader")),
    "cancelWebhookEvent": ("(id: 2) { __typename }", None, ("CANCEL", "WebhookEvent")),
    "retryWebhookEvent": ("(id: 1) { __typename }", None, ("RETRY", "WebhookEvent")),
    "createWebhookEgressRule": (
        '(input: {network: "10.1.0.0/16", port: 443, note: "plant"}) { __typename }',
        None,
        ("CREATE", "WebhookEgressRule"),
    ),
    "deleteWebhookEgressRule": ('(id: 1, etag: "$etag") { id }', "egress_rules", ("DELETE", "WebhookEgressRule")),
    "createClient": ('(input: {name: "erp", role: INTEGRATOR}) { __typename }', None, ("CREATE", "Client")),
    "updateClient": (
        '(input: {id: "$id", etag: "$etag", name: "former"}) { __typename }',
        "clients",
        ("UPDATE", "Client"),
    ),
    "createApiKey": ("(input: {clientId: 1}) { __typename }", None, ("CREATE", "ApiKey")),
    "revokeApiKey": ('(id: "$id", etag: "$etag") { __typename }', "api_keys", ("REVOKE", "ApiKey")),
    "createOrganisation": ('(input: {name: "plant 2"}) { __typename }', None, ("CREATE", "Organisation")),
    "registerResource": ('(input: {name: "SHIPMENTS"}) { __typename }', None, ("CREATE", "Resource")),
    "updateResource": (
        '(input: {id: "$id", etag: "$etag", description: "Parcels."}) { __typename }',
        "resources",
        ("UPDATE", "Resource"),
    ),
    "unregisterResource": ('(id: "$id", etag: "$etag") { id }', "resources", ("DELETE", "Resource")),
}
"""Each mutation of the schema: a call of it, the table that its etag is read from, and the entry that it makes."""


def test_every_mutation_of_the_schema_has_a_case_here(administrator: Caller) -> None:
    mutations = administrator("{ __schema { mutationType { fields { name } } } }").data["__schema"]["mutationType"]
    assert {field["name"] for field in mutations["fields"]} == set(CASES)


@pytest.mark.parametrize("mutation", CASES)
def test_every_mutation_writes_its_entry_in_its_own_transaction(
    mutation: str, administrator: Caller, filled: Callable[[str], tuple[int, str]]
) -> None:
    call, table, entry = CASES[mutation]
    for made_by in {"egress_rules": ["createWebhookEgressRule"], "resources": ["registerResource"]}.get(
        table or "", []
    ):
        assert administrator(f"mutation {{ {made_by}{CASES[made_by][0]} }}").data
    before = {one["id"] for one in entries(administrator)}
    key, etag = (0, "") if table is None else filled(table)
    call = call.replace("$id", str(key)).replace("$etag", etag)
    answer = administrator(f"mutation {{ {mutation}{call} }}")
    assert "errors" not in answer.body, answer.body
    made = [one for one in entries(administrator, "sort: [AT_ASC]") if one["id"] not in before]
    assert (made[0]["action"], made[0]["objectType"]) == entry or entry in {
        (one["action"], one["objectType"]) for one in made
    }
    assert {(one["clientName"], one["requestId"], one["fromAddress"], one["refusal"]) for one in made} == {
        ("admin", answer.headers["x-request-id"], "127.0.0.1", None)
    }


def test_a_revealed_secret_is_recorded_without_the_secret(administrator: Caller, make_receiver: Make) -> None:
    make_receiver(administrator)
    secret = administrator("{ webhookReceiver(id: 1) { sharedSecret } }").data["webhookReceiver"]["sharedSecret"]
    newest, *others = entries(administrator)
    assert (newest["action"], newest["objectType"], newest["objectId"]) == ("REVEAL", "WebhookReceiver", "1")
    assert secret.removeprefix("whsec_") not in str([newest, *others])


ENTRIES = 50_000
READ_MAX = 1_000


@pytest.fixture(scope="module")
def long_organisation(shared_database: DatabaseAddress) -> OrganisationId:
    """An organisation with 50,000 entries of 100 clients and 5,000 objects, one a second, every hundredth refused. Only read."""
    with psycopg.connect(shared_database.url, autocommit=True) as connection:
        ((organisation_id,),) = connection.execute(
            "INSERT INTO clarion.organisations (name) VALUES ('long history') RETURNING id"
        ).fetchall()
        connection.execute(
            "INSERT INTO clarion.history (organisation_id, at, client_id, client_name, action, object_type, object_id, "
            "before, after, refusal, message) SELECT %s, timestamptz '2026-01-01Z' + n * interval '1 second', n %% 100, 'c', "
            "'UPDATE', 'WebhookReceiver', (n %% 5000)::text, '{\"name\": \"a\"}', '{\"name\": \"b\"}', "
            "CASE WHEN n %% 100 = 0 THEN 'FORBIDDEN' END, CASE WHEN n %% 100 = 0 THEN 'no' END FROM generate_series(1, %s) n",
            (organisation_id, ENTRIES),
        )
        connection.execute("VACUUM ANALYZE clarion.history")
    return OrganisationId(organisation_id)


@pytest.fixture
async def connection(shared_database: DatabaseAddress) -> AsyncIterator[AsyncConnection]:
    engine = api_engine(shared_database)
    async with engine.connect() as connecting:
        yield connecting
    await engine.dispose()


async def test_pages_of_a_long_history_come_from_indexes(
    connection: AsyncConnection, long_organisation: OrganisationId, shared_database: DatabaseAddress
) -> None:
    newest = await list_history(connection, long_organisation, (), page_request(100, None, None, None))
    cursor = newest.rows[-1][0]
    last_hour = Condition("at", Operator.GTE, (datetime(2026, 1, 1, 12, 53, tzinfo=UTC),))
    cases: dict[str, tuple[list[Condition], str | None, dict[str, Any]]] = {
        "newest": ([], None, {}),
        "after a cursor": ([], cursor, {}),
        "oldest": ([], None, {"newest_first": False}),
        "of a client": ([Condition("client_id", Operator.EQ, (3,))], None, {}),
        "of an object": (
            [
                Condition("object_type", Operator.EQ, ("WebhookReceiver",)),
                Condition("object_id", Operator.EQ, ("7",)),
            ],
            None,
            {},
        ),
        "refused": ([], None, {"refused": True}),
        "lately": ([last_hour], None, {}),
        "lately, from its beginning": ([last_hour], None, {"newest_first": False}),
        "a minute, long ago": (
            [
                Condition("at", Operator.GTE, (datetime(2026, 1, 1, 6, 0, tzinfo=UTC),)),
                Condition("at", Operator.LT, (datetime(2026, 1, 1, 6, 1, tzinfo=UTC),)),
            ],
            None,
            {"newest_first": False},
        ),
    }
    counted = {
        name: await most_read(
            connection,
            shared_database,
            lambda case=case: list_history(
                connection, long_organisation, case[0], page_request(100, case[1], None, None), **case[2]
            ),
        )
        for name, case in cases.items()
    }
    assert {name: rows for name, rows in counted.items() if rows > READ_MAX} == {}, counted


@pytest.fixture
def long_history(administrator: Caller) -> Iterator[Caller]:
    """The API over a history of 50,000 entries."""
    administrator.rows(
        "INSERT INTO clarion.history (organisation_id, client_id, client_name, action, object_type, object_id, before, after) "
        "SELECT id, 1, 'admin', 'UPDATE', 'WebhookReceiver', n::text, '{\"name\": \"a\"}', '{\"name\": \"b\"}' "
        "FROM clarion.organisations, generate_series(1, %s) n WHERE name = 'default'",
        ENTRIES,
    )
    yield administrator
    administrator.rows("DELETE FROM clarion.history")


def test_all_of_a_long_history_is_read_page_by_page_each_entry_once(long_history: Caller) -> None:
    query = (
        "query($after: String) { history(sort: [AT_ASC], first: 100, after: $after) "
        "{ edges { node { id } } pageInfo { hasNextPage endCursor } } }"
    )
    ids: list[int] = []
    after = None
    while True:
        page = long_history(query, after=after).data["history"]
        ids += [int(edge["node"]["id"]) for edge in page["edges"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert len(ids) >= ENTRIES
    assert all(one < other for one, other in pairwise(ids))
