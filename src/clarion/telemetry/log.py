"""Logs to stderr, one line an event, so that stdout stays for answers."""

from __future__ import annotations

import logging
import sys


def configure(level: str, role: str) -> None:
    """Send this process's logs to stderr as `time level role logger message`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {role} %(name)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for talkative in ("alembic", "asyncio", "uvicorn.error"):
        logging.getLogger(talkative).setLevel(max(logging.WARNING, root.level))
