from __future__ import annotations

from attack.secrecy import secrecy
from harness.deployment import Deployment


def test_secrets_are_in_nothing_that_a_whole_run_produces(deployment: Deployment) -> None:
    searched = secrecy(deployment, all_files=False)
    assert searched.hits == []
    assert searched.places > 150
    assert searched.events > 20
