"""What the whole product takes while nothing happens, its database server included.

    .venv/bin/python bench/idle.py [--seconds 30] [--runs 3] [--json]

`clarion serve` with all roles, 20 receivers with subscriptions, no changes. CPU is that of the parent, its children and every
process of the server, to 10 ms, in percent of one core.
"""

from __future__ import annotations

import time

from figures import Figure, Figures, options
from rig import cpu_us, processes_of, rig, spent_us

SETTLE_DOWN_S = 5


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="how long each run looks")
    given = parser.parse_args()
    figures = Figures(
        Figure("idle CPU of the whole product", "% of a core", 6, 3),
        Figure("  of it our processes", "% of a core"),
        Figure("  of it the server", "% of a core"),
    )
    with rig() as at:
        at.register()
        at.raise_fan_out(1)
        with at.serving() as serve:
            at.deployment.wait_until_settled()
            time.sleep(SETTLE_DOWN_S)
            for _ in range(given.runs):
                processes, server = processes_of(serve), at.server()
                begun = time.monotonic()
                processes_before, server_before = cpu_us(processes), cpu_us(server)
                time.sleep(given.seconds)
                took_us = (time.monotonic() - begun) * 1e6
                ours = spent_us(processes_before, cpu_us(processes)) / took_us * 100
                theirs = spent_us(server_before, cpu_us(server)) / took_us * 100
                figures["idle CPU of the whole product"].add(ours + theirs)
                figures["  of it our processes"].add(ours)
                figures["  of it the server"].add(theirs)
    figures.show(as_json=given.json)


if __name__ == "__main__":
    main()
