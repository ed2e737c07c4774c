"""What the benchmarks of the whole path stand on: a server, tables, receivers, `clarion serve`, and the CPU it takes.

All of it on this machine: an embedded PostgreSQL with fsync on, receivers over TLS that are one process behind many
loopback addresses, and the product as its users start it. Linux only: CPU is read from /proc.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

# Before the harness of the tests, whose folder it puts on the path.
from receivers import Nginx, Receivers, Written, nginx_program
from writers import ROWS_PER_TABLE, SCHEMA, TABLES, Writers

from clarion.capture.attach import Attachment
from harness.deployment import Deployment
from harness.process import ClarionProcess, children_of
from harness.stage import stage

RECEIVERS_COUNT = len(TABLES)
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_us(pids: Iterable[int]) -> dict[int, float]:
    """CPU time (user and system) of each process so far, in microseconds, to 10 ms; one that ended is left out."""
    found = {}
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found[pid] = (int(fields[11]) + int(fields[12])) * 1e6 / _TICKS_PER_S
    return found


def spent_us(before: dict[int, float], after: dict[int, float]) -> float:
    """What all processes of `after` took since `before`, in microseconds; one that was not there yet counts whole."""
    return sum(total - before.get(pid, 0) for pid, total in after.items())


@dataclass(frozen=True, slots=True)
class Flow:
    """How far everything has come, in one snapshot. `changes` committed, `events` settled; `outbox` and `queue` rows wait."""

    changes: int
    events: int
    outbox: int
    queue: int


class Rig:
    """One deployment, ready to be measured."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.directory = deployment.directory
        self.receivers: Receivers
        self._receiver_ids: list[int] = []
        self.fan_out = 0

    @property
    def url(self) -> str:
        return self.deployment.database.url

    def register(self, *, written_down: bool = False) -> None:
        """Twenty receivers at 127.0.1.1 to 127.0.1.20. `written_down` asks for the receiver that keeps every request."""
        hosts = [f"127.0.1.{number}" for number in range(1, RECEIVERS_COUNT + 1)]
        certificate = self.deployment.authority.issue(addresses=hosts)
        kind = Written if written_down or nginx_program() is None else Nginx
        self.receivers = kind(self.directory / "receivers", certificate)
        self._receiver_ids = [self.deployment.register(f"https://{host}:{self.receivers.port}/ok") for host in hosts]

    def raise_fan_out(self, fan_out: int) -> None:
        """Each table's changes go to `fan_out` receivers, evenly; it can only grow."""
        for number, receiver_id in enumerate(self._receiver_ids):
            for further in range(self.fan_out, fan_out):
                self.deployment.subscribe(receiver_id, TABLES[(number + further) % len(TABLES)].upper())
        self.fan_out = fan_out

    def fill(self, updates: int = 0, rows: int = ROWS_PER_TABLE) -> None:
        """The tables' rows, and all of them updated so many times."""
        for table in TABLES:
            self.deployment.connection.execute(f"INSERT INTO {table} (place) SELECT 7 FROM generate_series(1, {rows})")
        for _ in range(updates):
            for table in TABLES:
                self.deployment.connection.execute(f"UPDATE {table} SET quantity = quantity + 1")

    @contextmanager
    def serving(self, *roles: str) -> Iterator[ClarionProcess]:
        """`clarion serve` with these roles (default all), ready; stopped at the end."""
        wanted = roles or ("api", "router", "delivery")
        arguments = [part for role in wanted for part in ("--role", role)]
        settings = {"CLARION_LISTEN": "127.0.0.1:0"} if "api" in wanted else {}
        serve = self.deployment.serve(*arguments, **settings)
        try:
            yield serve
        finally:
            serve.stop()

    def writers(self, rate: float, seconds: float) -> Writers:
        """Writers at `rate` changes/s altogether, under way."""
        return Writers(self.directory, self.url, rate, seconds)

    def flow(self) -> Flow:
        """How far everything has come."""
        ((position, event_id, outbox, queue),) = self.deployment.rows(
            "SELECT position, event_id, (SELECT count(*) FROM clarion.outbox), (SELECT count(*) FROM clarion.queue) FROM clarion.counters"
        )
        return Flow(position + outbox, event_id - queue, outbox, queue)

    def backends(self) -> list[int]:
        """Server processes that work for the product's own sessions."""
        return [
            pid
            for (pid,) in self.deployment.rows(
                "SELECT pid FROM pg_stat_activity WHERE starts_with(application_name, 'clarion ')"
            )
        ]

    def server(self) -> list[int]:
        """All processes of the database server."""
        postmaster = int((self.directory / "data" / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        return [postmaster, *children_of(postmaster)]

    def check_delivered(self, receiver_count_before: int = 0) -> None:
        """Every event was delivered at its first attempt and the receivers counted as many requests."""
        settled = self.deployment.rows("SELECT status, count(*) FROM clarion.events GROUP BY status")
        attempts = self.deployment.rows("SELECT outcome, count(*) FROM clarion.attempts GROUP BY outcome")
        ((_, count),) = settled
        assert settled == [("DELIVERED", count)], settled
        assert attempts == [("SUCCEEDED", count)], attempts
        assert self.receivers.count() - receiver_count_before == count, (
            "the receivers counted other than the audit trail"
        )


@contextmanager
def rig(*, schema: str = SCHEMA, attachments: Sequence[Attachment] = ()) -> Iterator[Rig]:
    """A rig on a fresh server; by default with twenty tables, each a resource of organisation `default`."""
    # Ended from outside, it still takes its server and its processes along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    attached = attachments or [Attachment(resource=table.upper(), table=table) for table in TABLES]
    with stage(schema=schema) as deployment:
        deployment.attach(*attached)
        made = Rig(deployment)
        try:
            yield made
        finally:
            if hasattr(made, "receivers"):
                made.receivers.stop()


def processes_of(serve: ClarionProcess) -> list[int]:
    """The product's own processes: the parent and its children."""
    return [serve.pid, *children_of(serve.pid)]


def engine_of(serve: ClarionProcess) -> int:
    """The child that routes and delivers."""
    for pid in children_of(serve.pid):
        # Not by its command line: it may have been the spare.
        if Path(f"/proc/{pid}/comm").read_text().startswith(("clarion router", "clarion deliver")):
            return pid
    raise AssertionError(f"no child of {serve.pid} routes or delivers")
