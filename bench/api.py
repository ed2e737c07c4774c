"""How many mutations and lists the API answers on one core, beside a bare Strawberry application in the same run.

    .venv/bin/python bench/api.py [--seconds 5] [--connections 16] [--runs 3] [--json]

`clarion serve --role api` on the embedded server, its API pinned to one core, wrk on the other with the server. Ours checks the
key, counts points, writes the receiver with its sealed secret and its history in a transaction, under row-level security; the
bare one (bench/bare_strawberry.py) does nothing but GraphQL. CPU is that of the API's process, and of the backends that it
uses. Needs wrk. Linux only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from figures import Figure, Figures, options
from rig import cpu_us, rig, spent_us

from harness.process import children_of

KEY = "a key of the benchmark, of more than 32 characters"
MUTATION = {
    "query": "mutation($input: CreateWebhookReceiverInput!) { createWebhookReceiver(input: $input) "
    "{ webhookReceiver { id name webhookUri contentType active } } }",
    "variables": {"input": {"name": "Our example server", "webhookUri": "https://93.184.216.34/hook"}},
}
LIST = {
    "query": "{ webhookReceivers(first: 50) { edges { node { id name webhookUri contentType active description } } } }"
}
UNLIMITED = {"CLARION_API_POINTS_PER_SECOND": "1000000", "CLARION_API_POINTS_BURST": "10000000"}


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk did: answers a second, and the longest that one took, in milliseconds."""

    rate: float
    requests: int
    p99_ms: float


def load(directory: Path, port: int, content: object, seconds: float, connections: int) -> Load:
    """POSTs of one body by one wrk thread. Every answer is a 2xx, and the first one was looked at."""
    program = shutil.which("wrk")
    if program is None:
        sys.exit("bench/api.py needs wrk: apt-get install wrk")
    body = json.dumps(content)
    script = directory / "graphql.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = {json.dumps(body)}\nwrk.headers["content-type"] = "application/json"\n'
        f'wrk.headers["authorization"] = "Bearer {KEY}"\n'
    )
    url = f"http://127.0.0.1:{port}/graphql"
    said = subprocess.run(
        [program, "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(script), url],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    requests, p99 = re.search(r"(\d+) requests in ", said), re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    assert requests is not None, said
    assert p99 is not None, said
    assert "Non-2xx" not in said, said
    unit = {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99[2]]
    return Load(int(requests[1]) / seconds, int(requests[1]), float(p99[1]) * unit)


def answer(port: int, content: object) -> dict[str, object]:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    connection.request("POST", "/graphql", json.dumps(content), headers)
    got: dict[str, object] = json.loads(connection.getresponse().read())
    connection.close()
    assert "errors" not in got, got
    return got


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def bare() -> Iterator[tuple[int, int]]:
    """Port and pid of the bare application."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("bare_strawberry.py")), str(port)])
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=16)
    given = parser.parse_args()
    names = {
        "mutations": ("createWebhookReceiver", MUTATION, 412.0),
        "lists of 50": ("webhookReceivers of 50", LIST, 184.0),
    }
    figures = Figures(
        *(
            figure
            for what, (_, _, floor) in names.items()
            for figure in (
                Figure(f"{what}, ours", "per second", floor),
                Figure(f"  {what}: p99 at {given.connections} connections", "ms"),
                Figure(f"  {what}: CPU of the API", "us/request"),
                Figure(f"  {what}: CPU of its backends", "us/request"),
                Figure(f"{what}, bare Strawberry", "per second"),
                Figure(f"  {what}: CPU of the bare one", "us/request"),
                Figure(f"{what}, ours / bare", "ratio", 1.0),
            )
        )
    )
    with rig() as at, bare() as (bare_port, bare_pid):
        os.sched_setaffinity(bare_pid, {0})
        port = free_port()
        listening = {"CLARION_LISTEN": f"127.0.0.1:{port}", "CLARION_BOOTSTRAP_API_KEY": KEY}
        (api,) = children_of(at.deployment.serve("--role", "api", **listening, **UNLIMITED).pid)
        os.sched_setaffinity(api, {0})
        for content in (MUTATION, LIST):
            answer(port, content)
            answer(bare_port, content)
        for _ in range(given.runs):
            for what, (_, content, _) in names.items():
                before, server_before = cpu_us([api]), cpu_us(at.server())
                ours = load(at.directory, port, content, given.seconds, given.connections)
                figures[f"{what}, ours"].add(ours.rate)
                figures[f"  {what}: p99 at {given.connections} connections"].add(ours.p99_ms)
                figures[f"  {what}: CPU of the API"].add(spent_us(before, cpu_us([api])) / ours.requests)
                backends_us = spent_us(server_before, cpu_us(at.server()))
                figures[f"  {what}: CPU of its backends"].add(backends_us / ours.requests)
                before = cpu_us([bare_pid])
                theirs = load(at.directory, bare_port, content, given.seconds, given.connections)
                figures[f"{what}, bare Strawberry"].add(theirs.rate)
                figures[f"  {what}: CPU of the bare one"].add(spent_us(before, cpu_us([bare_pid])) / theirs.requests)
                figures[f"{what}, ours / bare"].add(ours.rate / theirs.rate)
    figures.show(as_json=given.json, notes=["one core for the API, the other for PostgreSQL and wrk"])


if __name__ == "__main__":
    main()
