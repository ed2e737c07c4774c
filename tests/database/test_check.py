from __future__ import annotations

import psycopg
import pytest

from clarion.core.errors import EnvironmentRefused
from clarion.database.address import DatabaseAddress
from clarion.database.check import check_server, connect

pytestmark = pytest.mark.data_path


def test_sound_server_passes(database: DatabaseAddress) -> None:
    with connect(database) as connection:
        check_server(connection)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_server_that_may_lose_commits_is_refused(server: DatabaseAddress, setting: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as administrator:
        administrator.execute(f"ALTER SYSTEM SET {setting} = off")
        try:
            administrator.execute("SELECT pg_reload_conf()")
            with pytest.raises(EnvironmentRefused, match=f"{setting} off.*ALTER SYSTEM SET {setting} = on"):
                _check_until_reloaded(server, setting)
        finally:
            administrator.execute(f"ALTER SYSTEM RESET {setting}")
            administrator.execute("SELECT pg_reload_conf()")
    _wait_until(server, setting, "on")


def _check_until_reloaded(server: DatabaseAddress, setting: str) -> None:
    _wait_until(server, setting, "off")
    with connect(server) as connection:
        check_server(connection)


def _wait_until(server: DatabaseAddress, setting: str, value: str) -> None:
    """The reload reaches new sessions once the postmaster has read the file."""
    for _ in range(500):
        with psycopg.connect(server.url) as connection:
            if connection.execute("SELECT current_setting(%s)", [setting]).fetchone() == (value,):
                return
            connection.execute("SELECT pg_sleep(0.01)")
    pytest.fail(f"{setting} did not become {value}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://u:hunter2@127.0.0.1:1/ledger", r"127\.0\.0\.1:1, database ledger: Connection refused"),
        ("postgresql://u:hunter2@/ledger?host=/nonexistent", "/nonexistent, database ledger: No such file"),
        ("postgresql://u:hunter2@does-not-exist.invalid/ledger", r"does-not-exist\.invalid:5432, database ledger: "),
    ],
)
def test_unreachable_server_is_named_without_the_password(url: str, message: str) -> None:
    with pytest.raises(EnvironmentRefused, match=message) as refused:
        connect(DatabaseAddress(url))
    assert "hunter2" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_database_and_login_say_what_to_do(server: DatabaseAddress) -> None:
    with pytest.raises(EnvironmentRefused, match='database "nowhere" does not exist.*CREATE DATABASE'):
        connect(server.with_database("nowhere"))
    with pytest.raises(EnvironmentRefused, match='role "nobody" does not exist.*login'):
        connect(server.with_user("nobody"))
