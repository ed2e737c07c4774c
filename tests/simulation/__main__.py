"""Runs worlds from seeds, as many as wanted; exit code 1 if the oracle objects to one.

scripts/simulate [--seeds N] [--first N] [--days D]
scripts/simulate --seed N [--trace]
"""

from __future__ import annotations

import argparse
import sys
import time

from simulation.world import Result, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=500, help="how many (500)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--trace", action="store_true", help="every input and effect, a line each")
    parser.add_argument(
        "--days", "--virtual-days", type=float, help="days of trouble, by the virtual clock, instead of a short run"
    )
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds) if options.seed is None else [options.seed]
    begun, results = time.monotonic(), list[Result]()
    for seed in seeds:
        result = simulate(seed, days=options.days, show=print if options.trace else None)
        results.append(result)
        if result.violation is not None:
            days = f" --days {options.days:g}" if options.days is not None else ""
            print(
                f"seed {seed}: {result.violation}\n  replay: scripts/simulate --seed {seed} --trace{days}", flush=True
            )
        if len(results) % (1 if options.days else 100) == 0 and len(seeds) > 1:
            print(f"{len(results)} of {len(seeds)} seeds", file=sys.stderr, flush=True)
    violations = sum(result.violation is not None for result in results)
    print(
        f"{len(results)} seeds, {sum(r.steps for r in results):,} steps, {sum(r.events for r in results):,} events, "
        f"{sum(r.requests for r in results):,} requests, {sum(r.virtual_s for r in results) / 86_400:.1f} virtual days, "
        f"{violations} violations, {time.monotonic() - begun:.1f} s"
    )
    if len(results) == 1:
        print(f"digest {results[0].digest}")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
