"""The parent of `clarion serve`: starts a process for each part, starts it again when it dies, ends all together."""

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

STOP_DEADLINE_S = 35.0
"""Longer than the longest attempt, so that requests under way can be answered and settled."""
_RESTART_FIRST_S, _RESTART_MAX_S = 0.1, 5.0
_HEALTHY_AFTER_NS = 10_000_000_000
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
        self._stopping = asyncio.Event()
        self._interrupted = False

    async def run(self) -> bool:
        """Until SIGTERM or SIGINT; whether it was SIGINT. Raises EnvironmentRefused if a part cannot start."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        tasks = [asyncio.create_task(self._keep(part), name=part.name) for part in self._parts]
        watch = asyncio.create_task(self._watch_server())
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            self._stopping.set()
            await asyncio.gather(*tasks, return_exceptions=True)
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
        wait_s = _RESTART_FIRST_S
        while not self._stopping.is_set():
            started_ns = self._clock.monotonic_ns()
            exit_code = await self._run_once(part)
            if self._stopping.is_set():
                return
            if exit_code in _FINAL_EXIT_CODES and part.name in self._waiting_for:
                blame = UsageInvalid if exit_code == UsageInvalid.exit_code else EnvironmentRefused
                raise blame(f"{part.name} could not start", "the line above says why")
            if self._clock.monotonic_ns() - started_ns > _HEALTHY_AFTER_NS:
                wait_s = _RESTART_FIRST_S
            _log.warning("%s ended with %s; starting it again in %.1f s", part.name, exit_code, wait_s)
            try:
                await asyncio.wait_for(self._stopping.wait(), wait_s)
            except TimeoutError:
                wait_s = min(wait_s * 2, _RESTART_MAX_S)

    async def _run_once(self, part: Part) -> int:
        ours, theirs = socket.socketpair()
        listen_fd = part.listening.fileno() if part.listening is not None else -1
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
                ",".join(sorted(part.roles)),
                pass_fds=passed,
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, "CLARION_DATABASE_URL": self._database_url},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        theirs.close()
        ours.setblocking(False)
        listener = asyncio.create_task(self._listen(part, ours))
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
            ours.close()

    async def _listen(self, part: Part, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while (said := await loop.sock_recv(control, 64)) != b"":
            if said.startswith(b"ready") and part.name in self._waiting_for:
                self._waiting_for.discard(part.name)
                if not self._waiting_for:
                    self._ready()


def _tell(process: asyncio.subprocess.Process, request: signal.Signals) -> None:
    """The signal, unless the process has just ended by itself."""
    with suppress(ProcessLookupError):
        process.send_signal(request)
