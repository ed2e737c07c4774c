"""500 worlds, each from a seed: whatever happens in them, the oracle has nothing to object to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clarion.core.clock import Now
from clarion.delivery.engine import Engine
from clarion.delivery.event import Event
from clarion.delivery.receiver import Receiver
from simulation.world import simulate

SEEDS = 500
PART = 50


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_no_seed_ends_in_a_violation(first: int) -> None:
    requests_count = 0
    for seed in range(first, first + PART):
        result = simulate(seed)
        requests_count += result.requests
        assert result.violation is None, f"seed {seed}: {result.violation}\nscripts/simulate --seed {seed} --trace"
    assert requests_count > 1000, "worlds in which nothing happens prove nothing"


def test_a_seed_repeats_to_the_byte_in_another_process_too() -> None:
    code = "import sys; sys.path.insert(0, '.'); from simulation.world import simulate; print(simulate(7).digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert digests == {simulate(7).digest}


class ForgetsLanes(Engine):
    """Sends what follows though its head is not settled."""

    def _keep(self, receiver: Receiver, event: Event, now: Now) -> None:
        event.lane = event.queue_id
        super()._keep(receiver, event, now)


class ForgetsOwnership(Engine):
    """Goes on sending for shards that it is giving up."""

    def _shards_draining(self, shards: object, now: Now) -> None:
        pass


@pytest.mark.parametrize("broken", [ForgetsLanes, ForgetsOwnership])
def test_a_broken_engine_is_caught(broken: type[Engine]) -> None:
    assert any(simulate(seed, engine_class=broken).violation for seed in range(60))
