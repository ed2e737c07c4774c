"""How many mutations and lists the API answers on one core, beside a bare Strawberry application in the same run.

    .venv/bin/python bench/api.py [--seconds 5] [--connections 16] [--runs 3] [--json]

`clarion serve --role api` on the embedded server, its API pinned to one core, wrk on the other with the server. Ours checks the
key, counts points, writes the receiver with its sealed secret and its history in a transaction, under row-level security; the
bare one (bench/bare_strawberry.py) does nothing but GraphQL. CPU is that of the API's process, and of the backends that it
uses. Needs wrk. Linux only.
"""

from __future__ import annotations

import json
from pathlib import Path

from figures import Figure, Figures, options
from http_load import HEADERS_OF_WRK, bare, load, pinned_api, post
from rig import cpu_us, rig, spent_us

MUTATION = {
    "query": "mutation($input: CreateWebhookReceiverInput!) { createWebhookReceiver(input: $input) "
    "{ webhookReceiver { id name webhookUri contentType active } } }",
    "variables": {"input": {"name": "Our example server", "webhookUri": "https://93.184.216.34/hook"}},
}
LIST = {
    "query": "{ webhookReceivers(first: 50) { edges { node { id name webhookUri contentType active description } } } }"
}


def script_of(directory: Path, content: object) -> Path:
    """A script for wrk that sends one body."""
    script = directory / "graphql.lua"
    script.write_text(f"{HEADERS_OF_WRK}wrk.body = {json.dumps(json.dumps(content))}\n")
    return script


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=16)
    given = parser.parse_args()
    names = {
        "mutations": (MUTATION, 412.0),
        "lists of 50": (LIST, 184.0),
    }
    figures = Figures(
        *(
            figure
            for what, (_, floor) in names.items()
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
    with rig() as at, bare("bare_strawberry.py") as (bare_port, bare_pid):
        port, api = pinned_api(at)
        for content in (MUTATION, LIST):
            post(port, "/graphql", content)
            post(bare_port, "/graphql", content)
        for _ in range(given.runs):
            for what, (content, _) in names.items():
                script = script_of(at.directory, content)
                before, server_before = cpu_us([api]), cpu_us(at.server())
                ours = load(script, f"http://127.0.0.1:{port}/graphql", given.seconds, given.connections)
                figures[f"{what}, ours"].add(ours.requests / given.seconds)
                figures[f"  {what}: p99 at {given.connections} connections"].add(ours.p99_ms)
                figures[f"  {what}: CPU of the API"].add(spent_us(before, cpu_us([api])) / ours.requests)
                backends_us = spent_us(server_before, cpu_us(at.server()))
                figures[f"  {what}: CPU of its backends"].add(backends_us / ours.requests)
                before = cpu_us([bare_pid])
                theirs = load(script, f"http://127.0.0.1:{bare_port}/graphql", given.seconds, given.connections)
                figures[f"{what}, bare Strawberry"].add(theirs.requests / given.seconds)
                figures[f"  {what}: CPU of the bare one"].add(spent_us(before, cpu_us([bare_pid])) / theirs.requests)
                figures[f"{what}, ours / bare"].add(ours.requests / theirs.requests)
    figures.show(as_json=given.json, notes=["one core for the API, the other for PostgreSQL and wrk"])


if __name__ == "__main__":
    main()
