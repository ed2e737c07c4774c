"""`clarion receivers` against a deployment that runs: what it makes, shows and refuses."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import psycopg

from clarion.access.principal import Role
from clarion_receive import Webhook
from harness.operator import Operator, captured

HOSTILE = "\x1b]0;owned\x07\x1b[31mred\u202egpj\x9b2J"
ACTING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


def test_a_receiver_is_made_tested_changed_and_deleted(operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret-token\n")
    said = operator.done(
        *("receivers", "create", "erp", operator.deployment.receiver.uri("/mirror")),
        *("--description", "books orders", "--retry-schedule", "0,5,60", "--rate-limit-per-second", "50"),
        *("--header", "x-plant: 7", "--header", "authorization: @token", "--signature", "V1", "--signature", "v1a"),
    )
    receiver_id = captured(re.search(r"^receiver (\d+) made: erp, https://127", said))
    secret = captured(re.search(r"^shared secret: (whsec_\S+)$", said, re.MULTILINE))
    before = operator.deployment.receiver.count()
    assert operator.done("receivers", "test", receiver_id).startswith("SUCCEEDED 200 after ")
    request = operator.deployment.receiver.wait_for(before + 1)[-1]
    assert (request.headers["authorization"], request.headers["x-plant"]) == ("s3cret-token", "7")
    Webhook(secret).verify(request.body, request.headers)

    shown = operator.ask("receivers", "show", receiver_id)
    assert (shown["retrySchedule"], shown["rateLimitPerSecond"], shown["signatures"]) == ([0, 5, 60], 50, ["V1", "V1A"])
    assert "sharedSecret" not in shown
    assert operator.ask("receivers", "show", receiver_id, "--secret")["sharedSecret"].endswith(secret[-4:])
    people = operator.done("receivers", "show", receiver_id)
    assert re.search(r"^description +books orders$", people, re.MULTILINE)

    operator.done("receivers", "update", receiver_id, "--description", "", "--rate-limit-per-second", "none")
    changed = operator.ask("receivers", "update", receiver_id, "--name", "sap")["webhookReceiver"]
    assert (changed["name"], changed["description"], changed["rateLimitPerSecond"]) == ("sap", None, None)

    operator.done("receivers", "disable", receiver_id)
    listed = operator.done("receivers", "list", "--inactive", "--name", "sap")
    assert re.search(rf"^{receiver_id} +sap +https://\S+ +inactive \(MANUAL\)$", listed, re.MULTILINE), listed
    assert operator.ask("receivers", "list", "--active", "--name", "sap") == []
    assert operator.ask("receivers", "enable", receiver_id)["webhookReceiver"]["active"] is True

    rotated = operator.done("receivers", "rotate-secret", receiver_id)
    assert secret not in rotated
    assert re.fullmatch(r"shared secret: whsec_\S+\n", rotated)

    assert "--yes" in operator.refused("receivers", "delete", receiver_id, code=2)
    assert operator.done("receivers", "delete", receiver_id, "--yes") == f"receiver {receiver_id} deleted\n"
    assert operator.ask("receivers", "list", "--name", "sap") == []


def test_a_receiver_is_sent_what_it_may_be_sent(operator: Operator) -> None:
    receiver_id = operator.make_receiver("limited", "--readable", "items", "--readable", "webhook_receivers")
    people = operator.done("receivers", "show", receiver_id)
    assert re.search(r"^readableResources +ITEMS, WEBHOOK_RECEIVERS$", people, re.MULTILINE), people
    subscribed = operator.ask("subscriptions", "create", receiver_id, "ITEMS", "CREATE")["webhookSubscription"]["id"]

    people = operator.done("receivers", "update", receiver_id, "--readable", "webhook_receivers")
    assert re.search(r"^readableResources +WEBHOOK_RECEIVERS$", people, re.MULTILINE), people
    assert re.search(rf"^subscriptions +{subscribed} ITEMS CREATE inactive \(RIGHT_REVOKED\)$", people, re.MULTILINE)
    listed = operator.done("subscriptions", "list", "--receiver", receiver_id)
    assert re.search(rf"^{subscribed} .* inactive \(RIGHT_REVOKED\)$", listed, re.MULTILINE), listed
    both = operator.refused("receivers", "update", receiver_id, "--readable", "ITEMS", "--all-readable", code=2)
    assert "exclude each other" in both
    people = operator.done("receivers", "update", receiver_id, "--all-readable")
    assert re.search(r"^readableResources +all$", people, re.MULTILINE), people
    assert re.search(rf"^subscriptions +{subscribed} ITEMS CREATE$", people, re.MULTILINE)


def test_headers_are_added_changed_and_taken_away(operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret-token\n")
    receiver_id = operator.make_receiver("with headers", path="/mirror")
    made = operator.done("receivers", "headers", "create", receiver_id, "authorization: @token")
    header_id = captured(re.fullmatch(rf"header (\d+) made: authorization, of receiver {receiver_id}\n", made))
    plant = operator.ask("receivers", "headers", "create", receiver_id, "x-plant:7")["webhookHeader"]
    changed = operator.done("receivers", "headers", "update", plant["id"], "--key", "x-site", "--value", "")
    assert changed == f"header {plant['id']} changed: x-site, of receiver {receiver_id}\n"
    before = operator.deployment.receiver.count()
    operator.done("receivers", "test", receiver_id)
    sent = operator.deployment.receiver.wait_for(before + 1)[-1].headers
    assert (sent["authorization"], sent["x-site"], "x-plant" in sent) == ("s3cret-token", "", False)

    listed = operator.done("receivers", "headers", "list", receiver_id)
    assert re.search(rf"^{header_id} +authorization +\*+ +\S+ +administrator$", listed, re.MULTILINE), listed
    assert "s3cret" not in listed
    assert "nothing is to be changed" in operator.refused("receivers", "headers", "update", header_id, code=2)
    assert "--yes" in operator.refused("receivers", "headers", "delete", header_id, code=2)
    assert operator.done("receivers", "headers", "delete", header_id, "--yes") == f"header {header_id} deleted\n"
    assert [one["key"] for one in operator.ask("receivers", "headers", "list", receiver_id)] == ["x-site"]


def test_a_bad_answer_ends_the_test_with_1(operator: Operator) -> None:
    receiver_id = operator.make_receiver("broken", path="/status/503")
    failed = operator.run("receivers", "test", receiver_id)
    assert failed.code == 1
    assert failed.stdout.startswith("UNEXPECTED_STATUS 503 after ")
    assert "did not answer as it should" in failed.stderr


def test_refusals_are_one_line_with_the_code_and_the_input(operator: Operator) -> None:
    assert operator.refused("receivers", "create", "x", "http://example.com/").startswith("clarion: the API refused: ")
    refused = operator.refused("receivers", "create", "x", "https://10.0.0.1/")
    assert "(ADDRESS_NOT_ALLOWED, input.webhookUri)" in refused
    absent = operator.refused("receivers", "show", "999999")
    assert "(NOT_FOUND, id)" in absent
    assert "`list`" in absent
    forbidden = operator.of(Role.AUDITOR).refused("receivers", "create", "x", "https://93.184.216.34/")
    assert "(FORBIDDEN" in forbidden
    assert "its role" in forbidden
    made = json.loads(
        operator.done("receivers", "create", "x", "https://93.184.216.34/", "--readable", "WEBHOOK_TESTS", "--json")
    )
    without_right = operator.refused(
        "subscriptions", "create", made["webhookReceiver"]["id"], "WEBHOOK_RECEIVERS", "create"
    )
    assert "(FORBIDDEN, input.resource)" in without_right
    assert "its role" not in without_right
    assert "nothing is to be changed" in operator.refused("receivers", "update", "1", code=2)
    for wrong in (["--header", "no colon"], ["--header", "k: @absent"], ["--retry-schedule", "soon"]):
        assert operator.refused("receivers", "create", "x", "https://93.184.216.34/", *wrong, code=2)


def test_a_key_is_needed_and_never_shown(operator: Operator, tmp_path: Path) -> None:
    none = operator.refused("receivers", "list", code=2, CLARION_API_KEY="")
    assert "CLARION_API_KEY" in none
    assert "clarion keys create" in none
    wrong = "clk_00000000_" + "x" * 43
    refused = operator.refused("receivers", "list", CLARION_API_KEY=wrong)
    assert "(UNAUTHENTICATED" in refused
    assert wrong not in refused
    two_lines = operator.refused("receivers", "list", code=2, CLARION_API_KEY="first-half\nsecond-half")
    assert "half" not in two_lines
    (tmp_path / "key").write_text(f"{operator.key}\n")
    assert operator.done("receivers", "list", "--key-file", "key", "--json", CLARION_API_KEY="")
    assert "absent cannot be read" in operator.refused("receivers", "list", "--key-file", "absent", code=2)


def test_no_server_is_said_with_where_it_was_looked_for(operator: Operator) -> None:
    refused = operator.refused("receivers", "list", "--url", "http://127.0.0.1:1")
    assert "the API at http://127.0.0.1:1 does not answer: [Errno 111] Connection refused" in refused
    assert "clarion serve" in refused
    assert "asking again" not in refused
    listen = operator.refused("receivers", "list", CLARION_API_URL="", CLARION_LISTEN="0.0.0.0:1")
    assert "http://127.0.0.1:1 " in listen
    for unusable in ("ftp://127.0.0.1", "http://user:hunter2@127.0.0.1", "127.0.0.1:8400", "http://127.0.0.1:99999"):
        said = operator.refused("receivers", "list", "--url", unusable, code=2)
        assert "hunter2" not in said


def test_what_strangers_wrote_does_not_reach_the_terminal(operator: Operator) -> None:
    receiver_id = operator.make_receiver("hostile")
    # The API refuses such names; a database that was written to otherwise may have them.
    with psycopg.connect(operator.deployment.database.url, autocommit=True) as connection:
        connection.execute("UPDATE clarion.receivers SET name = %s WHERE id = %s", (HOSTILE, receiver_id))
    for arguments in (["list"], ["show", receiver_id], ["list", "--json"]):
        shown = operator.done("receivers", *arguments)
        assert "owned" in shown
        assert not ACTING.search(shown)
    found = {one["id"]: one["name"] for one in operator.ask("receivers", "list")}
    assert found[receiver_id] == HOSTILE


def test_a_reader_that_leaves_is_no_error(operator: Operator, tmp_path: Path) -> None:
    operator.make_receiver("listed")
    process = operator.start(
        *("-c", 'clarion receivers list --json | true; echo "${PIPESTATUS[0]}"'),
        command="bash",
        CLARION_API_URL=operator.url,
        CLARION_API_KEY=operator.key,
        PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin",
    ).wait()
    assert process.stdout == "0\n", process
    assert "Traceback" not in process.stderr


def test_lists_go_on_beyond_a_page_and_stop_at_the_limit(operator: Operator) -> None:
    with psycopg.connect(operator.deployment.database.url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO clarion.receivers (organisation_id, name, webhook_uri, shared_secret_sealed, shared_secret_hint) "
            "SELECT organisation_id, 'many ' || n, webhook_uri, shared_secret_sealed, shared_secret_hint "
            "FROM (SELECT * FROM clarion.receivers ORDER BY id LIMIT 1) one, generate_series(1, 130) n"
        )
    assert len(operator.ask("receivers", "list", "--limit", "120")) == 120
    assert len(json.loads(operator.done("receivers", "list", "--json"))) == 50
