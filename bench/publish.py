"""How many changes a second come in through POST /v1/changes, beside a bare route that parses them and keeps none.

    .venv/bin/python bench/publish.py [--seconds 4] [--runs 3] [--json]

`clarion serve --role api` on the embedded server, its API pinned to one core, wrk on the other with the server. Each answer of
ours is given after the changes are on disk; the bare one (bench/bare_route.py) is Starlette on the same server. Batches of
1, 10, 100 and 1,000 changes of objects that no other batch under way has, about 200 bytes of data each, by 1 and by 8
connections. CPU is that of the API's process, and of the backends that it uses. Needs wrk. Linux only.
"""

from __future__ import annotations

import json
from pathlib import Path

from figures import Figure, Figures, options
from http_load import HEADERS_OF_WRK, bare, load, pinned_api, post
from rig import cpu_us, rig, spent_us

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
        f'{HEADERS_OF_WRK}wrk.path = "/v1/changes"\n'
        "function request() turn = turn % #bodies + 1 return wrk.format(nil, nil, nil, bodies[turn]) end\n"
    )
    return script


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
    rows = {(size, connections): figures_of(size, connections) for size in SIZES for connections in CONNECTIONS}
    figures = Figures(*(figure for row in rows.values() for figure in row))
    with rig() as at, bare("bare_route.py") as (bare_port, _bare_pid):
        port, api = pinned_api(at)
        post(
            port, "/graphql", {"query": 'mutation { registerResource(input: {name: "SHIPMENTS"}) { resource { id } } }'}
        )
        scripts = {size: write_bodies(at.directory, size) for size in SIZES}
        for _ in range(given.runs):
            for (size, connections), (ours, p99, cpu, cpu_server, theirs) in rows.items():
                before, server_before = cpu_us([api]), cpu_us(at.server())
                sent = load(scripts[size], f"http://127.0.0.1:{port}", given.seconds, connections)
                changes = sent.requests * size
                ours.add(changes / given.seconds)
                p99.add(sent.p99_ms)
                cpu.add(spent_us(before, cpu_us([api])) / changes)
                cpu_server.add(spent_us(server_before, cpu_us(at.server())) / changes)
                at.deployment.connection.execute("TRUNCATE clarion.outbox")
                sent = load(scripts[size], f"http://127.0.0.1:{bare_port}", given.seconds, connections)
                theirs.add(sent.requests * size / given.seconds)
    figures.show(as_json=given.json, notes=["one core for the API, the other for PostgreSQL and wrk"])


if __name__ == "__main__":
    main()
