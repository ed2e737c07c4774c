"""What the capture trigger adds to a single-row write, in CPU of the server's own session and in time.

    .venv/bin/python bench/capture.py [--rows 20000] [--rounds 5] [--json]

Tables of ten columns in one database, written in turn by one session: one that is not attached, one that is, one attached
with two columns excluded, and one of which a column was renamed after that, so that each row is read the slow way. A row per
transaction by key; then an UPDATE of all rows at once. CPU is the session's process's own (user and system, from /proc,
Linux only). synchronous_commit is off for the session, so that the disk's waits do not count. Nothing routes meanwhile; the
outbox is emptied between rounds.
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
BULK_LIMIT_US = 25.0
BULK = "bulk update"
TABLES = ("plain", "attached", "excluding", "renamed")
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


def _write_bulk(connection: psycopg.Connection[Any], table: str, rows: int) -> tuple[float, float]:
    pid = connection.info.backend_pid
    cpu, begun = _cpu_us(pid), time.perf_counter()
    connection.execute(f"UPDATE {table} SET quantity = quantity + 1")
    return (_cpu_us(pid) - cpu) / rows, (time.perf_counter() - begun) * 1e6 / rows


def measure(rows: int, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """By table and kind of write the medians with the trigger, and what the trigger adds; for `plain` without it."""
    samples: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="clarion-bench.") as name:
        Path(name).chmod(0o755)
        with EmbeddedServer(Path(name) / "data") as address:
            prepare_database(address)
            with psycopg.connect(address.url, autocommit=True) as connection:
                _prepare(connection, rows)
                for _ in range(rounds):
                    for kind, statement in STATEMENTS.items():
                        for table in TABLES:
                            samples.setdefault((table, kind), []).append(_write(connection, statement, table, rows))
                    for table in TABLES:
                        samples.setdefault((table, BULK), []).append(_write_bulk(connection, table, rows))
                    connection.execute("DELETE FROM clarion.outbox")
                    connection.execute(f"VACUUM clarion.outbox, {', '.join(TABLES)}")
    result: dict[str, dict[str, dict[str, float]]] = {}
    for (table, kind), taken in samples.items():
        added = [
            (cpu - plain[0], elapsed - plain[1])
            for (cpu, elapsed), plain in zip(taken, samples["plain", kind], strict=True)
        ]
        result.setdefault(table, {})[kind] = {
            "cpu_us": statistics.median(cpu for cpu, _ in taken),
            "added_cpu_us": statistics.median(cpu for cpu, _ in added),
            "added_time_us": statistics.median(elapsed for _, elapsed in added),
        }
    return result


def _prepare(connection: psycopg.Connection[Any], rows: int) -> None:
    connection.execute("SET synchronous_commit = off")
    for table in TABLES:
        connection.execute(TABLE.format(table))
        connection.execute(ROWS.format(table), (rows,))
    for table in TABLES[1:]:
        excluded = () if table == "attached" else ("cost", "spec")
        attach(connection, [Attachment(resource=table.upper(), table=table, excluded_columns=excluded)])
    connection.execute("ALTER TABLE renamed RENAME cost TO price")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.rows, options.rounds)
    if options.json:
        print(json.dumps({"limit_us": LIMIT_US, "bulk_limit_us": BULK_LIMIT_US, "tables": result}))
        return
    print(f"{'table':12}{'write':14}{'cpu':>8}{'added':>8}{'of limit':>10}{'added time':>12}   (µs per row)")
    for table, kinds in result.items():
        for kind, row in kinds.items():
            share = row["added_cpu_us"] / (BULK_LIMIT_US if kind == BULK else LIMIT_US)
            print(
                f"{table:12}{kind:14}{row['cpu_us']:>8.1f}{row['added_cpu_us']:>8.1f}{share:>10.2f}{row['added_time_us']:>12.1f}"
            )


if __name__ == "__main__":
    main()
