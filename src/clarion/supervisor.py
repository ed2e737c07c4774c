"""The parent of `clarion serve`: starts a process for each part, starts it again when it dies, ends all together.

    all parts ready ─▶ a spare is started: it imports what router and delivery need, and waits
    a part dies ─▶ the spare is told its roles and is that part ─▶ ready ─▶ another spare is started

Most of what it takes to start an interpreter again is over before it is needed. The API's parts are started anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from clarion.core.clock import Clock
from clarion.core.errors import EnvironmentRefused, UsageInvalid

_log = logging.getLogger(__name__)

SPARE = "spare"
"""What a child is told in place of roles that it will have later."""
STOP_DEADLINE_S = 35.0
"""Longer than the longest attempt, so that requests under way can be answered and settled."""
_RESTART_FIRST_S, _RESTART_MAX_S = 0.1, 5.0
"""A part that had been healthy is started again at once; these are the waits after further deaths."""
_HEALTHY_AFTER_NS = 10_000_000_000
_SPARE_AFTER_S = 5.0
"""How long after everything is ready a spare is started, so that it takes no CPU from what has to be caught up with."""
_FINAL_EXIT_CODES = (2, 3)
_LOOK_AT_SERVER_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Part:
    """One child process: the roles it runs, and the listening socket if one of them is the API."""

    roles: frozenset[str]
    listening: socket.socket | None = None
    number: int = 1

    @property
    def name(self) -> str:
        """What the log calls it; two parts never have the same."""
        name = "+".join(sorted(self.roles))
        return name if self.number == 1 else f"{name} {self.number}"


@dataclass(slots=True)
class _Child:
    """A process that was started, and our end of the socket between us."""

    process: asyncio.subprocess.Process
    control: socket.socket


class Supervisor:
    """Runs parts until told to stop. `ready` is called once, when every part has said so."""

    def __init__(
        self,
        parts: Sequence[Part],
        database_url: str,
        clock: Clock,
        ready: Callable[[], None],
        revive: Callable[[], bool] | None = None,
    ) -> None:
        """`revive` starts an embedded server again if it died, and says whether it had."""
        self._parts = parts
        self._revive = revive
        self._database_url = database_url
        self._clock = clock
        self._ready = ready
        self._waiting_for = {part.name for part in parts}
        self._unready = set(self._waiting_for)
        self._all_ready = asyncio.Event()
        self._spare: _Child | None = None
        self._spare_taken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._interrupted = False

    async def run(self) -> bool:
        """Until SIGTERM or SIGINT; whether it was SIGINT. Raises EnvironmentRefused if a part cannot start."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        tasks = [asyncio.create_task(self._keep(part), name=part.name) for part in self._parts]
        watch = asyncio.create_task(self._watch_server())
        sparing = asyncio.create_task(self._keep_spare(), name="spare")
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            self._stopping.set()
            sparing.cancel()
            await asyncio.gather(*tasks, sparing, return_exceptions=True)
            await watch
        return self._interrupted

    async def _watch_server(self) -> None:
        """Keep the embedded server alive, if there is one."""
        while self._revive is not None and not self._stopping.is_set():
            try:
                if await asyncio.to_thread(self._revive):
                    _log.warning("the embedded PostgreSQL had died; it runs again")
            except EnvironmentRefused as error:
                _log.error("%s", error)
            try:
                await asyncio.wait_for(self._stopping.wait(), _LOOK_AT_SERVER_EVERY_S)
            except TimeoutError:
                continue

    def _interrupt(self) -> None:
        self._interrupted = True
        self._stopping.set()

    async def _keep(self, part: Part) -> None:
        """Run the part again and again until stopping."""
        wait_s = 0.0
        while not self._stopping.is_set():
            started_ns = self._clock.monotonic_ns()
            exit_code = await self._run_once(part)
            if self._stopping.is_set():
                return
            if exit_code in _FINAL_EXIT_CODES and part.name in self._waiting_for:
                blame = UsageInvalid if exit_code == UsageInvalid.exit_code else EnvironmentRefused
                raise blame(f"{part.name} could not start", "the line above says why")
            if self._clock.monotonic_ns() - started_ns > _HEALTHY_AFTER_NS:
                wait_s = 0.0
            _log.warning("%s ended with %s; starting it again in %.1f s", part.name, exit_code, wait_s)
            try:
                await asyncio.wait_for(self._stopping.wait(), wait_s)
            except TimeoutError:
                wait_s = min(max(wait_s * 2, _RESTART_FIRST_S), _RESTART_MAX_S)

    async def _start(self, roles: str, listening: socket.socket | None = None) -> _Child:
        ours, theirs = socket.socketpair()
        listen_fd = listening.fileno() if listening is not None else -1
        passed = [theirs.fileno()] + ([listen_fd] if listen_fd >= 0 else [])
        # Ctrl-C reaches the whole group. A child takes its orders from us, and one that is still importing would answer
        # with a traceback: it is born with the signal blocked. The fork comes before the first suspension.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "clarion.child",
                str(theirs.fileno()),
                str(listen_fd),
                roles,
                pass_fds=passed,
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, "CLARION_DATABASE_URL": self._database_url},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            theirs.close()
        ours.setblocking(False)
        return _Child(process, ours)

    async def _run_once(self, part: Part) -> int:
        self._unready.add(part.name)
        self._all_ready.clear()
        roles = ",".join(sorted(part.roles))
        child = None if part.listening is not None else self._take_spare(roles)
        child = child or await self._start(roles, part.listening)
        process = child.process
        listener = asyncio.create_task(self._listen(part, child.control))
        ended = asyncio.create_task(process.wait())
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({ended, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                _tell(process, signal.SIGTERM)
                await asyncio.wait({ended}, timeout=STOP_DEADLINE_S)
            if not ended.done():
                _log.error("%s did not end within %.0f s; killing it", part.name, STOP_DEADLINE_S)
                _tell(process, signal.SIGKILL)
            return await ended
        finally:
            if process.returncode is None:
                _tell(process, signal.SIGKILL)
            stop.cancel()
            listener.cancel()
            await asyncio.gather(stop, listener, return_exceptions=True)
            child.control.close()

    def _take_spare(self, roles: str) -> _Child | None:
        """The spare, told its roles; None if there is none."""
        spare = self._spare
        if spare is None or spare.process.returncode is not None:
            return None
        try:
            spare.control.send(roles.encode())
        except OSError:  # it is about to be gone
            return None
        self._spare = None
        self._spare_taken.set()
        return spare

    async def _keep_spare(self) -> None:
        """Have a spare while all parts are ready, if one of them can be replaced by it."""
        if all(part.listening is not None for part in self._parts):
            return
        while True:
            await self._all_ready.wait()
            await asyncio.sleep(_SPARE_AFTER_S)
            if not self._all_ready.is_set():
                continue
            self._spare_taken.clear()
            try:
                spare = self._spare = await self._start(SPARE)
            except OSError as error:
                _log.warning("no spare process can be started: %s", error)
                continue
            ended = asyncio.create_task(spare.process.wait())
            taken = asyncio.create_task(self._spare_taken.wait())
            try:
                await asyncio.wait({ended, taken}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                taken.cancel()
                if self._spare is spare:
                    if ended.done():
                        _log.warning("the spare process ended with %s", ended.result())
                    self._spare = None
                    spare.control.close()
                    _tell(spare.process, signal.SIGKILL)
                    await ended
                ended.cancel()

    async def _listen(self, part: Part, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while (said := await loop.sock_recv(control, 64)) != b"":
            if said.startswith(b"ready"):
                self._now_ready(part.name)

    def _now_ready(self, name: str) -> None:
        self._unready.discard(name)
        if not self._unready:
            self._all_ready.set()
        if name in self._waiting_for:
            self._waiting_for.discard(name)
            if not self._waiting_for:
                self._ready()


def _tell(process: asyncio.subprocess.Process, request: signal.Signals) -> None:
    """The signal, unless the process has just ended by itself."""
    with suppress(ProcessLookupError):
        process.send_signal(request)
