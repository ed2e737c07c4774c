"""A whole run of `clarion serve` with canary secrets, and everything it produced, searched for them."""

from __future__ import annotations

import base64
import itertools
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from clarion.access.principal import Role
from clarion.capture.attach import Attachment
from harness.api import Caller, new_key
from harness.deployment import Deployment
from harness.process import parents_of_all
from harness.secret_search import Hit, command_lines, files, search, tables

_CREATE = """
    mutation($input: CreateWebhookReceiverInput!) { createWebhookReceiver(input: $input) {
        webhookReceiver { id _etag headers { id key value _etag } } warnings { code message } } }
"""
_UPDATE = """
    mutation($input: UpdateWebhookReceiverInput!) {
        updateWebhookReceiver(input: $input) { webhookReceiver { id _etag name } } }
"""
_ROTATE = """
    mutation($input: RotateWebhookReceiverSecretInput!) {
        rotateWebhookReceiverSecret(input: $input) { webhookReceiver { id } } }
"""
_LISTS = (
    "{ webhookReceivers { edges { node { id name webhookUri sharedSecret headers { key value } _etag } } } }",
    """{ webhookEvents { edges { node { id status reason attempts {
        outcome statusCode error responseBody responseHeaders } } } } }""",
    "{ webhookSubscriptions { edges { node { id resource action receiver { name sharedSecret } } } } }",
    "{ __schema { types { name fields { name description } } } }",
)


@dataclass(slots=True)
class Searched:
    """What was searched, in places and bytes, and what was found."""

    places: int = 0
    bytes: int = 0
    events: int = 0
    hits: list[Hit] = field(default_factory=list)


@dataclass(slots=True)
class _Run:
    deployment: Deployment
    canaries: dict[str, str] = field(default_factory=dict)
    answers: list[tuple[str, bytes]] = field(default_factory=list)

    def canary(self, name: str) -> str:
        """A new secret, to be found nowhere."""
        self.canaries[name] = f"canary {name} {secrets.token_urlsafe(24)}"
        return self.canaries[name]

    def signing_canary(self, name: str) -> str:
        """The same of a receiver's, in the form of one."""
        return self.key_canary(name, secrets.token_bytes(32))

    def key_canary(self, name: str, key: bytes) -> str:
        """A key that is there already; written as a signing secret, whose bytes are searched for, too."""
        self.canaries[name] = "whsec_" + base64.b64encode(key).decode()
        return self.canaries[name]

    def ask(self, caller: Caller, query: str, **variables: Any) -> Any:
        """An answer, kept whole with its headers, to be searched."""
        answer = caller(query, **variables)
        self.answers.append((f"answer to {query.split(maxsplit=1)[0]} {len(self.answers)}", repr(answer).encode()))
        return answer.body


def secrecy(deployment: Deployment, *, all_files: bool = True) -> Searched:
    """Receivers made, changed, delivered to, failing, refused; then logs, answers, tables, files, arguments and sent bytes
    are searched. `all_files` takes in the server's own files, its write-ahead log among them.
    """
    run = _Run(deployment)
    bootstrap = run.canary("bootstrap key").replace(" ", "-")
    run.canaries["bootstrap key"] = bootstrap
    run.key_canary("key-encryption key", base64.b64decode((deployment.directory / "secret.key").read_bytes()))
    deployment.attach(Attachment(resource="ITEMS", table="items"))
    serving = deployment.serve(
        *("--role", "api", "--role", "router", "--role", "delivery"),
        CLARION_LISTEN="127.0.0.1:0",
        CLARION_BOOTSTRAP_API_KEY=bootstrap,
        CLARION_LOG_LEVEL="DEBUG",
    )
    port = int(serving.wait_for_line(r"ready on http://127\.0\.0\.1:(\d+)")[1])
    key = new_key(deployment.database, "default", Role.INTEGRATOR, "integrator")
    run.canaries["integrator's key"] = key
    integrator = Caller(port, key, deployment.database)
    _register(run, integrator)
    _mistakes(run, integrator)
    deployment.rows("INSERT INTO items (note) SELECT 'n' FROM generate_series(1, 20) RETURNING id")
    deployment.wait_for_row("SELECT WHERE (SELECT count(*) FROM clarion.attempts) >= 60", timeout_s=60)
    _change(run, integrator)
    deployment.rows("UPDATE items SET note = 'm' RETURNING id")
    deployment.wait_for_row("SELECT WHERE (SELECT count(*) FROM clarion.attempts) >= 80", timeout_s=60)
    auditor = integrator.of("default", Role.AUDITOR)
    run.canaries["auditor's key"] = str(auditor.key)
    for query, caller in itertools.product(_LISTS, (integrator, auditor)):
        assert "errors" not in run.ask(caller, query)
    run.ask(integrator.with_key("no key that exists"), _LISTS[0])
    # The one sanctioned reveal: to an administrator, who asks for it. It must work, and its answer is not searched.
    revealed = integrator.with_key(bootstrap)("{ webhookReceivers { edges { node { sharedSecret } } } }")
    assert run.canaries.get("rotated secret", run.canaries["changed secret"]) in str(revealed.body)
    arguments = list(command_lines(_tree(serving.pid)))
    assert arguments
    finished = serving.stop()
    searched = Searched(events=deployment.rows("SELECT count(*) FROM clarion.events")[0][0])
    logs = (("log", finished.stderr.encode()), ("standard output", finished.stdout.encode()))
    every = itertools.chain(logs, run.answers, arguments, tables(deployment.connection), _sent(run))
    if all_files:
        deployment.rows("SELECT pg_switch_wal()")
        # What the run was given, and what the receiver wrote down, which is searched request by request.
        given = [*deployment.directory.glob("secret.key"), *(deployment.directory / "ca").iterdir()]
        keep = [*given, *(deployment.directory / "receiver").glob("*.log")]
        every = itertools.chain(every, files(deployment.directory, without=keep))
    for public, sealed in deployment.rows("SELECT public_key, private_key_sealed FROM clarion.signing_keys"):
        run.key_canary("the deployment's signing key", deployment.unseal(sealed, f"signing-key:{public.hex()}"))
    searched.hits = search(_counted(every, searched), run.canaries)
    return searched


def _register(run: _Run, caller: Caller) -> None:
    """One receiver for each way that a delivery can go; all with a client certificate."""
    certificate, key = (file.read_text() for file in run.deployment.authority.issue(client=True))
    private = load_pem_private_key(key.encode(), None)
    assert isinstance(private, EllipticCurvePrivateKey)
    run.key_canary("client key", private.private_numbers().private_value.to_bytes(32, "big"))
    run.canaries["a line of the client key"] = key.splitlines()[1]
    for number, path in enumerate(("/ok", "/status/500", "/close", "/mirror")):
        made = run.ask(
            caller,
            _CREATE,
            input={
                "name": path,
                "webhookUri": run.deployment.receiver.uri(path),
                "sharedSecret": run.signing_canary(f"secret of {path}"),
                "headers": [{"key": "x-token", "value": run.canary(f"header of {path}")}],
                "retrySchedule": [0, 1],
                "clientCertificate": certificate,
                "clientPrivateKey": key,
                "signatures": ["V1", "ION"] if number == 0 else ["V1"],
            },
        )["data"]["createWebhookReceiver"]["webhookReceiver"]
        run.deployment.subscribe(int(made["id"]))


def _mistakes(run: _Run, caller: Caller) -> None:
    """Inputs that are refused: the refusal and the log say why, not what."""
    good = {"name": "refused", "webhookUri": run.deployment.receiver.uri()}
    secret = run.canary("secret of a refused input")
    for changes in (
        {"sharedSecret": secret, "webhookUri": "http://a.example/"},
        {"sharedSecret": secret, "webhookUri": "https://10.0.0.1/"},
        {"sharedSecret": secret, "unknown": 1},
        {"sharedSecret": secret, "concurrency": "four"},
        {"sharedSecret": {"secret": secret}},
        {"sharedSecret": secret + "\n" * 600},
        {"headers": [{"key": "x-a", "value": f"{secret}\r\nx: y"}]},
        {"headers": [{"key": "host", "value": secret}]},
        {"clientPrivateKey": f"-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n"},
        {"headers": [{"key": "x-a", "value": [secret]}]},
    ):
        body = run.ask(caller, _CREATE, input=good | changes)
        assert "errors" in body, body


def _change(run: _Run, caller: Caller) -> None:
    """A secret that is replaced: neither the old nor the new one shows."""
    body = run.ask(caller, "{ webhookReceivers { edges { node { id _etag name } } } }")
    [node] = [edge["node"] for edge in body["data"]["webhookReceivers"]["edges"] if edge["node"]["name"] == "/ok"]
    secret = run.signing_canary("changed secret")
    body = run.ask(caller, _UPDATE, input={"id": node["id"], "etag": node["_etag"], "sharedSecret": secret})
    assert "errors" not in body, body
    if not run.ask(caller, '{ __type(name: "RotateWebhookReceiverSecretInput") { name } }')["data"]["__type"]:
        return
    etag = body["data"]["updateWebhookReceiver"]["webhookReceiver"]["_etag"]
    rotated = {"id": node["id"], "etag": etag, "sharedSecret": run.signing_canary("rotated secret")}
    body = run.ask(caller, _ROTATE, input=rotated)
    assert "errors" not in body, body


def _sent(run: _Run) -> Iterator[tuple[str, bytes]]:
    """Every request as a receiver got it, less the header that is there to carry its value."""
    for number, request in enumerate(run.deployment.receiver.received()):
        headers = {name: value for name, value in request.headers.items() if name != "x-token"}
        yield f"request {number}", repr(headers).encode() + b"\n" + request.path.encode() + b"\n" + request.body


def _counted(places: Iterator[tuple[str, bytes]], searched: Searched) -> Iterator[tuple[str, bytes]]:
    for place, content in places:
        searched.places += 1
        searched.bytes += len(content)
        yield place, content


def _tree(pid: int) -> set[int]:
    parents = parents_of_all()
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found
