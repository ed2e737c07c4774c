"""How many changes a second the whole path carries without falling behind, and the CPU that one delivery takes.

    .venv/bin/python bench/throughput.py [--fan-out 1,3] [--seconds 5] [--runs 3] [--json]

Writers commit single rows at an even rate; what waits in outbox and queue is looked at twice a second. A rate is
sustained if the backlog's mean over the last third of the step exceeds that of the first third by no more than 5 % of what
was delivered in between. The rate is raised in steps until one is not sustained, then looked for once in between; later
runs, each on a fresh server, begin where the first one ended. 20 receivers over TLS, every attempt and answer stored and
checked. CPU per delivery is that of the product's processes and of their sessions in PostgreSQL, at the highest sustained
rate.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass

from figures import Figure, Figures, numbers, options
from rig import Rig, cpu_us, processes_of, rig, spent_us
from writers import pgbench_program

START_RATE = {1: 2000.0, 3: 1000.0}
SAMPLE_EVERY_S = 0.5
GROWTH_MAX = 0.05
WRITERS_KEPT_UP = 0.95
STRIDE_FIRST, STRIDE_LATER = 1.4, 1.15


@dataclass(frozen=True, slots=True)
class Step:
    """One rate, held for a while. Rates per second, backlog in deliveries, CPU in microseconds per delivery."""

    offered: float
    changes: float
    deliveries: float
    backlog_largest: int
    sustained: bool
    process_us: float
    backend_us: float

    @property
    def writers_are_the_limit(self) -> bool:
        return self.changes < WRITERS_KEPT_UP * self.offered


def hold(at: Rig, serve_pids: list[int], rate: float, seconds: float) -> Step:
    """Offer `rate` changes/s for `seconds` after a second of warm-up, then wait until all is delivered."""
    writers = at.writers(rate, seconds + 1)
    try:
        time.sleep(1)
        backends = at.backends()
        processes_before, backends_before = cpu_us(serve_pids), cpu_us(backends)
        first, begun = at.flow(), time.monotonic()
        flows = [first]
        while (now := time.monotonic()) < begun + seconds:
            time.sleep(min(SAMPLE_EVERY_S, begun + seconds - now))
            flows.append(at.flow())
        took = time.monotonic() - begun
        process_us, backend_us = (
            spent_us(processes_before, cpu_us(serve_pids)),
            spent_us(backends_before, cpu_us(backends)),
        )
        writers.wait()
    finally:
        writers.stop()
    at.deployment.wait_until_settled(120)
    backlogs = [flow.outbox * at.fan_out + flow.queue for flow in flows]
    third = max(1, len(backlogs) // 3)
    growth = statistics.mean(backlogs[-third:]) - statistics.mean(backlogs[:third])
    delivered = flows[-1].events - first.events
    return Step(
        rate,
        (flows[-1].changes - first.changes) / took,
        delivered / took,
        max(backlogs),
        growth <= GROWTH_MAX * delivered * 2 / 3,
        process_us / max(1, delivered),
        backend_us / max(1, delivered),
    )


def search(at: Rig, serve_pids: list[int], start: float, seconds: float, stride: float, *, refine: bool) -> Step:
    """The highest sustained step, coarsely: up by `stride` to the first rate that fails, or down to the first that holds."""
    rate, best, failed = start, None, math.inf
    while best is None or math.isinf(failed):
        step = hold(at, serve_pids, rate, seconds)
        if step.sustained:
            best = step
            if step.writers_are_the_limit:
                return step
            rate *= stride
        else:
            failed = rate
            rate /= stride
    if refine:
        step = hold(at, serve_pids, math.sqrt(best.offered * failed), seconds)
        best = step if step.sustained else best
    return best


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--fan-out", default="1,3", help="receivers per change")
    parser.add_argument("--seconds", type=float, default=4, help="how long a rate is held")
    given = parser.parse_args()
    fan_outs = sorted(int(fan_out) for fan_out in numbers(given.fan_out))
    figures, starts, notes = _figures(fan_outs), dict[int, float](), []
    for _ in range(given.runs):
        with rig() as at:
            at.register()
            at.fill()
            for fan_out in fan_outs:
                at.raise_fan_out(fan_out)
                with at.serving() as serve:
                    # The tables' first rows, and for the others the first requests on fresh connections.
                    at.deployment.wait_until_settled(120)
                    pids = processes_of(serve)
                    first = fan_out not in starts
                    start = starts.get(fan_out, START_RATE.get(fan_out, 500.0))
                    stride = STRIDE_FIRST if first else STRIDE_LATER
                    hold(at, pids, min(start, 500.0), 1)
                    best = search(at, pids, start, given.seconds, stride, refine=first)
                    starts[fan_out] = best.offered
                    if best.writers_are_the_limit:
                        notes.append(f"fan-out {fan_out}: the writers could not commit more than {best.changes:.0f}/s")
                _add(figures, fan_out, best)
            at.check_delivered()
            receiver = at.receivers.name
    writers = "pgbench, 8 sessions" if pgbench_program() else "four processes of Python"
    figures.show(as_json=given.json, notes=[f"receiver: {receiver}; writers: {writers}", *notes])


def _figures(fan_outs: list[int]) -> Figures:
    limits = {1: (3000.0, 5500.0, 150.0, 95.0), 3: (5500.0, 9600.0, 120.0, 75.0)}
    made = []
    for fan_out in fan_outs:
        floor, goal, cpu_floor, cpu_goal = limits.get(fan_out, (None, None, None, None))
        of_changes = fan_out == 1
        made += [
            Figure(
                f"sustained changes, fan-out {fan_out}",
                "changes/s",
                floor if of_changes else None,
                goal if of_changes else None,
            ),
            Figure(
                f"sustained deliveries, fan-out {fan_out}",
                "deliveries/s",
                None if of_changes else floor,
                None if of_changes else goal,
            ),
            Figure(f"backlog at that rate, fan-out {fan_out}", "deliveries"),
            Figure(f"CPU per delivery, fan-out {fan_out}", "us", cpu_floor, cpu_goal),
            Figure(f"  of it our processes, fan-out {fan_out}", "us"),
            Figure(f"  of it their PostgreSQL sessions, fan-out {fan_out}", "us"),
        ]
    return Figures(*made)


def _add(figures: Figures, fan_out: int, best: Step) -> None:
    figures[f"sustained changes, fan-out {fan_out}"].add(best.changes)
    figures[f"sustained deliveries, fan-out {fan_out}"].add(best.deliveries)
    figures[f"backlog at that rate, fan-out {fan_out}"].add(best.backlog_largest, best.backlog_largest)
    figures[f"CPU per delivery, fan-out {fan_out}"].add(best.process_us + best.backend_us)
    figures[f"  of it our processes, fan-out {fan_out}"].add(best.process_us)
    figures[f"  of it their PostgreSQL sessions, fan-out {fan_out}"].add(best.backend_us)


if __name__ == "__main__":
    main()
