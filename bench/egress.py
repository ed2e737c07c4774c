"""What the guard around what leaves costs: per new connection, per kept one, per hostile answer, and through a proxy.

    .venv/bin/python bench/egress.py [--runs 3] [--requests 5000] [--json]

The guard is all that stands between a name's answers and the connection to one of them. `without` is the same sender with
a policy that allows everything unseen. CPU is the sending process's own (user and system); receiver and proxy run in
processes of their own. Hostile answers are those of `scripts/proof egress` and need root.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import tempfile
import time
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop
from figures import Figure, Figures, options

from sender import ANSWER, Receiver, sender_us, serving, stay_on

# Behind the benchmarks' own folder, where `sender` is another module.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from attack.hostile import CPU_MS_MAX, RESIDENT_KIB_MAX, hostile
from attack.programme import certified
from clarion.core.system import SystemClock
from clarion.sender.address import Address, Target
from clarion.sender.policy import Policy, Rule
from clarion.sender.route import Route, parse_proxy
from clarion.sender.send import Endpoint, Sender
from harness.connect_proxy import ProxyProcess
from harness.network import missing, network

CONNECTIONS = 4
BODY = b"x" * 700
LOOPBACK = Policy((ip_network("127.0.0.0/8"),))
RULES = tuple(Rule(f"erp{number}.plant.local", ip_network(f"10.1.{number}.0/24"), 443) for number in range(100))
ANSWERS = {
    "1 address": [ip_address("93.184.216.34")],
    "4 addresses": [ip_address(text) for n in (1, 2) for text in (f"93.184.216.{n}", f"2606:4700::{n}")],
    "8 addresses": [ip_address(text) for n in range(1, 5) for text in (f"93.184.216.{n}", f"2606:4700::{n}")],
}


STRANGE = (1, 4, 8)
"""How many answers that were never seen before."""


class Unguarded(Policy):
    """Allows every answer."""

    def check(self, target: Target, addresses: Iterable[Address]) -> None:
        """Looks at nothing."""


class Closing(Receiver):
    """Ends each connection after one answer."""

    answer = ANSWER.replace(b"server: bench", b"connection: close")


def serve(certificate: Path, key: Path, ready: Connection) -> None:
    stay_on(1)

    async def run() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        loop = asyncio.get_running_loop()
        servers = [await loop.create_server(kind, "127.0.0.1", 0, ssl=context) for kind in (Receiver, Closing)]
        ready.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.Event().wait()

    uvloop.run(run())


def strange_guard_us(count: int, rounds: int = 1000) -> float:
    """As `guard_us`, of answers that were never seen: whether each is this host's own is asked of the kernel."""
    policy = Policy()
    target = policy.parse("https://hooks.example.com/clarion")
    answers = [[ip_address(0x0B000000 + number * count + at) for at in range(count)] for number in range(rounds)]
    begun = time.process_time()
    for addresses in answers:
        policy.check(target, addresses)
    return (time.process_time() - begun) / rounds * 1e6


def guard_us(policy: Policy, addresses: list[Address], rounds: int = 5000) -> float:
    """CPU of what is done for one new connection beside looking up the name: all answers held against the policy.

    After the first: answers that come again within a second are known not to be this host's own.
    """
    target = policy.parse("https://hooks.example.com/clarion")
    policy.check(target, addresses)
    begun = time.process_time()
    for _ in range(rounds):
        policy.check(target, addresses)
    return (time.process_time() - begun) / rounds * 1e6


async def posts(port: int, ca_file: Path, policy: Policy, requests: int, route: Route) -> tuple[float, float]:
    """Requests a second, and CPU µs of this process per request."""
    sender = Sender(SystemClock(), policy=policy, ca_file=ca_file, route=route)
    endpoint = Endpoint(
        1, f"https://127.0.0.1:{port}/", "application/json", (), (b"k" * 32,), ("V1",), 15, CONNECTIONS, None
    )
    try:
        await sender_us(sender, endpoint, CONNECTIONS, 100, BODY)
        begun = time.perf_counter()
        cpu_us = await sender_us(sender, endpoint, CONNECTIONS, requests, BODY)
        return requests / (time.perf_counter() - begun), cpu_us
    finally:
        await sender.close()


def main() -> None:
    parser = options((__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=5000, help="on kept connections; a tenth of it on new ones")
    chosen = parser.parse_args()
    rows = [Figure(f"guard per new connection, {name}", "µs CPU", goal=100) for name in ANSWERS]
    rows += [Figure("guard per new connection, 8 addresses, 100 rules", "µs CPU", goal=100)]
    rows += [Figure(f"guard per new connection, {count} never seen", "µs CPU", goal=100) for count in STRANGE]
    ways = ("guarded", "without", "through a proxy")
    for kind in ("kept", "new"):
        rows += [
            Figure(f"{kind} connections, {way}: {what}", unit)
            for way in ways
            for what, unit in (("rate", "1/s"), ("cost", "µs CPU"))
        ]
    rows += [Figure("hostile answer, worst memory", "KiB", goal=RESIDENT_KIB_MAX)]
    rows += [Figure("hostile answer, worst CPU", "ms", goal=CPU_MS_MAX)]
    figures, notes = Figures(*rows), [f"{CONNECTIONS} connections, {len(BODY)} B; sender and receiver on a core each"]
    with serving(serve) as (found, ca_file), ProxyProcess() as proxy:
        ports = dict(zip(("kept", "new"), found, strict=True))
        routes = {
            "guarded": (LOOPBACK, Route()),
            "without": (Unguarded(LOOPBACK.networks), Route()),
            "through a proxy": (LOOPBACK, Route(proxy=parse_proxy(proxy.url))),
        }
        for _ in range(chosen.runs):
            for answers_name, addresses in ANSWERS.items():
                figures[f"guard per new connection, {answers_name}"].add(guard_us(Policy(), addresses))
            for count in STRANGE:
                figures[f"guard per new connection, {count} never seen"].add(strange_guard_us(count))
            ruled = guard_us(Policy(rules=RULES), ANSWERS["8 addresses"])
            figures["guard per new connection, 8 addresses, 100 rules"].add(ruled)
            for kind, port in ports.items():
                requests = chosen.requests if kind == "kept" else chosen.requests // 10
                for way, (policy, route) in routes.items():
                    rate, cost = uvloop.run(posts(port, ca_file, policy, requests, route))
                    figures[f"{kind} connections, {way}: rate"].add(rate)
                    figures[f"{kind} connections, {way}: cost"].add(cost)
    if why := missing():
        notes.append(f"hostile answers were not measured: it {why}")
    else:
        with tempfile.TemporaryDirectory(prefix="clarion-bench.") as name, network(Path(name), certified()) as net:
            for _ in range(chosen.runs):
                hurt = hostile(net, attempts=16, timeout_s=2, together=True)
                figures["hostile answer, worst memory"].add(hurt.resident_kib)
                figures["hostile answer, worst CPU"].add(hurt.cpu_ms)
            worst = " and ".join(hurt.worst.get(bound, "none") for bound in ("resident_kib", "cpu_ms"))
            notes.append(f"{hurt.cases} hostile answers; worst in memory and CPU: {worst}")
    figures.show(as_json=chosen.json, notes=notes)


if __name__ == "__main__":
    main()
