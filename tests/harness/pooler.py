"""A pooler between an application and its server, for the tests that Debian's packages are there for."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from clarion.database.account import Account, let_pass
from clarion.database.address import DatabaseAddress


@contextmanager
def pooler(server: DatabaseAddress, directory: Path, mode: str, sessions_max: int = 20) -> Iterator[DatabaseAddress]:
    """A real pgbouncer before the server, on a socket in `directory`, with `sessions_max` of its own for all who come."""
    account = _owner(server)
    let_pass(account, directory, "")
    account.own(directory)
    host = psycopg.conninfo.conninfo_to_dict(server.url)["host"]
    (directory / "users").write_text('"postgres" ""\n')
    (directory / "configuration").write_text(
        f"[databases]\n* = host={host} port=5432\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\n"
        f"unix_socket_dir = {directory}\nauth_type = trust\nauth_file = {directory}/users\npool_mode = {mode}\n"
        f"default_pool_size = {sessions_max}\n"
        "ignore_startup_parameters = extra_float_digits\n"
    )
    for file in directory.iterdir():
        account.own(file)
    process = subprocess.Popen(
        ["/usr/sbin/pgbouncer", str(directory / "configuration")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **account.subprocess_options(),
    )
    try:
        assert process.stderr is not None
        assert any("process up" in line for line in process.stderr)
        yield DatabaseAddress(f"postgresql://postgres@/postgres?host={directory}&port=6432")
    finally:
        process.kill()
        process.communicate()


def _owner(server: DatabaseAddress) -> Account:
    """The account that may reach the server's socket."""
    found = Path(psycopg.conninfo.conninfo_to_dict(server.url)["host"] or "").stat()
    return Account(found.st_uid, found.st_gid, switch=True)
