"""What `clarion demo --once` found, as a table for people and as JSON for programs."""

from __future__ import annotations

from typing import Any, Final

from clarion.demo.integration import INTEGRATIONS
from clarion.demo.live import delivery_json
from clarion.demo.once import Outcome
from clarion.demo.terminal import Terminal
from clarion.demo.words import quantile

_HEADINGS: Final = ("use", "subscription", "object", "event", "verified", "ms", "what the receiver did")


def outcome_lines(outcome: Outcome, terminal: Terminal) -> list[str]:
    """A heading and six rows; where the terminal is narrow, what the receiver did stands in a line of its own."""
    rows = [
        (
            arrived.use.name,
            INTEGRATIONS[arrived.use.number - 1].subscription,
            ", ".join(dict.fromkeys(one.object_id for one in arrived.deliveries)),
            ", ".join(str(one.event_id) for one in arrived.deliveries),
            " ".join(terminal.plain("✓" if one.is_verified else "✗") for one in arrived.deliveries),
            ", ".join(f"{one.ms:.0f}" for one in arrived.deliveries),
            terminal.plain(arrived.did),
        )
        for arrived in outcome.arrived
    ]
    widths = [max(len(row[column]) for row in (_HEADINGS, *rows)) for column in range(len(_HEADINGS))]
    is_narrow = sum(widths) + 2 * (len(widths) - 1) > terminal.width
    head, last = _cells(_HEADINGS, widths)
    lines = [terminal.style(head.rstrip() if is_narrow else f"{head}  {last}", bold=True)]
    for row in rows:
        head, last = _cells(row, widths)
        lines += [head.rstrip(), f"  {terminal.plain('⇒')} {last}"] if is_narrow else [f"{head}  {last}"]
    return lines


def outcome_json(outcome: Outcome, setup_seconds: float) -> dict[str, Any]:
    """The same, with every delivery that the uses are about."""
    return {
        "ok": True,
        "setup_seconds": round(setup_seconds, 3),
        "seconds": round(outcome.seconds, 3),
        "deliveries": outcome.tally.deliveries_count,
        "verified": outcome.tally.verified_count,
        "ms_median": quantile(outcome.tally.latencies_ms, 0.5),
        "ms_p99": quantile(outcome.tally.latencies_ms, 0.99),
        "uses": [
            {
                "number": arrived.use.number,
                "name": arrived.use.name,
                "receiver": INTEGRATIONS[arrived.use.number - 1].path,
                "subscription": INTEGRATIONS[arrived.use.number - 1].subscription,
                "condition": INTEGRATIONS[arrived.use.number - 1].condition,
                "verified": all(one.is_verified for one in arrived.deliveries),
                "did": arrived.did,
                "deliveries": [delivery_json(one) for one in arrived.deliveries],
            }
            for arrived in outcome.arrived
        ],
    }


def _cells(row: tuple[str, ...], widths: list[int]) -> tuple[str, str]:
    """All cells but the last, padded; and the last."""
    return "  ".join(cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True)), row[-1]
