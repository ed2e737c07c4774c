"""What the receiver is told at its start."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Setup:
    """Files (PEM), the factory's address, and each path's secret. It goes through a pipe, unseen by others."""

    certificate: str
    key: str
    database_url: str
    secrets: dict[str, str]

    def line(self) -> bytes:
        """As it goes through the pipe."""
        return json.dumps(asdict(self)).encode() + b"\n"


def read_setup(line: bytes) -> Setup:
    """The setup in a line."""
    values: dict[str, Any] = json.loads(line)
    return Setup(**values)
