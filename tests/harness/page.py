"""A page of the documentation, followed by a test block by block, to the letter."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path


class Page:
    """The page's blocks, and a shell that goes from one to the next: what is exported or defined stays.

    `said` has what stands on the page, and what stands in its place here.
    """

    def __init__(self, page: Path, directory: Path, environment: dict[str, str], said: dict[str, str]) -> None:
        self.directory = directory
        self.environment = environment
        self.said = said
        self._state = directory / ".state"
        self._state.touch()
        self._left = re.findall(r"```(sh|sql|python)\n(.*?)```", page.read_text(), re.DOTALL)

    def next(self, language: str, holds: str) -> str:
        """The next block, which is of this language and holds this: all are followed, in their order."""
        found, code = self._left.pop(0)
        assert (found, holds in code) == (language, True), code
        for word, instead in self.said.items():
            code = code.replace(word, instead)
        return str(code)

    def run(self, holds: str) -> str:
        """What the next block, a shell's, prints."""
        return self.shell(self.next("sh", holds))

    def shell(self, code: str) -> str:
        """What this prints, run where the blocks are."""
        script = f"set -euo pipefail\n. {self._state}\n{code}\n{{ export -p; declare -f; }} > {self._state}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def exported(self, name: str) -> str:
        """A variable that a block exported."""
        done = subprocess.run(
            ["bash", "-c", f'. {self._state}; printf %s "${name}"'], capture_output=True, text=True, check=True
        )
        return done.stdout

    @property
    def is_at_its_end(self) -> bool:
        return not self._left
