"""A whole deployment outside of pytest: for the proof programme and the benchmarks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clarion.app import prepare_database
from clarion.database.embedded import EmbeddedServer
from harness.deployment import ITEMS, Deployment
from harness.process import CLARION, ClarionProcess, clean_environment

WAL_SEGMENTS = 64


def _make_wal_segments(deployment: Deployment) -> None:
    """Make the segments of the write-ahead log that a server of some age recycles: 64 of 16 MB.

    A new server makes each when it is needed, and all commits wait for that: 60 to 100 ms (wait events WalInitWrite and
    WalInitSync), once a second under load. Measured without this, a figure is about the file system.
    """
    connection = deployment.connection
    connection.execute("ALTER SYSTEM SET min_wal_size = '1GB'")
    connection.execute("SELECT pg_reload_conf()")
    for _ in range(WAL_SEGMENTS):
        connection.execute("SELECT pg_switch_wal(), pg_logical_emit_message(false, 'clarion', '')")
    connection.execute("CHECKPOINT")


@contextmanager
def stage(*, schema: str = ITEMS) -> Iterator[Deployment]:
    """A fresh embedded server, migrated, with a deployment on it; whatever was started is ended with the block."""
    with tempfile.TemporaryDirectory(prefix="clarion-stage.") as name:
        directory = Path(name)
        # As root the server runs under an account of its own, which has to get in.
        directory.chmod(0o755)
        started: list[ClarionProcess] = []

        def start(*arguments: str, **settings: str) -> ClarionProcess:
            process = ClarionProcess([CLARION, *arguments], clean_environment(directory, **settings), directory)
            started.append(process)
            return process

        with EmbeddedServer(directory / "data") as address:
            prepare_database(address)
            try:
                with Deployment(address, directory, start, schema=schema) as deployment:
                    _make_wal_segments(deployment)
                    yield deployment
            finally:
                for process in started:
                    process.kill()
