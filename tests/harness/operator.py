"""An operator at the command line: `clarion …` over the API of a whole deployment."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clarion.access.principal import Role
from harness.api import new_key
from harness.deployment import Deployment
from harness.process import ClarionProcess, Finished


@dataclass(frozen=True, slots=True)
class Operator:
    """Runs commands with one key. `begin` starts one, `run` waits for its end, `ask` reads what `--json` prints."""

    deployment: Deployment
    start: Callable[..., ClarionProcess]
    url: str
    key: str

    def begin(self, *arguments: str, **settings: str) -> ClarionProcess:
        return self.start(*arguments, **{"CLARION_API_URL": self.url, "CLARION_API_KEY": self.key} | settings)

    def run(self, *arguments: str, **settings: str) -> Finished:
        done = self.begin(*arguments, **settings).wait()
        assert "Traceback" not in done.stderr, done.stderr
        assert self.key not in done.stdout + done.stderr
        return done

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
        return Operator(self.deployment, self.start, self.url, key)

    def make_receiver(self, name: str, *options: str, path: str = "/ok") -> str:
        """Its id."""
        made = self.ask("receivers", "create", name, self.deployment.receiver.uri(path), *options)
        return str(made["webhookReceiver"]["id"])
