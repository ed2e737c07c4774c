"""A process waits in reserve and takes the place of a part that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from harness.deployment import Deployment
from harness.process import ClarionProcess, children_of, clean_environment

pytestmark = [
    pytest.mark.data_path,
    pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="processes are told apart by /proc"),
]

# What a spare does, as far as both roles work; prints what had not been imported before.
BEGIN = """
import asyncio, sys
import clarion.child
import uvloop
from clarion.app import import_engine, run_engine
from clarion.core.settings import load_settings
from clarion.database.address import DatabaseAddress

import_engine()
before = set(sys.modules)

async def main():
    settings, stopping, active = load_settings(), asyncio.Event(), set()
    def working(role, now):
        if now:
            active.add(role)
        if len(active) == 2:
            stopping.set()
    address = DatabaseAddress(settings.database_url.get_secret_value())
    await run_engine(settings, address, frozenset({"router", "delivery"}), stopping, working)

uvloop.run(main())
print(*sorted(set(sys.modules) - before))
"""


def _named(serve: ClarionProcess, name: str) -> list[int]:
    found = []
    for pid in children_of(serve.pid):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().rstrip("\n") == f"clarion {name}"[:15]:
                found.append(pid)
    return found


def _is_the_engine(serve: ClarionProcess, pid: int) -> bool:
    return _named(serve, "delivery+router") == [pid]


def _wait_until(holds: Callable[[], bool], serve: ClarionProcess) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, serve.output()
        time.sleep(0.02)


def test_a_part_that_is_killed_is_replaced_by_the_spare_again_and_again(deployment: Deployment) -> None:
    deployment.attach()
    deployment.subscribe(deployment.register())
    serve = deployment.serve()
    for item in range(1, 4):
        _wait_until(lambda: len(_named(serve, "spare")) == 1, serve)
        (spare,) = _named(serve, "spare")
        (victim,) = _named(serve, "delivery+router")
        os.kill(victim, signal.SIGKILL)
        _wait_until(partial(_is_the_engine, serve, spare), serve)
        deployment.connection.execute("INSERT INTO items DEFAULT VALUES")
        deployment.receiver.wait_for(item, timeout_s=30)
    deployment.wait_until_settled()
    ended = serve.stop()
    assert ended.code == 0
    assert "killing it" not in ended.stderr


def test_a_spare_that_is_killed_is_replaced_and_disturbs_nobody(deployment: Deployment) -> None:
    serve = deployment.serve()
    _wait_until(lambda: len(_named(serve, "spare")) == 1, serve)
    (spare,) = _named(serve, "spare")
    working = _named(serve, "delivery+router")
    os.kill(spare, signal.SIGKILL)
    _wait_until(lambda: _named(serve, "spare") not in ([], [spare]), serve)
    assert _named(serve, "delivery+router") == working


def test_a_spare_has_no_session_of_the_database(deployment: Deployment) -> None:
    serve = deployment.serve()
    _wait_until(lambda: len(_named(serve, "spare")) == 1, serve)
    (spare,) = _named(serve, "spare")

    def waits() -> bool:
        return "unix_stream" in Path(f"/proc/{spare}/wchan").read_text()

    _wait_until(waits, serve)
    sockets = [path for path in Path(f"/proc/{spare}/fd").iterdir() if str(path.readlink()).startswith("socket:")]
    assert len(sockets) == 1, "the one to its parent"


def test_a_spare_has_imported_all_that_it_will_need(deployment: Deployment) -> None:
    environment = clean_environment(deployment.directory) | {
        "CLARION_DATABASE_URL": deployment.database.url,
        "CLARION_SECRET_KEY_FILE": str(deployment.directory / "secret.key"),
    }
    ended = subprocess.run(
        [sys.executable, "-c", BEGIN], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "\n"), ended.stderr
