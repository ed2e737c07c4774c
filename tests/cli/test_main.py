from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import psycopg
import pytest

from clarion import __version__
from clarion.cli.main import COMMANDS, run
from clarion.database.address import DatabaseAddress
from harness.process import ClarionProcess, clean_environment

Command = Callable[..., ClarionProcess]


def test_help_lists_every_command_and_imports_none(clarion_process: Command, tmp_path: Path) -> None:
    shown = clarion_process("--help").wait()
    assert shown.code == 0
    assert all(re.search(rf"^  {name} ", shown.stdout, re.MULTILINE) for name in COMMANDS)
    code = (
        "import sys; from clarion.cli.main import run; run(['--help'])\n"
        "heavy = {'pydantic', 'sqlalchemy', 'psycopg', 'asyncpg', 'strawberry', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=clean_environment(tmp_path), stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_exists_under_its_name(name: str) -> None:
    command = getattr(importlib.import_module(COMMANDS[name][0]), name.replace("-", "_"))
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help


def test_version(clarion_process: Command) -> None:
    assert clarion_process("--version").wait().stdout == f"clarion {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["--nonsense"], ["settings", "--nonsense"], ["keys", "create", "--role", "king"]]
)
def test_wrong_usage_ends_with_2(clarion_process: Command, arguments: list[str]) -> None:
    refused = clarion_process(*arguments).wait()
    assert refused.code == 2
    assert "Usage: clarion" in refused.stderr


def test_refused_environment_is_one_line_and_a_way_out(clarion_process: Command) -> None:
    refused = clarion_process("migrate", CLARION_DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/ledger").wait()
    assert refused.code == 3
    first, second = refused.stderr.splitlines()
    assert first == "clarion: no connection to PostgreSQL at 127.0.0.1:1, database ledger: Connection refused"
    assert "CLARION_DATABASE_URL" in second
    assert "hunter2" not in refused.stderr


def test_no_color_is_accepted_anywhere_and_told_to_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert run(["settings", "--no-color"]) == 0
    assert os.environ["NO_COLOR"] == "1"
    monkeypatch.delenv("NO_COLOR")
    assert run(["--no-color", "settings"]) == 0
    assert os.environ["NO_COLOR"] == "1"


@pytest.mark.parametrize(
    ("request_to_end", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_interrupted_command_still_stops_the_server(
    clarion_process: Command, tmp_path: Path, request_to_end: signal.Signals, code: int
) -> None:
    process = clarion_process("migrate")
    process.wait_for_line("migrating", stderr=True)
    process.signal(request_to_end)
    # It may just have been done.
    assert process.wait().code in {0, code}, process.output()
    assert not (tmp_path / ".clarion" / "postgres" / "postmaster.pid").exists()


def test_migrate_makes_the_embedded_database_and_keys_work_on_it(clarion_process: Command, tmp_path: Path) -> None:
    migrated = clarion_process("migrate").wait(60)
    assert migrated.code == 0, migrated.stderr
    assert "creating roles clarion_owner_clarion" in migrated.stderr
    assert migrated.stdout.endswith("database clarion: migrated\n")
    again = clarion_process("migrate").wait(60)
    assert (again.code, again.stderr) == (0, "")
    made = clarion_process("keys", "create", "--name", "erp", "--role", "integrator").wait(60)
    assert made.code == 0, made.stderr
    assert re.fullmatch(r"clk_[0-9a-f]{8}_[A-Za-z0-9_-]{43}\n", made.stdout)
    other_role = clarion_process("keys", "create", "--name", "erp", "--role", "AUDITOR").wait(60)
    assert other_role.code == 2
    assert "exists with role INTEGRATOR" in other_role.stderr
    assert not (tmp_path / ".clarion" / "postgres" / "postmaster.pid").exists()


@pytest.mark.data_path
def test_key_on_the_users_own_database_is_stored_hashed(clarion_process: Command, database: DatabaseAddress) -> None:
    made = clarion_process(
        "keys",
        "create",
        "--organisation",
        "acme",
        "--name",
        "erp",
        "--role",
        "OPERATOR",
        CLARION_DATABASE_URL=database.url,
    ).wait()
    assert made.code == 0, made.stderr
    with psycopg.connect(database.url) as connection:
        rows = connection.execute(
            "SELECT o.name, c.name, c.role, k.hash = sha256(convert_to(%s, 'UTF8')) FROM clarion.api_keys k "
            "JOIN clarion.clients c ON c.id = k.client_id JOIN clarion.organisations o ON o.id = k.organisation_id",
            [made.stdout.strip()],
        ).fetchall()
    assert rows == [("acme", "erp", "OPERATOR", True)]


def test_new_encryption_key_is_private_and_never_overwritten(clarion_process: Command, tmp_path: Path) -> None:
    made = clarion_process("keys", "new-encryption-key", "secret.key").wait()
    assert made.code == 0, made.stderr
    file = tmp_path / "secret.key"
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    assert before.strip().decode() not in made.stdout
    refused = clarion_process("keys", "new-encryption-key", "secret.key").wait()
    assert refused.code == 3
    assert file.read_bytes() == before
