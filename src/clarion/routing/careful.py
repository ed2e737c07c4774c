"""Which rows a careful router takes next, and which it routes without evaluating them. Pure.

A router that follows one which ended badly writes down which rows it is about to evaluate, and takes that back once the
evaluation is over. Rows that were being evaluated when a router died are suspected. Twice in the same rows: only their
first half is tried, and of that again a half with every further death; a half that passes leaves the other one
suspected, and tried by halves without a further death. A row counts as poisonous only once a router died twice while it
evaluated that row alone, so that deaths of other causes end in a row of small batches and mark nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

DEATHS_MAX = 2
"""Deaths after which rows are bisected, and a single row is no longer evaluated."""


@dataclass(frozen=True, slots=True)
class Marker:
    """Rows about to be evaluated, in the order in which they are routed, and how many deaths stand against them.

    A part of rows that are bisected starts with one: the next death halves it again. A single row starts with none.
    """

    outbox_ids: tuple[int, ...]
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class Portion:
    """What to take next, whether to evaluate it, and what stays suspected once it is written."""

    marker: Marker
    evaluated: bool
    rest: Marker | None = None


def next_portion(marker: Marker) -> Portion:
    """What to take of these rows, of which there is at least one: all of them, or the first half."""
    if marker.deaths < DEATHS_MAX:
        return Portion(marker, evaluated=True)
    ids = marker.outbox_ids
    if len(ids) == 1:
        return Portion(marker, evaluated=False)
    half = len(ids) // 2
    rest = ids[half:]
    return Portion(
        Marker(ids[:half], 0 if half == 1 else DEATHS_MAX - 1),
        evaluated=True,
        rest=Marker(rest, 0 if len(rest) == 1 else DEATHS_MAX),
    )


def still_waiting(marker: Marker, outbox_ids: tuple[int, ...]) -> Marker:
    """The marker for those of its rows that were found again; no deaths stand against other rows than it names."""
    return marker if outbox_ids == marker.outbox_ids else Marker(outbox_ids)
