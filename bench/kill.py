"""SIGKILL of the process that routes and delivers, under load: for how long receivers hear nothing, and what comes twice.

    .venv/bin/python bench/kill.py [--rate 500] [--runs 5] [--json]

One kill a run, all on one deployment, twelve seconds apart so that the supervisor restarts at its shortest wait. 20 receivers over
TLS in a process that writes each request down. The gap is the longest time between two requests, at whichever
receiver, from the kill to the end of the run. Afterwards every event must have been received, and each duplicate be byte for
byte the same.
"""

from __future__ import annotations

import os
import signal
import time
from itertools import pairwise

from figures import Figure, Figures, options
from receivers import Written
from rig import Rig, engine_of, rig

from harness.process import ClarionProcess
from harness.receiver import Received

BETWEEN_KILLS_S = 12.0
WARM_UP_S = 8.0


def kill_under_load(at: Rig, serve: ClarionProcess, rate: float, kills: int) -> list[float]:
    """When the kills were, in Unix seconds, once everything is delivered."""
    moments = []
    writers = at.writers(rate, WARM_UP_S + kills * BETWEEN_KILLS_S)
    try:
        time.sleep(WARM_UP_S)
        for _ in range(kills):
            victim = engine_of(serve)
            moments.append(time.time())
            os.kill(victim, signal.SIGKILL)
            time.sleep(BETWEEN_KILLS_S)
        writers.wait()
    finally:
        writers.stop()
    at.deployment.wait_until_settled(60)
    return moments


def gaps_and_duplicates(received: list[Received], moments: list[float]) -> list[tuple[float, int]]:
    """For each kill the longest gap in seconds, and how many requests came that had come before."""
    first: dict[str, bytes] = {}
    repeated: list[float] = []
    for request in received:
        before = first.setdefault(request.message_id, request.body)
        if before is not request.body:
            assert before == request.body, "another body under the same webhook-id"
            repeated.append(request.at)
    arrivals = sorted(request.at for request in received)
    found = []
    for moment in moments:
        until = moment + BETWEEN_KILLS_S - 1
        last_before = max(at for at in arrivals if at <= moment)
        around = [last_before, *(at for at in arrivals if moment < at < until)]
        found.append((max(b - a for a, b in pairwise(around)), sum(moment < at < until for at in repeated)))
    return found


def main() -> None:
    parser = options(__doc__, runs=5)
    parser.add_argument("--rate", type=float, default=500, help="changes per second")
    given = parser.parse_args()
    figures = Figures(
        Figure("gap seen by receivers after SIGKILL", "s", 1, 0.3),
        Figure("duplicates after SIGKILL", "requests", 100, 16),
        Figure("lost", "events", 0, 0),
    )
    with rig() as at:
        at.register(written_down=True)
        at.raise_fan_out(1)
        at.fill()
        with at.serving() as serve:
            at.deployment.wait_until_settled(120)
            moments = kill_under_load(at, serve, given.rate, given.runs)
        assert isinstance(at.receivers, Written)
        received = at.receivers.process.received()
        for gap_s, duplicates in gaps_and_duplicates(received, moments):
            figures["gap seen by receivers after SIGKILL"].add(gap_s, gap_s)
            figures["duplicates after SIGKILL"].add(duplicates, duplicates)
        ((events,),) = at.deployment.rows("SELECT count(*) FROM clarion.events WHERE status = 'DELIVERED'")
        figures["lost"].add(events - len({request.message_id for request in received}))
    figures.show(as_json=given.json, notes=[f"{len(received)} requests at {given.rate:.0f} changes/s"])


if __name__ == "__main__":
    main()
