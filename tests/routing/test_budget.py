"""Who pays for evaluations: whoever makes the router work, and nobody for a host that gives its cores to others."""

from __future__ import annotations

from collections.abc import Callable

from clarion.ledger.change import Captured
from clarion.routing.evaluation import OVER_BUDGET, Evaluator
from clarion.routing.match import Subscription

CHANGE = Captured(1, 1, None, "ITEMS", "c", "42", 1, 1, None, None, None, None, None, old=None, new='{"number":1}')
ASKING = Subscription(1, 1, 1, "ITEMS", "CREATE", "object.number == 1")


def steps(step_ns: int) -> Callable[[], int]:
    """A clock that goes on by so much whenever it is read."""
    now_ns = [0]

    def clock() -> int:
        now_ns[0] += step_ns
        return now_ns[0]

    return clock


def test_a_host_that_is_busy_with_other_things_costs_nobody_an_event() -> None:
    evaluator = Evaluator(steps(50_000_000), steps(5_000))
    for _ in range(1000):
        firings, failures = evaluator.evaluate(CHANGE, (ASKING,))
        assert [firing.subscription for firing in firings] == [ASKING]
        assert not failures


def test_work_is_paid_for_until_the_allowance_is_spent_and_again_when_it_has_filled_up() -> None:
    now_ns = [0]

    def clock() -> int:
        now_ns[0] += 1_000_000
        return now_ns[0]

    evaluator = Evaluator(clock, steps(50_000_000))
    answers = [bool(evaluator.evaluate(CHANGE, (ASKING,))[0]) for _ in range(10)]
    assert answers == [True] * 7 + [False] * 3, "the first is free, then a quarter of a second in pieces of 50 ms"
    assert [failure.message for failure in evaluator.evaluate(CHANGE, (ASKING,))[1]] == [OVER_BUDGET]
    now_ns[0] += 10_000_000_000
    assert evaluator.evaluate(CHANGE, (ASKING,))[0]
