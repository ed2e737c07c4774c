"""Organisations: each sees itself, the deployment's own sees the names of all and makes new ones."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from clarion.access.keys import key_hash
from clarion.access.principal import Role
from harness.api import Answer, Caller

CREATE = (
    "mutation($input: CreateOrganisationInput!) { createOrganisation(input: $input) { key organisation { id name created } "
    "client { id name kind role active readableResources publishableResources createdBy { name } keys { id prefix } } "
    "apiKey { id prefix status expires client { name } createdBy { name } } } }"
)
LIST = "{ organisations(sort: NAME_ASC) { edges { node { name } } pageInfo { totalCount } } }"


def create(caller: Caller, **given: Any) -> Answer:
    return caller(CREATE, input=given)


def names(caller: Caller) -> list[str]:
    listed = caller(LIST).data["organisations"]
    found = [edge["node"]["name"] for edge in listed["edges"]]
    assert listed["pageInfo"]["totalCount"] == len(found)
    return found


def test_the_deployments_own_makes_an_organisation_with_its_first_key(administrator: Caller) -> None:
    made = create(administrator, name=" Plant 2 ", administratorName="boss").data["createOrganisation"]
    assert made["organisation"]["name"] == "Plant 2"
    assert made["client"] | {"id": "", "keys": []} == {
        "id": "",
        "name": "boss",
        "kind": "MACHINE",
        "role": "ADMINISTRATOR",
        "active": True,
        "readableResources": None,
        "publishableResources": [],
        "createdBy": None,
        "keys": [],
    }
    key = {"id": made["apiKey"]["id"], "prefix": made["key"][:12]}
    assert made["client"]["keys"] == [key]
    assert made["apiKey"] == key | {"status": "ACTIVE", "expires": None, "client": {"name": "boss"}, "createdBy": None}
    boss = administrator.with_key(made["key"])
    viewer = boss(
        "{ viewer { client { id name role createdBy { name } keys { id prefix } } organisation { id name } } }"
    )
    assert viewer.data["viewer"] == {
        "client": {
            "id": made["client"]["id"],
            "name": "boss",
            "role": "ADMINISTRATOR",
            "createdBy": None,
            "keys": [key],
        },
        "organisation": {"id": made["organisation"]["id"], "name": "Plant 2"},
    }
    assert names(boss) == ["Plant 2"]
    assert names(administrator) == ["Plant 2", "default"]


def test_both_histories_tell_of_it_and_neither_has_the_key(administrator: Caller) -> None:
    made = create(administrator, name="Plant 2").data["createOrganisation"]
    recorded = administrator.rows(
        "SELECT o.name, h.client_id, h.client_name, h.action, h.object_type, h.object_id, h.after FROM clarion.history h "
        "JOIN clarion.organisations o ON o.id = h.organisation_id WHERE h.client_name LIKE 'admin%%' ORDER BY h.id"
    )
    organisation_id, client_id, key_id = (made[one]["id"] for one in ("organisation", "client", "apiKey"))
    by = (None, "admin of organisation default", "CREATE")
    client = {"name": "administrator", "kind": "MACHINE", "role": "ADMINISTRATOR", "active": True}
    assert recorded == [
        ("Plant 2", *by, "Organisation", organisation_id, {"name": "Plant 2"}),
        ("Plant 2", *by, "Client", client_id, client | {"readableResources": None, "publishableResources": []}),
        (
            "Plant 2",
            *by,
            "ApiKey",
            key_id,
            {"clientId": int(client_id), "prefix": made["key"][:12], "expires": None, "revoked": None},
        ),
        (
            "default",
            1,
            "admin",
            "CREATE",
            "Organisation",
            organisation_id,
            {"name": "Plant 2", "administratorName": "administrator", "prefix": made["key"][:12]},
        ),
    ]
    assert made["key"][13:] not in str(recorded)
    # What the API itself would have recorded of them has the same members, and so has what was made on the database.
    boss = administrator.with_key(made["key"])
    boss('mutation { createClient(input: {name: "erp", role: AUDITOR}) { client { id } } }')
    boss(f"mutation {{ createApiKey(input: {{clientId: {client_id}}}) {{ key }} }}")
    for kind in ("Client", "ApiKey"):
        shapes = administrator.rows(
            "SELECT DISTINCT (SELECT string_agg(k, ' ' ORDER BY k) FROM jsonb_object_keys(after) k) FROM clarion.history "
            "WHERE object_type = %s",
            kind,
        )
        assert len(shapes) == 1, shapes


def test_a_taken_or_unusable_name_is_refused(administrator: Caller) -> None:
    create(administrator, name="Plant 2")
    assert create(administrator, name="Plant 2").refusal == ("CONFLICT", "input.name")
    assert create(administrator, name="default").refusal == ("CONFLICT", "input.name")
    for name in ("", "  ", "x" * 201, "a\nb", "a\x00b"):
        assert create(administrator, name=name).refusal == ("INVALID_INPUT", "input.name")
        assert create(administrator, name="c", administratorName=name).refusal == (
            "INVALID_INPUT",
            "input.administratorName",
        )
    assert names(administrator) == ["Plant 2", "default"]


def test_of_equal_names_at_once_one_wins(administrator: Caller) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: create(administrator, name="twin"), range(6)))
    refusals = [answer.refusal for answer in answers if "errors" in answer.body]
    assert refusals == [("CONFLICT", "input.name")] * 5
    assert administrator.rows("SELECT count(*) FROM clarion.api_keys") == [(2,)]


def test_others_neither_make_nor_see_organisations(administrator: Caller) -> None:
    stranger = administrator.of("other", Role.ADMINISTRATOR)
    callers = [administrator.of("default", role) for role in Role if role is not Role.ADMINISTRATOR]
    for caller in (stranger, *callers):
        assert create(caller, name="mine").refusal == ("FORBIDDEN", None)
        own = "other" if caller is stranger else "default"
        assert names(caller) == [own]
    assert names(administrator) == ["default", "other"]


def test_who_reads_some_resources_only_makes_no_organisation(administrator: Caller) -> None:
    made = administrator(
        'mutation { createClient(input: {name: "l", role: ADMINISTRATOR, readableResources: [RUNS]}) { client { id } } }'
    ).data["createClient"]["client"]
    key = administrator(f"mutation {{ createApiKey(input: {{clientId: {made['id']}}}) {{ key }} }}").data[
        "createApiKey"
    ]
    assert create(administrator.with_key(key["key"]), name="mine").refusal == ("FORBIDDEN", "input")


def test_another_organisation_answers_as_an_absent_one(administrator: Caller) -> None:
    stranger = administrator.of("other", Role.ADMINISTRATOR)
    ids = dict(administrator.rows("SELECT name, id FROM clarion.organisations"))
    for template in ("{ organisation(id: $id) { name } }", '{ node(id: "Organisation:$id") { id } }'):
        foreign, absent = (
            stranger.post({"query": template.replace("$id", str(one))}).body for one in (ids["default"], 987654)
        )
        assert foreign == absent
        assert foreign["errors"][0]["extensions"]["code"] == "NOT_FOUND"
        own = stranger.post({"query": template.replace("$id", str(ids["other"]))})
        assert own.status == 200
        assert "errors" not in own.body
    seen = administrator("query($id: ID!) { organisation(id: $id) { name } }", id=str(ids["other"]))
    assert seen.data["organisation"] == {"name": "other"}
    # Its name is all that the deployment's own sees.
    assert administrator("{ clients { edges { node { name } } } }").data["clients"]["edges"] == [
        {"node": {"name": "admin"}}
    ]


def as_api(connection: psycopg.Connection[Any], organisation_id: int | None) -> None:
    connection.execute(
        "SELECT set_config('role', api_role, true), set_config('clarion.organisation_id', %s, true) FROM clarion.deployment",
        (str(organisation_id or ""),),
    )


def test_the_database_itself_refuses_what_the_api_forgot_to(administrator: Caller) -> None:
    administrator.of("other", Role.ADMINISTRATOR)
    ids = dict(administrator.rows("SELECT name, id FROM clarion.organisations"))
    call = "SELECT * FROM clarion.create_organisation('mine', 'boss', 'clk_00000000', %s, 'nobody')"
    for organisation_id, visible in ((ids["other"], ["other"]), (None, []), (ids["default"], ["default", "other"])):
        with psycopg.connect(administrator.database.url) as connection:
            as_api(connection, organisation_id)
            found = connection.execute("SELECT name FROM clarion.organisations ORDER BY name").fetchall()
            assert [name for (name,) in found] == visible
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute("INSERT INTO clarion.organisations (name) VALUES ('mine')")
            if organisation_id != ids["default"]:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(call, (key_hash("x"),))
                continue
            assert len(connection.execute(call, (key_hash("x"),)).fetchall()) == 1
            # Which organisation the transaction is for has not changed by it.
            setting = "SELECT current_setting('clarion.organisation_id')"
            assert connection.execute(setting).fetchall() == [(str(organisation_id),)]
            assert connection.execute("SELECT count(*) FROM clarion.clients").fetchall() == [(1,)]
