"""When a receiver that never succeeds is given up, and what of that has to outlive the worker. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from clarion.core.clock import Now
from clarion.delivery.breaker import counts
from clarion.sender.outcome import Attempt, Outcome

GIVEN_UP_AFTER = timedelta(days=5)
"""How long a receiver fails, counted from its first failure since its last success, until it is given up."""
FAILURES_MIN = 20
"""Failures from which on it is given up: a receiver that is seldom asked has not had its chance after five days."""
TOLD_EVERY_S = 60
_SUCCEEDED = Outcome.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Failing:
    """A receiver without success: since its first failure at `since`, `count` attempts have failed."""

    since: datetime
    count: int


class Health:
    """The successes and failures of one receiver. `failing` is what was stored of it by whoever served it before."""

    def __init__(self, failing: Failing | None = None) -> None:
        self._failing = failing
        self._told = failing
        self._told_ns = 0
        self._given_up = False

    def finished(self, attempt: Attempt, now: Now) -> bool:
        """Count the outcome of an attempt, be it a probe or not; whether there is something that is not stored."""
        if attempt.outcome is _SUCCEEDED:
            self.clear()
        elif counts(attempt):
            before = self._failing
            self._failing = Failing(now.wall, 1) if before is None else Failing(before.since, before.count + 1)
        return self.untold

    def clear(self) -> None:
        """Begin anew, as after a success."""
        self._failing = None
        self._given_up = False

    def give_up(self, now: Now) -> bool:
        """Whether the receiver is to be disabled; said once, until it begins anew."""
        failing = self._failing
        if failing is None or self._given_up:
            return False
        self._given_up = failing.count >= FAILURES_MIN and now.wall - failing.since >= GIVEN_UP_AFTER
        return self._given_up

    @property
    def untold(self) -> bool:
        """Whether there is something that is not stored."""
        return self._failing is not self._told

    def due(self, now: Now) -> bool:
        """Whether it is to be stored now: when it begins to fail or is well again, otherwise at most once a minute."""
        if not self.untold:
            return False
        if self._failing is None or self._told is None:
            return True
        return now.monotonic_ns - self._told_ns >= TOLD_EVERY_S * 1_000_000_000

    def tell(self, now: Now) -> Failing | None:
        """What is to be stored; None: it does not fail."""
        self._told = self._failing
        self._told_ns = now.monotonic_ns
        return self._failing
