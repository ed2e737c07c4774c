"""Receivers as they are met in life: each answers by its personality, and writes down what reached it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from clarion.delivery.event import Event
from clarion.sender.outcome import Attempt, Outcome

OK = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of a request, and how many seconds later."""

    after_s: float
    outcome: Outcome
    status_code: int | None = None
    retry_after_s: int | None = None
    ours: bool = False

    def attempt(self, started_at: datetime) -> Attempt:
        return Attempt(
            self.outcome,
            started_at,
            round(self.after_s * 1000),
            self.status_code,
            (),
            b"",
            None,
            None,
            None,
            self.retry_after_s,
            self.ours,
        )


Personality = Callable[[random.Random, int], Answer]
"""Draws the answer to a request about an object."""


def healthy(dice: random.Random, lane: int) -> Answer:
    return Answer(dice.uniform(0.002, 0.05), Outcome.SUCCEEDED, OK)


def slow(dice: random.Random, lane: int) -> Answer:
    return Answer(dice.uniform(1, 8), Outcome.SUCCEEDED, OK)


def hanging(dice: random.Random, lane: int) -> Answer:
    return Answer(15, Outcome.TIMED_OUT)


def failing(dice: random.Random, lane: int) -> Answer:
    return Answer(dice.uniform(0.002, 0.2), Outcome.UNEXPECTED_STATUS, 500)


def choking_on_one_object(dice: random.Random, lane: int) -> Answer:
    return failing(dice, lane) if lane == 1 else healthy(dice, lane)


def asking_for_quiet(dice: random.Random, lane: int) -> Answer:
    if dice.random() < 0.5:
        return healthy(dice, lane)
    status = dice.choice((429, 503))
    return Answer(0.01, Outcome.UNEXPECTED_STATUS, status, dice.choice((None, 0, 1, 30, 600, 86_400)))


def gone(dice: random.Random, lane: int) -> Answer:
    return Answer(dice.uniform(0.002, 0.05), Outcome.UNEXPECTED_STATUS, 410)


def flapping(dice: random.Random, lane: int) -> Answer:
    return healthy(dice, lane) if dice.random() < 0.6 else failing(dice, lane)


def hanging_up(dice: random.Random, lane: int) -> Answer:
    return Answer(dice.uniform(0.001, 2), Outcome.CONNECTION_CLOSED)


def unreachable_by_our_fault(dice: random.Random, lane: int) -> Answer:
    return Answer(dice.uniform(0.001, 2), Outcome.DNS_FAILED, ours=True)


PERSONALITIES: tuple[Personality, ...] = (
    slow,
    hanging,
    failing,
    choking_on_one_object,
    asking_for_quiet,
    gone,
    flapping,
    hanging_up,
    unreachable_by_our_fault,
)


@dataclass(slots=True)
class ModelReceiver:
    """One receiver's server. `received` counts what reached it, by event and round."""

    personality: Personality = healthy
    received: dict[tuple[int, int], int] = field(default_factory=dict)

    def request(self, event: Event, dice: random.Random) -> Answer:
        """The answer to a request that reaches it now; one that fails by our own fault does not reach it."""
        answer = self.personality(dice, int(event.change.object_id))
        if not answer.ours:
            key = (event.event_id, event.round)
            self.received[key] = self.received.get(key, 0) + 1
        return answer
