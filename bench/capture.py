"""What the capture trigger adds to a write, beside no trigger and beside the two audit triggers that are widely used.

    .venv/bin/python bench/capture.py [--runs 5] [--rows 2000] [--bulk-rows 100000] [--programs /usr/lib/postgresql/15/bin] [--json]

Five tables of ten columns, alike, in one database and written in turn by one session: without a trigger, attached, attached
without two of its columns, with the trigger of 2ndQuadrant (hstore) and with supa_audit (jsonb), both as published
(bench/audit_triggers/). One row a transaction, then one UPDATE of --bulk-rows rows. CPU is that of the session's server
process (Linux only), WAL what the server wrote meanwhile, without whole pages. synchronous_commit is off, nothing routes,
and what was captured is removed between the runs. `--programs` takes an installed PostgreSQL instead of the embedded
one, which has no uuid-ossp, without which supa_audit cannot be.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from figures import Figure, Figures, options

from clarion.app import prepare_database
from clarion.capture.attach import Attachment, attach
from clarion.database.address import DatabaseAddress
from clarion.database.embedded import EmbeddedServer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from harness.cluster import installed_server

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
    "INSERT": "INSERT INTO {} (id, number, title, status, quantity) VALUES (%s + 10000000, 'PN', 'Bracket', 'todo', 1)",
    "UPDATE": "UPDATE {} SET quantity = quantity + 1 WHERE id = %s",
    "no-op UPDATE": "UPDATE {} SET quantity = quantity WHERE id = %s",
    "DELETE": "DELETE FROM {} WHERE id = %s + 10000000",
}
BULK = "bulk UPDATE"
BULK_STATEMENT = "UPDATE {} SET quantity = quantity + 1"
SLICE = 100
SINGLE_LIMIT_US = 60.0
BULK_LIMIT_US = 25.0

NONE, OURS, OURS_WITHOUT, SECOND, SUPA = "no trigger", "ours", "ours without 2", "2ndQuadrant", "supa_audit"
TABLES = {
    NONE: "written",
    OURS: "written_attached",
    OURS_WITHOUT: "written_attached_without",
    SECOND: "written_2ndquadrant",
    SUPA: "written_supa_audit",
}
SCRIPTS = {SECOND: "2ndquadrant.sql", SUPA: "supa_audit.sql"}
CAPTURED = {OURS: "clarion.outbox", SECOND: "audit.logged_actions", SUPA: "supa_audit.record_version"}


class Session:
    """The session that writes, and what it has taken."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self._schedstat = Path(f"/proc/{connection.info.backend_pid}/schedstat")

    def cpu_ns(self) -> int:
        """CPU of the server's process so far."""
        return int(self._schedstat.read_text().split()[0])

    def wal_bytes(self) -> int:
        ((position,),) = self.connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchall()
        return int(position)

    def write(self, statement: str, numbers: range) -> tuple[float, float]:
        """CPU in microseconds and bytes of WAL per row, one row a transaction."""
        wal, cpu = self.wal_bytes(), self.cpu_ns()
        for number in numbers:
            self.connection.execute(statement, (number,), prepare=True)
        return (self.cpu_ns() - cpu) / 1000 / len(numbers), (self.wal_bytes() - wal) / len(numbers)

    def write_bulk(self, statement: str, rows: int) -> tuple[float, float]:
        """The same for one statement that writes all rows."""
        wal, cpu = self.wal_bytes(), self.cpu_ns()
        written = self.connection.execute(statement).rowcount
        assert written == rows, f"{written} rows were written, of {rows}"
        return (self.cpu_ns() - cpu) / 1000 / rows, (self.wal_bytes() - wal) / rows


def measure(session: Session, statement: str, kinds: Sequence[str], rows: int) -> dict[str, tuple[float, float]]:
    """For each kind of trigger CPU and WAL per row: the median of slices that take turns, so that others disturb all alike."""
    slices: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for start in range(1, rows + 1, SLICE):
        for kind in kinds:
            numbers = range(start, min(start + SLICE, rows + 1))
            slices[kind].append(session.write(statement.format(TABLES[kind]), numbers))
    return {
        kind: (statistics.median(cpu for cpu, _ in taken), statistics.fmean(wal for _, wal in taken))
        for kind, taken in slices.items()
    }


def measure_bulk(session: Session, kinds: Sequence[str], rows: int) -> dict[str, tuple[float, float]]:
    return {kind: session.write_bulk(BULK_STATEMENT.format(TABLES[kind]), rows) for kind in kinds}


@contextmanager
def server(programs: Path | None) -> Iterator[DatabaseAddress]:
    """A fresh server: the embedded one, or that of `programs`."""
    with tempfile.TemporaryDirectory(prefix="clarion-bench.") as name:
        Path(name).chmod(0o755)
        if programs is None:
            with EmbeddedServer(Path(name) / "data") as address:
                yield address
        else:
            with installed_server(programs, Path(name)) as address:
                yield address


def prepare(connection: psycopg.Connection[Any], rows: int) -> list[str]:
    """The tables with their triggers; those that this server can have."""
    # What a checkpoint or vacuum adds has nothing to do with the triggers.
    for setting in ("full_page_writes = off", "autovacuum = off", "checkpoint_timeout = '1d'", "max_wal_size = '8GB'"):
        connection.execute(f"ALTER SYSTEM SET {setting}")
    connection.execute("SELECT pg_reload_conf()")
    connection.execute("SET synchronous_commit = off")
    kinds = []
    for kind, table in TABLES.items():
        connection.execute(TABLE.format(table))
        connection.execute(ROWS.format(table), (rows,))
        if kind in SCRIPTS:
            script = (Path(__file__).parent / "audit_triggers" / SCRIPTS[kind]).read_text()
            try:
                connection.execute(script)
            except psycopg.errors.FeatureNotSupported:
                # The extension that it needs is not there.
                connection.execute(f"DROP TABLE {table}")
                continue
        kinds.append(kind)
    attach(
        connection,
        [
            Attachment(resource="PARTS", table=TABLES[OURS]),
            Attachment(resource="PARTS_WITHOUT", table=TABLES[OURS_WITHOUT], excluded_columns=("cost", "place")),
        ],
    )
    connection.execute("CHECKPOINT")
    return kinds


def clean(connection: psycopg.Connection[Any], kinds: Sequence[str]) -> None:
    """Remove what was captured; the tables are as they were."""
    connection.execute(f"TRUNCATE {', '.join(CAPTURED[kind] for kind in kinds if kind in CAPTURED)}")
    connection.execute(f"VACUUM {', '.join(TABLES[kind] for kind in kinds)}")


def figures_for(kinds: Sequence[str]) -> Figures:
    """For each kind of write what it takes without a trigger, then what each trigger adds."""
    made = []
    for write in (*STATEMENTS, BULK):
        limit = BULK_LIMIT_US if write == BULK else SINGLE_LIMIT_US
        made.append(Figure(f"{write}, {NONE}: CPU", "us per row"))
        made += [
            Figure(f"{write}, {kind}: CPU added", "us per row", limit if kind in (OURS, OURS_WITHOUT) else None)
            for kind in kinds[1:]
        ]
        made += [Figure(f"{write}, {kind}: WAL", "bytes per row") for kind in kinds]
        made += [Figure(f"{write}, {kind} / ours", "times") for kind in kinds if kind in SCRIPTS]
    return Figures(*made)


def main() -> None:
    parser = options(__doc__, runs=5)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--bulk-rows", type=int, default=100_000)
    parser.add_argument("--programs", type=Path)
    given = parser.parse_args()
    with server(given.programs) as address:
        prepare_database(address)
        with psycopg.connect(address.url, autocommit=True) as connection:
            kinds = prepare(connection, given.bulk_rows)
            figures = figures_for(kinds)
            session = Session(connection)
            for run in range(given.runs + 1):
                measured = {
                    write: measure(session, statement, kinds, given.rows) for write, statement in STATEMENTS.items()
                }
                measured[BULK] = measure_bulk(session, kinds, given.bulk_rows)
                clean(connection, kinds)
                # The first run fills the caches.
                if run:
                    for write, taken in measured.items():
                        note(figures, write, taken)
            ((version,),) = connection.execute("SELECT current_setting('server_version')").fetchall()
    absent = [kind for kind in TABLES if kind not in kinds]
    notes = [f"PostgreSQL {version}", *(f"{kind} is not measured: its extension is missing here" for kind in absent)]
    figures.show(as_json=given.json, notes=notes)


def note(figures: Figures, write: str, taken: dict[str, tuple[float, float]]) -> None:
    """One run of one kind of write."""
    none_us = taken[NONE][0]
    figures[f"{write}, {NONE}: CPU"].add(none_us)
    for kind, (cpu_us, wal_bytes) in taken.items():
        figures[f"{write}, {kind}: WAL"].add(wal_bytes)
        if kind != NONE:
            figures[f"{write}, {kind}: CPU added"].add(cpu_us - none_us)
        if kind in SCRIPTS:
            figures[f"{write}, {kind} / ours"].add((cpu_us - none_us) / (taken[OURS][0] - none_us))


if __name__ == "__main__":
    main()
