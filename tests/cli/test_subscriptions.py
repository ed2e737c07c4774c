"""`clarion subscriptions` against a deployment that runs."""

from __future__ import annotations

import re
from pathlib import Path

from harness.operator import Operator, captured


def test_a_subscription_is_tried_made_changed_and_deleted(operator: Operator, tmp_path: Path) -> None:
    receiver_id = operator.make_receiver("subscriber")
    operator.deployment.connection.execute("INSERT INTO items (note) VALUES ('scrap'), ('good')")
    operator.deployment.wait_for_row("SELECT WHERE (SELECT count(*) FROM clarion.ledger) >= 2")
    (tmp_path / "condition.cel").write_text('object.note == "scrap"\n')
    tried = operator.ask("subscriptions", "preview", receiver_id, "items", "create", "--condition", "@condition.cel")
    assert [change["outcome"] for change in tried["changes"]] == ["NOT_MATCHED", "MATCHED"]
    people = operator.run("subscriptions", "preview", receiver_id, "ITEMS", "CREATE", "--bodies")
    assert '"note":"good"' in people.stdout
    assert "2 of 2 match, 0 fail" in people.stderr

    made = operator.done(
        *("subscriptions", "create", receiver_id, "items", "create", "--condition", "@condition.cel"),
        *("--expires-after-seconds", "60"),
    )
    subscription_id = captured(
        re.fullmatch(rf"subscription (\d+) made: ITEMS CREATE to receiver {receiver_id}\n", made)
    )
    listed = operator.done("subscriptions", "list", "--receiver", receiver_id, "--resource", "items")
    assert re.search(
        rf'^{subscription_id} +{receiver_id} subscriber +ITEMS +CREATE +active +object.note == "scrap"$',
        listed,
        re.MULTILINE,
    ), listed
    changed = operator.ask(
        *("subscriptions", "update", subscription_id, "--condition", "", "--field", "id", "--action", "update"),
        *("--expires-after-seconds", "none"),
    )["webhookSubscription"]
    assert [changed[name] for name in ("condition", "fields", "action", "expiresAfterSeconds")] == [
        *(None, ["id"], "UPDATE", None)
    ]
    assert (
        operator.ask("subscriptions", "update", subscription_id, "--all-fields")["webhookSubscription"]["fields"]
        is None
    )
    operator.done("subscriptions", "disable", subscription_id)
    assert operator.ask("subscriptions", "show", subscription_id)["active"] is False
    operator.done("subscriptions", "enable", subscription_id)
    assert "--yes" in operator.refused("subscriptions", "delete", subscription_id, code=2)
    operator.done("subscriptions", "delete", subscription_id, "--yes")
    assert operator.ask("subscriptions", "list", "--receiver", receiver_id) == []


def test_a_condition_that_is_wrong_is_refused_with_its_place(operator: Operator) -> None:
    receiver_id = operator.make_receiver("mistaken")
    refused = operator.refused(
        "subscriptions", "create", receiver_id, "ITEMS", "UPDATE", "--condition", "object.nte == 1"
    )
    assert "(INVALID_INPUT, input.condition)" in refused
    assert "note" in refused
    assert "NO_SUCH_THING" in operator.refused("subscriptions", "create", receiver_id, "no_such_thing", "UPDATE")
