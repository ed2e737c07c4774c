from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clarion.access.principal import Role
from harness.api import new_key
from harness.deployment import Deployment
from harness.operator import Operator
from harness.process import ClarionProcess

ALL_ROLES = ("--role", "api", "--role", "router", "--role", "delivery")


@pytest.fixture(scope="module")
def served_deployment(shared_deployment: Deployment) -> Iterator[tuple[Deployment, str, str]]:
    """A deployment that runs, its API's address, and an administrator's key; one for all tests of a file."""
    shared_deployment.attach()
    serve = shared_deployment.serve(*ALL_ROLES, CLARION_LISTEN="127.0.0.1:0")
    url = serve.wait_for_line("^clarion ready on (http://.*)$")[1]
    yield shared_deployment, url, new_key(shared_deployment.database, "default", Role.ADMINISTRATOR, "administrator")
    serve.stop()


@pytest.fixture
def operator(
    served_deployment: tuple[Deployment, str, str], clarion_process: Callable[..., ClarionProcess], tmp_path: Path
) -> Operator:
    """Somebody with an administrator's key, in a directory of their own."""
    deployment, url, key = served_deployment
    return Operator(deployment, clarion_process, tmp_path, url, key)
