"""How long from a commit to the receiver, over TLS, and the largest value seen.

    .venv/bin/python bench/latency.py [--rates 50,200,1000] [--rate 200] [--seconds 8] [--runs 3] [--json]

Everything runs on this machine: an embedded PostgreSQL (fsync on), `clarion serve` with its defaults, writers that
commit single-row changes at an even rate, and a receiver in a process of its own (uvloop, Python's TLS) that writes each
request down. Latency is from the trigger's clock_timestamp(), hence with the writer's own commit, to the complete
request at the receiver. Every request is verified afterwards and compared with the ledger and the attempts.
"""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
from figures import Figure, Figures, numbers, options
from rig import Rig, rig

from clarion.capture.attach import Attachment
from clarion_receive import Webhook
from harness.deployment import ITEMS, Deployment
from harness.oracle import percentile

FLOOR_MS = {"p50": 25.0, "p95": 40.0, "p99": 75.0}
GOAL_MS = {"p50": 11.0, "p95": 17.0, "p99": 22.0}
WARM_UP_CHANGES = 300
ROWS = 100
CHANGES_PER_S_PER_WRITER = 250.0


def measure(rates: list[float], seconds: float) -> dict[float, dict[str, float]]:
    """One run on a fresh server: for each rate percentiles in milliseconds, the largest value, and how many requests."""
    with rig(schema=ITEMS, attachments=[Attachment(resource="ITEMS", table="items")]) as at:
        at.deployment.subscribe(at.deployment.register())
        with at.serving():
            _warm_up(at)
            return {rate: _run(at.deployment, rate, round(rate * seconds)) for rate in rates}


def _warm_up(at: Rig) -> None:
    """Rows to change, and connections opened."""
    at.deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, %s)", (ROWS,))
    for number in range(WARM_UP_CHANGES):
        at.deployment.connection.execute("UPDATE items SET version = version + 1 WHERE id = %s", (number % ROWS + 1,))
    at.deployment.wait_until_settled()


def _write(url: str, number: int, writers: int, rate: float, count: int) -> None:
    """Every `writers`th of `count` commits, from the one with this number on, each at its moment."""
    with psycopg.connect(url, autocommit=True) as connection:
        begun = time.monotonic()
        for turn in range(number, count, writers):
            time.sleep(max(0, begun + turn / rate - time.monotonic()))
            statement = "UPDATE items SET version = version + 1 WHERE id = %s"
            connection.execute(statement, (turn % ROWS + 1,), prepare=True)


def _run(deployment: Deployment, rate: float, count: int) -> dict[str, float]:
    before = deployment.receiver.count()
    writers = math.ceil(rate / CHANGES_PER_S_PER_WRITER)
    begun = time.monotonic()
    with ThreadPoolExecutor(writers) as pool:
        shares = [
            pool.submit(_write, deployment.database.url, number, writers, rate, count) for number in range(writers)
        ]
        for share in shares:
            share.result()
    took = time.monotonic() - begun
    received = deployment.receiver.wait_for(before + count, timeout_s=60)
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
        "p50": percentile(latencies, 0.50),
        "p95": percentile(latencies, 0.95),
        "p99": percentile(latencies, 0.99),
        "largest": latencies[-1],
        "requests": len(latencies),
        "rate": count / took,
    }


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rates", default="50,200,1000", help="changes per second, one after the other")
    parser.add_argument("--rate", type=float, help="one rate only")
    parser.add_argument("--seconds", type=float, default=8, help="at each rate")
    given = parser.parse_args()
    rates = [given.rate] if given.rate else numbers(given.rates)
    figures = Figures(
        *(
            figure
            for rate in rates
            for figure in (
                *(
                    Figure(f"commit to receiver, {name}, {rate:.0f}/s", "ms", FLOOR_MS[name], GOAL_MS[name])
                    for name in FLOOR_MS
                ),
                Figure(f"  rate that the writers kept, {rate:.0f}/s", "changes/s"),
            )
        )
    )
    requests = 0
    for _ in range(given.runs):
        for rate, run in measure(rates, given.seconds).items():
            for name in FLOOR_MS:
                figures[f"commit to receiver, {name}, {rate:.0f}/s"].add(run[name], run["largest"])
            figures[f"  rate that the writers kept, {rate:.0f}/s"].add(run["rate"])
            requests += round(run["requests"])
    figures.show(as_json=given.json, notes=[f"{requests} requests, one receiver, the tests' (Python, uvloop)"])


if __name__ == "__main__":
    main()
