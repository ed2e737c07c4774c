"""How many changes a second come in through POST /v1/changes, beside a bare route that parses them and keeps none.

    .venv/bin/python bench/publish.py [--seconds 4] [--runs 3] [--json]

`clarion serve --role api` on the embedded server, its API pinned to one core, wrk on the other with the server. Each answer of
ours is given after the changes are on disk; the bare one (bench/bare_route.py) is Starlette on the same server. Batches of
1, 10, 100 and 1,000 changes of objects that no other batch under way has, about 200 bytes of data each, by 1 and by 8
connections. CPU is that of the API's process, and of the backends that it uses. Needs wrk. Linux only.
"""

from __future__ import annotations

import http.client
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
from pathlib import Path

from figures import Figure, Figures, options
from rig import cpu_us, rig, spent_us

from harness.process import children_of

KEY = "a key of the benchmark, of more than 32 characters"
UNLIMITED = {"CLARION_API_POINTS_PER_SECOND": "1000000", "CLARION_API_POINTS_BURST": "10000000"}
SIZES = (1, 10, 100, 1_000)
CONNECTIONS = (1, 8)
BODIES = 32
DATA = {
    "number": "SH-2026-00017",
    "status": "packed",
    "weight": 12.25,
    "customer": "First Resonance",
    "lines": [{"part": "BOLT-M8", "quantity": 400}, {"part": "NUT-M8", "quantity": 400}],
    "note": "x" * 40,
}


def post(port: int, path: str, content: object) -> object:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    connection.request("POST", path, json.dumps(content), headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert "errors" not in answer, answer
    return answer


def write_bodies(directory: Path, size: int) -> Path:
    """A script for wrk that sends each of BODIES bodies in turn: two that are under way at once share no object."""
    bodies = []
    for body in range(BODIES):
        changes = [
            {
                "resource": "SHIPMENTS",
                "action": "UPDATE",
                "object_id": body * size + number,
                "data": DATA,
                "previous": {"n": 1},
            }
            for number in range(size)
        ]
        file = directory / f"{size}-{body}.json"
        file.write_text(json.dumps({"changes": changes}))
        bodies.append(f'read("{file}")')
    script = directory / f"{size}.lua"
    script.write_text(
        # wrk has room for few open files.
        'local function read(name) local file = io.open(name) local text = file:read("*a") file:close() return text end\n'
        f"local bodies, turn = {{{', '.join(bodies)}}}, 0\n"
        'wrk.method = "POST"\nwrk.path = "/v1/changes"\nwrk.headers["content-type"] = "application/json"\n'
        f'wrk.headers["authorization"] = "Bearer {KEY}"\n'
        "function request() turn = turn % #bodies + 1 return wrk.format(nil, nil, nil, bodies[turn]) end\n"
    )
    return script


def load(script: Path, port: int, seconds: float, connections: int) -> tuple[int, float]:
    """How many requests were answered, each with 200, and the longest of 99 % in milliseconds."""
    said = subprocess.run(
        [
            str(shutil.which("wrk")),
            "-t1",
            f"-c{connections}",
            f"-d{seconds:g}s",
            "--latency",
            "-s",
            str(script),
            f"http://127.0.0.1:{port}",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    requests, p99 = re.search(r"(\d+) requests in ", said), re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    assert requests is not None, said
    assert p99 is not None, said
    assert "Non-2xx" not in said, said
    return int(requests[1]), float(p99[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99[2]]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def bare() -> Iterator[tuple[int, int]]:
    """Port and pid of the bare route."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("bare_route.py")), str(port)])
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


def figures_of(size: int, connections: int) -> tuple[Figure, ...]:
    name = f"batches of {size}, {connections} connection{'s' if connections > 1 else ''}"
    return (
        Figure(f"{name}, ours", "changes/s"),
        Figure(f"  {name}: p99", "ms"),
        Figure(f"  {name}: CPU of the API", "us/change"),
        Figure(f"  {name}: CPU of its backends", "us/change"),
        Figure(f"{name}, bare route", "changes/s"),
    )


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=4)
    given = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("bench/publish.py needs wrk: apt-get install wrk")
    rows = {(size, connections): figures_of(size, connections) for size in SIZES for connections in CONNECTIONS}
    figures = Figures(*(figure for row in rows.values() for figure in row))
    with rig() as at, bare() as (bare_port, bare_pid):
        os.sched_setaffinity(bare_pid, {0})
        port = free_port()
        listening = {"CLARION_LISTEN": f"127.0.0.1:{port}", "CLARION_BOOTSTRAP_API_KEY": KEY}
        (api,) = children_of(at.deployment.serve("--role", "api", **listening, **UNLIMITED).pid)
        os.sched_setaffinity(api, {0})
        post(
            port, "/graphql", {"query": 'mutation { registerResource(input: {name: "SHIPMENTS"}) { resource { id } } }'}
        )
        scripts = {size: write_bodies(at.directory, size) for size in SIZES}
        for _ in range(given.runs):
            for (size, connections), (ours, p99, cpu, cpu_server, theirs) in rows.items():
                before, server_before = cpu_us([api]), cpu_us(at.server())
                requests, longest = load(scripts[size], port, given.seconds, connections)
                changes = requests * size
                ours.add(changes / given.seconds)
                p99.add(longest)
                cpu.add(spent_us(before, cpu_us([api])) / changes)
                cpu_server.add(spent_us(server_before, cpu_us(at.server())) / changes)
                at.deployment.connection.execute("TRUNCATE clarion.outbox")
                requests, _longest = load(scripts[size], bare_port, given.seconds, connections)
                theirs.add(requests * size / given.seconds)
    figures.show(as_json=given.json, notes=["one core for the API, the other for PostgreSQL and wrk"])


if __name__ == "__main__":
    main()
