"""500 worlds, each from a seed: whatever happens in them, the oracle has nothing to object to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clarion.delivery.engine import Engine
from simulation import __main__ as command
from simulation.broken import BROKEN
from simulation.trace import UnknownStep, effect_text, input_text
from simulation.world import simulate

SEEDS = 500
FOUND = (37, 303, 521, 730)
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


@pytest.mark.parametrize("broken", BROKEN, ids=lambda engine: engine.__name__)
def test_the_oracle_finds_an_engine_that(broken: type[Engine]) -> None:
    """Each within a few seeds, and by a check of the oracle or the engine's own assertions."""
    assert any(simulate(seed, engine_class=broken).violation for seed in range(60))


@pytest.mark.parametrize("seed", FOUND)
def test_a_seed_that_once_found_a_fault_finds_none(seed: int) -> None:
    """`test_found.py` tells what they were."""
    assert simulate(seed).violation is None


def test_days_of_trouble_end_with_everything_settled() -> None:
    result = simulate(3, days=1)
    assert result.violation is None
    assert result.virtual_s >= 86_400


def test_an_input_or_effect_that_is_new_fails_in_one_place_and_says_where() -> None:
    for text_of in (input_text, effect_text):
        with pytest.raises(UnknownStep, match="tests/simulation does not know"):
            text_of(object())  # type: ignore[arg-type]  # what no type allows is the case


def test_the_command_names_the_seed_and_ends_with_1_on_a_violation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "simulate", lambda seed, **_: simulate(seed, engine_class=BROKEN[0]))
    monkeypatch.setattr(sys, "argv", ["simulate", "--first", "3", "--seeds", "2"])
    assert command.main() == 1
    told = capsys.readouterr().out
    assert "seed 3: Violation" in told
    assert "replay: scripts/simulate --seed 3 --trace" in told
    assert "2 violations" in told
