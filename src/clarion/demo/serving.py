"""`clarion serve` as a child of the demo: the very command, begun when the demo says so.

    python -m clarion.demo.serving

Standard input: a line says that it may begin; its end means that the demo is gone, however it died, and ends this
process too. From its start it holds the embedded server, so that the last one out, whoever that is, stops it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Final

import click

from clarion.cli.main import run
from clarion.core.errors import ClarionError
from clarion.core.settings import load_settings
from clarion.database.embedded import opened

BEGIN: Final = b"\n"


def _end_with_the_demo() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> int:
    """Run `clarion serve`; its exit code, or 0 when it never had to begin."""
    try:
        with opened(None, load_settings().data_dir):
            # Until `serve` has its own handler, a termination leaves the embedded server in order too.
            signal.signal(signal.SIGTERM, _leave)
            if os.read(0, len(BEGIN)) != BEGIN:
                return 0
            threading.Thread(target=_end_with_the_demo, name="demo", daemon=True).start()
            return run(["serve"])
    except ClarionError as error:
        click.echo(f"clarion: {error.message}\n         {error.hint}", err=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
