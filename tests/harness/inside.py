"""The process in the namespace `inside`: the product's own code, and canaries on every address of this host.

`python -m harness.inside CA_FILE` answers `harness.agent` requests. An attempt comes back as a dictionary of its fields.
"""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import logging
import socket
import sys
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from clarion.core.errors import RequestRefused
from clarion.core.system import SystemClock
from clarion.sender.outcome import Attempt
from clarion.sender.policy import Policy, Rule
from clarion.sender.resolve import check_uri
from clarion.sender.route import Route, parse_proxy
from clarion.sender.send import Sender
from harness.agent import answer_requests
from harness.canary import Canaries
from sender.posting import Post

_AT_ONCE = 24


def _policy(given: dict[str, Any]) -> Policy:
    return Policy(
        networks=tuple(ip_network(network) for network in given.get("networks", ())),
        rules=tuple(Rule(host, ip_network(network), port) for host, network, port in given.get("rules", ())),
        own_hosts=frozenset(given.get("own_hosts", ())),
        own_addresses=frozenset(ip_address(address) for address in given.get("own_addresses", ())),
    )


def _route(given: dict[str, Any]) -> Route:
    sources = tuple(ip_address(address) for address in given.get("sources", ()))
    return Route(sources, parse_proxy(given["proxy"]) if "proxy" in given else None)


def _shown(attempt: Attempt) -> dict[str, Any]:
    shown = msgspec.structs.asdict(attempt)
    shown["outcome"] = attempt.outcome.value
    shown["started_at"] = attempt.started_at.isoformat()
    shown["response_body"] = attempt.response_body.decode("latin-1")
    return shown


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """The work on a fresh loop, the one that the product uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


class Inside:
    """The operations."""

    def __init__(self, ca_file: Path) -> None:
        self.ca_file = ca_file
        self.canaries = Canaries()

    def counts(self) -> dict[str, int]:
        return self.canaries.counts()

    def send(self, cases: list[dict[str, Any]], at_once: int = _AT_ONCE, **given: Any) -> list[dict[str, Any]]:
        """Attempts for `{"uri", …}` in their order, `at_once` under way together; each is a receiver of its own
        unless it says `receiver_id`.
        """
        return list(run(self._send(cases, at_once, given)))

    async def _send(self, cases: list[dict[str, Any]], at_once: int, given: dict[str, Any]) -> list[dict[str, Any]]:
        sender = Sender(SystemClock(), policy=_policy(given), ca_file=self.ca_file, route=_route(given))
        post, turns = Post(sender), asyncio.Semaphore(at_once)

        async def one(number: int, case: dict[str, Any]) -> dict[str, Any]:
            changes = {"receiver_id": number} | {name: value for name, value in case.items() if name != "uri"}
            changes["headers"] = tuple((name, value) for name, value in case.get("headers", ()))
            async with turns:
                return _shown(await post(case["uri"], **changes))

        try:
            return await asyncio.gather(*(one(number, case) for number, case in enumerate(cases, 1)))
        finally:
            await sender.close()

    def register(self, uris: list[str], **given: Any) -> list[dict[str, Any]]:
        """What registration says of each URI: `code`, `text` and `_ms` it took; `code` None: accepted."""
        policy = _policy(given)

        async def one(uri: str, turns: asyncio.Semaphore) -> dict[str, Any]:
            async with turns:
                begun = time.perf_counter()
                code, text = None, ""
                try:
                    text = " ".join(warning.code for warning in await check_uri(uri, policy))
                except RequestRefused as refused:
                    code, text = refused.code.value, str(refused)
                return {"code": code, "text": text, "_ms": (time.perf_counter() - begun) * 1000}

        async def all_of_them() -> list[dict[str, Any]]:
            turns = asyncio.Semaphore(_AT_ONCE)
            return await asyncio.gather(*(one(uri, turns) for uri in uris))

        return list(run(all_of_them()))

    def test_sends(self, uris: list[str], at_once: int = _AT_ONCE) -> list[dict[str, Any]]:
        """As `send`, each as the test of a receiver is sent, with a second for it; `_ms` is what it took from outside."""

        async def all_of_them() -> list[dict[str, Any]]:
            sender = Sender(SystemClock(), policy=Policy(), ca_file=self.ca_file)
            turns, template = asyncio.Semaphore(at_once), Post(sender).endpoint

            async def one(number: int, uri: str) -> dict[str, Any]:
                done: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()
                endpoint = replace(template, receiver_id=number, uri=uri, timeout_s=1)
                async with turns:
                    begun = time.perf_counter()
                    now = SystemClock().now()
                    sender.send(endpoint, f"evt_1_{number}", now, b"{}", (), done.set_result, uniform=True)
                    shown = _shown(await done)
                return shown | {"_ms": (time.perf_counter() - begun) * 1000}

            try:
                return await asyncio.gather(*(one(number, uri) for number, uri in enumerate(uris, 1)))
            finally:
                await sender.close()

        return list(run(all_of_them()))

    def ask(
        self, port: int, key: str, query: str, variables: list[dict[str, Any]], at_once: int = 8
    ) -> list[dict[str, Any]]:
        """The API's answers (JSON) to one query with each set of variables; `_ms` is what each took."""

        def one(values: dict[str, Any]) -> dict[str, Any]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
            begun = time.perf_counter()
            try:
                content = json.dumps({"query": query, "variables": values})
                connection.request("POST", "/graphql", content, headers)
                answer = dict(json.loads(connection.getresponse().read()))
            finally:
                connection.close()
            return answer | {"_ms": (time.perf_counter() - begun) * 1000}

        with ThreadPoolExecutor(at_once) as threads:
            return list(threads.map(one, variables))

    def connect(self, addresses: list[str], port: int = 443, timeout_s: float = 1.0) -> dict[str, str]:
        """Whether a plain connect, with no guard before it, reaches each address: "" or the system's reason."""

        def one(address: str) -> str:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family) as raw:
                raw.settimeout(timeout_s)
                try:
                    raw.connect((address, port))
                except OSError as error:
                    return error.strerror or str(error)
            return ""

        with ThreadPoolExecutor(32) as threads:
            return dict(zip(addresses, threads.map(one, addresses), strict=True))

    def hostile(self, uris: list[str], attempts: int, timeout_s: int) -> dict[str, Any]:
        """`attempts` of each URI together, each with a connection of its own: what they came to, and what each cost.

        `resident_kib` is the highest memory during them less that before, `cpu_ms` this process's, both by attempt;
        `late_percent` the worst of their wall time beyond the deadline.
        """
        return dict(run(self._hostile(uris, attempts, timeout_s)))

    async def _hostile(self, uris: list[str], attempts: int, timeout_s: int) -> dict[str, Any]:
        sender = Sender(SystemClock(), policy=Policy(), ca_file=self.ca_file)
        post = Post(sender)
        count = len(uris) * attempts

        def begin(seconds: int, first: int) -> list[asyncio.Future[Attempt]]:
            return [
                post.begin(uris[number % len(uris)], receiver_id=first + number, timeout_s=seconds)
                for number in range(count)
            ]

        try:
            # What is allocated once for all that follow, and the pages that the allocator keeps.
            for first in (1, 5_000):
                await asyncio.gather(*begin(1, first))
            gc.collect()
            _forget_peak()
            before, cpu = _peak_kib(), time.process_time()
            done = await asyncio.gather(*begin(timeout_s, 10_000))
            cpu, peak = time.process_time() - cpu, _peak_kib()
        finally:
            await sender.close()
        worst = max(attempt.duration_ms for attempt in done)
        return {
            "outcomes": sorted({attempt.outcome.value for attempt in done}),
            "errors": sorted({attempt.error or "" for attempt in done}),
            "body_bytes": max(len(attempt.response_body) for attempt in done),
            "wall_ms": worst,
            "late_percent": max(0.0, (worst / 1000 - timeout_s) / timeout_s * 100),
            "resident_kib": (peak - before) / count,
            "cpu_ms": cpu / count * 1000,
        }


def _forget_peak() -> None:
    """Begin the kernel's record of this process's highest memory anew (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def main() -> None:
    logging.disable(logging.WARNING)  # a line for each endpoint that is refused
    inside = Inside(Path(sys.argv[1]))
    operations = ("counts", "send", "test_sends", "register", "ask", "connect", "hostile")
    answer_requests({name: getattr(inside, name) for name in operations})


if __name__ == "__main__":
    main()
