"""Benchmarks as proofs: their figures, with their floors as targets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from proof.figures import Figure

BENCH = Path(__file__).resolve().parents[2] / "bench"
_RATES = ("/s", "per second")


def measured(bench: str, *options: str, ratio_at_least: bool = False) -> list[Figure]:
    """The figures of a script in bench/. A floor is the least of a rate, and the most of anything else.

    With `ratio_at_least` a ratio's floor is its least, too. Raises CalledProcessError when the script fails.
    """
    done = subprocess.run(
        [sys.executable, str(BENCH / bench), *options, "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    least = (*_RATES, "ratio") if ratio_at_least else _RATES
    return [
        Figure(
            f"{bench.removesuffix('.py')}: {row['name'].strip()}",
            row["value"],
            row["unit"],
            row["floor"],
            "at least" if row["unit"].endswith(least) else "at most",
        )
        for row in json.loads(done.stdout)["figures"]
    ]
