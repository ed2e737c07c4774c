"""API keys: shown once, revoked within a second by every process, and never more than who makes them may do."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from clarion.access.keys import key_hash
from clarion.access.principal import Role
from clarion.core.system import SystemRandom
from clarion.database.address import DatabaseAddress
from clarion.sender.seal import Sealer, create_key
from harness.api import Answer, Caller, new_key, served
from harness.process import ClarionProcess

SHOWN = "id prefix status created expires lastUsed revoked _etag client { name } createdBy { name } revokedBy { name }"
CREATE = f"mutation($input: CreateApiKeyInput!) {{ createApiKey(input: $input) {{ key apiKey {{ {SHOWN} }} }} }}"
REVOKE = f"mutation($id: ID!, $etag: String!) {{ revokeApiKey(id: $id, etag: $etag) {{ apiKey {{ {SHOWN} }} }} }}"
VIEWER = "{ viewer { client { name } } }"


def client(caller: Caller, name: str = "erp", role: str = "INTEGRATOR", **given: Any) -> dict[str, Any]:
    found: dict[str, Any] = caller(
        "mutation($input: CreateClientInput!) { createClient(input: $input) { client { id _etag } } }",
        input={"name": name, "role": role} | given,
    ).data["createClient"]["client"]
    return found


def create(caller: Caller, client_id: str, **given: Any) -> Answer:
    return caller(CREATE, input={"clientId": client_id} | given)


def made(caller: Caller, client_id: str, **given: Any) -> tuple[dict[str, Any], str]:
    answer = create(caller, client_id, **given).data["createApiKey"]
    return answer["apiKey"], answer["key"]


def revoke(caller: Caller, key: dict[str, Any]) -> Answer:
    return caller(REVOKE, id=key["id"], etag=key["_etag"])


def moment(delta: timedelta) -> str:
    return (datetime.now(UTC) + delta).isoformat()


def test_a_key_opens_the_api_at_once_and_is_shown_once(administrator: Caller) -> None:
    own = client(administrator)
    shown, key = made(administrator, own["id"])
    assert re.fullmatch(r"clk_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", key)
    assert shown["prefix"] == key[:12]
    assert (shown["status"], shown["expires"], shown["lastUsed"], shown["revoked"]) == ("ACTIVE", None, None, None)
    assert shown["client"] == {"name": "erp"}
    assert shown["createdBy"] == {"name": "admin"}
    assert administrator.with_key(key)(VIEWER).data == {"viewer": {"client": {"name": "erp"}}}
    everything = "".join(
        str(administrator.rows(f"SELECT to_jsonb(t) FROM clarion.{table} t"))
        for table in ("api_keys", "history", "clients")
    )
    assert key not in everything
    assert key[13:] not in everything
    history = str(administrator.rows("SELECT to_jsonb(h) FROM clarion.history h WHERE object_type = 'ApiKey'"))
    assert shown["prefix"] in history
    assert key_hash(key).hex() not in history
    answers = str(administrator(f"{{ apiKeys {{ edges {{ node {{ {SHOWN} }} }} }} }}").body)
    assert shown["prefix"] in answers
    assert key[13:] not in answers


@pytest.mark.parametrize("delta", [timedelta(seconds=-1), timedelta(days=-1), timedelta(days=366 * 5, seconds=60)])
def test_a_key_expires_in_the_future_and_within_five_years(administrator: Caller, delta: timedelta) -> None:
    own = client(administrator)
    assert create(administrator, own["id"], expires=moment(delta)).refusal == ("INVALID_INPUT", "input.expires")
    assert create(administrator, own["id"], expires="tomorrow").refusal == ("INVALID_INPUT", "input.expires")
    assert create(administrator, own["id"], expires="0001-01-01T00:00:00Z").refusal[0] == "INVALID_INPUT"
    assert create(administrator, own["id"], expires="9999-12-31T23:59:59Z").refusal[0] == "INVALID_INPUT"
    assert administrator.rows("SELECT count(*) FROM clarion.api_keys") == [(1,)]


def test_an_expired_key_opens_nothing(administrator: Caller) -> None:
    own = client(administrator)
    shown, key = made(administrator, own["id"], expires=moment(timedelta(seconds=1.5)))
    caller = administrator.with_key(key)
    assert caller(VIEWER).status == 200
    deadline = time.monotonic() + 3.5
    while caller(VIEWER).status == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    now = administrator(f"{{ apiKey(id: {shown['id']}) {{ status }} }}").data["apiKey"]
    assert now == {"status": "EXPIRED"}
    listed = administrator("{ apiKeys(filters: {status: {eq: EXPIRED}}) { edges { node { id } } } }").data["apiKeys"]
    assert listed == {"edges": [{"node": {"id": shown["id"]}}]}


def test_a_revoked_key_stays_revoked_and_the_history_says_who(administrator: Caller) -> None:
    own = client(administrator)
    shown, _ = made(administrator, own["id"])
    assert administrator(REVOKE, id=shown["id"], etag="x").refusal == ("CONFLICT", "etag")
    revoked = revoke(administrator, shown).data["revokeApiKey"]["apiKey"]
    assert revoked["status"] == "REVOKED"
    assert revoked["revokedBy"] == {"name": "admin"}
    assert revoke(administrator, shown).refusal == ("CONFLICT", "etag")
    assert revoke(administrator, revoked).data["revokeApiKey"]["apiKey"] == revoked
    recorded = administrator.rows(
        "SELECT action, before, after FROM clarion.history WHERE object_id = %s AND object_type = 'ApiKey' "
        "AND refusal IS NULL ORDER BY id",
        shown["id"],
    )
    assert [action for action, _, _ in recorded] == ["CREATE", "REVOKE"]
    assert recorded[1][1] == recorded[0][2]
    assert recorded[1][2]["revoked"] == revoked["revoked"]


def test_an_inactive_client_gets_no_key(administrator: Caller) -> None:
    own = client(administrator)
    administrator(
        "mutation($input: UpdateClientInput!) { updateClient(input: $input) { client { id } } }",
        input={"id": own["id"], "etag": own["_etag"], "active": False},
    )
    assert create(administrator, own["id"]).refusal == ("CONFLICT", "input.clientId")
    assert create(administrator, "999").refusal == ("NOT_FOUND", "input.clientId")
    assert create(administrator, "x").refusal == ("NOT_FOUND", "input.clientId")


def test_the_last_key_of_the_administrators_is_not_revoked(administrator: Caller) -> None:
    own = administrator(f"{{ apiKey(id: 1) {{ {SHOWN} }} }}").data["apiKey"]
    integrator = client(administrator)
    made(administrator, integrator["id"])
    refused = revoke(administrator, own)
    assert refused.refusal == ("CONFLICT", "id")
    second, key = made(administrator, "1")
    assert revoke(administrator, own).data
    assert revoke(administrator.with_key(key), second).refusal == ("CONFLICT", "id")


def test_of_two_last_keys_that_are_revoked_at_once_one_stays(administrator: Caller) -> None:
    first = administrator(f"{{ apiKey(id: 1) {{ {SHOWN} }} }}").data["apiKey"]
    second, key = made(administrator, "1")
    with ThreadPoolExecutor(2) as pool:
        answers = [
            pool.submit(revoke, administrator, second),
            pool.submit(revoke, administrator.with_key(key), first),
        ]
    assert [one.result().refusal for one in answers if "errors" in one.result().body] == [("CONFLICT", "id")]


def test_keys_are_listed_by_client_and_status(administrator: Caller) -> None:
    first, second = client(administrator, "first"), client(administrator, "second")
    made_keys = [made(administrator, one["id"])[0] for one in (first, first, second)]
    revoke(administrator, made_keys[0])

    def ids(arguments: str) -> list[str]:
        listed = administrator(f"{{ apiKeys({arguments}) {{ edges {{ node {{ id }} }} pageInfo {{ totalCount }} }} }}")
        found = [edge["node"]["id"] for edge in listed.data["apiKeys"]["edges"]]
        assert listed.data["apiKeys"]["pageInfo"]["totalCount"] == len(found)
        return found

    assert ids(f"filters: {{clientId: {{eq: {first['id']}}}}}") == ["2", "3"]
    assert ids(f"filters: {{clientId: {{eq: {first['id']}}}, status: {{neq: REVOKED}}}}") == ["3"]
    assert ids("filters: {status: {in: [REVOKED, EXPIRED]}}") == ["2"]
    assert ids("sort: ID_DESC") == ["4", "3", "2", "1"]
    assert ids(f'filters: {{prefix: {{eq: "{made_keys[2]["prefix"]}"}}}}') == ["4"]
    keys = administrator(f"{{ client(id: {first['id']}) {{ keys(first: 1) {{ id }} }} }}").data["client"]["keys"]
    assert keys == [{"id": "2"}]


def test_when_a_key_was_last_used_is_written_when_the_api_ends_and_moves_forward_only(
    emptied: DatabaseAddress, sealer: Sealer
) -> None:
    key = new_key(emptied, "default", Role.ADMINISTRATOR, "admin")
    with served(emptied, sealer) as port:
        caller = Caller(port, key, emptied)
        assert caller(VIEWER).status == 200
        assert caller.rows("SELECT last_used FROM clarion.api_keys") == [(None,)]
    ((used, late),) = caller.rows("SELECT last_used, now() - last_used FROM clarion.api_keys")
    assert timedelta(0) <= late < timedelta(seconds=20)
    caller.rows("UPDATE clarion.api_keys SET last_used = last_used + interval '1 hour'")
    with served(emptied, sealer) as port:
        assert Caller(port, key, emptied)(VIEWER).status == 200
    assert caller.rows("SELECT last_used FROM clarion.api_keys") == [(used + timedelta(hours=1),)]


@pytest.fixture
def two_processes(
    database: DatabaseAddress, tmp_path: Path, clarion_process: Callable[..., ClarionProcess]
) -> tuple[Caller, Caller]:
    """An administrator's callers of two `clarion serve --role api` on one database, a process of its own each."""
    create_key(tmp_path / "secret.key", SystemRandom())
    key = new_key(database, "default", Role.ADMINISTRATOR, "admin")
    callers = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = clarion_process(
            "serve",
            "--role",
            "api",
            CLARION_DATABASE_URL=database.url,
            CLARION_SECRET_KEY_FILE=str(tmp_path / "secret.key"),
            CLARION_LISTEN=f"127.0.0.1:{port}",
        )
        process.wait_for_line("^clarion ready")
        callers.append(Caller(port, key, database))
    return callers[0], callers[1]


def test_what_is_taken_away_is_refused_by_every_process_within_a_second(two_processes: tuple[Caller, Caller]) -> None:
    first, second = two_processes
    revoked, switched_off = client(first, "revoked"), client(first, "switched off", "AUDITOR")
    shown, key = made(first, revoked["id"])
    _, other = made(first, switched_off["id"])
    for taken, act in (
        (key, lambda: revoke(first, shown)),
        (
            other,
            lambda: second(
                "mutation($input: UpdateClientInput!) { updateClient(input: $input) { client { active } } }",
                input={"id": switched_off["id"], "etag": switched_off["_etag"], "active": False},
            ),
        ),
    ):
        callers = [one.with_key(taken) for one in two_processes]
        # Both processes know the key when it is taken away.
        assert [caller(VIEWER).status for caller in callers] == [200, 200]
        assert "errors" not in act().body
        acted = time.monotonic()
        for caller in callers:
            while caller(VIEWER).status != 401:
                assert time.monotonic() - acted < 1.1
        time.sleep(max(0.0, 1.1 - (time.monotonic() - acted)))
        assert [caller(VIEWER).status for caller in callers] == [401, 401]


def test_an_unknown_and_a_revoked_key_get_the_same_answer(administrator: Caller) -> None:
    own = client(administrator)
    shown, key = made(administrator, own["id"])
    revoke(administrator, shown)
    answers = [administrator.with_key(one)(VIEWER) for one in (key, "clk_00000000_" + "x" * 43, "x", key[:-1] + "é")]
    assert {answer.status for answer in answers} == {401}
    assert len({str(answer.body) for answer in answers}) == 1


def test_row_level_security_alone_keeps_keys_apart(administrator: Caller) -> None:
    administrator.of("other", Role.ADMINISTRATOR)
    organisations = dict(administrator.rows("SELECT name, id FROM clarion.organisations"))
    with psycopg.connect(administrator.database.url) as connection:
        connection.execute(
            "SELECT set_config('role', api_role, true), set_config('clarion.organisation_id', %s, true) FROM clarion.deployment",
            (str(organisations["other"]),),
        )
        # No condition on the organisation, as if it had been forgotten.
        assert connection.execute("SELECT client_id FROM clarion.api_keys").fetchall() == [(2,)]
        assert connection.execute("SELECT id FROM clarion.clients").fetchall() == [(2,)]
        assert connection.execute("UPDATE clarion.api_keys SET revoked = now() WHERE id = 1").rowcount == 0
        assert connection.execute("UPDATE clarion.clients SET role = 'AUDITOR' WHERE id = 1").rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(
                "INSERT INTO clarion.api_keys (organisation_id, client_id, prefix, hash) VALUES (%s, 1, 'x', %s)",
                (organisations["default"], b"x" * 32),
            )
        with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute("UPDATE clarion.api_keys SET hash = %s", (b"x" * 32,))
