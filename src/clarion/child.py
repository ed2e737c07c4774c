"""One process of `clarion serve`: started by the supervisor, never by hand.

    python -m clarion.child CONTROL_FD LISTEN_FD ROLES

The control socket carries `ready` lines up, and its end means that the parent died: then this process ends too. With `spare` in
place of roles it imports what router and delivery need and waits until the socket brings them; it does nothing meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path

import uvloop

from clarion.core.errors import ClarionError
from clarion.core.settings import Settings, load_settings
from clarion.database.address import DatabaseAddress
from clarion.supervisor import SPARE
from clarion.telemetry.log import configure

_log = logging.getLogger(__name__)

ORPHAN_GRACE_S = 1.0
STANDBY_COUNTS_AS_READY_S = 1.5
FILES_MAX = 65_536


async def _run(settings: Settings, control: socket.socket, listen_fd: int, roles: frozenset[str]) -> None:
    from clarion.app import run_api, run_engine

    assert settings.database_url is not None, "the supervisor hands the address down"
    address = DatabaseAddress(settings.database_url.get_secret_value())
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    # Ctrl-C reaches the whole process group; the supervisor decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control.setblocking(False)

    def parent_spoke() -> None:
        if control.recv(1) == b"":
            loop.remove_reader(control)
            _log.warning("the parent process is gone; ending")
            stopping.set()
            loop.call_later(ORPHAN_GRACE_S, os._exit, 1)

    loop.add_reader(control, parent_spoke)
    active: set[str] = set()
    told = False

    def ready() -> None:
        nonlocal told
        if not told:
            told = True
            # What was made by now stays.
            gc.collect()
            gc.freeze()
            control.send(b"ready\n")

    def working(role: str, now: bool) -> None:
        (active.add if now else active.discard)(role)
        if roles <= active:
            ready()

    job: Coroutine[None, None, None]
    if "api" in roles:
        job = run_api(settings, address, socket.socket(fileno=listen_fd), stopping, ready)
    else:
        job = run_engine(settings, address, roles, stopping, working)
        loop.call_later(STANDBY_COUNTS_AS_READY_S, ready)
    await job


def _wait_as_spare(control: socket.socket) -> str:
    """The roles that the parent gives this process when it needs it; empty when the parent is gone."""
    from clarion.app import import_engine

    _name_process(SPARE)
    import_engine()
    # What was imported stays, and is not looked through again when the process has its roles.
    gc.collect()
    gc.freeze()
    return control.recv(64).decode()


def _name_process(name: str) -> None:
    """What `ps -o comm` and `top` call this process, where they can be told (Linux; 15 characters)."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(f"clarion {name}")


def _allow_many_connections() -> None:
    """A connection is a file: of them the login's limit, often 1,024, is a few hundred receivers' worth."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(FILES_MAX, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> int:
    """Run the roles of the command line; the exit code."""
    _allow_many_connections()
    # What is made is freed by counting. Looking for cycles at each 700th object, through all modules while they are
    # imported and through all events in memory later, finds none.
    gc.set_threshold(50_000, 20, 20)
    control = socket.socket(fileno=int(sys.argv[1]))
    roles = sys.argv[3]
    # glibc's own limit for a server that does not answer is 5 s, twice; a lookup has 2 s here, and its thread should not
    # outlive it for long.
    os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:2")
    try:
        settings = load_settings()
        if roles == SPARE and not (roles := _wait_as_spare(control)):
            return 0
        name = roles.replace(",", "+")
        _name_process(name)
        configure(settings.log_level, name)
        uvloop.run(_run(settings, control, int(sys.argv[2]), frozenset(roles.split(","))))
    except ClarionError as error:
        _log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
