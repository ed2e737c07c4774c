"""pgbench, with its own tables and its own workload, attached: an application that cannot have been written for Clarion.

Each of its transactions adds one delta to an account, a teller and a branch, and writes it into a history. So what a
receiver got can be added up and compared with what the tables hold.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from clarion.capture.attach import Attachment
from clarion.database.embedded import _programs
from harness.cluster import libpq_environment
from harness.deployment import Deployment
from harness.receiver import Received

TABLES = {"accounts": ("aid", "abalance"), "tellers": ("tid", "tbalance"), "branches": ("bid", "bbalance")}
"""Key and balance of each table."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. `changes` committed; `lost`, `doubled` and `out_of_order` of them at the receiver, over all objects.

    `sums` has for each table what the deltas add up to at the receiver, in the table, and in pgbench's own history.
    `tail_s`: seconds from the end of the load until everything was delivered.
    """

    transactions: int
    changes: int
    lost: int
    doubled: int
    out_of_order: int
    sums: dict[str, tuple[int, int, int]]
    tail_s: float

    @property
    def exact(self) -> bool:
        """Nothing lost, nothing twice, all in order, all sums equal."""
        return not (self.lost or self.doubled or self.out_of_order) and all(
            len(set(sums)) == 1 for sums in self.sums.values()
        )


def prepare(deployment: Deployment, *, scale: int) -> None:
    """Make its tables (100,000 accounts, 10 tellers and a branch for each of `scale`) and attach those with a key."""
    _pgbench(deployment, "--initialize", "--quiet", f"--scale={scale}")
    deployment.attach(*(Attachment(resource=f"PGBENCH_{name.upper()}", table=f"pgbench_{name}") for name in TABLES))


def run(deployment: Deployment, *, seconds: int, clients: int = 8, per_second: int | None = None) -> Outcome:
    """What became of its workload, once all was delivered: `clients` at once, as fast as they can or `per_second`.

    The tables are prepared, a receiver subscribes to them, and a server runs.
    """
    options = [] if per_second is None else [f"--rate={per_second}"]
    shown = _pgbench(deployment, f"--client={clients}", "--jobs=2", f"--time={seconds}", "--no-vacuum", *options)
    ended = time.monotonic()
    processed = re.search(r"actually processed: (\d+)", shown)
    assert processed is not None, shown
    assert "number of failed transactions: 0 " in shown, shown
    deployment.wait_until_settled(timeout_s=60 + 20 * seconds)
    tail_s = time.monotonic() - ended
    return _judge(deployment, int(processed[1]), deployment.receiver.received(), tail_s)


def _pgbench(deployment: Deployment, *options: str) -> str:
    return subprocess.run(
        [str(_programs() / "pgbench"), *options],
        env={"LC_ALL": "C", **libpq_environment(deployment.database)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def _judge(deployment: Deployment, transactions: int, log: Iterable[Received], tail_s: float) -> Outcome:
    # An UPDATE by 0 changes nothing, so it is no change.
    ((changes_each, history_sum),) = deployment.rows(
        "SELECT count(*) FILTER (WHERE delta <> 0), coalesce(sum(delta), 0) FROM pgbench_history"
    )
    seen: set[str] = set()
    doubled = out_of_order = 0
    balances: defaultdict[str, dict[str, int]] = defaultdict(dict)
    deltas: defaultdict[str, int] = defaultdict(int)
    for request in log:
        doubled += request.message_id in seen
        seen.add(request.message_id)
        body = orjson.loads(request.body)
        name = body["resource"].removeprefix("pgbench_")
        balance = TABLES[name][1]
        before, after = body["previous"][balance], body["data"][balance]
        # Each change begins where the one before it ended, the first at 0.
        out_of_order += balances[name].get(body["object_id"], 0) != before
        balances[name][body["object_id"]] = after
        deltas[name] += after - before
    sums = {}
    for name, (key, balance) in TABLES.items():
        rows = deployment.rows(f"SELECT {key}::text, {balance} FROM pgbench_{name} WHERE {balance} <> 0")
        sums[name] = (deltas[name], sum(value for _, value in rows), history_sum)
        out_of_order += sum(balances[name].get(object_id) != value for object_id, value in rows)
    changes = changes_each * len(TABLES)
    return Outcome(transactions, changes, changes - len(seen), doubled, out_of_order, sums, tail_s)
