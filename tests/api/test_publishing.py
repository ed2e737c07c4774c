"""`POST /v1/changes`: all or nothing, whose and by whom, exact to the byte, once, and refused with the place."""

from __future__ import annotations

import json
import time
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from clarion.access.principal import Role
from clarion.api.publishing import BODY_BYTES_MAX
from clarion.capture.batch import CHANGES_MAX, DEPTH_MAX, PROBLEMS_MAX
from clarion.capture.json_text import DATA_BYTES_MAX
from clarion.capture.published import Published, attach_published
from harness.api import Answer, Caller

REGISTER = (
    "mutation($input: RegisterResourceInput!) { registerResource(input: $input) { resource "
    "{ id name singular description published jsonSchema _etag } } }"
)


@pytest.fixture
def operator(administrator: Caller) -> Caller:
    """Of organisation `default`; SHIPMENTS and PALLETS are registered, and publishing them needs no wait."""
    caller = administrator.of("default", Role.OPERATOR)
    for name, singular in (("SHIPMENTS", "SHIPMENT"), ("PALLETS", None)):
        register(caller, name, singular)
    return caller


def register(caller: Caller, name: str, singular: str | None = None) -> None:
    answer = caller(REGISTER, input={"name": name, "singular": singular})
    assert answer.data["registerResource"]["resource"]["name"] == name


def create(object_id: Any = 1, /, **given: Any) -> dict[str, Any]:
    return {"resource": "SHIPMENTS", "action": "CREATE", "object_id": object_id, "data": {"weight": 1}} | given


def send(caller: Caller, *changes: Any, **headers: str) -> Answer:
    return raw(caller, json.dumps({"changes": changes}).encode(), **headers)


def raw(caller: Caller, body: bytes, **headers: str) -> Answer:
    return caller.send(body, path="/v1/changes", **headers)


def outbox(caller: Caller) -> list[tuple[Any, ...]]:
    """What was published, in the order of ids."""
    return caller.rows(
        "SELECT n.name, b.resource, b.action::text, b.object_id, b.old, b.new, b.actor_id, b.actor_name, b.correlation_id "
        "FROM clarion.outbox b LEFT JOIN clarion.organisations n ON n.id = b.organisation_id "
        "WHERE b.resource NOT LIKE 'WEBHOOK%%' ORDER BY b.id"
    )


def refusals(answer: Answer) -> list[tuple[str, str | None]]:
    return [(one["extensions"]["code"], one["extensions"].get("field")) for one in answer.body["errors"]]


# ---------------------------------------------------------------- what is accepted


def test_changes_are_in_the_outbox_as_they_were_sent(operator: Caller) -> None:
    body = (
        b'{"changes": [ {"resource":"shipments","action":"create","object_id":12345678901234567890123,'
        b'"data":{"price": 1.10000000000000000000001 , "big":123456789012345678901234567890,"e":1E+2,"t":"\\u00fc\xc3\xbc"}},'
        b'{"resource":"Shipment","action":"Update","object_id":"k-1","data":{"a":2},"previous":{"a":1.0},'
        b'"actor":{"id":7,"name":"nora"},"correlation_id":"order-9"},'
        b'{"resource":"PALLETS","action":"DELETE","object_id":"k-1","data":{"a":2},"actor":{"name":"nora"}},'
        b'{"resource":"PALLETS","action":"DELETE","object_id":"k-2","data":null,"previous":null,"actor":{},"correlation_id":null}]}'
    )
    answer = raw(operator, body)
    request_id = answer.headers["x-request-id"]
    assert (answer.status, answer.body) == (200, {"accepted": 4, "correlation_id": request_id})
    ((client_id,),) = operator.rows("SELECT id::text FROM clarion.clients WHERE name = 'operator'")
    exact = '{"price": 1.10000000000000000000001 , "big":123456789012345678901234567890,"e":1E+2,"t":"\\u00fcü"}'
    mine = (client_id, "operator", request_id)
    assert outbox(operator) == [
        ("default", "SHIPMENTS", "c", "12345678901234567890123", None, exact, *mine),
        ("default", "SHIPMENTS", "u", "k-1", '{"a":1.0}', '{"a":2}', "7", "nora", "order-9"),
        ("default", "PALLETS", "d", "k-1", '{"a":2}', None, None, "nora", request_id),
        ("default", "PALLETS", "d", "k-2", None, None, *mine),
    ]


def test_a_batch_takes_ids_in_its_order(operator: Caller) -> None:
    keys = [str(number * 7919 % 1000) for number in range(CHANGES_MAX)]
    assert send(operator, *(create(key) for key in keys)).body["accepted"] == CHANGES_MAX
    assert [row[3] for row in outbox(operator)] == keys


def test_each_organisation_publishes_its_own(operator: Caller) -> None:
    stranger = operator.of("acme", Role.OPERATOR)
    assert send(stranger, create(1)).status == send(operator, create(1)).status == 200
    assert [row[:2] for row in outbox(operator)] == [("acme", "SHIPMENTS"), ("default", "SHIPMENTS")]


def test_what_an_application_was_attached_to_publish_can_be_published_over_http_by_its_organisation_alone(
    operator: Caller,
) -> None:
    with psycopg.connect(operator.database.url, autocommit=True) as connection:
        attach_published(connection, Published("PARCELS", organisation="acme"))
    owner, stranger = operator.of("acme", Role.OPERATOR), operator.of("umbrella", Role.OPERATOR)
    parcel = create(1, resource="PARCELS")
    assert send(owner, parcel).status == 200
    refused = send(stranger, parcel)
    assert (refused.status, refused.refusal) == (404, ("NOT_FOUND", "changes.0.resource"))
    unknown = send(stranger, create(1, resource="NOTHINGS"))
    assert unknown.body == refused.body


# ---------------------------------------------------------------- who may


def test_a_client_without_the_right_publishes_nothing(operator: Caller) -> None:
    integrator = operator.of("default", Role.INTEGRATOR)
    answer = send(integrator, create(1))
    assert (answer.status, answer.refusal) == (403, ("FORBIDDEN", "changes.0.resource"))
    operator.rows(
        "UPDATE clarion.clients SET publishable_resources = '{SHIPMENTS}' WHERE name = 'integrator'",
    )
    time.sleep(1.1)  # keys are remembered for a second
    assert send(integrator, create(1)).status == 200
    mixed = send(integrator, create(2), create(3, resource="PALLETS"))
    assert (mixed.status, mixed.refusal) == (403, ("FORBIDDEN", "changes.1.resource"))
    assert [row[3] for row in outbox(operator)] == ["1"]


def test_who_is_unknown_is_told_so_before_the_body_is_read(operator: Caller) -> None:
    for caller in (operator.with_key(None), operator.with_key("clarion_nobody")):
        answer = raw(caller, b"x" * (BODY_BYTES_MAX + 1))
        assert (answer.status, answer.refusal[0]) == (401, "UNAUTHENTICATED")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_rows_of_a_table_cannot_be_published(operator: Caller) -> None:
    answer = send(operator, create(1, resource="RUNS"), create(1, resource="WEBHOOK_RECEIVERS"))
    assert (answer.status, refusals(answer)) == (
        422,
        [("INVALID_INPUT", "changes.0.resource"), ("INVALID_INPUT", "changes.1.resource")],
    )
    assert "captured where its rows are written" in answer.body["errors"][0]["message"]


# ---------------------------------------------------------------- all or nothing


BAD: dict[str, tuple[Any, str]] = {
    "no object": (3, "changes.1"),
    "no resource": ({"action": "CREATE", "object_id": 1, "data": {}}, "changes.1.resource"),
    "resource that is none": (create(resource="a b"), "changes.1.resource"),
    "unknown resource": (create(resource="NOTHINGS"), "changes.1.resource"),
    "action that is none": (create(action="UPSERT"), "changes.1.action"),
    "a typo": (create(datas={}), "changes.1.datas"),
    "a typo in the actor": (create(actor={"nmae": "x"}), "changes.1.actor.nmae"),
    "no object id": ({"resource": "SHIPMENTS", "action": "CREATE", "data": {}}, "changes.1.object_id"),
    "null as object id": (create(None), "changes.1.object_id"),
    "fraction as object id": (create(1.5), "changes.1.object_id"),
    "list as object id": (create([1]), "changes.1.object_id"),
    "empty object id": (create(""), "changes.1.object_id"),
    "long object id": (create("x" * 1001), "changes.1.object_id"),
    "NUL in the object id": (create("a\x00b"), "changes.1.object_id"),
    "no data": ({"resource": "SHIPMENTS", "action": "UPDATE", "object_id": 1}, "changes.1.data"),
    "null as data": (create(data=None), "changes.1.data"),
    "list as data": (create(data=[]), "changes.1.data"),
    "text as data": (create(data="{}"), "changes.1.data"),
    "large data": (create(data={"a": "x" * DATA_BYTES_MAX}), "changes.1.data"),
    "previous of a CREATE": (create(previous={}), "changes.1.previous"),
    "previous of a DELETE": (create(action="DELETE", previous={}), "changes.1.previous"),
    "list as previous": (create(action="UPDATE", previous=[]), "changes.1.previous"),
    "list as actor": (create(actor=[]), "changes.1.actor"),
    "truth as actor's id": (create(actor={"id": True}), "changes.1.actor.id"),
    "long actor": (create(actor={"name": "x" * 201}), "changes.1.actor.name"),
    "number as correlation id": (create(correlation_id=1), "changes.1.correlation_id"),
    "NUL in the correlation id": (create(correlation_id="\x00"), "changes.1.correlation_id"),
}


@pytest.mark.parametrize("kind", BAD)
def test_one_bad_change_refuses_all_and_is_named(operator: Caller, kind: str) -> None:
    change, field = BAD[kind]
    answer = send(operator, create(1), change, create(2))
    assert answer.refusal == ("NOT_FOUND" if kind == "unknown resource" else "INVALID_INPUT", field)
    assert answer.status == (404 if kind == "unknown resource" else 422)
    assert outbox(operator) == []


def test_at_most_twenty_bad_changes_are_named(operator: Caller) -> None:
    answer = send(operator, *([create(1)] * 5 + [create(1, action="x")] * 100))
    assert refusals(answer) == [("INVALID_INPUT", f"changes.{number}.action") for number in range(5, 5 + PROBLEMS_MAX)]
    mixed = send(operator, create(1, resource="NOTHINGS"), create(1, action="x"), create(1, resource="RUNS"))
    assert refusals(mixed) == [
        ("NOT_FOUND", "changes.0.resource"),
        ("INVALID_INPUT", "changes.1.action"),
        ("INVALID_INPUT", "changes.2.resource"),
    ]


def deep(levels: int) -> bytes:
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def one(data: bytes) -> bytes:
    return b'{"changes":[{"resource":"SHIPMENTS","action":"CREATE","object_id":1,"data":%s}]}' % data


def test_data_may_be_nested_a_hundred_deep_and_no_deeper(operator: Caller) -> None:
    assert raw(operator, one(deep(DEPTH_MAX))).status == 200
    for levels in (DEPTH_MAX + 1, 500):
        assert raw(operator, one(deep(levels))).refusal == ("INVALID_INPUT", "changes.0.data")
    assert raw(operator, one(deep(100_000))).refusal == ("MALFORMED", None)
    brackets = json.dumps({"a": "[{" * 500, "b": [{}] * 500}).encode()
    assert raw(operator, one(brackets)).status == 200


MALFORMED = {
    "nothing": b"",
    "no JSON": b"{",
    "an array": b"[]",
    "no changes": b"{}",
    "another member": b'{"changes":[],"change":[]}',
    "no list": b'{"changes":{}}',
    "none": b'{"changes":[]}',
    "too many": json.dumps({"changes": [{}] * (CHANGES_MAX + 1)}).encode(),
    "NaN": one(b'{"a":NaN}'),
    "another number that is none": one(b'{"a":01}'),
    "lone surrogate": one(b'{"a":"\\ud800"}'),
    "not UTF-8": one(b'{"a":"\xff"}'),
    "control character": one(b'{"a":"\x01"}'),
    "more after it": one(b"{}") + b"{}",
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_no_batch_is_malformed(operator: Caller, kind: str) -> None:
    answer = raw(operator, MALFORMED[kind])
    assert (answer.status, answer.refusal) == (400, ("MALFORMED", None))


def test_the_same_member_twice_stays_as_it_was_sent(operator: Caller) -> None:
    assert raw(operator, one(b'{"a":1,"a":2,"n":"\\u0000"}')).status == 200
    assert outbox(operator)[0][5] == '{"a":1,"a":2,"n":"\\u0000"}'


def test_other_types_and_methods_and_too_large_bodies_are_refused(operator: Caller) -> None:
    assert raw(operator, one(b"{}"), content_type="text/plain").refusal == ("MALFORMED", None)
    assert operator.send(b"", method="GET", path="/v1/changes").status == 405
    large = b" " * (BODY_BYTES_MAX + 1)
    assert (raw(operator, large).status, raw(operator, large).refusal[0]) == (413, "TOO_LARGE")
    pieces = (large[: 1 << 20] for _ in range(9))
    chunked = operator.send(pieces, path="/v1/changes", transfer_encoding="chunked")
    assert (chunked.status, chunked.refusal[0]) == (413, "TOO_LARGE")
    assert raw(operator, one(b"{}") + b" " * (BODY_BYTES_MAX - len(one(b"{}")))).status == 200


def test_a_whole_body_of_the_largest_objects_is_accepted(operator: Caller) -> None:
    data = {"a": "x" * (DATA_BYTES_MAX - 100)}
    assert send(operator, *(create(number, data=data) for number in range(7))).body["accepted"] == 7
    assert sum(len(row[5]) for row in outbox(operator)) > 7 * (DATA_BYTES_MAX - 100)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
CHANGE = st.fixed_dictionaries(
    {},
    optional={
        "resource": st.sampled_from(["SHIPMENTS", "shipment", "RUNS", ""]) | JSON,
        "action": st.sampled_from(["CREATE", "update", "Delete"]) | JSON,
        "object_id": st.integers() | st.text() | JSON,
        "data": st.dictionaries(st.text(max_size=5), JSON, max_size=3) | JSON,
        "previous": st.dictionaries(st.text(max_size=5), JSON, max_size=3) | JSON,
        "actor": st.fixed_dictionaries({}, optional={"id": JSON, "name": JSON}) | JSON,
        "correlation_id": JSON,
        "x": JSON,
    },
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CHANGE, max_size=4).map(lambda changes: {"changes": changes}) | JSON, st.integers(0, 3))
def test_whatever_is_sent_is_accepted_or_refused_and_never_a_fault(operator: Caller, content: Any, cut: int) -> None:
    body = json.dumps(content).encode("utf-8", "surrogatepass")
    before = len(outbox(operator))
    answer = raw(operator, body[: len(body) - cut])
    assert answer.status in {200, 400, 404, 422}, answer.body
    assert len(outbox(operator)) - before == (answer.body["accepted"] if answer.status == 200 else 0)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_no_bytes_are_a_fault(operator: Caller, body: bytes) -> None:
    assert raw(operator, body).status == 400
    assert raw(operator, one(b'{"a":' + body + b"}")).status in {200, 400, 422}


# ---------------------------------------------------------------- once


def test_a_request_that_is_sent_again_with_its_key_is_carried_out_once(operator: Caller) -> None:
    first = send(operator, create(1), create(2), idempotency_key="batch-1")
    again = send(operator, create(1), create(2), idempotency_key="batch-1")
    assert (first.status, again.status, again.body) == (200, 200, first.body)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert [row[3] for row in outbox(operator)] == ["1", "2"]
    other = send(operator, create(3), idempotency_key="batch-1")
    assert (other.status, other.refusal[0]) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_a_refusal_is_not_kept_under_the_key(operator: Caller) -> None:
    pallet = create(1, resource="CRATES")
    assert send(operator, pallet, idempotency_key="batch-1").status == 404
    assert operator.rows("SELECT count(*) FROM clarion.idempotency_keys") == [(0,)]
    register(operator, "CRATES")
    assert send(operator, pallet, idempotency_key="batch-1").status == 200
    assert [row[1] for row in outbox(operator)] == ["CRATES"]


def test_a_kept_answer_is_given_although_the_changes_would_be_refused_by_now(operator: Caller) -> None:
    first = send(operator, create(1, resource="PALLETS"), idempotency_key="k")
    ((key, etag),) = operator.rows("SELECT id::text, etag FROM clarion.resources WHERE name = 'PALLETS'")
    operator(
        "mutation($id: ID!, $etag: String!) { unregisterResource(id: $id, etag: $etag) { id } }", id=key, etag=etag
    )
    assert send(operator, create(1, resource="PALLETS")).status == 404
    assert send(operator, create(1, resource="PALLETS"), idempotency_key="k").body == first.body


# ---------------------------------------------------------------- what it costs and what the database enforces


def test_a_batch_costs_a_point_and_one_for_every_ten_changes(operator: Caller) -> None:
    def remaining(answer: Answer) -> int:
        return int(answer.headers["ratelimit-limit"]) - int(answer.headers["ratelimit-remaining"])

    caller = operator.of("points", Role.OPERATOR)
    assert remaining(send(caller, *[create(1)] * 1000)) in range(90, 102)


def test_the_function_takes_nobody_elses_organisation_and_no_resource_of_a_table(operator: Caller) -> None:
    call = (
        "SELECT clarion.publish_changes(ARRAY[name], ARRAY[etag], '{1}', '{c}', '{1}', ARRAY[NULL], ARRAY['{}'], "
        "ARRAY[NULL], ARRAY[NULL], ARRAY[NULL]) FROM clarion.resources WHERE name = %s"
    )
    ((role, organisation),) = operator.rows(
        "SELECT api_role, id FROM clarion.deployment, clarion.organisations WHERE name = 'default'"
    )
    with psycopg.connect(operator.database.url) as connection:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(call, ("SHIPMENTS",))
        connection.execute("SELECT set_config('clarion.organisation_id', %s, true)", (str(organisation),))
        with pytest.raises(psycopg.Error) as refused, connection.transaction():
            connection.execute(call, ("RUNS",))
        assert refused.value.sqlstate == "CL002"
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute("INSERT INTO clarion.outbox (resource, action, object_id) VALUES ('RUNS', 'd', '1')")
        connection.execute(call, ("SHIPMENTS",))
        connection.rollback()
