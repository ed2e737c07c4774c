"""`clarion events` against a deployment that runs: what is listed, watched, retried and cancelled."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from clarion.access.principal import Role
from harness.api import new_key
from harness.deployment import Deployment
from harness.operator import Operator
from harness.process import ClarionProcess

ALL_ROLES = ("--role", "api", "--role", "router", "--role", "delivery")


def _insert(operator: Operator, note: str = "") -> str:
    """The new item's id."""
    ((item,),) = operator.deployment.rows("INSERT INTO items (note) VALUES (%s) RETURNING id::text", note)
    return str(item)


def test_events_are_listed_shown_cancelled_and_sent_again(operator: Operator) -> None:
    receiver_id = operator.make_receiver("kept", "--inactive")
    operator.done("subscriptions", "create", receiver_id, "ITEMS", "CREATE")
    item = _insert(operator)
    about = ("--receiver", receiver_id, "--resource", "items", "--action", "create", "--object", item)
    operator.deployment.wait_for_row("SELECT FROM clarion.queue WHERE receiver_id = %s", int(receiver_id))
    (held,) = operator.ask("events", "list", *about)
    assert (held["status"], held["objectId"], held["receiver"]["name"]) == ("HELD", item, "kept")
    cancelled = operator.done("events", "cancel", held["id"])
    assert cancelled == f"event {held['id']} is cancelled: CANCELLED\n"
    assert "(CONFLICT" in operator.refused("events", "cancel", held["id"])
    operator.done("receivers", "enable", receiver_id)
    again = operator.run("events", "retry", held["id"], "999999")
    assert again.code == 4
    assert again.stdout.startswith(f"event {held['id']} is sent again: ")
    assert "event 999999: the API refused" in again.stderr
    assert "1 of 2 events were refused" in again.stderr
    operator.deployment.wait_for_row(
        "SELECT FROM clarion.events WHERE receiver_id = %s AND status = 'DELIVERED'", int(receiver_id)
    )
    (delivered,) = operator.ask("events", "list", *about, "--status", "delivered", "--status", "FAILED")
    assert delivered["id"] == held["id"]
    listed = operator.done("events", "list", *about)
    assert re.search(rf"^{held['id']} +\S+ +DELIVERED +ITEMS CREATE {item} +{receiver_id} kept", listed, re.MULTILINE)
    shown = operator.done("events", "show", held["id"])
    assert re.search(r"^\d+ +\S+ +SUCCEEDED +200 +\d+$", shown, re.MULTILINE), shown
    assert operator.ask("events", "show", held["id"])["attempts"][-1]["statusCode"] == 200
    assert operator.run("events", "list", "--object", "none at all").stderr == "no such events\n"


def test_watching_shows_what_appears_and_what_becomes_of_it(operator: Operator) -> None:
    receiver_id = operator.make_receiver("watched", "--inactive")
    operator.done("subscriptions", "create", receiver_id, "ITEMS", "CREATE")
    first = _insert(operator)
    operator.deployment.wait_for_row("SELECT FROM clarion.queue WHERE receiver_id = %s", int(receiver_id))
    watching = operator.begin("events", "list", "--watch", "--receiver", receiver_id)
    failures = operator.begin("events", "list", "--watch", "--receiver", receiver_id, "--status", "DELIVERED", "--json")
    watching.wait_for_line(rf"HELD +ITEMS CREATE {first}  to {receiver_id} watched")
    second = _insert(operator)
    watching.wait_for_line(rf"HELD +ITEMS CREATE {second}  to")
    assert failures.stdout == []
    operator.done("receivers", "enable", receiver_id)
    watching.wait_for_line(rf"DELIVERED +ITEMS CREATE {first}  to")
    watching.wait_for_line(rf"DELIVERED +ITEMS CREATE {second}  to")
    assert json.loads(failures.wait_for_line(f'"objectId":"{second}"').string)["status"] == "DELIVERED"
    for process in (watching, failures):
        process.interrupt()
        ended = process.wait()
        assert (ended.code, ended.stderr.strip()) == (130, "")
    assert sum(f"CREATE {first} " in line for line in watching.stdout if "DELIVERED" in line) == 1


def test_watching_survives_a_restart_of_the_api(
    deployment: Deployment, clarion_process: Callable[..., ClarionProcess]
) -> None:
    deployment.attach()
    receiver_id = deployment.register()
    deployment.subscribe(receiver_id, actions=["CREATE"])
    key = new_key(deployment.database, "default", Role.OPERATOR, "operator")
    serve = deployment.serve(*ALL_ROLES, CLARION_LISTEN="127.0.0.1:0")
    url = serve.wait_for_line("^clarion ready on (http://.*)$")[1]
    watching = clarion_process("events", "list", "--watch", CLARION_API_URL=url, CLARION_API_KEY=key)
    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    watching.wait_for_line("DELIVERED +ITEMS CREATE 1 ")
    serve.stop()
    watching.wait_for_line("does not answer: .*; trying again until it does", stderr=True)
    deployment.serve(*ALL_ROLES, CLARION_LISTEN=url.removeprefix("http://"))
    deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
    watching.wait_for_line("the API answers again", stderr=True)
    watching.wait_for_line("DELIVERED +ITEMS CREATE 2 ")
    watching.interrupt()
    ended = watching.wait()
    assert (ended.code, key in ended.stderr) == (130, False)
    assert len(re.findall("DELIVERED", ended.stdout)) == 2
