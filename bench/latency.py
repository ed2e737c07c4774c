"""How long from a commit to the receiver, over TLS, and the largest value seen.

    .venv/bin/python bench/latency.py [--rate 200] [--seconds 10] [--runs 3] [--json]

Everything runs on this machine: an embedded PostgreSQL (fsync on), `clarion serve` with its defaults, one writer that
commits single-row changes at an even rate, and a receiver in a process of its own (uvloop, Python's TLS) that writes each
request down. Latency is from the trigger's clock_timestamp(), hence with the writer's own commit, to the complete
request at the receiver. Every request is verified afterwards and compared with the ledger and the attempts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import psycopg  # noqa: E402 - after the path

from clarion.app import prepare_database  # noqa: E402
from clarion.database.embedded import EmbeddedServer  # noqa: E402
from clarion_receive import Webhook  # noqa: E402
from harness.deployment import Deployment  # noqa: E402
from harness.process import CLARION, ClarionProcess, clean_environment  # noqa: E402

FLOOR_MS = {"p50": 25.0, "p95": 40.0, "p99": 75.0}
WARM_UP_CHANGES = 300


def measure(rate: float, seconds: float) -> dict[str, float]:
    """One run on a fresh server: percentiles in milliseconds, the largest value, and how many requests."""
    with tempfile.TemporaryDirectory(prefix="clarion-bench.") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with EmbeddedServer(directory / "data") as address:
            prepare_database(address)

            def start(*arguments: str, **settings: str) -> ClarionProcess:
                return ClarionProcess([CLARION, *arguments], clean_environment(directory, **settings), directory)

            with Deployment(address, directory, start) as deployment:
                deployment.attach()
                deployment.subscribe(deployment.register())
                serve = deployment.serve(
                    "--role", "api", "--role", "router", "--role", "delivery", CLARION_LISTEN="127.0.0.1:0"
                )
                try:
                    return _run(deployment, rate, round(rate * seconds))
                finally:
                    serve.stop()


def _run(deployment: Deployment, rate: float, count: int) -> dict[str, float]:
    with psycopg.connect(deployment.database.url, autocommit=True) as writer:
        writer.execute("INSERT INTO items SELECT FROM generate_series(1, 100)")
        for number in range(WARM_UP_CHANGES):
            writer.execute("UPDATE items SET version = version + 1 WHERE id = %s", (number % 100 + 1,))
        deployment.wait_until_settled()
        before = deployment.receiver.count()
        begun = time.monotonic()
        for number in range(count):
            writer.execute("UPDATE items SET version = version + 1 WHERE id = %s", (number % 100 + 1,))
            time.sleep(max(0, begun + (number + 1) / rate - time.monotonic()))
        took = time.monotonic() - begun
    received = deployment.receiver.wait_for(before + count)
    deployment.wait_until_settled()
    captured_at = dict(deployment.rows("SELECT change_id, extract(epoch FROM captured_at)::float8 FROM clarion.ledger"))
    verifier = Webhook(list(deployment.secrets.values()))
    latencies = []
    for request in received[before:]:
        body = verifier.verify(request.body, request.headers, now=request.at)
        latencies.append((request.at - captured_at[body.change_id]) * 1000)
    assert len(received) == before + count, "a request came twice"
    assert deployment.rows("SELECT outcome, count(*) FROM clarion.attempts GROUP BY 1") == [
        ("SUCCEEDED", len(received))
    ]
    latencies.sort()
    return {
        "p50": _percentile(latencies, 0.50),
        "p95": _percentile(latencies, 0.95),
        "p99": _percentile(latencies, 0.99),
        "largest": latencies[-1],
        "requests": len(latencies),
        "rate": count / took,
    }


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, round(share * len(ordered)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs = []
    for number in range(options.runs):
        runs.append(measure(options.rate, options.seconds))
        if not options.json:
            shown = "  ".join(f"{name} {runs[-1][name]:.1f}" for name in ("p50", "p95", "p99", "largest"))
            print(
                f"run {number + 1}: {shown} ms  ({runs[-1]['requests']} requests at {runs[-1]['rate']:.0f}/s)",
                flush=True,
            )
    medians = {name: statistics.median(run[name] for run in runs) for name in FLOOR_MS}
    largest = max(run["largest"] for run in runs)
    if options.json:
        print(json.dumps({"median_ms": medians, "largest_ms": largest, "limit_ms": FLOOR_MS, "runs": runs}))
        return
    for name, limit in FLOOR_MS.items():
        print(
            f"commit to receiver, {name}, median of {len(runs)} runs: {medians[name]:.1f} ms, {medians[name] / limit:.2f} of {limit:.0f}"
        )
    print(f"largest seen: {largest:.1f} ms")


if __name__ == "__main__":
    main()
