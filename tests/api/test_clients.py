"""People and machines of an organisation: who may see, make and change them, and that nobody gives what they have not."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy

from clarion.access.principal import PERMISSIONS, Permission, Role
from harness.api import Answer, Caller

SHOWN = "id name kind role active readableResources publishableResources _etag created updated createdBy { name } updatedBy { name }"
CREATE = f"mutation($input: CreateClientInput!) {{ createClient(input: $input) {{ client {{ {SHOWN} }} warnings {{ code }} }} }}"
UPDATE = f"mutation($input: UpdateClientInput!) {{ updateClient(input: $input) {{ client {{ {SHOWN} }} }} }}"
GIVE_KEY = "mutation($id: ID!) { createApiKey(input: {clientId: $id}) { key apiKey { id _etag } } }"


def create(caller: Caller, **given: Any) -> Answer:
    return caller(CREATE, input={"name": "erp", "role": "INTEGRATOR"} | given)


def made(caller: Caller, **given: Any) -> dict[str, Any]:
    found: dict[str, Any] = create(caller, **given).data["createClient"]["client"]
    return found


def update(caller: Caller, client: dict[str, Any], **given: Any) -> Answer:
    return caller(UPDATE, input={"id": client["id"], "etag": client["_etag"]} | given)


def shown(caller: Caller, client_id: str) -> dict[str, Any]:
    found: dict[str, Any] = caller(f"query($id: ID!) {{ client(id: $id) {{ {SHOWN} }} }}", id=client_id).data["client"]
    return found


def key_of(caller: Caller, client_id: str) -> Caller:
    """What calls with a new key of the client."""
    return caller.with_key(caller(GIVE_KEY, id=client_id).data["createApiKey"]["key"])


def limited(administrator: Caller, *readable: str, name: str = "limited") -> Caller:
    """An administrator that may read these resources only."""
    client = made(administrator, name=name, role="ADMINISTRATOR", readableResources=list(readable))
    return key_of(administrator, client["id"])


def test_a_client_is_made_with_defaults_and_changed(administrator: Caller) -> None:
    client = made(administrator)
    assert client | {"_etag": "", "created": "", "updated": ""} == {
        "id": "2",
        "name": "erp",
        "kind": "MACHINE",
        "role": "INTEGRATOR",
        "active": True,
        "readableResources": None,
        "publishableResources": [],
        "_etag": "",
        "created": "",
        "updated": "",
        "createdBy": {"name": "admin"},
        "updatedBy": {"name": "admin"},
    }
    wanted = {"name": "mes", "role": "OPERATOR", "active": False, "readableResources": ["ISSUES", "RUN", "RUNS"]}
    changed = update(administrator, client, publishableResources=["RUNS"], **wanted).data["updateClient"]["client"]
    assert changed["readableResources"] == ["ISSUES", "RUNS"]
    assert changed["publishableResources"] == ["RUNS"]
    assert (changed["name"], changed["role"], changed["active"]) == ("mes", "OPERATOR", False)
    assert changed["_etag"] != client["_etag"]
    assert update(administrator, client, name="late").refusal == ("CONFLICT", "input.etag")
    assert (
        update(administrator, changed, readableResources=None).data["updateClient"]["client"]["readableResources"]
        is None
    )


def test_a_change_of_nothing_writes_nothing(administrator: Caller) -> None:
    client = made(administrator, readableResources=["RUNS"])
    again = update(administrator, client, name="erp", readableResources=["RUNS"], active=True)
    assert again.data["updateClient"]["client"] == client
    assert administrator.rows("SELECT count(*) FROM clarion.history WHERE action = 'UPDATE'") == [(0,)]


def test_history_has_both_sides_of_each_change(administrator: Caller) -> None:
    client = made(administrator)
    update(administrator, client, role="AUDITOR", readableResources=[])
    assert administrator.rows(
        "SELECT action, client_name, before, after FROM clarion.history WHERE object_type = 'Client' "
        "AND client_id IS NOT NULL ORDER BY id"
    ) == [
        (
            "CREATE",
            "admin",
            None,
            {
                "kind": "MACHINE",
                "name": "erp",
                "role": "INTEGRATOR",
                "active": True,
                "readableResources": None,
                "publishableResources": [],
            },
        ),
        (
            "UPDATE",
            "admin",
            {"role": "INTEGRATOR", "readableResources": None},
            {"role": "AUDITOR", "readableResources": []},
        ),
    ]


@pytest.mark.parametrize(
    ("given", "refusal"),
    [
        ({"name": "  "}, ("INVALID_INPUT", "input.name")),
        ({"name": "x" * 201}, ("INVALID_INPUT", "input.name")),
        ({"name": "a\x00b"}, ("INVALID_INPUT", "input.name")),
        ({"name": "admin"}, ("CONFLICT", "input.name")),
        ({"name": " admin "}, ("CONFLICT", "input.name")),
        ({"role": "KING"}, ("INVALID_INPUT", "input.role")),
        ({"kind": "ANIMAL"}, ("INVALID_INPUT", "input.kind")),
        ({"readableResources": ["NO_SUCH"]}, ("INVALID_INPUT", "input.readableResources.0")),
    ],
)
def test_unusable_values_are_refused_by_name(
    administrator: Caller, given: dict[str, Any], refusal: tuple[str, str]
) -> None:
    assert create(administrator, **given).refusal == refusal
    assert administrator.rows("SELECT count(*) FROM clarion.clients") == [(1,)]


def test_a_name_is_taken_once_in_an_organisation_also_at_the_same_time(administrator: Caller) -> None:
    client = made(administrator, name="erp")
    assert update(administrator, client, name="admin").refusal == ("CONFLICT", "input.name")
    stranger = administrator.of("other", Role.ADMINISTRATOR)
    assert made(stranger, name="erp")["name"] == "erp"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: create(administrator, name="twin"), range(8)))
    assert sorted("errors" in answer.body for answer in answers) == [False] + [True] * 7
    assert {answer.refusal for answer in answers if "errors" in answer.body} == {("CONFLICT", "input.name")}


def test_what_may_not_be_null_says_so(administrator: Caller) -> None:
    client = made(administrator)
    for field in ("name", "role", "active", "publishableResources"):
        assert update(administrator, client, **{field: None}).refusal == ("INVALID_INPUT", f"input.{field}")


@pytest.mark.parametrize("role", list(Role))
def test_each_role_sees_and_changes_clients_as_its_permissions_say(administrator: Caller, role: Role) -> None:
    caller = administrator.of("default", role, "somebody")
    client = made(administrator)
    queries = (
        "{ clients { edges { node { id } } } }",
        "{ client(id: 1) { name } }",
        "{ client(id: 999) { name } }",
        '{ node(id: "Client:1") { id } }',
        '{ node(id: "ApiKey:1") { id } }',
        "{ apiKeys { edges { node { id } } } }",
        "{ apiKey(id: 1) { prefix } }",
        "{ apiKey(id: 999) { prefix } }",
    )
    for query in queries:
        answer = caller(query)
        if Permission.CLIENTS_READ not in PERMISSIONS[role]:
            assert answer.refusal == ("FORBIDDEN", None), query
        else:
            assert "999" in query or answer.data, query
    changes = (
        create(caller, name="another"),
        update(caller, client, name="renamed"),
        caller(GIVE_KEY, id=client["id"]),
        caller('mutation { revokeApiKey(id: 999, etag: "x") { apiKey { id } } }'),
        update(caller, client | {"id": "999"}),
    )
    if Permission.CLIENTS_WRITE in PERMISSIONS[role]:
        assert ["errors" in one.body for one in changes] == [False, False, False, True, True]
    else:
        assert {one.refusal for one in changes} == {("FORBIDDEN", None)}


def test_everybody_sees_names_and_only_who_may_sees_the_rest(
    administrator: Caller, integrator: Caller, make_receiver: Any
) -> None:
    make_receiver(administrator)
    make_receiver(integrator, name="own")
    by = "{ webhookReceivers { edges { node { createdBy { id name kind role readableResources keys { prefix } } } } } }"
    answer = integrator(by)
    first, own = [edge["node"]["createdBy"] for edge in answer.body["data"]["webhookReceivers"]["edges"]]
    nothing = {"role": None, "readableResources": None, "keys": None}
    assert first == {"id": "1", "name": "admin", "kind": "MACHINE"} | nothing
    assert own["role"] == "INTEGRATOR"
    assert len(own["keys"]) == 1
    errors = answer.body["errors"]
    assert {one["extensions"]["code"] for one in errors} == {"FORBIDDEN"}
    assert sorted(one["path"][-1] for one in errors) == ["keys", "readableResources", "role"]
    auditor = administrator.of("default", Role.AUDITOR)
    seen = auditor(by).data["webhookReceivers"]["edges"][0]["node"]["createdBy"]
    assert seen["role"] == "ADMINISTRATOR"
    assert [len(key["prefix"]) for key in seen["keys"]] == [12]


def test_the_viewer_is_whoever_asks(administrator: Caller) -> None:
    query = (
        "{ viewer { client { id name role active readableResources publishableResources keys { prefix status } } "
        "organisation { name } permissions } }"
    )
    for role in Role:
        viewer = administrator.of("plant", role)(query).data["viewer"]
        assert (viewer["client"]["name"], viewer["client"]["role"]) == (role.lower(), role)
        assert [key["status"] for key in viewer["client"]["keys"]] == ["ACTIVE"]
        assert viewer["organisation"] == {"name": "plant"}
        named = {Permission(one.value).name for one in PERMISSIONS[role]}
        assert set(viewer["permissions"]) == named
    described = administrator('{ __type(name: "Permission") { enumValues { name description } } }').data["__type"]
    assert {one["name"]: one["description"].partition(":")[0] + ":" for one in described["enumValues"]}.keys() == {
        one.name for one in Permission
    }
    for one in described["enumValues"]:
        assert f"`{Permission[one['name']]}`" in one["description"]


def test_lists_are_filtered_sorted_and_paged(administrator: Caller) -> None:
    for name, role, kind in (("b", "AUDITOR", "PERSON"), ("a", "OPERATOR", "PERSON"), ("c", "AUDITOR", "MACHINE")):
        made(administrator, name=name, role=role, kind=kind)

    def names(arguments: str) -> list[str]:
        answer = administrator(
            f"{{ clients({arguments}) {{ edges {{ node {{ name }} }} pageInfo {{ totalCount }} }} }}"
        )
        return [edge["node"]["name"] for edge in answer.data["clients"]["edges"]]

    assert names("sort: NAME_DESC") == ["c", "b", "admin", "a"]
    assert names("filters: {role: {eq: AUDITOR}}") == ["b", "c"]
    assert names("filters: {kind: {eq: PERSON}, role: {neq: AUDITOR}}") == ["a"]
    assert names('filters: {name: {in: ["a", "admin"]}}') == ["admin", "a"]
    assert names("filters: {active: {eq: false}}") == []
    assert names('filters: {id: {eq: "nobody"}}') == []
    seen: list[str] = []
    after = None
    for _ in range(4):
        answer = administrator(
            "query($after: String) { clients(first: 1, after: $after, sort: [NAME_ASC]) { edges { node { name } } "
            "pageInfo { endCursor hasNextPage totalCount } } }",
            after=after,
        ).data["clients"]
        seen += [edge["node"]["name"] for edge in answer["edges"]]
        after = answer["pageInfo"]["endCursor"]
        assert answer["pageInfo"]["totalCount"] == 4
    assert seen == ["a", "admin", "b", "c"]
    assert answer["pageInfo"]["hasNextPage"] is False


def test_nobody_gives_a_right_that_they_have_not(administrator: Caller) -> None:
    caller = limited(administrator, "RUNS")
    field = "input.readableResources"
    assert create(caller).refusal == ("FORBIDDEN", field)
    assert create(caller, readableResources=None).refusal == ("FORBIDDEN", field)
    assert create(caller, readableResources=["RUNS", "ISSUES"]).refusal == ("FORBIDDEN", field)
    client = made(caller, readableResources=["RUNS"])
    assert update(caller, client, readableResources=["ISSUES"]).refusal == ("FORBIDDEN", field)
    assert update(caller, client, readableResources=None).refusal == ("FORBIDDEN", field)
    narrowed = update(caller, client, readableResources=[]).data["updateClient"]["client"]
    assert update(caller, narrowed, readableResources=["RUNS"]).data["updateClient"]["client"]["readableResources"] == [
        "RUNS"
    ]


def test_a_limited_administrator_does_not_widen_itself_nor_take_a_wider_key(administrator: Caller) -> None:
    caller = limited(administrator, "RUNS")
    oneself = caller(f"{{ viewer {{ client {{ {SHOWN} }} }} }}").data["viewer"]["client"]
    assert update(caller, oneself, readableResources=None).refusal == ("FORBIDDEN", "input.readableResources")
    assert update(caller, oneself, readableResources=["RUNS", "ISSUES"]).refusal[0] == "FORBIDDEN"
    wider = made(administrator, name="wider", role="AUDITOR")
    same = made(administrator, name="same", role="AUDITOR", readableResources=["RUNS"])
    assert caller(GIVE_KEY, id="1").refusal == ("FORBIDDEN", "input.clientId")
    assert caller(GIVE_KEY, id=wider["id"]).refusal == ("FORBIDDEN", "input.clientId")
    assert caller(GIVE_KEY, id=same["id"]).data["createApiKey"]["key"]
    # What is no gift is no escalation: it may be renamed or switched off.
    assert update(caller, wider, active=False, name="off").data["updateClient"]["client"]["active"] is False


def test_a_change_of_rights_holds_within_a_second(administrator: Caller) -> None:
    client = made(administrator, role="ADMINISTRATOR")
    caller = key_of(administrator, client["id"])
    assert made(caller, name="free")["readableResources"] is None
    update(administrator, client, readableResources=["RUNS"])
    administrator.rows("SELECT pg_sleep(1.01)")
    assert create(caller, name="free again").refusal == ("FORBIDDEN", "input.readableResources")


def test_the_last_administrator_is_neither_demoted_nor_switched_off(administrator: Caller) -> None:
    oneself = shown(administrator, "1")
    # A second one without a key, and one whose keys are of no use, are no way in.
    made(administrator, name="keyless", role="ADMINISTRATOR")
    expired = made(administrator, name="expired", role="ADMINISTRATOR")
    key_of(administrator, expired["id"])
    administrator.rows("UPDATE clarion.api_keys SET expires = now() WHERE client_id = %s", int(expired["id"]))
    inactive = made(administrator, name="inactive", role="ADMINISTRATOR")
    key_of(administrator, inactive["id"])
    update(administrator, inactive, active=False)
    administrator.of("other", Role.ADMINISTRATOR)
    assert update(administrator, oneself, role="AUDITOR").refusal == ("CONFLICT", "input.role")
    refused = update(administrator, oneself, active=False)
    assert refused.refusal == ("CONFLICT", "input.active")
    assert "make another active administrator with a key first" in refused.error["message"]
    assert update(administrator, oneself, name="still here").data
    second = made(administrator, name="second", role="ADMINISTRATOR")
    key_of(administrator, second["id"])
    assert (
        update(administrator, shown(administrator, "1"), role="AUDITOR").data["updateClient"]["client"]["role"]
        == "AUDITOR"
    )


@pytest.mark.parametrize("change", [{"role": "AUDITOR"}, {"active": False}])
def test_of_two_administrators_that_go_at_once_one_stays(administrator: Caller, change: dict[str, Any]) -> None:
    for attempt in range(2):
        if attempt:
            # As it was, past the API; clients are remembered for a second.
            administrator.rows("UPDATE clarion.clients SET role = 'AUDITOR', active = false WHERE id <> 1")
            administrator.rows("UPDATE clarion.clients SET role = 'ADMINISTRATOR', active = true WHERE id = 1")
            administrator.rows("SELECT pg_sleep(1.01)")
        second = made(administrator, name=f"second {attempt}", role="ADMINISTRATOR")
        other = key_of(administrator, second["id"])
        first = shown(administrator, "1")
        with ThreadPoolExecutor(2) as pool:
            # Each removes the other, which neither can see coming.
            answers = [
                pool.submit(update, administrator, second, **change),
                pool.submit(update, other, first, **change),
            ]
        refusals = [one.result().refusal for one in answers if "errors" in one.result().body]
        assert refusals == [("CONFLICT", f"input.{next(iter(change))}")]
        left = administrator.rows(
            "SELECT count(DISTINCT c.id) FROM clarion.clients c JOIN clarion.api_keys k ON k.client_id = c.id "
            "WHERE c.role = 'ADMINISTRATOR' AND c.active AND k.revoked IS NULL"
        )
        assert left == [(1,)]


def test_another_organisations_client_and_key_answer_as_absent_ones(administrator: Caller) -> None:
    client = made(administrator)
    key = administrator(GIVE_KEY, id=client["id"]).data["createApiKey"]["apiKey"]
    stranger = administrator.of("other", Role.ADMINISTRATOR)
    key_etag, client_etag = key["_etag"], client["_etag"]
    for template, own in (
        ("{ client(id: $id) { name } }", client["id"]),
        ('{ node(id: "Client:$id") { id } }', client["id"]),
        (
            f'mutation {{ updateClient(input: {{id: $id, etag: "{client_etag}", name: "x"}}) {{ client {{ id }} }} }}',
            client["id"],
        ),
        ("mutation { createApiKey(input: {clientId: $id}) { key } }", client["id"]),
        ("{ apiKey(id: $id) { prefix } }", key["id"]),
        ('{ node(id: "ApiKey:$id") { id } }', key["id"]),
        (f'mutation {{ revokeApiKey(id: $id, etag: "{key_etag}") {{ apiKey {{ id }} }} }}', key["id"]),
    ):
        foreign = stranger.post({"query": template.replace("$id", own)})
        absent = stranger.post({"query": template.replace("$id", "9")})
        assert foreign.body == absent.body, template
        assert foreign.refusal[0] == "NOT_FOUND"
    for query in (
        "{ clients { edges { node { name } } pageInfo { totalCount } } }",
        "{ apiKeys { edges { node { client { name } } } pageInfo { totalCount } } }",
    ):
        (listed,) = stranger(query).data.values()
        assert listed["pageInfo"]["totalCount"] == len(listed["edges"]) == 1
    for filtered in (
        f"clients(filters: {{id: {{eq: {client['id']}}}}})",
        f"apiKeys(filters: {{clientId: {{eq: {client['id']}}}}})",
    ):
        (listed,) = stranger(
            f"{{ {filtered} {{ edges {{ node {{ id }} }} pageInfo {{ totalCount }} }} }}"
        ).data.values()
        assert listed == {"edges": [], "pageInfo": {"totalCount": 0}}


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is sent to the database while the block runs."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        sent.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)


def test_many_clients_with_their_keys_take_no_more_statements_than_one(administrator: Caller) -> None:
    query = (
        "{ clients { edges { node { createdBy { name } updatedBy { name } keys { prefix client { name } createdBy { name } "
        "revokedBy { name } } } } } }"
    )

    def of_clients_and_keys() -> int:
        with statements() as sent:
            answered = administrator(query).data["clients"]["edges"]
        assert len(answered) == len(administrator.rows("SELECT id FROM clarion.clients"))
        return sum("clarion.clients" in one or "clarion.api_keys" in one for one in sent)

    made(administrator, name="first")
    few = of_clients_and_keys()
    for number in range(12):
        administrator(GIVE_KEY, id=made(administrator, name=f"client {number}")["id"])
    assert 2 <= of_clients_and_keys() <= few + 1
