"""`clarion serve` as a child of the demo: the very command, which ends when its standard input ends.

The demo holds the other end of that pipe. However the demo dies, the kernel closes it, and nothing is left behind.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from clarion.cli.main import run


def _end_with_the_demo() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Run `clarion serve`; its exit code."""
    threading.Thread(target=_end_with_the_demo, name="parent", daemon=True).start()
    return run(["serve"])


if __name__ == "__main__":
    sys.exit(main())
