"""What the capture trigger adds to a single-row write, in CPU of the server's own session and in time.

    .venv/bin/python bench/capture.py [--rows 20000] [--rounds 5] [--json]

Two tables of ten columns in one database, one attached and one not, written in turn by one session: an UPDATE by key per
transaction. CPU is the session's process's own (user and system, from /proc, Linux only). synchronous_commit is off for
the session, so that the disk's waits do not count. Nothing routes meanwhile; the outbox is emptied between rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from clarion.app import prepare_database
from clarion.capture.attach import Attachment, attach
from clarion.database.embedded import EmbeddedServer

LIMIT_US = 60.0
TABLE = """
    CREATE TABLE {} (id integer PRIMARY KEY, number text NOT NULL, title text, status text, quantity numeric(12, 3), cost numeric,
                     due timestamptz DEFAULT now(), done boolean DEFAULT false, place integer, spec jsonb)
"""
ROWS = """
    INSERT INTO {} SELECT n, 'PN-' || n, 'Bracket, left', 'in_progress', n * 1.5, 12.5, now(), false, n %% 40,
                          '{{"length": 12.5, "finish": ["anodised", "black"], "checks": 3}}'
    FROM generate_series(1, %s) n
"""
STATEMENTS = {
    "update": "UPDATE {} SET quantity = quantity + 1 WHERE id = %s",
    "insert": "INSERT INTO {} (id, number, title, status, quantity) VALUES (%s + 10000000, 'PN', 'Bracket', 'todo', 1)",
    "delete": "DELETE FROM {} WHERE id = %s + 10000000",
    "no-op update": "UPDATE {} SET quantity = quantity WHERE id = %s",
}


def _cpu_us(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def _write(connection: psycopg.Connection[Any], statement: str, table: str, rows: int) -> tuple[float, float]:
    """CPU of the session's process and elapsed time, both in microseconds per row."""
    text = statement.format(table)
    pid = connection.info.backend_pid
    cpu, begun = _cpu_us(pid), time.perf_counter()
    for number in range(1, rows + 1):
        connection.execute(text, (number,), prepare=True)
    return (_cpu_us(pid) - cpu) / rows, (time.perf_counter() - begun) * 1e6 / rows


def measure(rows: int, rounds: int) -> dict[str, dict[str, float]]:
    """For each kind of write the medians without and with the trigger, and what the trigger adds."""
    with tempfile.TemporaryDirectory(prefix="clarion-bench.") as name:
        Path(name).chmod(0o755)
        with EmbeddedServer(Path(name) / "data") as address:
            prepare_database(address)
            with psycopg.connect(address.url, autocommit=True) as connection:
                connection.execute("SET synchronous_commit = off")
                for table in ("plain", "attached"):
                    connection.execute(TABLE.format(table))
                    connection.execute(ROWS.format(table), (rows,))
                attach(connection, [Attachment(resource="PARTS", table="attached")])
                samples: dict[tuple[str, str], list[tuple[float, float]]] = {}
                for _ in range(rounds):
                    for kind, statement in STATEMENTS.items():
                        for table in ("plain", "attached"):
                            samples.setdefault((kind, table), []).append(_write(connection, statement, table, rows))
                    connection.execute("DELETE FROM clarion.outbox")
                    connection.execute("VACUUM clarion.outbox, plain, attached")
    result = {}
    for kind in STATEMENTS:
        added = [
            (with_trigger[0] - without[0], with_trigger[1] - without[1])
            for without, with_trigger in zip(samples[(kind, "plain")], samples[(kind, "attached")], strict=True)
        ]
        result[kind] = {
            "without_cpu_us": statistics.median(cpu for cpu, _ in samples[(kind, "plain")]),
            "with_cpu_us": statistics.median(cpu for cpu, _ in samples[(kind, "attached")]),
            "added_cpu_us": statistics.median(cpu for cpu, _ in added),
            "added_time_us": statistics.median(elapsed for _, elapsed in added),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.rows, options.rounds)
    if options.json:
        print(json.dumps({"limit_us": LIMIT_US, "writes": result}))
        return
    print(f"{'write':14}{'without':>10}{'with':>10}{'added':>10}{'of limit':>10}{'added time':>12}   (µs per row)")
    for kind, row in result.items():
        share = row["added_cpu_us"] / LIMIT_US
        print(
            f"{kind:14}{row['without_cpu_us']:>10.1f}{row['with_cpu_us']:>10.1f}{row['added_cpu_us']:>10.1f}"
            f"{share:>10.2f}{row['added_time_us']:>12.1f}"
        )


if __name__ == "__main__":
    main()
