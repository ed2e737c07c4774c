"""What the API answers in a second, beside applications that only parse, and what it asks the database for it."""

from __future__ import annotations

import json
import time
from pathlib import Path

from clarion.access.principal import Role
from harness.api import Caller, new_key
from harness.deployment import Deployment
from harness.stage import stage
from proof.bench import measured
from proof.figures import Figure

REQUESTS = 50
_URI = "https://93.184.216.34/hook"


def rates(brief: bool) -> list[Figure]:
    """Mutations, lists and published changes a second on one core, their CPU, and SQL statements a request; needs wrk."""
    runs, seconds = ("1", "2") if brief else ("3", "5")
    return [
        *measured("api.py", "--runs", runs, "--seconds", seconds, ratio_at_least=True),
        *measured("publish.py", "--runs", runs, "--seconds", seconds),
        *_statements(),
    ]


def _statements() -> list[Figure]:
    """As the server's log counts them, BEGIN and COMMIT included."""
    create = {
        "query": f'mutation {{ createWebhookReceiver(input: {{name: "r", webhookUri: "{_URI}"}}) {{ webhookReceiver {{ id }} }} }}'
    }
    lists = {"query": "{ webhookReceivers(first: 50) { edges { node { id name webhookUri description } } } }"}
    changes = {"changes": [{"resource": "SHIPMENTS", "action": "DELETE", "object_id": 1}]}
    with stage() as deployment:
        serving = deployment.serve("--role", "api", CLARION_LISTEN="127.0.0.1:0")
        port = int(serving.wait_for_line(r"^clarion ready on http://127\.0\.0\.1:(\d+)")[1])
        caller = Caller(port, new_key(deployment.database, "default", Role.ADMINISTRATOR, "admin"), deployment.database)
        assert (
            "errors" not in caller('mutation { registerResource(input: {name: "SHIPMENTS"}) { resource { id } } }').body
        )
        deployment.connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        deployment.connection.execute("ALTER SYSTEM SET log_line_prefix = '<%a> '")
        deployment.connection.execute("SELECT pg_reload_conf()")
        return [
            Figure(f"statements: {what}", _each(deployment, caller, path, content), "a request")
            for what, path, content in (
                ("a mutation", "/graphql", create),
                ("a list of 50", "/graphql", lists),
                ("publishing a change", "/v1/changes", changes),
            )
        ]


def _each(deployment: Deployment, caller: Caller, path: str, content: object) -> float:
    """Statements for each of a few requests, less what the process asks by itself in the same time."""
    body = json.dumps(content).encode()
    for _ in range(3):
        assert caller.send(body, path=path).status == 200
    before, began = _logged(deployment), time.monotonic()
    for _ in range(REQUESTS):
        assert "errors" not in caller.send(body, path=path).body
    took_s = time.monotonic() - began
    asked = _logged(deployment) - before
    before = _logged(deployment)
    time.sleep(max(took_s, 2))
    by_itself = (_logged(deployment) - before) * took_s / max(took_s, 2)
    return (asked - by_itself) / REQUESTS


def _logged(deployment: Deployment) -> int:
    """Statements of the API in the log so far."""
    log = Path(deployment.directory / "data" / "postgres.log").read_text(errors="replace")
    return sum(
        line.startswith("<clarion api> LOG:  ") and ("execute " in line or "statement: " in line)
        for line in log.splitlines()
    )
