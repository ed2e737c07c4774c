"""The two processes beside the demo: `clarion serve` and the receiver. Each ends when the demo does, in any way."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from types import TracebackType
from typing import Final, Self

from clarion.core.errors import CheckFailed, ClarionError, EnvironmentRefused, UsageInvalid
from clarion.demo.certificates import HOST
from clarion.demo.delivery import Delivery, read_report
from clarion.demo.receiver_setup import Setup
from clarion.demo.serving import BEGIN

_READY_SECONDS_MAX: Final = 60.0
_STOP_SECONDS_MAX: Final = 40.0
"""Longer than `clarion serve` gives its own children."""
_READY_LINE: Final = re.compile(r"clarion ready on (http://\S+)")


class Serve:
    """`clarion serve` in a session of its own, so that Ctrl-C reaches the demo alone. Its log goes to a file.

    Made early, it does its imports and holds the embedded server; `begin` lets it serve.
    """

    def __init__(self, environment: Mapping[str, str], log_file: Path) -> None:
        self._log_file = log_file
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "clarion.demo.serving"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(environment),
                start_new_session=True,
            )
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        threading.Thread(target=self._read, name="serve", daemon=True).start()

    def begin(self) -> str:
        """The API's address, as `http://127.0.0.1:8400`, once it is ready. Raises the error that ended it, as its own."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(BEGIN)
            self._process.stdin.flush()
        waited_until = monotonic() + _READY_SECONDS_MAX
        while (left := waited_until - monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except Empty:
                break
            if line is None:
                raise self.failure()
            if found := _READY_LINE.match(line):
                return found[1]
        raise CheckFailed(f"clarion serve was not ready within {_READY_SECONDS_MAX:.0f} s", f"see {self._log_file}")

    def assert_alive(self) -> None:
        """Raises the error that ended it, if it ended."""
        if self._process.poll() is not None:
            raise self.failure()

    def failure(self) -> ClarionError:
        """Why it ended, from the last words that it meant for people."""
        code = self._process.wait(_STOP_SECONDS_MAX)
        lines = self._log_file.read_text(errors="replace").splitlines()
        kind = {2: UsageInvalid, 3: EnvironmentRefused}.get(code, CheckFailed)
        for number in range(len(lines) - 1, -1, -1):
            if lines[number].startswith("clarion: "):
                hint = lines[number + 1].strip() if number + 1 < len(lines) and lines[number + 1][:1] == " " else ""
                if "the line above says why" in hint:
                    hint = f"see {self._log_file}"
                return kind(lines[number].removeprefix("clarion: "), hint)
        return kind(f"clarion serve ended with {code}", f"see {self._log_file}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What is under way is finished, then it ends."""
        _end(self._process)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.decode(errors="replace"))
        self._lines.put(None)


class ReceiverProcess:
    """The receiver from the demo's side: its port is known from the start, it serves from `begin` on."""

    def __init__(self, log_file: Path) -> None:
        self._log_file = log_file
        with socket.create_server((HOST, 0)) as listening, log_file.open("wb") as log:
            self.base_uri: Final = f"https://{HOST}:{listening.getsockname()[1]}"
            self._process = subprocess.Popen(
                [sys.executable, "-m", "clarion.demo.receiver", str(listening.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=[listening.fileno()],
                start_new_session=True,
            )
        self._reports: SimpleQueue[Delivery | None] = SimpleQueue()
        self._ready = threading.Event()
        threading.Thread(target=self._read, name="receiver", daemon=True).start()

    def begin(self, setup: Setup) -> None:
        """Hands the secrets over and waits until it serves. Raises CheckFailed when it does not."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(setup.line())
            self._process.stdin.flush()
        waited_until = monotonic() + _READY_SECONDS_MAX
        while not self._ready.wait(0.05):
            if self._process.poll() is not None:
                raise self._ended()
            if monotonic() > waited_until:
                raise CheckFailed("the demo's receiver does not start", f"see {self._log_file}")

    def next_report(self, timeout_seconds: float) -> Delivery | None:
        """What it reports next; None when nothing came in time. Raises CheckFailed once it has ended."""
        try:
            report = self._reports.get(timeout=max(0.0, timeout_seconds))
        except Empty:
            return None
        if report is None:
            raise self._ended()
        return report

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self._process)

    def _ended(self) -> CheckFailed:
        return CheckFailed(
            f"the demo's receiver ended with {self._process.wait(_STOP_SECONDS_MAX)}", f"see {self._log_file}"
        )

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            report = read_report(line)
            if report is None:
                self._ready.set()
            else:
                self._reports.put(report)
        self._reports.put(None)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Closes the pipe that the process watches and waits until it has ended, in the last resort by force."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(_STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
