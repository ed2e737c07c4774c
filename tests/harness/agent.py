"""A process of ours elsewhere (in a network namespace), asked by JSON lines: one request, one answer, in turn."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_TESTS = Path(__file__).resolve().parents[1]

Operation = Callable[..., Any]


class AgentFailed(Exception):
    """The operation raised, or the process ended; the message has its traceback."""


class Agent:
    """The asking side. `module` is run with this interpreter, behind `prefix` (`ip netns exec NAME`)."""

    def __init__(self, prefix: Sequence[str], module: str, *arguments: str, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-W", "ignore", "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_TESTS,
            env=dict(environment),
        )
        try:
            self("ready")
        except BaseException:
            self.__exit__(None, None, None)
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def __call__(self, operation: str, **parameters: Any) -> Any:
        """What the operation returns. Raises AgentFailed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([operation, parameters]).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise AgentFailed(f"the process ended with {self._process.wait(5)}") from None
        line = self._process.stdout.readline()
        if not line:
            raise AgentFailed(f"the process ended with {self._process.wait(5)}")
        answer = json.loads(line)
        if "error" in answer:
            raise AgentFailed(answer["error"])
        return answer["result"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


def answer_requests(operations: Mapping[str, Operation]) -> None:
    """The answering side: until standard input ends, which it does with the asking process."""
    for line in sys.stdin:
        operation, parameters = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"result": None if operation == "ready" else operations[operation](**parameters)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)
