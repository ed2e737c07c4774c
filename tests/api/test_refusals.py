"""What was refused stands in the history of whoever asked, without a value of theirs, and within bounds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from clarion.access.history import Entry
from clarion.access.principal import Origin, Principal, Role
from clarion.api.refusals import MANY, WRITTEN_PER_MINUTE, Refusals, storable
from clarion.api.server import api_engine
from clarion.core.ids import ClientId, OrganisationId
from clarion.core.system import SystemClock
from harness.api import Caller

Make = Callable[..., dict[str, Any]]

COLUMNS = "client_name, action, object_type, object_id, after, refusal, message"


def refusals(caller: Caller) -> list[tuple[Any, ...]]:
    return caller.rows(f"SELECT {COLUMNS} FROM clarion.history WHERE refusal IS NOT NULL ORDER BY id")


def test_each_code_of_a_refused_mutation_is_recorded_with_who_where_and_what(
    administrator: Caller, make_receiver: Make
) -> None:
    make_receiver()
    administrator.rows(
        "INSERT INTO clarion.tests (organisation_id, receiver_id, requested_by_id) "
        "SELECT organisation_id, id, 2 FROM clarion.receivers, generate_series(1, 10)"
    )
    auditor = administrator.of("default", Role.AUDITOR)
    asked = [
        (auditor, 'createWebhookReceiver(input: {name: "a", webhookUri: "https://93.184.216.34/"}) { __typename }'),
        (administrator, 'deleteWebhookReceiver(id: 999, etag: "x") { id }'),
        (administrator, 'updateWebhookReceiver(input: {id: 1, etag: "old", name: "b"}) { __typename }'),
        (
            administrator,
            'createWebhookReceiver(input: {name: "", webhookUri: "https://93.184.216.34/"}) { __typename }',
        ),
        (administrator, 'createWebhookReceiver(input: {name: "a", webhookUri: "https://10.0.0.1/"}) { __typename }'),
        (administrator, "testWebhookReceiver(id: 1) { __typename }"),
    ]
    answers = [caller(f"mutation {{ {mutation} }}") for caller, mutation in asked]
    made = {"given": ["input.name", "input.webhookUri"]}
    named, sent = made | {"field": "input.name"}, made | {"field": "input.webhookUri"}
    expected = [
        ("auditor", "createWebhookReceiver", "WebhookReceiver", "", made, "FORBIDDEN"),
        (
            "admin",
            "deleteWebhookReceiver",
            "WebhookReceiver",
            "999",
            {"given": ["id", "etag"], "field": "id"},
            "NOT_FOUND",
        ),
        (
            *("admin", "updateWebhookReceiver", "WebhookReceiver", "1"),
            *({"given": ["input.id", "input.etag", "input.name"], "field": "input.etag"}, "CONFLICT"),
        ),
        ("admin", "createWebhookReceiver", "WebhookReceiver", "", named, "INVALID_INPUT"),
        ("admin", "createWebhookReceiver", "WebhookReceiver", "", sent, "ADDRESS_NOT_ALLOWED"),
        ("admin", "testWebhookReceiver", "WebhookReceiver", "1", {"given": ["id"], "field": "id"}, "RATE_LIMITED"),
    ]
    assert refusals(administrator) == [
        (*entry, answer.error["message"]) for entry, answer in zip(expected, answers, strict=True)
    ]
    origins = administrator.rows(
        "SELECT h.from_address, h.request_id, k.client_id = h.client_id, h.before FROM clarion.history h "
        "JOIN clarion.api_keys k ON k.id = h.api_key_id WHERE h.refusal IS NOT NULL ORDER BY h.id"
    )
    assert origins == [("127.0.0.1", answer.headers["x-request-id"], True, None) for answer in answers]


def test_what_mutations_of_one_document_were_refused_is_told_apart_by_name_also_behind_aliases_and_fragments(
    administrator: Caller,
) -> None:
    administrator(
        "mutation A { ...one second: deleteWebhookHeader(id: 5, etag: $etag) { id } } "
        "fragment one on Mutation { first: deleteWebhookReceiver(id: 4, etag: $etag) { id } }".replace("$etag", '"x"')
        + ' mutation B { deleteWebhookSubscription(id: 6, etag: "x") { id } }'
    )
    assert refusals(administrator) == []
    administrator.post(
        {
            "query": "query B { __typename } mutation A($id: ID!) { ...one second: deleteWebhookHeader(id: $id, "
            'etag: "x") { id } } fragment one on Mutation { first: deleteWebhookReceiver(id: 4, etag: "x") { id } }',
            "variables": {"id": 5},
            "operationName": "A",
        }
    )
    assert [row[1:4] for row in refusals(administrator)] == [
        ("deleteWebhookReceiver", "WebhookReceiver", "4"),
        ("deleteWebhookHeader", "WebhookHeader", "5"),
    ]


def test_of_queries_only_what_was_forbidden_is_recorded(administrator: Caller, integrator: Caller) -> None:
    integrator("{ webhookReceiver(id: 999) { id } }")
    integrator("{ webhookReceivers(first: 0) { edges { node { id } } } }")
    integrator("{ nothing }")
    assert refusals(administrator) == []
    answer = integrator('{ h: history(filters: {action: {eq: "UPDATE"}}) { edges { node { id } } } }')
    assert answer.refusal == ("FORBIDDEN", None)
    assert refusals(administrator) == [
        (
            "integrator",
            "history",
            "HistoryEntry",
            "",
            {"given": ["filters.action"]},
            "FORBIDDEN",
            answer.error["message"],
        )
    ]


def test_a_known_key_that_opens_nothing_any_more_is_recorded_with_the_reason(
    administrator: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    callers = {name: administrator.of("default", Role.OPERATOR, name) for name in ("revoked", "expired", "inactive")}
    administrator.rows(
        "UPDATE clarion.api_keys k SET revoked = CASE c.name WHEN 'revoked' THEN now() END, "
        "expires = CASE c.name WHEN 'expired' THEN now() END FROM clarion.clients c WHERE c.id = k.client_id"
    )
    administrator.rows("UPDATE clarion.clients SET active = false WHERE name = 'inactive'")
    with caplog.at_level(logging.WARNING):
        assert administrator.with_key("clk_00000000_" + "x" * 43)("{ __typename }").status == 401
    answers = {name: caller("{ __typename }") for name, caller in callers.items()}
    assert {answer.status for answer in answers.values()} == {401}
    found = administrator.rows(
        "SELECT client_name, action, object_type, object_id = api_key_id::text, refusal, message, from_address, request_id "
        "FROM clarion.history WHERE refusal IS NOT NULL ORDER BY id"
    )
    reasons = ("the API key was revoked", "the API key has expired", "the client is not active")
    assert found == [
        (name, "authenticate", "ApiKey", True, "UNAUTHENTICATED", reason, "127.0.0.1", answer.headers["x-request-id"])
        for (name, answer), reason in zip(answers.items(), reasons, strict=True)
    ]
    assert {answer.error["message"] for answer in answers.values()} == {
        "the API key is unknown, expired or revoked: ask an administrator of the organisation"
    }


def test_each_organisation_sees_its_own_refusals_only(administrator: Caller) -> None:
    other = administrator.of("other", Role.ADMINISTRATOR, "stranger")
    for caller in (administrator, other):
        caller('mutation { deleteWebhookReceiver(id: 7, etag: "x") { id } }')
    query = "{ history(filters: {refused: true}) { edges { node { clientName } } } }"
    for caller, name in ((administrator, "admin"), (other, "stranger")):
        assert caller(query).data["history"]["edges"] == [{"node": {"clientName": name}}]


class HandClock(SystemClock):
    """Monotonic time that a test moves."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns


def principal_of(caller: Caller, name: str) -> Principal:
    ((client_id, organisation_id),) = caller.rows(
        "SELECT id, organisation_id FROM clarion.clients WHERE name = %s", name
    )
    return Principal(
        ClientId(client_id),
        name,
        "MACHINE",
        Role.AUDITOR,
        OrganisationId(organisation_id),
        origin=Origin("192.0.2.1", "r"),
    )


def api_role(caller: Caller) -> str:
    ((role,),) = caller.rows("SELECT api_role::text FROM clarion.deployment")
    return str(role)


async def test_beyond_sixty_a_minute_refusals_are_counted_and_written_as_one(administrator: Caller) -> None:
    administrator.of("default", Role.AUDITOR)
    engine, clock = api_engine(administrator.database), HandClock()
    recording = Refusals(engine, api_role(administrator), clock)
    auditor, admin = (principal_of(administrator, name) for name in ("auditor", "admin"))
    entry = Entry("createWebhookReceiver", "WebhookReceiver", "", refusal="FORBIDDEN", message="no")
    try:
        for _ in range(WRITTEN_PER_MINUTE - 1):
            await recording.record(auditor, [entry])
        await recording.record(auditor, [entry] * 4)
        await recording.record(auditor, [Entry("x", "X", "", refusal="CONFLICT", message="no")])
        await recording.record(admin, [entry])
        clock.now_ns += 59_999_999_999
        await recording.write_counts()
        assert len(refusals(administrator)) == WRITTEN_PER_MINUTE + 1
        clock.now_ns += 1
        await recording.write_counts()
        await recording.write_counts()
        rows = refusals(administrator)
        assert len(rows) == WRITTEN_PER_MINUTE + 2
        assert rows[-1] == (
            *("auditor", MANY, "Client", str(auditor.client_id)),
            {"count": 4, "codes": {"FORBIDDEN": 3, "CONFLICT": 1}, "actions": {"createWebhookReceiver": 3, "x": 1}},
            *("FORBIDDEN", "4 requests were refused within a minute that were counted, not written one by one"),
        )
        await recording.record(auditor, [entry])
        assert refusals(administrator)[-1][1] == "createWebhookReceiver"
    finally:
        await engine.dispose()


@contextmanager
def locked_history(caller: Caller) -> Iterator[None]:
    with psycopg.connect(caller.database.url) as connection:
        connection.execute("LOCK TABLE clarion.history IN ACCESS EXCLUSIVE MODE")
        yield


async def test_what_cannot_be_written_in_a_second_is_counted_and_told_later(administrator: Caller) -> None:
    engine, clock = api_engine(administrator.database), HandClock()
    recording = Refusals(engine, api_role(administrator), clock)
    admin = principal_of(administrator, "admin")
    try:
        with locked_history(administrator):
            await recording.record(admin, [Entry("a", "A", "", refusal="CONFLICT", message="no")])
            await recording.write_counts(all_of_them=True)
        await recording.write_counts(all_of_them=True)
        ((*_, after, refusal, _message),) = refusals(administrator)
        assert (after["count"], after["actions"], refusal) == (1, {"a": 1}, "CONFLICT")
    finally:
        await engine.dispose()


def test_an_answer_does_not_fail_because_its_refusal_cannot_be_written(administrator: Caller) -> None:
    mutation = 'mutation { deleteWebhookReceiver(id: 7, etag: "x") { id } }'
    usual = administrator(mutation).body
    with locked_history(administrator):
        assert administrator(mutation).body == usual


def test_a_message_is_cut_to_what_can_be_stored() -> None:
    assert storable("a\x00b\ud800") == "ab?"
    assert storable("x" * 1_000) == "x" * 1_000
    assert storable("x" * 1_001) == "x" * 999 + "…"
