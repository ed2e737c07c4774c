"""A private cluster of an installed PostgreSQL, for the tests that run against every supported version."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from clarion.database.account import let_pass, server_account
from clarion.database.address import DatabaseAddress


@contextmanager
def installed_server(programs: Path, directory: Path) -> Iterator[DatabaseAddress]:
    """The address of a fresh server of `programs`, stopped at the end. `directory` is short: its socket lives there."""
    assert (programs / "initdb").exists(), f"{programs} is missing: apt-get install postgresql-15"
    cluster = directory / "cluster"
    account = server_account(cluster)
    let_pass(account, directory, "")
    account.own(directory)
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "env": {"LC_ALL": "C.UTF-8"}}
    options |= account.subprocess_options()
    log = directory / "log"
    made = ["--pgdata", str(cluster), "--username=postgres", "--auth=trust", "--encoding=UTF8", "--data-checksums"]
    subprocess.run([str(programs / "initdb"), *made], check=True, **options)
    with (cluster / "postgresql.conf").open("a") as configuration:
        configuration.write(
            f"listen_addresses = ''\nunix_socket_directories = '{directory}'\nport = 5432\nmax_connections = 100\n"
            "shared_buffers = 256MB\njit = off\ntimezone = 'UTC'\n"
        )
    control = [str(programs / "pg_ctl"), f"--pgdata={cluster}", "--wait", "--silent"]
    subprocess.run([*control, "start", f"--log={log}"], check=True, **options)
    try:
        yield DatabaseAddress.of_socket(str(directory), "postgres", "postgres")
    finally:
        subprocess.run([*control, "stop", "--mode=fast"], check=True, **options)


def libpq_environment(address: DatabaseAddress) -> dict[str, str]:
    """Where the database is, as libpq's programs read it from their environment."""
    parts = conninfo_to_dict(address.url)
    names = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password", "PGDATABASE": "dbname"}
    return {variable: str(parts[name]) for variable, name in names.items() if parts.get(name)}
