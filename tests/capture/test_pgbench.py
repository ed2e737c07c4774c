from __future__ import annotations

import pytest

from harness import pgbench
from harness.deployment import Deployment

pytestmark = pytest.mark.data_path


def test_pgbenchs_sums_are_the_same_at_the_receiver(deployment: Deployment) -> None:
    pgbench.prepare(deployment, scale=2)
    receiver = deployment.register()
    for name in pgbench.TABLES:
        deployment.subscribe(receiver, f"PGBENCH_{name.upper()}", ["UPDATE"])
    serving = deployment.serve()
    outcome = pgbench.run(deployment, seconds=4, per_second=100)
    serving.stop()
    assert outcome.transactions > 100
    assert outcome.changes > 300
    assert outcome.exact, outcome


def test_its_history_has_no_key_and_is_refused_in_words_that_help(deployment: Deployment) -> None:
    pgbench.prepare(deployment, scale=1)
    refused = deployment.command("attach", "--table", "pgbench_history", "--resource", "PGBENCH_HISTORY")
    assert refused.code == 2
    assert "public.pgbench_history has no primary key" in refused.stderr
    assert "name the columns of a unique, not null, not deferrable key" in refused.stderr
