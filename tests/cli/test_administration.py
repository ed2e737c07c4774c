"""`clarion organisations`, `clients`, `keys`, `whoami`, `egress rules`, `resources`, `changes` and `history`, over the API of a
deployment that runs."""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from clarion.access.principal import Role
from harness.operator import Operator, captured


def test_a_client_gets_keys_loses_them_and_is_shut_out(operator: Operator) -> None:
    made = operator.ask("clients", "create", "erp", "--role", "integrator", "--readable", "items", "--with-key")
    client_id, key = made["client"]["id"], made["key"]
    assert made["client"]["readableResources"] == ["ITEMS"]
    assert isinstance(operator.ask("receivers", "list", CLARION_API_KEY=key), list)
    listed = operator.done("clients", "list", "--role", "INTEGRATOR", "--name", "erp")
    assert re.search(rf"^{client_id} +erp +MACHINE +INTEGRATOR +active +ITEMS$", listed, re.MULTILINE), listed

    further = operator.done("keys", "create", "--client", client_id, "--expires", "2030-01-01").strip()
    assert re.fullmatch(r"clk_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", further)
    keys = operator.ask("keys", "list", "--client", client_id, "--status", "active")
    assert [one["expires"] and one["expires"][:10] for one in keys] == [None, "2030-01-01"]
    assert "--yes" in operator.refused("keys", "revoke", keys[1]["id"], code=2)
    assert operator.done("keys", "revoke", keys[1]["id"], "--yes") == f"key {keys[1]['id']} revoked\n"
    assert [one["id"] for one in operator.ask("keys", "list", "--client", client_id, "--status", "REVOKED")] == [
        keys[1]["id"]
    ]
    changed = operator.ask("clients", "update", client_id, "--all-readable", "--role", "AUDITOR")["client"]
    assert (changed["role"], changed["readableResources"]) == ("AUDITOR", None)
    assert re.search(r"^active +no$", operator.done("clients", "update", client_id, "--inactive"), re.MULTILINE)
    refused_by = time.monotonic() + 10
    while (after := operator.run("receivers", "list", CLARION_API_KEY=key)).code == 0:
        assert time.monotonic() < refused_by
    assert (after.code, "(UNAUTHENTICATED" in after.stderr) == (4, True)
    assert keys[0]["prefix"] in operator.done("clients", "show", client_id)
    assert "(FORBIDDEN" in operator.of(Role.INTEGRATOR).refused("clients", "list")


def test_an_organisation_is_made_with_an_administrator_who_is_told_who_they_are(operator: Operator) -> None:
    said = operator.done("organisations", "create", "Plant 2", "--administrator", "boss").splitlines()
    organisation_id = captured(
        re.fullmatch(r"organisation (\d+) made: Plant 2, with client \d+, boss, ADMINISTRATOR", said[0])
    )
    key = said[1].removeprefix("key: ")
    who = operator.done("whoami", CLARION_API_KEY=key)
    assert re.search(r"^client +boss \(\d+\)$", who, re.MULTILINE), who
    assert re.search(rf"^organisation +Plant 2 \({organisation_id}\)$", who, re.MULTILINE), who
    assert re.search(r"^readableResources +all$", who, re.MULTILINE), who
    listed = operator.done("organisations", "list")
    assert re.search(rf"^{organisation_id} +Plant 2 +\S+$", listed, re.MULTILINE), listed
    assert re.search(r"^\d+ +default +\S+$", listed, re.MULTILINE), listed
    assert [one["name"] for one in operator.ask("organisations", "list", CLARION_API_KEY=key)] == ["Plant 2"]
    assert operator.ask("organisations", "show", organisation_id)["name"] == "Plant 2"
    assert "(CONFLICT, input.name)" in operator.refused("organisations", "create", "Plant 2")
    assert "(FORBIDDEN" in operator.refused("organisations", "create", "Plant 3", CLARION_API_KEY=key)
    auditor = operator.of(Role.AUDITOR).ask("whoami")
    assert set(auditor["permissions"]) >= {"HISTORY_READ"}
    assert "WEBHOOKS_WRITE" not in auditor["permissions"]


def test_an_egress_rule_lets_a_receiver_be_made_inside_and_is_taken_back(operator: Operator) -> None:
    rule = ("egress", "rules", "create", "10.1.0.0/16", "--port", "443", "--note", "ERP of plant 1")
    made = operator.done(*rule)
    rule_id = captured(re.fullmatch(r"egress rule (\d+) made: 10.1.0.0/16 port 443, in environment default\n", made))
    operator.done("receivers", "create", "inside", "https://10.1.2.3/")
    named = operator.ask(*rule, "--host", "erp.plant.local")["webhookEgressRule"]
    listed = operator.done("egress", "rules", "list")
    assert re.search(
        rf"^{named['id']} +default +erp.plant.local in 10.1.0.0/16 port 443 +ERP of plant 1 +administrator$",
        listed,
        re.MULTILINE,
    ), listed
    assert "--yes" in operator.refused("egress", "rules", "delete", rule_id, code=2)
    assert operator.done("egress", "rules", "delete", rule_id, "--yes") == f"egress rule {rule_id} deleted\n"
    assert [one["id"] for one in operator.ask("egress", "rules", "list")] == [named["id"]]
    assert "(ADDRESS_NOT_ALLOWED" in operator.refused("receivers", "create", "again", "https://10.1.2.3/")
    assert "may come from anywhere" in operator.run("egress", "addresses").stderr


def test_options_say_whether_a_key_is_made_on_the_database_or_over_the_api(operator: Operator) -> None:
    for wrong in (["--client", "1", "--name", "erp"], ["--expires", "2030-01-01"], ["--url", operator.url]):
        assert "has no meaning with" in operator.refused("keys", "create", *wrong, code=2)
    made = operator.run(
        *("keys", "create", "--organisation", "default"), CLARION_DATABASE_URL=operator.deployment.database.url
    )
    assert made.code == 0
    assert made.stderr == "a key of client administrator, ADMINISTRATOR, organisation default:\n"
    assert operator.ask("clients", "list", "--name", "administrator", CLARION_API_KEY=made.stdout.strip())


def _until(holds: Callable[[], object]) -> None:
    """A process of the API hears within a second of what became of a resource."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_resource_is_registered_changed_and_removed(operator: Operator, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object", "required": ["weight"]}')
    made = operator.ask("resources", "register", "parcels", "--description", "Parcels.", "--json-schema", "schema.json")
    assert (made["name"], made["jsonSchema"]["required"]) == ("PARCELS", ["weight"])
    line = rf"^{made['id']} +PARCELS +published +Parcels\.$"
    _until(lambda: re.search(line, operator.done("resources", "list"), re.MULTILINE))
    assert operator.ask("resources", "update", "parcels", "--json-schema", "none")["jsonSchema"] is None
    _until(lambda: operator.ask("resources", "show", made["id"])["jsonSchema"] is None)
    assert operator.done("resources", "unregister", "PARCELS", "--yes") == f"resource {made['id']} unregistered\n"
    _until(lambda: "PARCELS" not in operator.done("resources", "list"))
    assert "no resource has the id or name PARCELS" in operator.refused("resources", "show", "PARCELS")


def test_changes_keep_all_digits_and_show_the_events_that_they_made(operator: Operator) -> None:
    receiver_id = operator.deployment.register(name="counting", active=False)
    operator.deployment.subscribe(receiver_id, actions=["CREATE"])
    ((item,),) = operator.deployment.rows("INSERT INTO items (note) VALUES ('counted') RETURNING id::text")
    operator.deployment.wait_for_row("SELECT FROM clarion.ledger WHERE object_id = %s", item)
    (listed,) = operator.ask("changes", "list", "--resource", "items", "--object", item, "--from", "2020-01-01")
    shown = operator.ask("changes", "show", listed["id"])
    assert (shown["data"]["note"], shown["action"]) == ("counted", "CREATE")
    people = operator.done("changes", "show", listed["id"])
    assert re.search(rf"^events +\d+ HELD to {receiver_id} counting$", people, re.MULTILINE), people
    assert f"ITEMS CREATE {item}" in operator.done("changes", "list", "--resource", "ITEMS")
    assert operator.ask("changes", "list", "--until", "2020-01-01") == []


def test_the_history_is_exported_page_by_page_and_runs_no_formula(operator: Operator, tmp_path: Path) -> None:
    receiver_id = operator.make_receiver("=HYPERLINK(1)")
    operator.refused("receivers", "create", "x", "http://example.com/")
    operator.deployment.connection.execute(
        "INSERT INTO clarion.history (organisation_id, client_name, action, object_type, object_id) "
        "SELECT id, '=1+1', 'UPDATE', 'Many', n FROM clarion.organisations, generate_series(1, 250) n WHERE name = 'default'"
    )
    exported = operator.run("history", "export", "--type", "Many")
    assert (exported.code, exported.stderr) == (0, "250 entries exported\n")
    entries = [json.loads(line) for line in exported.stdout.splitlines()]
    assert sorted(int(entry["objectId"]) for entry in entries) == list(range(1, 251))
    operator.done("history", "export", "--format", "csv", "--output", "history.csv", "--from", "2020-01-01")
    assert (tmp_path / "history.csv").stat().st_mode & 0o777 == 0o600
    with (tmp_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["clientName"] for row in rows if row["objectType"] == "Many"} == {"'=1+1"}
    (created,) = [row for row in rows if (row["objectType"], row["objectId"]) == ("WebhookReceiver", receiver_id)]
    assert json.loads(created["after"])["name"] == "=HYPERLINK(1)"
    (listed,) = operator.ask("history", "list", "--type", "WebhookReceiver", "--object", receiver_id)
    assert listed["clientName"] == "administrator"
    refused = operator.ask("history", "list", "--refused")
    assert {entry["refusal"] for entry in refused} >= {"INVALID_INPUT"}
    assert None not in {entry["refusal"] for entry in refused}
    assert {entry["refusal"] for entry in operator.ask("history", "list", "--done")} == {None}
    assert "cannot be written" in operator.refused("history", "export", "--output", "absent/file", code=3)
