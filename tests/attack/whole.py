"""`clarion serve` itself in the namespace: registered through its API, planted in its database, delivered by its worker."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from attack.programme import FIREWALLED, INJECTIONS, PUBLIC_V4, PUBLIC_V6, ZONE, Tried, literal
from attack.special_purpose import forbidden, outside
from attack.uris import BY_ADDRESS, GOOD
from clarion.capture.attach import Attachment
from clarion.core.environments import load_environments
from clarion.sender.address import AddressNotAllowed
from harness.deployment import Deployment
from harness.dns_server import spelt_name
from harness.network import INSIDE_V4, Network
from harness.process import CLARION, ClarionProcess, clean_environment

ENVIRONMENTS_FILE = Path(__file__).resolve().parents[2] / "deploy" / "ion" / "environments.toml"
_KEY = "the-bootstrap-key-of-this-run-0123456789"
_CREATE = """
    mutation($input: CreateWebhookReceiverInput!) {
        createWebhookReceiver(input: $input) { webhookReceiver { id } warnings { code } } }
"""
_TEST = """
    mutation($id: ID!) { testWebhookReceiver(id: $id) {
        attempt { outcome statusCode error sourceAddress peerAddress durationMs responseHeaders responseBody }
        webhookEvent { status reason } } }
"""


def environment_addresses() -> dict[str, list[str]]:
    """The egress addresses of each environment that the file names."""
    environments = load_environments(ENVIRONMENTS_FILE, None).all
    return {one.name: [str(each.address) for each in one.addresses] for one in environments}


@contextmanager
def starting(net: Network, directory: Path) -> Iterator[Callable[..., ClarionProcess]]:
    """Starts `clarion` inside the namespace; what was started ends with the block."""
    started: list[ClarionProcess] = []

    def start(*arguments: str, **settings: str) -> ClarionProcess:
        command = [*net.prefix(net.inside_name), CLARION, *arguments]
        process = ClarionProcess(command, clean_environment(directory, **settings), directory)
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            process.kill()


def whole(net: Network, deployment: Deployment, environment: str, sample: int = 40) -> Tried:
    """`sample` of each kind of forbidden destination, by the API and past it; receivers behind a firewall that admits the
    environment's addresses alone get their events.
    """
    tried = Tried("whole path")
    sources = environment_addresses()[environment]
    for source in sources:
        net.add_source(source)
    net.admit_only(FIREWALLED, sources)
    net.world("names", entries=ZONE | {"flip.good.example": {"A": [[PUBLIC_V4], ["10.0.0.1"]]}})
    deployment.attach(Attachment(resource="ITEMS", table="items"))
    serving, port = _serve(
        net, deployment, CLARION_ENVIRONMENTS_FILE=str(ENVIRONMENTS_FILE), CLARION_ENVIRONMENT=environment
    )
    net.accepted()
    addresses = list(forbidden())[:: max(1, len(forbidden()) // sample)]
    addresses += [ip_address(text) for text in ("169.254.169.254", INSIDE_V4, *sources)]
    refused = [literal(address) for address in addresses]
    refused += [f"https://{spelt_name(address)}/echo" for address in addresses]
    refused += [uri for uris in BY_ADDRESS.values() for uri in uris[:: max(1, len(uris) // (sample // 4))]]
    own = load_environments(ENVIRONMENTS_FILE, environment).own
    assert own is not None
    refused += [f"https://{host}/hooks" for host in own.hosts]
    answers = net.inside("ask", port=port, key=_KEY, query=_CREATE, variables=[_input(uri) for uri in refused])
    for uri, answer in zip(refused, answers, strict=True):
        errors = [(error["extensions"]["code"], error["message"]) for error in answer.get("errors", ())]
        tried.expect(errors == [("ADDRESS_NOT_ALLOWED", AddressNotAllowed.TEXT)], f"creating {uri}: {errors}")
    variables = [
        _input(f"https://{GOOD}/", headers=[{"key": name, "value": value} for name, value in headers])
        for headers in INJECTIONS
    ]
    answers = net.inside("ask", port=port, key=_KEY, query=_CREATE, variables=variables)
    for headers, answer in zip(INJECTIONS, answers, strict=True):
        codes = [error["extensions"]["code"] for error in answer.get("errors", ())]
        tried.expect(codes == ["INVALID_INPUT"], f"creating with {str(headers)[:100]}: {codes}")
    tried.silence(net.accepted())
    _planted(net, deployment, tried, refused, sources)
    serving.stop()
    tried.expect("Traceback" not in "\n".join(serving.stderr), "the log has a traceback")
    return tried


def _serve(net: Network, deployment: Deployment, **settings: str) -> tuple[ClarionProcess, int]:
    """The running process and the port of its API."""
    serving = deployment.serve(
        *("--role", "api", "--role", "router", "--role", "delivery"),
        CLARION_LISTEN="127.0.0.1:0",
        CLARION_BOOTSTRAP_API_KEY=_KEY,
        CLARION_ALLOWED_NETWORKS="",
        CLARION_CA_FILE=str(net.ca_file),
        **settings,
    )
    return serving, int(serving.wait_for_line(r"ready on http://127\.0\.0\.1:(\d+)")[1])


def test_sends(
    net: Network, deployment: Deployment, kinds: Mapping[str, str], pairs: int
) -> dict[str, list[dict[str, Any]]]:
    """The API's answers to `pairs` test sends for each kind of destination (its URI, planted), all kinds mixed.

    A receiver is tested ten times an hour, so each kind has a tenth as many receivers.
    """
    deployment.attach(Attachment(resource="ITEMS", table="items"))
    receivers = {
        kind: [deployment.register(uri, timeout_seconds=1) for _ in range(-(-pairs // 10))]
        for kind, uri in kinds.items()
    }
    serving, port = _serve(net, deployment)
    turns = [(kind, ids[number % len(ids)]) for kind, ids in receivers.items() for number in range(pairs)]
    random.shuffle(turns)
    answers = net.inside(
        "ask", port=port, key=_KEY, query=_TEST, variables=[{"id": str(receiver)} for _, receiver in turns], at_once=24
    )
    serving.stop()
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for (kind, _), answer in zip(turns, answers, strict=True):
        found[kind].append(answer)
    return found


def _planted(net: Network, deployment: Deployment, tried: Tried, refused: list[str], sources: list[str]) -> None:
    """Rows that no API made, each subscribed: an attempt for each, recorded as BLOCKED, and no connection."""
    controls = [f"https://{GOOD}/echo", f"https://{FIREWALLED}/echo", f"https://{PUBLIC_V4}:8443/echo"]
    controls += [literal(address) for address in outside()[:10] if address.version == 4]
    arriving = {deployment.register(uri): uri for uri in controls}
    planted = {deployment.register(uri, retry_schedule=[0]): uri for uri in refused}
    six = deployment.register(literal(ip_address(PUBLIC_V6)))
    for receiver_id in (*arriving, *planted, six):
        deployment.subscribe(receiver_id, actions=["CREATE"])
    deployment.rows("INSERT INTO items (note) VALUES ('n') RETURNING id")
    deployment.wait_for_row(
        "SELECT WHERE (SELECT count(DISTINCT s.receiver_id) FROM clarion.attempts a JOIN clarion.events e ON e.event_id = a.event_id "
        "JOIN clarion.subscriptions s ON s.id = e.subscription_id) >= %s",
        len(arriving) + len(planted),
        timeout_s=60,
    )
    accepted = net.accepted()
    found = deployment.rows(
        "SELECT s.receiver_id, a.outcome, a.error, a.source_address, a.peer_address FROM clarion.attempts a "
        "JOIN clarion.events e ON e.event_id = a.event_id JOIN clarion.subscriptions s ON s.id = e.subscription_id"
    )
    by_receiver = {row[0]: row[1:] for row in found}
    for receiver_id, uri in planted.items():
        outcome = by_receiver.get(receiver_id, (None,))[0]
        tried.expect(outcome == "BLOCKED", f"planted {uri}: {by_receiver.get(receiver_id)}")
    shown = [
        {"outcome": outcome, "error": error, "peer_address": peer}
        for outcome, error, _, peer in (by_receiver[receiver_id] for receiver_id in arriving)
    ]
    used = {by_receiver[receiver_id][2] for receiver_id in arriving}
    tried.expect(used <= set(sources), f"requests left from {used}")
    tried.control(shown, accepted)
    peers = {attempt["peer_address"] for attempt in shown}
    tried.silence({where: count for where, count in accepted.items() if where.split(" ")[0] not in peers})


def _input(uri: str, **more: object) -> dict[str, object]:
    return {"input": {"name": "attack", "webhookUri": uri, **more}}
