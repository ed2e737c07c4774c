"""How the router paces itself: what a batch may take, and how long to wait between two looks. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RouterPolicy:
    """How the router paces itself; times in seconds, those with `_ns` in nanoseconds.

    Batches have at most `shared_rows_max` rows while one organisation's bulk goes through and another's rows came within
    the last `shared_for_ns`: whoever comes next waits for the batch under way. Beside a bulk the others' rows are looked for
    every `others_every_ns`; after a look that took longer than `others_dear_ns`, and would again, for three times as long not.
    A batch ends with the row at which it has `batch_events_max` events, or conditions and templates have taken `evaluating_ns`
    (`evaluating_shared_ns` if several organisations had rows in a look within `shared_for_ns`);
    between two looks, when nothing is left, `preparing_ns` go to those that nobody asked yet.

    A look follows the one before after `poll_s`, and after `poll_filling_s` while more than `filling_rows_per_s` come: a look and a
    batch cost as much as some forty rows. After one that found nothing, the database looks instead for `waiting_s`, as often, and
    every `poll_idle_s` from the second time in a row.

    A standby asks for the router's lock every `standby_every_s`, at first sooner: the session of a router that has just died may end
    a moment after its successor began.

    A row that the database refuses is tried again every `refused_again_s`; no more than `refused_max` are waited for.
    """

    batch_rows_max: int = 500
    batch_events_max: int = 5_000
    shared_rows_max: int = 50
    shared_for_ns: int = 1_000_000_000
    poll_s: float = 0.010
    poll_idle_s: float = 0.020
    poll_filling_s: float = 0.020
    filling_rows_per_s: float = 1_500
    waiting_s: float = 0.2
    others_every_ns: int = 5_000_000
    others_dear_ns: int = 10_000_000
    evaluating_ns: int = 20_000_000
    evaluating_shared_ns: int = 4_000_000
    preparing_ns: int = 5_000_000
    standby_first_s: float = 0.01
    standby_every_s: float = 0.25
    beat_every_s: float = 1.0
    frozen_after_s: float = 10.0
    refused_again_s: float = 60.0
    refused_max: int = 1_000


class Pace:
    """How long to wait between two looks."""

    def __init__(self, policy: RouterPolicy, now_ns: int) -> None:
        """Times are by a monotonic clock, in nanoseconds."""
        self._policy = policy
        self._looked_ns = now_ns
        self._was_crowded = False
        self._was_empty = False

    def pause_s(self, now_ns: int, rows_count: int) -> float:
        """Seconds until the next look, where nothing is left, after one that brought `rows_count` rows and is over now."""
        since_s = (now_ns - self._looked_ns) / 1e9
        self._looked_ns = now_ns
        # Two looks in a row: at 1,000 rows/s, one look in twenty brings half as many again by chance.
        is_crowded = rows_count > self._policy.filling_rows_per_s * since_s
        is_filling, self._was_crowded = is_crowded and self._was_crowded, is_crowded
        is_idle, self._was_empty = not rows_count and self._was_empty, not rows_count
        if is_idle:
            return self._policy.poll_idle_s
        return self._policy.poll_filling_s if is_filling else self._policy.poll_s
