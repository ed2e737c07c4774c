"""Whether and when a failed event is tried again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from clarion.core.clock import Now, Random
from clarion.delivery.event import Event, Reason, Status
from clarion.delivery.step import Ending
from clarion.sender.outcome import Attempt

RETRY_AFTER_S_MAX = 86_400
"""The longest Retry-After that is obeyed: 24 hours."""


def next_wait_ms(failed_count: int, schedule_s: Sequence[int], random: Random) -> int | None:
    """Milliseconds until the next attempt, or None after the last one.

    `failed_count` >= 1 counts the attempts that failed so far. The result lies in [0.5, 1.5] x the schedule's step.
    Source: Standard Webhooks 1.0.0, example schedule and advice to add jitter.
    """
    if failed_count >= len(schedule_s):
        return None
    return round(schedule_s[failed_count] * 1000 * random.uniform(0.5, 1.5))


def own_fault_wait_ms(fault_count: int, random: Random) -> int:
    """Milliseconds until an attempt that failed by our own fault is made again: 5 s, doubling up to 5 min, with jitter.

    `fault_count` >= 1 counts such attempts of the event so far.
    """
    wait_ms = min(5_000 << min(fault_count - 1, 6), 300_000)
    return round(wait_ms * random.uniform(0.5, 1.5))


def wait_with_retry_after_ms(wait_ms: int, retry_after_s: int | None) -> int:
    """The wait, but not before the receiver said it wants to be asked again."""
    if retry_after_s is None:
        return wait_ms
    return max(wait_ms, min(retry_after_s, RETRY_AFTER_S_MAX) * 1000)


def not_before(due_at: datetime | None, retry_after_s: int | None, now: Now) -> datetime | None:
    """When a probed event is due: as before, but not before the receiver said it wants to be asked again."""
    if retry_after_s is None:
        return due_at
    asked_for = now.wall + timedelta(seconds=min(retry_after_s, RETRY_AFTER_S_MAX))
    return asked_for if due_at is None else max(due_at, asked_for)


def after_failure(
    event: Event, attempt: Attempt, schedule_s: Sequence[int], random: Random, now: Now, *, probe: bool
) -> Ending | None:
    """How the event ends with this failure; None: it does not, and is due at its `due_at`.

    What was our own fault, and a probe, spend none of its attempts, and do not count as failures of its object.
    """
    if event.is_test:
        return Ending(Status.FAILED, Reason.TEST_FAILED)
    if probe:
        # It was sent to learn about the receiver: what is left to the event of its schedule stands.
        event.due_at = not_before(event.due_at, attempt.retry_after_s, now)
        return None
    if attempt.ours:
        wait_ms: int | None = own_fault_wait_ms(event.attempts_count - event.spent_count, random)
    else:
        event.spent_count += 1
        event.first_failed_at = event.first_failed_at or now.wall
        wait_ms = next_wait_ms(event.spent_count, schedule_s, random)
    if wait_ms is None:
        return Ending(Status.FAILED, Reason.ATTEMPTS_EXHAUSTED)
    event.due_at = now.wall + timedelta(milliseconds=wait_with_retry_after_ms(wait_ms, attempt.retry_after_s))
    return None
