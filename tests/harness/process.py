"""The real `clarion` command in a process group of its own, with its output collected line by line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

CLARION = str(Path(sys.executable).parent / "clarion")


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command left: exit code and whole output."""

    code: int
    stdout: str
    stderr: str


class ClarionProcess:
    """One running command. `wait_for_line` waits for a named moment; `stop` and `kill` end the whole group."""

    def __init__(self, command: list[str], environment: Mapping[str, str], directory: Path) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
        )
        self._moved = threading.Condition()
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.stdout), (self.process.stderr, self.stderr))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for_line(self, pattern: str, seconds: float = 30, *, stderr: bool = False) -> re.Match[str]:
        """The first line that matches. Fails with the output so far when the process ends or time is up."""
        lines = self.stderr if stderr else self.stdout
        waited_until = time.monotonic() + seconds
        looked_at = 0
        with self._moved:
            while True:
                for line in lines[looked_at:]:
                    if found := re.search(pattern, line):
                        return found
                looked_at = len(lines)
                ended = not any(reader.is_alive() for reader in self._readers)
                left = waited_until - time.monotonic()
                if ended or left <= 0:
                    why = f"ended with {self.process.poll()}" if ended else f"did not in {seconds} s"
                    raise AssertionError(f"no line {pattern!r}: the process {why}\n{self.output()}")
                self._moved.wait(min(left, 1))

    def wait(self, seconds: float = 30) -> Finished:
        """What came out, once the command has ended by itself."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s\n{self.output()}") from None
        return self._finished(code)

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to the group, as a terminal sends it."""
        self.signal(signal.SIGINT)

    def signal(self, number: signal.Signals) -> None:
        """A signal to the whole group; nothing if it is gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def stop(self, seconds: float = 20) -> Finished:
        """Asks the command to end (SIGTERM to the parent alone), and kills what is left after `seconds`."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        return self.kill()

    def kill(self) -> Finished:
        """SIGKILL to the whole group."""
        self.signal(signal.SIGKILL)
        return self._finished(self.process.wait(10))

    def output(self) -> str:
        return "\n".join(["--- stdout", *self.stdout[-50:], "--- stderr", *self.stderr[-50:]])

    def _finished(self, code: int) -> Finished:
        # A child that lives on holds the pipes open: it gets a moment, no more.
        for reader in self._readers:
            reader.join(5)
        return Finished(
            code, "".join(f"{line}\n" for line in self.stdout), "".join(f"{line}\n" for line in self.stderr)
        )

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._moved:
                    lines.append(line.rstrip("\n"))
                    self._moved.notify_all()
        with self._moved:
            self._moved.notify_all()


def clean_environment(home: Path, **added: str) -> dict[str, str]:
    """An environment without settings of this machine's user: nothing of CLARION_*, PG*, PYTHON*."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"HOME": str(home), "LANG": "C.UTF-8", "NO_COLOR": "1"} | added


def parents_of_all() -> dict[int, int]:
    """The parent of every process there is, by process id."""
    processes = Path("/proc")
    if not processes.exists():
        listed = subprocess.run(["ps", "-axo", "pid=,ppid="], check=True, capture_output=True, text=True).stdout
        return {int(pid): int(parent) for pid, parent in (line.split() for line in listed.splitlines())}
    found = {}
    for process in processes.glob("[0-9]*"):
        # It may end while we look.
        with suppress(OSError):
            found[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return found


def children_of(pid: int) -> list[int]:
    """The processes that `pid` started and that still run."""
    return sorted(child for child, parent in parents_of_all().items() if parent == pid)


def tree_of(pid: int) -> list[int]:
    """The process and all that descend from it."""
    parents = parents_of_all()
    tree = [pid]
    for member in tree:
        tree += [child for child, parent in parents.items() if parent == member]
    return tree
