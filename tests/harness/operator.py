"""An operator at the command line: `clarion …` over the API of a whole deployment."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from clarion.access.principal import Role
from clarion.cli.main import run
from harness.api import new_key
from harness.deployment import Deployment
from harness.process import ClarionProcess, Finished, clean_environment


@dataclass(frozen=True, slots=True)
class Operator:
    """Runs commands with one key, in the directory `home`. `begin` starts one as a process of its own.

    `run` carries one out in this process, as `clarion` does after its start: starting it takes longer than most commands.
    `ask` reads what `--json` prints.
    """

    deployment: Deployment
    start: Callable[..., ClarionProcess]
    home: Path
    url: str
    key: str

    def begin(self, *arguments: str, **settings: str) -> ClarionProcess:
        return self.start(*arguments, **self._settings(settings))

    def run(self, *arguments: str, **settings: str) -> Finished:
        done = _run_here(arguments, clean_environment(self.home, **self._settings(settings)), self.home)
        assert self.key not in done.stdout + done.stderr
        return done

    def _settings(self, given: Mapping[str, str]) -> dict[str, str]:
        return {"CLARION_API_URL": self.url, "CLARION_API_KEY": self.key, **given}

    def done(self, *arguments: str, **settings: str) -> str:
        """What a command printed that must end with 0."""
        done = self.run(*arguments, **settings)
        assert done.code == 0, done.stderr
        return done.stdout

    def ask(self, *arguments: str, **settings: str) -> Any:
        return json.loads(self.done(*arguments, "--json", **settings))

    def refused(self, *arguments: str, code: int = 4, **settings: str) -> str:
        """What a command said on standard error that must end with this code, and print nothing."""
        refused = self.run(*arguments, **settings)
        assert refused.code == code, refused
        assert not refused.stdout
        return refused.stderr

    def of(self, role: Role) -> Operator:
        """Another client of the same organisation."""
        key = new_key(self.deployment.database, "default", role, role.lower())
        return replace(self, key=key)

    def make_receiver(self, name: str, *options: str, path: str = "/ok") -> str:
        """Its id."""
        made = self.ask("receivers", "create", name, self.deployment.receiver.uri(path), *options)
        return str(made["webhookReceiver"]["id"])


def captured(match: re.Match[str] | None) -> str:
    """The first group of what has to be found."""
    assert match is not None
    return match[1]


def _run_here(arguments: Sequence[str], environment: Mapping[str, str], directory: Path) -> Finished:
    """What `clarion ARGUMENTS…` says in this environment and directory, without a terminal. A fault of it is raised."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with (
        Path(os.devnull).open() as nothing,
        patch.dict(os.environ, environment, clear=True),
        patch.object(sys, "stdin", nothing),
        chdir(directory),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = run(list(arguments))
    return Finished(code, _written(out), _written(err))


def _written(output: io.TextIOWrapper) -> str:
    """As a process's output is read: lines end with a newline alone."""
    output.seek(0)
    return io.TextIOWrapper(output.detach(), encoding="utf-8").read()
