from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from clarion.database.address import DatabaseAddress
from clarion.database.embedded import EmbeddedServer
from clarion.factory.resources import RESOURCES
from harness.process import ClarionProcess

Connection = psycopg.Connection[dict[str, Any]]
Start = Callable[..., ClarionProcess]


def test_both_commands_work_alone_and_beside_another_on_the_same_directory(
    clarion_process: Start, tmp_path: Path
) -> None:
    made = clarion_process("factory", "install", "--json").wait(60)
    assert made.code == 0, made.stderr
    assert json.loads(made.stdout) == {"installed": True, "resources": [resource.name for resource in RESOURCES]}
    with EmbeddedServer(tmp_path / ".clarion") as address, psycopg.connect(address.url, autocommit=True) as connection:
        again = clarion_process("factory", "install").wait(60)
        assert (again.code, again.stdout) == (0, f"factory is installed already: {len(RESOURCES)} resources\n")
        ran = clarion_process("factory", "run", "--rate", "20", "--seconds", "0.5", "--json").wait(60)
        assert ran.code == 0, ran.stderr
        assert json.loads(ran.stdout)["acts"] == 10
        # The server that they joined goes on.
        row = connection.execute("SELECT count(DISTINCT correlation_id) FROM clarion.outbox").fetchone()
        assert row == (10,)


def test_run_installs_first_and_begins_with_a_run(clarion_process: Start, database: DatabaseAddress) -> None:
    process = clarion_process("factory", "run", "--rate", "5", "--seconds", "0.2", CLARION_DATABASE_URL=database.url)
    finished = process.wait(60)
    assert finished.code == 0, finished.stderr
    assert "run 1: " in finished.stdout
    # On a busy machine a little more than the time asked for goes by.
    assert re.search(r"\n1 acts in 0\.\d s, \d\.\d per second\n        1  create run\n\Z", finished.stdout)
    with psycopg.connect(database.url) as connection:
        resources = connection.execute(
            "SELECT DISTINCT resource FROM clarion.outbox WHERE resource = 'RUNS'"
        ).fetchall()
    assert resources == [("RUNS",)]


def test_ctrl_c_is_the_normal_end_of_a_run_without_one(
    clarion_process: Start, factory: DatabaseAddress, committing: Connection
) -> None:
    process = clarion_process("factory", "run", "--rate", "50", CLARION_DATABASE_URL=factory.url)
    process.wait_for_line(r"\d+ acts")
    process.interrupt()
    finished = process.wait(10)
    assert finished.code == 0, finished.stderr
    assert "per second" in finished.stdout
    assert finished.stderr == ""
    acts = committing.execute("SELECT count(DISTINCT correlation_id) AS n FROM clarion.outbox").fetchone()
    assert acts is not None
    assert f"{acts['n']} acts in" in finished.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_cut_short_says_so(
    clarion_process: Start, factory: DatabaseAddress, number: signal.Signals
) -> None:
    settings = {"CLARION_DATABASE_URL": factory.url}
    process = clarion_process("factory", "run", "--rate", "50", "--seconds", "60", **settings)
    process.wait_for_line(r"\d+ acts")
    process.signal(number)
    assert process.wait(10).code == 130


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rate", "0"], "0.0 is not in the range"),
        (["--rate", "10001"], "10001.0 is not in the range"),
        (["--rate", "many"], "not a valid float"),
        ([], "Missing option '--rate'"),
        (["--rate", "1", "--seconds", "-1"], "-1.0 is not in the range"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(clarion_process: Start, arguments: list[str], says: str) -> None:
    finished = clarion_process("factory", "run", *arguments).wait(20)
    assert finished.code == 2
    assert says in finished.stderr


def test_a_database_that_is_not_there_ends_the_command_with_3(clarion_process: Start) -> None:
    nowhere = "postgresql://postgres@/none?host=/nonexistent"
    finished = clarion_process("factory", "install", CLARION_DATABASE_URL=nowhere).wait(20)
    assert finished.code == 3
    assert "Traceback" not in finished.stderr
