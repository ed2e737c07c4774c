"""What depends on who runs `clarion` and on the file system below it. Needs root."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from clarion.core.errors import EnvironmentRefused
from clarion.database.account import ACCOUNT_NAME, Account, let_pass, let_read, server_account
from clarion.database.address import DatabaseAddress
from clarion.database.check import check_server, connect
from clarion.database.embedded import EmbeddedServer, _programs
from harness.pooler import pooler
from harness.process import clean_environment

pytestmark = pytest.mark.system

USE = """
import os, sys
from pathlib import Path
import psycopg
from clarion.core.errors import ClarionError
from clarion.database.embedded import EmbeddedServer
try:
    with EmbeddedServer(Path(sys.argv[1])) as address, psycopg.connect(address.url) as connection:
        print(os.geteuid(), connection.execute("SELECT current_database()").fetchone()[0])
except ClarionError as error:
    print("refused:", error)
"""


@contextmanager
def mounted(kind: str, directory: Path, options: str) -> Iterator[Path]:
    directory.mkdir()
    subprocess.run(["mount", "-t", kind, "-o", options, "none", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return server_account(tmp_path / "absent")


@pytest.fixture
def use_as_account(account: Account, tmp_path: Path) -> Callable[[Path], str]:
    """Runs an ordinary user's process that uses the server of a directory; what it printed comes back."""
    for directory in {Path(sys.executable).parent, Path(sys.executable).resolve().parent, *map(Path, sys.path)}:
        if directory.is_dir():
            let_pass(account, directory, "")
    let_pass(account, tmp_path, "")

    def use(data_dir: Path) -> str:
        used = subprocess.run(
            [sys.executable, "-c", USE, str(data_dir)],
            check=True,
            capture_output=True,
            text=True,
            env=clean_environment(tmp_path),
            **account.subprocess_options(),
        )
        return used.stdout.strip()

    return use


def test_ordinary_user_runs_the_server_as_itself(
    account: Account, tmp_path: Path, use_as_account: Callable[[Path], str]
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    account.own(home)
    assert use_as_account(home / "data") == f"{account.uid} clarion"
    assert (home / "data").stat().st_uid == account.uid
    assert (home / "data").stat().st_mode & 0o077 == 0


def test_root_uses_the_data_of_an_ordinary_user_without_taking_it_away(
    account: Account, tmp_path: Path, use_as_account: Callable[[Path], str]
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    account.own(home)
    use_as_account(home / "data")
    with EmbeddedServer(home / "data") as address:
        psycopg.connect(address.url).close()
    assert use_as_account(home / "data") == f"{account.uid} clarion"


def test_directory_of_root_is_refused_to_an_ordinary_user(
    tmp_path: Path, use_as_account: Callable[[Path], str]
) -> None:
    with EmbeddedServer(tmp_path / "data"):
        pass
    printed = use_as_account(tmp_path / "data")
    assert printed.startswith("refused: ")
    assert "Permission denied" in printed
    assert "CLARION_DATA_DIR" in printed


def test_root_runs_the_server_under_the_system_account(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "data"):
        found = EmbeddedServer(tmp_path / "data")._postmaster()
        assert found is not None
        assert Path(f"/proc/{found[0]}").stat().st_uid == pwd.getpwnam(ACCOUNT_NAME).pw_uid


def test_programs_installed_for_root_alone_become_readable(account: Account, tmp_path: Path) -> None:
    """An installation under umask 077: the account gets what it needs to run them, nobody else gets anything."""
    tree = tmp_path / "installed"
    subprocess.run(["cp", "-r", "--no-preserve=mode", _programs().parent, tree], check=True)
    for folder, _, names in os.walk(tree):
        Path(folder).chmod(0o700)
        for name in names:
            Path(folder, name).chmod(0o700 if folder.endswith("bin") else 0o600)
    let_pass(account, tree, "")
    let_read(account, tree, "")
    run = {"capture_output": True, "env": {"LC_ALL": "C"}, **account.subprocess_options()}
    server = str(tree / "bin" / "postgres")
    assert b"PostgreSQL" in subprocess.run([server, "--version"], check=False, **run).stdout
    assert (tree / "bin" / "postgres").stat().st_mode & 0o007 == 0
    somebody = {**run, "user": 65534, "group": 65534}
    with pytest.raises(PermissionError):
        subprocess.run([server, "--version"], check=False, **somebody)


def test_file_system_without_entries_is_refused_with_the_directory(tmp_path: Path) -> None:
    expected = pytest.raises(EnvironmentRefused, match="bare.*no access-control entry.*CLARION_DATA_DIR")
    with mounted("ramfs", tmp_path / "bare", "mode=0700") as bare, expected:
        EmbeddedServer(bare / "private" / "data").start()


@pytest.mark.parametrize("size", ["64k", "30m", "39m"])
def test_full_disk_is_refused_in_one_line(tmp_path: Path, size: str) -> None:
    with mounted("tmpfs", tmp_path / "small", f"size={size},mode=0755") as small:
        with pytest.raises(EnvironmentRefused, match="No space left on device|could not extend") as refused:
            EmbeddedServer(small / "data").start()
        assert "\n" not in refused.value.message
        assert refused.value.hint
        assert EmbeddedServer(small / "data")._postmaster() is None


def test_read_only_directory_is_refused(tmp_path: Path) -> None:
    expected = pytest.raises(EnvironmentRefused, match="unusable.*Read-only file system")
    with mounted("tmpfs", tmp_path / "fixed", "ro") as fixed, expected:
        EmbeddedServer(fixed / "data").start()


def test_pooler_in_transaction_mode_is_refused(server: DatabaseAddress, tmp_path: Path) -> None:
    expected = pytest.raises(EnvironmentRefused, match="pooler in transaction mode")
    with pooler(server, tmp_path, "transaction") as address, connect(address) as connection, expected:
        check_server(connection)


def test_pooler_in_session_mode_passes(server: DatabaseAddress, tmp_path: Path) -> None:
    with pooler(server, tmp_path, "session") as address, connect(address) as connection:
        check_server(connection)
