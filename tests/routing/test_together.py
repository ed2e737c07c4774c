"""Conditions asked together: nobody can tell, and it does happen."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.expressions.program import ExpressionRefused, load_list, load_program
from clarion.expressions.row import Values
from clarion.ledger.change import Captured
from clarion.routing.evaluation import OVER_BUDGET, Evaluator, Failure, Firing
from clarion.routing.match import Subscription
from clarion.routing.together import _LISTS_MAX, TOGETHER_AFTER, TOGETHER_MAX, Together


def change(**new: Any) -> Captured:
    return Captured(1, 1, None, "ITEMS", "c", "42", 1, 1, None, None, None, None, None, old=None, new=json.dumps(new))


def listening(*conditions: str, template: str | None = None) -> tuple[Subscription, ...]:
    return tuple(
        Subscription(number, 1, number, "ITEMS", "CREATE", condition, None, template)
        for number, condition in enumerate(conditions, start=1)
    )


def distinct(count: int) -> list[str]:
    return [f"object.number + 0 == {number}" for number in range(count)]


def read(row: Captured) -> Values:
    values = Values(row)
    values.activation()
    return values


def together_after(subscriptions: tuple[Subscription, ...], changes: int = TOGETHER_AFTER + 10) -> Together:
    together = Together(lambda: 0, load_program)
    for _ in range(changes):
        together.answers(subscriptions, subscriptions, read(change(number=1)))
    return together


def test_after_some_changes_all_conditions_are_answered_together() -> None:
    conditions = distinct(3 * TOGETHER_MAX)
    subscriptions = listening(*conditions, conditions[0])
    together = Together(lambda: 0, load_program)
    for _ in range(TOGETHER_AFTER):
        assert not together.answers(subscriptions, subscriptions, read(change(number=1)))
    for _ in range(3):
        together.answers(subscriptions, subscriptions, read(change(number=1)))
    answers = together.answers(subscriptions, subscriptions, read(change(number=7)))
    assert answers == {condition: condition == "object.number + 0 == 7" for condition in conditions}


def test_no_more_lists_are_kept_than_there_is_room_for_and_the_rest_is_asked_alone() -> None:
    together = Together(lambda: 0, load_program)
    conditions = distinct((_LISTS_MAX + 10) * TOGETHER_MAX)
    subscriptions = listening(*conditions)
    for _ in range(TOGETHER_AFTER + _LISTS_MAX + 20):
        answers = together.answers(subscriptions, subscriptions, read(change(number=1)))
    assert len(answers) == _LISTS_MAX * TOGETHER_MAX


def test_one_that_fails_takes_the_answers_of_the_others_in_its_list_but_not_for_long() -> None:
    conditions = distinct(TOGETHER_MAX - 1)
    subscriptions = listening(*conditions, "object.absent == 1")
    evaluator = Evaluator(lambda: 0, lambda: 0)
    for _ in range(TOGETHER_AFTER + 10):
        evaluator.evaluate(change(number=1), subscriptions)
    assert set(evaluator._together.answers(subscriptions, subscriptions, read(change(number=1)))) == set(conditions)


def test_what_goes_through_lists_and_what_cannot_stand_in_one_is_asked_alone() -> None:
    deep = "object.number == " + "(" * 30 + "1" + " + 1)" * 30
    with pytest.raises(ExpressionRefused):
        load_list([deep] * 5)
    loops = [f"[{number}].exists(x, x == object.number)" for number in range(8)]
    for conditions in (loops, [*distinct(4), deep]):
        subscriptions = listening(*conditions)
        assert not together_after(subscriptions).answers(subscriptions, subscriptions, read(change(number=1)))


def test_a_list_that_is_slow_does_not_count() -> None:
    now = [0]

    def clock() -> int:
        now[0] += 300_000
        return now[0]

    subscriptions = listening(*distinct(8))
    together = Together(clock, load_program)
    for _ in range(TOGETHER_AFTER + 50):
        assert not together.answers(subscriptions, subscriptions, read(change(number=1)))


_CONDITIONS = [
    *distinct(4),
    'object.text == "x" // and so on',
    '"""[(""" == object.text',
    "object.text",
    "object.number",
    "object.flag",
    "object.absent == 1",
    "object.number > 1 && object.text > 1",
    "1 / object.number == 1",
    "object.list.exists(x, x == object.number)",
    "object.list[1] == object.number",
    "object.text.matches(object.text)",
    "true || object.absent",
    "object.text.startsWith('x') ? object.flag : object.absent",
    "not a condition any more (",
    "true), (false",
]
_rows = st.fixed_dictionaries(
    {
        "number": st.integers(0, 3),
        "text": st.sampled_from(["", "x", "[(", "("]),
        "flag": st.booleans() | st.none(),
        "list": st.lists(st.integers(0, 3), max_size=2),
    }
)


@settings(max_examples=60)
@given(st.lists(st.sampled_from(_CONDITIONS), min_size=5, max_size=40), st.lists(_rows, min_size=1, max_size=8))
def test_asked_together_or_alone_the_answers_and_failures_are_the_same(
    conditions: list[str], rows: list[dict[str, Any]]
) -> None:
    subscriptions = listening(*conditions)
    together = Evaluator(lambda: 0, lambda: 0)
    for place in range(TOGETHER_AFTER + 24):
        row = change(**rows[place % len(rows)])
        firings: list[Firing] = []
        failures: list[Failure] = []
        for subscription in subscriptions:
            fired, failed = Evaluator(lambda: 0, lambda: 0).evaluate(row, (subscription,))
            firings += fired
            failures += failed
        assert together.evaluate(row, subscriptions) == (firings, failures)


def test_who_has_spent_its_budget_gets_no_answer_from_a_list_either() -> None:
    dear = '{"sum": object.list.map(x, object.list.map(y, string(x) + string(y)))}'
    frugal = listening(*distinct(6))
    spender = Subscription(7, 1, 7, "ITEMS", "CREATE", "object.number + 0 == 7", None, dear)
    subscriptions = (*frugal, spender)
    evaluator = Evaluator(time.monotonic_ns, time.thread_time_ns)
    for _ in range(TOGETHER_AFTER + 10):
        evaluator.evaluate(change(number=1), subscriptions)
    row = change(number=7, list=list(range(60)))
    for _ in range(2000):
        _, failures = evaluator.evaluate(row, subscriptions)
        if failures:
            break
    assert failures == [Failure(spender, False, OVER_BUDGET)]
