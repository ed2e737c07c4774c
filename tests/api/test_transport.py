"""What comes over HTTP before GraphQL: sizes, shapes, arrays, health; and what never leaves: our own inside."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from attack.requests import BROKEN, PLAIN, request
from clarion.api import connections, gate
from clarion.core.errors import Code
from clarion.database.address import DatabaseAddress
from clarion.sender.seal import Sealer
from harness.api import Caller, served
from harness.wire import answer_on, exchange

PING = {"query": "{ __typename }"}


MALFORMED = [
    b"",
    b"{",
    b"5",
    b"null",
    b"[]",
    b'{"query": 5}',
    b'{"variables": {}}',
    b'{"query": "{ __typename }", "variables": []}',
    b'{"query": "{ __typename }", "operationName": 1}',
    b'\xff\xfe{"query": "{ __typename }"}',
    b'{"query": "\\ud800"}',
    b"[" * 2_000,
    json.dumps([PING] * 11).encode(),
    json.dumps([PING, 5]).encode(),
]


def test_a_malformed_body_is_400(administrator: Caller) -> None:
    for body in MALFORMED:
        answer = administrator.send(body)
        assert (answer.status, answer.refusal) == (400, ("MALFORMED", None)), body


def test_only_json_is_taken(administrator: Caller) -> None:
    for media_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert administrator.send(json.dumps(PING).encode(), content_type=media_type).status == 400
    assert administrator.send(json.dumps(PING).encode(), content_type="application/json; charset=utf-8").status == 200


def test_more_than_64_kib_is_413_however_it_is_announced(administrator: Caller) -> None:
    padded = json.dumps(PING).encode().ljust(64 * 1024)
    assert administrator.send(padded).status == 200
    assert (administrator.send(padded + b" ").status, administrator.send(padded + b" ").refusal[0]) == (
        413,
        "TOO_LARGE",
    )
    chunked = administrator.send((padded[:40_000] for _ in range(2)), transfer_encoding="chunked")
    assert chunked.status == 413


def test_an_array_is_answered_by_an_array_with_errors_of_each(integrator: Caller) -> None:
    create = (
        "mutation($name: String!) { createWebhookReceiver(input: {name: $name, "
        'webhookUri: "https://93.184.216.34/"}) { webhookReceiver { id } } }'
    )
    operations = [
        {"query": create, "variables": {"name": "one"}},
        {"query": create, "variables": {"name": ""}},
        {"query": "{ nothing }"},
        {"query": "{ webhookReceivers { edges { node { name } } } }"},
    ]
    answers = integrator.post(operations).body
    assert answers[0] == {"data": {"createWebhookReceiver": {"webhookReceiver": {"id": "1"}}}}
    assert answers[1]["errors"][0]["extensions"] == {"code": "INVALID_INPUT", "field": "input.name"}
    assert answers[2]["errors"][0]["extensions"]["code"] == "QUERY_INVALID"
    assert answers[3]["data"]["webhookReceivers"]["edges"] == [{"node": {"name": "one"}}]


UNRUNNABLE = [
    "",
    "{",
    "{ nothing }",
    "{ webhookReceivers }",
    "query A { __typename } query B { __typename }",
    "subscription { a }",
]


def test_a_query_that_cannot_be_run_is_told_so(administrator: Caller) -> None:
    for query in UNRUNNABLE:
        answer = administrator(query)
        assert (answer.status, answer.refusal[0]) == (200, "QUERY_INVALID"), query


def test_of_several_operations_the_named_one_runs(administrator: Caller) -> None:
    document = "query A { a: __typename } query B { b: __typename }"
    assert administrator.post({"query": document, "operationName": "B"}).data == {"b": "Query"}
    assert administrator.post({"query": document, "operationName": "C"}).refusal[0] == "QUERY_INVALID"


def test_health_routes_need_no_key(administrator: Caller) -> None:
    anonymous = administrator.with_key(None)
    assert anonymous.send(b"", "GET", "/livez").status == 200
    ready = anonymous.send(b"", "GET", "/readyz")
    assert (ready.status, ready.body) == (200, {"database": True, "schema": True})


def test_readiness_waits_for_the_other_roles(database: DatabaseAddress, sealer: Sealer) -> None:
    roles = {"router": False}
    with served(database, sealer, ready=lambda: roles) as port:
        anonymous = Caller(port, None, database)
        assert anonymous.send(b"", "GET", "/readyz").status == 503
        roles["router"] = True
        assert anonymous.send(b"", "GET", "/readyz").status == 200


def test_an_unexpected_error_is_masked_and_logged_under_its_correlation_id(
    administrator: Caller, make_receiver: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    make_receiver(sharedSecret="canary-shared-secret-in-full")
    administrator.rows("ALTER TABLE clarion.subscriptions RENAME TO elsewhere")
    try:
        with caplog.at_level(logging.ERROR):
            answer = administrator("{ webhookReceiver(id: 1) { sharedSecret subscriptions { id } } }")
    finally:
        administrator.rows("ALTER TABLE clarion.elsewhere RENAME TO subscriptions")
    assert answer.status == 200
    error = answer.error
    assert error["extensions"]["code"] == Code.INTERNAL
    assert error["extensions"]["correlationId"] == answer.headers["x-request-id"]
    for inside in ("clarion.", "SELECT", "asyncpg", "Traceback", ".py", "does not exist", "UndefinedTable"):
        assert inside not in json.dumps(answer.body)
    assert error["extensions"]["correlationId"] in caplog.text
    assert "UndefinedTable" in caplog.text
    assert "canary" not in caplog.text
    # The secret was read before the error, and may have been shown.
    assert administrator.rows("SELECT count(*) FROM clarion.history WHERE action = 'REVEAL'") == [(1,)]


def test_without_the_database_the_answer_is_503_and_the_api_recovers(
    make_database: Callable[..., DatabaseAddress], sealer: Sealer
) -> None:
    from clarion.access.principal import Role
    from harness.api import new_key

    database = make_database()
    key = new_key(database, "default", Role.ADMINISTRATOR, "admin")
    with served(database, sealer) as port:
        caller = Caller(port, key, database)
        assert caller.post(PING).status == 200
        elsewhere = Caller(port, key, database.with_database("postgres"))
        elsewhere.rows(f"ALTER DATABASE {database.database} ALLOW_CONNECTIONS false")
        elsewhere.rows(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", database.database
        )
        answer = caller.with_key("another key, which is looked up").post(PING)
        assert (answer.status, answer.error["extensions"]["code"]) == (503, "INTERNAL")
        assert "database" not in answer.error["message"]
        elsewhere.rows(f"ALTER DATABASE {database.database} ALLOW_CONNECTIONS true")
        assert caller("{ webhookReceivers { edges { cursor } } }").data == {"webhookReceivers": {"edges": []}}


def test_no_request_that_a_page_of_another_site_could_make_is_taken(administrator: Caller) -> None:
    mutation = json.dumps({"query": 'mutation { deleteWebhookReceiver(id: 1, etag: "x") { id } }'}).encode()
    # A browser asks no leave (preflight) for the first of these types, which are those of forms.
    for media_type in (
        *("text/plain", "text/plain; application/json", "application/x-www-form-urlencoded", "multipart/form-data"),
        *("application/graphql", "application/jsonp", "text/json", "application/json-patch+json", "", "*/*"),
    ):
        answer = administrator.send(mutation, content_type=media_type)
        assert (answer.status, answer.refusal[0]) == (400, "MALFORMED"), media_type
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = administrator.send(mutation, method=method)
        assert answer.status == 405, method
        assert "access-control-allow-origin" not in answer.headers
    for query in ("mutation%7BdeleteWebhookReceiver(id:1,etag:%22x%22)%7Bid%7D%7D", "%7B__typename%7D"):
        answer = administrator.send(b"", method="GET", path=f"/graphql?query={query}")
        assert not isinstance(answer.body, dict)


def test_a_preflight_is_not_granted(administrator: Caller) -> None:
    asked = administrator.with_key(None).send(
        b"",
        method="OPTIONS",
        origin="https://evil.example",
        access_control_request_method="POST",
        access_control_request_headers="authorization,content-type",
    )
    assert asked.status == 405
    answer = administrator.send(json.dumps(PING).encode(), origin="https://evil.example", sec_fetch_site="cross-site")
    for one in (asked, answer):
        assert not any(name.startswith("access-control") for name in one.headers)


def test_cookies_mean_nothing(administrator: Caller) -> None:
    """Origin and Sec-Fetch-Site need no look either: nothing that a browser sends by itself lets anybody in."""
    anonymous, key, ping = administrator.with_key(None), administrator.key, json.dumps(PING).encode()
    for cookie in (
        f"authorization=Bearer {key}",
        f"authorization={key}",
        f"session={key}",
        f"key={key}; api_key={key}",
    ):
        answer = anonymous.send(ping, cookie=cookie, origin="http://127.0.0.1", sec_fetch_site="same-origin")
        assert (answer.status, answer.refusal[0]) == (401, "UNAUTHENTICATED")
        assert "set-cookie" not in answer.headers
    answer = administrator.send(ping, cookie="authorization=Bearer nonsense")
    assert answer.status == 200
    assert "set-cookie" not in answer.headers


def test_answers_are_neither_kept_nor_taken_for_something_else(administrator: Caller) -> None:
    ping = json.dumps(PING).encode()
    for answer in (administrator.send(ping), administrator.send(b"{"), administrator.with_key(None).send(ping)):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == "application/json"


def test_who_is_unknown_learns_nothing_of_the_schema(administrator: Caller) -> None:
    """Five hundred guesses, each close to a name that there is: no answer differs from the others."""
    kinds = administrator("{ __schema { queryType { fields { name } } mutationType { fields { name } } } }").data[
        "__schema"
    ]
    names = [field["name"] for kind in kinds.values() for field in kind["fields"]]
    probes = [f"{{ {name[:cut]}{name[cut + 1 :]} }}" for name in names for cut in range(len(name))][:496]
    probes += ["{ __schema { types { name } } }", '{ __type(name: "Query") { name } }', "{", "{ __typename }"]
    assert len(probes) == 500
    anonymous = administrator.with_key(None)
    (only,) = {json.dumps(anonymous(probe).body) for probe in probes}
    assert json.loads(only)["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
    assert not any(name in only for name in names)


def test_hostile_requests_are_answered_as_they_have_to_be(administrator: Caller) -> None:
    assert administrator.key is not None
    for hostile in PLAIN:
        reply = exchange(administrator.port, hostile.build(administrator.key))
        codes = set()
        if reply.body[:1] in (b"{", b"["):
            content = json.loads(reply.body)
            answers = content if isinstance(content, list) else [content]
            codes = {error["extensions"]["code"] for answer in answers for error in answer.get("errors", ())}
        assert (reply.status, codes) == (hostile.status, set() if hostile.code is None else {hostile.code}), (
            hostile.name
        )
    for hostile in BROKEN:
        # Sooner than a head is given up that does not come to its end.
        reply = exchange(administrator.port, hostile.build(administrator.key), timeout_s=10)
        # Who is not listened to any more may miss the answer.
        assert reply.status in (hostile.status, None), hostile.name
        assert b"errors" not in reply.body, hostile.name


@pytest.fixture
def hurried(administrator: Caller, monkeypatch: pytest.MonkeyPatch) -> Caller:
    """The same API with a moment in place of the seconds that slow senders have."""
    monkeypatch.setattr(connections, "HEAD_SECONDS_MAX", 0.2)
    monkeypatch.setattr(connections, "REST_SECONDS_MAX", 0.2)
    monkeypatch.setattr(gate, "BODY_SECONDS_MAX", 0.2)
    return administrator


def ping_on(connection: socket.socket, caller: Caller) -> None:
    connection.sendall(request(caller.key, json.dumps(PING).encode()))
    assert json.loads(answer_on(connection).body) == {"data": {"__typename": "Query"}}


def assert_ended(connection: socket.socket) -> None:
    assert connection.recv(1) == b""


def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(hurried: Caller) -> None:
    for begun in (b"", b"POST /graphql", b"POST /graphql HTTP/1.1\r\nx: y\r\n", b"\r\n"):
        with socket.create_connection(("127.0.0.1", hurried.port), timeout=10) as first:
            first.sendall(begun)
            assert_ended(first)
        if begun:
            with socket.create_connection(("127.0.0.1", hurried.port), timeout=10) as further:
                ping_on(further, hurried)
                further.sendall(begun)
                assert_ended(further)


def test_a_body_that_does_not_come_to_its_end_is_not_waited_for(hurried: Caller) -> None:
    for key, status in ((hurried.key, 408), (None, 401)):
        with socket.create_connection(("127.0.0.1", hurried.port), timeout=10) as connection:
            connection.sendall(request(key, b'{"query"', length="1000"))
            assert answer_on(connection).status == status
            assert_ended(connection)


def test_a_connection_that_waits_for_its_next_request_is_kept(hurried: Caller) -> None:
    with socket.create_connection(("127.0.0.1", hurried.port), timeout=10) as connection:
        ping_on(connection, hurried)
        # Longer than a head may take.
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(10)
        ping_on(connection, hurried)


def test_a_connection_whose_body_came_after_its_answer_is_kept(
    hurried: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REST_SECONDS_MAX", 0.5)
    with socket.create_connection(("127.0.0.1", hurried.port), timeout=10) as connection:
        sent = request(None, json.dumps(PING).encode())
        connection.sendall(sent[:-1])
        assert answer_on(connection).status == 401
        connection.sendall(sent[-1:])
        connection.settimeout(0.8)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(10)
        ping_on(connection, hurried)


def test_who_waits_for_an_answer_is_not_cut_off_for_the_head_that_comes_after_it(
    hurried: Caller, make_receiver: Callable[..., dict[str, Any]]
) -> None:
    """The rest of a request that was sent along is read when the one before it is answered."""
    make_receiver()
    slow = json.dumps({"query": "{ webhookReceivers { edges { node { name } } } }"}).encode()
    with socket.create_connection(("127.0.0.1", hurried.port), timeout=10) as connection:
        with psycopg.connect(hurried.database.url) as other:
            other.execute("LOCK TABLE clarion.receivers IN ACCESS EXCLUSIVE MODE")
            connection.sendall(request(hurried.key, slow) + request(hurried.key, slow) + b"POST /graphql HT")
            connection.settimeout(0.7)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        connection.settimeout(10)
        for _ in range(2):
            assert answer_on(connection).status == 200
        assert_ended(connection)
