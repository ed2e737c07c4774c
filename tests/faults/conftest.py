"""The deployment that faults are tried on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clarion.database.address import DatabaseAddress
from harness.deployment import Deployment
from harness.process import ClarionProcess


@pytest.fixture
def deployment(
    database: DatabaseAddress, tmp_path: Path, clarion_process: Callable[..., ClarionProcess]
) -> Iterator[Deployment]:
    """An application with a table, a receiver process, nothing attached and nothing running yet."""
    with Deployment(database, tmp_path, clarion_process) as made:
        yield made
